//! The request log: the gateway's records on their way into the control plane's database, and out again as what
//! `/v2/requests` and `/v2/usage` show.
//!
//! Records are written in batches a tenth of a second apart, so a daemon that is killed loses at most the requests
//! that ended in its last moments.

mod entry;
mod reader;
mod writer;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{SyncSender, TrySendError, sync_channel};
use std::thread::JoinHandle;

use control_store::ControlStore;
use gateway::{RequestLog, RequestRecord};
use orch_core::Failure;
use tokio::sync::watch;

pub use reader::LogReader;
pub(crate) use reader::UsageFilter;

/// Records that may wait to be written; the way of a request never waits for them.
const WAITING: usize = 8192;
/// Captured bodies that wait to be written take no more memory than this together.
const WAITING_BODY_BYTES: usize = 32 * 1024 * 1024;
/// A longer body is not captured: half a request cannot be sent again.
const LARGEST_BODY: usize = 128 * 1024;

/// What the writer is told.
enum Note {
    Over(Box<RequestRecord>),
    /// Write what is there and end.
    Close,
}

/// What the two sides of the channel share.
#[derive(Default)]
struct Shared {
    /// Records that could not be kept.
    lost: AtomicU64,
    body_bytes: AtomicUsize,
}

/// The side of the gateway: takes records and never waits.
pub(crate) struct LogWriter {
    notes: SyncSender<Note>,
    shared: Arc<Shared>,
    captures: bool,
}

/// The side of the daemon: its owner ends the writing.
pub(crate) struct LogKeeper {
    notes: SyncSender<Note>,
    shared: Arc<Shared>,
    thread: JoinHandle<()>,
    written: watch::Receiver<u64>,
}

/// How the writing goes, for metrics.
#[derive(Clone)]
pub(crate) struct LogHealth(Arc<Shared>);

/// Starts the writer. `secrets` are masked wherever a captured body repeats them; `on_trouble` hears whenever the
/// database stops taking records, and when it takes them again.
pub(crate) fn start(
    store: Arc<ControlStore>,
    captures: bool,
    secrets: Vec<String>,
    on_trouble: impl Fn(bool) + Send + 'static,
) -> Result<(Arc<LogWriter>, LogKeeper), Failure> {
    let (notes, inbox) = sync_channel(WAITING);
    let shared = Arc::<Shared>::default();
    let (told, written) = watch::channel(0);
    let writer = writer::Writer::new(store, inbox, Arc::clone(&shared), secrets, told, on_trouble);
    let thread = std::thread::Builder::new().name("request-log".to_owned()).spawn(move || writer.run());
    let thread = thread.map_err(|error| {
        Failure::new(orch_core::ExitCode::DaemonStartFailed, format!("the request log cannot start: {error}"))
    })?;
    let side = LogWriter { notes: notes.clone(), shared: Arc::clone(&shared), captures };
    Ok((Arc::new(side), LogKeeper { notes, shared, thread, written }))
}

/// What a record holds beside its numbers.
fn captured_bytes(record: &RequestRecord) -> usize {
    [&record.body, &record.answer].into_iter().flatten().map(|bytes| bytes.len()).sum()
}

impl RequestLog for LogWriter {
    fn record(&self, mut record: RequestRecord) {
        if record.body.as_ref().is_some_and(|body| body.len() > LARGEST_BODY) {
            record.body = None;
        }
        let mut kept = captured_bytes(&record);
        if kept > 0 && self.shared.body_bytes.fetch_add(kept, Ordering::Relaxed) + kept > WAITING_BODY_BYTES {
            self.shared.body_bytes.fetch_sub(kept, Ordering::Relaxed);
            (record.body, record.answer, kept) = (None, None, 0);
        }
        if let Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) =
            self.notes.try_send(Note::Over(Box::new(record)))
        {
            self.shared.body_bytes.fetch_sub(kept, Ordering::Relaxed);
            self.shared.lost.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn captures_bodies(&self) -> bool {
        self.captures
    }
}

impl LogKeeper {
    /// Changes whenever something was written.
    pub(crate) fn written(&self) -> watch::Receiver<u64> {
        self.written.clone()
    }

    pub(crate) fn health(&self) -> LogHealth {
        LogHealth(Arc::clone(&self.shared))
    }

    /// Writes what is there and ends. Blocks for as long as the database takes.
    pub(crate) fn close(self) {
        // A writer that is gone has nothing left to write.
        let _ = self.notes.send(Note::Close);
        if self.thread.join().is_err() {
            tracing::error!("the request log's writer panicked");
        }
        let lost = self.shared.lost.load(Ordering::Relaxed);
        if lost > 0 {
            tracing::warn!(lost, "requests are missing from the request log");
        }
    }
}

impl LogHealth {
    /// Records that are missing from the log.
    pub(crate) fn lost(&self) -> u64 {
        self.0.lost.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests;
