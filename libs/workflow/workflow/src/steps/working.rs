//! A program's working folder: its own while it runs, gone after it.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Component, Path, PathBuf};

use workflow_spec::FailureKind;

use crate::CallFailure;

/// What all files that one step collects may hold together.
const COLLECTED_LIMIT: u64 = 64 * 1024 * 1024;

/// A file that a program left, and that its step keeps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Collected {
    /// Below the working folder, as the step names it.
    pub(crate) path: String,
    pub(crate) content: Vec<u8>,
}

/// An empty folder that is removed with all that is in it when nobody needs it any more.
#[derive(Debug)]
pub(crate) struct WorkingFolder {
    path: PathBuf,
}

impl WorkingFolder {
    /// What an attempt that was killed has left in its place goes first.
    pub(crate) fn create(path: &Path) -> io::Result<Self> {
        match fs::remove_dir_all(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => fs::create_dir_all(path)?,
        }
        Ok(Self { path: path.to_owned() })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Reads files that were left. A program may leave anything: links, devices and what lies elsewhere is refused.
    pub(crate) fn collect(&self, paths: &[String]) -> Result<Vec<Collected>, CallFailure> {
        let mut room = COLLECTED_LIMIT;
        let mut collected = Vec::with_capacity(paths.len());
        for path in paths {
            let content = self.read(path, room).map_err(|why| refused(path, &why))?;
            room -= content.len() as u64;
            collected.push(Collected { path: path.clone(), content });
        }
        Ok(collected)
    }

    fn read(&self, path: &str, room: u64) -> Result<Vec<u8>, String> {
        let mut inside = self.path.clone();
        for part in Path::new(path).components() {
            let Component::Normal(part) = part else { return Err("it is not below the folder".to_owned()) };
            inside.push(part);
            let metadata = fs::symlink_metadata(&inside).map_err(|error| match error.kind() {
                io::ErrorKind::NotFound => "it is not there".to_owned(),
                _ => error.to_string(),
            })?;
            if metadata.is_symlink() {
                return Err("it is a link, or behind one".to_owned());
            }
        }
        // Not opened before it is known to be one: opening a pipe waits.
        if !inside.is_file() {
            return Err("it is not a file".to_owned());
        }
        let mut content = Vec::new();
        let read = File::open(&inside).and_then(|file| file.take(room + 1).read_to_end(&mut content));
        read.map_err(|error| error.to_string())?;
        if content.len() as u64 > room {
            return Err(format!("the step's files hold more than {COLLECTED_LIMIT} bytes"));
        }
        Ok(content)
    }
}

impl Drop for WorkingFolder {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.path) {
            tracing::warn!(path = %self.path.display(), %error, "a working folder cannot be removed");
        }
    }
}

fn refused(path: &str, why: &str) -> CallFailure {
    CallFailure::new(
        FailureKind::Tool,
        format!("the file {path} of the working folder cannot be kept: {why}"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder() -> (tempfile::TempDir, WorkingFolder) {
        let around = tempfile::tempdir().unwrap();
        let working = WorkingFolder::create(&around.path().join("step/1")).unwrap();
        (around, working)
    }

    fn refusal(working: &WorkingFolder, path: &str) -> String {
        let failure = working.collect(&[path.to_owned()]).unwrap_err();
        assert_eq!(failure.kind, FailureKind::Tool);
        failure.message
    }

    #[test]
    fn what_was_left_is_collected_and_then_gone() {
        let (around, working) = folder();
        fs::create_dir(working.path().join("out")).unwrap();
        fs::write(working.path().join("out/a.bin"), [0, 159]).unwrap();
        let collected = working.collect(&["out/a.bin".to_owned()]).unwrap();
        assert_eq!(collected, [Collected { path: "out/a.bin".into(), content: vec![0, 159] }]);
        drop(working);
        assert!(!around.path().join("step/1").exists());
    }

    #[test]
    fn nothing_outside_the_folder_is_collected() {
        let (around, working) = folder();
        fs::write(around.path().join("secret"), "x").unwrap();
        for path in ["../../secret", "/etc/hostname", "a/../../../secret"] {
            assert!(refusal(&working, path).contains(path));
        }
        assert!(refusal(&working, "missing").contains("not there"));
        assert!(refusal(&working, ".").contains("cannot be kept"));
    }

    #[cfg(unix)]
    #[test]
    fn links_and_what_is_no_file_are_refused() {
        use std::os::unix::fs::symlink;
        let (around, working) = folder();
        fs::write(around.path().join("secret"), "x").unwrap();
        symlink(around.path(), working.path().join("away")).unwrap();
        symlink("real", working.path().join("inside")).unwrap();
        fs::write(working.path().join("real"), "y").unwrap();
        for path in ["away/secret", "inside"] {
            assert!(refusal(&working, path).contains("link"), "{path}");
        }
        let _listener = std::os::unix::net::UnixListener::bind(working.path().join("socket")).unwrap();
        assert!(refusal(&working, "socket").contains("not a file"));
    }

    #[test]
    fn the_leavings_of_a_killed_attempt_are_not_seen_by_the_next() {
        let (around, working) = folder();
        fs::write(working.path().join("stale"), "x").unwrap();
        let path = around.path().join("step/1");
        std::mem::forget(working);
        let next = WorkingFolder::create(&path).unwrap();
        assert_eq!(fs::read_dir(next.path()).unwrap().count(), 0);
    }
}
