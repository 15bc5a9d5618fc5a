//! Probes kept in `engines/profiles.json`, so that an executable is asked once and not at every start.

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use orch_core::{EngineProfile, Failure, HomeLayout};
use serde::{Deserialize, Serialize};

use crate::ports::ToolRunner;
use crate::{probe, tree};

const FILE_LIMIT: u64 = 16 * 1024 * 1024;
/// Executables that come and go (builds of a developer) must not make the file grow for ever.
const ENTRIES: usize = 64;

/// A profile and what its executable looked like when it was taken.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Entry {
    modified_ms: u64,
    size: u64,
    profile: EngineProfile,
}

type Entries = BTreeMap<PathBuf, Entry>;

/// The profile of an earlier probe, if the executable has not changed since. Reads only.
pub fn known_profile(home: &HomeLayout, executable: &Path) -> Option<EngineProfile> {
    let (key, modified_ms, size) = look_at(executable)?;
    let entry = load(&file(home)).remove(&key)?;
    (entry.modified_ms == modified_ms && entry.size == size).then_some(entry.profile)
}

/// The known profile or else a fresh one, which is then kept. For commands that may write. Blocking.
pub fn probe_and_remember(
    home: &HomeLayout,
    executable: &Path,
    runner: &dyn ToolRunner,
) -> Result<EngineProfile, Failure> {
    if let Some(profile) = known_profile(home, executable) {
        return Ok(profile);
    }
    let profile = probe(executable, runner)?;
    if let Some((key, modified_ms, size)) = look_at(executable) {
        // A cache that cannot be written costs the next start a probe, nothing more.
        let _ = remember(home, key, Entry { modified_ms, size, profile: profile.clone() });
    }
    Ok(profile)
}

fn file(home: &HomeLayout) -> PathBuf {
    home.engines().join("profiles.json")
}

/// The absolute path and the marks by which a changed executable is noticed.
fn look_at(executable: &Path) -> Option<(PathBuf, u64, u64)> {
    let metadata = fs::metadata(executable).ok()?;
    let modified = metadata.modified().ok()?.duration_since(UNIX_EPOCH).ok()?;
    let modified_ms = u64::try_from(modified.as_millis()).ok()?;
    Some((std::path::absolute(executable).ok()?, modified_ms, metadata.len()))
}

/// Anything unreadable is an empty cache.
fn load(path: &Path) -> Entries {
    let Ok(file) = fs::File::open(path) else { return Entries::new() };
    let mut text = String::new();
    match file.take(FILE_LIMIT).read_to_string(&mut text) {
        Ok(_) => serde_json::from_str(&text).unwrap_or_default(),
        Err(_) => Entries::new(),
    }
}

/// Two processes at once may lose one of two entries; it is asked again next time.
fn remember(home: &HomeLayout, key: PathBuf, entry: Entry) -> std::io::Result<()> {
    let path = file(home);
    let mut entries = load(&path);
    entries.retain(|path, _| path.exists());
    if entries.len() >= ENTRIES {
        entries.clear();
    }
    entries.insert(key, entry);
    tree::create_private(&home.engines())?;
    let mut output = atomic_write_file::AtomicWriteFile::open(&path)?;
    output.write_all(&serde_json::to_vec(&entries)?)?;
    output.commit()
}
