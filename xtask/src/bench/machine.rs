//! Where and when numbers were taken; they mean little without.

use std::fs;
use std::process::Command;

use super::report::workspace;

/// One line: cores, processor, kernel, how busy it is, day, commit. To be asked before anything is measured.
pub(super) fn describe() -> String {
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    format!(
        "{cores} cores of {}, {} {}, load {} before; {}, commit {}.",
        processor(),
        std::env::consts::OS,
        kernel.trim(),
        load.split(' ').next().unwrap_or("unknown"),
        said_by("date", &["-u", "+%Y-%m-%d"]),
        said_by("git", &["describe", "--always", "--dirty"]),
    )
}

fn processor() -> String {
    let text = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let line = text.lines().find(|line| line.starts_with("model name"));
    let name = line.and_then(|line| line.split_once(':')).map(|(_, name)| name.trim().to_owned());
    name.unwrap_or_else(|| std::env::consts::ARCH.to_owned())
}

fn said_by(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).current_dir(workspace()).output();
    let said = output.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned());
    said.ok().filter(|text| !text.is_empty()).unwrap_or_else(|| "unknown".to_owned())
}
