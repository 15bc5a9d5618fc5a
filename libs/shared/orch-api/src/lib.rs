//! `/v2` as types: what is sent, what is answered, under which paths, and a client that speaks it.
//!
//! Servers mount their handlers under the paths of [`paths`] and answer with these types; commands ask through
//! [`Client`]; the OpenAPI document is made from [`ENDPOINTS`]. So none of them can drift from the others. The crate
//! deliberately knows no server, no home and no process.
//!
//! Read first: [`ENDPOINTS`], everything that can be asked, and [`ErrorBody`], how a refusal looks.

#![warn(missing_docs)]

mod capabilities;
mod client;
mod document;
mod endpoints;
mod errors;
mod events;
mod fleet;
mod instances;
mod jobs;
mod keys;
mod memory;
mod operations;
pub mod paths;
mod requests;
mod shape;
mod stats;
mod system;
mod tasks;

pub use capabilities::{Capabilities, CapableEndpoint, CapableEngine, CapableFeatures, CapableLimits};
pub use client::{Client, SentEvent, StreamEnd};
pub use document::openapi;
pub use endpoints::{ENDPOINTS, Endpoint, Media, Parameter, Place, Verb};
pub use errors::ErrorBody;
pub use events::Event;
pub use fleet::{
    DrainRequest, NodeView, PlacementCandidate, PlacementDecision, PoolHealth, PoolQueue, PoolReplica,
    PoolView, ReloadRequest,
};
pub use instances::{
    ConfigDocument, InstanceChange, InstanceView, LogLine, RemoveRequest, Slots, StartRequest, StopRequest,
};
pub use jobs::{
    JobAccepted, JobDecision, JobEvent, JobJournal, JobOptions, JobRequest, JobStatus, JobSummary, Problem,
    ResumeRequest,
};
pub use keys::{CreatedKey, KeyOrder, KeyView, RevokedKey};
pub use memory::{EvictionReport, HolderReport, MemoryReport, NeedReport, PlaceReport, PlanReport};
pub use operations::{Operation, OperationState};
pub use requests::{CapturedRequest, RequestFilter, RequestView, UsageView};
pub use shape::Shape;
pub use stats::{InstanceStats, SlotActivity, SlotState};
pub use system::{DaemonStatus, Version};
pub use tasks::{
    TaskAccepted, TaskEnd, TaskEvent, TaskMetrics, TaskPlacement, TaskQueued, TaskRequest, TaskState,
    TaskToken, TaskView,
};
