//! One request from its arrival to its one outcome.

use std::sync::Arc;

use http::StatusCode;
use llm_adapters::{Dialect, Problem, Usage};
use orch_runtime::RequestId;
use tokio::time::Instant;

use crate::admission::SlotGuard;
use crate::live::Target;
use crate::metrics::{CancelReason, Metrics};

/// What a request carries along. It is settled exactly once; dropped unsettled, its client has gone.
pub(crate) struct Flight {
    pub(crate) request_id: RequestId,
    pub(crate) dialect: Dialect,
    metrics: Arc<Metrics>,
    takes_slot: bool,
    arrived: Instant,
    dispatched: Option<Dispatched>,
    settled: bool,
}

struct Dispatched {
    target: Arc<Target>,
    _slot: SlotGuard,
    at: Instant,
    first_token: Option<Instant>,
}

impl Flight {
    pub(crate) fn new(
        metrics: Arc<Metrics>,
        request_id: RequestId,
        dialect: Dialect,
        takes_slot: bool,
    ) -> Self {
        let arrived = Instant::now();
        Self { request_id, dialect, metrics, takes_slot, arrived, dispatched: None, settled: false }
    }

    pub(crate) fn takes_slot(&self) -> bool {
        self.takes_slot
    }

    /// The request is handed to a replica; an earlier replica's place is given back.
    pub(crate) fn dispatch(&mut self, target: &Arc<Target>, slot: SlotGuard) {
        let at = Instant::now();
        if self.dispatched.is_none() && self.takes_slot {
            self.metrics.of(target).started.inc();
        }
        self.dispatched = Some(Dispatched { target: Arc::clone(target), _slot: slot, at, first_token: None });
    }

    /// The request's bytes go out now; `ready` is when the last byte of it had come in.
    pub(crate) fn handed_over(&self, ready: Instant) {
        self.metrics.handed_over(ready.elapsed());
    }

    /// A piece of a streamed answer goes to the client.
    pub(crate) fn token(&mut self) {
        let Some(dispatched) = &mut self.dispatched else { return };
        if dispatched.first_token.is_none() {
            let now = Instant::now();
            dispatched.first_token = Some(now);
            let waited = now - dispatched.at;
            self.metrics.of(&dispatched.target).first_token.observe(waited.as_secs_f64() * 1e3);
        }
    }

    /// The whole answer went through.
    pub(crate) fn done(&mut self, status: StatusCode, usage: &Usage) {
        if !self.settle() {
            return;
        }
        let Some(Dispatched { target, first_token, .. }) = self.dispatched.take() else { return };
        if self.takes_slot {
            let metrics = self.metrics.of(&target);
            metrics.count_tokens(usage);
            let measured = first_token.map(|first| first.elapsed().as_secs_f64() * 1e3);
            if let Some(decode_ms) = usage.decode_ms.or(measured) {
                metrics.decode.observe(decode_ms);
            }
        }
        tracing::debug!(
            request_id = %self.request_id,
            replica = %target.replica.key,
            status = status.as_u16(),
            duration_ms = self.arrived.elapsed().as_millis(),
            "request done"
        );
    }

    /// No answer began: the client gets this problem instead.
    pub(crate) fn refused(&mut self, problem: &Problem) {
        if !self.settle() {
            return;
        }
        self.dispatched = None;
        self.metrics.rejected(problem.code);
        tracing::info!(
            request_id = %self.request_id,
            code = problem.code.label(),
            duration_ms = self.arrived.elapsed().as_millis(),
            "request refused: {}",
            problem.message
        );
    }

    /// The answer broke off behind its beginning.
    pub(crate) fn broken(&mut self, problem: &Problem) {
        if !self.settle() {
            return;
        }
        self.log_cut(CancelReason::Failed(problem.code));
        self.dispatched = None;
    }

    fn settle(&mut self) -> bool {
        !std::mem::replace(&mut self.settled, true)
    }

    fn log_cut(&self, reason: CancelReason) {
        self.metrics.canceled(reason);
        let replica = self.dispatched.as_ref().map(|dispatched| dispatched.target.replica.key.to_string());
        tracing::info!(
            request_id = %self.request_id,
            replica,
            reason = reason.label(),
            duration_ms = self.arrived.elapsed().as_millis(),
            "request cut off"
        );
    }
}

impl Drop for Flight {
    fn drop(&mut self) {
        if self.settle() {
            self.log_cut(CancelReason::ClientGone);
        }
    }
}
