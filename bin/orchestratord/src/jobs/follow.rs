//! A job's journal as a stream of events, from any place on, until the job ends.

use std::collections::VecDeque;
use std::time::Duration;

use axum::response::sse::Event as SentEvent;
use orch_core::Failure;
use pool_managerd::api::sse;
use tokio::sync::watch;
use workflow::{EventType, JobId, JournalLine, Tail};

use super::manager::JobManager;

/// A journal that another process writes is looked at so often.
const PACE: Duration = Duration::from_millis(250);

/// The events of one job behind some place. What is held for a reader is bounded, however slowly it reads: the rest
/// lies in the journal.
pub(crate) struct Journal {
    manager: JobManager,
    id: JobId,
    /// Absent while somebody reads with it.
    tail: Option<Tail>,
    written: watch::Receiver<u64>,
    waiting: VecDeque<JournalLine>,
    /// The last event said that the job has ended, or waits.
    over: bool,
}

impl Journal {
    /// `ended`: what lies up to `after` says already that the job has ended.
    pub(super) fn new(manager: JobManager, id: JobId, after: u64, ended: bool) -> Self {
        let tail = Some(manager.inner.shelf.tail(&id).after(after));
        let written = manager.inner.written.subscribe();
        Self { manager, id, tail, written, waiting: VecDeque::new(), over: ended }
    }

    async fn next_line(&mut self) -> Option<JournalLine> {
        loop {
            if let Some(line) = self.waiting.pop_front() {
                self.over = line.kind.is_some_and(EventType::ends_job);
                return Some(line);
            }
            self.written.mark_unchanged();
            // Asked before the journal is read: what is written until then is seen.
            let is_wanted = self.manager.is_wanted(&self.id);
            self.waiting = self.read_on().await?.into();
            if !self.waiting.is_empty() {
                continue;
            }
            if self.over && !is_wanted {
                return None;
            }
            tokio::select! {
                () = self.manager.inner.pausing.cancelled() => return None,
                _ = self.written.changed() => {}
                () = tokio::time::sleep(PACE) => {}
            }
        }
    }

    /// What came since; `None` where the journal cannot be read any further.
    async fn read_on(&mut self) -> Option<Vec<JournalLine>> {
        let mut tail = self.tail.take()?;
        let reading = self.manager.inner.tasks.spawn_blocking("journal", move || {
            let lines = tail.read();
            (tail, lines)
        });
        let (tail, lines) = reading.await.ok()?;
        self.tail = Some(tail);
        let told =
            |failure: &Failure| tracing::warn!(job = %self.id, %failure, "its journal cannot be followed");
        lines.map_err(Failure::from).inspect_err(told).ok()
    }
}

impl sse::Source for Journal {
    async fn next(&mut self) -> Option<SentEvent> {
        let JournalLine { seq, kind, text, .. } = self.next_line().await?;
        let name = kind.map_or("event", EventType::word);
        Some(SentEvent::default().id(seq.to_string()).event(name).data(text))
    }
}
