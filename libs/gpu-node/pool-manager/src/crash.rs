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
    /// What its last words mean, where they are understood.
    pub cause: Option<Cause>,
}

/// What brought an engine down, as its last words tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cause {
    OutOfMemory,
    BadArgument,
    PortInUse,
    ModelMissing,
    ModelInvalid,
    LibraryMissing,
    DriverTrouble,
}

impl Cause {
    /// For scripts.
    pub(crate) fn label(self) -> &'static str {
        match self {
            Cause::OutOfMemory => "out_of_memory",
            Cause::BadArgument => "bad_argument",
            Cause::PortInUse => "port_in_use",
            Cause::ModelMissing => "model_missing",
            Cause::ModelInvalid => "model_invalid",
            Cause::LibraryMissing => "library_missing",
            Cause::DriverTrouble => "driver",
        }
    }

    /// For people.
    fn words(self) -> &'static str {
        match self {
            Cause::OutOfMemory => "out of memory",
            Cause::BadArgument => "an argument it does not accept",
            Cause::PortInUse => "its port is in use",
            Cause::ModelMissing => "the model file is missing",
            Cause::ModelInvalid => "the model file is damaged or not a model",
            Cause::LibraryMissing => "a shared library is missing",
            Cause::DriverTrouble => "the GPU driver is missing or does not fit",
        }
    }
}

/// What engines and their backends say, in lower case. The more particular first: one that cannot open its model also
/// says that it failed to load it.
const SAYINGS: [(Cause, &[&str]); 6] = [
    (Cause::LibraryMissing, &["error while loading shared libraries", "library not loaded"]),
    (
        Cause::DriverTrouble,
        &[
            "cuda driver version is insufficient",
            "no cuda-capable device",
            "unsupported toolchain",
            "errorincompatibledriver",
            "errorinitializationfailed",
            "no kernel image is available",
            "hip error: invalid device",
        ],
    ),
    (Cause::PortInUse, &["couldn't bind http server socket", "address already in use"]),
    (
        Cause::BadArgument,
        &[
            // With what it refuses behind it: the system says the same two words of other things.
            "invalid argument: ",
            "error while handling argument",
            "unknown argument",
            "expected value for argument",
        ],
    ),
    (Cause::ModelMissing, &["failed to open gguf file", "no such file or directory"]),
    (
        Cause::ModelInvalid,
        &[
            "invalid magic",
            "failed to read header",
            "failed to read tensor",
            "data is not within the file bounds",
            "error loading model",
            "failed to load model",
            "unknown model architecture",
        ],
    ),
];

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
                cause: None,
            },
        }
    }

    fn from_record(record: &ExitRecord) -> Self {
        let how = match (record.code, record.signal) {
            (Some(code), _) => format!("exited with code {code}"),
            (None, Some(signal)) => format!("was killed by signal {signal}"),
            (None, None) => "is gone; its exit code is unknown".to_owned(),
        };
        let told = understood(record);
        let cause =
            if record.out_of_memory { Some(Cause::OutOfMemory) } else { told.map(|(cause, _)| cause) };
        let line = match told {
            Some((_, line)) if cause != Some(Cause::OutOfMemory) => Some(shortened(line)),
            _ => last_words(record),
        };
        let meaning = cause.map_or(String::new(), |cause| format!(", {}", cause.words()));
        let words = line.map_or(String::new(), |line| format!(": {line}"));
        Self {
            reason: format!("pid {} {how}{meaning}{words}", record.pid),
            exit_code: record.shell_code(),
            out_of_memory: record.out_of_memory,
            cause,
        }
    }
}

/// The first saying that some line holds. One that ended well, or was killed, said nothing about its end.
fn understood(record: &ExitRecord) -> Option<(Cause, &str)> {
    let spoke = record.code.is_some_and(|code| code != 0)
        || record.signal.is_some_and(|signal| SPEAKING_SIGNALS.contains(&signal));
    let holds = |line: &str, saying: &str| line.to_ascii_lowercase().contains(saying);
    let of = |(cause, sayings): &(Cause, &[&str])| {
        let line =
            sayings.iter().find_map(|saying| record.last_stderr.iter().find(|line| holds(line, saying)))?;
        Some((*cause, line.as_str()))
    };
    if spoke { SAYINGS.iter().find_map(of) } else { None }
}

fn shortened(line: &str) -> String {
    line.trim().chars().take(300).collect()
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
    Some(shortened(line))
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
        assert_eq!(
            report.reason,
            "pid 7 exited with code 1, an argument it does not accept: error: invalid argument: --x"
        );
        assert_eq!(report.exit_code, Some(1));
    }

    #[test]
    fn last_words_of_engines_are_understood() {
        let fit = "0.00.005.076 E common_fit_params: encountered an error while trying to fit params to free \
                   device memory: failed to load model";
        let missing = "0.00.005.110 E gguf_init_from_file: failed to open GGUF file '/m.gguf' (No such file or directory)";
        let magic = "0.00.043.872 E gguf_init_from_reader: invalid magic characters: '??l?', expected 'GGUF'";
        let end = "0.00.005.648 E srv  llama_server: exiting due to model loading error";
        let bind =
            "0.00.016.571 E srv start: couldn't bind HTTP server socket, hostname: 127.0.0.1, port: 18924";
        let library = "/opt/llama-server: error while loading shared libraries: libcuda.so.1: cannot open shared \
                       object file: No such file or directory";
        let value = "error while handling argument \"--ctx-size\": stoi";
        let driver = "ggml_cuda_init: failed to initialize CUDA: CUDA driver version is insufficient for CUDA runtime version";
        for (lines, cause, quoted) in [
            (&[fit, missing, end][..], Cause::ModelMissing, missing),
            (&[fit, magic, end], Cause::ModelInvalid, magic),
            (&[bind, "cleaning up"], Cause::PortInUse, bind),
            (&[library], Cause::LibraryMissing, library),
            (&[value, "", "to show complete usage, run with -h"], Cause::BadArgument, value),
            (&[driver, fit], Cause::DriverTrouble, driver),
        ] {
            let report = CrashReport::from_record(&record(Some(1), None, lines));
            assert_eq!(report.cause, Some(cause), "{lines:?}");
            assert!(report.reason.contains(cause.words()) && report.reason.ends_with(quoted), "{report:?}");
        }
        let system = "E mmap failed: Invalid argument";
        assert_eq!(CrashReport::from_record(&record(Some(1), None, &[system])).cause, None);
        let report = CrashReport::from_record(&record(Some(0), None, &[missing]));
        assert_eq!(report.cause, None, "an end in peace has no cause");
    }

    #[test]
    fn a_signal_reads_as_a_shell_would_say_it() {
        let report = CrashReport::from_record(&record(None, Some(9), &["error: an old one"]));
        assert_eq!((report.reason.as_str(), report.exit_code), ("pid 7 was killed by signal 9", Some(137)));
    }
}
