//! `node`: machines with engines, and keeping requests from them.

use std::time::Duration;

use orch_api::NodeView;
use orch_core::{ExitCode, Failure};
use orchestratord::client::DaemonClient;

use crate::arguments::NodeAction;
use crate::context::Context;
use crate::ending::CommandResult;
use crate::runtime::block_on;
use crate::targets::Plane;
use crate::words::or_dash;

const HEADINGS: [&str; 5] = ["NODE", "STATE", "CORDONED", "VERSION", "INSTANCES"];

pub(super) fn run(context: &Context, action: &NodeAction) -> CommandResult {
    let plane = Plane::find(context)?;
    let client = plane.client().ok_or_else(no_daemon)?;
    match action {
        NodeAction::List => list(context, client),
        NodeAction::Cordon { node } => set(context, client, node.as_deref(), true),
        NodeAction::Uncordon { node } => set(context, client, node.as_deref(), false),
        NodeAction::Drain { node, deadline } => drain(context, client, node.as_deref(), *deadline),
    }
}

fn no_daemon() -> Failure {
    Failure::new(ExitCode::DaemonNotRunning, "the daemon is not running: it alone sends requests to nodes")
        .hint("llama-orch daemon start")
}

fn list(context: &Context, client: &DaemonClient) -> CommandResult {
    let nodes = block_on(client.nodes())?;
    if context.printer.json() {
        return Ok(context.printer.document(&nodes)?);
    }
    let rows: Vec<Vec<String>> = nodes.iter().map(cells).collect();
    Ok(context.printer.table(&HEADINGS, &rows)?)
}

fn cells(node: &NodeView) -> Vec<String> {
    vec![
        node.node_id.clone(),
        node.state.clone(),
        if node.cordoned { "yes" } else { "no" }.to_owned(),
        node.version.clone(),
        or_dash((!node.pools.is_empty()).then(|| node.pools.join(","))),
    ]
}

fn set(context: &Context, client: &DaemonClient, node: Option<&str>, cordoned: bool) -> CommandResult {
    let node = named_or_only(client, node)?;
    let seen = block_on(client.set_cordoned(&node, cordoned))?;
    if context.printer.json() {
        return Ok(context.printer.document(&seen)?);
    }
    let word = if seen.cordoned {
        "is cordoned: requests wait until it is uncordoned, and those under way go on"
    } else {
        "gets requests"
    };
    Ok(context.printer.line(format_args!("{} {word}", seen.node_id))?)
}

fn drain(
    context: &Context,
    client: &DaemonClient,
    node: Option<&str>,
    deadline: Option<Duration>,
) -> CommandResult {
    let node = named_or_only(client, node)?;
    block_on(client.drain_node(&node, deadline))?;
    context.talk.note(&format!(
        "{node} has nothing under way and is cordoned; its engines stay loaded: llama-orch node uncordon"
    ));
    Ok(())
}

fn named_or_only(client: &DaemonClient, node: Option<&str>) -> Result<String, Failure> {
    if let Some(node) = node {
        return Ok(node.to_owned());
    }
    let mut nodes = block_on(client.nodes())?;
    match (nodes.pop(), nodes.is_empty()) {
        (Some(node), true) => Ok(node.node_id),
        _ => Err(Failure::new(ExitCode::Usage, "there is not exactly one node: name the one that is meant")
            .hint("llama-orch node list")),
    }
}
