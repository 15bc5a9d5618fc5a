//! What is left of instances whose config is gone, renamed or cannot be read: known by database, handoff file and lock.

use std::collections::BTreeSet;

use instance_config::Catalog;
use orch_core::{DesiredState, Failure, HomeLayout, InstanceName, ReplicaId};
use state_store::{RuntimeRow, StateReader};

use crate::actual::{Actual, LiveEngine, observe};
use crate::traces::Traces;

/// An instance without a usable config.
#[derive(Clone, Debug)]
pub struct Remnant {
    pub name: InstanceName,
    /// `None` when the database does not know it.
    pub desired: Option<DesiredState>,
    /// The first replica, and every other that may live.
    pub replicas: Vec<LeftReplica>,
}

/// One engine of an instance without a usable config.
#[derive(Clone, Debug)]
pub struct LeftReplica {
    pub replica: ReplicaId,
    pub row: Option<RuntimeRow>,
    pub actual: Actual,
}

impl LeftReplica {
    pub(crate) fn live(&self) -> Option<&LiveEngine> {
        match &self.actual {
            Actual::Ours(live) => Some(live),
            Actual::Foreign { .. } | Actual::Gone => None,
        }
    }
}

impl Remnant {
    pub fn is_running(&self) -> bool {
        self.replicas.iter().any(|left| left.live().is_some())
    }
}

/// What is left by this name; `None` when nothing is. Whether a config claims the name is the caller's to know.
pub fn remnant(
    home: &HomeLayout,
    reader: Option<&StateReader>,
    name: &InstanceName,
) -> Result<Option<Remnant>, Failure> {
    left_by(home, reader, name, &Traces::look(home, reader)?)
}

/// Everything that database, handoff files and locks know and no usable config claims, by name.
pub fn remnants(
    home: &HomeLayout,
    reader: Option<&StateReader>,
    catalog: &Catalog,
) -> Result<Vec<Remnant>, Failure> {
    let traces = Traces::look(home, reader)?;
    let mut names: BTreeSet<InstanceName> = match reader {
        Some(reader) => reader.instances()?.into_iter().map(|row| row.name).collect(),
        None => BTreeSet::new(),
    };
    names.extend(traces.names().cloned());
    names.retain(|name| catalog.instances.iter().all(|it| it.config.name != *name));
    let left = names.iter().map(|name| left_by(home, reader, name, &traces));
    left.filter_map(Result::transpose).collect()
}

fn left_by(
    home: &HomeLayout,
    reader: Option<&StateReader>,
    name: &InstanceName,
    traces: &Traces,
) -> Result<Option<Remnant>, Failure> {
    let desired = reader.map(|reader| reader.desired(name)).transpose()?.flatten();
    let sought: BTreeSet<ReplicaId> = traces.of(name).chain([ReplicaId::FIRST]).collect();
    let mut replicas = Vec::new();
    for replica in sought {
        let row = reader.map(|reader| reader.runtime(name, replica)).transpose()?.flatten();
        let actual = observe(home, row.as_ref(), name, replica);
        let left = LeftReplica { replica, row, actual };
        if replica == ReplicaId::FIRST || left.live().is_some() {
            replicas.push(left);
        }
    }
    let found = Remnant { name: name.clone(), desired, replicas };
    Ok((found.desired.is_some() || found.is_running()).then_some(found))
}
