//! What really is: the process of a replica, as the database, the handoff file, its lock and the system tell.

use engine_process::{Handoff, Ownership, ProcessIdentity, Records, StartMark};
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
    /// The system does not let us look at it; others vouch for it.
    pub denied: Option<String>,
}

impl LiveEngine {
    /// `None` for a process that is not ours.
    pub(crate) fn owned(
        identity: ProcessIdentity,
        ownership: Ownership,
        handoff: Option<Handoff>,
        recorded: bool,
    ) -> Option<Box<Self>> {
        let denied = match ownership {
            Ownership::Ours => None,
            Ownership::Vouched { reason } => Some(reason),
            Ownership::Gone | Ownership::Foreign { .. } | Ownership::Denied { .. } => return None,
        };
        Some(Box::new(Self { identity, handoff, recorded, denied }))
    }
}

/// Looks at the system; changes nothing.
pub fn observe(
    home: &HomeLayout,
    row: Option<&RuntimeRow>,
    name: &InstanceName,
    replica: ReplicaId,
) -> Actual {
    let handoff = Handoff::read(&home.handoff(name, replica)).ok();
    let records = Records::of(home, name, replica);
    let mut foreign = None;
    if let Some(recorded) = row.and_then(row_identity) {
        let (identity, ownership) = look_at(recorded, &records);
        if let Ownership::Foreign { reason } | Ownership::Denied { reason } = &ownership {
            foreign = Some(reason.clone());
        }
        let its_own = handoff.clone().filter(|file| file.pid == identity.pid);
        if let Some(live) = LiveEngine::owned(identity, ownership, its_own, true) {
            return Actual::Ours(live);
        }
    }
    if let Some(file) = handoff {
        let ownership = file.identity().check_by(&records);
        if let Some(live) = LiveEngine::owned(file.identity(), ownership, Some(file), false) {
            return Actual::Ours(live);
        }
    }
    // Born, but whoever gave birth to it died before it was written down, and it is not ready yet.
    if let Some(unwritten) = engine_process::running_engine(&records.engine_lock) {
        let (identity, ownership) = look_at(unwritten.identity, &records);
        if let Some(live) = LiveEngine::owned(identity, ownership, None, false) {
            return Actual::Ours(live);
        }
    }
    foreign.map_or(Actual::Gone, |reason| Actual::Foreign { reason })
}

/// A process as it is now, and whose it is: a wrapper script may have become the engine it wraps.
fn look_at(identity: ProcessIdentity, records: &Records) -> (ProcessIdentity, Ownership) {
    let ownership = identity.check_by(records);
    match ownership {
        Ownership::Foreign { .. } => match identity.followed(&records.engine_lock) {
            Some(followed) => {
                let ownership = followed.check_by(records);
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
