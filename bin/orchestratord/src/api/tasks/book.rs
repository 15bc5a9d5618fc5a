//! Which tasks there are: a bounded number under way, and ended ones for a while.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use orch_api::ErrorBody;
use orch_core::ErrorCode;
use pool_managerd::api::Refusal;
use uuid::Uuid;

use super::task::Task;

/// So many may be under way at a time.
const MOST_UNDER_WAY: usize = 256;
/// So many ended ones are kept, each for so long.
const MOST_ENDED: usize = 256;
const KEPT_FOR: Duration = Duration::from_mins(10);
/// When too many are under way, a client is asked to wait so long.
const RETRY_MS: u64 = 1000;

/// The tasks of this daemon's life.
#[derive(Default)]
pub(crate) struct TaskBook {
    tasks: Mutex<HashMap<Uuid, Arc<Task>>>,
}

impl TaskBook {
    /// Takes a task in, unless too many are under way.
    pub(super) fn take(&self, task: &Arc<Task>) -> Result<(), Refusal> {
        let mut tasks = self.lock();
        forget_old(&mut tasks);
        let under_way = tasks.values().filter(|task| task.ended().is_none()).count();
        if under_way >= MOST_UNDER_WAY {
            let message = format!("{under_way} tasks are under way already");
            let refusal = ErrorBody::new(ErrorCode::AdmissionReject, message);
            return Err(ErrorBody { retry_after_ms: Some(RETRY_MS), ..refusal }.into());
        }
        tasks.insert(task.id, Arc::clone(task));
        Ok(())
    }

    pub(super) fn find(&self, id: Uuid) -> Option<Arc<Task>> {
        let mut tasks = self.lock();
        forget_old(&mut tasks);
        tasks.get(&id).cloned()
    }

    pub(super) fn forget(&self, id: Uuid) {
        self.lock().remove(&id);
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Uuid, Arc<Task>>> {
        self.tasks.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn forget_old(tasks: &mut HashMap<Uuid, Arc<Task>>) {
    tasks.retain(|_, task| task.ended().is_none_or(|ended| ended.elapsed() < KEPT_FOR));
    let mut ended: Vec<_> =
        tasks.iter().filter_map(|(id, task)| task.ended().map(|ended| (ended, *id))).collect();
    let surplus = ended.len().saturating_sub(MOST_ENDED);
    ended.sort_unstable();
    for (_, id) in ended.into_iter().take(surplus) {
        tasks.remove(&id);
    }
}

#[cfg(test)]
mod tests {
    use orch_api::{TaskEnd, TaskEvent};

    use super::*;

    fn task() -> Arc<Task> {
        Arc::new(Task::new("m", "key-1"))
    }

    fn end(task: &Task) {
        task.push(TaskEvent::End(TaskEnd { tokens_out: 0, decode_ms: 0 }));
    }

    #[tokio::test(start_paused = true)]
    async fn no_more_than_so_many_are_under_way_and_an_end_makes_room() {
        let book = TaskBook::default();
        let first = task();
        book.take(&first).unwrap();
        for _ in 1..MOST_UNDER_WAY {
            book.take(&task()).unwrap();
        }
        let refusal = book.take(&task()).unwrap_err();
        let refusal = refusal.body();
        assert_eq!((refusal.error_code(), refusal.retriable), (ErrorCode::AdmissionReject, true));
        end(&first);
        book.take(&task()).unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn ended_ones_are_kept_for_a_while_and_no_more_than_so_many() {
        let book = TaskBook::default();
        let first = task();
        for number in 0..=MOST_ENDED {
            let task = if number == 0 { first.clone() } else { task() };
            book.take(&task).unwrap();
            end(&task);
            tokio::time::advance(Duration::from_millis(1)).await;
        }
        assert!(book.find(first.id).is_none(), "the oldest went");
        let last = task();
        book.take(&last).unwrap();
        end(&last);
        assert!(book.find(last.id).is_some());
        tokio::time::advance(KEPT_FOR).await;
        assert!(book.find(last.id).is_none());
    }
}
