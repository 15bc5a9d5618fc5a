//! Meeting reality: what is found at the start, and what happens when engine or shim are gone.

use std::time::{Duration, Instant};

use engine_process::{Handoff, Records};
use orch_core::{DesiredState, Failure, Status, UnixMillis};
use state_store::RuntimeRow;

use super::{Supervisor, exit_of};
use crate::actual::{Actual, LiveEngine, observe};
use crate::crash::{Cause, CrashReport};
use crate::lifecycle::{Event, Phase};
use crate::node::Node;
use crate::operate;

/// After an engine's end its shim cleans up and writes the exit record; nobody waits for it longer than this.
const SHIM_FAREWELL: Duration = Duration::from_secs(2);

/// The first and the longest time between two looks at a state that cannot be read.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

impl Supervisor {
    /// A state that cannot be read is looked at again and again: an engine of ours may wait to be adopted. False when
    /// the daemon ends.
    pub(super) async fn begin_later(&mut self) -> bool {
        let token = self.tasks.token();
        let mut pause = FIRST_PAUSE;
        loop {
            tokio::select! {
                () = token.cancelled() => return false,
                () = tokio::time::sleep(pause) => {}
            }
            if self.begin().await {
                self.publish();
                return true;
            }
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    /// The reconciliation of desired and actual state when this loop takes over. False when the state cannot be read.
    pub(super) async fn begin(&mut self) -> bool {
        let name = self.name().clone();
        let replica = self.replica;
        let found = self
            .with_node(move |node| {
                let row = node.store.runtime(&name, replica)?;
                let desired = node.store.desired(&name)?;
                let actual = observe(&node.home, row.as_ref(), &name, replica);
                Ok((row, desired, actual))
            })
            .await;
        let Some((row, desired, actual)) = found else { return false };
        if let Some(desired) = desired {
            self.machine.desired = desired;
        }
        if let Some(row) = &row {
            self.machine.attempts = row.restart_attempts;
            self.restarts = row.restarts;
            self.last_error.clone_from(&row.last_error);
        }
        match actual {
            Actual::Ours(live) => self.take_over(*live).await,
            Actual::Foreign { reason } if self.machine.desired != DesiredState::Stopped => {
                self.last_error = Some(reason.clone());
                self.step(Event::FoundForeign { reason }).await;
            }
            Actual::Foreign { .. } | Actual::Gone => self.found_nothing(row.as_ref()).await,
        }
        true
    }

    /// A living engine of ours: adopted, or ended when it is not wanted.
    pub(super) async fn take_over(&mut self, live: LiveEngine) {
        let (announced, age) = (live.handoff.is_some(), self.age_of(&live).await);
        let (identity, handoff) = (live.identity.clone(), live.handoff.clone());
        let instance = self.instance.clone();
        let replica = self.replica;
        let adopted = self.with_node(move |node| {
            let row = node.store.runtime(&instance.config.name, replica)?;
            let shim = operate::adopt(node, &instance, replica, &live)?;
            Ok((shim, row.is_some_and(|row| row.status == Status::Running)))
        });
        let (shim, was_running) = adopted.await.unzip();
        self.care_for(identity, shim).await;
        // The shim knows nothing of a warm-up: of one that has to be warm only its row says that it was ready.
        let ready =
            announced && (was_running == Some(true) || !self.instance.config.healthcheck.warmup_enabled);
        if let (true, Some(engine)) = (ready, &mut self.engine) {
            engine.warm_up = None;
        }
        if let (Some(engine), Some(handoff)) = (&mut self.engine, handoff) {
            // The config may have changed since this engine was started.
            engine.runs_as(&handoff);
        }
        let unwanted = self.machine.desired == DesiredState::Stopped;
        self.step(Event::Adopted { ready, age }).await;
        if unwanted {
            self.reconciling = true;
            self.step(Event::Down { force: false }).await;
        }
    }

    /// How long ago an engine was started, as far as that was written down.
    async fn age_of(&mut self, live: &LiveEngine) -> Duration {
        let (name, replica, pid) = (self.name().clone(), self.replica, live.identity.pid);
        let row = self.with_node(move |node| Ok(node.store.runtime(&name, replica)?)).await.flatten();
        let started = row.filter(|row| row.pid == Some(pid)).and_then(|row| row.started_at);
        started.map_or(Duration::ZERO, |started| UnixMillis::now().since(started))
    }

    /// No engine of ours: what that means depends on what the row remembers and on what is wanted.
    async fn found_nothing(&mut self, row: Option<&RuntimeRow>) {
        let wanted = self.machine.desired;
        match row {
            // Nobody wants it and nobody has it: the row only forgets.
            Some(row) if row.pid.is_some() && wanted == DesiredState::Stopped => {
                self.record(|recorder| recorder.forget()).await;
            }
            Some(RuntimeRow { pid: Some(pid), .. }) => {
                let record = self.node.home.exit_record(self.name(), self.replica);
                let report = CrashReport::of(&record, *pid, Duration::ZERO);
                self.crashed(&report).await;
                self.step(Event::FoundDead { reason: report.reason }).await;
            }
            _ if wanted != DesiredState::Running => {}
            Some(RuntimeRow { status: Status::Crashed, last_error, .. }) => {
                if self.machine.has_restarts_left() {
                    // A command without a daemon saw its engine die: nobody has tried again yet.
                    let reason = last_error.clone().unwrap_or_else(|| "the engine is gone".to_owned());
                    self.step(Event::FoundDead { reason }).await;
                } else {
                    self.machine.phase = Phase::GaveUp;
                }
            }
            // The restart policy was waiting when the last daemon ended: it goes on waiting.
            Some(RuntimeRow { next_restart_at: Some(at), .. }) => {
                let longest = self.machine.policy.restart.map_or(Duration::ZERO, |restart| restart.max);
                let until = Instant::now() + at.since(UnixMillis::now()).min(longest);
                self.machine.phase = Phase::BackingOff { until };
            }
            // The last daemon ended between the crash that it wrote down and the restart that was to follow.
            Some(RuntimeRow { status: Status::Starting, last_error, .. }) => {
                let reason = last_error.clone().unwrap_or_else(|| "the engine is gone".to_owned());
                self.step(Event::FoundDead { reason }).await;
            }
            _ => self.step(Event::Wanted).await,
        }
    }

    /// A living engine of ours that this loop has not heard of: a command that began before it may have started one.
    pub(super) async fn unknown_engine(&mut self) -> Option<LiveEngine> {
        let (name, replica) = (self.name().clone(), self.replica);
        let look = move |node: &Node| {
            let row = node.store.runtime(&name, replica)?;
            Ok(observe(&node.home, row.as_ref(), &name, replica))
        };
        match self.with_node(look).await {
            Some(Actual::Ours(live)) => Some(*live),
            _ => None,
        }
    }

    /// A stop that failed of an engine that ended by itself meanwhile has nothing left to stop. One that this loop
    /// had not heard of is watched from here on.
    pub(super) async fn stop_failed(&mut self, failure: Failure) -> Result<(), Failure> {
        if self.engine.is_none() {
            let Some(live) = self.unknown_engine().await else { return Ok(()) };
            self.care_for(live.identity, live.handoff.map(|file| file.shim_pid)).await;
        }
        Err(failure)
    }

    /// A command that began before this loop may have written another wish, and ended the engine by it.
    async fn hear_of_down(&mut self) {
        let name = self.name().clone();
        let written = self.with_node(move |node| Ok(node.store.desired(&name)?)).await.flatten();
        if written == Some(DesiredState::Stopped) {
            self.machine.desired = DesiredState::Stopped;
        }
    }

    /// The engine is gone. Its shim finishes first: it ends what is left of the tree, writes the exit record and
    /// frees the engine's lock.
    pub(super) async fn engine_gone(&mut self) {
        let Some(engine) = self.engine.take() else { return };
        if let Some(shim) = self.shim_exit.take() {
            let _ = tokio::time::timeout(SHIM_FAREWELL, shim).await;
        }
        self.forget_engine();
        // While a stop is under way the stop reports.
        if matches!(self.machine.phase, Phase::Stopping { .. }) {
            return;
        }
        self.hear_of_down().await;
        let record = self.node.home.exit_record(self.name(), self.replica);
        let report = CrashReport::of(&record, engine.identity.pid, Duration::ZERO);
        if self.machine.desired != DesiredState::Stopped {
            self.crashed(&report).await;
        }
        self.step(Event::Exited { reason: report.reason }).await;
    }

    /// The row and the event of a crash, before anything is decided about it. A daemon that ends before the decision
    /// is written down leaves a row that says what is to come.
    async fn crashed(&mut self, report: &CrashReport) {
        self.last_error = Some(report.reason.clone());
        self.restart_reason = Some(report.cause.map_or("crash", Cause::label));
        let report = report.clone();
        let status = match self.machine.desired {
            DesiredState::Running => Status::Starting,
            DesiredState::OnDemand | DesiredState::Stopped => Status::Crashed,
        };
        self.record(move |recorder| recorder.crash(&report, status)).await;
    }

    /// The shim was killed; its engine serves on and gets a new one.
    pub(super) async fn shim_gone(&mut self) {
        if matches!(self.machine.phase, Phase::Stopping { .. }) {
            return;
        }
        let Some(identity) = self.engine.as_ref().map(|engine| engine.identity.clone()) else { return };
        let (instance, replica) = (self.instance.clone(), self.replica);
        let adopted = self.with_node(move |node| {
            let records = Records::of(&node.home, &instance.config.name, replica);
            let ownership = identity.check_by(&records);
            let handoff = Handoff::read(&records.handoff).ok();
            // A shim that ends together with its engine is no news.
            let Some(live) = LiveEngine::owned(identity, ownership, handoff, true) else { return Ok(None) };
            operate::adopt(node, &instance, replica, &live).map(Some)
        });
        let shim = match adopted.await {
            Some(None) => return,
            adopted => adopted.flatten(),
        };
        let Some(engine) = &mut self.engine else { return };
        engine.watch(shim);
        self.shim_exit = engine.shim.clone().map(exit_of);
    }
}
