//! Every task has an owner, a name, and an end.

use std::collections::HashMap;
use std::future::Future;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::task::{AbortHandle, JoinHandle};
use tokio_util::sync::CancellationToken;

/// How long aborted tasks get to drop what they hold.
const AFTER_ABORT: Duration = Duration::from_secs(1);

/// The owner of a group of tasks. Cloning gives another handle to the same group.
///
/// Tasks watch [`Tasks::token`] and end by themselves; [`Tasks::shutdown`] cancels the token, waits, and aborts
/// what is left. A [`Tasks::child`] can be shut down alone, and is shut down with its parent.
#[derive(Clone, Debug)]
pub struct Tasks {
    scope: Arc<Scope>,
}

#[derive(Debug)]
struct Scope {
    token: CancellationToken,
    running: Mutex<Running>,
    emptied: Notify,
    parent: Option<Arc<Scope>>,
}

#[derive(Debug, Default)]
struct Running {
    tasks: HashMap<u64, Entry>,
    /// Set once the time for an orderly end has passed: what is spawned now is aborted at once.
    cut: bool,
}

#[derive(Debug)]
struct Entry {
    name: &'static str,
    /// Absent for the moment between registration and spawn.
    abort: Option<AbortHandle>,
}

impl Default for Tasks {
    fn default() -> Self {
        Self::new()
    }
}

impl Tasks {
    pub fn new() -> Self {
        Self { scope: Arc::new(Scope::new(CancellationToken::new(), None)) }
    }

    /// A group of its own inside this one.
    #[must_use]
    pub fn child(&self) -> Self {
        let parent = Arc::clone(&self.scope);
        Self { scope: Arc::new(Scope::new(self.scope.token.child_token(), Some(parent))) }
    }

    /// Cancelled when this group is to end.
    pub fn token(&self) -> CancellationToken {
        self.scope.token.clone()
    }

    /// How many tasks run now, those of children included.
    pub fn running(&self) -> usize {
        self.scope.lock().tasks.len()
    }

    /// Starts a task. Its name appears in the log when it panics or has to be cut at shutdown.
    ///
    /// Dropping the handle leaves the task running.
    #[expect(clippy::disallowed_methods, reason = "this is the place that gives tasks their owner")]
    pub fn spawn<F>(&self, name: &'static str, future: F) -> JoinHandle<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        let registration = Registration::new(&self.scope, name);
        let id = registration.id;
        let handle = tokio::spawn(async move {
            let _registration = registration;
            future.await
        });
        self.scope.attach(id, &handle.abort_handle());
        handle
    }

    /// Runs blocking work on a thread of its own. It cannot be aborted: it has to end by itself.
    pub fn spawn_blocking<F, T>(&self, name: &'static str, work: F) -> JoinHandle<T>
    where
        F: FnOnce() -> T + Send + 'static,
        T: Send + 'static,
    {
        let registration = Registration::new(&self.scope, name);
        let id = registration.id;
        let handle = tokio::task::spawn_blocking(move || {
            let _registration = registration;
            work()
        });
        self.scope.attach(id, &handle.abort_handle());
        handle
    }

    /// Cancels the token and waits for every task to end. Returns whether all ended within `limit`; those that
    /// did not are named in the log and aborted.
    pub async fn shutdown(&self, limit: Duration) -> bool {
        self.scope.token.cancel();
        if tokio::time::timeout(limit, self.scope.empty()).await.is_ok() {
            return true;
        }
        let late = self.scope.cut();
        tracing::warn!(tasks = ?late, limit_ms = limit.as_millis(), "tasks did not end in time and were cut");
        if tokio::time::timeout(AFTER_ABORT, self.scope.empty()).await.is_err() {
            tracing::warn!("a task cannot be aborted and is left behind");
        }
        false
    }
}

impl Scope {
    fn new(token: CancellationToken, parent: Option<Arc<Scope>>) -> Self {
        Self { token, running: Mutex::default(), emptied: Notify::new(), parent }
    }

    /// A panic elsewhere cannot leave the map half-changed, so a poisoned lock is still good.
    fn lock(&self) -> MutexGuard<'_, Running> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lineage(&self) -> impl Iterator<Item = &Scope> {
        std::iter::successors(Some(self), |scope| scope.parent.as_deref())
    }

    fn attach(&self, id: u64, abort: &AbortHandle) {
        let mut cut = false;
        for scope in self.lineage() {
            let mut running = scope.lock();
            cut |= running.cut;
            if let Some(entry) = running.tasks.get_mut(&id) {
                entry.abort = Some(abort.clone());
            }
        }
        if cut {
            abort.abort();
        }
    }

    async fn empty(&self) {
        loop {
            let emptied = self.emptied.notified();
            if self.lock().tasks.is_empty() {
                return;
            }
            emptied.await;
        }
    }

    /// Aborts what is left and names it.
    fn cut(&self) -> Vec<&'static str> {
        let (mut names, aborts): (Vec<_>, Vec<_>) = {
            let mut running = self.lock();
            running.cut = true;
            running.tasks.values().map(|entry| (entry.name, entry.abort.clone())).unzip()
        };
        aborts.into_iter().flatten().for_each(|abort| abort.abort());
        names.sort_unstable();
        names.dedup();
        names
    }
}

/// A task's place in its group and in all groups above; leaving is dropping.
struct Registration {
    id: u64,
    name: &'static str,
    scope: Arc<Scope>,
}

impl Registration {
    fn new(scope: &Arc<Scope>, name: &'static str) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let id = NEXT.fetch_add(1, Ordering::Relaxed);
        for scope in scope.lineage() {
            scope.lock().tasks.insert(id, Entry { name, abort: None });
        }
        Self { id, name, scope: Arc::clone(scope) }
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        if std::thread::panicking() {
            tracing::error!(task = self.name, "task panicked");
        }
        for scope in self.scope.lineage() {
            let mut running = scope.lock();
            running.tasks.remove(&self.id);
            if running.tasks.is_empty() {
                scope.emptied.notify_waiters();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_secs(5);

    #[tokio::test(start_paused = true)]
    async fn tasks_that_watch_the_token_end_in_time() {
        let tasks = Tasks::new();
        for _ in 0..10 {
            let token = tasks.token();
            tasks.spawn("watcher", async move { token.cancelled().await });
        }
        assert_eq!(tasks.running(), 10);
        assert!(tasks.shutdown(LIMIT).await);
        assert_eq!(tasks.running(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn a_task_that_ignores_the_token_is_cut_at_the_limit() {
        let tasks = Tasks::new();
        let stubborn = tasks.spawn("stubborn", std::future::pending::<()>());
        let before = tokio::time::Instant::now();
        assert!(!tasks.shutdown(LIMIT).await);
        assert_eq!(before.elapsed(), LIMIT);
        assert!(stubborn.await.unwrap_err().is_cancelled());
        assert_eq!(tasks.running(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn shutting_down_a_child_leaves_the_parent_running() {
        let tasks = Tasks::new();
        let child = tasks.child();
        let (parent_token, child_token) = (tasks.token(), child.token());
        tasks.spawn("parent", async move { parent_token.cancelled().await });
        child.spawn("child", async move { child_token.cancelled().await });
        assert_eq!(tasks.running(), 2);
        assert!(child.shutdown(LIMIT).await);
        assert_eq!(tasks.running(), 1);
        assert!(!tasks.token().is_cancelled());
        assert!(tasks.shutdown(LIMIT).await);
    }

    #[tokio::test(start_paused = true)]
    async fn a_parent_waits_for_the_tasks_of_its_children() {
        let tasks = Tasks::new();
        let child = tasks.child();
        let token = child.token();
        let work = child.spawn("child", async move {
            token.cancelled().await;
            tokio::time::sleep(Duration::from_secs(2)).await;
            7
        });
        assert!(tasks.shutdown(LIMIT).await);
        assert_eq!(work.await.unwrap(), 7);
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_spawned_after_the_cut_does_not_run() {
        let tasks = Tasks::new();
        tasks.spawn("stubborn", std::future::pending::<()>());
        assert!(!tasks.shutdown(LIMIT).await);
        let late = tasks.child().spawn("late", std::future::pending::<()>());
        assert!(late.await.unwrap_err().is_cancelled());
    }

    #[tokio::test]
    async fn a_panicking_task_leaves_its_group() {
        let tasks = Tasks::new();
        let broken = tasks.spawn("broken", async { panic!("on purpose") });
        assert!(broken.await.unwrap_err().is_panic());
        assert!(tasks.shutdown(LIMIT).await);
    }

    #[tokio::test]
    async fn blocking_work_is_waited_for() {
        let tasks = Tasks::new();
        let (release, wait) = std::sync::mpsc::channel::<()>();
        let work = tasks.spawn_blocking("blocking", move || wait.recv().is_ok());
        assert_eq!(tasks.running(), 1);
        release.send(()).unwrap();
        assert!(work.await.unwrap());
        assert!(tasks.shutdown(LIMIT).await);
    }
}
