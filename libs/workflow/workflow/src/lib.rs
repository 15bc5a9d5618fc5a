//! Running a workflow: a graph of steps becomes results that outlive a crash.
//!
//! A run is a folder. Its journal (`events.jsonl`) is the truth, written by one process at a time; results lie in
//! a content-addressed store that all runs of a home share; everything else is derived from these two. This
//! crate deliberately knows no provider's protocol, no child process and no daemon: it is *given* a way to ask
//! a model ([`AskModel`]), to run a program ([`RunProgram`]) and to ask a service ([`AskService`]).
//!
//! Read first: [`Event`], a line of the journal, and [`AskModel`], the port to everything that generates text.

mod budget;
mod canonical;
mod control;
mod event;
mod files;
mod forecast;
mod journal;
mod key;
mod log;
mod manifest;
mod past;
mod ports;
mod recorder;
mod run;
mod run_folder;
mod scope;
mod secrets;
mod steps;
mod store;
mod views;
mod why;

pub use budget::BUDGET_GATE;
pub use control::{
    Decided, DecisionError, check_decision, decision_is_left, forget_cancel, has_wishes, leave_cancel,
    leave_decision,
};
pub use event::{Event, EventType, Level};
pub use files::{FileError, OutputFiles, OutputPath, PathRefusal, Staged, WriteReason, Written};
pub use forecast::{Estimate, Forecast, Outlook, PastSteps, StepEstimate, StepForecast, forecast};
pub use journal::JournalError;
pub use key::{Digest, Key, KeyDocument, NotADigest};
pub use manifest::{
    CacheUse, FileState, JobStatus, JournalEnd, Manifest, Question, StepFailure, StepState, StepStatus,
};
pub use past::{Past, PastDecision, PastFile, PastOutcome, Succeeded, Tried};
pub use ports::{
    Answer, AnswerPiece, AskModel, AskService, CallFailure, ChatMessage, FinishReason, HearProgram,
    ModelFacts, ModelRequest, PortFuture, Ports, ProgramEnd, ProgramRequest, ProgramStream, RunProgram,
    SecretSource, ServiceAnswer, ServiceRequest, Serving, TokenUse,
};
pub use recorder::{FileEvent, JobFacts, ModelAnswered, Recorder, SkipReason, StepResult, SyncFile};
pub use run::{Halt, Job, JobEnd, JobOptions, JobOutcome, RunError, Watch, run_job};
pub use run_folder::{Holder, JobId, JobIdError, RunFolder, RunFolderError, owner_file};
pub use store::{Blob, Durability, Entry, Follower, Found, Leader, Put, Refusal, Seat, Store, StoreError};
pub use views::{JournalLine, RunStatus, RunSummary, RunView, Runs, SelectRunError, Tail, TailError};
pub use why::{Change, Earlier, Verdict, Why, WhyError, WordChange, Words, why};
