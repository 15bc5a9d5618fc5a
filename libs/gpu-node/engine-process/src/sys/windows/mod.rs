//! Windows: named job objects instead of process groups, named events instead of signals, and files that are
//! opened exclusively instead of file locks.
//!
//! What the system keeps of a process after its end hangs on open handles: a pid is not reused, and a named
//! object is not forgotten, while somebody holds one. Engines inherit a handle of their lock and one of their
//! own job for that reason, and so does whatever they start.

mod birth;
pub(crate) mod command_line;
mod console;
mod end_request;
mod files;
mod handles;
mod job;
mod memory;
mod network;
mod process;
mod waiting;

pub(crate) use birth::{
    ProcessGroup, converse, end_with_this_thread, spawn_detached, spawn_group, spawn_suspended,
};
pub(crate) use console::{interrupt_console, join_console_of, leave_starter, release_standard_streams};
pub(crate) use end_request::EndRequests;
pub(crate) use files::{
    block_size, file_position, free_space, is_locked, patiently, read_at, take_out_head, try_lock,
    write_all_at,
};
pub(crate) use job::Job;
pub(crate) use memory::host_memory;
pub(crate) use network::{listener_on, port_is_free};
pub(crate) use process::{
    ProcessHandle, args_of, bytes_read, forget_code, group_members, inherited_lock, lock_sharers,
    memory_kills, process_entry, process_table, sight, start_mark, usage,
};
pub(crate) use waiting::{Either, signalled, wait_for_either};

/// The exit code of a process that was ended from outside, as a shell shows a killed one elsewhere.
pub(crate) const ENDED_BY_US: u32 = 137;
