//! The only place that writes to stdout: data, as a table, as lines or as JSON.

use std::fmt::Display;
use std::io::{self, IsTerminal, Write};

use comfy_table::{ContentArrangement, Table, TableStyle};
use serde::Serialize;

/// Writes a command's answer. A reader that went away shows as a broken pipe, which ends the command quietly.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Printer {
    json: bool,
    is_terminal: bool,
}

impl Printer {
    pub(crate) fn new(json: bool) -> Self {
        Self { json, is_terminal: io::stdout().is_terminal() }
    }

    /// Whether the answer is for a program.
    pub(crate) fn json(self) -> bool {
        self.json
    }

    /// Whether a person looks at stdout.
    pub(crate) fn is_terminal(self) -> bool {
        self.is_terminal
    }

    /// One line for people.
    pub(crate) fn line(self, line: impl Display) -> io::Result<()> {
        self.text(&format!("{line}\n"))
    }

    /// Text as it is, at once: answers that arrive word by word are shown so.
    #[expect(clippy::unused_self, reason = "only who was given a printer may print")]
    pub(crate) fn text(self, text: &str) -> io::Result<()> {
        let mut stdout = io::stdout().lock();
        stdout.write_all(text.as_bytes())?;
        stdout.flush()
    }

    /// A whole document.
    pub(crate) fn document(self, value: &impl Serialize) -> io::Result<()> {
        let mut text = serde_json::to_string_pretty(value).map_err(io::Error::other)?;
        text.push('\n');
        self.text(&text)
    }

    /// One object of a stream, on one line.
    pub(crate) fn record(self, value: &impl Serialize) -> io::Result<()> {
        let mut text = serde_json::to_string(value).map_err(io::Error::other)?;
        text.push('\n');
        self.text(&text)
    }

    /// Columns under their headings.
    pub(crate) fn table(self, headings: &[&str], rows: &[Vec<String>]) -> io::Result<()> {
        self.line(render(headings, rows))
    }

    /// Names and values, one pair a line.
    pub(crate) fn pairs(self, pairs: &[(&str, String)]) -> io::Result<()> {
        let width = pairs.iter().map(|(name, _)| name.len() + 1).max().unwrap_or(0);
        let line = |(name, value): &(&str, String)| format!("{:width$} {value}", format!("{name}:"));
        self.line(pairs.iter().map(line).collect::<Vec<_>>().join("\n"))
    }

    /// Begins anew at the top of the screen: for tables that are shown again and again.
    pub(crate) fn clear_screen(self) -> io::Result<()> {
        if self.is_terminal() && !self.json { self.text("\x1b[H\x1b[2J") } else { Ok(()) }
    }
}

/// Wide tables are not folded: people cut them, programs take JSON.
fn render(headings: &[&str], rows: &[Vec<String>]) -> String {
    let mut table = Table::new();
    table.load_style(TableStyle::new()).set_content_arrangement(ContentArrangement::Disabled);
    table.set_header(headings.to_vec());
    table.add_rows(rows.to_vec());
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    let text = table.to_string();
    text.lines().map(str::trim_end).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_stand_under_their_headings_without_trailing_blanks() {
        let rows = vec![vec!["chat".to_owned(), "running".to_owned()], vec!["b".to_owned(), "-".to_owned()]];
        assert_eq!(render(&["NAME", "STATUS"], &rows), "NAME  STATUS\nchat  running\nb     -");
    }
}
