//! An engine's answer on its way to the client.
//!
//! Bytes go by as they come. Beside them runs what must not change them: a scanner that reads the usage and a
//! watch over the time between tokens. Streams of events are let by in whole events, and an Anthropic one
//! gets the `message_start` that its engine forgot.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::StatusCode;
use http_body::SizeHint;
use llm_adapters::{EndMarker, EventAligner, MessageStartRepair, Problem, UsageScanner, terminal_event};
use orch_core::ErrorCode;
use tokio::time::{Instant, Sleep};
use tokio_util::sync::WaitForCancellationFutureOwned;

use crate::body::AnswerBroken;
use crate::flight::Flight;
use crate::live::Target;
use crate::upstream::Answer;

/// What a stream of events gets in addition to being passed on.
pub(crate) struct Events {
    pub(crate) aligner: EventAligner,
    pub(crate) repair: Option<MessageStartRepair>,
    /// How the stream announces its end, where that is certain.
    pub(crate) end: Option<EndMarker>,
    pub(crate) idle: IdleWatch,
}

/// An answer that is passing through, with all that must be released when it ends.
pub(crate) struct StreamBody {
    state: State,
    status: StatusCode,
    target: Arc<Target>,
    flight: Flight,
    usage: UsageScanner,
    events: Option<Events>,
    closed: Option<Pin<Box<WaitForCancellationFutureOwned>>>,
}

enum State {
    Passing(Answer),
    /// The terminal event is written; the next turn gives it time to leave.
    LastWord,
    /// The connection to the client is to be closed.
    Broken,
    Over,
}

impl StreamBody {
    pub(crate) fn new(
        answer: Answer,
        status: StatusCode,
        target: Arc<Target>,
        flight: Flight,
        events: Option<Events>,
    ) -> Self {
        let state = State::Passing(answer);
        Self { state, status, target, flight, usage: UsageScanner::default(), events, closed: None }
    }

    /// Settles an answer that has no body. A server never asks such a body for anything.
    pub(crate) fn end_if_empty(&mut self) -> bool {
        let empty = matches!(&self.state, State::Passing(answer) if answer.is_over());
        empty && self.end(Bytes::new()).is_none()
    }

    pub(crate) fn is_over(&self) -> bool {
        matches!(self.state, State::Over)
    }

    pub(crate) fn size_hint(&self) -> SizeHint {
        match &self.state {
            State::Passing(answer) if self.events.is_none() => answer.size_hint(),
            State::Over => SizeHint::with_exact(0),
            _ => SizeHint::default(),
        }
    }

    pub(crate) fn poll_data(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, AnswerBroken>>> {
        match &mut self.state {
            State::Over => Poll::Ready(None),
            State::Broken => {
                self.state = State::Over;
                Poll::Ready(Some(Err(AnswerBroken)))
            }
            // The server writes out what it has whenever a body makes it wait. Without that the closing of the
            // connection would overtake the terminal event.
            State::LastWord => {
                self.state = State::Broken;
                cx.waker().wake_by_ref();
                Poll::Pending
            }
            State::Passing(_) => self.poll_passing(cx),
        }
    }

    fn poll_passing(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, AnswerBroken>>> {
        loop {
            let State::Passing(answer) = &mut self.state else { return Poll::Ready(None) };
            match answer.poll_data(cx) {
                Poll::Ready(Some(Ok(data))) => {
                    let last = answer.is_over();
                    let data = self.pass(data);
                    if last {
                        return Poll::Ready(self.end(data));
                    }
                    if !data.is_empty() {
                        return Poll::Ready(Some(Ok(data)));
                    }
                }
                Poll::Ready(None) => return Poll::Ready(self.end(Bytes::new())),
                Poll::Ready(Some(Err(_))) => {
                    return Poll::Ready(Some(
                        self.cut(ErrorCode::WorkerReset, "the engine died while it answered"),
                    ));
                }
                Poll::Pending => return self.poll_limits(cx).map(Some),
            }
        }
    }

    /// Looks at the next bytes and gives what may go to the client now.
    fn pass(&mut self, data: Bytes) -> Bytes {
        if self.flight.takes_slot() {
            self.usage.observe(&data);
            // A comment only keeps the line open.
            if self.status.is_success() && !data.is_empty() && !data.starts_with(b":") {
                self.target.live.signs.progressed();
            }
        }
        let Some(events) = &mut self.events else { return data };
        events.idle.note(&data);
        let data = match &mut events.repair {
            Some(repair) => repair.push(data),
            None => data,
        };
        let data = events.aligner.push(data);
        if events.idle.began && !data.is_empty() {
            self.flight.token();
        }
        data
    }

    /// The engine has sent everything; `data` is what of it has not gone yet.
    fn end(&mut self, data: Bytes) -> Option<Result<Bytes, AnswerBroken>> {
        if let Some(events) = &mut self.events {
            let complete = events.end.is_none_or(|marker| marker.ends(self.usage.tail()));
            if !complete && self.status.is_success() {
                let last_word = self.cut(ErrorCode::WorkerReset, "the engine ended its answer too early");
                return Some(last_word.map(|event| joined(data, &event)));
            }
        }
        let held = self.events.as_mut().map_or_else(Bytes::new, Events::finish);
        if let State::Passing(answer) = std::mem::replace(&mut self.state, State::Over)
            && let Some(connection) = answer.into_connection()
            && !self.target.live.is_draining()
        {
            self.target.live.idle.put(connection);
        }
        if self.flight.takes_slot() {
            self.target.live.answered(self.status);
        }
        self.flight.done(self.status, &self.usage.finish());
        let rest = joined(data, &held);
        (!rest.is_empty()).then_some(Ok(rest))
    }

    /// Nothing came: whether it is time to stop waiting.
    fn poll_limits(&mut self, cx: &mut Context<'_>) -> Poll<Result<Bytes, AnswerBroken>> {
        let live = &self.target.live;
        let closed = self.closed.get_or_insert_with(|| Box::pin(live.closed.clone().cancelled_owned()));
        if closed.as_mut().poll(cx).is_ready() {
            let why = live.why_closed();
            return Poll::Ready(self.cut(ErrorCode::WorkerReset, why));
        }
        let Some(events) = &mut self.events else { return Poll::Pending };
        ready!(events.idle.poll_expired(cx));
        Poll::Ready(self.cut(ErrorCode::DecodeTimeout, "the engine generated no token within the limit"))
    }

    /// Ends the answer before its end: the engine's connection closes now, the client gets one last event
    /// where its dialect has any, and then its connection closes too.
    fn cut(&mut self, code: ErrorCode, message: &str) -> Result<Bytes, AnswerBroken> {
        let key = &self.target.replica.key;
        let problem = Problem::new(code, message).at(&key.node_id, &key.pool_id);
        if self.flight.takes_slot() {
            self.target.live.broke_off();
        }
        self.flight.broken(self.status, &problem, &self.usage.finish());
        if self.events.is_none() {
            self.state = State::Over;
            return Err(AnswerBroken);
        }
        self.state = State::LastWord;
        Ok(terminal_event(self.flight.dialect(), &problem, self.flight.request_id().as_str()))
    }
}

impl Events {
    fn finish(&mut self) -> Bytes {
        let unjudged = self.repair.as_mut().map_or_else(Bytes::new, MessageStartRepair::finish);
        let whole = self.aligner.push(unjudged);
        joined(whole, &self.aligner.finish())
    }
}

fn joined(first: Bytes, second: &Bytes) -> Bytes {
    match (first.is_empty(), second.is_empty()) {
        (_, true) => first,
        (true, false) => second.clone(),
        (false, false) => [&first[..], &second[..]].concat().into(),
    }
}

/// Watches the time between two tokens of a stream.
pub(crate) struct IdleWatch {
    limit: Duration,
    last: Instant,
    /// Whether a first event came. Before it the engine works on the prompt and only keeps the line open.
    began: bool,
    timer: Option<Pin<Box<Sleep>>>,
}

impl IdleWatch {
    pub(crate) fn new(limit: Duration) -> Self {
        Self { limit, last: Instant::now(), began: false, timer: None }
    }

    fn note(&mut self, data: &[u8]) {
        let is_comment = data.starts_with(b":");
        if !is_comment || !self.began {
            self.began |= !is_comment;
            self.last = Instant::now();
        }
    }

    /// Ready once the limit has passed without a token. The timer is not moved for each token; when it fires
    /// it is set again to what is left.
    fn poll_expired(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let timer =
            self.timer.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(self.last + self.limit)));
        loop {
            ready!(timer.as_mut().poll(cx));
            let due = self.last + self.limit;
            if Instant::now() >= due {
                return Poll::Ready(());
            }
            timer.as_mut().reset(due);
        }
    }
}
