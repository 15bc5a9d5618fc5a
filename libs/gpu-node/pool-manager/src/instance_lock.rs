//! The lock of one instance: whoever starts, stops or changes it holds it for that step.

use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

use engine_process::LockGuard;
use orch_core::{Failure, InstanceName};

use crate::node::Node;

/// How long a step waits for somebody else's step on the same instance.
const LOCK_WAIT: Duration = Duration::from_secs(10);

/// The lock of one instance, held.
#[derive(Debug)]
pub(crate) struct InstanceLock {
    _guard: LockGuard,
}

impl InstanceLock {
    /// Waits up to 10 s; then fails with 33, naming the holder and what it is doing.
    pub(crate) fn acquire(node: &Node, name: &InstanceName, operation: &str) -> Result<Self, Failure> {
        Self::acquire_within(node, name, operation, LOCK_WAIT)
    }

    fn acquire_within(
        node: &Node,
        name: &InstanceName,
        operation: &str,
        wait: Duration,
    ) -> Result<Self, Failure> {
        let guard = engine_process::acquire(&node.home.instance_lock(name), operation, wait)?;
        Ok(Self { _guard: guard })
    }
}

/// The lock of an instance as the supervisors of its replicas share it. Their steps are about different engines and need
/// not wait for each other, but other processes wait for all of them.
#[derive(Debug, Default)]
pub(crate) struct SharedLock {
    held: Mutex<Weak<InstanceLock>>,
    launching: Mutex<()>,
}

impl SharedLock {
    /// Joins whoever of the replicas holds the lock already, or takes it as [`InstanceLock::acquire`] does.
    pub(crate) fn join(
        &self,
        node: &Node,
        name: &InstanceName,
        operation: &str,
    ) -> Result<Arc<InstanceLock>, Failure> {
        let begun = Instant::now();
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(lock) = held.upgrade() {
            return Ok(lock);
        }
        // Those who waited here for another's attempt have waited all the same.
        let wait = LOCK_WAIT.saturating_sub(begun.elapsed());
        let lock = Arc::new(InstanceLock::acquire_within(node, name, operation, wait)?);
        *held = Arc::downgrade(&lock);
        Ok(lock)
    }

    /// One launch after the other: each has to see the ports that the ones before it were given.
    pub(crate) fn one_launch<T>(&self, launch: impl FnOnce() -> T) -> T {
        let _turn = self.launching.lock().unwrap_or_else(PoisonError::into_inner);
        launch()
    }
}
