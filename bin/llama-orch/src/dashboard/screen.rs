//! The terminal: taken, drawn on, and given back however the program ends.

use std::io::{self, Stdout, stdout};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use ratatui::Terminal;
use ratatui::backend::CrosstermBackend;
use ratatui::crossterm::cursor::Show;
use ratatui::crossterm::event::{DisableBracketedPaste, EnableBracketedPaste};
use ratatui::crossterm::execute;
use ratatui::crossterm::terminal::{
    EnterAlternateScreen, LeaveAlternateScreen, disable_raw_mode, enable_raw_mode,
};
use ratatui::layout::Rect;

use super::model::Model;
use super::theme::Theme;
use super::view;

/// The screen while it is ours. Dropping it gives it back.
pub(super) struct Screen {
    terminal: Terminal<CrosstermBackend<Stdout>>,
    hold: Arc<Hold>,
}

/// Whether the terminal is in our hands: given back once, by whoever comes first.
#[derive(Default)]
struct Hold {
    taken: AtomicBool,
}

impl Hold {
    fn take(&self) -> io::Result<()> {
        self.taken.store(true, Ordering::SeqCst);
        enable_raw_mode()?;
        execute!(stdout(), EnterAlternateScreen, EnableBracketedPaste)
    }

    fn give_back(&self) {
        if self.taken.swap(false, Ordering::SeqCst) {
            // A terminal that is gone needs nothing back.
            let _ = execute!(stdout(), DisableBracketedPaste, LeaveAlternateScreen, Show);
            let _ = disable_raw_mode();
        }
    }
}

impl Screen {
    pub(super) fn open() -> io::Result<Self> {
        let hold = Arc::new(Hold::default());
        give_back_before_a_panic_is_told(&hold);
        let opened = hold.take().and_then(|()| Terminal::new(CrosstermBackend::new(stdout())));
        match opened {
            Ok(terminal) => Ok(Self { terminal, hold }),
            Err(error) => {
                hold.give_back();
                Err(error)
            }
        }
    }

    pub(super) fn draw(&mut self, model: &mut Model, theme: Theme) -> io::Result<()> {
        self.terminal.draw(|frame| view::draw(frame, model, theme))?;
        Ok(())
    }

    /// The next frame is drawn from nothing: what stands there is not ours.
    pub(super) fn forget(&mut self) -> io::Result<()> {
        // `clear` would ask the terminal for the cursor, and the thread that reads keys would swallow the answer.
        let size = self.terminal.size()?;
        self.terminal.resize(Rect::new(0, 0, size.width, size.height))
    }

    /// Gives the terminal back, stops the whole job as the shell expects it, and takes up again when it goes on.
    #[cfg(unix)]
    pub(super) fn suspend(&mut self) -> io::Result<()> {
        use nix::sys::signal::{Signal, kill};
        use nix::unistd::Pid;

        self.hold.give_back();
        // Process 0: everybody in our group. SIGTSTP itself is caught by us.
        kill(Pid::from_raw(0), Signal::SIGSTOP).map_err(io::Error::from)?;
        self.hold.take()?;
        self.forget()
    }

    /// There is no such thing here.
    #[cfg(not(unix))]
    pub(super) fn suspend(&mut self) -> io::Result<()> {
        self.forget()
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        self.hold.give_back();
    }
}

/// A message that nobody can read helps nobody.
fn give_back_before_a_panic_is_told(hold: &Arc<Hold>) {
    let hold = Arc::clone(hold);
    let tell = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        hold.give_back();
        tell(panic);
    }));
}
