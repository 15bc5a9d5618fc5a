//! Is this process ours? Pid, start mark, executable and `--port`: all of them must agree.

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use orch_core::ByteCount;
use serde::{Deserialize, Serialize};

use crate::sys;

/// When a process began, in a form that no clock step can change. On Linux `<boot id>:<start ticks>`.
/// Together with the pid it names one process among all that ever ran.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct StartMark(pub String);

impl fmt::Display for StartMark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What we remember of an engine process we started.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessIdentity {
    pub pid: u32,
    pub started_at: StartMark,
    /// The executable, or the script that was started.
    pub executable: PathBuf,
    pub port: u16,
}

/// The answer to "is the process with this pid the one we remember?"
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ownership {
    Ours,
    /// Ours as far as can be told without the look that the system denies: see [`ProcessIdentity::check_by`].
    Vouched {
        reason: String,
    },
    /// No such process, or only its unreaped remains.
    Gone,
    /// The pid belongs to somebody else by now, or the process became something else. Never to be signalled.
    Foreign {
        reason: String,
    },
    /// The system does not let us look.
    Denied {
        reason: String,
    },
}

impl Ownership {
    /// Whether the process may be watched, adopted and stopped as our own.
    pub fn is_ours(&self) -> bool {
        matches!(self, Ownership::Ours | Ownership::Vouched { .. })
    }
}

/// What the system shows of a process.
#[derive(Clone, Debug)]
pub(crate) struct ProcessSight {
    pub started_at: StartMark,
    /// `None` where the system denies the look.
    pub executable: Option<PathBuf>,
    pub args: Vec<String>,
}

/// The result of looking at a pid.
#[derive(Clone, Debug)]
#[cfg_attr(target_os = "macos", expect(dead_code, reason = "hidden cannot be told from gone there"))]
pub(crate) enum Sight {
    Gone,
    Denied(String),
    Seen(ProcessSight),
}

impl ProcessIdentity {
    /// The same process after it has become another program: a wrapper script that ended in `exec`. Proven by the
    /// engine lock, which names this pid and start mark and is held by what inherited it. `None` when there is no
    /// such proof.
    #[must_use]
    pub fn followed(&self, engine_lock: &Path) -> Option<Self> {
        let born = crate::locks::running_engine(engine_lock)?.identity;
        if born.pid != self.pid || born.started_at != self.started_at {
            return None;
        }
        match sys::sight(self.pid) {
            Sight::Seen(seen) if seen.started_at == self.started_at => {
                Some(Self { executable: seen.executable?, ..self.clone() })
            }
            _ => None,
        }
    }

    /// Looks at the process that has the pid now.
    pub fn check(&self) -> Ownership {
        match sys::sight(self.pid) {
            Sight::Gone => Ownership::Gone,
            Sight::Denied(reason) => Ownership::Denied { reason },
            Sight::Seen(process) => self.compare(&process),
        }
    }

    pub(crate) fn compare(&self, process: &ProcessSight) -> Ownership {
        let pid = self.pid;
        if process.started_at != self.started_at {
            return Ownership::Foreign {
                reason: format!("pid {pid} was reused by a process that began later"),
            };
        }
        if let Some(executable) = &process.executable
            && !self.runs_our_program(executable, &process.args)
        {
            return Ownership::Foreign { reason: format!("pid {pid} runs {}", executable.display()) };
        }
        // A command line that cannot be seen either is empty.
        let is_shown = process.executable.is_some() || !process.args.is_empty();
        if is_shown && asked_port(&process.args) != Some(self.port) {
            return Ownership::Foreign { reason: format!("pid {pid} does not serve port {}", self.port) };
        }
        match process.executable {
            Some(_) => Ownership::Ours,
            None => Ownership::Denied { reason: format!("the executable of pid {pid} cannot be seen") },
        }
    }

    /// The executable itself, a name that leads to it, or an interpreter that runs our script: the path of a
    /// script stands among the first words of its command line (`sh script`, `env python3 script`).
    fn runs_our_program(&self, executable: &Path, args: &[String]) -> bool {
        let seen = without_deleted_mark(executable);
        seen == self.executable
            || self
                .executable
                .canonicalize()
                .is_ok_and(|path| seen.canonicalize().is_ok_and(|seen| seen == path))
            || args.iter().take(3).any(|arg| Path::new(arg) == self.executable)
    }
}

/// Linux shows ` (deleted)` behind an executable that an upgrade has replaced.
fn without_deleted_mark(path: &Path) -> PathBuf {
    match path.to_str().and_then(|text| text.strip_suffix(" (deleted)")) {
        Some(plain) => PathBuf::from(plain),
        None => path.to_owned(),
    }
}

/// The port a command line asks for; as everywhere in the engine, the last word wins.
pub(crate) fn asked_port(args: &[String]) -> Option<u16> {
    let mut asked = None;
    let mut rest = args.iter();
    while let Some(arg) = rest.next() {
        if arg == "--port" {
            asked = rest.next().map(String::as_str);
        } else if let Some(value) = arg.strip_prefix("--port=") {
            asked = Some(value);
        }
    }
    asked?.parse().ok()
}

/// The program that a process runs now.
pub(crate) fn executable_of(pid: u32) -> Option<PathBuf> {
    match sys::sight(pid) {
        Sight::Seen(seen) => seen.executable,
        Sight::Gone | Sight::Denied(_) => None,
    }
}

/// The start mark of a living process; `None` when it is gone.
pub fn start_mark(pid: u32) -> Option<StartMark> {
    sys::start_mark(pid)
}

/// What a process uses now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProcessUsage {
    pub resident: ByteCount,
    /// Processor time since the process began, user and system, all threads.
    pub processor_time: Duration,
}

/// What a process uses; `None` when it is gone.
pub fn usage(pid: u32) -> Option<ProcessUsage> {
    sys::usage(pid)
}

/// Resident memory of a process; `None` when it is gone.
pub fn rss_bytes(pid: u32) -> Option<ByteCount> {
    usage(pid).map(|usage| usage.resident)
}

/// Whose child a living process is: the shim that is its engine's parent is told the exit code, a shim that came
/// later is not.
pub fn parent_pid(pid: u32) -> Option<u32> {
    sys::process_entry(pid).filter(|entry| !entry.zombie).map(|entry| entry.parent)
}

/// Bytes a process has read since it began. Together with its memory it tells a slow load from a stalled one.
pub fn bytes_read(pid: u32) -> Option<u64> {
    sys::bytes_read(pid)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn remembered() -> ProcessIdentity {
        ProcessIdentity {
            pid: 7,
            started_at: StartMark("boot:100".into()),
            executable: "/opt/engine/llama-server".into(),
            port: 8001,
        }
    }

    fn seen() -> ProcessSight {
        ProcessSight {
            started_at: StartMark("boot:100".into()),
            executable: Some("/opt/engine/llama-server".into()),
            args: ["/opt/engine/llama-server", "--host", "::1", "--port", "8001"].map(String::from).to_vec(),
        }
    }

    #[test]
    fn a_process_is_ours_when_everything_agrees() {
        assert_eq!(remembered().compare(&seen()), Ownership::Ours);
    }

    #[test]
    fn an_executable_replaced_by_an_upgrade_is_still_ours() {
        let sight = ProcessSight { executable: Some("/opt/engine/llama-server (deleted)".into()), ..seen() };
        assert_eq!(remembered().compare(&sight), Ownership::Ours);
    }

    #[test]
    fn a_script_is_known_by_its_path_behind_the_interpreter() {
        let args = ["/bin/sh", "/opt/engine/llama-server", "--port=8001"].map(String::from).to_vec();
        let sight = ProcessSight { executable: Some("/usr/bin/dash".into()), args, ..seen() };
        assert_eq!(remembered().compare(&sight), Ownership::Ours);
    }

    #[test]
    fn one_disagreement_is_enough_to_be_foreign() {
        let later = ProcessSight { started_at: StartMark("boot:101".into()), ..seen() };
        let other_program =
            ProcessSight { executable: Some("/usr/bin/sleep".into()), args: vec![], ..seen() };
        let other_port = ProcessSight {
            args: ["x", "--port", "8001", "--port", "8002"].map(String::from).to_vec(),
            ..seen()
        };
        for sight in [later, other_program, other_port] {
            assert!(matches!(remembered().compare(&sight), Ownership::Foreign { .. }), "{sight:?}");
        }
    }

    #[test]
    fn a_hidden_executable_is_denied_but_a_reused_pid_is_foreign_even_then() {
        let hidden = ProcessSight { executable: None, ..seen() };
        assert!(matches!(remembered().compare(&hidden), Ownership::Denied { .. }));
        let reused = ProcessSight { started_at: StartMark("boot:9".into()), ..hidden.clone() };
        assert!(matches!(remembered().compare(&reused), Ownership::Foreign { .. }));
        let all_hidden = ProcessSight { args: vec![], ..hidden.clone() };
        assert!(matches!(remembered().compare(&all_hidden), Ownership::Denied { .. }));
        let other_port = ProcessSight { args: ["x", "--port", "8002"].map(String::from).to_vec(), ..hidden };
        assert!(matches!(remembered().compare(&other_port), Ownership::Foreign { .. }));
    }

    #[test]
    fn this_process_has_a_start_mark_and_memory() {
        let pid = std::process::id();
        assert_eq!(start_mark(pid), start_mark(pid));
        assert!(start_mark(pid).is_some());
        assert!(rss_bytes(pid).unwrap().0 > 0);
        assert!(bytes_read(pid).is_some());
    }

    #[test]
    fn a_pid_that_nobody_has_is_gone() {
        let identity = ProcessIdentity { pid: u32::MAX / 2, ..remembered() };
        assert_eq!(identity.check(), Ownership::Gone);
        assert_eq!(start_mark(identity.pid), None);
    }
}
