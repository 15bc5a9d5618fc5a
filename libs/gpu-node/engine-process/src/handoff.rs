//! Handoff files: an engine that is ready, told to whoever routes requests.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use orch_core::{InstanceName, MASK, ReplicaId};
use serde::{Deserialize, Serialize};

use crate::identity::{ProcessIdentity, StartMark};
use crate::private_files::{read_bounded, write_private};

const SIZE_LIMIT: u64 = 64 * 1024;
/// More files than any node has engines.
const COUNT_LIMIT: usize = 4096;

/// A ready engine. Written by its shim after the first good answer, removed at its end.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Handoff {
    pub pool_id: String,
    pub replica_id: ReplicaId,
    pub instance: InstanceName,
    /// The kind of engine, `llama.cpp`.
    pub engine: String,
    #[serde(default)]
    pub engine_version: Option<String>,
    pub exe: PathBuf,
    /// Where this machine reaches it: a wildcard address is told as loopback.
    pub url: String,
    pub pid: u32,
    pub process_started_at: StartMark,
    pub shim_pid: u32,
    pub slots_total: u32,
    pub slots_free: u32,
    #[serde(default)]
    pub device_mask: Option<String>,
    pub model: HandoffModel,
    pub config_hash: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub api_key: Option<String>,
}

/// The model a ready engine has loaded.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HandoffModel {
    pub id: String,
    pub path: PathBuf,
}

/// Why a file is not a handoff.
#[derive(Debug, thiserror::Error)]
pub enum HandoffError {
    #[error("cannot read {}", path.display())]
    Io { path: PathBuf, source: io::Error },
    #[error("{} is no handoff file", path.display())]
    Invalid { path: PathBuf, source: serde_json::Error },
    #[error("{} has a url without a port: {url}", path.display())]
    Url { path: PathBuf, url: String },
}

impl Handoff {
    /// Reads one file of bounded size.
    pub fn read(path: &Path) -> Result<Self, HandoffError> {
        let bytes = read_bounded(path, SIZE_LIMIT)
            .map_err(|source| HandoffError::Io { path: path.to_owned(), source })?;
        let handoff: Handoff = serde_json::from_slice(&bytes)
            .map_err(|source| HandoffError::Invalid { path: path.to_owned(), source })?;
        if handoff.port().is_none() {
            return Err(HandoffError::Url { path: path.to_owned(), url: handoff.url });
        }
        Ok(handoff)
    }

    /// The process behind it, to be checked before anything is done to it.
    pub fn identity(&self) -> ProcessIdentity {
        ProcessIdentity {
            pid: self.pid,
            started_at: self.process_started_at.clone(),
            executable: self.exe.clone(),
            port: self.port().unwrap_or(0),
        }
    }

    /// The host in the url, without brackets.
    pub fn host(&self) -> Option<&str> {
        let (host, _) = self.url.strip_prefix("http://")?.rsplit_once(':')?;
        Some(host.trim_start_matches('[').trim_end_matches(']'))
    }

    /// The port in the url.
    pub fn port(&self) -> Option<u16> {
        self.url.rsplit_once(':')?.1.trim_end_matches('/').parse().ok()
    }

    pub(crate) fn write(&self, path: &Path) -> io::Result<()> {
        write_private(path, &serde_json::to_vec_pretty(self)?)
    }

    /// Removes the file if it still speaks of this process; a successor's file stays.
    pub(crate) fn remove_of(path: &Path, pid: u32, started_at: &StartMark) {
        let speaks_of_it =
            |handoff: &Handoff| handoff.pid == pid && handoff.process_started_at == *started_at;
        if Self::read(path).as_ref().is_ok_and(speaks_of_it) {
            let _ = std::fs::remove_file(path);
        }
    }
}

impl fmt::Debug for Handoff {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Handoff")
            .field("instance", &self.instance)
            .field("replica_id", &self.replica_id)
            .field("url", &self.url)
            .field("pid", &self.pid)
            .field("process_started_at", &self.process_started_at)
            .field("shim_pid", &self.shim_pid)
            .field("slots_total", &self.slots_total)
            .field("api_key", &self.api_key.as_ref().map(|_| MASK))
            .finish_non_exhaustive()
    }
}

/// Every handoff file of a folder, each with its own result: one bad file hides no other. A missing folder has
/// none. Files that are being written (their names begin with a dot) are left out.
pub fn scan_handoffs(folder: &Path) -> Vec<Result<Handoff, HandoffError>> {
    let mut paths: Vec<PathBuf> = match std::fs::read_dir(folder) {
        Ok(entries) => {
            entries.flatten().map(|entry| entry.path()).filter(|path| is_candidate(path)).collect()
        }
        Err(_) => Vec::new(),
    };
    paths.sort();
    paths.truncate(COUNT_LIMIT);
    paths.iter().map(|path| Handoff::read(path)).collect()
}

fn is_candidate(path: &Path) -> bool {
    let hidden = path.file_name().and_then(|name| name.to_str()).is_none_or(|name| name.starts_with('.'));
    !hidden && path.extension().is_some_and(|extension| extension == "json") && path.is_file()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn handoff() -> Handoff {
        Handoff {
            pool_id: "chat".into(),
            replica_id: ReplicaId::FIRST,
            instance: InstanceName::new("chat").unwrap(),
            engine: "llama.cpp".into(),
            engine_version: None,
            exe: "/opt/llama-server".into(),
            url: "http://[::1]:8001".into(),
            pid: 7,
            process_started_at: StartMark("boot:1".into()),
            shim_pid: 6,
            slots_total: 2,
            slots_free: 2,
            device_mask: None,
            model: HandoffModel { id: "chat".into(), path: "/m.gguf".into() },
            config_hash: "h".into(),
            api_key: Some("sk-secret".into()),
        }
    }

    #[test]
    fn a_handoff_survives_the_disk_and_names_its_process() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("run/engines/chat-r0.json");
        handoff().write(&path).unwrap();
        let read = Handoff::read(&path).unwrap();
        assert_eq!(read, handoff());
        assert_eq!((read.identity().pid, read.identity().port), (7, 8001));
        assert_eq!(read.host(), Some("::1"));
    }

    #[test]
    fn one_bad_file_hides_no_other() {
        let folder = tempfile::tempdir().unwrap();
        let file = |name: &str| folder.path().join(name);
        handoff().write(&file("b-r0.json")).unwrap();
        std::fs::write(file("a-r0.json"), "{").unwrap();
        std::fs::write(file("c-r0.json"), "x".repeat(SIZE_LIMIT as usize + 1)).unwrap();
        std::fs::write(file(".b-r0.json.tmp"), "{").unwrap();
        std::fs::write(file("notes.txt"), "hello").unwrap();
        std::fs::create_dir(file("d-r0.json")).unwrap();
        let found = scan_handoffs(folder.path());
        assert_eq!(found.iter().map(Result::is_ok).collect::<Vec<_>>(), [false, true, false]);
        assert!(scan_handoffs(&file("missing")).is_empty());
    }

    #[test]
    fn a_handoff_that_is_cut_anywhere_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("chat-r0.json");
        handoff().write(&path).unwrap();
        let whole = std::fs::read(&path).unwrap();
        let closing = whole.iter().rposition(|byte| *byte == b'}').unwrap();
        for length in 0..=closing {
            std::fs::write(&path, &whole[..length]).unwrap();
            assert!(Handoff::read(&path).is_err(), "cut at {length}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(128))]

        #[test]
        fn arbitrary_bytes_as_a_handoff_never_panic_and_hide_no_other(
            bytes in proptest::collection::vec(any::<u8>(), 0..512),
            depth in 0usize..40_000,
        ) {
            let folder = tempfile::tempdir().unwrap();
            handoff().write(&folder.path().join("chat-r0.json")).unwrap();
            std::fs::write(folder.path().join("a-r0.json"), &bytes).unwrap();
            std::fs::write(folder.path().join("b-r0.json"), "[".repeat(depth)).unwrap();
            let found = scan_handoffs(folder.path());
            prop_assert_eq!(found.iter().flatten().filter(|found| found.pool_id == "chat").count(), 1);
        }
    }

    #[test]
    fn a_handoff_is_removed_only_for_the_process_it_speaks_of() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("chat-r0.json");
        handoff().write(&path).unwrap();
        Handoff::remove_of(&path, 7, &StartMark("boot:2".into()));
        Handoff::remove_of(&path, 8, &StartMark("boot:1".into()));
        assert!(path.exists());
        Handoff::remove_of(&path, 7, &StartMark("boot:1".into()));
        assert!(!path.exists());
    }

    #[test]
    fn keys_do_not_show_when_a_handoff_is_printed() {
        assert!(!format!("{:?}", handoff()).contains("sk-secret"));
    }

    #[cfg(unix)]
    #[test]
    fn handoff_files_belong_to_their_owner_alone() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("chat-r0.json");
        handoff().write(&path).unwrap();
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    }
}
