//! What a connection is doing, told by its socket and its service, read by its timer.

use std::io::IoSlice;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering::Relaxed};
use std::task::{Context, Poll};

use http_body::{Body, Frame, SizeHint};
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::rt::TokioIo;
use pin_project_lite::pin_project;
use tokio::io::{AsyncRead, AsyncWrite};

/// Whose turn it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Phase {
    /// The client owes the rest of a request's head.
    Head = 0,
    /// A request is being answered.
    Busy = 1,
    /// The client may send another request.
    Idle = 2,
}

/// Shared by the parts of one connection. They all run inside that connection's task, so relaxed ordering is
/// enough: moving a task between threads synchronises them.
#[derive(Debug, Default)]
pub(super) struct Activity {
    phase: AtomicU8,
    write_blocked: AtomicBool,
    changes: AtomicU64,
}

impl Activity {
    pub(super) fn phase(&self) -> Phase {
        match self.phase.load(Relaxed) {
            0 => Phase::Head,
            1 => Phase::Busy,
            _ => Phase::Idle,
        }
    }

    /// The client does not take the bytes we have for it.
    pub(super) fn write_blocked(&self) -> bool {
        self.write_blocked.load(Relaxed)
    }

    /// Grows whenever anything changed, so that a change there and back is also seen.
    pub(super) fn changes(&self) -> u64 {
        self.changes.load(Relaxed)
    }

    fn enter(&self, phase: Phase) {
        self.phase.store(phase as u8, Relaxed);
        self.changes.fetch_add(1, Relaxed);
    }

    pub(super) fn bytes_arrived(&self) {
        if self.phase() == Phase::Idle {
            self.enter(Phase::Head);
        }
    }

    pub(super) fn note_write<T>(&self, outcome: &Poll<T>) {
        let blocked = outcome.is_pending();
        if self.write_blocked.load(Relaxed) != blocked {
            self.write_blocked.store(blocked, Relaxed);
            self.changes.fetch_add(1, Relaxed);
        }
    }
}

/// A request being answered: from the call of the service until the response's body is dropped.
pub(super) struct InFlight(Arc<Activity>);

impl InFlight {
    pub(super) fn new(activity: &Arc<Activity>) -> Self {
        activity.enter(Phase::Busy);
        Self(Arc::clone(activity))
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.enter(Phase::Idle);
    }
}

pin_project! {
    /// A response's body that tells when it ends.
    pub(super) struct WatchedBody<B> {
        #[pin]
        body: B,
        in_flight: InFlight,
    }
}

impl<B> WatchedBody<B> {
    pub(super) fn new(body: B, in_flight: InFlight) -> Self {
        Self { body, in_flight }
    }
}

impl<B: Body> Body for WatchedBody<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        self.project().body.poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// A connection that tells when bytes arrive and when they cannot leave.
pub(super) struct WatchedStream<I> {
    stream: TokioIo<I>,
    activity: Arc<Activity>,
}

impl<I> WatchedStream<I> {
    pub(super) fn new(stream: I, activity: Arc<Activity>) -> Self {
        Self { stream: TokioIo::new(stream), activity }
    }
}

impl<I: AsyncRead + Unpin> Read for WatchedStream<I> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: ReadBufCursor<'_>,
    ) -> Poll<std::io::Result<()>> {
        let outcome = Pin::new(&mut self.stream).poll_read(cx, buffer);
        if outcome.is_ready() {
            self.activity.bytes_arrived();
        }
        outcome
    }
}

impl<I: AsyncWrite + Unpin> Write for WatchedStream<I> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        let outcome = Pin::new(&mut self.stream).poll_write(cx, data);
        self.activity.note_write(&outcome);
        outcome
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<std::io::Result<usize>> {
        let outcome = Pin::new(&mut self.stream).poll_write_vectored(cx, slices);
        self.activity.note_write(&outcome);
        outcome
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
