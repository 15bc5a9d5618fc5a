//! What is to be written and run, as steps: carried out, shown beforehand, or told to people who do them by hand.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::windows_command_line;
use crate::words::command_line;

/// How a file's text is laid down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Encoding {
    Utf8,
    /// Little end first, with its mark: what the Windows Task Scheduler reads.
    Utf16,
}

/// One step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    Write {
        path: PathBuf,
        text: String,
        encoding: Encoding,
    },
    Remove {
        path: PathBuf,
    },
    /// A command that has to succeed.
    Run(Vec<String>),
    /// A command whose failure changes nothing.
    Try(Vec<String>),
}

/// Steps in their order, and what is to be known beside them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Plan {
    pub(crate) steps: Vec<Step>,
    /// Takes back what was done when a step fails.
    pub(crate) undo: Vec<Step>,
    pub(crate) notes: Vec<String>,
}

impl Step {
    /// The bytes of a file to write.
    pub(crate) fn bytes(text: &str, encoding: Encoding) -> Vec<u8> {
        match encoding {
            Encoding::Utf8 => text.as_bytes().to_vec(),
            Encoding::Utf16 => {
                let units = std::iter::once(0xfeff).chain(text.encode_utf16());
                units.flat_map(u16::to_le_bytes).collect()
            }
        }
    }

    fn told(&self, text: &mut String) {
        let _ = match self {
            Step::Write { path, text: content, encoding } => {
                let encoding = if *encoding == Encoding::Utf16 { " (UTF-16)" } else { "" };
                let _ = writeln!(text, "write {}{encoding}:", path.display());
                for line in content.lines() {
                    let _ = writeln!(text, "{}", format_args!("    {line}").to_string().trim_end());
                }
                Ok(())
            }
            Step::Remove { path } => writeln!(text, "remove {}", path.display()),
            Step::Run(words) => writeln!(text, "run {}", shown(words)),
            Step::Try(words) => writeln!(text, "run {} (it may fail)", shown(words)),
        };
    }

    fn as_json(&self) -> Value {
        match self {
            Step::Write { path, text, .. } => json!({"write": path, "text": text}),
            Step::Remove { path } => json!({"remove": path}),
            Step::Run(words) => json!({"run": words}),
            Step::Try(words) => json!({"run": words, "may_fail": true}),
        }
    }
}

/// As it is typed where the command is at home.
fn shown(words: &[String]) -> String {
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match words.first() {
        Some(&("nssm" | "schtasks")) => windows_command_line(&words),
        _ => command_line(&words),
    }
}

impl Plan {
    /// The steps, numbered, for people.
    pub(crate) fn told(&self) -> String {
        let mut text = String::new();
        for (number, step) in self.steps.iter().enumerate() {
            let _ = write!(text, "{}. ", number + 1);
            step.told(&mut text);
        }
        text
    }

    pub(crate) fn as_json(&self) -> Value {
        json!(self.steps.iter().map(Step::as_json).collect::<Vec<_>>())
    }

    /// The files that the steps leave behind.
    pub(crate) fn files(&self) -> Vec<&Path> {
        let removed = |path: &Path| {
            self.steps.iter().any(|step| matches!(step, Step::Remove { path: gone } if gone == path))
        };
        let written = self.steps.iter().filter_map(|step| match step {
            Step::Write { path, .. } => Some(path.as_path()),
            _ => None,
        });
        written.filter(|path| !removed(path)).collect()
    }
}
