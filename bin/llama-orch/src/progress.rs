//! Long work, shown: a moving line on a terminal, plain lines otherwise.

use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use orch_core::ByteCount;

use crate::talk::Talk;

const TICK: Duration = Duration::from_millis(100);
/// Without a terminal a download is told each time so much more of it is there, in percent.
const PERCENT_STEP: u64 = 10;

/// A moving line for as long as something takes; nothing at all without a terminal.
pub(crate) struct Spinner {
    bar: ProgressBar,
}

impl Spinner {
    pub(crate) fn start(talk: Talk, message: &str) -> Self {
        let bar = if talk.shows_progress() { ProgressBar::new_spinner() } else { ProgressBar::hidden() };
        bar.set_message(message.to_owned());
        bar.enable_steady_tick(TICK);
        Self { bar }
    }

    /// Says something without the moving line in between.
    pub(crate) fn pause<T>(&self, say: impl FnOnce() -> T) -> T {
        self.bar.suspend(say)
    }

    pub(crate) fn stop(&self) {
        self.bar.finish_and_clear();
    }
}

/// Stages, downloads and tools, told as they go.
pub(crate) struct Stages {
    talk: Talk,
    /// Only on a terminal.
    bar: Option<ProgressBar>,
    told_percent: Mutex<u64>,
}

impl Stages {
    pub(crate) fn new(talk: Talk) -> Self {
        let bar = talk.shows_progress().then(ProgressBar::new_spinner);
        if let Some(bar) = &bar {
            bar.enable_steady_tick(TICK);
        }
        Self { talk, bar, told_percent: Mutex::new(0) }
    }

    pub(crate) fn step(&self, message: &str) {
        *self.told() = 0;
        match &self.bar {
            Some(bar) => {
                bar.set_style(ProgressStyle::default_spinner());
                bar.set_message(message.to_owned());
            }
            None => self.talk.note(message),
        }
    }

    fn bytes(&self, done: ByteCount, total: Option<ByteCount>) {
        match (&self.bar, total) {
            (Some(bar), Some(total)) => {
                if bar.length() != Some(total.0) {
                    bar.set_length(total.0);
                    bar.set_style(download_style());
                }
                bar.set_position(done.0);
            }
            (Some(bar), None) => bar.set_message(format!("{done}")),
            (None, Some(total)) => self.tell_percent(done, total),
            (None, None) => {}
        }
    }

    fn tell_percent(&self, done: ByteCount, total: ByteCount) {
        let percent = done.0.saturating_mul(100) / total.0.max(1);
        let mut told = self.told();
        if percent >= *told + PERCENT_STEP {
            *told = percent / PERCENT_STEP * PERCENT_STEP;
            self.talk.note(&format!("  {told} % of {total}"));
        }
    }

    /// A tool's own words: beside the moving line, or only when somebody asked for more.
    fn line(&self, line: &str) {
        if let Some(bar) = &self.bar {
            bar.set_message(line.chars().take(100).collect::<String>());
        }
        tracing::debug!(line, "tool");
    }

    fn told(&self) -> std::sync::MutexGuard<'_, u64> {
        self.told_percent.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Stages {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

impl engine_provisioner::Progress for Stages {
    fn step(&self, message: &str) {
        Stages::step(self, message);
    }

    fn bytes(&self, done: ByteCount, total: Option<ByteCount>) {
        Stages::bytes(self, done, total);
    }

    fn line(&self, line: &str) {
        Stages::line(self, line);
    }
}

impl model_provisioner::Progress for Stages {
    fn step(&self, message: &str) {
        Stages::step(self, message);
    }

    fn bytes(&self, done: ByteCount, total: Option<ByteCount>) {
        Stages::bytes(self, done, total);
    }
}

fn download_style() -> ProgressStyle {
    ProgressStyle::with_template("{spinner} {bytes}/{total_bytes} {wide_bar} {bytes_per_sec} {eta}")
        .unwrap_or_else(|_| ProgressStyle::default_bar())
}
