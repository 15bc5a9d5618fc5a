//! `requests`: what was asked, how it ended and what it took; newest first, followed, oldest first.

use std::time::Duration;

use orch_api::{RequestFilter, RequestView};
use orch_core::{Failure, UnixMillis};
use orchestratord::client::DaemonClient;
use orchestratord::request_log::LogReader;

use crate::arguments::RequestsArguments;
use crate::context::Context;
use crate::ending::CommandResult;
use crate::runtime::{block_on, repeat};

const FOLLOW_PACE: Duration = Duration::from_millis(250);
/// So many at a time while following.
const BATCH: usize = 1000;
/// The digits of an id that we made.
const OWN_ID: usize = 32;
/// As much of it as tells requests apart: its time, and the counter of those that came in the same millisecond.
const SHOWN_ID: usize = 24;

const HEADINGS: [&str; 12] = [
    "TIME", "ID", "MODEL", "INSTANCE", "KEY", "OUTCOME", "QUEUE", "FIRST", "TOTAL", "PROMPT", "CACHED", "OUT",
];
/// How wide each column is while following, where nobody knows what comes; longer words push the rest aside.
const FOLLOWED_WIDTHS: [usize; 12] = [24, SHOWN_ID, 12, 12, 8, 28, 6, 6, 6, 6, 6, 0];

/// Who can be asked for the log.
enum Source {
    Elsewhere(DaemonClient),
    /// The log is read where it lies, whether a daemon writes it or not.
    Here(LogReader),
}

pub(super) fn run(context: &Context, arguments: &RequestsArguments) -> CommandResult {
    let filter = filter(arguments);
    let mut rows = Source::of(context)?.read(&filter)?;
    if !arguments.follow {
        if context.printer.json() {
            return Ok(context.printer.document(&rows)?);
        }
        return Ok(context.printer.table(&HEADINGS, &rows.iter().map(cells).collect::<Vec<_>>())?);
    }
    rows.reverse();
    let mut last = rows.last().map_or(0, |row| row.seq);
    if !context.printer.json() {
        context.printer.line(followed(&HEADINGS))?;
    }
    show_stream(context, &rows)?;
    repeat(FOLLOW_PACE, || {
        let next = RequestFilter { after: Some(last), limit: Some(BATCH), ..filter.clone() };
        let rows = Source::of(context)?.read(&next)?;
        last = rows.last().map_or(last, |row| row.seq);
        show_stream(context, &rows)?;
        Ok(false)
    })
}

fn filter(arguments: &RequestsArguments) -> RequestFilter {
    RequestFilter {
        model: arguments.model.clone(),
        key: arguments.key.clone(),
        instance: arguments.instance.clone(),
        outcome: arguments.outcome.clone(),
        since: arguments.since.map(|since| since.before(UnixMillis::now()).to_rfc3339()),
        limit: Some(usize::from(arguments.limit)),
        ..RequestFilter::default()
    }
}

impl Source {
    fn of(context: &Context) -> Result<Self, Failure> {
        match context.remote()? {
            Some(client) => Ok(Source::Elsewhere(client)),
            None => Ok(Source::Here(LogReader::open(context.home()?)?)),
        }
    }

    fn read(&self, filter: &RequestFilter) -> Result<Vec<RequestView>, Failure> {
        match self {
            Source::Elsewhere(client) => block_on(client.requests(filter)),
            Source::Here(reader) => reader.requests(filter),
        }
    }
}

fn show_stream(context: &Context, rows: &[RequestView]) -> CommandResult {
    for row in rows {
        if context.printer.json() {
            context.printer.record(row)?;
        } else {
            context.printer.line(followed(&cells(row)))?;
        }
    }
    Ok(())
}

fn followed(cells: &[impl AsRef<str>]) -> String {
    let padded = cells.iter().zip(FOLLOWED_WIDTHS).map(|(cell, width)| format!("{:width$}", cell.as_ref()));
    padded.collect::<Vec<_>>().join("  ")
}

fn cells(row: &RequestView) -> Vec<String> {
    let or_dash = |text: Option<&str>| text.unwrap_or("-").to_owned();
    let ended = match (&row.code, row.status) {
        (Some(code), status) => format!("{} {status} {code}", row.outcome),
        (None, status) => format!("{} {status}", row.outcome),
    };
    vec![
        row.ts.clone(),
        shown_id(&row.id),
        or_dash(row.model.as_deref()),
        or_dash(row.instance.as_deref()),
        row.key_name.clone().unwrap_or_else(|| row.key.clone()),
        ended,
        show_millis(row.queue_ms),
        show_millis(row.first_token_ms),
        show_millis(Some(row.total_ms)),
        show_count(row.prompt_tokens),
        show_count(row.cached_tokens),
        show_count(row.completion_tokens),
    ]
}

/// What `replay` finds the request by: our own ids shortened, those of tasks, replays and clients in full.
fn shown_id(id: &str) -> String {
    let ours = id.len() == OWN_ID && id.bytes().all(|byte| byte.is_ascii_hexdigit());
    if ours { id[..SHOWN_ID].to_owned() } else { id.to_owned() }
}

/// `0.3ms`, `42ms`, `1.2s`.
pub(super) fn show_millis(millis: Option<f64>) -> String {
    match millis {
        None => "-".to_owned(),
        Some(millis) if millis < 10.0 => format!("{millis:.1}ms"),
        Some(millis) if millis < 1000.0 => format!("{millis:.0}ms"),
        Some(millis) => format!("{:.1}s", millis / 1e3),
    }
}

pub(super) fn show_count(count: Option<u64>) -> String {
    count.map_or_else(|| "-".to_owned(), |count| count.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_shown_as_exactly_as_they_are_worth() {
        let shown = [None, Some(0.26), Some(42.4), Some(1234.0)].map(show_millis);
        assert_eq!(shown, ["-", "0.3ms", "42ms", "1.2s"]);
    }
}
