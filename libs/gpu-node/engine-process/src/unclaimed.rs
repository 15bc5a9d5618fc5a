//! Servers of the engine's kind that were started by somebody else.

use std::path::{Path, PathBuf};

use crate::identity::{Sight, StartMark};
use crate::stop::is_shim;
use crate::sys::{args_of, inherited_lock, process_table, sight};

/// A llama-server that no shim of ours keeps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnclaimedEngine {
    pub pid: u32,
    pub started_at: StartMark,
    pub executable: PathBuf,
}

/// The llama-servers that can be seen and that neither this home nor another one has started. What other users run is
/// theirs, where the system hides it.
pub fn unclaimed_engines() -> Vec<UnclaimedEngine> {
    let mut found = Vec::new();
    for entry in process_table() {
        // The command line first: it is the cheaper look, and nearly all processes end with it.
        if entry.zombie || !args_of(entry.pid).first().is_some_and(|word| is_engine(Path::new(word))) {
            continue;
        }
        let Sight::Seen(process) = sight(entry.pid) else { continue };
        let Some(executable) = process.executable.filter(|path| is_engine(path)) else { continue };
        let is_child = args_of(entry.parent).first().is_some_and(|word| is_engine(Path::new(word)));
        if is_child || is_shim(entry.parent) || inherited_lock(entry.pid).is_some() {
            continue;
        }
        found.push(UnclaimedEngine { pid: entry.pid, started_at: process.started_at, executable });
    }
    found
}

fn is_engine(path: &Path) -> bool {
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let name = name.trim_end_matches(" (deleted)");
    name == "llama-server" || name.eq_ignore_ascii_case("llama-server.exe")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_engine_is_known_by_its_file() {
        for path in ["/opt/llama-server", "llama-server", "/x/llama-server (deleted)", "LLAMA-SERVER.EXE"] {
            assert!(is_engine(Path::new(path)), "{path}");
        }
        for path in ["/opt/llama-server.sh", "fake-llama-server", "/usr/bin/tail", ""] {
            assert!(!is_engine(Path::new(path)), "{path}");
        }
    }
}
