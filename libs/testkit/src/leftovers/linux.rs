//! Linux: everything there is to know lies in `/proc`.

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use nix::sys::signal::Signal;
use nix::unistd::Pid;

/// Living processes whose working folder, arguments, environment or open files lie in `folder`.
pub(super) fn users_of(folder: &Path) -> Vec<u32> {
    let own = std::process::id();
    let entries = fs::read_dir("/proc").expect("Linux has /proc");
    let pids = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    pids.filter(|&pid| pid != own && uses(pid, folder)).collect()
}

pub(super) fn kill(pid: u32) {
    if let Ok(pid) = i32::try_from(pid) {
        // Gone already is as good.
        let _ = nix::sys::signal::kill(Pid::from_raw(pid), Signal::SIGKILL);
    }
}

fn uses(pid: u32, folder: &Path) -> bool {
    let process = Path::new("/proc").join(pid.to_string());
    let inside = |link: &Path| fs::read_link(link).is_ok_and(|target| target.starts_with(folder));
    let mentions = |file: &str| {
        let needle = folder.as_os_str().as_bytes();
        fs::read(process.join(file)).is_ok_and(|bytes| bytes.windows(needle.len()).any(|part| part == needle))
    };
    // A zombie has lost all of these: nothing is left to kill.
    inside(&process.join("cwd"))
        || mentions("cmdline")
        || mentions("environ")
        || fs::read_dir(process.join("fd")).is_ok_and(|fds| fds.flatten().any(|fd| inside(&fd.path())))
}
