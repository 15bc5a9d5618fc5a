//! The closed list of things worth remembering about an instance.

use crate::state::named_states;
use serde::{Deserialize, Serialize};

named_states! {
    /// How much an event matters.
    EventLevel {
        Info = "info",
        Warning = "warning",
        Error = "error",
    }
}

named_states! {
    /// What happened. The words are a contract with scripts that read `events --json`.
    EventType {
        InstanceStarted = "instance_started",
        StartFailed = "start_failed",
        InstanceStopped = "instance_stopped",
        Restarted = "restarted",
        RestartScheduled = "restart_scheduled",
        GaveUp = "gave_up",
        Crashed = "crashed",
        HealthChanged = "health_changed",
        PortCollision = "port_collision",
        ProcessMissing = "process_missing",
        PidMismatch = "pid_mismatch",
        OrphanAdopted = "orphan_adopted",
        OrphanFound = "orphan_found",
        Reconciled = "reconciled",
        ConfigChanged = "config_changed",
        DaemonStarted = "daemon_started",
        DaemonStopped = "daemon_stopped",
        EngineInstalled = "engine_installed",
        ModelPulled = "model_pulled",
        Migrated = "migrated",
    }
}
