//! `token`: API keys, made, listed and revoked; through the daemon where one lives, else in the home's store.

use orch_api::{KeyView, RevokedKey};
use orch_core::Failure;
use orchestratord::keys;

use crate::arguments::{TokenAction, TokenArguments};
use crate::context::Context;
use crate::ending::CommandResult;
use crate::runtime::block_on;
use crate::targets::Plane;
use crate::words::or_dash;

const HEADINGS: [&str; 11] = [
    "ID",
    "NAME",
    "SCOPES",
    "MODELS",
    "RPM",
    "TPM",
    "CONCURRENCY",
    "BUDGET",
    "USED",
    "PRIORITY",
    "LAST USED",
];

pub(super) fn run(context: &Context, action: TokenAction) -> CommandResult {
    match action {
        TokenAction::Create(arguments) => create(context, arguments),
        TokenAction::List => list(context),
        TokenAction::Revoke { key } => revoke(context, &key),
    }
}

fn create(context: &Context, arguments: TokenArguments) -> CommandResult {
    let order = arguments.order();
    let plane = Plane::find(context)?;
    let created = match plane.client() {
        Some(client) => block_on(client.create_key(&order))?,
        None => keys::create_key(context.home()?, order)?,
    };
    if context.printer.json() {
        context.printer.document(&created)?;
    } else {
        let scopes: Vec<&str> = created.scopes.iter().map(|scope| scope.label()).collect();
        context.printer.pairs(&[
            ("id", created.id),
            ("name", created.name),
            ("scopes", scopes.join(",")),
            ("token", created.token),
        ])?;
    }
    context.talk.note("keep the token: it is shown only now, and nobody can show it again");
    context.talk.note(
        "keys are required now: every request needs one, as `Authorization: Bearer …` or `x-api-key`; commands of this \
         home need none",
    );
    Ok(())
}

fn list(context: &Context) -> CommandResult {
    let keys = known(context)?;
    if context.printer.json() {
        return Ok(context.printer.document(&keys)?);
    }
    let rows: Vec<Vec<String>> = keys.iter().map(cells).collect();
    Ok(context.printer.table(&HEADINGS, &rows)?)
}

fn known(context: &Context) -> Result<Vec<KeyView>, Failure> {
    match Plane::find(context)?.client() {
        Some(client) => block_on(client.keys()),
        None => keys::stored_keys(context.home()?),
    }
}

fn cells(key: &KeyView) -> Vec<String> {
    let scopes: Vec<&str> = key.scopes.iter().map(|scope| scope.label()).collect();
    vec![
        key.id.clone(),
        key.name.clone(),
        scopes.join(","),
        or_dash(key.models.as_ref().map(|models| models.join(","))),
        or_dash(key.rpm),
        or_dash(key.tpm),
        or_dash(key.concurrency),
        or_dash(key.budget),
        key.spent.to_string(),
        or_dash(key.priority),
        or_dash(key.last_used_at.as_ref()),
    ]
}

fn revoke(context: &Context, selector: &str) -> CommandResult {
    let revoked = match Plane::find(context)?.client() {
        Some(client) => block_on(client.revoke_key(selector))?,
        None => keys::revoke_key(context.home()?, selector)?,
    };
    if context.printer.json() {
        context.printer.document(&revoked)?;
    } else {
        context.printer.line(format_args!("{} is revoked", revoked.name))?;
    }
    if revoked.keys_left == 0 {
        tell_of_the_open_home(context, &revoked);
    }
    Ok(())
}

fn tell_of_the_open_home(context: &Context, revoked: &RevokedKey) {
    context.talk.warning(&format!(
        "{} was the last key that was made: on loopback every program of this machine is served without one again, \
         unless LLORCH_API_TOKEN or auth.tokens_file names any",
        revoked.name
    ));
}
