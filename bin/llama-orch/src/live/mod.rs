//! A job shown while it runs: a picture that is drawn again in place on a terminal, else a line for each event that
//! matters; or the journal itself, for programs.
//!
//! [`JobPicture`] is the pure middle: journal lines in, rows out.

mod model;
mod plain;
mod rows;
mod screen;
#[cfg(test)]
mod tests;

use std::io::{self, Write};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use ratatui::crossterm::terminal;
use workflow::{Event, Watch};

pub(crate) use model::JobPicture;

use crate::printer::Printer;
use crate::talk::Talk;
use plain::Teller;
use screen::Screen;

/// Ten times a second is as much as eyes take in.
const PACE: Duration = Duration::from_millis(100);
const USUAL_SIZE: (u16, u16) = (80, 24);

/// Shows a job.
pub(crate) enum Show {
    Tree(Tree),
    Lines { talk: Talk, teller: Mutex<Teller> },
    Journal(Printer),
    Nothing,
}

impl Show {
    /// What suits whoever looks.
    pub(crate) fn new(printer: Printer, talk: Talk, picture: JobPicture) -> Self {
        if printer.json() {
            Self::Journal(printer)
        } else if talk.shows_progress() && crate::terminal::understands_escapes() {
            Self::Tree(Tree::start(talk, picture))
        } else if talk.is_quiet() {
            Self::Nothing
        } else {
            Self::Lines { talk, teller: Mutex::default() }
        }
    }

    /// Lines that were added to the journal.
    pub(crate) fn lines(&self, bytes: &[u8]) {
        match self {
            Self::Tree(tree) => tree.hear(bytes),
            Self::Lines { talk, teller } => {
                let events: Vec<Event> = events(bytes).collect();
                talk.text(&locked(teller).tell(&events));
            }
            // A reader that went away does not end the job.
            Self::Journal(printer) => drop(printer.text(&String::from_utf8_lossy(bytes))),
            Self::Nothing => {}
        }
    }

    /// A piece of a step's answer.
    pub(crate) fn piece(&self, step: &str) {
        if let Self::Tree(tree) = self {
            locked(&tree.picture).piece(step);
        }
    }

    /// Something that should be seen for as long as the job runs.
    pub(crate) fn notice(&self, text: &str) {
        match self {
            Self::Tree(tree) => locked(&tree.picture).notice = Some(text.to_owned()),
            Self::Lines { talk, .. } => talk.note(text),
            Self::Journal(_) | Self::Nothing => {}
        }
    }

    /// Leaves what stays.
    pub(crate) fn finish(&self) {
        if let Self::Tree(tree) = self {
            tree.finish();
        }
    }
}

impl Watch for Show {
    fn lines(&self, journal: &[u8]) {
        Show::lines(self, journal);
    }

    fn piece(&self, step: &str, _: &str) {
        Show::piece(self, step);
    }
}

/// The picture on a terminal, drawn by a thread of its own.
pub(crate) struct Tree {
    picture: Arc<Mutex<JobPicture>>,
    begun: Instant,
    drawer: Mutex<Option<(Sender<()>, JoinHandle<()>)>>,
}

impl Tree {
    fn start(talk: Talk, picture: JobPicture) -> Self {
        let picture = Arc::new(Mutex::new(picture));
        let begun = Instant::now();
        let (ended, is_ended) = channel();
        let drawn = Arc::clone(&picture);
        let drawer = std::thread::spawn(move || draw(&drawn, begun, talk.has_color(), &is_ended));
        Self { picture, begun, drawer: Mutex::new(Some((ended, drawer))) }
    }

    fn hear(&self, bytes: &[u8]) {
        let now = self.begun.elapsed();
        let mut picture = locked(&self.picture);
        events(bytes).for_each(|event| picture.hear(&event, now));
    }

    fn finish(&self) {
        if let Some((ended, drawer)) = locked(&self.drawer).take() {
            drop(ended);
            // A drawer that panicked has nothing left to draw.
            let _ = drawer.join();
        }
    }
}

/// A run that is given up leaves the terminal in order as well.
impl Drop for Tree {
    fn drop(&mut self) {
        self.finish();
    }
}

/// Draws until the sender goes, then what stays.
fn draw(picture: &Mutex<JobPicture>, begun: Instant, color: bool, ended: &Receiver<()>) {
    let mut screen = Screen::default();
    loop {
        let is_last = !matches!(ended.recv_timeout(PACE), Err(RecvTimeoutError::Timeout));
        let (width, height) = terminal::size().unwrap_or(USUAL_SIZE);
        let now = begun.elapsed();
        let lines = {
            let picture = locked(picture);
            // The cursor stands on a row of its own, below.
            if is_last {
                rows::last(&picture, now)
            } else {
                rows::live(&picture, now, usize::from(height).saturating_sub(1))
            }
        };
        let text = screen.replace(&lines, width.into(), color);
        let mut stderr = io::stderr().lock();
        // Nobody to show it to is nobody who misses it.
        let _ = stderr.write_all(text.as_bytes()).and_then(|()| stderr.flush());
        if is_last {
            return;
        }
    }
}

fn events(bytes: &[u8]) -> impl Iterator<Item = Event> {
    bytes.split(|byte| *byte == b'\n').filter_map(|line| serde_json::from_slice(line).ok())
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
