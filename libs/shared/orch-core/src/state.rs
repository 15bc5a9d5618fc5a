//! What is wanted of an instance, what its process does, and how it feels.

use serde::{Deserialize, Serialize};

macro_rules! named_states {
    ($(#[$meta:meta])* $name:ident { $($(#[$doc:meta])* $variant:ident = $label:literal,)+ }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
        pub enum $name {
            $($(#[$doc])* #[serde(rename = $label)] $variant,)+
        }

        impl $name {
            pub const ALL: &'static [$name] = &[$($name::$variant,)+];

            /// The word shown to people and stored in the database.
            pub const fn label(self) -> &'static str {
                match self { $($name::$variant => $label,)+ }
            }

            /// The state for a word, if it is one.
            pub fn from_label(label: &str) -> Option<Self> {
                match label { $($label => Some($name::$variant),)+ _ => None }
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.pad(self.label())
            }
        }
    };
}
pub(crate) use named_states;

named_states! {
    /// What the process of a replica does.
    Status {
        /// No process, and none wanted.
        Stopped = "stopped",
        /// Being spawned, loading, or waiting for its next restart.
        Starting = "starting",
        /// Alive and once ready.
        Running = "running",
        /// Being stopped.
        Stopping = "stopping",
        /// Exited, and the restart policy gave up or is off.
        Crashed = "crashed",
        /// Never got as far as a process.
        Error = "error",
        /// On a node that cannot be reached.
        Unknown = "unknown",
    }
}

named_states! {
    /// What the last probes said.
    Health {
        /// Nobody asked yet.
        Unknown = "unknown",
        /// The engine answers 503 or has not bound its port yet.
        Loading = "loading",
        /// The last probe succeeded.
        Healthy = "healthy",
        /// Probes fail, but fewer times than a restart needs.
        Unhealthy = "unhealthy",
        /// Probes failed as often as the policy allows.
        Error = "error",
    }
}

named_states! {
    /// What the user wants: it tells a `down` from a crash and from an idle unload.
    DesiredState {
        Running = "running",
        Stopped = "stopped",
        /// The gateway loads and unloads it.
        OnDemand = "on_demand",
    }
}

impl Status {
    /// Whether an engine process is expected to exist.
    pub const fn has_process(self) -> bool {
        matches!(self, Status::Running | Status::Starting | Status::Stopping)
    }
}
