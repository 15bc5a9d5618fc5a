//! How many files and connections a daemon may have open.

/// Raises the process's own limit to what the system allows it: each stream that passes through takes two
/// connections, and the usual 1024 would be used up by 500 waiting clients. A system that refuses leaves it as it is.
#[cfg(unix)]
pub fn allow_many_open_files() {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    let raised = getrlimit(Resource::RLIMIT_NOFILE).and_then(|(soft, hard)| {
        if soft < hard { setrlimit(Resource::RLIMIT_NOFILE, hard, hard) } else { Ok(()) }
    });
    if let Err(error) = raised {
        tracing::debug!(%error, "the limit of open files stays as it is");
    }
}

/// Windows has no such limit.
#[cfg(not(unix))]
pub fn allow_many_open_files() {}
