//! What really is: the process of a replica, as the database, the handoff file, its lock and the system tell.

use std::path::Path;

use engine_process::{Handoff, Ownership, ProcessIdentity, StartMark};
use orch_core::{HomeLayout, InstanceName, ReplicaId};
use state_store::RuntimeRow;

/// Who is behind a replica right now.
#[derive(Clone, Debug)]
pub enum Actual {
    /// A living engine that is ours.
    Ours(Box<LiveEngine>),
    /// The recorded pid belongs to somebody else now: never to be touched.
    Foreign { reason: String },
    /// No process.
    Gone,
}

/// A living engine of ours.
#[derive(Clone, Debug)]
pub struct LiveEngine {
    pub identity: ProcessIdentity,
    /// Written by the shim once the engine is ready.
    pub handoff: Option<Handoff>,
    /// Whether the database knew it, or only the handoff file.
    pub recorded: bool,
}

/// Looks at the system; changes nothing.
pub fn observe(
    home: &HomeLayout,
    row: Option<&RuntimeRow>,
    name: &InstanceName,
    replica: ReplicaId,
) -> Actual {
    let handoff = Handoff::read(&home.handoff(name, replica)).ok();
    let recorded = row.and_then(row_identity);
    let mut foreign = None;
    let lock = home.engine_lock(name, replica);
    if let Some((identity, ownership)) = recorded.map(|identity| look_at(identity, &lock)) {
        match ownership {
            Ownership::Ours => {
                let handoff = handoff.filter(|file| file.pid == identity.pid);
                return Actual::Ours(Box::new(LiveEngine { identity, handoff, recorded: true }));
            }
            // A system that denies the look leaves the handoff file as the only witness.
            Ownership::Denied { reason } => {
                if let Some(file) = handoff.clone().filter(|file| file.pid == identity.pid) {
                    return Actual::Ours(Box::new(LiveEngine {
                        identity,
                        handoff: Some(file),
                        recorded: true,
                    }));
                }
                foreign = Some(reason);
            }
            Ownership::Foreign { reason } => foreign = Some(reason),
            Ownership::Gone => {}
        }
    }
    if let Some(file) = handoff.filter(|file| file.identity().check() == Ownership::Ours) {
        return Actual::Ours(Box::new(LiveEngine {
            identity: file.identity(),
            handoff: Some(file),
            recorded: false,
        }));
    }
    // Born, but whoever gave birth to it died before it was written down, and it is not ready yet.
    if let Some(unwritten) = engine_process::running_engine(&lock) {
        let (identity, ownership) = look_at(unwritten.identity, &lock);
        if ownership == Ownership::Ours {
            return Actual::Ours(Box::new(LiveEngine { identity, handoff: None, recorded: false }));
        }
    }
    foreign.map_or(Actual::Gone, |reason| Actual::Foreign { reason })
}

/// A process as it is now, and whose it is: a wrapper script may have become the engine it wraps.
fn look_at(identity: ProcessIdentity, engine_lock: &Path) -> (ProcessIdentity, Ownership) {
    let ownership = identity.check();
    match ownership {
        Ownership::Foreign { .. } => match identity.followed(engine_lock) {
            Some(followed) => {
                let ownership = followed.check();
                (followed, ownership)
            }
            None => (identity, ownership),
        },
        _ => (identity, ownership),
    }
}

/// The identity that a row remembers; `None` when it remembers no process. The older tool's rows, which know no start
/// marks, tell only who is to be looked for.
pub fn row_identity(row: &RuntimeRow) -> Option<ProcessIdentity> {
    let pid = row.pid?;
    let Some(mark) = &row.process_started_at else {
        return engine_process::recognise(pid, row.port, row.started_at);
    };
    Some(ProcessIdentity {
        pid,
        started_at: StartMark(mark.clone()),
        executable: row.exe.clone().unwrap_or_default(),
        port: row.port?,
    })
}
