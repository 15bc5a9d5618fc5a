//! How much room all logs of a home take.

use std::fs;
use std::path::Path;

use orch_core::ByteCount;

/// All logs of a home together above this are worth a warning.
pub const LARGE_LOGS: ByteCount = ByteCount::from_mib(1024);

/// Deeper than any log template of a sane config; a folder that holds itself ends here.
const DEPTH_LIMIT: u32 = 8;

/// The size of all files below a folder. Links are not followed, and what cannot be read counts nothing.
pub fn total_size(logs: &Path) -> ByteCount {
    ByteCount(size_below(logs, DEPTH_LIMIT))
}

fn size_below(folder: &Path, depth: u32) -> u64 {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let sizes = entries.map(|entry| match entry.metadata() {
        Ok(metadata) if metadata.is_dir() && depth > 0 => size_below(&entry.path(), depth - 1),
        Ok(metadata) if metadata.is_file() => metadata.len(),
        _ => 0,
    });
    sizes.fold(0, u64::saturating_add)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_file_below_the_folder_counts_once() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(total_size(&folder.path().join("nowhere")), ByteCount(0));
        fs::write(folder.path().join("daemon.log"), "12345").unwrap();
        fs::create_dir(folder.path().join("chat")).unwrap();
        fs::write(folder.path().join("chat/stderr.log.1"), "123").unwrap();
        assert_eq!(total_size(folder.path()), ByteCount(8));
    }

    #[cfg(unix)]
    #[test]
    fn links_lead_nowhere() {
        let folder = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink(folder.path(), folder.path().join("again")).unwrap();
        fs::write(folder.path().join("x.log"), "12").unwrap();
        assert_eq!(total_size(folder.path()), ByteCount(2));
    }
}
