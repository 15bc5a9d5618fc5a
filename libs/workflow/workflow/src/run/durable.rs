//! When the journal reaches the disk. By default 20 ms after it was written at the latest; strictly, before a step
//! counts: then whatever ends while one sync is under way goes with the next.

use std::collections::VecDeque;
use std::io;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::Instant;

use super::RunError;
use super::driver::{Driver, Heard};
use super::ending::Ended;

/// So long a line may be written and not be on the disk.
const PACE: Duration = Duration::from_millis(20);

pub(super) struct Durable {
    strict: bool,
    /// When the oldest line was written that no sync has covered.
    dirty_since: Option<Instant>,
    under_way: bool,
    /// Steps that count as soon as the journal is on the disk up to here.
    waiting: VecDeque<(u64, Ended)>,
    /// Effects that may happen as soon as the journal is on the disk up to here.
    effects: VecDeque<(u64, oneshot::Sender<()>)>,
    synced: u64,
}

impl Durable {
    pub(super) const fn new(strict: bool) -> Self {
        Self {
            strict,
            dirty_since: None,
            under_way: false,
            waiting: VecDeque::new(),
            effects: VecDeque::new(),
            synced: 0,
        }
    }

    pub(super) const fn is_strict(&self) -> bool {
        self.strict
    }

    pub(super) fn written(&mut self, now: Instant) {
        self.dirty_since.get_or_insert(now);
    }

    pub(super) fn wait(&mut self, offset: u64, ended: Ended) {
        self.waiting.push_back((offset, ended));
    }

    /// Hears when the journal is on the disk up to here.
    pub(super) fn when_covered(&mut self, offset: u64) -> oneshot::Receiver<()> {
        let (tell, covered) = oneshot::channel();
        self.effects.push_back((offset, tell));
        self.tell_effects();
        covered
    }

    fn tell_effects(&mut self) {
        while self.effects.front().is_some_and(|(offset, _)| *offset <= self.synced) {
            if let Some((_, tell)) = self.effects.pop_front() {
                // A step that was given up does not wait any more.
                let _nobody_waits = tell.send(());
            }
        }
    }

    /// When a sync has to begin; `None` while one is under way or none is needed.
    pub(super) fn due(&self) -> Option<Instant> {
        if self.under_way {
            return None;
        }
        let pace = if self.waiting.is_empty() && self.effects.is_empty() { PACE } else { Duration::ZERO };
        self.dirty_since.map(|since| since + pace)
    }
}

impl Driver {
    pub(super) fn sync_if_due(&mut self) -> Result<(), RunError> {
        if self.durable.due().is_none_or(|due| due > Instant::now()) {
            return Ok(());
        }
        self.durable.under_way = true;
        self.durable.dirty_since = None;
        let (file, offset) = (self.recorder.sync_file()?, self.recorder.written());
        let tell = self.tell.clone();
        tokio::task::spawn_blocking(move || {
            // A driver that has ended has synced by itself.
            let _driver_is_gone = tell.send(Heard::Synced(offset, file.sync_data()));
        });
        Ok(())
    }

    pub(super) fn synced(&mut self, offset: u64, result: io::Result<()>) -> Result<(), RunError> {
        result.map_err(|source| RunError::Sync { path: self.recorder.folder().journal(), source })?;
        self.durable.under_way = false;
        self.durable.synced = offset;
        self.durable.tell_effects();
        self.recorder.mark_synced(offset);
        while self.durable.waiting.front().is_some_and(|(covered_at, _)| *covered_at <= offset) {
            let Some((_, ended)) = self.durable.waiting.pop_front() else { break };
            self.release(ended);
        }
        Ok(())
    }
}
