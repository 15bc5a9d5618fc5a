//! Idle connections of one replica, the most recently used first.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::Connection;

/// llama-server closes a connection after five idle seconds; one that is about to go is not worth the risk.
const IDLE_LIMIT: Duration = Duration::from_secs(4);

/// Each idle connection occupies a thread in the engine.
const MOST_IDLE: usize = 32;

struct Parked {
    connection: Connection,
    since: Instant,
}

/// Connections that wait for their next request. Nobody polls them meanwhile: whether the engine has closed
/// one shows when it is taken.
#[derive(Default)]
pub(crate) struct IdleConnections {
    parked: Mutex<Vec<Parked>>,
}

impl IdleConnections {
    /// The freshest connection that is still alive.
    pub(crate) fn take(&self) -> Option<Connection> {
        loop {
            let Parked { mut connection, since } = self.lock().pop()?;
            if since.elapsed() > IDLE_LIMIT {
                self.clear();
                return None;
            }
            if connection.is_usable() {
                return Some(connection);
            }
        }
    }

    /// Keeps a connection for the next request.
    pub(crate) fn put(&self, connection: Connection) {
        let mut parked = self.lock();
        let now = Instant::now();
        // The oldest lie in front.
        let fresh = parked.iter().position(|one| now.duration_since(one.since) <= IDLE_LIMIT);
        let stale = fresh.unwrap_or(parked.len());
        parked.drain(..stale);
        if parked.len() < MOST_IDLE {
            parked.push(Parked { connection, since: now });
        }
    }

    /// Closes all of them.
    pub(crate) fn clear(&self) {
        let closed = std::mem::take(&mut *self.lock());
        drop(closed);
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Parked>> {
        self.parked.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
