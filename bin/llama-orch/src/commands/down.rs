//! `down`: the whole process tree ends, and stays down.

use std::time::Duration;

use orch_core::{DesiredState, ExitCode, Failure, InstanceName};
use orchestratord::compose;
use pool_manager::alone;
use pool_manager::view::InstanceView;

use crate::arguments::DownArguments;
use crate::commands::unlock;
use crate::context::Context;
use crate::ending::CommandResult;
use crate::runtime::block_on;
use crate::steps::carry_out;
use crate::targets::{
    Chosen, Plane, Target, choose, is_sweeping, reach_remnant, running_remnants, warn_of_denied,
};

/// Requests in flight may take so long to finish.
const DRAIN: Duration = Duration::from_secs(10);

pub(super) fn run(context: &Context, arguments: &DownArguments) -> CommandResult {
    let plane = Plane::find(context)?;
    let mut chosen = choose(context, &plane, &arguments.selection, is_down)?;
    for choice in &mut chosen {
        reach_remnant(context, choice)?;
    }
    if arguments.selection.all {
        chosen.extend(running_remnants(context, &plane)?);
    }
    let sweeping = is_sweeping(&arguments.selection);
    carry_out(context, "stopping", &chosen, &|target: &Target| {
        let plane = &plane.without_daemon(unlock::before_step(context, target, arguments.force_unlock)?);
        match stop(context, plane, target, arguments.force, arguments.timeout) {
            Err(failure) if sweeping && failure.exit == ExitCode::NotRunning => Ok("was stopped".to_owned()),
            result => result.map(|()| "is stopped".to_owned()),
        }
    })
}

/// Stops what a command in the foreground has started.
pub(super) fn stop_all(context: &Context, plane: &Plane, chosen: &[Chosen]) -> CommandResult {
    carry_out(context, "stopping", chosen, &|target: &Target| {
        stop(context, plane, target, false, DRAIN).map(|()| "is stopped".to_owned())
    })
}

fn stop(
    context: &Context,
    plane: &Plane,
    target: &Target,
    force: bool,
    drain: Duration,
) -> Result<(), Failure> {
    warn_of_denied(context, plane, target)?;
    match (plane.client(), &target.instance) {
        (Some(client), _) => block_on(client.down(&target.name, force, drain)),
        (None, Some(instance)) => alone::down(&compose::open_node(context.home()?)?, instance, force),
        (None, None) => {
            let name = InstanceName::new(&target.name)
                .map_err(|error| Failure::new(ExitCode::InstanceNotFound, error.to_string()))?;
            alone::down_by_name(&compose::open_node(context.home()?)?, &name, force)
        }
    }
}

/// Neither running nor wanted.
fn is_down(row: &InstanceView) -> bool {
    !row.status.has_process() && row.desired_state == DesiredState::Stopped
}
