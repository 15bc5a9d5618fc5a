//! Why an engine is gone, in one line.

use std::path::Path;
use std::time::Duration;

use engine_process::ExitRecord;

/// What is known of an engine's end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct CrashReport {
    /// One line for people: code or signal, and the engine's last words.
    pub reason: String,
    /// As a shell would say it (128 + signal); `None` when nobody saw it.
    pub exit_code: Option<i32>,
    pub out_of_memory: bool,
}

impl CrashReport {
    /// From the exit record that the shim writes a moment after the end; waits for it, at most `limit`. Blocking
    /// when `limit` is not zero.
    pub(crate) fn of(record: &Path, pid: u32, limit: Duration) -> Self {
        match ExitRecord::await_for(record, pid, limit) {
            Some(record) => Self::from_record(&record),
            None => Self {
                reason: format!("pid {pid} is gone; its exit code is unknown"),
                exit_code: None,
                out_of_memory: false,
            },
        }
    }

    fn from_record(record: &ExitRecord) -> Self {
        let how = match (record.code, record.signal) {
            (Some(code), _) => format!("exited with code {code}"),
            (None, Some(signal)) => format!("was killed by signal {signal}"),
            (None, None) => "is gone; its exit code is unknown".to_owned(),
        };
        let memory = if record.out_of_memory { ", out of memory" } else { "" };
        let words = last_words(record).map_or(String::new(), |line| format!(": {line}"));
        Self {
            reason: format!("pid {} {how}{memory}{words}", record.pid),
            exit_code: record.shell_code(),
            out_of_memory: record.out_of_memory,
        }
    }
}

/// Signals by which a program ends itself, mostly after it has said why: SIGABRT, SIGSEGV, SIGBUS, SIGILL, SIGFPE.
const SPEAKING_SIGNALS: [i32; 5] = [6, 11, 7, 4, 8];

/// The line of the engine's stderr that most likely says why: the last one that speaks of an error. An engine that
/// ended itself is quoted in any case; one that was killed had no last words.
fn last_words(record: &ExitRecord) -> Option<String> {
    const NEEDLES: [&str; 5] = ["error", "failed", "couldn't", "unable", "invalid"];
    let speaks = |line: &&String| {
        let lower = line.to_ascii_lowercase();
        NEEDLES.iter().any(|needle| lower.contains(needle))
    };
    if record.signal.is_some_and(|signal| !SPEAKING_SIGNALS.contains(&signal)) {
        return None;
    }
    let lines = &record.last_stderr;
    let last = lines.last().filter(|_| record.code.is_some_and(|code| code != 0));
    let line = lines.iter().rev().find(speaks).or(last)?;
    Some(line.trim().chars().take(300).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use orch_core::UnixMillis;

    fn record(code: Option<i32>, signal: Option<i32>, stderr: &[&str]) -> ExitRecord {
        ExitRecord {
            pid: 7,
            code,
            signal,
            at: UnixMillis(0),
            out_of_memory: false,
            last_stderr: stderr.iter().map(|line| (*line).to_owned()).collect(),
        }
    }

    #[test]
    fn the_line_that_speaks_of_an_error_is_quoted() {
        let report = CrashReport::from_record(&record(
            Some(1),
            None,
            &["error: invalid argument: --x", "cleaning up"],
        ));
        assert_eq!(report.reason, "pid 7 exited with code 1: error: invalid argument: --x");
        assert_eq!(report.exit_code, Some(1));
    }

    #[test]
    fn a_signal_reads_as_a_shell_would_say_it() {
        let report = CrashReport::from_record(&record(None, Some(9), &["error: an old one"]));
        assert_eq!((report.reason.as_str(), report.exit_code), ("pid 7 was killed by signal 9", Some(137)));
    }
}
