//! The daemon kit: what every long-lived process of the house needs before it does its own work.
//!
//! Settings with the origin of each value, tasks with an owner, bearer tokens, the guard that keeps web pages
//! out of an open home, request ids, a listener, an HTTP/1 server loop and a bounded probe. This crate
//! deliberately knows no route, no instance, no engine and no database: it is given a service and serves it.
//!
//! Read first: [`Tasks`], the owner of everything that runs, and [`Settings`], the one path from file,
//! environment and flags to validated values.

mod body;
pub mod environment;
pub mod guard;
mod listener;
mod open_files;
mod probe;
mod request_id;
mod serve;
mod settings;
mod tasks;
pub mod telemetry;
mod termination;
mod tls;
mod token;

pub use body::{BodyError, read_body};
pub use guard::{GuardRejection, GuardSettings};
pub use listener::{bind, check_exposure};
pub use open_files::allow_many_open_files;
pub use probe::{ProbeError, ProbeResponse, bounded_get, probe_get, probe_post, reachable_host};
pub use request_id::RequestId;
pub use serve::{ServeOptions, serve, serve_encrypted};
pub use settings::{
    AuthSettings, ControlPlaneSettings, FullPolicy, KEYS, Limits, NodeSettings, Origin, PlacementStrategy,
    Provider, RouteSetting, SettingKey, SettingKind, SettingValue, Settings, TokensFile,
};
pub use tasks::Tasks;
pub use termination::{insistence, termination};
pub use tls::{TlsFiles, TlsIdentity};
pub use token::{Token, TokenDigest, TokenError, TokenSet, presented_token};
pub use tokio_util::sync::CancellationToken;
