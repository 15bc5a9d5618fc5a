//! The paths of `/v2`, as routers write them: `{…}` stands for one segment.

/// The document that describes all of this.
pub const OPENAPI: &str = "/openapi.json";

/// What the server is.
pub const VERSION: &str = "/v2/version";
/// What the server can.
pub const CAPABILITIES: &str = "/v2/capabilities";
/// The daemon about itself.
pub const DAEMON: &str = "/v2/daemon";
/// What happened.
pub const EVENTS: &str = "/v2/events";
/// What instances use and do now.
pub const STATS: &str = "/v2/stats";

/// Who holds how much memory where, and what loading an instance would take.
pub const MEMORY: &str = "/v2/memory";

/// All instances.
pub const INSTANCES: &str = "/v2/instances";
/// One instance.
pub const INSTANCE: &str = "/v2/instances/{name}";
/// What its engine writes.
pub const INSTANCE_LOGS: &str = "/v2/instances/{name}/logs";
/// Starting it.
pub const INSTANCE_START: &str = "/v2/instances/{name}/start";
/// Stopping it.
pub const INSTANCE_STOP: &str = "/v2/instances/{name}/stop";
/// Stopping and starting it.
pub const INSTANCE_RESTART: &str = "/v2/instances/{name}/restart";

/// All keys.
pub const TOKENS: &str = "/v2/tokens";
/// One key.
pub const TOKEN: &str = "/v2/tokens/{key}";
/// The request log.
pub const REQUESTS: &str = "/v2/requests";
/// One request with its body.
pub const REQUEST: &str = "/v2/requests/{id}";
/// What was used.
pub const USAGE: &str = "/v2/usage";

/// One long step.
pub const OPERATION: &str = "/v2/operations/{id}";

/// Submitting a task.
pub const TASKS: &str = "/v2/tasks";
/// One task.
pub const TASK: &str = "/v2/tasks/{id}";
/// What happens to it.
pub const TASK_EVENTS: &str = "/v2/tasks/{id}/events";
/// Giving it up.
pub const TASK_CANCEL: &str = "/v2/tasks/{id}/cancel";

/// Workflows that were submitted, and all others of the home.
pub const JOBS: &str = "/v2/jobs";
/// One of them.
pub const JOB: &str = "/v2/jobs/{id}";
/// Its journal.
pub const JOB_EVENTS: &str = "/v2/jobs/{id}/events";
/// Ending it.
pub const JOB_CANCEL: &str = "/v2/jobs/{id}/cancel";
/// Going on with it.
pub const JOB_RESUME: &str = "/v2/jobs/{id}/resume";
/// Answering a gate.
pub const JOB_DECIDE: &str = "/v2/jobs/{id}/decide";

/// The engines behind each instance.
pub const POOLS: &str = "/v2/pools";
/// How one pool is.
pub const POOL_HEALTH: &str = "/v2/pools/{id}/health";
/// A pool finishes what it has, and stops.
pub const POOL_DRAIN: &str = "/v2/pools/{id}/drain";
/// A pool gets another model.
pub const POOL_RELOAD: &str = "/v2/pools/{id}/reload";
/// The machines.
pub const NODES: &str = "/v2/nodes";
/// One machine.
pub const NODE: &str = "/v2/nodes/{id}";
/// A machine comes.
pub const NODE_REGISTER: &str = "/v2/nodes/register";
/// A machine tells how it is.
pub const NODE_HEARTBEAT: &str = "/v2/nodes/{id}/heartbeat";
/// A machine gets nothing new.
pub const NODE_CORDON: &str = "/v2/nodes/{id}/cordon";
/// The end of that.
pub const NODE_UNCORDON: &str = "/v2/nodes/{id}/uncordon";
/// A machine gets nothing new, and finishes what it has.
pub const NODE_DRAIN: &str = "/v2/nodes/{id}/drain";
/// Why requests went where they went.
pub const DECISIONS: &str = "/v2/placement/decisions";

/// A path with its segments filled in, in their order. A segment may hold any character: what would end it is
/// escaped.
pub fn fill(path: &str, segments: &[&str]) -> String {
    let mut segments = segments.iter();
    let mut filled = String::with_capacity(path.len());
    for part in path.split('/').skip(1) {
        filled.push('/');
        match segments.as_slice().first().filter(|_| part.starts_with('{')) {
            Some(segment) => {
                filled.push_str(&escape(segment));
                segments.next();
            }
            None => filled.push_str(part),
        }
    }
    filled
}

/// A text as one segment of a path, or as one value of a query.
pub fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte) {
            escaped.push(char::from(byte));
        } else {
            use std::fmt::Write as _;
            let _ = write!(escaped, "%{byte:02X}");
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn segments_are_filled_in_their_order_and_cannot_leave_their_place() {
        assert_eq!(fill(INSTANCE_START, &["a b/../c"]), "/v2/instances/a%20b%2F..%2Fc/start");
        assert_eq!(fill(INSTANCES, &[]), INSTANCES);
        assert_eq!(fill("/{one}/and/{two}", &["1", "ü"]), "/1/and/%C3%BC");
    }
}
