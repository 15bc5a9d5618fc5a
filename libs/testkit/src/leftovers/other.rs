//! Systems without `/proc`: what the process table tells.

use std::ffi::OsStr;
use std::path::Path;

use sysinfo::{Pid, ProcessesToUpdate, System};

/// Living processes whose working folder, arguments or environment name `folder`.
pub(super) fn users_of(folder: &Path) -> Vec<u32> {
    let table = process_table();
    let needle = folder.to_string_lossy();
    let names = |texts: &[std::ffi::OsString]| texts.iter().any(|text| mentions(text, &needle));
    let used = |process: &sysinfo::Process| {
        process.cwd().is_some_and(|cwd| cwd.starts_with(folder))
            || names(process.cmd())
            || names(process.environ())
    };
    let pids = table.processes().iter().filter(|(_, process)| used(process)).map(|(pid, _)| pid.as_u32());
    pids.filter(|&pid| pid != std::process::id()).collect()
}

pub(super) fn kill(pid: u32) {
    if let Some(process) = process_table().process(Pid::from_u32(pid)) {
        process.kill();
    }
}

fn process_table() -> System {
    let mut table = System::new().expect("the system has a process table");
    table.refresh_processes(ProcessesToUpdate::All, true);
    table
}

fn mentions(text: &OsStr, needle: &str) -> bool {
    text.to_string_lossy().contains(needle)
}
