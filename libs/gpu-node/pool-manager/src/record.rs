//! Writing down what happened: the runtime row and the event of each effect.

use std::time::Duration;

use orch_core::{
    EventLevel, EventType, ExitCode, Failure, Health, InstanceName, ReplicaId, Status, UnixMillis,
};
use serde_json::{Value, json};
use state_store::{NewEvent, StateStore, StoreError};

use crate::crash::CrashReport;

/// Writes for one replica.
pub(crate) struct Recorder<'a> {
    pub store: &'a StateStore,
    pub name: &'a InstanceName,
    pub replica: ReplicaId,
}

impl Recorder<'_> {
    fn event(
        &self,
        level: EventLevel,
        event_type: EventType,
        message: String,
        meta: Option<Value>,
    ) -> Result<(), StoreError> {
        let event = NewEvent { instance: Some(self.name), level, event_type, message, meta };
        self.store.append_event(&event, UnixMillis::now())?;
        Ok(())
    }

    pub(crate) fn ready(&self) -> Result<(), StoreError> {
        self.store.record_ready(self.name, self.replica, UnixMillis::now())
    }

    pub(crate) fn stopped(&self) -> Result<(), StoreError> {
        let had_process = self.store.runtime(self.name, self.replica)?.is_some_and(|row| row.pid.is_some());
        self.store.record_stopped(self.name, self.replica, UnixMillis::now())?;
        if had_process {
            self.event(EventLevel::Info, EventType::InstanceStopped, "stopped".to_owned(), None)?;
        }
        Ok(())
    }

    /// One probe's finding; an event only when the health changed.
    pub(crate) fn health(
        &self,
        from: Health,
        to: Health,
        response: Duration,
        reason: Option<&str>,
    ) -> Result<(), StoreError> {
        let millis = u32::try_from(response.as_millis()).unwrap_or(u32::MAX);
        self.store.record_health_check(
            self.name,
            self.replica,
            to,
            Some(millis),
            reason,
            UnixMillis::now(),
        )?;
        if from == to {
            return Ok(());
        }
        let level = if matches!(to, Health::Unhealthy | Health::Error) {
            EventLevel::Warning
        } else {
            EventLevel::Info
        };
        let why = reason.map_or(String::new(), |reason| format!(": {reason}"));
        let meta = json!({"from": from, "to": to});
        self.event(level, EventType::HealthChanged, format!("{from} -> {to}{why}"), Some(meta))
    }

    pub(crate) fn crash(&self, report: &CrashReport) -> Result<(), StoreError> {
        let now = UnixMillis::now();
        let reason = report.reason.as_str();
        self.store.record_exit(
            self.name,
            self.replica,
            report.exit_code,
            Status::Crashed,
            Some(reason),
            now,
        )?;
        let meta = json!({"exit_code": report.exit_code, "out_of_memory": report.out_of_memory});
        self.event(EventLevel::Error, EventType::Crashed, report.reason.clone(), Some(meta))
    }

    /// The next crash counts as the first again.
    pub(crate) fn stable(&self) -> Result<(), StoreError> {
        self.store.reset_restart_attempts(self.name, self.replica)
    }

    pub(crate) fn sick(&self, reason: &str) -> Result<(), StoreError> {
        self.event(EventLevel::Error, EventType::Crashed, format!("ended by the supervisor: {reason}"), None)
    }

    /// The row forgets its process; what follows is told apart.
    pub(crate) fn gone(&self) -> Result<(), StoreError> {
        self.store.clear_process(self.name, self.replica)
    }

    pub(crate) fn restart_scheduled(&self, attempt: u32, delay: Duration) -> Result<(), StoreError> {
        let now = UnixMillis::now();
        let at = UnixMillis(now.0.saturating_add(i64::try_from(delay.as_millis()).unwrap_or(i64::MAX)));
        self.store.record_restart_scheduled(self.name, self.replica, attempt, at)?;
        let message = format!("restart {attempt} in {:.1} s", delay.as_secs_f64());
        let meta =
            json!({"attempt": attempt, "delay_ms": u64::try_from(delay.as_millis()).unwrap_or(u64::MAX)});
        self.event(EventLevel::Warning, EventType::RestartScheduled, message, Some(meta))
    }

    pub(crate) fn gave_up(&self, reason: &str) -> Result<(), StoreError> {
        let (name, replica) = (self.name, self.replica);
        self.store.record_status(
            name,
            replica,
            Status::Crashed,
            Health::Unknown,
            Some(reason),
            UnixMillis::now(),
        )?;
        let message = format!("no further restart by policy: {reason}");
        self.event(EventLevel::Error, EventType::GaveUp, message, None)
    }

    pub(crate) fn start_failed(&self, failure: &Failure) -> Result<(), StoreError> {
        let error = Some(failure.message.as_str());
        let (name, replica) = (self.name, self.replica);
        self.store.record_status(name, replica, Status::Error, Health::Unknown, error, UnixMillis::now())?;
        let event_type = match failure.exit {
            ExitCode::PortInUse => EventType::PortCollision,
            _ => EventType::StartFailed,
        };
        let meta = json!({"exit_code": failure.exit});
        self.event(EventLevel::Error, event_type, failure.message.clone(), Some(meta))
    }

    pub(crate) fn stop_failed(&self, failure: &Failure) -> Result<(), StoreError> {
        self.event(
            EventLevel::Error,
            EventType::Reconciled,
            format!("could not be stopped: {}", failure.message),
            None,
        )
    }

    pub(crate) fn pid_mismatch(&self, reason: &str) -> Result<(), StoreError> {
        self.store.clear_process(self.name, self.replica)?;
        let message = format!("the recorded process is somebody else's now ({reason}); it is left alone");
        self.event(EventLevel::Warning, EventType::PidMismatch, message, None)
    }

    pub(crate) fn orphan_found(&self, pid: u32) -> Result<(), StoreError> {
        let message = format!(
            "pid {pid} runs, but its config is gone or cannot be read; `llama-orch down {}` ends it",
            self.name
        );
        self.event(EventLevel::Warning, EventType::OrphanFound, message, Some(json!({"pid": pid})))
    }

    pub(crate) fn reconciled(&self, message: &str) -> Result<(), StoreError> {
        self.event(EventLevel::Info, EventType::Reconciled, message.to_owned(), None)
    }
}
