//! What the node plane works with: one home, its state, and the ports to what it does not own.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use instance_config::InstanceConfig;
use orch_core::{DeviceInfo, EngineProfile, Failure, HomeLayout};
use state_store::StateStore;

/// Finds the engine that a config asks for. Given by the program that composes the house, so that this crate
/// needs no knowledge of how engines are installed.
pub trait EngineResolver: Send + Sync {
    /// The executable for this config and what is known of it. Fails with 50 or 51.
    fn resolve(&self, config: &InstanceConfig) -> Result<EngineProfile, Failure>;

    /// What is known of this executable. Fails with 50 when it is gone.
    fn profile(&self, executable: &Path) -> Result<EngineProfile, Failure>;

    /// The devices that this executable lists, with what is free on them now. Empty where it does not answer.
    fn devices(&self, executable: &Path) -> Vec<DeviceInfo>;
}

/// One machine's home, opened for work.
pub struct Node {
    pub home: HomeLayout,
    pub store: StateStore,
    pub engines: Arc<dyn EngineResolver>,
    /// The program that is started as the shim of each engine.
    pub shim_executable: PathBuf,
    /// The environment that engines inherit, before it is scrubbed.
    pub parent_environment: Vec<(String, String)>,
}
