//! `events`: what happened, newest first; followed, oldest first.

use std::time::Duration;

use orch_core::{Failure, UnixMillis};
use pool_manager::view::told_event;
use state_store::{EventQuery, EventRow, StateReader};

use crate::arguments::EventsArguments;
use crate::context::Context;
use crate::ending::CommandResult;
use crate::runtime::repeat;

const FOLLOW_PACE: Duration = Duration::from_millis(250);
/// So many at a time while following.
const BATCH: usize = 1000;

pub(super) fn run(context: &Context, arguments: &EventsArguments) -> CommandResult {
    let query = query(context, arguments)?;
    let mut reader = context.reader()?;
    let mut events = read(reader.as_ref(), &query)?;
    if !arguments.follow {
        return show_all(context, &events);
    }
    events.reverse();
    let mut last = events.last().map_or(0, |event| event.id);
    show_stream(context, &events)?;
    repeat(FOLLOW_PACE, || {
        if reader.is_none() {
            reader = context.reader()?;
        }
        let next = EventQuery { after_id: Some(last), newest_first: false, limit: BATCH, ..query.clone() };
        let events = read(reader.as_ref(), &next)?;
        last = events.last().map_or(last, |event| event.id);
        show_stream(context, &events)?;
        Ok(false)
    })
}

fn query(context: &Context, arguments: &EventsArguments) -> Result<EventQuery, Failure> {
    let instance = arguments.instance.as_deref().map(|name| context.name_in_history(name)).transpose()?;
    Ok(EventQuery {
        instance,
        minimum_level: arguments.level,
        event_type: arguments.event_type,
        since: arguments.since.map(|since| since.before(UnixMillis::now())),
        after_id: None,
        limit: arguments.limit,
        newest_first: true,
    })
}

/// A home without a database has seen nothing yet.
fn read(reader: Option<&StateReader>, query: &EventQuery) -> Result<Vec<EventRow>, Failure> {
    match reader {
        Some(reader) => Ok(reader.events(query)?),
        None => Ok(Vec::new()),
    }
}

fn show_all(context: &Context, events: &[EventRow]) -> CommandResult {
    if context.printer.json() {
        let events: Vec<_> = events.iter().map(told_event).collect();
        return Ok(context.printer.document(&events)?);
    }
    show_stream(context, events)
}

fn show_stream(context: &Context, events: &[EventRow]) -> CommandResult {
    for event in events {
        if context.printer.json() {
            context.printer.record(&told_event(event))?;
        } else {
            context.printer.line(line(event))?;
        }
    }
    Ok(())
}

fn line(event: &EventRow) -> String {
    let instance = event.instance.as_deref().unwrap_or("-");
    format!(
        "{}  {:7}  {instance:16}  {:17}  {}",
        event.ts.to_rfc3339(),
        event.level,
        event.event_type,
        event.message
    )
}
