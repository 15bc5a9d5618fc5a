//! Engines as processes: started once, watched, logged, stopped, and never confused with anybody else's.
//!
//! Every engine has a small keeper, the *shim*: a process of the same binary that is the engine's parent, owns
//! its log files, tells when it is ready (handoff file) and how it ended (exit record), and outlives every
//! daemon. Whether an engine runs is the kernel's knowledge, not ours: the engine inherits a locked file, and
//! the lock lives exactly as long as the engine does.
//!
//! This crate deliberately knows no instance config, no database, no restart policy and no gateway: callers say
//! what to run and where the files lie. It is the only crate that starts processes and the only one with
//! `unsafe` code, all of it in `sys` and in the shim's first lines.
//!
//! Read first: [`EngineSpec`], all that a start needs, and [`ProcessIdentity`], the proof that a process is ours.
#![expect(clippy::disallowed_methods, reason = "this is the one crate in which children are born")]

mod account;
mod denied;
mod detached;
mod disk;
mod exit_record;
mod exit_watch;
mod handoff;
mod host_memory;
mod identity;
mod launch;
mod leftovers;
mod locks;
mod logs;
mod ports;
mod private_files;
mod program;
mod protocol;
mod recognition;
mod running_tools;
mod shim;
mod spec;
mod stop;
mod sys;
mod tool;
mod unclaimed;
mod video_memory;
mod wait;

pub use account::{is_administrator, may_open, may_write, owner_of, user_id};
pub use denied::Records;
pub use detached::{DetachedCommand, TerminateError, outlives_terminal, spawn_detached, terminate_daemon};
pub use disk::free_space;
pub use exit_record::ExitRecord;
pub use exit_watch::wait_for_exit;
pub use handoff::{Handoff, HandoffError, HandoffModel, scan_handoffs};
pub use host_memory::{HostMemory, host_memory};
pub use identity::{Ownership, ProcessIdentity, ProcessUsage, StartMark};
pub use identity::{bytes_read, parent_pid, rss_bytes, start_mark, usage};
pub use launch::{LaunchError, adopt, default_shim_executable, launch};
pub use leftovers::clear_leftovers;
pub use locks::{LockError, LockGuard, LockHolder, acquire, holder, running_engine};
pub use logs::{
    Follower, LARGE_LOGS, LogFiles, LogLine, LogPosition, NoPosition, Stream, StreamSelection, old_logs,
    replica_log_path, tail, tail_then_follow, total_size,
};
pub use ports::{PortHolder, holder_of, is_free, pick_free};
pub use private_files::write_private;
pub use program::{ProgramCommand, ProgramEar, ProgramError, ProgramOutput, run_program};
pub use recognition::recognise;
pub use running_tools::end_running_tools;
pub use shim::shim_main;
pub use spec::{EngineHandle, EngineSpec};
pub use stop::{StopError, StopPlan, StopReport, StopTarget, stop};
pub use tool::{ToolCommand, ToolError, ToolOutput, run_tool};
pub use unclaimed::{UnclaimedEngine, unclaimed_engines};
pub use video_memory::video_memory;
