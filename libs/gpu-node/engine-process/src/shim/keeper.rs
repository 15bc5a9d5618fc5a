//! The shim's loop: look at the logs, at the engine's readiness and at its life, until the life is over.

use std::time::{Duration, Instant};

use orch_core::UnixMillis;

use super::charge::Charge;
use super::ending;
use super::log_keeper::{Activity, LogKeeper};
use super::readiness::Readiness;
use crate::handoff::Handoff;
use crate::locks::LockGuard;
use crate::logs::LogFiles;
use crate::spec::EngineSpec;
use crate::sys::{self, memory_kills};

/// Between looks while a log file is being cut down, grows, or is silent.
const HURRIED: Duration = Duration::from_millis(10);
const BUSY: Duration = Duration::from_millis(100);
const IDLE: Duration = Duration::from_millis(200);
/// How often the kernel's count of memory kills is noted, so that an old one is not taken for this engine's.
const MEMORY_NOTE_INTERVAL: Duration = Duration::from_secs(5);

/// Where things are written at the end; all that is left of the spec once the engine runs.
pub(super) struct Places {
    pub log_files: LogFiles,
    pub handoff: std::path::PathBuf,
    pub exit_record: std::path::PathBuf,
    pub engine_lock: std::path::PathBuf,
    /// Not to be written down with the engine's last words.
    pub secrets: Vec<String>,
}

pub(super) struct Keeper {
    engine: Charge,
    /// Shared with an engine that this shim started; an adopted one holds it alone.
    _engine_lock: Option<LockGuard>,
    /// Held to tell others that this engine has a shim.
    _shim_lock: LockGuard,
    logs: Vec<LogKeeper>,
    readiness: Option<Readiness>,
    places: Places,
    began_at: UnixMillis,
    memory_kills: Option<u64>,
    memory_noted: Instant,
}

impl Keeper {
    pub(super) fn new(
        spec: EngineSpec,
        engine: Charge,
        engine_lock: Option<LockGuard>,
        shim_lock: LockGuard,
        logs: Vec<LogKeeper>,
    ) -> Self {
        let places = Places {
            log_files: spec.log_files(),
            handoff: spec.handoff.clone(),
            exit_record: spec.exit_record.clone(),
            engine_lock: spec.engine_lock.clone(),
            secrets: spec.secrets(),
        };
        let identity = engine.identity().clone();
        let known_ready = Handoff::read(&spec.handoff).is_ok_and(|handoff| {
            handoff.pid == identity.pid && handoff.process_started_at == identity.started_at
        });
        let readiness = (!known_ready).then(|| Readiness::new(spec, identity));
        Self {
            engine,
            _engine_lock: engine_lock,
            _shim_lock: shim_lock,
            logs,
            readiness,
            places,
            began_at: UnixMillis::now(),
            memory_kills: memory_kills(),
            memory_noted: Instant::now(),
        }
    }

    /// Keeps the engine until it ends, and then sees to its remains.
    pub(super) fn run(mut self) {
        sys::forget_code();
        let mut pace = HURRIED;
        loop {
            let ended = self.engine.wait(pace);
            let activity = self.look_at_logs();
            if ended {
                break;
            }
            self.engine.clear_away_orphans();
            self.note_memory_kills();
            pace = pace_for(activity).min(self.step_readiness().unwrap_or(IDLE));
        }
        self.finish();
    }

    fn look_at_logs(&mut self) -> Activity {
        self.logs.iter_mut().map(LogKeeper::look).max().unwrap_or(Activity::Silent)
    }

    /// When the next step is due; `None` once readiness has been told.
    fn step_readiness(&mut self) -> Option<Duration> {
        let due = self.readiness.as_mut()?.step(Instant::now());
        if due.is_none() {
            self.readiness = None;
            // From here on the shim runs the same few pages for weeks.
            sys::forget_code();
        }
        due
    }

    fn note_memory_kills(&mut self) {
        if self.memory_noted.elapsed() >= MEMORY_NOTE_INTERVAL {
            self.memory_kills = memory_kills();
            self.memory_noted = Instant::now();
        }
    }

    /// The record first, because people wait for it; the kill of the remains before the reaping, because until
    /// then the engine's pid and group cannot become somebody else's.
    fn finish(mut self) {
        let kills = (self.memory_kills, memory_kills());
        let identity = self.engine.identity();
        ending::write_record(&self.places, identity, self.engine.end(), self.began_at, kills);
        Handoff::remove_of(&self.places.handoff, identity.pid, &identity.started_at);
        self.engine.kill_rest(&self.places.engine_lock);
        // What was still written while the remains were killed.
        self.look_at_logs();
    }
}

fn pace_for(activity: Activity) -> Duration {
    match activity {
        Activity::Flooding => HURRIED,
        Activity::Growing => BUSY,
        Activity::Silent => IDLE,
    }
}
