//! A few lines at the end of a terminal's text that are drawn again in place.

use ratatui::text::Span;

use super::rows::{Line, Paint};

/// What stands on the terminal now.
#[derive(Debug, Default)]
pub(crate) struct Screen {
    shown: Vec<String>,
}

/// Terminals that know it show everything up to the second at once.
const BEGIN: &str = "\x1b[?2026h";
const END: &str = "\x1b[?2026l";
const CLEAR_LINE: &str = "\x1b[K\r\n";
const CLEAR_BELOW: &str = "\x1b[J";

impl Screen {
    /// What has to be written so that `lines` stand in place of what stood there. `width` may have changed since:
    /// the terminal has then wrapped the old lines anew.
    pub(crate) fn replace(&mut self, lines: &[Line], width: usize, color: bool) -> String {
        let mut text = BEGIN.to_owned();
        text.push_str(&self.back(width));
        self.shown.clear();
        for line in lines {
            let cut = cut(&line.text, width);
            text.push_str(&painted(&cut, line.paint, color));
            text.push_str(CLEAR_LINE);
            self.shown.push(cut);
        }
        text + CLEAR_BELOW + END
    }

    /// Up to where the first line begins.
    fn back(&self, width: usize) -> String {
        let rows: usize = self.shown.iter().map(|line| width_of(line).div_ceil(width.max(1)).max(1)).sum();
        if rows == 0 { String::new() } else { format!("\r\x1b[{rows}A") }
    }
}

fn painted(text: &str, paint: Paint, color: bool) -> String {
    let code = match paint {
        Paint::Plain => return text.to_owned(),
        Paint::Good => "32",
        Paint::Busy => "33",
        Paint::Bad => "31",
        Paint::Faint => "2",
    };
    if color { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
}

fn width_of(text: &str) -> usize {
    Span::raw(text).width()
}

/// The beginning of a text that fits into so many columns.
fn cut(text: &str, width: usize) -> String {
    if width_of(text) <= width {
        return text.to_owned();
    }
    let mut fitting: String = text.chars().take(width).collect();
    // The sign that something is missing takes a column of its own.
    while width_of(&fitting) >= width && fitting.pop().is_some() {}
    if width > 0 {
        fitting.push('…');
    }
    fitting
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn lines(texts: &[&str]) -> Vec<Line> {
        texts.iter().map(|text| Line { text: (*text).to_owned(), paint: Paint::Plain }).collect()
    }

    #[test]
    fn lines_are_replaced_in_place() {
        let mut screen = Screen::default();
        let first = screen.replace(&lines(&["one", "two"]), 20, false);
        assert_eq!(first, format!("{BEGIN}one\x1b[K\r\ntwo\x1b[K\r\n\x1b[J{END}"));
        let second = screen.replace(&lines(&["three"]), 20, false);
        assert_eq!(second, format!("{BEGIN}\r\x1b[2Athree\x1b[K\r\n\x1b[J{END}"));
    }

    #[test]
    fn lines_that_a_narrower_terminal_has_wrapped_are_replaced_as_well() {
        let mut screen = Screen::default();
        screen.replace(&lines(&["0123456789", "x"]), 20, false);
        assert!(screen.replace(&lines(&["y"]), 4, false).contains("\r\x1b[4A"));
    }

    #[test]
    fn colour_only_adds_to_the_text() {
        let bad = [Line { text: "failed".to_owned(), paint: Paint::Bad }];
        assert!(Screen::default().replace(&bad, 20, true).contains("\x1b[31mfailed\x1b[0m"));
        assert!(!Screen::default().replace(&bad, 20, false).contains("\x1b[31m"));
    }

    proptest! {
        #[test]
        fn no_line_is_wider_than_the_terminal(text in "\\PC{0,60}", width in 0_usize..40) {
            prop_assert!(width_of(&cut(&text, width)) <= width);
        }
    }
}
