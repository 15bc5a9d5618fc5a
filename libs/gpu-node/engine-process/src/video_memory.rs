//! Memory that a process holds on graphics devices, where the kernel tells it. Linux does for drivers with open
//! accounting (AMD, Intel), and for AMD's compute interface; other systems and drivers have tools of their own.

use orch_core::ByteCount;

/// Video memory of a process; `None` where the kernel does not know.
#[cfg(target_os = "linux")]
pub fn video_memory(pid: u32) -> Option<ByteCount> {
    use std::path::Path;

    let graphics = linux::graphics(&Path::new("/proc").join(pid.to_string()).join("fdinfo"));
    let compute = linux::compute(&Path::new("/sys/class/kfd/kfd/proc").join(pid.to_string()));
    // What was taken through the compute interface may be counted by the graphics one as well: never added up.
    graphics.max(compute).map(ByteCount)
}

/// Not told by this system.
#[cfg(not(target_os = "linux"))]
pub fn video_memory(_pid: u32) -> Option<ByteCount> {
    None
}

#[cfg(target_os = "linux")]
mod linux {
    use std::collections::HashMap;
    use std::fs::{self, File};
    use std::io::Read;
    use std::path::Path;

    const LARGEST_FILE: u64 = 16 * 1024;

    /// One device as one process opened it. Descriptors that were duplicated tell the same twice.
    #[derive(Debug, PartialEq, Eq, Hash)]
    struct Client {
        device: String,
        id: String,
    }

    /// What `/proc/<pid>/fdinfo` says of graphics devices.
    pub(super) fn graphics(folder: &Path) -> Option<u64> {
        let mut clients = HashMap::new();
        for entry in fs::read_dir(folder).ok()?.flatten() {
            clients.extend(read(&entry.path()).as_deref().and_then(client));
        }
        (!clients.is_empty()).then(|| clients.values().sum())
    }

    /// What `/sys/class/kfd/kfd/proc/<pid>` says: `vram_<device>`, in bytes.
    pub(super) fn compute(folder: &Path) -> Option<u64> {
        let of_device = |entry: fs::DirEntry| {
            let is_memory = entry.file_name().to_str()?.starts_with("vram_");
            is_memory.then(|| read(&entry.path())?.trim().parse::<u64>().ok()).flatten()
        };
        let devices: Vec<u64> = fs::read_dir(folder).ok()?.flatten().filter_map(of_device).collect();
        (!devices.is_empty()).then(|| devices.iter().sum())
    }

    /// Resident memory where the driver tells it, else all that was taken.
    fn client(text: &str) -> Option<(Client, u64)> {
        let value = |key: &str| text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'));
        let memory = |prefix: &str| {
            let regions: Vec<u64> =
                text.lines().filter_map(|line| bytes(line.strip_prefix(prefix)?)).collect();
            (!regions.is_empty()).then(|| regions.iter().sum::<u64>())
        };
        let held = memory("drm-resident-vram")
            .or_else(|| memory("drm-memory-vram"))
            .or_else(|| memory("drm-resident-local"))
            .or_else(|| memory("drm-total-local"))?;
        let device = value("drm-pdev").unwrap_or_default().trim().to_owned();
        Some((Client { device, id: value("drm-client-id")?.trim().to_owned() }, held))
    }

    /// `0: 1024 KiB` behind the name of a region; without a unit, bytes.
    fn bytes(rest: &str) -> Option<u64> {
        let (_, amount) = rest.split_once(':')?;
        let mut words = amount.split_ascii_whitespace();
        let number: u64 = words.next()?.parse().ok()?;
        let unit: u64 = match words.next() {
            None => 1,
            Some("KiB") => 1 << 10,
            Some("MiB") => 1 << 20,
            Some(_) => return None,
        };
        number.checked_mul(unit)
    }

    fn read(path: &Path) -> Option<String> {
        let mut text = String::new();
        File::open(path).ok()?.take(LARGEST_FILE).read_to_string(&mut text).ok()?;
        Some(text)
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        const AMD: &str = "pos:\t0\nflags:\t02\ndrm-driver:\tamdgpu\ndrm-client-id:\t22\ndrm-pdev:\t0000:03:00.0\n\
            drm-memory-vram:\t2048 KiB\ndrm-resident-vram:\t1024 KiB\ndrm-memory-gtt:\t9 KiB\n";

        #[test]
        fn a_device_that_was_opened_once_and_duplicated_is_counted_once() {
            let folder = tempfile::tempdir().unwrap();
            for (name, text) in [
                ("0", "pos:\t0\n"),
                ("5", AMD),
                ("6", AMD),
                ("7", "drm-client-id:\t3\ndrm-pdev:\t0000:04:00.0\ndrm-total-local0:\t1 MiB\n"),
            ] {
                fs::write(folder.path().join(name), text).unwrap();
            }
            assert_eq!(graphics(folder.path()), Some((1 << 20) + (1 << 20)));
        }

        #[test]
        fn a_process_without_a_device_has_no_known_video_memory() {
            let folder = tempfile::tempdir().unwrap();
            fs::write(folder.path().join("0"), "pos:\t0\n").unwrap();
            fs::write(folder.path().join("1"), "drm-client-id:\t3\ndrm-memory-vram:\tlots\n").unwrap();
            assert_eq!(graphics(folder.path()), None);
            assert_eq!(graphics(&folder.path().join("gone")), None);
        }

        #[test]
        fn the_compute_interface_tells_bytes_for_each_device() {
            let folder = tempfile::tempdir().unwrap();
            for (name, text) in [("vram_1", "4096\n"), ("vram_2", "1\n"), ("sdma_1", "7\n")] {
                fs::write(folder.path().join(name), text).unwrap();
            }
            assert_eq!(compute(folder.path()), Some(4097));
        }
    }
}
