//! What tests of every room share: throw-away homes, waiting with a limit, a tiny model, engines real and fake.
//!
//! For tests only. The kit deliberately knows no room but orch-core and the maker of tiny models, so that any room may
//! use it; it starts whole programs and looks at them from outside, as a user would.
//!
//! Read first: [`TempHome`], the folder a test lives in and the broom that sweeps what it started, and
//! [`RunningEngine`], a `llama-server`, real or one that misbehaves on request.

#![expect(clippy::disallowed_methods, reason = "a test tool starts programs and polls the real clock")]

mod binaries;
mod clients;
mod engine;
pub mod http;
mod leftovers;
mod old_home;
mod programs;
pub mod provider;
mod real_engine;
mod snapshot;
mod temp_home;
mod wait;

pub use binaries::{bin_path, fake_engine};
pub use clients::{
    LITELLM_PROXY, PYTHON_CLIENTS, WORKFLOW_PEERS, litellm_proxy_folder, python_clients,
    python_clients_folder, python_in, run_python, workflow_peers_folder,
};
pub use engine::{RunningEngine, free_port};
pub use model_provisioner::{TinyModel, write_tiny_model};
pub use old_home::{OldEngine, OldHome, OldInstance, Shape};
#[cfg(target_os = "linux")]
pub use programs::without_capabilities;
pub use programs::{ProgramRun, run};
pub use real_engine::{ENGINE_VERSION, cache_folder, engine_folder, real_llama_server};
pub use snapshot::SNAPSHOT_FILTERS;
pub use temp_home::TempHome;
pub use wait::{wait_for, wait_for_async, wait_for_value};
