//! How a daemon is asked to end where there are no signals.

/// The pipe on which the daemon of this pid hears requests to end. Only Windows has such names: no signal reaches a
/// process there that has no console. Only the daemon's own user and administrators may write to it.
pub fn end_request_pipe(pid: u32) -> String {
    format!(r"\\.\pipe\llama-orch-end-{pid}")
}

/// What is written to it.
pub const END_REQUEST: &[u8] = b"end";
