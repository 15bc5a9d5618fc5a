//! Windows: the engine is in a job, and on a console that it shares with its shim, which asks it to end there.

use std::fs::File;
use std::io;
use std::path::Path;
use std::time::Duration;

use crate::identity::ProcessIdentity;
use crate::leftovers::kill_sharers;
use crate::spec::EngineSpec;
use crate::sys::{
    self, End, EndRequests, Job, ProcessHandle, interrupt_console, join_console_of, spawn_suspended,
};
use crate::wait::wait_until;

/// A killed process ends at once, unless a driver holds it.
const KILL_LIMIT: Duration = Duration::from_secs(10);

/// The engine that a shim looks after.
pub(in crate::shim) struct Charge {
    identity: ProcessIdentity,
    /// `None` when an engine to be adopted has ended meanwhile.
    process: Option<ProcessHandle>,
    job: Option<Job>,
    /// Heard only by a shim on the engine's console.
    requests: Option<EndRequests>,
}

impl Charge {
    /// The engine in a job of its own, with exactly the environment and the handles it is given. It runs only
    /// when it has been told of: whatever happens to the shim, no engine is unknown.
    pub(in crate::shim) fn start(
        spec: &EngineSpec,
        lock: &File,
        (stdout, stderr): (&File, &File),
        tell: impl FnOnce(&ProcessIdentity),
    ) -> io::Result<Self> {
        let unborn = spawn_suspended(spec, lock, stdout, stderr)?;
        let job = Job::around(unborn.process())?;
        let (pid, started_at) = (unborn.process().pid(), unborn.process().start_mark());
        let identity =
            ProcessIdentity { pid, started_at, executable: spec.executable.clone(), port: spec.port };
        let requests = EndRequests::to(pid, unborn.process().created())?;
        tell(&identity);
        job.outlive_us(unborn.process())?;
        let process = unborn.release()?;
        Ok(Self { identity, process: Some(process), job: Some(job), requests: Some(requests) })
    }

    pub(in crate::shim) fn adopt(identity: &ProcessIdentity) -> Self {
        let process = ProcessHandle::open(identity.pid).ok().flatten();
        let process = process.filter(|process| process.start_mark() == identity.started_at);
        let job = process.as_ref().and_then(|process| Job::of(process.pid(), process.created()));
        let requests = process.as_ref().and_then(|process| {
            join_console_of(process.pid()).ok()?;
            EndRequests::to(process.pid(), process.created()).ok()
        });
        Self { identity: identity.clone(), process, job, requests }
    }

    pub(in crate::shim) fn identity(&self) -> &ProcessIdentity {
        &self.identity
    }

    /// Whether it ended within the limit. Requests to end are passed on meanwhile.
    pub(in crate::shim) fn wait(&mut self, limit: Duration) -> bool {
        let Some(process) = &self.process else { return true };
        match &self.requests {
            Some(requests) => match sys::wait_for_either(process, requests, limit) {
                sys::Either::First => true,
                sys::Either::Second => {
                    // An engine that left its console is killed by whoever asked, when nothing comes of it.
                    let _ = interrupt_console();
                    false
                }
                sys::Either::None => false,
            },
            None => process.wait(limit),
        }
    }

    /// Here orphans belong to nobody.
    #[expect(clippy::unused_self, reason = "as on the other systems")]
    pub(in crate::shim) fn clear_away_orphans(&self) {}

    /// How it ended, which it has.
    pub(in crate::shim) fn end(&self) -> End {
        self.process.as_ref().map_or(End::Unknown, ProcessHandle::end)
    }

    /// Ends what it left running.
    pub(in crate::shim) fn kill_rest(&self, engine_lock: &Path) {
        match &self.job {
            Some(job) => {
                let _ = job.kill();
                wait_until(KILL_LIMIT, || job.members().is_empty());
            }
            None => drop(kill_sharers(engine_lock)),
        }
    }
}
