//! All that the dashboard knows, and everything that can happen to it.

use std::collections::VecDeque;

use orch_core::{EventLevel, ExitCode, Failure, Health, ReplicaId, Status, UnixMillis};
use pool_manager::stats::{InstanceStats, SlotActivity, SlotState};
use pool_manager::view::InstanceView;
use ratatui::crossterm::event::KeyEvent;

use super::names::COLUMNS;
use super::text::{plain, width_of};
use crate::ending::{CommandResult, Ended};
use crate::rows::{cells, replica_name};
use crate::watching::Keeper;
use crate::words::{or_dash, show_percent, show_rate};

/// Lines of a log that are kept to scroll back through.
const KEPT_LINES: usize = 2000;
/// Signs of slots that a cell has room for.
const MOST_SIGNS: usize = 8;

/// Everything that can happen.
#[derive(Debug)]
pub(super) enum Message {
    Key(KeyEvent),
    /// Pasted text is typed text.
    Pasted(String),
    /// The screen is another size now.
    Resized,
    /// Time has passed.
    Tick(UnixMillis),
    Seen(Box<Picture>),
    /// A look failed.
    Unseen {
        why: String,
        at: UnixMillis,
    },
    Log(LogNews),
    StepEnded {
        step: Step,
        outcome: Result<String, Failure>,
    },
    /// Somebody asks the process to end.
    Terminated,
    /// Somebody asks the process to stop for a while.
    #[cfg_attr(not(unix), allow(dead_code, reason = "only Unix stops processes"))]
    Suspended,
    /// Something without which the dashboard cannot go on is gone.
    Broken(String),
}

/// What is to be done outside of the model.
#[derive(Debug)]
pub(super) enum Effect {
    Quit(CommandResult),
    Look,
    /// Show this instance's log, or none.
    FollowLog(Option<String>),
    Begin(Step),
    Suspend,
    /// Draw every cell anew: somebody else wrote on the screen.
    Redraw,
}

/// What a look brought.
#[derive(Debug)]
pub(super) struct Picture {
    pub(super) keeper: Keeper,
    pub(super) rows: Vec<InstanceView>,
    pub(super) stats: Vec<InstanceStats>,
    pub(super) trouble: Option<String>,
    /// Newest first.
    pub(super) events: Vec<EventLine>,
    pub(super) at: UnixMillis,
}

/// One event.
#[derive(Clone, Debug)]
pub(super) struct EventLine {
    pub(super) at: UnixMillis,
    /// `None` for a word that is no level of ours.
    pub(super) level: Option<EventLevel>,
    pub(super) instance: String,
    pub(super) kind: String,
    pub(super) message: String,
}

/// What came of an engine's log.
#[derive(Debug)]
pub(super) struct LogNews {
    pub(super) instance: String,
    /// Whether the lines begin anew.
    pub(super) fresh: bool,
    pub(super) lines: Vec<String>,
    pub(super) problem: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum StepKind {
    Up,
    Down,
    Restart,
}

/// A step on one instance.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Step {
    pub(super) kind: StepKind,
    pub(super) instance: String,
}

impl Step {
    /// What is going on while it lasts.
    pub(super) fn doing(&self) -> String {
        let word = match self.kind {
            StepKind::Up => "starting",
            StepKind::Down => "stopping",
            StepKind::Restart => "restarting",
        };
        format!("{word} {}", self.instance)
    }
}

/// What keys mean at the moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    Normal,
    /// Letters go into the filter.
    Filter,
    Help,
    /// A question waits for yes or no.
    Confirm(Question),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Question {
    Step(Step),
    /// Quit although steps are under way.
    Quit,
}

/// One row of the table, ready to be drawn.
#[derive(Clone, Debug)]
pub(super) struct Row {
    pub(super) instance: String,
    pub(super) replica: ReplicaId,
    pub(super) status: Status,
    pub(super) health: Health,
    pub(super) cells: [String; COLUMNS.len()],
    pub(super) slots: Vec<SlotActivity>,
    pub(super) last_error: Option<String>,
    /// What a filter looks into.
    searched: String,
}

impl Row {
    /// What people call the replica.
    pub(super) fn label(&self) -> String {
        replica_name(&self.instance, self.replica)
    }
}

/// A line that tells how something ended.
#[derive(Clone, Debug)]
pub(super) struct Told {
    pub(super) text: String,
    pub(super) is_bad: bool,
}

/// The log of the selected replica.
#[derive(Clone, Debug, Default)]
pub(super) struct LogPane {
    pub(super) instance: String,
    pub(super) lines: VecDeque<String>,
    pub(super) problem: Option<String>,
    /// Lines between the last one shown and the end; 0 follows.
    pub(super) back: usize,
}

/// The state of the dashboard.
#[derive(Clone, Debug)]
pub(super) struct Model {
    /// Which home, or which control plane.
    pub(super) title: String,
    /// Whose events are shown, if not all.
    pub(super) events_for: Option<String>,
    pub(super) keeper: Option<Keeper>,
    pub(super) rows: Vec<Row>,
    /// What each column needs.
    pub(super) widths: [usize; COLUMNS.len()],
    pub(super) events: Vec<EventLine>,
    /// Generated tokens a second, all instances together, where any tells.
    pub(super) tokens_per_second: Option<f64>,
    pub(super) seen_at: Option<UnixMillis>,
    pub(super) now: UnixMillis,
    pub(super) trouble: Option<String>,
    pub(super) mode: Mode,
    pub(super) filter: String,
    /// The selected replica; it stays selected wherever its row goes.
    pub(super) selected: Option<(String, ReplicaId)>,
    /// Rows of the table that fit into the last frame.
    pub(super) page: usize,
    /// First row of the table in the last frame.
    pub(super) top: usize,
    /// Lines of the log that fit into the last frame.
    pub(super) log_page: usize,
    pub(super) log: Option<LogPane>,
    pub(super) told: Option<Told>,
    /// Steps under way.
    pub(super) under_way: Vec<Step>,
}

impl Model {
    pub(super) fn new(title: String, events_for: Option<String>) -> Self {
        Self {
            title,
            events_for,
            keeper: None,
            rows: Vec::new(),
            widths: COLUMNS.map(|column| column.heading.len()),
            events: Vec::new(),
            tokens_per_second: None,
            seen_at: None,
            now: UnixMillis::default(),
            trouble: None,
            mode: Mode::Normal,
            filter: String::new(),
            selected: None,
            page: 1,
            top: 0,
            log_page: 1,
            log: None,
            told: None,
            under_way: Vec::new(),
        }
    }

    /// The rows that the filter lets through.
    pub(super) fn shown(&self) -> Vec<&Row> {
        let words: Vec<String> = self.filter.split_whitespace().map(str::to_lowercase).collect();
        let fits = |row: &&Row| words.iter().all(|word| row.searched.contains(word));
        self.rows.iter().filter(fits).collect()
    }

    /// The selected row among those shown, by number: the first where the selected one is not shown.
    pub(super) fn position(&self, shown: &[&Row]) -> usize {
        let is_selected = |row: &&Row| {
            self.selected.as_ref().is_some_and(|(name, id)| row.instance == *name && row.replica == *id)
        };
        shown.iter().position(is_selected).unwrap_or(0)
    }

    pub(super) fn selected_row(&self) -> Option<&Row> {
        let shown = self.shown();
        shown.get(self.position(&shown)).copied()
    }

    /// Takes in what a look brought.
    pub(super) fn take_in(&mut self, picture: Picture) {
        let Picture { keeper, rows, stats, trouble, events, at } = picture;
        self.rows = rows.iter().map(|view| row(view, find(&stats, view), at)).collect();
        self.widths = COLUMNS.map(|column| column.heading.len());
        for row in &self.rows {
            for (width, cell) in self.widths.iter_mut().zip(&row.cells) {
                *width = (*width).max(width_of(cell));
            }
        }
        let rates: Vec<f64> = stats.iter().filter_map(|stats| stats.tokens_per_second).collect();
        self.tokens_per_second = (!rates.is_empty()).then(|| rates.iter().sum());
        self.keeper = Some(keeper);
        self.events = events;
        self.trouble = trouble;
        self.seen_at = Some(at);
        self.now = at;
    }
}

impl LogPane {
    pub(super) fn take_in(&mut self, news: LogNews) {
        if news.fresh {
            *self = LogPane { instance: news.instance, ..LogPane::default() };
        }
        self.problem = news.problem;
        if self.back > 0 {
            // Whoever reads further up is not pushed on.
            self.back += news.lines.len();
        }
        self.lines.extend(news.lines.iter().map(|line| plain(line)));
        let surplus = self.lines.len().saturating_sub(KEPT_LINES);
        self.lines.drain(..surplus);
        self.back = self.back.min(self.lines.len());
    }
}

impl Told {
    pub(super) fn good(text: impl Into<String>) -> Self {
        Self { text: text.into(), is_bad: false }
    }

    pub(super) fn bad(failure: &Failure) -> Self {
        let hint = failure.hint.as_ref().map_or(String::new(), |hint| format!(" ({hint})"));
        Self { text: format!("error: {}{hint}", failure.message), is_bad: true }
    }
}

/// How a dashboard ends that somebody broke off.
pub(super) fn interrupted() -> CommandResult {
    Err(Ended::Told(ExitCode::Interrupted))
}

fn find<'a>(stats: &'a [InstanceStats], view: &InstanceView) -> Option<&'a InstanceStats> {
    stats.iter().find(|stats| stats.name == view.name && stats.replica_id == view.replica_id)
}

fn row(view: &InstanceView, stats: Option<&InstanceStats>, now: UnixMillis) -> Row {
    // The engine's own count goes before the gateway's: requests may come past that.
    let counted = stats.and_then(|stats| stats.slots).or(view.slots);
    let mut known = cells(&InstanceView { slots: counted, ..view.clone() }, now).into_iter();
    let slots = stats.map_or(Vec::new(), |stats| stats.slot_activity.clone());
    let live = [
        or_dash(Some(signs(&slots)).filter(|signs| !signs.is_empty())),
        or_dash(stats.and_then(|stats| stats.tokens_per_second).map(show_rate)),
        or_dash(stats.and_then(|stats| stats.cpu_percent).map(show_percent)),
        or_dash(stats.and_then(|stats| stats.rss_bytes)),
        or_dash(stats.and_then(|stats| stats.vram_bytes)),
    ];
    let mut live = live.into_iter();
    let cells = std::array::from_fn(|_| known.next().or_else(|| live.next()).unwrap_or_default());
    let cells = cells.map(|cell: String| plain(&cell));
    let searched = format!(
        "{} {} {} {} {} {}",
        replica_name(&view.name, view.replica_id),
        view.display_name,
        view.model,
        view.backend,
        view.status,
        view.health
    );
    Row {
        instance: view.name.clone(),
        replica: view.replica_id,
        status: view.status,
        health: view.health,
        cells,
        slots,
        last_error: view.last_error.as_deref().map(plain),
        searched: searched.to_lowercase(),
    }
}

/// A sign for each slot: `.` idle, `P` reads a prompt, `W` writes.
fn signs(slots: &[SlotActivity]) -> String {
    let sign = |slot: &SlotActivity| match slot.state {
        SlotState::Idle => '.',
        SlotState::Prompt => 'P',
        SlotState::Writing => 'W',
    };
    let mut signs: String = slots.iter().take(MOST_SIGNS).map(sign).collect();
    if slots.len() > MOST_SIGNS {
        signs.push('+');
    }
    signs
}
