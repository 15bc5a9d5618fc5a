//! What differs from system to system, behind the same functions everywhere.

#[cfg(target_os = "linux")]
mod linux;
#[cfg(all(unix, not(target_os = "linux")))]
mod portable;
#[cfg(unix)]
mod unix;
#[cfg(windows)]
mod windows;
#[cfg(all(test, not(windows)))]
#[path = "windows/command_line.rs"]
mod windows_command_line;

#[cfg(target_os = "linux")]
use linux as system;
#[cfg(all(unix, not(target_os = "linux")))]
use portable as system;
#[cfg(windows)]
use windows as system;

#[cfg(target_os = "linux")]
pub(crate) use linux::{end_of_child, reap_all_but};
#[cfg(all(unix, not(target_os = "linux")))]
pub(crate) use system::host_memory;
pub(crate) use system::{
    ProcessHandle, args_of, bytes_read, forget_code, inherited_lock, lock_sharers, memory_kills,
    process_entry, process_table, sight, start_mark, take_out_head, usage,
};
#[cfg(unix)]
pub(crate) use system::{file_position, mark_of_child};
#[cfg(unix)]
pub(crate) use unix::{
    ProcessGroup, block_size, converse, end_with_this_thread, free_space, group_members, is_locked,
    listener_on, outlives_terminal, patiently, port_is_free, read_at, spawn_detached, spawn_group, try_lock,
    write_all_at,
};
#[cfg(all(unix, not(target_os = "linux")))]
pub(crate) use unix::{end_of_child, reap_all_but};
#[cfg(all(unix, not(target_os = "linux")))]
use unix::{native_signal, native_signal_group};
#[cfg(windows)]
pub(crate) use windows::*;

/// The two ways to ask a process to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Signal {
    Terminate,
    Kill,
}

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    Code(i32),
    Signal(i32),
    /// Only its parent is told.
    Unknown,
}

/// One row of the process table: enough to find a family and to know later that a pid still means the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ProcessEntry {
    pub pid: u32,
    pub parent: u32,
    pub group: u32,
    /// Start time in the system's own unit.
    pub started: u64,
    pub zombie: bool,
}
