//! What is left of instances whose config is gone, renamed or cannot be read: known by database, handoff file and lock.

use std::collections::BTreeSet;

use engine_process::scan_handoffs;
use instance_config::Catalog;
use orch_core::{DesiredState, Failure, HomeLayout, InstanceName, ReplicaId};
use state_store::{RuntimeRow, StateReader};

use crate::actual::{Actual, observe};

/// More locks than any home has instances.
const LOCKS_LIMIT: usize = 4096;

/// An instance without a usable config.
#[derive(Clone, Debug)]
pub struct Remnant {
    pub name: InstanceName,
    pub row: Option<RuntimeRow>,
    /// `None` when the database does not know it.
    pub desired: Option<DesiredState>,
    pub actual: Actual,
}

impl Remnant {
    pub fn is_running(&self) -> bool {
        matches!(self.actual, Actual::Ours(_))
    }
}

/// What is left by this name; `None` when nothing is. Whether a config claims the name is the caller's to know.
pub fn remnant(
    home: &HomeLayout,
    reader: Option<&StateReader>,
    name: &InstanceName,
) -> Result<Option<Remnant>, Failure> {
    let (row, desired) = match reader {
        Some(reader) => (reader.runtime(name, ReplicaId::FIRST)?, reader.desired(name)?),
        None => (None, None),
    };
    let actual = observe(home, row.as_ref(), name, ReplicaId::FIRST);
    let found = Remnant { name: name.clone(), row, desired, actual };
    Ok((found.desired.is_some() || found.is_running()).then_some(found))
}

/// Everything that database, handoff files and locks know and no usable config claims, by name.
pub fn remnants(
    home: &HomeLayout,
    reader: Option<&StateReader>,
    catalog: &Catalog,
) -> Result<Vec<Remnant>, Failure> {
    let mut names: BTreeSet<InstanceName> = match reader {
        Some(reader) => reader.instances()?.into_iter().map(|row| row.name).collect(),
        None => BTreeSet::new(),
    };
    names.extend(scan_handoffs(&home.handoffs()).into_iter().flatten().map(|file| file.instance));
    names.extend(locked_names(home));
    names.retain(|name| catalog.instances.iter().all(|it| it.config.name != *name));
    let left = names.iter().map(|name| remnant(home, reader, name));
    left.filter_map(Result::transpose).collect()
}

/// The names in `<name>.r0.engine.lock`: an engine that is not ready yet is known by nothing else.
fn locked_names(home: &HomeLayout) -> Vec<InstanceName> {
    let entries = std::fs::read_dir(home.locks()).into_iter().flatten().flatten().take(LOCKS_LIMIT);
    let suffix = format!(".{}.engine.lock", ReplicaId::FIRST);
    let name = |file: std::ffi::OsString| InstanceName::new(file.to_str()?.strip_suffix(&suffix)?).ok();
    entries.filter_map(|entry| name(entry.file_name())).collect()
}
