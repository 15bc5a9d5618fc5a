//! `config`: instance configs checked, shown and changed.

pub(super) mod facts;
mod init;
mod migrate;
pub(super) mod set;
mod show;
mod validate;

use crate::arguments::{ConfigAction, SchemaKind};
use crate::context::Context;
use crate::ending::CommandResult;

pub(super) fn run(context: &Context, action: ConfigAction) -> CommandResult {
    match action {
        ConfigAction::Validate { path, runtime } => validate::validate(context, path.as_deref(), runtime),
        ConfigAction::Lint => validate::lint_home(context),
        ConfigAction::Show { name } => show::run(context, &name),
        ConfigAction::Schema { kind } => schema(context, kind),
        ConfigAction::Init { force } => init::run(context, force),
        ConfigAction::Migrate { apply } => migrate::run(context, apply),
        ConfigAction::Set { name, assignments } => set::run(context, &name, &assignments),
    }
}

/// A schema is JSON, asked for or not.
fn schema(context: &Context, kind: SchemaKind) -> CommandResult {
    let schema = match kind {
        SchemaKind::Instance => instance_config::json_schema(),
        SchemaKind::Home => orch_runtime::Settings::json_schema(),
        SchemaKind::Job => workflow_spec::job_schema(),
    };
    Ok(context.printer.document(&schema)?)
}
