//! Snapshots of whole commands: exit code and both streams, with everything that differs from run to run replaced.

use crate::{ProgramRun, TempHome};

/// What differs from run to run, as regular expressions and what stands for it.
pub const SNAPSHOT_FILTERS: &[(&str, &str)] = &[
    (r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}", "[UUID]"),
    (r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)?", "[TIME]"),
    (r"\b(127\.0\.0\.1|localhost|\[::1\]):\d{2,5}\b", "$1:[PORT]"),
    (r"\b([Pp]ort) \d{2,5}\b", "$1 [PORT]"),
    (r"--port \d{2,5}\b", "--port [PORT]"),
    (r"\b(pid|PID) \d+\b", "$1 [PID]"),
    (r"\b\d+(\.\d+)? ?(ms|µs)\b", "[DURATION]"),
    (r"\b\d+\.\d+ ?s\b", "[DURATION]"),
    (r"(llama-orch|orchestratord|pool-managerd|fake-llama-server)\.exe\b", "$1"),
];

impl TempHome {
    /// A run with the folders of this home replaced; the rest is for [`SNAPSHOT_FILTERS`].
    pub fn snapshot_text(&self, run: &ProgramRun) -> String {
        let replace = |text: String, folder: &std::path::Path, name| {
            let path = folder.display().to_string();
            // As it stands, and as JSON writes it where paths hold backslashes.
            text.replace(&path, name).replace(&path.replace('\\', "\\\\"), name)
        };
        let text = replace(run.to_string(), self.path(), "[HOME]");
        replace(text, self.scratch(), "[SCRATCH]")
    }
}

/// Runs `llama-orch` in a home and pins its exit code, stdout and stderr; gives the run back.
///
/// `cli_snapshot!(home, ["ps", "--all"], @"…")`, or without the text to keep it in a `.snap` file. The test's own
/// crate needs `insta` with its feature `filters`.
#[macro_export]
macro_rules! cli_snapshot {
    ($home:expr, [$($argument:expr),* $(,)?] $(, @$expected:literal)? $(,)?) => {
        $crate::run_snapshot!($home, $home.llama_orch(&[$($argument),*]) $(, @$expected)?)
    };
}

/// Pins a run that has been made already, as [`cli_snapshot!`] does.
#[macro_export]
macro_rules! run_snapshot {
    ($home:expr, $run:expr $(, @$expected:literal)? $(,)?) => {{
        let run = $run;
        let mut settings = ::insta::Settings::clone_current();
        for (pattern, name) in $crate::SNAPSHOT_FILTERS {
            settings.add_filter(pattern, *name);
        }
        settings.set_omit_expression(true);
        let text = $home.snapshot_text(&run);
        settings.bind(|| ::insta::assert_snapshot!(text $(, @$expected)?));
        run
    }};
}
