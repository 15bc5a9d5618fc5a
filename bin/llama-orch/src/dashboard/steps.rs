//! Steps on an instance, each in a thread of its own: the same calls that `up`, `down` and `restart` make.

use std::sync::Arc;
use std::sync::mpsc::Sender;
use std::time::Duration;

use orch_core::Failure;
use orchestratord::client::DaemonClient;
use orchestratord::compose;
use pool_manager::alone;

use super::feed::Watched;
use super::model::{Message, Step, StepKind};
use crate::context::Context;
use crate::runtime::block_on;
use crate::targets::Plane;

/// How long a start is waited for; the engine is left loading then.
const READY_LIMIT: Duration = Duration::from_mins(2);
/// Requests in flight may take so long to finish.
const DRAIN: Duration = Duration::from_secs(10);

/// Begins a step; its end comes as a message.
pub(super) fn begin(context: &Arc<Context>, step: Step, sender: &Sender<Message>) {
    let (context, watched) = (Arc::clone(context), Watched(sender.clone()));
    std::thread::spawn(move || {
        let outcome = carry_out(&context, &step);
        // Nobody listens any more: the dashboard was closed meanwhile.
        let _ = watched.0.send(Message::StepEnded { step, outcome });
    });
}

fn carry_out(context: &Context, step: &Step) -> Result<String, Failure> {
    let warnings = match Plane::find(context)? {
        Plane::Remote(client) | Plane::Daemon(client) => ask(&client, step).map(|()| Vec::new()),
        Plane::Alone => do_alone(context, step),
    };
    let mut words = match step.kind {
        StepKind::Up | StepKind::Restart => "is ready".to_owned(),
        StepKind::Down => "is stopped".to_owned(),
    };
    for warning in warnings? {
        words.push_str("; ");
        words.push_str(&warning);
    }
    Ok(words)
}

fn ask(client: &DaemonClient, step: &Step) -> Result<(), Failure> {
    let name = &step.instance;
    match step.kind {
        StepKind::Up => block_on(client.up(name, Some(READY_LIMIT))),
        StepKind::Down => block_on(client.down(name, false, DRAIN)),
        StepKind::Restart => block_on(client.restart(name, false, DRAIN, Some(READY_LIMIT))),
    }
}

fn do_alone(context: &Context, step: &Step) -> Result<Vec<String>, Failure> {
    let catalog = context.catalog()?;
    let instance = catalog.select(&step.instance)?;
    let node = compose::open_node(context.home()?)?;
    match step.kind {
        StepKind::Up => block_on(alone::up(&node, instance, Some(READY_LIMIT))),
        StepKind::Down => alone::down(&node, instance, false).map(|()| Vec::new()),
        StepKind::Restart => block_on(alone::restart(&node, instance, false, Some(READY_LIMIT))),
    }
}
