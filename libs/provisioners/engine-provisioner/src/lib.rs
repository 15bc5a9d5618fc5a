//! Which `llama-server` versions a home has, how they get there, and what each of them can do.
//!
//! An engine becomes visible only by its entry in `engines/registry.json`, which is written last: whatever is
//! killed before leaves nothing behind that anybody could start. This crate deliberately knows no instance and
//! starts no program itself: running tools is a port, [`ToolRunner`], that the binaries wire up.
//!
//! Read first: [`Registry`], the list of installed engines, and [`resolve`], which answers the question which
//! executable an instance runs.

mod archive;
mod download;
mod faults;
mod github;
mod install;
mod links;
mod lock;
mod older;
mod ports;
mod probe;
mod profiles;
mod pypi;
mod registry;
mod resolve;
mod staging;
mod tree;
mod variant;
mod version;

pub use github::{Endpoints, Release, latest_release};
pub use install::{InstallRequest, Source, install};
pub use older::{EngineRemark, OlderEngine, OlderEngines, older_engines};
pub use ports::{Progress, SilentProgress, ToolRun, ToolRunner};
pub use probe::{list_devices, probe};
pub use profiles::{known_profile, probe_and_remember};
pub use registry::{InstalledEngine, Registry, remove, set_default};
pub use resolve::{EngineOrigin, EngineRequest, ResolvedEngine, resolve};
pub use variant::Variant;

/// The executable's name on this system.
pub const EXECUTABLE_NAME: &str = if cfg!(windows) { "llama-server.exe" } else { "llama-server" };
