//! How things look. Colour only repeats what words and signs say already: without it nothing is lost.

use orch_core::{EventLevel, Health, Status};
use ratatui::style::{Color, Modifier, Style};

/// The looks of one run.
#[derive(Clone, Copy, Debug)]
pub(super) struct Theme {
    color: bool,
}

impl Theme {
    pub(super) fn new(color: bool) -> Self {
        Self { color }
    }

    pub(super) fn heading() -> Style {
        Style::new().add_modifier(Modifier::BOLD)
    }

    /// Bars that part the panes.
    pub(super) fn bar() -> Style {
        Style::new().add_modifier(Modifier::REVERSED)
    }

    pub(super) fn selected() -> Style {
        Style::new().add_modifier(Modifier::REVERSED)
    }

    pub(super) fn faint() -> Style {
        Style::new().add_modifier(Modifier::DIM)
    }

    pub(super) fn trouble(self) -> Style {
        self.painted(Color::Red).add_modifier(Modifier::BOLD)
    }

    pub(super) fn question(self) -> Style {
        self.painted(Color::Yellow).add_modifier(Modifier::BOLD)
    }

    pub(super) fn status(self, status: Status) -> Style {
        match status {
            Status::Running => self.painted(Color::Green),
            Status::Starting | Status::Stopping => self.painted(Color::Yellow),
            Status::Crashed | Status::Error | Status::Unknown => self.painted(Color::Red),
            Status::Stopped => Self::faint(),
        }
    }

    pub(super) fn health(self, health: Health) -> Style {
        match health {
            Health::Healthy => self.painted(Color::Green),
            Health::Loading => self.painted(Color::Yellow),
            Health::Unhealthy | Health::Error => self.painted(Color::Red),
            Health::Unknown => Self::faint(),
        }
    }

    pub(super) fn level(self, level: Option<EventLevel>) -> Style {
        match level {
            Some(EventLevel::Error) => self.painted(Color::Red),
            Some(EventLevel::Warning) => self.painted(Color::Yellow),
            Some(EventLevel::Info) | None => Style::new(),
        }
    }

    fn painted(self, color: Color) -> Style {
        if self.color { Style::new().fg(color) } else { Style::new() }
    }
}
