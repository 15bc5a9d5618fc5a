//! The only place that writes to stdout: data, as a table, as lines or as JSON.

use std::fmt::Display;
use std::io::{self, IsTerminal, Write};

use comfy_table::{ContentArrangement, Table, TableStyle};
use ratatui::crossterm::terminal;
use serde::Serialize;

use crate::terminal::understands_escapes;

/// Writes a command's answer. A reader that went away shows as a broken pipe, which ends the command quietly.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Printer {
    json: bool,
    is_terminal: bool,
}

impl Printer {
    pub(crate) fn new(json: bool) -> Self {
        Self { json, is_terminal: io::stdout().is_terminal() && understands_escapes() }
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

    /// Columns at the top of the screen, over what stood there: one write, nothing blanked before, so that nothing
    /// flickers. What does not fit into the screen is cut: a line that wraps would push the others out of place.
    pub(crate) fn redraw(
        self,
        headings: &[&str],
        rows: &[Vec<String>],
        remarks: &[String],
    ) -> io::Result<()> {
        let (width, height) = terminal::size().unwrap_or((80, 24));
        let table = render(headings, rows);
        let lines: Vec<&str> = table.lines().chain(remarks.iter().map(String::as_str)).collect();
        self.text(&screen(&lines, width.into(), height.into()))
    }
}

/// The text that replaces a whole screen by these lines.
fn screen(lines: &[&str], width: usize, height: usize) -> String {
    const TO_THE_TOP: &str = "\x1b[H";
    const CLEAR_LINE: &str = "\x1b[K\r\n";
    const CLEAR_BELOW: &str = "\x1b[J";
    // The last line of the screen stays free for the cursor.
    let room = height.saturating_sub(1).max(1);
    let hidden = if lines.len() > room { lines.len() - (room - 1) } else { 0 };
    let mut text = TO_THE_TOP.to_owned();
    for line in &lines[..lines.len() - hidden] {
        text.extend(line.chars().take(width));
        text.push_str(CLEAR_LINE);
    }
    if hidden > 0 {
        text.extend(format!("… {hidden} more").chars().take(width));
        text.push_str(CLEAR_LINE);
    }
    text + CLEAR_BELOW
}

/// Wide tables are not folded: people cut them, programs take JSON.
fn render(headings: &[&str], rows: &[Vec<String>]) -> String {
    let mut table = Table::new();
    table.load_style(TableStyle::new()).set_content_arrangement(ContentArrangement::Disabled);
    table.set_header(headings.to_vec());
    // Names and paths come out of files: what would steer the terminal is not passed on.
    let plain = |cell: &String| cell.replace(char::is_control, "?");
    table.add_rows(rows.iter().map(|row| row.iter().map(plain).collect::<Vec<_>>()));
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

    #[test]
    fn a_name_cannot_steer_the_terminal() {
        let rows = vec![vec!["a\x1b[2Jb\nc".to_owned()]];
        assert_eq!(render(&["MODEL"], &rows), "MODEL\na?[2Jb?c");
    }

    #[test]
    fn a_screen_is_replaced_without_being_blanked_and_never_scrolls() {
        let lines = ["NAME  STATUS", "chat  running", "b     stopped"];
        assert_eq!(
            screen(&lines, 80, 24),
            "\x1b[HNAME  STATUS\x1b[K\r\nchat  running\x1b[K\r\nb     stopped\x1b[K\r\n\x1b[J"
        );
        assert_eq!(screen(&lines, 4, 3), "\x1b[HNAME\x1b[K\r\n… 2 \x1b[K\r\n\x1b[J");
        for (width, height) in [(0, 0), (1, 1), (3, 2)] {
            assert!(screen(&lines, width, height).matches('\n').count() < height.max(2));
        }
    }
}
