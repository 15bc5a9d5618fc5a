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

/// As [`kill_hard`], of a process that may have ended meanwhile.
pub(crate) fn try_to_kill(pid: u32) {
    // Gone already is as good.
    let _ = nix::sys::signal::kill(
        Pid::from_raw(i32::try_from(pid).expect("a pid is a small number")),
        Signal::SIGKILL,
    );
}

/// Whether a process runs; one that is only not yet reaped does not.
pub(crate) fn is_alive(pid: u32) -> bool {
    let Ok(stat) = fs::read_to_string(format!("/proc/{pid}/stat")) else { return false };
    let state = stat.rsplit(") ").next().and_then(|rest| rest.chars().next());
    !matches!(state, Some('Z' | 'X') | None)
}

pub(crate) fn parent(pid: u32) -> Option<u32> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit(") ").next()?.split(' ').nth(1)?.parse().ok()
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

/// What a process is in the life of its home.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Role {
    Daemon,
    Engine(String),
    Shim(String),
    /// Whatever else was left there, by its command line.
    Other(String),
}

/// The living processes whose working folder is this home: all that a daemon, its shims and its engines start.
pub(crate) fn processes_in(home: &Path) -> Vec<(u32, Role)> {
    let entries = fs::read_dir("/proc").expect("Linux has /proc");
    let pids = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    pids.filter_map(|pid| Some((pid, role_of(pid, home)?))).collect()
}

fn role_of(pid: u32, home: &Path) -> Option<Role> {
    let folder = fs::read_link(format!("/proc/{pid}/cwd")).ok()?;
    let arguments = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    let arguments = String::from_utf8_lossy(&arguments);
    let words: Vec<&str> = arguments.trim_end_matches('\0').split('\0').collect();
    let after = |word: &str| words.iter().skip_while(|it| **it != word).nth(1).map(|it| (*it).to_owned());
    let role = match (after("--alias"), after("shim")) {
        (Some(alias), _) => Role::Engine(alias),
        (None, Some(name)) => Role::Shim(name),
        (None, None) if words.contains(&"--foreground") => Role::Daemon,
        (None, None) => Role::Other(words.join(" ")),
    };
    (folder == home && is_alive(pid)).then_some(role)
}

/// Whether nobody listens there.
pub(crate) fn is_port_free(port: u16) -> bool {
    std::net::TcpListener::bind(("127.0.0.1", port)).is_ok()
}
