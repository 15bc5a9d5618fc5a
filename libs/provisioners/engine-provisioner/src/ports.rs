//! What this crate needs from outside.

use std::io;
use std::path::Path;
use std::time::Duration;

use orch_core::ByteCount;

/// Runs a program to its end. Blocking.
///
/// The runner chooses the environment (the parent's, without what would change an engine's behaviour, such as
/// `LLAMA_*`), adds `env` to it, gives no standard input, bounds the output it keeps, and kills the program with
/// its children at the limit, which it reports as [`io::ErrorKind::TimedOut`]. A program that does not exist is
/// [`io::ErrorKind::NotFound`].
pub trait ToolRunner: Send + Sync {
    /// `on_line` is called for each line of either stream as it comes.
    fn run(
        &self,
        program: &Path,
        args: &[String],
        env: &[(String, String)],
        limit: Duration,
        on_line: &mut dyn FnMut(&str),
    ) -> io::Result<ToolRun>;
}

/// How a program ended.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ToolRun {
    /// `None` after a signal.
    pub exit_code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl ToolRun {
    pub(crate) fn succeeded(&self) -> bool {
        self.exit_code == Some(0)
    }

    /// The last lines that say anything, for an error text; stderr goes before stdout.
    pub(crate) fn last_words(&self) -> String {
        const LINES: usize = 3;
        let source = if self.stderr.trim().is_empty() { &self.stdout } else { &self.stderr };
        let mut lines: Vec<&str> =
            source.lines().rev().map(str::trim).filter(|line| !line.is_empty()).take(LINES).collect();
        lines.reverse();
        lines.join("; ")
    }
}

/// Who watches a long operation.
pub trait Progress: Send + Sync {
    /// A new stage begins.
    fn step(&self, message: &str);
    /// So much of a download is there.
    fn bytes(&self, done: ByteCount, total: Option<ByteCount>);
    /// A tool said something.
    fn line(&self, line: &str);
}

/// Nobody watches.
#[derive(Clone, Copy, Debug, Default)]
pub struct SilentProgress;

impl Progress for SilentProgress {
    fn step(&self, _: &str) {}
    fn bytes(&self, _: ByteCount, _: Option<ByteCount>) {}
    fn line(&self, _: &str) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_words_are_the_last_lines_that_say_anything() {
        let stderr = "one\ntwo\n\n three\nfour\n\n".to_owned();
        let run = ToolRun { exit_code: Some(1), stdout: "out".to_owned(), stderr };
        assert_eq!(run.last_words(), "two; three; four");
        let run = ToolRun { stderr: " \n".to_owned(), ..run };
        assert_eq!(run.last_words(), "out");
    }
}
