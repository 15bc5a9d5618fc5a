//! Streams of server-sent events. They are pulled: who reads slowly makes nothing grow.

use std::convert::Infallible;
use std::future::Future;
use std::time::Duration;

use axum::http::{HeaderMap, HeaderName};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures_util::stream;

/// Something is sent at least so often: proxies close lines that say nothing.
const KEEP_ALIVE: Duration = Duration::from_secs(15);
const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");

/// Where the events of a stream come from.
pub trait Source: Send + 'static {
    /// The next one; `None` ends the stream.
    fn next(&mut self) -> impl Future<Output = Option<Event>> + Send;
}

/// The answer that sends them, one after the other.
pub fn respond<S: Source>(source: S) -> Response {
    let events = stream::unfold(source, async |mut source| {
        let event = source.next().await?;
        Some((Ok::<_, Infallible>(event), source))
    });
    Sse::new(events).keep_alive(KeepAlive::new().interval(KEEP_ALIVE)).into_response()
}

/// The event behind which a client wants to go on.
pub fn last_event_id(headers: &HeaderMap) -> Option<&str> {
    headers.get(LAST_EVENT_ID)?.to_str().ok().filter(|id| !id.is_empty())
}
