//! Windows programs as Linux sees them.

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// A process with its command line.
#[derive(Clone, Debug)]
pub(super) struct Process {
    pid: i32,
    /// Its words, each followed by a blank.
    pub(super) command_line: String,
}

impl Process {
    pub(super) fn kill(&self) {
        self.signal(Signal::SIGKILL);
    }

    /// Wine turns SIGINT into Ctrl-C.
    pub(super) fn press_ctrl_c(&self) {
        self.signal(Signal::SIGINT);
    }

    fn signal(&self, signal: Signal) {
        // Gone already is as good.
        let _ = kill(Pid::from_raw(self.pid), signal);
    }
}

/// The living processes that belong to a Wine prefix, Wine's own services included.
pub(super) fn of_prefix(prefix: &Path) -> Vec<Process> {
    let mark = [b"WINEPREFIX=", prefix.as_os_str().as_bytes(), b"\0"].concat();
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    pids.filter_map(|pid| look(pid, &mark)).collect()
}

fn look(pid: i32, mark: &[u8]) -> Option<Process> {
    let folder = Path::new("/proc").join(pid.to_string());
    let environment = fs::read(folder.join("environ")).ok()?;
    if !environment.windows(mark.len()).any(|part| part == mark) {
        return None;
    }
    let words = fs::read(folder.join("cmdline")).ok()?;
    let command_line = String::from_utf8_lossy(&words).replace('\0', " ");
    Some(Process { pid, command_line })
}
