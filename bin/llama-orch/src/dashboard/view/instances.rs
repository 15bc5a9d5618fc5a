//! The table of instances. Only the rows that are seen cost anything.

use std::fmt::Write as _;

use ratatui::Frame;
use ratatui::layout::Rect;
use ratatui::style::Style;

use super::super::model::{Model, Row};
use super::super::names::{COLUMNS, GAP, fitting};
use super::super::theme::Theme;
use super::{line, rows, take_top};

/// The sign before a row and the blank after it.
const MARGIN: u16 = 2;

pub(super) fn draw(frame: &mut Frame<'_>, area: Rect, model: &mut Model, theme: Theme) {
    let (heading, body) = take_top(area, 1);
    let room = usize::from(area.width.saturating_sub(MARGIN));
    let columns = fitting(&model.widths, room);
    let mut text = String::from("  ");
    for (index, width) in &columns {
        let _ = write!(text, "{:width$}", COLUMNS[*index].heading, width = width + GAP);
    }
    line(frame, heading, &text, Theme::heading());
    let page = usize::from(body.height);
    let (top, total) = {
        let shown = model.shown();
        let top = first_row(model.top, model.position(&shown), page, shown.len());
        draw_rows(frame, body, model, &shown, top, &columns, theme);
        (top, shown.len())
    };
    (model.top, model.page) = (top, page.max(1));
    if total > page && page > 0 {
        let place = format!(" {}-{} of {total} ", top + 1, (top + page).min(total));
        let width = u16::try_from(place.len()).unwrap_or(u16::MAX).min(heading.width);
        let corner = Rect { x: heading.x + heading.width - width, width, ..heading };
        line(frame, corner, &place, Theme::bar());
    }
}

/// Scrolls no further than it takes to keep the selected row in sight, and leaves no room empty.
fn first_row(top: usize, selected: usize, page: usize, total: usize) -> usize {
    let lowest = (selected + 1).saturating_sub(page);
    top.clamp(lowest, selected.max(lowest)).min(total.saturating_sub(page))
}

fn draw_rows(
    frame: &mut Frame<'_>,
    area: Rect,
    model: &Model,
    shown: &[&Row],
    top: usize,
    columns: &[(usize, usize)],
    theme: Theme,
) {
    if shown.is_empty() {
        let text = match (model.seen_at, model.rows.is_empty()) {
            (None, _) => "  looking ...",
            (Some(_), true) => "  no instances yet: `llama-orch init NAME --model FILE` makes one",
            (Some(_), false) => "  no instance fits the filter",
        };
        line(frame, area, text, Theme::faint());
        return;
    }
    let selected = model.position(shown);
    let visible = shown.iter().enumerate().skip(top);
    for ((index, row), place) in visible.zip(rows(area)) {
        draw_row(frame, place, row, index == selected, columns, theme);
    }
}

fn draw_row(
    frame: &mut Frame<'_>,
    place: Rect,
    row: &Row,
    is_selected: bool,
    columns: &[(usize, usize)],
    theme: Theme,
) {
    let base = if is_selected { Theme::selected() } else { Style::new() };
    line(frame, place, if is_selected { "> " } else { "" }, base);
    let mut x = place.x + MARGIN;
    for (index, width) in columns {
        let style = match COLUMNS[*index].heading {
            "STATUS" => theme.status(row.status),
            "HEALTH" => theme.health(row.health),
            _ => Style::new(),
        };
        let style = if is_selected { base } else { style };
        frame.buffer_mut().set_stringn(x, place.y, &row.cells[*index], *width, style);
        x = x.saturating_add(u16::try_from(width + GAP).unwrap_or(u16::MAX));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn the_selected_row_is_always_in_sight_and_no_room_is_wasted(
            top in 0usize..300, selected in 0usize..200, page in 1usize..60, more in 1usize..100
        ) {
            let total = selected + more;
            let first = first_row(top, selected, page, total);
            prop_assert!(first <= selected && selected < first + page);
            prop_assert!(first == 0 || first + page <= total);
        }
    }
}
