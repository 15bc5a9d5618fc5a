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
use llm_adapters::{
    AnswerFault, AnswerTranslator, EndMarker, EventAligner, MessageStartRepair, Problem, UsageScanner,
    terminal_event,
};
use orch_core::ErrorCode;
use tokio::time::{Instant, Sleep};
use tokio_util::sync::WaitForCancellationFutureOwned;

use crate::body::AnswerBroken;
use crate::dispatch::too_late;
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
    /// Where the client gets something else than the engine's bytes.
    translator: Option<AnswerTranslator>,
    /// Why the answer broke off, for whoever has not yet begun to pass it on.
    broken: Option<Problem>,
    closed: Option<Pin<Box<WaitForCancellationFutureOwned>>>,
    /// Set where the caller said how long an answer is of use.
    deadline: Option<Pin<Box<Sleep>>>,
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
        let usage = UsageScanner::default();
        let deadline = flight.deadline.map(|at| Box::pin(tokio::time::sleep_until(at)));
        let (translator, broken, closed) = (None, None, None);
        Self { state, status, target, flight, usage, events, translator, broken, closed, deadline }
    }

    /// Has the answer translated on its way.
    pub(crate) fn translate(&mut self, translator: AnswerTranslator) {
        self.translator = Some(translator);
    }

    /// All of the answer, or as much as the limit lets in, for whoever has to see it before the client does.
    pub(crate) async fn collect(&mut self, limit: usize) -> Result<Bytes, Problem> {
        let mut all = Bytes::new();
        while let Some(data) = std::future::poll_fn(|cx| self.poll_data(cx)).await {
            match data {
                Ok(data) if all.len() < limit => all = joined(all, &data),
                Ok(_) => {}
                Err(AnswerBroken) => {
                    let unknown = || Problem::new(ErrorCode::WorkerReset, AnswerBroken.to_string());
                    return Err(self.broken.take().unwrap_or_else(unknown));
                }
            }
        }
        all.truncate(limit);
        Ok(all)
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
            State::Passing(answer) if self.events.is_none() && self.translator.is_none() => {
                answer.size_hint()
            }
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
                    let (data, fault) = self.pass(data);
                    if let Some(fault) = fault {
                        return Poll::Ready(Some(self.cut_behind(data, fault.problem())));
                    }
                    if last {
                        return Poll::Ready(self.end(data));
                    }
                    if !data.is_empty() {
                        return Poll::Ready(Some(Ok(data)));
                    }
                }
                Poll::Ready(None) => return Poll::Ready(self.end(Bytes::new())),
                Poll::Ready(Some(Err(_))) => {
                    let problem = Problem::new(ErrorCode::WorkerReset, "the engine died while it answered");
                    return Poll::Ready(Some(self.cut(problem)));
                }
                Poll::Pending => return self.poll_limits(cx).map(Some),
            }
        }
    }

    /// Looks at the next bytes and gives what may go to the client now.
    fn pass(&mut self, data: Bytes) -> (Bytes, Option<AnswerFault>) {
        if self.flight.takes_slot() {
            self.usage.observe(&data);
            self.flight.answered(&data);
            // A comment only keeps the line open.
            if self.status.is_success() && !data.is_empty() && !data.starts_with(b":") {
                self.target.live.signs.progressed();
            }
        }
        if let Some(events) = &mut self.events {
            events.idle.note(&data);
        }
        let (data, fault) = match (&mut self.translator, &mut self.events) {
            (Some(translator), _) => {
                let piece = translator.push(&data);
                (piece.bytes, piece.fault)
            }
            (None, Some(events)) => (events.pass(data), None),
            (None, None) => (data, None),
        };
        if !data.is_empty() && self.events.as_ref().is_some_and(|events| events.idle.began) {
            self.flight.token();
        }
        (data, fault)
    }

    /// The engine has sent everything; `data` is what of it has not gone yet.
    fn end(&mut self, data: Bytes) -> Option<Result<Bytes, AnswerBroken>> {
        if let Some(events) = &mut self.events {
            let complete = events.end.is_none_or(|marker| marker.ends(self.usage.tail()));
            if !complete && self.status.is_success() {
                let problem = Problem::new(ErrorCode::WorkerReset, "the engine ended its answer too early");
                return Some(self.cut_behind(data, problem));
            }
        }
        let held = match (&mut self.translator, &mut self.events) {
            (Some(translator), _) => {
                let piece = translator.finish();
                if let Some(fault) = piece.fault {
                    return Some(self.cut_behind(joined(data, &piece.bytes), fault.problem()));
                }
                piece.bytes
            }
            (None, events) => events.as_mut().map_or_else(Bytes::new, Events::finish),
        };
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
            return Poll::Ready(self.cut(Problem::new(ErrorCode::WorkerReset, why)));
        }
        if self.deadline.as_mut().is_some_and(|deadline| deadline.as_mut().poll(cx).is_ready()) {
            return Poll::Ready(self.cut(too_late()));
        }
        let Some(events) = &mut self.events else { return Poll::Pending };
        ready!(events.idle.poll_expired(cx));
        let message = "the engine generated no token within the limit";
        Poll::Ready(self.cut(Problem::new(ErrorCode::DecodeTimeout, message)))
    }

    /// Ends the answer before its end: the engine's connection closes now, the client gets one last event
    /// where its dialect has any, and then its connection closes too.
    fn cut(&mut self, problem: Problem) -> Result<Bytes, AnswerBroken> {
        let key = &self.target.replica.key;
        let problem = problem.at(&key.node_id, &key.pool_id);
        // That somebody was in a hurry says nothing about the engine.
        if self.flight.takes_slot() && problem.code != ErrorCode::DeadlineUnmet {
            self.target.live.broke_off();
        }
        self.flight.broken(self.status, &problem, &self.usage.finish());
        if self.events.is_none() {
            self.state = State::Over;
            self.broken = Some(problem);
            return Err(AnswerBroken);
        }
        self.state = State::LastWord;
        Ok(terminal_event(self.flight.dialect(), &problem, self.flight.request_id().as_str()))
    }

    /// Ends the answer like that, behind bytes that are still to go.
    fn cut_behind(&mut self, data: Bytes, problem: Problem) -> Result<Bytes, AnswerBroken> {
        self.cut(problem).map(|event| joined(data, &event))
    }
}

impl Drop for StreamBody {
    /// Clients leave as soon as they have the last event, which is before the engine's connection has told that it
    /// is over. Such an answer is complete, and counted as it was.
    fn drop(&mut self) {
        let passing = matches!(self.state, State::Passing(_)) && self.status.is_success();
        let end = self.events.as_ref().and_then(|events| events.end);
        if passing && end.is_some_and(|marker| marker.ends(self.usage.tail())) {
            if self.flight.takes_slot() {
                self.target.live.answered(self.status);
            }
            self.flight.done(self.status, &self.usage.finish());
        }
    }
}

impl Events {
    /// Whole events, and the beginning that may be missing.
    fn pass(&mut self, data: Bytes) -> Bytes {
        let data = match &mut self.repair {
            Some(repair) => repair.push(data),
            None => data,
        };
        self.aligner.push(data)
    }

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
