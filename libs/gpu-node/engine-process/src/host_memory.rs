//! The machine's own memory, or what this process's container leaves of it.

use orch_core::ByteCount;

/// What there is and what may still be taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HostMemory {
    pub total: ByteCount,
    /// Without pushing anybody out: files that are only remembered count as free.
    pub available: ByteCount,
}

/// `None` where the system does not tell.
pub fn host_memory() -> Option<HostMemory> {
    #[cfg(target_os = "linux")]
    return linux::host_memory();
    #[cfg(not(target_os = "linux"))]
    return crate::sys::host_memory();
}

#[cfg(target_os = "linux")]
mod linux {
    use std::fs::File;
    use std::io::Read;
    use std::path::{Path, PathBuf};

    use orch_core::ByteCount;

    use super::HostMemory;

    const LARGEST_FILE: u64 = 64 * 1024;
    const CONTROL_GROUPS: &str = "/sys/fs/cgroup";

    pub(super) fn host_memory() -> Option<HostMemory> {
        let machine = machine(&read(Path::new("/proc/meminfo"))?)?;
        let groups = read(Path::new("/proc/self/cgroup")).unwrap_or_default();
        let limits = folders(&groups).into_iter().filter_map(|folder| limit(&folder));
        Some(limits.fold(machine, narrower))
    }

    fn narrower(one: HostMemory, other: HostMemory) -> HostMemory {
        HostMemory { total: one.total.min(other.total), available: one.available.min(other.available) }
    }

    fn machine(text: &str) -> Option<HostMemory> {
        let kibibytes = |label: &str| {
            let rest = text.lines().find_map(|line| line.strip_prefix(label))?;
            let number: u64 = rest.trim().strip_suffix("kB")?.trim().parse().ok()?;
            Some(ByteCount(number.checked_mul(1024)?))
        };
        Some(HostMemory { total: kibibytes("MemTotal:")?, available: kibibytes("MemAvailable:")? })
    }

    /// The control group of this process and all above it: each may set a limit.
    fn folders(groups: &str) -> Vec<PathBuf> {
        let Some(path) = groups.lines().find_map(|line| line.strip_prefix("0::/")) else { return Vec::new() };
        let own = Path::new(CONTROL_GROUPS).join(path.trim_end());
        own.ancestors().take_while(|it| it.starts_with(CONTROL_GROUPS)).map(Path::to_path_buf).collect()
    }

    /// The limit of one group; `None` where it sets none.
    fn limit(folder: &Path) -> Option<HostMemory> {
        let number = |name: &str| read(&folder.join(name))?.trim().parse::<u64>().ok();
        let (total, used) = (number("memory.max")?, number("memory.current")?);
        let stat = read(&folder.join("memory.stat")).unwrap_or_default();
        let files = stat.lines().find_map(|line| line.strip_prefix("inactive_file "));
        let files = files.and_then(|files| files.trim().parse::<u64>().ok()).unwrap_or(0);
        let available = total.saturating_sub(used.saturating_sub(files));
        Some(HostMemory { total: ByteCount(total), available: ByteCount(available) })
    }

    fn read(path: &Path) -> Option<String> {
        let mut text = String::new();
        File::open(path).ok()?.take(LARGEST_FILE).read_to_string(&mut text).ok()?;
        Some(text)
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        #[test]
        fn the_kernel_s_table_is_read_in_bytes() {
            let text = "MemTotal:       16000 kB\nMemFree:  1 kB\nMemAvailable:    8000 kB\n";
            let memory = machine(text).unwrap();
            assert_eq!((memory.total.0, memory.available.0), (16_384_000, 8_192_000));
            assert_eq!(machine("MemTotal: many kB\n"), None);
        }

        #[test]
        fn a_container_has_what_its_group_leaves_and_remembered_files_are_free() {
            let folder = tempfile::tempdir().unwrap();
            assert_eq!(limit(folder.path()), None);
            for (name, text) in [
                ("memory.max", "1000\n"),
                ("memory.current", "900\n"),
                ("memory.stat", "anon 1\ninactive_file 400\n"),
            ] {
                std::fs::write(folder.path().join(name), text).unwrap();
            }
            assert_eq!(limit(folder.path()).unwrap().available, ByteCount(500));
            std::fs::write(folder.path().join("memory.max"), "max\n").unwrap();
            assert_eq!(limit(folder.path()), None, "no limit");
        }

        #[test]
        fn every_group_above_counts_too() {
            let folders = folders("0::/a/b\n");
            assert_eq!(folders.len(), 3);
            assert_eq!(folders[0], Path::new("/sys/fs/cgroup/a/b"));
            assert!(super::folders("1:name=x:/\n").is_empty());
        }

        #[test]
        fn this_machine_has_memory() {
            let memory = host_memory().unwrap();
            assert!(memory.available.0 > 0 && memory.available <= memory.total);
        }
    }
}
