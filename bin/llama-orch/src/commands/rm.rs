//! `rm`: an instance goes, with its config, its state and, unless they are to be kept, its logs.

use instance_config::BrokenInstance;
use orch_core::{ExitCode, Failure, InstanceName};
use orchestratord::compose;
use pool_manager::alone;

use crate::arguments::{RmArguments, Selection};
use crate::commands::unlock;
use crate::context::Context;
use crate::ending::CommandResult;
use crate::runtime::block_on;
use crate::steps::carry_out;
use crate::targets::{Plane, Target, choose, reach_remnant, warn_of_denied};

pub(super) fn run(context: &Context, arguments: &RmArguments) -> CommandResult {
    let plane = Plane::find(context)?;
    let selection = Selection { names: arguments.names.clone(), all: false, tag: None };
    let mut chosen = choose(context, &plane, &selection, |_| false)?;
    let broken = match &plane {
        Plane::Remote(_) => Vec::new(),
        Plane::Daemon(_) | Plane::Alone => context.catalog()?.broken,
    };
    for choice in &mut chosen {
        reach_remnant(context, choice)?;
        if choice.target.is_err() && broken.iter().any(|it| it.name == choice.name) {
            choice.target = Ok(Target { name: choice.name.clone(), instance: None, remnant: true });
        }
    }
    carry_out(context, "removing", &chosen, &|target: &Target| {
        unlock::before_step(context, target, false)?;
        remove(context, &plane, target, &broken, arguments).map(|()| "is removed".to_owned())
    })
}

fn remove(
    context: &Context,
    plane: &Plane,
    target: &Target,
    broken: &[BrokenInstance],
    arguments: &RmArguments,
) -> Result<(), Failure> {
    let (force, keep_logs) = (arguments.force, arguments.keep_logs);
    warn_of_denied(context, plane, target)?;
    match (plane.client(), &target.instance) {
        (Some(client), _) => block_on(client.remove(&target.name, force, keep_logs)),
        (None, Some(instance)) => {
            alone::remove(&compose::open_node(context.home()?)?, instance, force, keep_logs)
        }
        (None, None) => {
            let name = InstanceName::new(&target.name)
                .map_err(|error| Failure::new(ExitCode::InstanceNotFound, error.to_string()))?;
            let config = broken.iter().find(|it| it.name == target.name).map(|it| it.path.as_path());
            alone::remove_remnant(&compose::open_node(context.home()?)?, &name, config, force, keep_logs)
        }
    }
}
