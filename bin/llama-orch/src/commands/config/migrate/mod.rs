//! `config migrate`: an older home brought up to date; first shown, then, with `--apply`, done.

mod apply;
mod plan;
mod show;

use crate::context::Context;
use crate::ending::CommandResult;
use plan::Plan;

pub(super) fn run(context: &Context, apply: bool) -> CommandResult {
    let plan = Plan::make(context)?;
    if !apply || plan.is_empty() {
        return show::preview(context, &plan);
    }
    let done = apply::run(context)?;
    show::applied(context, &done)?;
    // Everything else is done by now: a database that cannot be brought over does not hold the configs back.
    done.state.map(|_| ()).map_err(Into::into)
}
