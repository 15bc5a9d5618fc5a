//! The picture of a job as lines of so many columns and no more than so many rows.

use std::fmt::Write as _;
use std::time::Duration;

use super::model::{JobPicture, State, StepPicture};
use crate::words::{counted, show_duration, with_commas};

/// How a part of a line is painted. It only repeats what the words say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Paint {
    Plain,
    Good,
    Busy,
    Bad,
    Faint,
}

/// One line: its text without what would steer a terminal, and how it is painted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Line {
    pub(crate) text: String,
    pub(crate) paint: Paint,
}

/// The widest that ids are lined up for.
const WIDEST_ID: usize = 36;
/// Of the rows that stay.
const LONGEST_LAST: usize = 200;
const SPINNER: [char; 10] = ['⠋', '⠙', '⠹', '⠸', '⠼', '⠴', '⠦', '⠧', '⠇', '⠏'];
const SPINNER_PACE_MS: u128 = 100;

/// The picture while the job runs: what matters most where not everything has room.
pub(crate) fn live(picture: &JobPicture, now: Duration, height: usize) -> Vec<Line> {
    let mut lines = vec![heading(picture, now)];
    lines.extend(picture.notice.iter().map(|notice| line(notice, Paint::Busy)));
    let room = height.saturating_sub(lines.len()).max(1);
    lines.extend(steps(picture, now, room, |_| true));
    lines
}

fn heading(picture: &JobPicture, now: Duration) -> Line {
    let (done, all) = picture.progress();
    let mut text = format!("{}  {done} of {}", picture.job_id, counted(all, "step"));
    if picture.tokens > 0 {
        let _ = write!(text, "  {} tokens", with_commas(picture.tokens));
    }
    if picture.from_cache > 0 {
        let _ = write!(text, "  {} from cache", with_commas(picture.from_cache));
    }
    let _ = write!(text, "  {}", show_tenths(now));
    if let Some(ended) = picture.ended {
        let _ = write!(text, "  {ended}");
    }
    line(&text, Paint::Plain)
}

/// The picture that stays when the job has ended. Children that went well are told by the step that makes them.
pub(crate) fn last(picture: &JobPicture, now: Duration) -> Vec<Line> {
    let mut lines = vec![heading(picture, now)];
    lines.extend(steps(picture, now, LONGEST_LAST, |step| step.parent.is_none() || !step.state.is_well()));
    lines
}

/// The rows of the steps, with one that counts those for which there is no room.
fn steps(
    picture: &JobPicture,
    now: Duration,
    room: usize,
    is_wanted: impl Fn(&StepPicture) -> bool,
) -> Vec<Line> {
    let order: Vec<&StepPicture> = in_order(picture).filter(|step| is_wanted(step)).collect();
    let (shown, hidden) = choose(order, room);
    let widest = shown.iter().map(|step| indented(step).chars().count()).max().unwrap_or(0).min(WIDEST_ID);
    let mut lines: Vec<Line> = shown.iter().map(|step| row(picture, step, now, widest)).collect();
    if !hidden.is_empty() {
        lines.push(folded(&hidden));
    }
    lines
}

/// Every step, children below the step that makes them.
fn in_order(picture: &JobPicture) -> impl Iterator<Item = &StepPicture> {
    let mut open: Vec<usize> =
        (0..picture.steps.len()).rev().filter(|at| picture.steps[*at].parent.is_none()).collect();
    std::iter::from_fn(move || {
        let step = &picture.steps[open.pop()?];
        open.extend(step.children.iter().rev());
        Some(step)
    })
}

/// Those that are shown and those that are not, both in their order: all, or those that matter most.
fn choose(order: Vec<&StepPicture>, room: usize) -> (Vec<&StepPicture>, Vec<&StepPicture>) {
    if order.len() <= room {
        return (order, Vec::new());
    }
    // One row counts the others.
    let room = room.saturating_sub(1);
    let mut places: Vec<usize> = (0..order.len()).collect();
    places.sort_by_key(|place| weight(order[*place]));
    let mut is_shown = vec![false; order.len()];
    places.iter().take(room).for_each(|place| is_shown[*place] = true);
    let (shown, hidden): (Vec<_>, Vec<_>) =
        order.into_iter().zip(is_shown).partition(|(_, is_shown)| *is_shown);
    let steps = |pairs: Vec<(_, bool)>| pairs.into_iter().map(|(step, _)| step).collect();
    (steps(shown), steps(hidden))
}

/// The less, the sooner it is shown.
fn weight(step: &StepPicture) -> u8 {
    let child = u8::from(step.parent.is_some());
    match step.state {
        State::Failed { .. } => 0,
        State::AtGate { .. } => 1,
        State::Retrying { .. } => 2,
        State::Running => 3,
        State::Waiting => 4 + child,
        State::Cancelled => 6,
        State::Done { .. } | State::Skipped { .. } => 7 + child,
    }
}

fn folded(hidden: &[&StepPicture]) -> Line {
    let (mut over, mut running, mut waiting) = (0_u64, 0_u64, 0_u64);
    for step in hidden {
        match step.state {
            ref state if state.is_over() => over += 1,
            State::Waiting => waiting += 1,
            _ => running += 1,
        }
    }
    let counted = [(over, "ended"), (running, "under way"), (waiting, "waiting")];
    let counted = counted.iter().filter(|(count, _)| *count > 0);
    let words: Vec<String> = counted.map(|(count, word)| format!("{} {word}", with_commas(*count))).collect();
    line(&format!("  … {}", words.join(", ")), Paint::Faint)
}

fn indented(step: &StepPicture) -> String {
    format!("{}{}", "  ".repeat(step.depth), plain(step.label()))
}

fn row(picture: &JobPicture, step: &StepPicture, now: Duration, widest: usize) -> Line {
    let (sign, word, paint) = sign(step, now);
    let details = details(picture, step, now);
    line(&format!("{sign} {:widest$}  {word:9}  {details}", indented(step)), paint)
}

fn sign(step: &StepPicture, now: Duration) -> (char, &'static str, Paint) {
    match step.state {
        State::Waiting => ('·', "waiting", Paint::Faint),
        State::Running => {
            let turn = (now.as_millis() / SPINNER_PACE_MS) as usize % SPINNER.len();
            (SPINNER[turn], "running", Paint::Busy)
        }
        State::Retrying { .. } => ('↻', "retrying", Paint::Busy),
        State::AtGate { .. } => ('?', "gate", Paint::Busy),
        State::Done { cached: true, .. } => ('✓', "cached", Paint::Good),
        State::Done { .. } => ('✓', "done", Paint::Good),
        State::Skipped { .. } => ('-', "skipped", Paint::Faint),
        State::Failed { .. } => ('✗', "failed", Paint::Bad),
        State::Cancelled => ('✗', "cancelled", Paint::Bad),
    }
}

fn details(picture: &JobPicture, step: &StepPicture, now: Duration) -> String {
    let mut parts = Vec::new();
    match &step.state {
        State::Waiting => {
            let needs: Vec<&str> = picture.waits_for(step).take(4).collect();
            if !needs.is_empty() {
                parts.push(format!("for {}", needs.join(", ")));
            }
        }
        State::Retrying { until, kind } => {
            parts.push(format!("in {} after {kind}", show_tenths(until.saturating_sub(now))));
        }
        State::AtGate { message, choices } => parts.push(format!("{} ({message})", choices.join(" or "))),
        State::Skipped { reason } => parts.push(reason.replace('_', " ")),
        State::Failed { kind, message } => parts.push(format!("{kind}: {message}")),
        State::Running | State::Done { .. } | State::Cancelled => {}
    }
    parts.extend(children(picture, step));
    if !matches!(step.state, State::Skipped { .. } | State::Waiting) {
        parts.extend(step.model.clone());
        parts.extend(tokens(step));
        parts.extend(step.cut_at.map(|tokens| format!("cut at {} tokens", with_commas(tokens))));
    }
    if step.attempt > 1 && !step.state.is_well() {
        parts.push(format!("attempt {}", step.attempt));
    }
    parts.extend(elapsed(step, now).map(show_tenths));
    parts.join("  ")
}

fn children(picture: &JobPicture, step: &StepPicture) -> Option<String> {
    let over = step.children.iter().filter(|at| picture.steps[**at].state.is_over()).count();
    (!step.children.is_empty()).then(|| format!("{over} of {}", step.children.len()))
}

/// What a request under way has cost is known only about.
fn tokens(step: &StepPicture) -> Option<String> {
    match (step.tokens, step.pieces) {
        (0, 0) => None,
        (tokens, 0) => Some(format!("{} tokens", with_commas(tokens))),
        (tokens, pieces) => Some(format!("~{} tokens", with_commas(tokens + pieces))),
    }
}

fn elapsed(step: &StepPicture, now: Duration) -> Option<Duration> {
    match step.state {
        State::Running | State::AtGate { .. } => step.started.map(|started| now.saturating_sub(started)),
        State::Done { took, .. } => took,
        _ => None,
    }
}

/// Tenths up to a minute, then whole units.
fn show_tenths(time: Duration) -> String {
    if time.as_secs() < 60 {
        return format!("{:.1}s", time.as_secs_f64());
    }
    show_duration(time.as_secs())
}

fn line(text: &str, paint: Paint) -> Line {
    Line { text: plain(text).trim_end().to_owned(), paint }
}

/// Messages come from models and servers: what would steer the terminal is not passed on.
pub(crate) fn plain(text: &str) -> String {
    text.replace(char::is_control, " ")
}
