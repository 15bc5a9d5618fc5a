//! Looks at the instances each second, and listens to keys and signals: the threads that fill the channel.

use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::time::{Duration, Instant};

use orch_core::{EventLevel, ExitCode, Failure, InstanceName, UnixMillis};
use pool_manager::stats::Sampler;
use ratatui::crossterm::event::{self, Event};
use state_store::EventQuery;

use super::model::{EventLine, Message, Picture};
use super::text::plain;
use crate::context::Context;
use crate::rows::broken_row;
use crate::runtime::block_on;
use crate::watching::{Keeper, look_closely};

/// From the begin of one look to the begin of the next.
const PACE: Duration = Duration::from_secs(1);
/// More than any screen shows.
const EVENTS: usize = 100;

/// The thread that looks.
pub(super) struct Feed {
    wishes: Sender<()>,
}

impl Feed {
    pub(super) fn start(
        context: &Arc<Context>,
        events_for: Option<InstanceName>,
        sender: &Sender<Message>,
    ) -> Self {
        let (wishes, wished) = mpsc::channel();
        let (context, watched) = (Arc::clone(context), Watched(sender.clone()));
        std::thread::spawn(move || look_again_and_again(&context, events_for.as_ref(), &wished, &watched.0));
        Self { wishes }
    }

    /// Not at the next turn: now.
    pub(super) fn look_now(&self) {
        // A thread that is gone has said so itself.
        let _ = self.wishes.send(());
    }
}

/// A thread that dies by a fault says so: a screen that stands still would lie.
pub(super) struct Watched(pub(super) Sender<Message>);

impl Drop for Watched {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let _ = self.0.send(Message::Broken("a part of the dashboard has failed".to_owned()));
        }
    }
}

/// Ends with the dashboard.
fn look_again_and_again(
    context: &Context,
    events_for: Option<&InstanceName>,
    wished: &Receiver<()>,
    sender: &Sender<Message>,
) {
    let mut sampler = Sampler::default();
    loop {
        let begun = Instant::now();
        let message = match take_picture(context, events_for, &mut sampler) {
            Ok(picture) => Message::Seen(Box::new(picture)),
            Err(failure) => Message::Unseen { why: failure.message, at: UnixMillis::now() },
        };
        if sender.send(message).is_err() {
            return;
        }
        match wished.recv_timeout(PACE.saturating_sub(begun.elapsed())) {
            // Wishes that came meanwhile are one.
            Ok(()) => while wished.try_recv().is_ok() {},
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return,
        }
    }
}

fn take_picture(
    context: &Context,
    events_for: Option<&InstanceName>,
    sampler: &mut Sampler,
) -> Result<Picture, Failure> {
    let mut seen = look_closely(context, sampler)?;
    if !seen.broken.is_empty() {
        let node_id = context.node_id()?;
        seen.rows.extend(seen.broken.iter().map(|broken| broken_row(broken, &node_id)));
    }
    let events = match seen.keeper {
        Keeper::Elsewhere => events_elsewhere(context, events_for)?,
        Keeper::Daemon | Keeper::Nobody => events_here(context, events_for)?,
    };
    Ok(Picture {
        keeper: seen.keeper,
        rows: seen.rows,
        stats: seen.stats,
        trouble: seen.trouble,
        events,
        at: UnixMillis::now(),
    })
}

fn events_here(context: &Context, events_for: Option<&InstanceName>) -> Result<Vec<EventLine>, Failure> {
    let Some(reader) = context.reader()? else { return Ok(Vec::new()) };
    let query = EventQuery { instance: events_for.cloned(), limit: EVENTS, ..EventQuery::default() };
    let events = reader.events(&query)?;
    let line = |event: state_store::EventRow| EventLine {
        at: event.ts,
        level: Some(event.level),
        instance: plain(event.instance.as_deref().unwrap_or("-")),
        kind: plain(&event.event_type),
        message: plain(&event.message),
    };
    Ok(events.into_iter().map(line).collect())
}

fn events_elsewhere(context: &Context, events_for: Option<&InstanceName>) -> Result<Vec<EventLine>, Failure> {
    let Some(client) = context.remote()? else { return Ok(Vec::new()) };
    let events = block_on(client.events(events_for.map(InstanceName::as_str), EVENTS))?;
    Ok(events.iter().map(told_event).collect())
}

/// An event as `/v2/events` tells it.
fn told_event(event: &orch_api::Event) -> EventLine {
    EventLine {
        at: UnixMillis::from_rfc3339(&event.ts).unwrap_or_default(),
        level: EventLevel::from_label(&event.level),
        instance: plain(event.instance.as_deref().unwrap_or("-")),
        kind: plain(&event.event_type),
        message: plain(&event.message),
    }
}

/// Which instances are watched, in the headline's words.
pub(super) fn title(context: &Context) -> Result<String, Failure> {
    match context.remote()? {
        Some(client) => Ok(client.address()),
        None => Ok(context.home()?.root().display().to_string()),
    }
}

/// The instance of `--events-for`. Elsewhere only names are known.
pub(super) fn find(context: &Context, selector: &str) -> Result<InstanceName, Failure> {
    if context.remote()?.is_some() {
        return InstanceName::new(selector)
            .map_err(|error| Failure::new(ExitCode::InstanceNotFound, error.to_string()));
    }
    context.name_in_history(selector)
}

/// Keys, sizes and signals from now on.
pub(super) fn listen(sender: &Sender<Message>) {
    let keys = Watched(sender.clone());
    std::thread::spawn(move || listen_to_keys(&keys.0));
    let signals = Watched(sender.clone());
    std::thread::spawn(move || {
        // Where they cannot be heard the system's own way of ending is left.
        let _ = block_on(listen_to_signals(&signals.0));
    });
}

fn listen_to_keys(sender: &Sender<Message>) {
    loop {
        let message = match event::read() {
            Ok(Event::Key(key)) => Message::Key(key),
            Ok(Event::Paste(text)) => Message::Pasted(text),
            Ok(Event::Resize(..)) => Message::Resized,
            Ok(Event::FocusGained | Event::FocusLost | Event::Mouse(_)) => continue,
            Err(error) => Message::Broken(format!("the keyboard cannot be read: {error}")),
        };
        let is_last = matches!(message, Message::Broken(_));
        if sender.send(message).is_err() || is_last {
            return;
        }
    }
}

#[cfg(unix)]
async fn listen_to_signals(sender: &Sender<Message>) -> Result<(), Failure> {
    use tokio::signal::unix::{SignalKind, signal};

    let unheard = |error: std::io::Error| Failure::new(ExitCode::General, error.to_string());
    let mut hangup = signal(SignalKind::hangup()).map_err(unheard)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(unheard)?;
    let mut terminate = signal(SignalKind::terminate()).map_err(unheard)?;
    let stop = SignalKind::from_raw(nix::sys::signal::Signal::SIGTSTP as i32);
    let mut suspend = signal(stop).map_err(unheard)?;
    loop {
        let message = tokio::select! {
            _ = hangup.recv() => Message::Terminated,
            _ = interrupt.recv() => Message::Terminated,
            _ = terminate.recv() => Message::Terminated,
            _ = suspend.recv() => Message::Suspended,
        };
        if sender.send(message).is_err() {
            return Ok(());
        }
    }
}

#[cfg(not(unix))]
async fn listen_to_signals(sender: &Sender<Message>) -> Result<(), Failure> {
    let ended = orch_runtime::termination(false)
        .map_err(|error| Failure::new(ExitCode::General, error.to_string()))?;
    ended.await;
    // Nobody listens any more: it has ended already.
    let _ = sender.send(Message::Terminated);
    Ok(())
}
