//! What is said on stderr: errors, hints, warnings, and what is going on.

use std::fmt;
use std::io::{self, IsTerminal, Write};

use orch_core::Failure;

use crate::arguments::{ColorChoice, GlobalArguments};
use crate::terminal::understands_escapes;

/// How this run talks to people.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Talk {
    quiet: bool,
    color: bool,
}

const RED: &str = "31";
const YELLOW: &str = "33";
const CYAN: &str = "36";

impl Talk {
    pub(crate) fn new(global: &GlobalArguments) -> Self {
        Self { quiet: global.quiet, color: global.color.on_stderr() }
    }

    /// An error and its hint, one line each.
    pub(crate) fn failure(self, failure: &Failure) {
        self.say("error", RED, &failure.message);
        if let Some(hint) = &failure.hint {
            self.say("hint", CYAN, hint);
        }
    }

    /// What stops nothing but should be known.
    pub(crate) fn warning(self, text: &str) {
        if !self.quiet {
            self.say("warning", YELLOW, text);
        }
    }

    /// What is going on.
    pub(crate) fn note(self, text: &str) {
        if !self.quiet {
            put(format_args!("{text}\n"));
        }
    }

    /// Lines that belong to a failure, also when little is to be said.
    #[expect(clippy::unused_self, reason = "only who may talk is asked to")]
    pub(crate) fn text(self, text: &str) {
        put(format_args!("{text}"));
    }

    /// Whether moving pictures would be seen.
    pub(crate) fn shows_progress(self) -> bool {
        !self.quiet && std::io::stderr().is_terminal()
    }

    /// Whether only the answer and errors are wanted.
    pub(crate) fn is_quiet(self) -> bool {
        self.quiet
    }

    /// Whether stderr is coloured.
    pub(crate) fn has_color(self) -> bool {
        self.color
    }

    fn say(self, label: &str, color: &str, text: &str) {
        let text = one_line(text);
        if self.color {
            put(format_args!("\x1b[1;{color}m{label}:\x1b[0m {text}\n"));
        } else {
            put(format_args!("{label}: {text}\n"));
        }
    }
}

/// Writes to stderr. Nobody may be there to read it (`2>&1 | head`), or its disk is full: there is no better place to
/// tell that, and the work itself goes on.
fn put(text: fmt::Arguments<'_>) {
    drop(io::stderr().lock().write_fmt(text));
}

impl ColorChoice {
    /// Whether stderr is coloured.
    pub(crate) fn on_stderr(self) -> bool {
        self.on(std::io::stderr().is_terminal())
    }

    /// Whether stdout is coloured.
    pub(crate) fn on_stdout(self) -> bool {
        self.on(std::io::stdout().is_terminal())
    }

    fn on(self, is_terminal: bool) -> bool {
        let unwanted =
            || std::env::var_os(orch_runtime::environment::NO_COLOR).is_some_and(|it| !it.is_empty());
        match self {
            ColorChoice::Always => true,
            ColorChoice::Never => false,
            ColorChoice::Auto => is_terminal && !unwanted() && understands_escapes(),
        }
    }
}

/// A message stays on its line, whatever a file or a tool put into it.
fn one_line(text: &str) -> String {
    let line = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect::<Vec<_>>().join(" ");
    // Programs, services and models are quoted here; none of them moves the cursor.
    line.replace(char::is_control, " ")
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_message_stays_on_its_line_and_moves_no_cursor() {
        assert_eq!(super::one_line(" a\n\u{1b}[2Jb\t\r\n c"), "a  [2Jb c");
    }
}
