//! A request's stay in its queue.

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::task::Poll;
use std::time::Duration;

use llm_adapters::Problem;
use orch_core::ErrorCode;
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep_until};

use super::queue::Ticket;
use super::{Progress, RouteName, SlotGuard, Stage, refusal};
use crate::live::TableHandle;
use crate::route::find_route;

/// After so long a client that wants a stream is answered before there is anything to stream.
const PATIENCE: Duration = Duration::from_secs(1);

/// A place in a queue. Dropped, it is left: when a client goes, its request goes.
pub(super) struct Waiting {
    table: TableHandle,
    name: RouteName,
    ticket: Ticket,
    answered: oneshot::Receiver<Result<SlotGuard, Problem>>,
    over: bool,
}

impl Waiting {
    pub(super) fn new(
        table: TableHandle,
        name: RouteName,
        ticket: Ticket,
        answered: oneshot::Receiver<Result<SlotGuard, Problem>>,
    ) -> Self {
        Self { table, name, ticket, answered, over: false }
    }

    /// Waits for a slot until the deadline.
    pub(super) async fn slot(mut self, deadline: Instant, progress: &Progress) -> Result<SlotGuard, Problem> {
        let began = Instant::now();
        let mut passed = pin!(sleep_until(deadline));
        let mut patience = progress.may_defer().then(|| Box::pin(sleep_until(began + PATIENCE)));
        let answer = poll_fn(|cx| {
            if let Poll::Ready(answer) = Pin::new(&mut self.answered).poll(cx) {
                self.over = true;
                let lost = |_| Err(Problem::new(ErrorCode::Internal, "the queue lost this request"));
                return Poll::Ready(answer.unwrap_or_else(lost));
            }
            if passed.as_mut().poll(cx).is_ready() {
                return Poll::Ready(Err(refusal::deadline_passed(began.elapsed())));
            }
            if patience.as_mut().is_some_and(|timer| timer.as_mut().poll(cx).is_ready()) {
                progress.is_overdue();
                patience = None;
            }
            if progress.is_due() {
                progress.is_at(self.stage());
            }
            Poll::Pending
        });
        let answer = answer.await;
        progress.is_at(Stage::Working);
        answer
    }

    fn stage(&self) -> Stage {
        let snapshot = self.table.snapshot();
        let route = snapshot.as_deref().and_then(|it| find_route(it, self.name.asked.as_deref()).ok());
        let serves = route.is_some_and(|route| route.targets().into_iter().any(|target| target.usable()));
        let ahead = self.table.admission().position(&self.name, self.ticket);
        match ahead {
            Some(ahead) if serves => Stage::Queued(ahead),
            _ => Stage::Loading,
        }
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        if !self.over {
            self.table.admission().leave(&self.name, self.ticket);
        }
    }
}
