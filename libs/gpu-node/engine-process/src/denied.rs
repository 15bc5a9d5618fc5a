//! Whose a process is that the system does not let us look at: what is written down of it, and who has its port.

use std::path::PathBuf;

use orch_core::{HomeLayout, InstanceName, ReplicaId};

use crate::handoff::Handoff;
use crate::identity::{Ownership, ProcessIdentity, Sight};
use crate::locks::running_engine;
use crate::ports;
use crate::sys;

/// Where the birth of an engine is written down.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Records {
    pub handoff: PathBuf,
    pub engine_lock: PathBuf,
}

impl Records {
    pub fn of(home: &HomeLayout, name: &InstanceName, replica: ReplicaId) -> Self {
        Self { handoff: home.handoff(name, replica), engine_lock: home.engine_lock(name, replica) }
    }

    /// Whether the handoff file, or the lock that an engine holds before it is ready, speaks of this very process.
    fn name(&self, identity: &ProcessIdentity) -> bool {
        let is_it = |written: &ProcessIdentity| {
            (written.pid, &written.started_at, written.port)
                == (identity.pid, &identity.started_at, identity.port)
        };
        Handoff::read(&self.handoff).is_ok_and(|handoff| is_it(&handoff.identity()))
            || running_engine(&self.engine_lock).is_some_and(|engine| is_it(&engine.identity))
    }
}

/// The start mark of a process that began when ours did, or that the system hides as well.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mark {
    Same,
    Hidden,
}

/// Who listens on the port that is remembered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum PortOwner {
    /// The process, or one of its own.
    It,
    Another,
    /// Somebody whom the system does not name.
    Hidden,
    Nobody,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Ours,
    Foreign,
    Unknown,
}

/// Pid and start mark name one process among all that ever ran; written down by its shim it is our engine unless its
/// port speaks against it. An engine that loads or ends has no port, which says nothing. Without the start mark the
/// port has to speak for it: the pid may have been used again since it was written down.
fn verdict(mark: Mark, is_written_down: bool, port: PortOwner) -> Verdict {
    match (mark, is_written_down, port) {
        (_, _, PortOwner::Another) => Verdict::Foreign,
        (Mark::Same, true, PortOwner::It | PortOwner::Hidden | PortOwner::Nobody)
        | (Mark::Hidden, true, PortOwner::It) => Verdict::Ours,
        (Mark::Same | Mark::Hidden, _, PortOwner::It | PortOwner::Hidden | PortOwner::Nobody) => {
            Verdict::Unknown
        }
    }
}

impl ProcessIdentity {
    /// Looks at the process that has the pid now. Where the system denies the look, the records and the owner of the
    /// port decide.
    pub fn check_by(&self, records: &Records) -> Ownership {
        let (mark, denied) = match sys::sight(self.pid) {
            Sight::Gone => return Ownership::Gone,
            Sight::Denied(reason) => (Mark::Hidden, reason),
            Sight::Seen(process) => match self.compare(&process) {
                Ownership::Denied { reason } => (Mark::Same, reason),
                seen => return seen,
            },
        };
        match verdict(mark, records.name(self), self.port_owner()) {
            Verdict::Ours => Ownership::Vouched {
                reason: format!("{denied}; what is written down of it and its port agree"),
            },
            Verdict::Foreign => Ownership::Foreign {
                reason: format!("{denied}, and port {} belongs to another process", self.port),
            },
            Verdict::Unknown => {
                Ownership::Denied { reason: format!("{denied}, and nothing else tells that it is ours") }
            }
        }
    }

    fn port_owner(&self) -> PortOwner {
        let Some(holder) = ports::holder_of(self.port) else { return PortOwner::Nobody };
        let Some(owner) = holder.pid else { return PortOwner::Hidden };
        // A wrapper that did not become the engine has the engine for a child, in its own group.
        let is_its_own = || {
            sys::process_entry(owner).is_some_and(|entry| entry.group == self.pid || entry.parent == self.pid)
        };
        if owner == self.pid || is_its_own() { PortOwner::It } else { PortOwner::Another }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::StartMark;

    #[test]
    fn a_hidden_process_is_ours_only_when_record_and_port_say_so() {
        use Mark::{Hidden, Same};
        use Verdict::{Foreign, Ours, Unknown};
        let ports = [PortOwner::It, PortOwner::Hidden, PortOwner::Nobody, PortOwner::Another];
        for (mark, is_written_down, expected) in [
            (Same, true, [Ours, Ours, Ours, Foreign]),
            (Same, false, [Unknown, Unknown, Unknown, Foreign]),
            (Hidden, true, [Ours, Unknown, Unknown, Foreign]),
            (Hidden, false, [Unknown, Unknown, Unknown, Foreign]),
        ] {
            let found = ports.map(|port| verdict(mark, is_written_down, port));
            assert_eq!(found, expected, "{mark:?}, written down: {is_written_down}");
        }
    }

    #[test]
    fn the_owner_of_a_port_is_told_from_another_and_from_nobody() {
        let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let identity = |pid, port| ProcessIdentity {
            pid,
            started_at: StartMark("boot:1".into()),
            executable: PathBuf::new(),
            port,
        };
        // Windows does not name owners everywhere.
        let told = |owner| if cfg!(windows) { vec![owner, PortOwner::Hidden] } else { vec![owner] };
        let me = identity(std::process::id(), port).port_owner();
        assert!(told(PortOwner::It).contains(&me), "{me:?}");
        let stranger = identity(u32::MAX / 2, port).port_owner();
        assert!(told(PortOwner::Another).contains(&stranger), "{stranger:?}");
        drop(listener);
        assert_eq!(identity(1, port).port_owner(), PortOwner::Nobody);
    }

    #[test]
    fn a_handoff_file_speaks_of_one_process_on_one_port() {
        let folder = tempfile::tempdir().unwrap();
        let records = Records {
            handoff: folder.path().join("chat-r0.json"),
            engine_lock: folder.path().join("chat.r0.engine.lock"),
        };
        let it = ProcessIdentity {
            pid: 7,
            started_at: StartMark("boot:1".into()),
            executable: "/opt/llama-server".into(),
            port: 8001,
        };
        assert!(!records.name(&it), "nothing is written");
        let text = r#"{"pool_id":"chat","replica_id":"r0","instance":"chat","engine":"llama.cpp","exe":"/x",
            "url":"http://127.0.0.1:8001","pid":7,"process_started_at":"boot:1","shim_pid":6,"slots_total":1,
            "slots_free":1,"model":{"id":"chat","path":"/m.gguf"},"config_hash":"h"}"#;
        std::fs::write(&records.handoff, text).unwrap();
        assert!(records.name(&it), "the path of a program says nothing where it cannot be seen");
        for other in [
            ProcessIdentity { pid: 8, ..it.clone() },
            ProcessIdentity { started_at: StartMark("boot:2".into()), ..it.clone() },
            ProcessIdentity { port: 8002, ..it.clone() },
        ] {
            assert!(!records.name(&other), "{other:?}");
        }
    }
}
