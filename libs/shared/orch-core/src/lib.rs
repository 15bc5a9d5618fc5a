//! The vocabulary of the house: ids, states, units, error codes, back-off and redaction.
//!
//! This crate deliberately knows no clock, no file, no socket and no async runtime. Everything here is a
//! value or a pure function, so every other crate may depend on it and every rule in it can be property-tested.
//!
//! Read first: [`Failure`], the one shape in which a problem reaches a user, and [`HomeLayout`], the map of
//! the folder that everything lives in.

mod backoff;
mod end_request;
mod engine;
mod error_code;
mod event;
mod failure;
mod home;
mod key;
mod names;
mod redact;
mod state;
mod units;

pub use backoff::RestartBackoff;
pub use end_request::{END_REQUEST, end_request_pipe};
pub use engine::{DeviceInfo, EngineProfile};
pub use error_code::ErrorCode;
pub use event::{EventLevel, EventType};
pub use failure::{ExitCode, Failure};
pub use home::HomeLayout;
pub use key::{Priority, Scope};
pub use names::{InstanceName, NameError, ReplicaId};
pub use redact::{MASK, is_secret_name, redact_args, redact_body, redact_env_value, redact_text};
pub use state::{DesiredState, Health, Status};
pub use units::{ByteCount, UnixMicros, UnixMillis};
