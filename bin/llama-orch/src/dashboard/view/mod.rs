//! A model as a frame: a headline, the instances, what is selected in detail, events or a log, and a line to talk in.
//! Every part draws into the area that it is given, however small that is.

mod help;
mod instances;
mod panes;

use orch_core::Status;
use ratatui::Frame;
use ratatui::layout::Rect;
use ratatui::style::Style;

use super::model::{Mode, Model, Question, Step, StepKind};
use super::theme::Theme;
use crate::watching::Keeper;
use crate::words::{show_duration, show_rate};

/// Screens lower than this show one thing at a time.
const LOW: u16 = 12;
/// Screens as high as this show the slots of the selected instance as well.
const HIGH: u16 = 20;
/// What was seen longer ago than this is called old, in milliseconds.
const OLD_MS: i64 = 3_000;
/// What runs is counted first, what is not meant to last.
const IN_ORDER: [Status; 7] = [
    Status::Running,
    Status::Starting,
    Status::Stopping,
    Status::Crashed,
    Status::Error,
    Status::Unknown,
    Status::Stopped,
];
const HINTS: &str = "q quit  ? help  / filter  u up  d down  R restart  l log  r refresh";

/// Draws everything, and notes in the model how much of it fits: a page is what was seen.
pub(super) fn draw(frame: &mut Frame<'_>, model: &mut Model, theme: Theme) {
    let areas = Areas::new(frame.area(), model);
    line(frame, areas.headline, &headline(model), Theme::bar());
    if model.mode == Mode::Help {
        help::draw(frame, areas.body());
    } else {
        instances::draw(frame, areas.table, model, theme);
        panes::draw_detail(frame, areas.detail, model, theme);
        if model.log.is_some() {
            panes::draw_log(frame, areas.pane, model, theme);
        } else {
            panes::draw_events(frame, areas.pane, model, theme);
        }
    }
    let (text, style) = bottom_line(model, theme);
    line(frame, areas.bottom, &text, style);
}

/// Where the parts of one frame lie.
struct Areas {
    headline: Rect,
    table: Rect,
    detail: Rect,
    pane: Rect,
    bottom: Rect,
}

impl Areas {
    fn new(screen: Rect, model: &Model) -> Self {
        let (headline, rest) = take_top(screen, 1);
        let (body, bottom) = take_top(rest, rest.height.saturating_sub(1));
        let pane_height = match (screen.height < LOW, &model.log) {
            (true, Some(_)) => body.height,
            (true, None) => 0,
            (false, Some(_)) => body.height / 2,
            (false, None) => (body.height / 3).max(4),
        };
        let selected = model.selected_row().filter(|_| screen.height >= LOW);
        let detail = selected.map_or(0, |row| panes::detail_height(row, screen.height >= HIGH));
        let detail_height = u16::try_from(detail).unwrap_or(0);
        let (table, rest) = take_top(body, body.height.saturating_sub(pane_height + detail_height));
        let (detail, pane) = take_top(rest, detail_height);
        Self { headline, table, detail, pane, bottom }
    }

    /// Everything between the first line and the last.
    fn body(&self) -> Rect {
        self.table.union(self.detail).union(self.pane)
    }
}

/// So many lines, and what is left below them.
fn take_top(area: Rect, height: u16) -> (Rect, Rect) {
    let height = height.min(area.height);
    let rest = Rect { y: area.y + height, height: area.height - height, ..area };
    (Rect { height, ..area }, rest)
}

/// One line of text over the whole width of an area.
fn line(frame: &mut Frame<'_>, area: Rect, text: &str, style: Style) {
    let Rect { x, y, width, height } = area;
    if height > 0 {
        frame.buffer_mut().set_style(Rect { height: 1, ..area }, style);
        frame.buffer_mut().set_stringn(x, y, text, width.into(), style);
    }
}

/// The lines of an area, from its top.
fn rows(area: Rect) -> impl Iterator<Item = Rect> {
    (0..area.height).map(move |row| Rect { y: area.y + row, height: 1, ..area })
}

/// What matters most stands first: on narrow screens the end is cut off.
fn headline(model: &Model) -> String {
    let mut parts = Vec::new();
    for status in IN_ORDER {
        let count = model.rows.iter().filter(|row| row.status == status).count();
        if count > 0 {
            parts.push(format!("{count} {status}"));
        }
    }
    let mut text = format!(" {}", if parts.is_empty() { "llama-orch".to_owned() } else { parts.join(", ") });
    let mut add = |part: &str| {
        text.push_str(" | ");
        text.push_str(part);
    };
    if let Some(rate) = model.tokens_per_second {
        add(&format!("{} tokens/s", show_rate(rate)));
    }
    match model.keeper {
        Some(Keeper::Nobody) => add("no daemon: what crashes stays down"),
        Some(Keeper::Daemon) => add("daemon"),
        Some(Keeper::Elsewhere) => add("server"),
        None => {}
    }
    add(&model.title);
    text
}

/// The line to talk in: a question, what is typed, what is wrong, what came of a step, what is going on, or the keys.
fn bottom_line(model: &Model, theme: Theme) -> (String, Style) {
    match &model.mode {
        Mode::Confirm(question) => return (question_text(question), theme.question()),
        Mode::Filter => {
            return (format!("/{}_  (Enter keeps it, Esc clears it)", model.filter), Theme::heading());
        }
        Mode::Normal | Mode::Help => {}
    }
    if let Some(trouble) = trouble(model) {
        return (trouble, theme.trouble());
    }
    if let Some(told) = &model.told {
        return (told.text.clone(), if told.is_bad { theme.trouble() } else { Theme::heading() });
    }
    if !model.under_way.is_empty() {
        let doing: Vec<String> = model.under_way.iter().map(Step::doing).collect();
        return (format!("{} ...", doing.join(", ")), Theme::heading());
    }
    if !model.filter.is_empty() {
        return (format!("filter: {}  (Esc clears it)", model.filter), Theme::heading());
    }
    (HINTS.to_owned(), Theme::faint())
}

fn question_text(question: &Question) -> String {
    match question {
        Question::Quit => "steps are under way; quit all the same? y/N".to_owned(),
        Question::Step(Step { kind: StepKind::Restart, instance }) => {
            format!("restart {instance}? requests in flight may finish first. y/N")
        }
        Question::Step(Step { instance, .. }) => {
            format!("stop {instance}? requests in flight may finish first. y/N")
        }
    }
}

fn trouble(model: &Model) -> Option<String> {
    let age = model.seen_at.map(|seen| model.now.0 - seen.0).filter(|age| *age > OLD_MS);
    let old = age.map(|age| {
        format!("what stands here is {} old", show_duration(u64::try_from(age / 1000).unwrap_or(0)))
    });
    match (&model.trouble, old) {
        (Some(why), Some(old)) => Some(format!("error: {why}; {old}")),
        (Some(why), None) => Some(format!("error: {why}")),
        (None, old) => old.map(|old| format!("no news: {old}")),
    }
}
