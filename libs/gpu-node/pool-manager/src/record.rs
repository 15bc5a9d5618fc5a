//! Writing down what happened: the runtime row and the event of each effect.

use std::time::Duration;

use orch_core::{
    EventLevel, EventType, ExitCode, Failure, Health, InstanceName, ReplicaId, Status, UnixMillis,
};
use serde_json::{Value, json};
use state_store::{NewEvent, StateStore, StoreError};

use crate::changes::Change;
use crate::crash::{Cause, CrashReport};
use crate::lifecycle::Retry;

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
        let (message, meta) = of_replica(self.name, self.replica, message, meta);
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

    /// No new requests from here on; those in flight may take a while to finish.
    pub(crate) fn stopping(&self, health: Health) -> Result<(), StoreError> {
        let now = UnixMillis::now();
        self.store.record_status(self.name, self.replica, Status::Stopping, health, None, now)
    }

    /// Unloaded though it is still wanted: the next request loads it again.
    pub(crate) fn unloaded(&self, why: &str) -> Result<(), StoreError> {
        self.store.record_stopped(self.name, self.replica, UnixMillis::now())?;
        let meta = json!({"unloaded": true, "reason": why});
        self.event(EventLevel::Info, EventType::InstanceStopped, format!("unloaded: {why}"), Some(meta))
    }

    /// One probe's finding.
    pub(crate) fn health_check(
        &self,
        health: Health,
        response: Duration,
        reason: Option<&str>,
    ) -> Result<(), StoreError> {
        let millis = u32::try_from(response.as_millis()).unwrap_or(u32::MAX);
        let now = UnixMillis::now();
        self.store.record_health_check(self.name, self.replica, health, Some(millis), reason, now)
    }

    pub(crate) fn health_changed(
        &self,
        from: Health,
        to: Health,
        reason: Option<&str>,
    ) -> Result<(), StoreError> {
        let level = if matches!(to, Health::Unhealthy | Health::Error) {
            EventLevel::Warning
        } else {
            EventLevel::Info
        };
        let why = reason.map_or(String::new(), |reason| format!(": {reason}"));
        let meta = json!({"from": from, "to": to, "reason": reason});
        self.event(level, EventType::HealthChanged, format!("{from} -> {to}{why}"), Some(meta))
    }

    /// It answers its probes, but not the request that shall warm it up.
    pub(crate) fn cold(&self, reason: &str) -> Result<(), StoreError> {
        let now = UnixMillis::now();
        let (name, replica) = (self.name, self.replica);
        self.store.record_status(name, replica, Status::Starting, Health::Loading, Some(reason), now)
    }

    /// The process is gone, nobody wants it, and nobody needs to hear of it.
    pub(crate) fn forget(&self) -> Result<(), StoreError> {
        self.store.record_stopped(self.name, self.replica, UnixMillis::now())
    }

    /// `status` says what follows: `starting` when the restart policy has the next word.
    pub(crate) fn crash(&self, report: &CrashReport, status: Status) -> Result<(), StoreError> {
        let now = UnixMillis::now();
        let reason = report.reason.as_str();
        self.store.record_exit(self.name, self.replica, report.exit_code, status, Some(reason), now)?;
        let meta = json!({
            "exit_code": report.exit_code,
            "out_of_memory": report.out_of_memory,
            "cause": report.cause.map(Cause::label),
        });
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

    pub(crate) fn restart_scheduled(&self, retry: Retry) -> Result<(), StoreError> {
        self.schedule(retry, None)?;
        let message = format!("restart {} in {:.1} s", retry.attempt, retry.delay.as_secs_f64());
        self.event(EventLevel::Warning, EventType::RestartScheduled, message, Some(retry_meta(retry)))
    }

    fn schedule(&self, retry: Retry, error: Option<&str>) -> Result<(), StoreError> {
        let delay = i64::try_from(retry.delay.as_millis()).unwrap_or(i64::MAX);
        let at = UnixMillis(UnixMillis::now().0.saturating_add(delay));
        self.store.record_restart_scheduled(self.name, self.replica, retry.attempt, at, error)
    }

    /// Row and event in one step: however this process ends, it is told once.
    pub(crate) fn gave_up(&self, reason: &str) -> Result<(), StoreError> {
        let message = format!("no further restart by policy: {reason}");
        let (message, _) = of_replica(self.name, self.replica, message, None);
        self.store.record_gave_up(self.name, self.replica, reason, &message, UnixMillis::now())
    }

    pub(crate) fn start_failed(&self, failure: &Failure, retry: Option<Retry>) -> Result<(), StoreError> {
        let error = failure.message.as_str();
        let (name, replica) = (self.name, self.replica);
        match retry {
            Some(retry) => self.schedule(retry, Some(error))?,
            None => self.store.record_status(
                name,
                replica,
                Status::Error,
                Health::Unknown,
                Some(error),
                UnixMillis::now(),
            )?,
        }
        let event_type = match failure.exit {
            ExitCode::PortInUse => EventType::PortCollision,
            _ => EventType::StartFailed,
        };
        let mut meta = retry.map_or(json!({}), retry_meta);
        meta["exit_code"] = json!(failure.exit);
        self.event(EventLevel::Error, event_type, with_retry(error, retry), Some(meta))
    }

    pub(crate) fn stop_failed(&self, failure: &Failure) -> Result<(), StoreError> {
        self.event(
            EventLevel::Error,
            EventType::Reconciled,
            format!("could not be stopped: {}", failure.message),
            None,
        )
    }

    pub(crate) fn pid_mismatch(&self, reason: &str, retry: Option<Retry>) -> Result<(), StoreError> {
        self.store.clear_process(self.name, self.replica)?;
        if let Some(retry) = retry {
            self.schedule(retry, Some(reason))?;
        }
        let message = format!("the recorded process is somebody else's now ({reason}); it is left alone");
        let message = with_retry(&message, retry);
        self.event(EventLevel::Warning, EventType::PidMismatch, message, retry.map(retry_meta))
    }

    /// The process that the row names is gone, and nobody saw how.
    pub(crate) fn process_missing(&self, pid: u32) -> Result<(), StoreError> {
        self.store.clear_process(self.name, self.replica)?;
        let message = format!("pid {pid}, which was running, is gone; no daemon watched it end");
        self.event(EventLevel::Warning, EventType::ProcessMissing, message, Some(json!({"pid": pid})))
    }

    /// `config_hash` is that of the new config.
    pub(crate) fn config_changed(&self, changes: &[Change], config_hash: &str) -> Result<(), StoreError> {
        let row = self.store.runtime(self.name, self.replica)?.filter(|row| row.pid.is_some());
        let started_with = row.as_ref().and_then(|row| row.config_hash.as_deref());
        let restart_needed = started_with.is_some_and(|hash| !hash.is_empty() && hash != config_hash);
        let fields: Vec<&str> = changes.iter().map(|change| change.field).collect();
        let effect = match (row.is_some(), restart_needed) {
            (true, true) => "restart needed",
            (true, false) => "in effect",
            (false, _) => "in effect at the next start",
        };
        let message = format!("{} changed; {effect}", fields.join(", "));
        let meta = json!({"changes": changes, "restart_needed": restart_needed});
        self.event(EventLevel::Info, EventType::ConfigChanged, message, Some(meta))
    }

    /// What ran against the wish is stopped.
    pub(crate) fn reconciled(&self, message: &str) -> Result<(), StoreError> {
        self.forget()?;
        self.event(EventLevel::Info, EventType::Reconciled, message.to_owned(), None)
    }
}

/// An event of a further replica tells which; one of the first, by far the commonest, speaks for the instance.
pub(crate) fn of_replica(
    name: &InstanceName,
    replica: ReplicaId,
    message: String,
    meta: Option<Value>,
) -> (String, Option<Value>) {
    if replica == ReplicaId::FIRST {
        return (message, meta);
    }
    let mut meta = meta.unwrap_or_else(|| json!({}));
    meta["replica"] = json!(replica);
    (named(&replica.display_name(name), &message), Some(meta))
}

/// A message that begins with whom it is about, unless it says so itself.
pub(crate) fn named(label: &str, message: &str) -> String {
    if message.contains(label) { message.to_owned() } else { format!("{label}: {message}") }
}

fn retry_meta(retry: Retry) -> Value {
    let delay = u64::try_from(retry.delay.as_millis()).unwrap_or(u64::MAX);
    json!({"attempt": retry.attempt, "delay_ms": delay})
}

fn with_retry(message: &str, retry: Option<Retry>) -> String {
    match retry {
        Some(retry) => {
            format!("{message}; attempt {} in {:.1} s", retry.attempt, retry.delay.as_secs_f64())
        }
        None => message.to_owned(),
    }
}
