//! What the keys do.

use ratatui::Frame;
use ratatui::layout::Rect;

use super::super::theme::Theme;
use super::{line, rows, take_top};

const KEYS: [(&str, &str); 16] = [
    ("q", "quit (engines keep running)"),
    ("j k, arrows", "select an instance"),
    ("PageUp PageDown", "a page of instances, or of the log when it is open"),
    ("Home End", "the first, the last instance"),
    ("u", "up: start the selected instance"),
    ("d", "down: stop it; asks first"),
    ("R", "restart it; asks first"),
    ("l", "its log, which follows; again: closes it"),
    ("/", "filter by words in name, model, backend, status, health"),
    ("r", "look again now"),
    ("Esc", "close the log, then clear the filter"),
    ("?", "this page; any key closes it"),
    ("Ctrl-C", "quit with exit code 130"),
    ("Ctrl-Z", "stop for a while; `fg` comes back"),
    ("Ctrl-L", "draw the screen anew"),
    ("", "ACTIVITY: a sign for each slot: . idle, P prompt, W writing"),
];

pub(super) fn draw(frame: &mut Frame<'_>, area: Rect) {
    let (heading, body) = take_top(area, 1);
    line(frame, heading, " keys", Theme::heading());
    for ((key, does), place) in KEYS.iter().zip(rows(body)) {
        line(frame, place, &format!("  {key:16} {does}"), ratatui::style::Style::new());
    }
}
