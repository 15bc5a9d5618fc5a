//! What a workflow is, before anything runs: a data file read into a validated graph of steps, with templates
//! and decisions that are compiled once.
//!
//! This crate deliberately knows no disk, no clock, no provider and no journal: text in, [`JobSpec`] or errors
//! with line and column out. Everything that a running workflow needs to know of its values it asks through
//! [`Names`].
//!
//! Read first: [`JobSpec`], the validated workflow, and [`Template`], how text is made from values.

mod decision;
mod document;
mod failure_kind;
mod graph;
mod keys;
mod names;
mod output;
mod problems;
mod read;
mod references;
mod schema;
mod seen;
mod spec;
mod template;
mod ways;

pub use decision::{Decision, DecisionError};
pub use failure_kind::FailureKind;
pub use names::Names;
pub use output::StepOutput;
pub use problems::{SpecError, SpecErrors, nearest};
pub use read::{DEEPEST_WORKFLOW, LONGEST_SPEC, LoadNothing, LoadSpec, MOST_STEPS};
pub use references::{Family, Reference};
pub use schema::job_schema;
pub use spec::{
    Budget, CachePolicy, Candidate, Effect, FileRule, FileSource, GateStep, Graph, HttpStep,
    InputDeclaration, InputType, JobLimits, JobSpec, LlmStep, LoopStep, MapOver, Message, OnError, OnExceed,
    OutputFormat, OutputShape, PassStep, RetryPolicy, Role, RunStep, Step, StepKind, WorkflowStep, WriteMode,
};
pub use template::{Template, TemplateError, ValueTemplate};
