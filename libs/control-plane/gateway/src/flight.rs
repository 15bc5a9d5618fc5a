//! One request from its arrival to its one outcome.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::StatusCode;
use llm_adapters::{Dialect, Problem, Usage};
use orch_core::{ErrorCode, UnixMillis};
use orch_runtime::RequestId;
use tokio::time::Instant;

use crate::admission::SlotGuard;
use crate::caller::Caller;
use crate::choose::{Promise, Ties};
use crate::dispatch::Failed;
use crate::facts::{Class, Facts};
use crate::live::Target;
use crate::metrics::{CancelReason, Metrics};
use crate::quota::Permit;
use crate::record::{Log, Outcome, RequestRecord};

/// A longer answer is not kept.
const LARGEST_ANSWER: usize = 128 * 1024;

/// What a request is known by when it arrives.
pub(crate) struct Arrival {
    pub(crate) request_id: RequestId,
    pub(crate) dialect: Dialect,
    /// The engine's path that it asks for.
    pub(crate) endpoint: String,
    pub(crate) takes_slot: bool,
    pub(crate) caller: Caller,
}

/// What a request carries along. It is settled exactly once; dropped unsettled, its client has gone.
pub(crate) struct Flight {
    pub(crate) arrival: Arrival,
    pub(crate) arrived: Instant,
    metrics: Arc<Metrics>,
    log: Log,
    at: UnixMillis,
    /// What the request says of itself, once that is read.
    class: Class,
    model: Option<String>,
    streamed: bool,
    /// Later its caller has no use for the answer.
    pub(crate) deadline: Option<Instant>,
    body: Option<Bytes>,
    /// What the engine has answered so far, where that is kept.
    answer: Option<Vec<u8>>,
    /// What its key lets it use.
    pub(crate) permit: Option<Permit>,
    dispatched: Option<Dispatched>,
    /// Kept when the replica's place is given back.
    trace: Trace,
    settled: bool,
}

struct Dispatched {
    target: Arc<Target>,
    slot: SlotGuard,
    at: Instant,
    promise: Promise,
}

/// Moments of a request that its record tells.
#[derive(Default)]
struct Trace {
    attempts: u32,
    /// The replica that failed it last.
    failed_at: Option<Arc<Target>>,
    /// Time in queues, of all attempts together.
    waited: Duration,
    first_token: Option<Instant>,
    /// Pieces of a streamed answer that went to the client.
    pieces: u64,
}

impl Flight {
    pub(crate) fn new(metrics: Arc<Metrics>, log: Log, arrival: Arrival) -> Self {
        Self {
            arrival,
            arrived: Instant::now(),
            metrics,
            // The wall clock is read only where somebody writes it down.
            at: if log.is_some() { UnixMillis::now() } else { UnixMillis::default() },
            log,
            class: Class::default(),
            model: None,
            streamed: false,
            deadline: None,
            body: None,
            answer: None,
            permit: None,
            dispatched: None,
            trace: Trace::default(),
            settled: false,
        }
    }

    pub(crate) fn takes_slot(&self) -> bool {
        self.arrival.takes_slot
    }

    pub(crate) fn dialect(&self) -> Dialect {
        self.arrival.dialect
    }

    pub(crate) fn request_id(&self) -> &RequestId {
        &self.arrival.request_id
    }

    /// Takes note of what the request's body and head say.
    pub(crate) fn asks_for(&mut self, facts: &Facts, body: &Bytes) {
        self.class = facts.class;
        let Some(log) = &self.log else { return };
        self.model.clone_from(&facts.model);
        self.streamed = facts.streams;
        if log.captures_bodies() {
            self.body = Some(body.clone());
            self.answer = Some(Vec::new());
        }
    }

    /// Ends when the caller has no more use for an answer; never where it did not say.
    pub(crate) async fn too_late(&self) {
        match self.deadline {
            Some(deadline) => tokio::time::sleep_until(deadline).await,
            None => std::future::pending().await,
        }
    }

    /// The request is handed to a replica; an earlier replica's place is given back.
    pub(crate) fn dispatch(&mut self, slot: SlotGuard, ties: &Arc<Ties>) {
        let target = Arc::clone(slot.target());
        let at = Instant::now();
        if self.trace.attempts == 0 && self.takes_slot() {
            self.metrics.tasks(&target, self.class).started.inc();
        }
        self.trace.attempts = self.trace.attempts.saturating_add(1);
        let promise = Promise::of(&target.live.memory, ties);
        self.dispatched = Some(Dispatched { target, slot, at, promise });
    }

    /// The replica gave no answer; its place is given back.
    pub(crate) fn failed(&mut self, failed: &Failed) {
        let Some(target) = self.turned_away() else { return };
        tracing::debug!(request_id = %self.request_id(), replica = %target.replica.key, ?failed, "no answer");
        if self.takes_slot() && matches!(failed, Failed::Reset | Failed::TimedOut) {
            target.live.broke_off();
        }
    }

    /// The replica's place is given back; its answer, if there is one, is of no use.
    pub(crate) fn turned_away(&mut self) -> Option<Arc<Target>> {
        let Dispatched { target, .. } = self.dispatched.take()?;
        self.trace.failed_at = Some(Arc::clone(&target));
        Some(target)
    }

    /// How many replicas have had it.
    pub(crate) fn attempts(&self) -> u32 {
        self.trace.attempts
    }

    /// The request's bytes go out now; `ready` is when the last byte of it had come in. What an attempt before this
    /// one took, and the wait for a place, are no doing of the gateway's.
    pub(crate) fn handed_over(&self, ready: Instant) {
        if self.trace.attempts == 1 {
            self.metrics.handed_over(ready.elapsed().saturating_sub(self.trace.waited));
        }
    }

    /// The request stood in a queue.
    pub(crate) fn has_waited(&mut self, time: Duration) {
        self.trace.waited += time;
    }

    /// How long the request waited for a place.
    pub(crate) fn waited(&self) -> Duration {
        self.trace.waited
    }

    /// Bytes of the engine's answer have come.
    pub(crate) fn answered(&mut self, data: &[u8]) {
        let Some(answer) = &mut self.answer else { return };
        if answer.len() + data.len() <= LARGEST_ANSWER {
            answer.extend_from_slice(data);
        } else {
            // Half an answer cannot be compared with another.
            self.answer = None;
        }
    }

    /// A piece of a streamed answer goes to the client.
    pub(crate) fn token(&mut self) {
        let Some(dispatched) = &self.dispatched else { return };
        self.trace.pieces += 1;
        if self.trace.first_token.is_none() {
            let now = Instant::now();
            self.trace.first_token = Some(now);
            let waited = now - dispatched.at;
            self.metrics
                .tasks(&dispatched.target, self.class)
                .first_token
                .observe(waited.as_secs_f64() * 1e3);
        }
    }

    /// The whole answer went through.
    pub(crate) fn done(&mut self, status: StatusCode, usage: &Usage) {
        if !self.settle() {
            return;
        }
        let Some(Dispatched { target, promise, .. }) = &self.dispatched else { return };
        if self.takes_slot() {
            if status.is_success() {
                target.live.memory.answered(promise, usage);
            }
            // An engine that refuses has used nothing.
            if let Some(permit) = self.permit.as_mut().filter(|_| status.is_success()) {
                permit.used(usage, self.trace.pieces);
            }
            let metrics = self.metrics.of(target);
            metrics.count_tokens(usage);
            let measured = self.trace.first_token.map(|first| first.elapsed().as_secs_f64() * 1e3);
            if let Some(decode_ms) = usage.decode_ms.or(measured) {
                self.metrics.tasks(target, self.class).decode.observe(decode_ms);
            }
        }
        tracing::debug!(
            request_id = %self.request_id(),
            replica = %target.replica.key,
            status = status.as_u16(),
            duration_ms = self.arrived.elapsed().as_millis(),
            "request done"
        );
        self.write_down(Outcome::Done, status.as_u16(), None, usage);
        self.give_back();
    }

    /// No answer began: the client gets this problem instead.
    pub(crate) fn refused(&mut self, problem: &Problem) {
        if !self.settle() {
            return;
        }
        self.metrics.rejected(problem.code, self.class);
        tracing::info!(
            request_id = %self.request_id(),
            code = problem.code.label(),
            duration_ms = self.arrived.elapsed().as_millis(),
            "request refused: {}",
            problem.message
        );
        let usage = Usage::default();
        self.write_down(Outcome::Refused, problem.http_status(), Some(problem.code), &usage);
        self.give_back();
    }

    /// The answer broke off behind its beginning; `usage` is what it had told by then.
    pub(crate) fn broken(&mut self, status: StatusCode, problem: &Problem, usage: &Usage) {
        if !self.settle() {
            return;
        }
        self.log_cut(CancelReason::Failed(problem.code));
        self.charge_cut(usage);
        self.write_down(Outcome::Broken, status.as_u16(), Some(problem.code), usage);
        self.give_back();
    }

    /// The request is over: the replica's place and what its key had reserved for it are free.
    fn give_back(&mut self) {
        self.dispatched = None;
        self.permit = None;
    }

    /// What was cut off behind its hand-over has used something.
    fn charge_cut(&mut self, usage: &Usage) {
        if let Some(permit) =
            self.permit.as_mut().filter(|_| self.arrival.takes_slot && self.dispatched.is_some())
        {
            permit.used(usage, self.trace.pieces);
        }
    }

    /// The replica that has it, or had it last.
    fn replica(&self) -> Option<&Arc<Target>> {
        let now = self.dispatched.as_ref().map(|dispatched| &dispatched.target);
        now.or(self.trace.failed_at.as_ref())
    }

    fn settle(&mut self) -> bool {
        !std::mem::replace(&mut self.settled, true)
    }

    fn log_cut(&self, reason: CancelReason) {
        self.metrics.canceled(reason, self.class);
        let replica = self.replica().map(|target| target.replica.key.to_string());
        tracing::info!(
            request_id = %self.request_id(),
            replica,
            reason = reason.label(),
            duration_ms = self.arrived.elapsed().as_millis(),
            "request cut off"
        );
    }

    fn write_down(&mut self, outcome: Outcome, status: u16, code: Option<ErrorCode>, usage: &Usage) {
        if let Some(dispatched) = self.dispatched.as_ref().filter(|_| outcome != Outcome::Refused) {
            dispatched.slot.served_for(dispatched.at.elapsed());
        }
        let Some(log) = &self.log else { return };
        let since_arrival = |moment: Option<Instant>| moment.map(|moment| moment - self.arrived);
        log.record(RequestRecord {
            id: self.arrival.request_id.to_string(),
            at: self.at,
            endpoint: std::mem::take(&mut self.arrival.endpoint),
            dialect: self.arrival.dialect,
            caller: self.arrival.caller.clone(),
            model: self.model.take(),
            streamed: self.streamed,
            replica: self.replica().map(|target| target.replica.key.clone()),
            attempts: self.trace.attempts,
            outcome,
            status,
            code,
            queued: (self.trace.attempts > 0).then_some(self.trace.waited),
            first_token: since_arrival(self.trace.first_token),
            total: self.arrived.elapsed(),
            usage: *usage,
            body: self.body.take(),
            answer: self.answer.take().filter(|answer| !answer.is_empty()).map(Bytes::from),
        });
    }
}

impl Drop for Flight {
    fn drop(&mut self) {
        if self.settle() {
            self.log_cut(CancelReason::ClientGone);
            self.charge_cut(&Usage::default());
            let code = ErrorCode::Cancelled;
            self.write_down(Outcome::Canceled, code.http_status(), Some(code), &Usage::default());
        }
    }
}
