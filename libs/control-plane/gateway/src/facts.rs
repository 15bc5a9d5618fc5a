//! What a request says about itself, read once: the model it names, and what its headers ask for.

use std::sync::Arc;
use std::time::Duration;

use http::request::Parts;
use http::{HeaderMap, HeaderName};
use llm_adapters::Problem;
use orch_core::ErrorCode;
use orch_runtime::RequestId;
use tokio::time::Instant;

use crate::choose::Ties;
use crate::incoming::asked_fields;

pub(crate) const PRIORITY: HeaderName = HeaderName::from_static("x-priority");
pub(crate) const DEADLINE: HeaderName = HeaderName::from_static("x-deadline-ms");
pub(crate) const SESSION: HeaderName = HeaderName::from_static("x-session-id");
pub(crate) const PIN: HeaderName = HeaderName::from_static("x-placement-pin");
pub(crate) const PREFER: HeaderName = HeaderName::from_static("x-placement-prefer");
pub(crate) const AVOID: HeaderName = HeaderName::from_static("x-placement-avoid");
pub(crate) const DEVICE_MASK: HeaderName = HeaderName::from_static("x-placement-device-mask");

/// More ids in one header are a mistake.
const MOST_IDS: usize = 64;
/// A longer session id is a mistake.
const LONGEST_SESSION: usize = 256;

/// How urgent a request is. The order is that of service.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Class {
    /// Somebody waits for it.
    #[default]
    Interactive,
    /// It can wait for those.
    Batch,
}

impl Class {
    /// Every class, in the order of service.
    pub const ALL: [Class; 2] = [Class::Interactive, Class::Batch];

    /// The word in headers and metric labels.
    pub const fn label(self) -> &'static str {
        match self {
            Class::Interactive => "interactive",
            Class::Batch => "batch",
        }
    }
}

/// Where a request wants to go, by ids of pools or nodes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Placement {
    /// Only there.
    pub(crate) pin: Vec<String>,
    /// There, if that is possible at all.
    pub(crate) prefer: Vec<String>,
    /// Never there.
    pub(crate) avoid: Vec<String>,
    /// Only on replicas with exactly these devices.
    pub(crate) device_mask: Option<String>,
}

/// What routing, queueing and placement need to know of a request.
#[derive(Clone, Debug, Default)]
pub(crate) struct Facts {
    /// The name that the request gives; `None` = the only instance there is.
    pub(crate) model: Option<String>,
    /// Whether the caller asked for a stream.
    pub(crate) streams: bool,
    /// The most tokens that the answer may have, where the request bounds it.
    pub(crate) max_tokens: Option<u64>,
    pub(crate) class: Class,
    /// Later the caller has no use for a beginning of the answer.
    pub(crate) deadline: Option<Instant>,
    pub(crate) session: Option<String>,
    pub(crate) placement: Placement,
    /// Under which its choices are written down.
    pub(crate) request_id: Option<RequestId>,
    /// What ties it to replicas; empty where there is nothing to choose.
    pub(crate) ties: Arc<Ties>,
    /// The prompt's tokens, once an engine has counted them.
    pub(crate) prompt_tokens: Option<u64>,
}

impl Facts {
    /// Reads head and body. `instance` is the one that the path names, which goes before the body's.
    pub(crate) fn read(
        parts: &Parts,
        body: &[u8],
        instance: Option<&str>,
        arrived: Instant,
    ) -> Result<Self, Problem> {
        let headers = &parts.headers;
        let fields = asked_fields(&parts.method, headers, parts.uri.query().unwrap_or_default(), body);
        // Whoever names the instance in the path may send it anything.
        let mut fields = if instance.is_some() { fields.unwrap_or_default() } else { fields? };
        let model = instance.map(str::to_owned).or_else(|| fields.model.take().map(Into::into));
        Ok(Self {
            model,
            streams: fields.streams.unwrap_or_else(|| streams_by_default(parts.uri.path())),
            max_tokens: fields.max_tokens,
            class: class(headers)?,
            deadline: deadline(headers, arrived)?,
            session: session(headers)?,
            placement: Placement {
                pin: ids(headers, &PIN)?,
                prefer: ids(headers, &PREFER)?,
                avoid: ids(headers, &AVOID)?,
                device_mask: text(headers, &DEVICE_MASK)?.map(str::to_owned),
            },
            ..Self::default()
        })
    }
}

/// Ollama's two generating endpoints stream unless they are told not to.
fn streams_by_default(path: &str) -> bool {
    matches!(path, "/api/chat" | "/api/generate")
}

fn class(headers: &HeaderMap) -> Result<Class, Problem> {
    let Some(word) = text(headers, &PRIORITY)? else { return Ok(Class::default()) };
    Class::ALL
        .into_iter()
        .find(|class| class.label().eq_ignore_ascii_case(word))
        .ok_or_else(|| bad(&PRIORITY, "has to be `interactive` or `batch`"))
}

fn deadline(headers: &HeaderMap, arrived: Instant) -> Result<Option<Instant>, Problem> {
    let Some(word) = text(headers, &DEADLINE)? else { return Ok(None) };
    let millis: i64 = word.parse().map_err(|_| bad(&DEADLINE, "has to be a whole number of milliseconds"))?;
    match u64::try_from(millis) {
        // Far enough away is as good as never.
        Ok(millis) if millis > 0 => Ok(arrived.checked_add(Duration::from_millis(millis))),
        _ => {
            let message = format!("the deadline of {millis} ms has passed already");
            Err(Problem::new(ErrorCode::DeadlineUnmet, message).status(400))
        }
    }
}

fn session(headers: &HeaderMap) -> Result<Option<String>, Problem> {
    match text(headers, &SESSION)? {
        Some(session) if session.len() > LONGEST_SESSION => {
            Err(bad(&SESSION, &format!("has at most {LONGEST_SESSION} characters")))
        }
        session => Ok(session.map(str::to_owned)),
    }
}

fn ids(headers: &HeaderMap, name: &HeaderName) -> Result<Vec<String>, Problem> {
    let Some(list) = text(headers, name)? else { return Ok(Vec::new()) };
    let ids: Vec<String> =
        list.split(',').map(str::trim).filter(|id| !id.is_empty()).map(str::to_owned).collect();
    if ids.len() > MOST_IDS {
        return Err(bad(name, &format!("names at most {MOST_IDS} pools or nodes")));
    }
    Ok(ids)
}

/// A header's text; an empty one counts as absent.
fn text<'h>(headers: &'h HeaderMap, name: &HeaderName) -> Result<Option<&'h str>, Problem> {
    let Some(value) = headers.get(name) else { return Ok(None) };
    let text = value.to_str().map_err(|_| bad(name, "holds characters that no header may have"))?.trim();
    Ok((!text.is_empty()).then_some(text))
}

fn bad(name: &HeaderName, why: &str) -> Problem {
    Problem::new(ErrorCode::InvalidParams, format!("the header {name} {why}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(headers: &[(&str, &str)], body: &str) -> Result<Facts, Problem> {
        let mut request = http::Request::builder().method("POST").uri("/v1/chat/completions");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let (parts, ()) = request.body(()).unwrap().into_parts();
        Facts::read(&parts, body.as_bytes(), None, Instant::now())
    }

    #[test]
    fn a_plain_request_is_interactive_and_wants_nothing() {
        let facts = read(&[], r#"{"model":"chat","stream":true}"#).unwrap();
        assert_eq!(
            (facts.model.as_deref(), facts.streams, facts.class),
            (Some("chat"), true, Class::Interactive)
        );
        assert_eq!((facts.deadline, facts.session, facts.placement), (None, None, Placement::default()));
    }

    #[test]
    fn headers_say_how_urgent_it_is_and_where_it_wants_to_go() {
        let facts = read(
            &[
                ("x-priority", "Batch"),
                ("x-deadline-ms", "500"),
                ("x-session-id", "s-1"),
                ("x-placement-pin", "chat, node-1,,"),
                ("x-placement-device-mask", "CUDA0"),
            ],
            "{}",
        )
        .unwrap();
        assert_eq!((facts.class, facts.session.as_deref()), (Class::Batch, Some("s-1")));
        assert_eq!(facts.placement.pin, ["chat", "node-1"]);
        assert_eq!(facts.placement.device_mask.as_deref(), Some("CUDA0"));
        assert!(facts.deadline.is_some_and(|at| at <= Instant::now() + Duration::from_millis(500)));
    }

    #[test]
    fn headers_that_cannot_be_meant_are_refused() {
        let long = "s".repeat(257);
        let many = "a,".repeat(65);
        for (name, value) in [
            ("x-priority", "urgent"),
            ("x-deadline-ms", "soon"),
            ("x-deadline-ms", "1.5"),
            ("x-session-id", &long),
            ("x-placement-avoid", &many),
        ] {
            assert_eq!(read(&[(name, value)], "{}").unwrap_err().code, ErrorCode::InvalidParams, "{name}");
        }
    }

    #[test]
    fn a_deadline_that_has_passed_already_is_told_at_once() {
        for value in ["0", "-1"] {
            let problem = read(&[("x-deadline-ms", value)], "{}").unwrap_err();
            assert_eq!((problem.code, problem.http_status()), (ErrorCode::DeadlineUnmet, 400));
        }
    }
}
