//! Which replicas may live: the traces that engines leave, whatever the configs say by now.

use std::collections::BTreeSet;

use engine_process::{running_engine, scan_handoffs};
use orch_core::{Failure, HomeLayout, InstanceName, ReplicaId};
use state_store::StateReader;

/// More locks than any home has engines.
const LOCKS_LIMIT: usize = 8192;

/// The replicas that a row with a process, a handoff file or a held engine lock speaks of. Whether their engines really
/// live is another question.
#[derive(Debug, Default)]
pub(crate) struct Traces {
    replicas: BTreeSet<(InstanceName, ReplicaId)>,
}

impl Traces {
    pub(crate) fn look(home: &HomeLayout, reader: Option<&StateReader>) -> Result<Self, Failure> {
        let rows = reader.map(StateReader::runtimes).transpose()?.unwrap_or_default();
        let written = rows.into_iter().filter(|row| row.pid.is_some()).map(|row| (row.name, row.replica));
        let ready = scan_handoffs(&home.handoffs()).into_iter().flatten();
        let mut replicas: BTreeSet<_> =
            written.chain(ready.map(|file| (file.instance, file.replica_id))).collect();
        // An engine that is not ready yet, and was not written down, is known by nothing but its lock.
        let locks = std::fs::read_dir(home.locks()).into_iter().flatten().flatten().take(LOCKS_LIMIT);
        for lock in locks {
            let of_engine = lock.file_name().to_str().and_then(of_lock);
            let Some(replica) = of_engine.filter(|replica| !replicas.contains(replica)) else { continue };
            if running_engine(&lock.path()).is_some() {
                replicas.insert(replica);
            }
        }
        Ok(Self { replicas })
    }

    pub(crate) fn names(&self) -> impl Iterator<Item = &InstanceName> {
        self.replicas.iter().map(|(name, _)| name)
    }

    pub(crate) fn of(&self, name: &InstanceName) -> impl Iterator<Item = ReplicaId> {
        self.replicas.iter().filter(move |(known, _)| known == name).map(|(_, replica)| *replica)
    }
}

/// `<name>.r<number>.engine.lock`.
fn of_lock(file: &str) -> Option<(InstanceName, ReplicaId)> {
    let (name, replica) = file.strip_suffix(".engine.lock")?.rsplit_once('.')?;
    Some((InstanceName::new(name).ok()?, replica.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lock_of_an_engine_names_its_replica() {
        let of = |file| of_lock(file).map(|(name, replica)| replica.display_name(&name));
        assert_eq!(of("chat.r0.engine.lock").as_deref(), Some("chat"));
        assert_eq!(of("my-chat_2.r12.engine.lock").as_deref(), Some("my-chat_2/12"));
        for other in ["chat.lock", "chat.engine.lock", "chat.rx.engine.lock", ".r0.engine.lock"] {
            assert_eq!(of(other), None, "{other}");
        }
    }
}
