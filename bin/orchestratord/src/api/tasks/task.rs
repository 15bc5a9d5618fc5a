//! One task: how far it is, and what has happened to it so far.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use gateway::Caller;
use orch_api::{ErrorBody, TaskEvent, TaskQueued, TaskState, TaskView};
use orch_core::UnixMillis;
use orch_runtime::CancellationToken;
use tokio::sync::watch;
use tokio::time::Instant;
use uuid::Uuid;

/// What is kept of the events of a task: about a million bytes. The oldest go first.
const KEPT_BYTES: usize = 1024 * 1024;
/// What an event takes beside its text.
const EVENT_BYTES: usize = 64;

/// A task that was taken.
pub(super) struct Task {
    pub(super) id: Uuid,
    pub(super) cancel: CancellationToken,
    model: String,
    /// The id of its caller.
    owner: String,
    created: UnixMillis,
    log: Mutex<Log>,
    /// How many events there have been.
    count: watch::Sender<u64>,
}

struct Log {
    /// The number of the first event that is kept.
    first: u64,
    events: VecDeque<TaskEvent>,
    bytes: usize,
    state: TaskState,
    begun: bool,
    tokens: u64,
    ahead: Option<u64>,
    error: Option<ErrorBody>,
    ended: Option<Instant>,
}

/// What a reader finds.
#[derive(Debug, PartialEq)]
pub(super) enum Next {
    /// The event of this number: the one that was asked for, or the first that is still kept.
    At(u64, TaskEvent),
    /// Nothing comes any more.
    Over,
}

impl Task {
    pub(super) fn new(model: &str, owner: &str) -> Self {
        let id = Uuid::now_v7();
        let task = Self {
            id,
            cancel: CancellationToken::new(),
            model: model.to_owned(),
            owner: owner.to_owned(),
            created: UnixMillis::now(),
            log: Mutex::new(Log {
                first: 0,
                events: VecDeque::new(),
                bytes: 0,
                state: TaskState::Queued,
                begun: false,
                tokens: 0,
                ahead: None,
                error: None,
                ended: None,
            }),
            count: watch::Sender::new(0),
        };
        task.push(TaskEvent::Queued(TaskQueued { task_id: id }));
        task
    }

    /// Whether this caller may see and cancel it.
    pub(super) fn is_open_to(&self, caller: &Caller) -> bool {
        caller.may_look_after(&self.owner)
    }

    /// Something happened. After the last event nothing does.
    pub(super) fn push(&self, event: TaskEvent) {
        let mut log = self.lock();
        if log.ended.is_some() {
            return;
        }
        match &event {
            TaskEvent::Started {} => {
                log.state = TaskState::Running;
                log.begun = true;
            }
            TaskEvent::Token(token) => log.tokens = token.i + 1,
            TaskEvent::Metrics(metrics) => log.ahead = Some(metrics.queue_depth),
            TaskEvent::End(_) => log.state = TaskState::Done,
            TaskEvent::Error(error) => {
                log.state = TaskState::Failed;
                log.error = Some(error.clone());
            }
            TaskEvent::Queued(_) => {}
        }
        log.ended = event.is_last().then(Instant::now);
        log.keep(event);
        let count = log.first + log.events.len() as u64;
        drop(log);
        self.count.send_replace(count);
    }

    /// The event of a number, as soon as there is one.
    pub(super) async fn event(&self, number: u64) -> Next {
        let mut count = self.count.subscribe();
        loop {
            if let Some(next) = self.lock().event(number) {
                return next;
            }
            if count.changed().await.is_err() {
                return Next::Over;
            }
        }
    }

    /// How far it is when it has begun or ended, or when the time is over.
    pub(super) async fn first_moment(&self, limit: Duration) -> TaskState {
        let mut count = self.count.subscribe();
        let moved = count.wait_for(|_| self.lock().state != TaskState::Queued);
        let _ = tokio::time::timeout(limit, moved).await;
        self.lock().state
    }

    /// Why it failed before it began.
    pub(super) fn refusal(&self) -> Option<ErrorBody> {
        let log = self.lock();
        log.error.clone().filter(|_| !log.begun)
    }

    /// How many wait before it, where that was told.
    pub(super) fn ahead(&self) -> Option<u64> {
        self.lock().ahead
    }

    /// Since when it is over.
    pub(super) fn ended(&self) -> Option<Instant> {
        self.lock().ended
    }

    pub(super) fn view(&self) -> TaskView {
        let log = self.lock();
        TaskView {
            task_id: self.id,
            model: self.model.clone(),
            state: log.state,
            created_at: self.created.to_rfc3339(),
            tokens_out: log.tokens,
            error: log.error.clone(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Log> {
        self.log.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Log {
    fn keep(&mut self, event: TaskEvent) {
        self.bytes += size(&event);
        self.events.push_back(event);
        while self.bytes > KEPT_BYTES && self.events.len() > 1 {
            if let Some(dropped) = self.events.pop_front() {
                self.bytes -= size(&dropped);
                self.first += 1;
            }
        }
    }

    fn event(&self, number: u64) -> Option<Next> {
        let number = number.max(self.first);
        let index = usize::try_from(number - self.first).unwrap_or(usize::MAX);
        match self.events.get(index) {
            Some(event) => Some(Next::At(number, event.clone())),
            None if self.ended.is_some() => Some(Next::Over),
            None => None,
        }
    }
}

fn size(event: &TaskEvent) -> usize {
    let text = match event {
        TaskEvent::Token(token) => token.t.len(),
        TaskEvent::Error(error) => error.message.len(),
        _ => 0,
    };
    text + EVENT_BYTES
}

#[cfg(test)]
mod tests {
    use orch_api::{TaskEnd, TaskToken};
    use orch_core::ErrorCode;

    use super::*;

    fn token(i: u64, length: usize) -> TaskEvent {
        TaskEvent::Token(TaskToken { t: "x".repeat(length), i })
    }

    const END: TaskEvent = TaskEvent::End(TaskEnd { tokens_out: 1, decode_ms: 1 });

    #[tokio::test]
    async fn a_reader_gets_every_event_once_and_then_the_end() {
        let task = Task::new("m", "key-1");
        task.push(token(0, 1));
        task.push(END);
        assert!(matches!(task.event(0).await, Next::At(0, TaskEvent::Queued(_))));
        assert_eq!(task.event(1).await, Next::At(1, token(0, 1)));
        assert_eq!(task.event(2).await, Next::At(2, END));
        assert_eq!((task.event(3).await, task.event(u64::MAX).await), (Next::Over, Next::Over));
    }

    #[tokio::test]
    async fn nothing_comes_after_the_last_event() {
        let task = Task::new("m", "key-1");
        task.push(TaskEvent::Error(ErrorBody::new(ErrorCode::Cancelled, "enough")));
        task.push(END);
        task.push(token(0, 1));
        assert_eq!(task.event(2).await, Next::Over);
        assert_eq!(task.view().state, TaskState::Failed);
    }

    #[tokio::test]
    async fn what_nobody_reads_is_bounded_and_a_late_reader_goes_on_with_what_is_kept() {
        let task = Task::new("m", "key-1");
        for number in 0..3000 {
            task.push(token(number, 1000));
        }
        task.push(END);
        let kept = task.lock().events.len();
        assert!(kept * 1000 <= KEPT_BYTES, "{kept}");
        let Next::At(first, TaskEvent::Token(shown)) = task.event(1).await else { panic!("no token") };
        // The first event was `queued`.
        assert_eq!(first, shown.i + 1);
        assert!(shown.i > 0);
        assert_eq!(task.event(3001).await, Next::At(3001, END));
    }

    #[tokio::test(start_paused = true)]
    async fn a_reader_that_is_ahead_waits_for_what_comes() {
        let task = std::sync::Arc::new(Task::new("m", "key-1"));
        let (reader, writer) = (task.clone(), task);
        let read = async move { reader.event(1).await };
        let write = async move {
            tokio::time::sleep(Duration::from_secs(1)).await;
            writer.push(END);
        };
        assert_eq!(tokio::join!(read, write).0, Next::At(1, END));
    }
}
