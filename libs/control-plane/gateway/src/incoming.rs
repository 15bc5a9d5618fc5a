//! Reading a request as far as routing needs it.

use std::borrow::Cow;
use std::fmt::Display;
use std::pin::{Pin, pin};
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, EXPECT};
use http::{HeaderMap, Method};
use http_body::Body;
use http_body_util::BodyExt;
use llm_adapters::{BodyError as ModelError, Problem, boundary_of, fields_in_json, model_in_multipart};
use orch_core::ErrorCode;
use orch_runtime::{BodyError, read_body};

use crate::limits::Limits;

/// After a refusal so much more of a body is read and thrown away, at most for so long: a client that is
/// still writing would otherwise see its connection reset instead of the reason.
const DISCARD_FACTOR: u64 = 4;
const DISCARD_LIMIT: Duration = Duration::from_secs(10);

/// Reads the whole body of a request.
pub(crate) async fn read_request<B>(headers: &HeaderMap, body: B, limits: &Limits) -> Result<Bytes, Problem>
where
    B: Body<Data = Bytes>,
    B::Error: Display,
{
    let mut body = pin!(body);
    let problem = match read_body(body.as_mut(), limits.body_bytes, limits.body_idle).await {
        Ok(bytes) => return Ok(bytes),
        Err(BodyError::TooLarge { limit }) => Problem::new(
            ErrorCode::TooLarge,
            format!("the body is larger than {limit} bytes (limits.body_mb)"),
        ),
        Err(BodyError::Stalled) => Problem::new(ErrorCode::InvalidParams, "the body stopped arriving"),
        Err(BodyError::Broken(error)) => {
            Problem::new(ErrorCode::InvalidParams, format!("the body broke off: {error}"))
        }
    };
    // Who asked first has sent nothing yet; reading now would only invite it to.
    if problem.code == ErrorCode::TooLarge && !headers.contains_key(EXPECT) {
        let room = limits.body_bytes.saturating_mul(DISCARD_FACTOR);
        let _ = tokio::time::timeout(DISCARD_LIMIT, Box::pin(discard(body, room))).await;
    }
    Err(problem)
}

async fn discard<B: Body<Data = Bytes>>(mut body: Pin<&mut B>, mut room: u64) {
    while let Some(Ok(frame)) = body.frame().await {
        let length = frame.data_ref().map_or(0, Bytes::len) as u64;
        let Some(left) = room.checked_sub(length) else { return };
        room = left;
    }
}

/// What routing needs of a request's body and query.
#[derive(Debug, Default)]
pub(crate) struct Asked<'r> {
    pub(crate) model: Option<Cow<'r, str>>,
    /// What the request says; its dialect decides where it says nothing.
    pub(crate) streams: Option<bool>,
    pub(crate) max_tokens: Option<u64>,
}

/// The model that a request names, in its body or else in its query, and whether it wants a stream.
pub(crate) fn asked_fields<'r>(
    method: &Method,
    headers: &HeaderMap,
    query: &'r str,
    body: &'r [u8],
) -> Result<Asked<'r>, Problem> {
    let in_body =
        if method.is_safe() || body.is_empty() { Asked::default() } else { fields_of_body(headers, body)? };
    let model = in_body.model.or_else(|| model_in_query(query)).filter(|model| !model.is_empty());
    Ok(Asked { model, ..in_body })
}

fn fields_of_body<'r>(headers: &HeaderMap, body: &'r [u8]) -> Result<Asked<'r>, Problem> {
    let content_type = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    if let Some(boundary) = boundary_of(content_type) {
        let model = model_in_multipart(body, boundary).map(Cow::Borrowed);
        return Ok(Asked { model, ..Asked::default() });
    }
    let fields = fields_in_json(body).map_err(|error| {
        let problem = Problem::new(ErrorCode::InvalidParams, error.to_string());
        if error == ModelError::ModelNotText { problem.param("model") } else { problem }
    })?;
    Ok(Asked { model: fields.model, streams: fields.stream, max_tokens: fields.max_tokens })
}

fn model_in_query(query: &str) -> Option<Cow<'_, str>> {
    form_urlencoded::parse(query.as_bytes()).find(|(key, _)| key == "model").map(|(_, model)| model)
}
