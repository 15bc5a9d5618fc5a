//! Answers that begin before their engine's: a client that wants a stream is not left without a sign of life while
//! its request waits.
//!
//! After about a second in a queue the client gets the head of a stream of events, and then comments, which every
//! client skips and every proxy takes for life. The engine's own bytes follow once there are any. What fails then
//! cannot have a status any more: it becomes the one terminal event of the caller's dialect.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use http::{HeaderValue, Response, StatusCode};
use llm_adapters::{Dialect, Problem, engine_problem, terminal_event};
use orch_runtime::RequestId;
use tokio::time::{Instant, Sleep};

use crate::admission::{Progress, Stage};
use crate::body::{AnswerBroken, GatewayBody};
use crate::call::Call;
use crate::respond;

/// The time between two comments.
const COMMENT_EVERY: Duration = Duration::from_secs(5);

/// More of an engine's error is not needed to tell what it was.
const MOST_OF_AN_ERROR: usize = 64 * 1024;

type Answer = Pin<Box<dyn Future<Output = Result<Response<GatewayBody>, Problem>> + Send>>;

/// The answer to a call: the engine's, a refusal, or one that begins before it is known which.
pub(crate) async fn answer(call: Call) -> Response<GatewayBody> {
    let progress = Arc::clone(&call.progress);
    let (dialect, request_id) = (call.flight.dialect(), call.flight.request_id().clone());
    let caller = call.flight.arrival.caller.clone();
    let mut answer: Answer = Box::pin(call.answer());
    let begun = poll_fn(|cx| match answer.as_mut().poll(cx) {
        Poll::Ready(answer) => Poll::Ready(Some(answer)),
        // Said by the very poll that just ended.
        Poll::Pending if progress.is_due() => Poll::Ready(None),
        Poll::Pending => Poll::Pending,
    });
    let mut response = match begun.await {
        Some(Ok(response)) => return response,
        Some(Err(problem)) => respond::refuse(dialect, &problem, &request_id),
        None => head(DeferredBody::new(answer, progress, dialect, request_id)),
    };
    caller.tell_limits(response.headers_mut());
    response
}

fn head(body: DeferredBody) -> Response<GatewayBody> {
    let mut response = Response::new(GatewayBody::deferred(body));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    response
}

/// The body of an answer that began before its engine's.
pub(crate) struct DeferredBody {
    state: State,
    progress: Arc<Progress>,
    next_comment: Pin<Box<Sleep>>,
    dialect: Dialect,
    request_id: RequestId,
}

enum State {
    Waiting(Answer),
    /// The engine's stream goes by.
    Passing(GatewayBody),
    /// The engine answered with something that is no stream; it is read to be told as an event.
    Reading {
        status: StatusCode,
        body: GatewayBody,
        read: Vec<u8>,
    },
    Over,
}

impl DeferredBody {
    fn new(answer: Answer, progress: Arc<Progress>, dialect: Dialect, request_id: RequestId) -> Self {
        let next_comment = Box::pin(tokio::time::sleep_until(Instant::now()));
        Self { state: State::Waiting(answer), progress, next_comment, dialect, request_id }
    }

    pub(crate) fn is_over(&self) -> bool {
        matches!(self.state, State::Over)
    }

    pub(crate) fn poll_data(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, AnswerBroken>>> {
        loop {
            match &mut self.state {
                State::Waiting(answer) => match answer.as_mut().poll(cx) {
                    Poll::Ready(Ok(response)) => self.state = State::of(response),
                    Poll::Ready(Err(problem)) => return Poll::Ready(Some(Ok(self.last_word(&problem)))),
                    Poll::Pending => return self.poll_comment(cx).map(|comment| Some(Ok(comment))),
                },
                State::Passing(body) => return body.poll_data(cx),
                State::Reading { status, body, read } => match body.poll_data(cx) {
                    Poll::Ready(Some(Ok(data))) => {
                        let room = MOST_OF_AN_ERROR.saturating_sub(read.len());
                        read.extend_from_slice(&data[..data.len().min(room)]);
                    }
                    Poll::Ready(None | Some(Err(AnswerBroken))) => {
                        let problem = engine_problem(status.as_u16(), read);
                        return Poll::Ready(Some(Ok(self.last_word(&problem))));
                    }
                    Poll::Pending => return Poll::Pending,
                },
                State::Over => return Poll::Ready(None),
            }
        }
    }

    fn last_word(&mut self, problem: &Problem) -> Bytes {
        self.state = State::Over;
        terminal_event(self.dialect, problem, self.request_id.as_str())
    }

    fn poll_comment(&mut self, cx: &mut Context<'_>) -> Poll<Bytes> {
        std::task::ready!(self.next_comment.as_mut().poll(cx));
        self.next_comment.as_mut().reset(Instant::now() + COMMENT_EVERY);
        Poll::Ready(Bytes::from(match self.progress.stage() {
            Stage::Queued(ahead) => format!(": queued {}\n\n", ahead + 1),
            Stage::Loading => ": loading\n\n".to_owned(),
            Stage::Working => ": working\n\n".to_owned(),
        }))
    }
}

impl State {
    fn of(response: Response<GatewayBody>) -> Self {
        let (head, body) = response.into_parts();
        let media_type = head.headers.get(CONTENT_TYPE).map(HeaderValue::as_bytes).unwrap_or_default();
        if head.status.is_success() && media_type.starts_with(b"text/event-stream") {
            State::Passing(body)
        } else {
            State::Reading { status: head.status, body, read: Vec::new() }
        }
    }
}
