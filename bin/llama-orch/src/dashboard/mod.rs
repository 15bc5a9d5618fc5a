//! `dashboard`: all instances on one screen, watched and steered by keys.
//!
//! A pure core between two rims: [`update::update`] turns a [`Model`] and a [`Message`] into the next model and
//! [`Effect`]s, [`view::draw`] turns a model into a frame. Whatever takes time (looking, following a log, steps) lives
//! in threads of its own and comes back as a message, so that drawing waits for nothing.

mod feed;
mod log_feed;
mod model;
mod names;
mod screen;
mod steps;
mod text;
mod theme;
mod update;
mod view;

#[cfg(test)]
mod tests;

use std::io::{self, IsTerminal};
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::time::Duration;

use orch_core::{ExitCode, Failure, UnixMillis};

use crate::arguments::DashboardArguments;
use crate::context::Context;
use crate::ending::{CommandResult, Ended};
use feed::Feed;
use log_feed::LogFeed;
use model::{Effect, Message, Model};
use screen::Screen;
use theme::Theme;

/// How long a frame may stand when nothing happens: ages on it grow.
const IDLE: Duration = Duration::from_secs(1);

pub(crate) fn run(context: &Context, arguments: &DashboardArguments) -> CommandResult {
    refuse_without_terminal(context)?;
    let events_for = arguments.events_for.as_deref().map(|name| feed::find(context, name)).transpose()?;
    let model = Model::new(feed::title(context)?, events_for.as_ref().map(ToString::to_string));
    let theme = Theme::new(context.color.on_stdout());
    let (sender, messages) = mpsc::channel();
    let context = Arc::new(context.clone());
    let screen = Screen::open().map_err(|error| lost(&error))?;
    let threads = Threads {
        feed: Feed::start(&context, events_for, &sender),
        log: LogFeed::start(&context, &sender),
        context,
        sender,
    };
    feed::listen(&threads.sender);
    live(model, screen, theme, &messages, &threads)
}

/// What works beside the drawing.
struct Threads {
    context: Arc<Context>,
    sender: Sender<Message>,
    feed: Feed,
    log: LogFeed,
}

/// The one loop: what has come in, what follows, a frame.
fn live(
    mut model: Model,
    mut screen: Screen,
    theme: Theme,
    messages: &Receiver<Message>,
    threads: &Threads,
) -> CommandResult {
    screen.draw(&mut model, theme).map_err(|error| lost(&error))?;
    loop {
        let first = match messages.recv_timeout(IDLE) {
            Ok(message) => message,
            Err(RecvTimeoutError::Timeout) => Message::Tick(UnixMillis::now()),
            Err(RecvTimeoutError::Disconnected) => Message::Broken("nobody is left to watch".to_owned()),
        };
        // A burst is one frame.
        for message in std::iter::once(first).chain(messages.try_iter()) {
            for effect in update::update(&mut model, message) {
                match effect {
                    Effect::Quit(ending) => return ending,
                    Effect::Look => threads.feed.look_now(),
                    Effect::FollowLog(instance) => threads.log.follow(instance),
                    Effect::Begin(step) => steps::begin(&threads.context, step, &threads.sender),
                    Effect::Suspend => screen.suspend().map_err(|error| lost(&error))?,
                    Effect::Redraw => screen.forget().map_err(|error| lost(&error))?,
                }
            }
        }
        screen.draw(&mut model, theme).map_err(|error| lost(&error))?;
    }
}

fn refuse_without_terminal(context: &Context) -> Result<(), Failure> {
    let dumb = std::env::var_os("TERM").is_some_and(|terminal| terminal == "dumb");
    let is_seen = io::stdin().is_terminal() && io::stdout().is_terminal() && !dumb;
    if is_seen && !context.printer.json() {
        return Ok(());
    }
    Err(Failure::new(ExitCode::Usage, "the dashboard needs a terminal")
        .hint("for scripts there are `llama-orch stats --json`, `ps --json` and `events -f --json`"))
}

/// A terminal that went away ends the dashboard as a closed pipe ends other commands.
fn lost(error: &io::Error) -> Ended {
    match error.kind() {
        io::ErrorKind::BrokenPipe | io::ErrorKind::UnexpectedEof => Ended::OutputClosed,
        _ => Failure::new(ExitCode::General, format!("the terminal cannot be used: {error}")).into(),
    }
}
