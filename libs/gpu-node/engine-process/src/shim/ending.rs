//! What is left to do when an engine has ended: say how, and leave nothing of it running.

use std::path::Path;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill, killpg};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use orch_core::UnixMillis;

use super::keeper::Places;
use crate::exit_record::ExitRecord;
use crate::identity::ProcessIdentity;
use crate::leftovers::{kill_sharers, open_all};
use crate::logs::{StreamSelection, tail};
use crate::sys::{self, End, process_table};
use crate::wait::{pause, wait_until};

const LAST_LINES: usize = 20;
const LAST_LINE_CHARS: usize = 500;
/// Killing a family takes as many rounds as it has generations; the limit is for processes that a driver holds.
const KILL_LIMIT: Duration = Duration::from_secs(10);
const ROUND: Duration = Duration::from_millis(5);
/// The signal with which the kernel kills for want of memory.
const KILLED: i32 = 9;

/// What llama.cpp and its backends say when a device or the machine has too little memory.
const OUT_OF_MEMORY: [&str; 6] = [
    "out of memory",
    "cudamalloc failed",
    "failed to allocate",
    "erroroutofdevicememory",
    "bad_alloc",
    "cannot allocate memory",
];
/// After this the engine went on with less, so what was said before is not why it ended.
const RECOVERED: &str = "retrying without pipeline parallelism";

/// Writes the exit record. `kills` counts the kernel's memory kills before and after.
pub(super) fn write_record(
    places: &Places,
    identity: &ProcessIdentity,
    how: End,
    began_at: UnixMillis,
    kills: (Option<u64>, Option<u64>),
) {
    let last_stderr = last_lines(places, began_at);
    let killed_for_memory =
        how == End::Signal(KILLED) && kills.0.zip(kills.1).is_some_and(|(before, after)| after > before);
    let record = ExitRecord {
        pid: identity.pid,
        code: if let End::Code(code) = how { Some(code) } else { None },
        signal: if let End::Signal(signal) = how { Some(signal) } else { None },
        at: UnixMillis::now(),
        out_of_memory: killed_for_memory || (how != End::Code(0) && tells_of_memory(&last_stderr)),
        last_stderr,
    };
    // A full disk costs the record, not the clean end.
    let _ = record.write(&places.exit_record);
}

fn last_lines(places: &Places, began_at: UnixMillis) -> Vec<String> {
    let lines =
        tail(&places.log_files, StreamSelection::Stderr, LAST_LINES, Some(began_at)).unwrap_or_default();
    lines.into_iter().map(|line| line.text.chars().take(LAST_LINE_CHARS).collect()).collect()
}

fn tells_of_memory(lines: &[String]) -> bool {
    let lines: Vec<String> = lines.iter().map(|line| line.to_lowercase()).collect();
    let relevant = match lines.iter().rposition(|line| line.contains(RECOVERED)) {
        Some(position) => &lines[position + 1..],
        None => &lines[..],
    };
    relevant.iter().any(|line| OUT_OF_MEMORY.iter().any(|needle| line.contains(needle)))
}

/// Kills and reaps all that descends from the engine. Only unreaped children of this very process are
/// signalled, so no pid can have become somebody else's; grandchildren become children when their parent ends.
pub(super) fn kill_children(engine: u32) {
    if let Ok(raw) = i32::try_from(engine) {
        let _ = killpg(Pid::from_raw(raw), Signal::SIGKILL);
    }
    let end = Instant::now() + KILL_LIMIT;
    while reap_all() == Children::Left && Instant::now() < end {
        for child in children() {
            let _ = kill(child, Signal::SIGKILL);
        }
        pause(ROUND);
    }
}

fn children() -> Vec<Pid> {
    let me = std::process::id();
    let table = process_table();
    let mine = table.iter().filter(|entry| entry.parent == me && !entry.zombie);
    mine.filter_map(|entry| i32::try_from(entry.pid).ok().map(Pid::from_raw)).collect()
}

#[derive(PartialEq, Eq)]
enum Children {
    None,
    Left,
}

fn reap_all() -> Children {
    loop {
        match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::StillAlive) => return Children::Left,
            Ok(_) | Err(nix::errno::Errno::EINTR) => {}
            Err(_) => return Children::None,
        }
    }
}

/// For an adopted engine: kills what is known to be its own, the rest of its process group and whatever shares
/// its lock.
pub(super) fn kill_known(engine: u32, engine_lock: &Path) {
    let table = process_table();
    // A living leader with this number is a newcomer, and so is its group.
    let reused = table.iter().any(|entry| entry.pid == engine && !entry.zombie);
    if !reused {
        let members: Vec<_> = table.into_iter().filter(|entry| entry.group == engine).collect();
        let members = open_all(&members);
        for member in &members {
            let _ = member.signal(sys::Signal::Kill);
        }
        wait_until(KILL_LIMIT, || members.iter().all(|member| member.wait(Duration::ZERO)));
    }
    kill_sharers(engine_lock);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tells(lines: &[&str]) -> bool {
        tells_of_memory(&lines.iter().map(|line| (*line).to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn last_words_about_memory_are_understood() {
        assert!(tells(&[
            "ggml_backend_cuda_buffer_type_alloc_buffer: cudaMalloc failed: out of memory",
            "bye"
        ]));
        assert!(tells(&["terminate called after throwing an instance of 'std::bad_alloc'"]));
        assert!(!tells(&["error: invalid argument: --no-mmap"]));
    }

    #[test]
    fn an_allocation_the_engine_recovered_from_is_not_the_reason() {
        let retry = "graph_reserve: retrying without pipeline parallelism";
        assert!(!tells(&["failed to allocate compute buffers", retry, "assertion failed"]));
        assert!(tells(&["failed to allocate compute buffers", retry, "failed to allocate compute buffers"]));
    }
}
