//! What the kernel knows of a process: memory, processor time, children.

use std::fs;

use anyhow::{Context, Result};

/// The kernel's clock ticks a second in `/proc/PID/stat`; the same on every Linux that people run.
const TICKS_A_SECOND: f64 = 100.0;

/// Proportional set size in KiB: private memory, and a fair share of what others use too.
pub(super) fn proportional_kib(pid: u32) -> Result<u64> {
    let text = read(pid, "smaps_rollup")?;
    kib_of(&text, "Pss:").with_context(|| format!("process {pid} tells no PSS"))
}

/// The most memory this process has had so far, in KiB.
pub(super) fn own_peak_kib() -> Result<u64> {
    kib_of(&read(std::process::id(), "status")?, "VmHWM:").context("the kernel tells no peak")
}

/// Processor time used so far by these processes together, in seconds.
pub(super) fn cpu_seconds(pids: &[u32]) -> Result<f64> {
    pids.iter().try_fold(0.0, |sum, &pid| {
        let stat = read(pid, "stat")?;
        let ticks = ticks_of(&stat).with_context(|| format!("process {pid} tells no times"))?;
        Ok(sum + ticks as f64 / TICKS_A_SECOND)
    })
}

/// The direct children of a process.
pub(super) fn children(pid: u32) -> Result<Vec<u32>> {
    let text = read(pid, &format!("task/{pid}/children"))?;
    Ok(text.split_whitespace().filter_map(|word| word.parse().ok()).collect())
}

/// The living process, other than `not`, that was told to serve on this port.
pub(super) fn serving(port: u16, not: u32) -> Option<u32> {
    let needle = format!("--port\0{port}\0");
    let entries = fs::read_dir("/proc").ok()?;
    let mut pids = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    pids.find(|&pid| {
        let arguments = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        pid != not && arguments.windows(needle.len()).any(|part| part == needle.as_bytes())
    })
}

fn read(pid: u32, file: &str) -> Result<String> {
    let path = format!("/proc/{pid}/{file}");
    fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))
}

fn kib_of(text: &str, key: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(key))?;
    line.split_whitespace().next()?.parse().ok()
}

/// User and system time of a `stat` line. The program's name, in parentheses, may hold anything.
fn ticks_of(stat: &str) -> Option<u64> {
    let (_, after_name) = stat.rsplit_once(") ")?;
    let mut fields = after_name.split(' ').skip(11);
    let (user, system): (u64, u64) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
    Some(user + system)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_name_with_spaces_does_not_shift_the_times() {
        let stat = "7 (a ) b) S 1 7 7 0 -1 4194560 100 0 0 0 250 50 0 0 20 0 1 0 99 1 1 1\n";
        assert_eq!(ticks_of(stat), Some(300));
    }

    #[test]
    fn memory_is_read_by_its_key() {
        let text = "Rss:  9 kB\nPss:                1234 kB\nPss_Dirty: 5 kB\n";
        assert_eq!(kib_of(text, "Pss:"), Some(1234));
        assert_eq!(kib_of(text, "Swap:"), None);
    }
}
