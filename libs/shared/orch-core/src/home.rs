//! The map of a home folder. Paths only: nothing here looks at the disk.

use std::path::{Path, PathBuf};

use crate::{InstanceName, ReplicaId};

/// Where everything of one home lies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HomeLayout {
    root: PathBuf,
}

impl HomeLayout {
    /// `root` should be absolute: engines run with it as their working folder.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Settings of this home; optional.
    pub fn settings(&self) -> PathBuf {
        self.root.join("config.toml")
    }

    pub fn instances(&self) -> PathBuf {
        self.root.join("instances")
    }

    /// Where a new instance's config is written. Older homes use other folder names: see discovery.
    pub fn instance_config(&self, name: &InstanceName) -> PathBuf {
        self.instances().join(name.as_str()).join("config.json")
    }

    pub fn state(&self) -> PathBuf {
        self.root.join("state")
    }

    pub fn database(&self) -> PathBuf {
        self.state().join("state.sqlite")
    }

    /// Keys and records of the control plane.
    pub fn control_database(&self) -> PathBuf {
        self.state().join("control.sqlite")
    }

    pub fn locks(&self) -> PathBuf {
        self.state().join("locks")
    }

    /// Held while somebody starts, stops or removes the instance.
    pub fn instance_lock(&self, name: &InstanceName) -> PathBuf {
        self.locks().join(format!("{name}.lock"))
    }

    /// Held by the shim and inherited by the engine for as long as either lives: the reason why nothing can be
    /// started twice. The dot cannot occur in an instance name, so no other lock has this path.
    pub fn engine_lock(&self, name: &InstanceName, replica: ReplicaId) -> PathBuf {
        self.locks().join(format!("{name}.{replica}.engine.lock"))
    }

    /// Held by the living daemon of this home.
    pub fn daemon_lock(&self) -> PathBuf {
        self.state().join("daemon.lock")
    }

    pub fn run(&self) -> PathBuf {
        self.root.join("run")
    }

    /// The living daemon's pid, address and local admin token (0600).
    pub fn daemon_file(&self) -> PathBuf {
        self.run().join("daemon.json")
    }

    /// Private `XDG_CONFIG_HOME` of engines, so that a user's llama.cpp settings cannot change an instance.
    pub fn engine_xdg(&self) -> PathBuf {
        self.run().join("xdg")
    }

    pub fn handoffs(&self) -> PathBuf {
        self.run().join("engines")
    }

    pub fn handoff(&self, name: &InstanceName, replica: ReplicaId) -> PathBuf {
        self.handoffs().join(format!("{name}-{replica}.json"))
    }

    /// Workflow runs, a folder each.
    pub fn runs(&self) -> PathBuf {
        self.root.join("runs")
    }

    /// Results of workflow steps, shared by all runs of this home.
    pub fn cache(&self) -> PathBuf {
        self.root.join("cache")
    }

    pub fn logs(&self) -> PathBuf {
        self.root.join("logs")
    }

    pub fn instance_logs(&self, name: &InstanceName) -> PathBuf {
        self.logs().join(name.as_str())
    }

    pub fn exit_record(&self, name: &InstanceName, replica: ReplicaId) -> PathBuf {
        let file =
            if replica == ReplicaId::FIRST { "exit.json".to_owned() } else { format!("exit.{replica}.json") };
        self.instance_logs(name).join(file)
    }

    pub fn daemon_log(&self) -> PathBuf {
        self.logs().join("daemon.log")
    }

    pub fn engines(&self) -> PathBuf {
        self.root.join("engines")
    }

    pub fn engine_registry(&self) -> PathBuf {
        self.engines().join("registry.json")
    }

    pub fn models(&self) -> PathBuf {
        self.root.join("models")
    }
}
