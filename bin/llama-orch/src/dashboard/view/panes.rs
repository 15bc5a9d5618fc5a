//! The panes below the table: slots of the selected instance, events, a log.

use pool_manager::stats::{SlotActivity, SlotState};
use ratatui::Frame;
use ratatui::layout::Rect;
use ratatui::style::Style;

use super::super::model::{EventLine, LogPane, Model, Row};
use super::super::theme::Theme;
use super::{line, rows, take_top};
use crate::words::{or_dash, show_rate};

/// Slots that are shown one by one.
const MOST_SLOTS: usize = 4;
/// Signs of a bar.
const BAR: u64 = 20;

/// The pane of the selected row: why it does not run, or what each of its slots does. So many lines, at the most.
pub(super) fn detail_height(row: &Row, is_high: bool) -> usize {
    match (&row.last_error, row.slots.len().min(MOST_SLOTS)) {
        (Some(_), _) if !row.status.has_process() => 2,
        (_, 0) => 0,
        (_, slots) if is_high => slots + 1,
        _ => 0,
    }
}

pub(super) fn draw_detail(frame: &mut Frame<'_>, area: Rect, model: &Model, theme: Theme) {
    let Some(row) = model.selected_row().filter(|_| area.height > 0) else { return };
    match &row.last_error {
        Some(error) if !row.status.has_process() => {
            let (bar, body) = take_top(area, 1);
            line(frame, bar, &format!(" last error of {}", row.instance), Theme::bar());
            line(frame, body, &format!("  {error}"), theme.trouble());
        }
        _ => draw_slots(frame, area, row),
    }
}

fn draw_slots(frame: &mut Frame<'_>, area: Rect, row: &Row) {
    let (bar, body) = take_top(area, 1);
    let hidden = row.slots.len().saturating_sub(MOST_SLOTS);
    let more = if hidden > 0 { format!(" (and {hidden} more)") } else { String::new() };
    line(frame, bar, &format!(" slots of {}{more}", row.instance), Theme::bar());
    for (slot, place) in row.slots.iter().zip(rows(body)) {
        let style = if slot.state == SlotState::Idle { Theme::faint() } else { Style::new() };
        line(frame, place, &slot_line(slot), style);
    }
}

fn slot_line(slot: &SlotActivity) -> String {
    let SlotActivity { id, state, generated, context_used, context_size, tokens_per_second } = slot;
    let filled = (context_used * BAR).checked_div(*context_size).unwrap_or(0).min(BAR);
    let bar = "#".repeat(filled as usize) + &".".repeat((BAR - filled) as usize);
    let rate = or_dash(tokens_per_second.map(show_rate));
    let state = state.label();
    format!(
        "  slot {id:<3} {state:8} {generated:>6} tokens  {rate:>6} tokens/s  context [{bar}] {context_used}/{context_size}"
    )
}

/// What happened, newest first.
pub(super) fn draw_events(frame: &mut Frame<'_>, area: Rect, model: &Model, theme: Theme) {
    let (bar, body) = take_top(area, 1);
    let of = model.events_for.as_ref().map_or(String::new(), |name| format!(" of {name}"));
    line(frame, bar, &format!(" events{of}, newest first, UTC"), Theme::bar());
    for (event, place) in model.events.iter().zip(rows(body)) {
        line(frame, place, &event_line(event), theme.level(event.level));
    }
}

fn event_line(event: &EventLine) -> String {
    let EventLine { at, level, instance, kind, message } = event;
    let at = at.to_rfc3339();
    let time = at.get(11..19).unwrap_or(&at);
    let level = level.map_or("-", |level| level.label());
    format!("  {time}  {level:7}  {instance:16}  {kind:17}  {message}")
}

/// The end of the log, or a part further up.
pub(super) fn draw_log(frame: &mut Frame<'_>, area: Rect, model: &mut Model, theme: Theme) {
    let (bar, body) = take_top(area, 1);
    let page = usize::from(body.height);
    model.log_page = page.max(1);
    let Some(pane) = &model.log else { return };
    line(frame, bar, &log_title(pane), Theme::bar());
    if let Some(problem) = &pane.problem {
        line(frame, body, &format!("  {problem}"), theme.trouble());
        return;
    }
    if pane.lines.is_empty() {
        line(frame, body, "  it has said nothing", Theme::faint());
        return;
    }
    let end = pane.lines.len() - pane.back.min(pane.lines.len());
    let begin = end.saturating_sub(page);
    for (text, place) in pane.lines.range(begin..end).zip(rows(body)) {
        line(frame, place, text, Style::new());
    }
}

fn log_title(pane: &LogPane) -> String {
    match pane.back {
        0 => format!(" log of {}, following; PageUp scrolls back, l closes", pane.instance),
        back => format!(" log of {}, {back} lines before its end; PageDown goes on", pane.instance),
    }
}
