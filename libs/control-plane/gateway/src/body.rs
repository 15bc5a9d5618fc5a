//! The body of a response: a few bytes of our own, or an engine's answer going by.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

use crate::deferred::DeferredBody;
use crate::stream::StreamBody;

/// An answer that had begun could not be finished; the connection to the client is closed.
#[derive(Debug)]
pub struct AnswerBroken;

impl std::fmt::Display for AnswerBroken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("the answer broke off")
    }
}

impl std::error::Error for AnswerBroken {}

/// What a client gets.
pub struct GatewayBody(Kind);

enum Kind {
    Whole(Bytes),
    Stream(Box<StreamBody>),
    Deferred(Box<DeferredBody>),
}

impl GatewayBody {
    /// A body that is all there.
    pub fn whole(bytes: Bytes) -> Self {
        Self(Kind::Whole(bytes))
    }

    pub(crate) fn deferred(body: DeferredBody) -> Self {
        Self(Kind::Deferred(Box::new(body)))
    }

    pub(crate) fn stream(stream: StreamBody) -> Self {
        Self(Kind::Stream(Box::new(stream)))
    }
}

impl GatewayBody {
    pub(crate) fn poll_data(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, AnswerBroken>>> {
        match &mut self.0 {
            Kind::Whole(bytes) if bytes.is_empty() => Poll::Ready(None),
            Kind::Whole(bytes) => Poll::Ready(Some(Ok(std::mem::take(bytes)))),
            Kind::Stream(stream) => stream.poll_data(cx),
            Kind::Deferred(body) => body.poll_data(cx),
        }
    }
}

impl Body for GatewayBody {
    type Data = Bytes;
    type Error = AnswerBroken;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, AnswerBroken>>> {
        self.poll_data(cx).map(|data| data.map(|data| data.map(Frame::data)))
    }

    fn is_end_stream(&self) -> bool {
        match &self.0 {
            Kind::Whole(bytes) => bytes.is_empty(),
            Kind::Stream(stream) => stream.is_over(),
            Kind::Deferred(body) => body.is_over(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.0 {
            Kind::Whole(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Kind::Stream(stream) => stream.size_hint(),
            Kind::Deferred(_) => SizeHint::default(),
        }
    }
}
