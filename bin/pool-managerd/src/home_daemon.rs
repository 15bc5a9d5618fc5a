//! The one daemon of a home: its lock, its file, its first and last words.

use std::net::SocketAddr;
use std::time::Duration;

use engine_process::{LockError, LockGuard};
use orch_core::{EventLevel, EventType, ExitCode, Failure, HomeLayout, UnixMillis};
use orch_runtime::Token;
use pool_manager::Node;
use serde_json::json;
use state_store::NewEvent;

use crate::daemon_file::{self, DaemonFile};

/// A daemon that was killed keeps its lock until the last of its threads is gone.
const DYING: Duration = Duration::from_secs(5);

/// Being the daemon of a home: as long as this is held nobody else is.
pub struct HomeDaemon {
    _lock: LockGuard,
    /// Valid on this daemon for every scope, for as long as it lives; commands of this home read it off the file.
    pub local_token: Token,
}

impl HomeDaemon {
    /// Takes the place, or fails with 61 and names who has it.
    pub fn claim(home: &HomeLayout) -> Result<Self, Failure> {
        let path = home.daemon_lock();
        let lock = engine_process::acquire(&path, "daemon", Duration::ZERO)
            .or_else(|error| {
                if is_passing(&error) { engine_process::acquire(&path, "daemon", DYING) } else { Err(error) }
            })
            .map_err(|error| already(home, error))?;
        let local_token = Token::generate()
            .map_err(|error| Failure::new(ExitCode::DaemonStartFailed, format!("no randomness: {error}")))?;
        Ok(Self { _lock: lock, local_token })
    }

    /// From here on commands find the daemon.
    pub fn announce(
        &self,
        node: &Node,
        address: SocketAddr,
        addr_flag: Option<String>,
    ) -> Result<(), Failure> {
        let pid = std::process::id();
        let unseen = || Failure::new(ExitCode::DaemonStartFailed, "this process is not in the process table");
        let file = DaemonFile {
            pid,
            process_started_at: engine_process::start_mark(pid).ok_or_else(unseen)?,
            address,
            token: self.local_token.secret().to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            started_at: UnixMillis::now(),
            addr_flag,
        };
        file.write(&node.home).map_err(|error| {
            let path = node.home.daemon_file();
            Failure::new(ExitCode::DaemonStartFailed, format!("cannot write {}: {error}", path.display()))
        })?;
        // The event is a remark; a database that is busy just now is no reason not to serve.
        let started = format!("daemon started as pid {pid} on {address}");
        if let Err(failure) = remember(node, EventType::DaemonStarted, started) {
            tracing::warn!(%failure, "the start of the daemon could not be written down");
        }
        Ok(())
    }

    /// The last thing a daemon does: its file goes, its end is written down.
    pub fn farewell(self, node: &Node) {
        let pid = std::process::id();
        let path = node.home.daemon_file();
        if daemon_file::read(&path).is_some_and(|file| file.pid == pid) {
            let _ = std::fs::remove_file(path);
        }
        if let Err(failure) = remember(node, EventType::DaemonStopped, format!("daemon (pid {pid}) stopped"))
        {
            tracing::warn!(%failure, "the end of the daemon could not be written down");
        }
    }
}

/// Whether the lock will be free in a moment: the one who has it has ended and only not yet let go, or nobody has
/// it and somebody just looked whether it is held.
fn is_passing(error: &LockError) -> bool {
    let LockError::Held { holder, .. } = error else { return false };
    let Some(holder) = holder else { return true };
    let mark = engine_process::start_mark(holder.pid);
    mark.is_none() || mark != holder.start_mark
}

fn already(home: &HomeLayout, error: LockError) -> Failure {
    match error {
        LockError::Held { holder, .. } => {
            let who = holder.map_or(String::new(), |holder| format!(" (pid {})", holder.pid));
            let message = format!("a daemon of {} is already running{who}", home.root().display());
            Failure::new(ExitCode::DaemonAlreadyRunning, message).hint("see `llama-orch daemon status`")
        }
        error @ LockError::Io { .. } => Failure::from(error),
    }
}

fn remember(node: &Node, event_type: EventType, message: String) -> Result<(), Failure> {
    let meta = Some(json!({"pid": std::process::id(), "version": env!("CARGO_PKG_VERSION")}));
    let event = NewEvent { instance: None, level: EventLevel::Info, event_type, message, meta };
    node.store.append_event(&event, UnixMillis::now())?;
    Ok(())
}
