//! Follows the log of the instance that is looked at.

use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::time::Duration;

use engine_process::{Follower, LogFiles, LogLine, StreamSelection, tail_then_follow};
use orch_core::{Failure, ReplicaId};

use super::feed::Watched;
use super::model::{LogNews, Message};
use crate::context::Context;

/// Short enough that it reads as at once.
const PACE: Duration = Duration::from_millis(200);
/// Lines to begin with.
const BEGINNING: usize = 500;
/// Of a flood only the end can be read.
const MOST_AT_ONCE: usize = 2000;

/// The thread that follows.
pub(super) struct LogFeed {
    wishes: Sender<Option<String>>,
}

impl LogFeed {
    pub(super) fn start(context: &Arc<Context>, sender: &Sender<Message>) -> Self {
        let (wishes, wished) = mpsc::channel();
        let (context, watched) = (Arc::clone(context), Watched(sender.clone()));
        std::thread::spawn(move || follow(&context, &wished, &watched.0));
        Self { wishes }
    }

    /// From now on this instance's log, or none.
    pub(super) fn follow(&self, instance: Option<String>) {
        // A thread that is gone has said so itself.
        let _ = self.wishes.send(instance);
    }
}

/// A log that is being followed.
struct Following {
    instance: String,
    follower: Follower,
}

/// Ends with the dashboard.
fn follow(context: &Context, wished: &Receiver<Option<String>>, sender: &Sender<Message>) {
    let mut following: Option<Following> = None;
    loop {
        let wish = match &following {
            None => wished.recv().map_err(|_| RecvTimeoutError::Disconnected),
            Some(_) => wished.recv_timeout(PACE),
        };
        let news = match wish {
            Ok(None) => {
                following = None;
                None
            }
            Ok(Some(instance)) => {
                let (begun, news) = begin(context, instance);
                following = begun;
                Some(news)
            }
            Err(RecvTimeoutError::Timeout) => following.as_mut().and_then(go_on),
            Err(RecvTimeoutError::Disconnected) => return,
        };
        if news.is_some_and(|news| sender.send(Message::Log(news)).is_err()) {
            return;
        }
    }
}

fn begin(context: &Context, instance: String) -> (Option<Following>, LogNews) {
    let opened = open(context, &instance);
    let (follower, lines, problem) = match opened {
        Ok((lines, follower)) => (Some(follower), texts(lines), None),
        Err(failure) => (None, Vec::new(), Some(failure.message)),
    };
    let news = LogNews { instance: instance.clone(), fresh: true, lines, problem };
    (follower.map(|follower| Following { instance, follower }), news)
}

fn open(context: &Context, instance: &str) -> Result<(Vec<LogLine>, Follower), Failure> {
    if context.remote()?.is_some() {
        return Err(Failure::new(
            orch_core::ExitCode::Usage,
            "logs can be read on the machine where the instances are",
        ));
    }
    let (home, catalog) = (context.home()?, context.catalog()?);
    // No name holds a slash: what follows one is the number of a replica.
    let (name, number) = instance.split_once('/').unwrap_or((instance, ""));
    let replica = number.parse().map_or(ReplicaId::FIRST, ReplicaId);
    let config = &catalog.select(name)?.config;
    let path = |template: &str| instance_config::log_path(template, config, home, replica);
    let files = LogFiles { stdout: path(&config.logs.stdout), stderr: path(&config.logs.stderr) };
    tail_then_follow(&files, StreamSelection::Both, BEGINNING, None)
        .map_err(|error| unreadable(instance, &error))
}

fn unreadable(instance: &str, error: &std::io::Error) -> Failure {
    Failure::new(orch_core::ExitCode::General, format!("the log of {instance} cannot be read: {error}"))
}

fn go_on(following: &mut Following) -> Option<LogNews> {
    let (lines, problem) = match following.follower.poll() {
        Ok(lines) if lines.is_empty() => return None,
        Ok(lines) => (texts(lines), None),
        Err(error) => (Vec::new(), Some(unreadable(&following.instance, &error).message)),
    };
    Some(LogNews { instance: following.instance.clone(), fresh: false, lines, problem })
}

fn texts(mut lines: Vec<LogLine>) -> Vec<String> {
    let surplus = lines.len().saturating_sub(MOST_AT_ONCE);
    lines.drain(..surplus);
    lines.into_iter().map(|line| line.text).collect()
}
