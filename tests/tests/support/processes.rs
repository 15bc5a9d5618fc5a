//! Processes seen from outside, through `/proc`.

use std::fs;
use std::path::Path;

use nix::sys::signal::Signal;
use nix::unistd::Pid;

pub(crate) fn signal(pid: u32, signal: Signal) {
    let pid = Pid::from_raw(i32::try_from(pid).expect("a pid is a small number"));
    nix::sys::signal::kill(pid, signal).expect("the process lives and is ours");
}

/// As a crash looks from outside.
pub(crate) fn kill_hard(pid: u32) {
    signal(pid, Signal::SIGKILL);
}

/// Whether a process runs; one that is only not yet reaped does not.
pub(crate) fn is_alive(pid: u32) -> bool {
    let Ok(stat) = fs::read_to_string(format!("/proc/{pid}/stat")) else { return false };
    let state = stat.rsplit(") ").next().and_then(|rest| rest.chars().next());
    !matches!(state, Some('Z' | 'X') | None)
}

/// The engines whose working folder is this home: pid and alias.
pub(crate) fn engines_in(home: &Path) -> Vec<(u32, String)> {
    let entries = fs::read_dir("/proc").expect("Linux has /proc");
    let pids = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    pids.filter_map(|pid| Some((pid, alias_of(pid, home)?))).collect()
}

fn alias_of(pid: u32, home: &Path) -> Option<String> {
    let arguments = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    let mut arguments = arguments.split(|byte| *byte == 0);
    arguments.find(|argument| *argument == b"--alias")?;
    let alias = String::from_utf8_lossy(arguments.next()?).into_owned();
    let folder = fs::read_link(format!("/proc/{pid}/cwd")).ok()?;
    (folder == home && is_alive(pid)).then_some(alias)
}

/// Whether nobody listens there.
pub(crate) fn is_port_free(port: u16) -> bool {
    std::net::TcpListener::bind(("127.0.0.1", port)).is_ok()
}
