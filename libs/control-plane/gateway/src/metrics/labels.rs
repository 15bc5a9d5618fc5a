//! Labels of the contract. Their values are bounded: only known replicas and closed lists have them.

use prometheus_client::encoding::EncodeLabelSet;

use crate::live::Target;

/// What engines are called.
const ENGINE: &str = "llama-server";

/// Labels of one replica.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct ReplicaLabels {
    engine: &'static str,
    /// Empty, and by that absent, while it is not known.
    engine_version: String,
    node_id: String,
    pool_id: String,
    replica_id: String,
}

impl ReplicaLabels {
    pub(super) fn of(target: &Target) -> Self {
        let key = &target.replica.key;
        Self {
            engine: ENGINE,
            engine_version: target.replica.engine_version.clone().unwrap_or_default(),
            node_id: key.node_id.clone(),
            pool_id: key.pool_id.clone(),
            replica_id: key.replica_id.to_string(),
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct EndLabels {
    pub(super) reason: &'static str,
    pub(super) priority: &'static str,
}

/// Labels of the requests of one class on one replica.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct TaskLabels {
    #[prometheus(flatten)]
    pub(super) replica: ReplicaLabels,
    pub(super) priority: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct StateLabels {
    pub(super) model_id: String,
    pub(super) state: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct PolicyLabels {
    pub(super) policy: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct PriorityLabels {
    pub(super) priority: &'static str,
}
