//! What an engine's error answer is to our client: the client's own fault, a reason to ask another replica, or no
//! answer of an engine at all.
//!
//! An answer that passes is not touched. An error is read, told in the caller's dialect and under the right status,
//! and where another replica may do better, that one is asked first.

use std::future::poll_fn;
use std::time::Duration;

use bytes::BytesMut;
use http::header::CONTENT_TYPE;
use http::{StatusCode, response};
use llm_adapters::{Dialect, Problem, engine_problem, has_prompt};
use orch_core::ErrorCode;

use crate::dispatch::Outgoing;
use crate::flight::Flight;
use crate::live::Target;
use crate::upstream::Answer;

/// So much of an error is read, and waited for so long.
const READ_LIMIT: usize = 64 * 1024;
const READ_TIME: Duration = Duration::from_secs(5);

/// An error that an engine answered with.
#[derive(Debug)]
pub(crate) struct EngineRefusal {
    pub(crate) problem: Problem,
    /// Whether another replica may do better.
    pub(crate) elsewhere: bool,
}

/// Whether an answer has to be looked at before it may pass.
pub(crate) fn is_suspect(head: &response::Parts, request: &Outgoing) -> bool {
    is_error(head.status) || is_strange(head, request)
}

fn is_error(status: StatusCode) -> bool {
    status.is_client_error() || status.is_server_error()
}

/// Lets an answer pass, or says what is wrong with it.
pub(crate) async fn judge(
    head: response::Parts,
    answer: Answer,
    target: &Target,
    request: &Outgoing,
    flight: &Flight,
) -> Result<(response::Parts, Answer), Box<EngineRefusal>> {
    if is_strange(&head, request) {
        target.mark_refused();
        if flight.takes_slot() {
            target.live.broke_off();
        }
        let message = "something that is no engine answers on the engine's port";
        let key = &target.replica.key;
        let problem = Problem::new(ErrorCode::WorkerReset, message).at(&key.node_id, &key.pool_id);
        return Err(Box::new(EngineRefusal { problem, elsewhere: flight.takes_slot() }));
    }
    let means_us = matches!(
        head.status,
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN | StatusCode::SERVICE_UNAVAILABLE
    );
    // Its own dialect is not translated, unless the error is between the engine and us.
    if !is_error(head.status)
        || (flight.dialect() == Dialect::LlamaCpp && !means_us && !head.status.is_server_error())
    {
        return Ok((head, answer));
    }
    if flight.takes_slot() {
        target.live.answered(head.status);
    }
    let body = read(answer, target).await;
    Err(Box::new(read_refusal(head.status, &body, target, flight)))
}

/// Whether no llama-server can have said this: those tell their errors in JSON, and never point elsewhere.
fn is_strange(head: &response::Parts, request: &Outgoing) -> bool {
    let media_type = head.headers.get(CONTENT_TYPE).map_or(&b""[..], |value| value.as_bytes());
    let is_html = media_type.starts_with(b"text/html");
    let is_json = media_type.starts_with(b"application/json");
    let lacks = matches!(head.status, StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED) && !is_json;
    has_prompt(request.uri.path()) && (head.status.is_redirection() || is_html || lacks)
}

fn read_refusal(status: StatusCode, body: &[u8], target: &Target, flight: &Flight) -> EngineRefusal {
    let key = &target.replica.key;
    let mut problem = engine_problem(status.as_u16(), body).at(&key.node_id, &key.pool_id);
    let elsewhere = match status {
        // It is our key that it does not take, and the client must not look for the fault in its own.
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
            "the engine does not accept the key that the gateway has for it".clone_into(&mut problem.message);
            target.mark_refused();
            true
        }
        // It has not begun: it is loading, behind the back of whoever supervises it.
        StatusCode::SERVICE_UNAVAILABLE => {
            target.mark_refused();
            true
        }
        StatusCode::NOT_IMPLEMENTED => false,
        status if status.is_server_error() => {
            problem.status = Some(status.as_u16());
            flight.takes_slot()
        }
        _ => problem.context.is_some(),
    };
    EngineRefusal { problem, elsewhere }
}

/// The body of an error, as far as it comes; the connection is kept if all of it did.
async fn read(mut answer: Answer, target: &Target) -> BytesMut {
    let mut body = BytesMut::new();
    let all = async {
        while let Some(Ok(data)) = poll_fn(|cx| answer.poll_data(cx)).await {
            body.extend_from_slice(&data);
            if body.len() > READ_LIMIT {
                return;
            }
        }
    };
    // What did not come in time is not missed: the status tells the most.
    let _ = tokio::time::timeout(READ_TIME, all).await;
    if let Some(connection) = answer.into_connection()
        && !target.live.is_draining()
    {
        target.live.idle.put(connection);
    }
    body
}
