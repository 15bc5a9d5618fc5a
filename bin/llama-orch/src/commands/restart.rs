//! `restart`: stop and start under one lock; a stopped instance is started.

use orch_core::{ExitCode, Failure};
use orchestratord::compose;
use pool_manager::alone;

use crate::arguments::RestartArguments;
use crate::commands::unlock;
use crate::commands::up::{ready_words, tell_findings};
use crate::context::Context;
use crate::ending::CommandResult;
use crate::runtime::block_on;
use crate::steps::{Warnings, carry_out};
use crate::targets::{Plane, Target, choose, warn_of_denied};

/// Requests in flight may take so long to finish.
const DRAIN: std::time::Duration = std::time::Duration::from_secs(10);

pub(super) fn run(context: &Context, arguments: &RestartArguments) -> CommandResult {
    let plane = Plane::find(context)?;
    let chosen = choose(context, &plane, &arguments.selection, |_| false)?;
    let warnings = Warnings::default();
    tell_findings(context, &plane, &chosen, &warnings)?;
    carry_out(context, "restarting", &chosen, &|target: &Target| {
        let plane = &plane.without_daemon(unlock::before_step(context, target, arguments.force_unlock)?);
        restart(context, plane, target, arguments, &warnings)?;
        ready_words(context, plane, target, arguments.wait)
    })
}

fn restart(
    context: &Context,
    plane: &Plane,
    target: &Target,
    arguments: &RestartArguments,
    warnings: &Warnings,
) -> Result<(), Failure> {
    warn_of_denied(context, plane, target)?;
    let (force, limit) = (arguments.force, arguments.wait.limit());
    match (plane.client(), &target.instance) {
        (Some(client), _) => block_on(client.restart(&target.name, force, DRAIN, limit)),
        (None, Some(instance)) => {
            let node = compose::open_node(context.home()?)?;
            for warning in block_on(alone::restart(&node, instance, force, limit))? {
                warnings.tell(context, &format!("{}: {warning}", target.name));
            }
            Ok(())
        }
        (None, None) => Err(Failure::new(ExitCode::General, "nobody can restart it")),
    }
}
