//! `rm`: an instance goes, with its config, its state and, unless they are to be kept, its logs.

use orch_core::{ExitCode, Failure};
use orchestratord::compose;
use pool_manager::alone;

use crate::arguments::{RmArguments, Selection};
use crate::context::Context;
use crate::ending::CommandResult;
use crate::runtime::block_on;
use crate::steps::carry_out;
use crate::targets::{Plane, Target, choose};

pub(super) fn run(context: &Context, arguments: &RmArguments) -> CommandResult {
    let plane = Plane::find(context)?;
    let selection = Selection { names: arguments.names.clone(), all: false, tag: None };
    let chosen = choose(context, &plane, &selection, |_| false)?;
    carry_out(context, "removing", &chosen, &|target: &Target| {
        remove(context, &plane, target, arguments).map(|()| "is removed".to_owned())
    })
}

fn remove(context: &Context, plane: &Plane, target: &Target, arguments: &RmArguments) -> Result<(), Failure> {
    let (force, keep_logs) = (arguments.force, arguments.keep_logs);
    match (plane.client(), &target.instance) {
        (Some(client), _) => block_on(client.remove(&target.name, force, keep_logs)),
        (None, Some(instance)) => {
            alone::remove(&compose::open_node(context.home()?)?, instance, force, keep_logs)
        }
        (None, None) => Err(Failure::new(ExitCode::General, "nobody can remove it")),
    }
}
