//! Everything that can be asked, as a table: servers mount it, the OpenAPI document is made from it.

use crate::{
    Capabilities, CapturedRequest, ConfigDocument, CreatedKey, DaemonStatus, DrainRequest, Event,
    InstanceChange, InstanceStats, InstanceView, JobAccepted, JobDecision, JobEvent, JobRequest, JobSummary,
    KeyOrder, KeyView, LogLine, MemoryReport, NodeView, Operation, PlacementDecision, PoolHealth, PoolView,
    ReloadRequest, RequestView, ResumeRequest, RevokedKey, Shape, StartRequest, StopRequest, TaskAccepted,
    TaskEvent, TaskRequest, TaskView, UsageView, Version, paths,
};

/// The method of an endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verb {
    /// Looks.
    Get,
    /// Makes something, or begins a step.
    Post,
    /// Changes something.
    Patch,
    /// Removes something.
    Delete,
}

impl Verb {
    /// As HTTP writes it.
    pub const fn label(self) -> &'static str {
        match self {
            Verb::Get => "GET",
            Verb::Post => "POST",
            Verb::Patch => "PATCH",
            Verb::Delete => "DELETE",
        }
    }
}

/// Where a parameter is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// A segment of the path.
    Path,
    /// The query.
    Query,
    /// A header.
    Header,
}

/// A parameter of an endpoint.
#[derive(Clone, Copy, Debug)]
pub struct Parameter {
    /// As it is written.
    pub name: &'static str,
    /// Where it is written.
    pub place: Place,
    /// Its type in JSON Schema: `string`, `integer` or `boolean`.
    pub kind: &'static str,
    /// What it means.
    pub meaning: &'static str,
}

/// What an answer is made of.
#[derive(Clone, Copy, Debug)]
pub enum Media {
    /// One JSON document of this type.
    Json(Shape),
    /// A JSON document of no fixed type.
    Document,
    /// A JSON document, or a stream of server-sent events when `follow` asks for it; the type is that of an item.
    JsonOrEvents(Shape),
    /// A stream of server-sent events; the type is that of an item.
    Events(Shape),
    /// Nothing.
    Nothing,
}

/// One thing that can be asked.
#[derive(Clone, Copy, Debug)]
pub struct Endpoint {
    /// How.
    pub verb: Verb,
    /// Where: one of [`paths`].
    pub path: &'static str,
    /// Its name in generated clients.
    pub id: &'static str,
    /// What it does, in a few words.
    pub summary: &'static str,
    /// What it takes beside a body.
    pub parameters: &'static [Parameter],
    /// The type of its body, where it takes one.
    pub body: Option<Shape>,
    /// The status of a success.
    pub status: u16,
    /// What a success answers.
    pub answer: Media,
}

const fn path(name: &'static str, meaning: &'static str) -> Parameter {
    Parameter { name, place: Place::Path, kind: "string", meaning }
}

const fn query(name: &'static str, kind: &'static str, meaning: &'static str) -> Parameter {
    Parameter { name, place: Place::Query, kind, meaning }
}

const NODE_ID: Parameter = path("id", "the machine");
const POOL_ID: Parameter = path("id", "the pool: the name of its instance");
const JOB_ID: Parameter = path("id", "the job");
const TASK_ID: Parameter = path("id", "the task");
const NAME: Parameter = path("name", "the instance: its uid, number, name or display name");

const fn get(path: &'static str, id: &'static str, summary: &'static str, answer: Media) -> Endpoint {
    Endpoint { verb: Verb::Get, path, id, summary, parameters: &[], body: None, status: 200, answer }
}

const FOLLOW: Parameter = query("follow", "boolean", "a stream of server-sent events that goes on");
const LAST_EVENT_ID: Parameter = Parameter {
    name: "Last-Event-ID",
    place: Place::Header,
    kind: "string",
    meaning: "go on behind the event with this id",
};

/// A step that takes time: it is accepted, and looked at under its id.
const fn step(path: &'static str, id: &'static str, summary: &'static str, body: Option<Shape>) -> Endpoint {
    let answer = Media::Json(Shape::of::<Operation>());
    Endpoint { verb: Verb::Post, path, id, summary, parameters: &[NAME], body, status: 202, answer }
}

/// Everything under `/v2`.
pub const ENDPOINTS: &[Endpoint] = &[
    get(paths::VERSION, "version", "what the server is", Media::Json(Shape::of::<Version>())),
    get(
        paths::CAPABILITIES,
        "capabilities",
        "what the server can, and within which bounds",
        Media::Json(Shape::of::<Capabilities>()),
    ),
    get(paths::DAEMON, "daemon", "the daemon about itself", Media::Json(Shape::of::<DaemonStatus>())),
    Endpoint {
        parameters: &[
            query("instance", "string", "events of this instance only"),
            query("level", "string", "this level and above"),
            query("type", "string", "this type only"),
            query("since", "string", "not before (RFC 3339)"),
            query("after", "integer", "later than the event with this id, oldest first"),
            query("limit", "integer", "at most so many (50, up to 1000)"),
            FOLLOW,
            LAST_EVENT_ID,
        ],
        ..get(
            paths::EVENTS,
            "events",
            "what happened, newest first; followed, oldest first",
            Media::JsonOrEvents(Shape::of::<Event>()),
        )
    },
    get(
        paths::STATS,
        "stats",
        "what instances use and do now",
        Media::Json(Shape::list_of::<InstanceStats>()),
    ),
    Endpoint {
        parameters: &[query("instance", "string", "what loading this instance would take, too")],
        ..get(
            paths::MEMORY,
            "memory",
            "who holds how much memory where",
            Media::Json(Shape::of::<MemoryReport>()),
        )
    },
    get(paths::INSTANCES, "instances", "all instances", Media::Json(Shape::list_of::<InstanceView>())),
    Endpoint {
        parameters: &[NAME],
        ..get(
            paths::INSTANCE,
            "instance",
            "everything about one instance, as `describe --json`",
            Media::Document,
        )
    },
    Endpoint {
        verb: Verb::Post,
        body: Some(Shape::of::<ConfigDocument>()),
        status: 201,
        ..get(
            paths::INSTANCES,
            "create_instance",
            "writes a new instance: name and model.path are needed, a port is chosen where none is given",
            Media::Json(Shape::of::<InstanceChange>()),
        )
    },
    Endpoint {
        verb: Verb::Patch,
        parameters: &[NAME],
        body: Some(Shape::of::<ConfigDocument>()),
        ..get(
            paths::INSTANCE,
            "change_instance",
            "changes a config: a merge patch (RFC 7396), checked as a whole before anything is written",
            Media::Json(Shape::of::<InstanceChange>()),
        )
    },
    Endpoint {
        parameters: &[
            NAME,
            query("tail", "integer", "so many of the last lines (100, up to 10000)"),
            query("stream", "string", "stdout, stderr or both"),
            query("since", "string", "not before (RFC 3339)"),
            query("replica", "integer", "which engine of the instance (0)"),
            FOLLOW,
            LAST_EVENT_ID,
        ],
        ..get(
            paths::INSTANCE_LOGS,
            "instance_logs",
            "what the engine wrote, oldest first",
            Media::JsonOrEvents(Shape::of::<LogLine>()),
        )
    },
    Endpoint {
        verb: Verb::Delete,
        parameters: &[
            NAME,
            query("force", "boolean", "also a running one"),
            query("keep_logs", "boolean", "leave its logs"),
        ],
        ..step(paths::INSTANCE, "remove_instance", "removes an instance", None)
    },
    step(
        paths::INSTANCE_START,
        "start_instance",
        "starts an instance; done when requests are routed to it",
        Some(Shape::of::<StartRequest>()),
    ),
    step(
        paths::INSTANCE_STOP,
        "stop_instance",
        "stops an instance; done when nothing is routed to it and its process is gone",
        Some(Shape::of::<StopRequest>()),
    ),
    step(
        paths::INSTANCE_RESTART,
        "restart_instance",
        "stops and starts an instance; starts a stopped one",
        Some(Shape::of::<StopRequest>()),
    ),
    get(paths::TOKENS, "keys", "all keys, never their secrets", Media::Json(Shape::list_of::<KeyView>())),
    Endpoint {
        verb: Verb::Post,
        body: Some(Shape::of::<KeyOrder>()),
        status: 201,
        ..get(
            paths::TOKENS,
            "create_key",
            "makes a key; its secret is in this answer and nowhere else",
            Media::Json(Shape::of::<CreatedKey>()),
        )
    },
    Endpoint {
        verb: Verb::Delete,
        parameters: &[path("key", "the key: its id or name")],
        ..get(
            paths::TOKEN,
            "revoke_key",
            "makes a key useless, at once",
            Media::Json(Shape::of::<RevokedKey>()),
        )
    },
    Endpoint {
        parameters: &[
            query("model", "string", "asked for by this name"),
            query("key", "string", "with this key, by id or name"),
            query("instance", "string", "served by this instance"),
            query("outcome", "string", "ended like this: done, refused, broken or canceled"),
            query("since", "string", "arrived not before (RFC 3339)"),
            query("after", "integer", "ended later than the one with this seq, oldest first"),
            query("limit", "integer", "at most so many (50, up to 1000)"),
            query("follow", "boolean", "a stream of those that end from now on, or from after on"),
        ],
        ..get(
            paths::REQUESTS,
            "requests",
            "requests that are over, the latest first",
            Media::JsonOrEvents(Shape::of::<RequestView>()),
        )
    },
    Endpoint {
        parameters: &[path("id", "the request, or the beginning of its id")],
        ..get(
            paths::REQUEST,
            "request",
            "one request, with its body where bodies are captured; for administrators",
            Media::Json(Shape::of::<CapturedRequest>()),
        )
    },
    Endpoint {
        parameters: &[
            query("model", "string", "asked for by this name"),
            query("key", "string", "with this key, by id or name"),
            query("instance", "string", "served by this instance"),
            query("since", "string", "from the hour of this moment on (RFC 3339)"),
            query("until", "string", "up to the hour of this moment (RFC 3339)"),
        ],
        ..get(
            paths::USAGE,
            "usage",
            "requests and tokens by key, model and instance",
            Media::Json(Shape::list_of::<UsageView>()),
        )
    },
    Endpoint {
        parameters: &[
            path("id", "the operation"),
            query("wait_ms", "integer", "wait so long for its end, at most 60000"),
        ],
        ..get(paths::OPERATION, "operation", "how far a step is", Media::Json(Shape::of::<Operation>()))
    },
    get(paths::POOLS, "pools", "the engines behind each instance", Media::Json(Shape::list_of::<PoolView>())),
    Endpoint {
        parameters: &[POOL_ID],
        ..get(paths::POOL_HEALTH, "pool_health", "how a pool is", Media::Json(Shape::of::<PoolHealth>()))
    },
    Endpoint {
        parameters: &[POOL_ID],
        ..step(
            paths::POOL_DRAIN,
            "drain_pool",
            "gives a pool nothing new, lets it finish until the deadline, and stops it",
            Some(Shape::of::<DrainRequest>()),
        )
    },
    Endpoint {
        parameters: &[POOL_ID],
        ..step(
            paths::POOL_RELOAD,
            "reload_pool",
            "gives a pool another model. It is first loaded beside the old one, as a trial that is listed and then \
             removed: what does not load or fit is a CONFLICT, and the old model serves on. Accepted, the engine is \
             exchanged; an exchange that fails brings the old model back",
            Some(Shape::of::<ReloadRequest>()),
        )
    },
    get(
        paths::NODES,
        "nodes",
        "the machines: at home the one that is linked in",
        Media::Json(Shape::list_of::<NodeView>()),
    ),
    Endpoint {
        verb: Verb::Post,
        ..get(
            paths::NODE_REGISTER,
            "register_node",
            "a machine joins; PROFILE_OFF without the cloud profile",
            Media::Nothing,
        )
    },
    Endpoint {
        verb: Verb::Post,
        parameters: &[NODE_ID],
        ..get(
            paths::NODE_HEARTBEAT,
            "node_heartbeat",
            "a machine tells how it is; PROFILE_OFF without the cloud profile",
            Media::Nothing,
        )
    },
    Endpoint {
        verb: Verb::Delete,
        parameters: &[NODE_ID],
        ..get(
            paths::NODE,
            "remove_node",
            "a machine leaves; PROFILE_OFF without the cloud profile",
            Media::Nothing,
        )
    },
    Endpoint {
        verb: Verb::Post,
        parameters: &[NODE_ID],
        ..get(
            paths::NODE_CORDON,
            "cordon_node",
            "gives a machine nothing new: requests for it wait in their queues; a restart does not change that",
            Media::Json(Shape::of::<NodeView>()),
        )
    },
    Endpoint {
        verb: Verb::Post,
        parameters: &[NODE_ID],
        ..get(
            paths::NODE_UNCORDON,
            "uncordon_node",
            "gives a machine requests again, those first that have waited",
            Media::Json(Shape::of::<NodeView>()),
        )
    },
    Endpoint {
        parameters: &[NODE_ID],
        ..step(
            paths::NODE_DRAIN,
            "drain_node",
            "cordons a machine; done when nothing is under way there. At the deadline the rest is cut off; engines \
             stay loaded",
            Some(Shape::of::<DrainRequest>()),
        )
    },
    get(
        paths::DECISIONS,
        "placement_decisions",
        "why the latest requests went where they went",
        Media::Json(Shape::list_of::<PlacementDecision>()),
    ),
    Endpoint {
        verb: Verb::Post,
        body: Some(Shape::of::<TaskRequest>()),
        status: 202,
        ..get(
            paths::TASKS,
            "submit_task",
            "submits a generation; what cannot be served at all is refused at once",
            Media::Json(Shape::of::<TaskAccepted>()),
        )
    },
    Endpoint {
        parameters: &[TASK_ID],
        ..get(paths::TASK, "task", "how far a task is", Media::Json(Shape::of::<TaskView>()))
    },
    Endpoint {
        parameters: &[TASK_ID, LAST_EVENT_ID],
        ..get(
            paths::TASK_EVENTS,
            "task_events",
            "what happens to a task: queued, started, token, metrics, then exactly one of end and error",
            Media::Events(Shape::of::<TaskEvent>()),
        )
    },
    Endpoint {
        verb: Verb::Post,
        parameters: &[TASK_ID],
        status: 204,
        ..get(paths::TASK_CANCEL, "cancel_task", "gives a task up; may be repeated", Media::Nothing)
    },
    Endpoint {
        verb: Verb::Post,
        body: Some(Shape::of::<JobRequest>()),
        status: 202,
        ..get(
            paths::JOBS,
            "submit_job",
            "submits a workflow. 200 where the same one is there already under its id. One with `run` steps, or with \
             `http` steps to private addresses, needs a key that administers, and `workflow.allow_run`",
            Media::Json(Shape::of::<JobAccepted>()),
        )
    },
    Endpoint {
        parameters: &[query("limit", "integer", "at most so many (50, up to 1000)")],
        ..get(paths::JOBS, "jobs", "the newest workflows", Media::Json(Shape::list_of::<JobSummary>()))
    },
    Endpoint {
        parameters: &[JOB_ID],
        ..get(paths::JOB, "job", "everything about one job, as `show --json`", Media::Document)
    },
    Endpoint {
        parameters: &[JOB_ID, LAST_EVENT_ID],
        ..get(
            paths::JOB_EVENTS,
            "job_events",
            "the journal of a job from its beginning on, until it ends or waits",
            Media::Events(Shape::of::<JobEvent>()),
        )
    },
    Endpoint {
        verb: Verb::Post,
        parameters: &[JOB_ID],
        status: 204,
        ..get(paths::JOB_CANCEL, "cancel_job", "ends a job; may be repeated", Media::Nothing)
    },
    Endpoint {
        verb: Verb::Post,
        parameters: &[JOB_ID],
        body: Some(Shape::of::<ResumeRequest>()),
        status: 202,
        ..get(
            paths::JOB_RESUME,
            "resume_job",
            "goes on with a job that nobody works on; what is done is not done again",
            Media::Json(Shape::of::<JobAccepted>()),
        )
    },
    Endpoint {
        verb: Verb::Post,
        parameters: &[JOB_ID],
        body: Some(Shape::of::<JobDecision>()),
        status: 204,
        ..get(paths::JOB_DECIDE, "decide_job", "answers a gate, and the job goes on", Media::Nothing)
    },
];

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn no_two_endpoints_share_a_name_or_a_place() {
        let ids: BTreeSet<_> = ENDPOINTS.iter().map(|endpoint| endpoint.id).collect();
        let places: BTreeSet<_> =
            ENDPOINTS.iter().map(|endpoint| (endpoint.verb.label(), endpoint.path)).collect();
        assert_eq!((ids.len(), places.len()), (ENDPOINTS.len(), ENDPOINTS.len()));
    }

    #[test]
    fn every_segment_to_fill_in_is_explained() {
        for endpoint in ENDPOINTS {
            let wanted: Vec<&str> = endpoint
                .path
                .split('/')
                .filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'))
                .collect();
            let told: Vec<&str> = endpoint
                .parameters
                .iter()
                .filter(|parameter| parameter.place == Place::Path)
                .map(|parameter| parameter.name)
                .collect();
            assert_eq!(wanted, told, "{}", endpoint.path);
        }
    }
}
