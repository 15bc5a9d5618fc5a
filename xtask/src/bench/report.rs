//! Tables, on the terminal and in `docs/BENCHMARKS.md`: the same text in both.

use std::fmt;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// A Markdown table whose columns line up, so that it reads well unrendered too.
pub(super) struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    pub(super) fn new(head: &[&str]) -> Self {
        Self { rows: vec![head.iter().map(|&cell| cell.to_owned()).collect()] }
    }

    pub(super) fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        self.rows.push(cells.into_iter().collect());
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let columns = self.rows[0].len();
        let width = |column: usize| {
            let cells = self.rows.iter().filter_map(|row| row.get(column));
            cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
        };
        let widths: Vec<usize> = (0..columns).map(width).collect();
        for (number, row) in self.rows.iter().enumerate() {
            for (cell, &width) in row.iter().zip(&widths) {
                write!(f, "| {cell:width$} ")?;
            }
            writeln!(f, "|")?;
            if number == 0 {
                let rules: Vec<String> = widths.iter().map(|&width| "-".repeat(width + 2)).collect();
                writeln!(f, "|{}|", rules.join("|"))?;
            }
        }
        Ok(())
    }
}

/// Prints a section and, unless told otherwise, puts it into its place in the document.
pub(super) fn publish(section: &str, text: &str, write: bool) -> Result<()> {
    let mut stdout = std::io::stdout().lock();
    writeln!(stdout, "\n{text}").context("the result cannot be printed")?;
    if !write {
        return Ok(());
    }
    let path = document();
    let before = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let after = with_section(&before, section, text)
        .with_context(|| format!("{} has no place for section {section}", path.display()))?;
    fs::write(&path, after).with_context(|| format!("cannot write {}", path.display()))?;
    eprintln!("written into {}", path.display());
    Ok(())
}

fn document() -> PathBuf {
    workspace().join("docs").join("BENCHMARKS.md")
}

/// The top folder of the checkout that this program was built in.
pub(super) fn workspace() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("xtask lies in the workspace")
}

/// The document with what lies between the section's two marks replaced; `None` when the marks are missing.
fn with_section(document: &str, section: &str, text: &str) -> Option<String> {
    let (begin, end) = (format!("<!-- begin {section} -->"), format!("<!-- end {section} -->"));
    let (head, rest) = document.split_once(&begin)?;
    let (_, tail) = rest.split_once(&end)?;
    Some(format!("{head}{begin}\n\n{}\n\n{end}{tail}", text.trim_end()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up() {
        let mut table = Table::new(&["through", "share"]);
        table.row(["direct".to_owned(), "1 – 2".to_owned()]);
        table.row(["x".to_owned(), "0.5".to_owned()]);
        let lines =
            ["| through | share |", "|---------|-------|", "| direct  | 1 – 2 |", "| x       | 0.5   |", ""];
        assert_eq!(table.to_string(), lines.join("\n"));
    }

    #[test]
    fn only_what_lies_between_the_marks_changes() {
        let before = "a\n<!-- begin node -->\nold\n<!-- end node -->\nz\n";
        let after = with_section(before, "node", "new\n").unwrap();
        assert_eq!(after, "a\n<!-- begin node -->\n\nnew\n\n<!-- end node -->\nz\n");
        assert_eq!(with_section(&after, "node", "new").unwrap(), after);
        assert!(with_section(before, "gateway", "new").is_none());
    }

    #[test]
    fn the_document_has_a_place_for_every_section() {
        let text = fs::read_to_string(document()).unwrap();
        for section in ["gateway", "node", "workflow"] {
            assert!(with_section(&text, section, "x").is_some(), "{section}");
        }
    }
}
