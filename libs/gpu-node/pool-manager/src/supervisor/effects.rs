//! Carrying out what the state machine decided.

use std::sync::Arc;
use std::time::Duration;

use engine_process::{Records, StopPlan, StopTarget};
use orch_core::{DesiredState, ExitCode, Failure};
use tokio::sync::Notify;

use super::{Goal, Job, JobDone, Supervisor, joined};
use crate::engine::Examination;
use crate::lifecycle::{Effect, Outcome};
use crate::operate::{self, LaunchCause};

impl Supervisor {
    pub(super) async fn carry_out(&mut self, effect: Effect) {
        match effect {
            Effect::Launch { by_policy, desired } => self.begin_launch(by_policy, desired),
            Effect::Terminate { force } => {
                if self.engine.is_some() {
                    let health = self.machine.health;
                    self.record(move |recorder| recorder.stopping(health)).await;
                }
                self.begin_termination(force);
            }
            Effect::Load => self.launch_as(LaunchCause::Demand),
            Effect::Hasten => self.hasten(),
            Effect::RecordDesired { desired } => {
                let instance = self.instance.clone();
                self.with_node(move |node| operate::remember_desired(node, &instance, desired)).await;
            }
            Effect::Probe => {
                self.examination =
                    self.engine.clone().map(|engine| -> Job<Examination> { Box::pin(engine.examine()) });
            }
            Effect::RecordReady => {
                self.last_error = None;
                self.record(|recorder| recorder.ready()).await;
            }
            Effect::RecordHealth { from, to, reason } => {
                self.record(move |recorder| recorder.health_changed(from, to, reason.as_deref())).await;
            }
            Effect::RecordStable => self.record(|recorder| recorder.stable()).await,
            Effect::RecordStopped if std::mem::take(&mut self.reconciling) => {
                self.record(|recorder| recorder.reconciled("it ran though it should not; stopped")).await;
            }
            Effect::RecordStopped => {
                self.yielding = false;
                match self.unloading.take() {
                    Some(why) => self.record(move |recorder| recorder.unloaded(&why)).await,
                    None => self.record(|recorder| recorder.stopped()).await,
                }
            }
            Effect::RecordSick { reason } => {
                self.restart_reason = Some("unhealthy");
                self.last_error = Some(reason.clone());
                self.record(move |recorder| recorder.sick(&reason)).await;
            }
            Effect::RecordRestartScheduled { retry } => {
                self.record(move |recorder| recorder.restart_scheduled(retry)).await;
            }
            Effect::RecordGaveUp { reason } => self.record(move |recorder| recorder.gave_up(&reason)).await,
            Effect::RecordStartFailed { failure, retry } => {
                self.restart_reason = Some("start_failed");
                self.record(move |recorder| recorder.start_failed(&failure, retry)).await;
            }
            Effect::RecordForeign { reason, retry } => {
                self.restart_reason = Some("gone");
                self.record(move |recorder| recorder.pid_mismatch(&reason, retry)).await;
            }
            Effect::RecordStopFailed { failure } => {
                self.record(move |recorder| recorder.stop_failed(&failure)).await;
            }
            Effect::Settle { outcome } => {
                if self.retired && matches!(outcome, Outcome::Stopped) {
                    self.leave_board();
                    self.off_board = true;
                }
                self.publish();
                self.settle(&outcome);
            }
        }
    }

    fn begin_launch(&mut self, by_policy: bool, desired: DesiredState) {
        if by_policy {
            self.restarts += 1;
            let reason = self.restart_reason.take().unwrap_or("crash");
            *self.restarts_seen.entry(reason).or_default() += 1;
        } else {
            self.restarts = 0;
            self.restart_reason = None;
        }
        let cause = match (by_policy, self.machine.was_asked()) {
            (true, _) => LaunchCause::Policy,
            (false, true) => LaunchCause::User { desired },
            (false, false) => LaunchCause::Wish,
        };
        self.launch_as(cause);
    }

    fn launch_as(&mut self, cause: LaunchCause) {
        self.yielding = false;
        let (node, instance, replica) = (Arc::clone(&self.node), self.instance.clone(), self.replica);
        let lock = Arc::clone(&self.lock);
        let work = self.tasks.spawn_blocking("launch", move || {
            let operation = cause.operation();
            let held = lock.join(&node, &instance.config.name, operation)?;
            lock.one_launch(|| operate::launch(&node, &held, &instance, replica, cause)).map(Box::new)
        });
        self.job = Some(Box::pin(async move { JobDone::Launched(joined(work.await)) }));
    }

    fn begin_termination(&mut self, force: bool) {
        let (node, board) = (Arc::clone(&self.node), Arc::clone(&self.board));
        let (instance, replica, drain) =
            (self.instance.clone(), self.replica, std::mem::take(&mut self.drain));
        let (tasks, lock) = (self.tasks.clone(), Arc::clone(&self.lock));
        let hurry = Arc::new(Notify::new());
        self.hurry = Some(Arc::clone(&hurry));
        self.examination = None;
        self.watch.inquiry = None;
        self.job = Some(Box::pin(async move {
            let name = &instance.config.name;
            let hurried = tokio::select! {
                () = board.traffic().drain(name, replica, drain) => false,
                () = hurry.notified() => true,
            };
            if hurried {
                board.traffic().drain(name, replica, Duration::ZERO).await;
            }
            let force = force || hurried;
            let work = tasks.spawn_blocking("terminate", move || {
                let held = lock.join(&node, &instance.config.name, "down")?;
                let config = &instance.config;
                operate::terminate(&node, &held, &config.name, &config.server.host, replica, force)
                    .map(|_| ())
            });
            JobDone::Terminated(joined(work.await))
        }));
    }

    /// Ends the drain of the stop under way, and the engine itself if that already has been asked politely: the
    /// polite stop then finds it gone.
    fn hasten(&mut self) {
        self.drain = Duration::ZERO;
        if let Some(hurry) = &self.hurry {
            hurry.notify_one();
        }
        let Some(engine) = &self.engine else { return };
        let target = StopTarget {
            identity: engine.identity.clone(),
            shim_pid: engine.shim.as_ref().map(|(pid, _)| *pid),
            records: Records::of(&self.node.home, &self.instance.config.name, self.replica),
            host: self.instance.config.server.host.clone(),
        };
        self.tasks.spawn_blocking("hasten", move || {
            let plan = StopPlan { force: true, ..StopPlan::default() };
            if let Err(error) = engine_process::stop(&target, &plan) {
                tracing::warn!(%error, "a forced stop did not succeed");
            }
        });
    }

    fn settle(&mut self, outcome: &Outcome) {
        for (goal, answer) in std::mem::take(&mut self.waiting) {
            let result = match (&goal, outcome) {
                (_, Outcome::Failed(failure)) => Err(failure.clone()),
                (Goal::Ready, Outcome::Ready) | (Goal::Stopped, Outcome::Stopped) => Ok(()),
                (Goal::Ready, Outcome::Stopped) => Err(Failure::new(
                    ExitCode::StartFailed,
                    format!("{} was stopped meanwhile", self.label()),
                )),
                (Goal::Stopped, Outcome::Ready) => {
                    Err(Failure::new(ExitCode::StopFailed, format!("{} was started meanwhile", self.label())))
                }
            };
            let _ = answer.send(result);
        }
    }
}
