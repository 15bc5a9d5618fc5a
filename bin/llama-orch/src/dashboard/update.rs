//! What follows from what happens. Pure: no clock, no file, no terminal.

use orch_core::{ExitCode, Failure};
use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyEventKind, KeyModifiers};

use super::model::{Effect, LogPane, Message, Mode, Model, Question, Row, Step, StepKind, Told, interrupted};
use crate::watching::Keeper;

/// A filter is a few words.
const LONGEST_FILTER: usize = 100;

pub(super) fn update(model: &mut Model, message: Message) -> Vec<Effect> {
    match message {
        Message::Key(key) if key.kind == KeyEventKind::Release => Vec::new(),
        Message::Key(key) => on_key(model, key),
        Message::Pasted(text) => {
            if model.mode == Mode::Filter {
                text.chars().for_each(|letter| type_letter(model, letter));
            }
            Vec::new()
        }
        Message::Resized => Vec::new(),
        Message::Tick(now) => {
            model.now = now;
            Vec::new()
        }
        Message::Seen(picture) => {
            tell_of_keeper(model, picture.keeper);
            model.take_in(*picture);
            follow_selected(model)
        }
        Message::Unseen { why, at } => {
            model.trouble = Some(why);
            model.now = at;
            Vec::new()
        }
        Message::Log(news) => {
            if let Some(pane) = model.log.as_mut().filter(|pane| pane.instance == news.instance) {
                pane.take_in(news);
            }
            Vec::new()
        }
        Message::StepEnded { step, outcome } => {
            model.under_way.retain(|under_way| *under_way != step);
            model.told = Some(match outcome {
                Ok(words) => Told::good(format!("{} {words}", step.instance)),
                Err(failure) => Told::bad(&failure),
            });
            vec![Effect::Look]
        }
        Message::Terminated => vec![Effect::Quit(interrupted())],
        Message::Suspended => vec![Effect::Suspend, Effect::Look],
        Message::Broken(what) => {
            vec![Effect::Quit(Err(Failure::new(ExitCode::General, what).into()))]
        }
    }
}

/// A daemon that comes or goes is told once; the headline tells it as long as it is so.
fn tell_of_keeper(model: &mut Model, keeper: Keeper) {
    let told = match (model.keeper, keeper) {
        (Some(Keeper::Daemon), Keeper::Nobody) => "the daemon has gone; engines keep running",
        (Some(Keeper::Nobody), Keeper::Daemon) => "a daemon watches over the instances now",
        _ => return,
    };
    model.told = Some(Told::good(told));
}

fn on_key(model: &mut Model, key: KeyEvent) -> Vec<Effect> {
    if key.modifiers.contains(KeyModifiers::CONTROL) {
        return match key.code {
            KeyCode::Char('c') => vec![Effect::Quit(interrupted())],
            KeyCode::Char('z') => vec![Effect::Suspend, Effect::Look],
            KeyCode::Char('l') => vec![Effect::Redraw],
            KeyCode::Char('u') if model.mode == Mode::Filter => {
                model.filter.clear();
                follow_selected(model)
            }
            _ => Vec::new(),
        };
    }
    match model.mode.clone() {
        Mode::Normal => on_normal_key(model, key.code),
        Mode::Filter => on_filter_key(model, key.code),
        Mode::Help => {
            model.mode = Mode::Normal;
            Vec::new()
        }
        Mode::Confirm(question) => {
            model.mode = Mode::Normal;
            match (key.code, question) {
                (KeyCode::Char('y' | 'Y'), Question::Quit) => vec![Effect::Quit(Ok(()))],
                (KeyCode::Char('y' | 'Y'), Question::Step(step)) => begin(model, step),
                _ => {
                    model.told = Some(Told::good("left as it is"));
                    Vec::new()
                }
            }
        }
    }
}

fn on_normal_key(model: &mut Model, code: KeyCode) -> Vec<Effect> {
    match code {
        KeyCode::Char('q') if model.under_way.is_empty() => vec![Effect::Quit(Ok(()))],
        KeyCode::Char('q') => {
            model.mode = Mode::Confirm(Question::Quit);
            Vec::new()
        }
        KeyCode::Char('r') => {
            model.told = None;
            vec![Effect::Look]
        }
        KeyCode::Char('u') => ask_for_step(model, StepKind::Up),
        KeyCode::Char('d') => ask_for_step(model, StepKind::Down),
        KeyCode::Char('R') => ask_for_step(model, StepKind::Restart),
        KeyCode::Char('l') => toggle_log(model),
        KeyCode::Char('/') => {
            model.mode = Mode::Filter;
            Vec::new()
        }
        KeyCode::Char('?') | KeyCode::F(1) => {
            model.mode = Mode::Help;
            Vec::new()
        }
        KeyCode::Esc => close_something(model),
        _ => on_motion(model, code),
    }
}

fn on_motion(model: &mut Model, code: KeyCode) -> Vec<Effect> {
    let page = i64::try_from(model.page.max(1)).unwrap_or(i64::MAX);
    match (code, &mut model.log) {
        (KeyCode::PageUp, Some(pane)) => {
            pane.back = (pane.back + model.log_page).min(pane.lines.len().saturating_sub(model.log_page));
            Vec::new()
        }
        (KeyCode::PageDown, Some(pane)) => {
            pane.back = pane.back.saturating_sub(model.log_page);
            Vec::new()
        }
        (KeyCode::Down | KeyCode::Char('j'), _) => select_by(model, 1),
        (KeyCode::Up | KeyCode::Char('k'), _) => select_by(model, -1),
        (KeyCode::PageDown, None) => select_by(model, page),
        (KeyCode::PageUp, None) => select_by(model, -page),
        (KeyCode::Home | KeyCode::Char('g'), _) => select_by(model, -i64::from(u32::MAX)),
        (KeyCode::End | KeyCode::Char('G'), _) => select_by(model, i64::from(u32::MAX)),
        _ => Vec::new(),
    }
}

fn on_filter_key(model: &mut Model, code: KeyCode) -> Vec<Effect> {
    match code {
        KeyCode::Enter => model.mode = Mode::Normal,
        KeyCode::Esc => {
            model.filter.clear();
            model.mode = Mode::Normal;
        }
        KeyCode::Backspace => {
            model.filter.pop();
        }
        KeyCode::Char(letter) => type_letter(model, letter),
        KeyCode::Down => return select_by(model, 1),
        KeyCode::Up => return select_by(model, -1),
        _ => {}
    }
    follow_selected(model)
}

fn type_letter(model: &mut Model, letter: char) {
    if !letter.is_control() && model.filter.chars().count() < LONGEST_FILTER {
        model.filter.push(letter);
    }
}

/// Esc closes what was opened last: the log, then the filter, then the last outcome.
fn close_something(model: &mut Model) -> Vec<Effect> {
    if model.log.is_some() {
        return toggle_log(model);
    }
    if model.filter.is_empty() {
        model.told = None;
    }
    model.filter.clear();
    Vec::new()
}

fn select_by(model: &mut Model, rows: i64) -> Vec<Effect> {
    let shown = model.shown();
    let last = i64::try_from(shown.len()).unwrap_or(i64::MAX) - 1;
    let now = i64::try_from(model.position(&shown)).unwrap_or(0);
    let next = usize::try_from((now + rows).clamp(0, last.max(0))).unwrap_or(0);
    model.selected = shown.get(next).map(|row| (row.instance.clone(), row.replica));
    follow_selected(model)
}

/// The log on the screen is that of the selected instance.
fn follow_selected(model: &mut Model) -> Vec<Effect> {
    if model.selected.is_none() {
        model.selected = model.rows.first().map(|row| (row.instance.clone(), row.replica));
    }
    let Some(instance) = model.selected_row().map(Row::label) else { return Vec::new() };
    match &mut model.log {
        Some(pane) if pane.instance != instance => {
            *pane = LogPane { instance: instance.clone(), ..LogPane::default() };
            vec![Effect::FollowLog(Some(instance))]
        }
        _ => Vec::new(),
    }
}

fn toggle_log(model: &mut Model) -> Vec<Effect> {
    if model.log.take().is_some() {
        return vec![Effect::FollowLog(None)];
    }
    let Some(instance) = model.selected_row().map(Row::label) else { return Vec::new() };
    model.log = Some(LogPane { instance: instance.clone(), ..LogPane::default() });
    vec![Effect::FollowLog(Some(instance))]
}

/// What takes an engine away from those who use it is asked about first; a start is not.
fn ask_for_step(model: &mut Model, kind: StepKind) -> Vec<Effect> {
    let Some(instance) = model.selected_row().map(|row| row.instance.clone()) else {
        model.told = Some(Told::good("no instance is selected"));
        return Vec::new();
    };
    if let Some(busy) = model.under_way.iter().find(|step| step.instance == instance) {
        model.told = Some(Told::good(format!("{} already; one step at a time", busy.doing())));
        return Vec::new();
    }
    let step = Step { kind, instance };
    if kind == StepKind::Up {
        return begin(model, step);
    }
    model.mode = Mode::Confirm(Question::Step(step));
    Vec::new()
}

fn begin(model: &mut Model, step: Step) -> Vec<Effect> {
    model.told = None;
    model.under_way.push(step.clone());
    vec![Effect::Begin(step)]
}
