//! The body of an answer, wherever it comes from.

use std::io;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::SizeHint;

use super::Connection;
use super::connection::EngineAnswer;
use crate::provider::RemoteAnswer;

/// An answer that is being read.
pub(crate) enum Answer {
    Engine(EngineAnswer),
    Remote(RemoteAnswer),
}

impl Answer {
    /// Whether nothing of the body is left.
    pub(crate) fn is_over(&self) -> bool {
        match self {
            Answer::Engine(answer) => answer.is_over(),
            Answer::Remote(answer) => answer.is_over(),
        }
    }

    pub(crate) fn size_hint(&self) -> SizeHint {
        match self {
            Answer::Engine(answer) => answer.size_hint(),
            Answer::Remote(answer) => answer.size_hint(),
        }
    }

    /// The next piece of the body.
    pub(crate) fn poll_data(&mut self, cx: &mut Context<'_>) -> Poll<Option<io::Result<Bytes>>> {
        match self {
            Answer::Engine(answer) => answer.poll_data(cx),
            Answer::Remote(answer) => answer.poll_data(cx),
        }
    }

    /// The engine's connection after the last byte of the answer, if it can carry another request.
    pub(crate) fn into_connection(self) -> Option<Connection> {
        match self {
            Answer::Engine(answer) => answer.into_connection(),
            Answer::Remote(_) => None,
        }
    }
}
