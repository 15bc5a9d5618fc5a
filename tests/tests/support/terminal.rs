//! A real terminal: tmux draws what the program writes, takes keys, and tells what stands on the screen.

use std::path::PathBuf;
use std::process::Command;

use testkit::wait_for;

use super::SOON;
use super::home::Home;

/// A terminal with a shell in it; ended when dropped.
pub(crate) struct RealTerminal {
    socket: PathBuf,
    program: String,
}

impl RealTerminal {
    pub(crate) fn open(home: &Home, width: u16, height: u16) -> Self {
        let command = home.command(&[]);
        let terminal = Self {
            socket: home.scratch().join("tmux"),
            program: command.get_program().to_string_lossy().into_owned(),
        };
        let mut tmux = terminal.tmux(&["-f", "/dev/null", "new-session", "-d"]);
        tmux.args(["-x", &width.to_string(), "-y", &height.to_string(), "bash --norc -i"]);
        for (name, value) in command.get_envs() {
            match value {
                Some(value) => tmux.env(name, value),
                None => tmux.env_remove(name),
            };
        }
        tmux.current_dir(home.scratch());
        testkit::run(tmux).expect_exit(0);
        terminal.wait_for("the shell", |screen| screen.trim_end().ends_with(['$', '#']));
        terminal
    }

    #[expect(clippy::disallowed_methods, reason = "the terminal is another program")]
    fn tmux(&self, arguments: &[&str]) -> Command {
        let mut tmux = Command::new("tmux");
        tmux.arg("-u").arg("-S").arg(&self.socket).args(arguments);
        tmux
    }

    /// Runs `llama-orch` with these words in the shell, which then tells the exit code as `rc=`.
    pub(crate) fn start(&self, words: &str) {
        self.keys(&[&format!("clear; {} {words}; echo rc=$?", self.program), "Enter"]);
    }

    /// Keys by tmux's names; other words are typed.
    pub(crate) fn keys(&self, keys: &[&str]) {
        let mut tmux = self.tmux(&["send-keys"]);
        tmux.args(keys);
        testkit::run(tmux).expect_exit(0);
    }

    pub(crate) fn resize(&self, width: u16, height: u16) {
        let (width, height) = (width.to_string(), height.to_string());
        testkit::run(self.tmux(&["resize-window", "-x", &width, "-y", &height])).expect_exit(0);
    }

    /// What stands on the screen.
    pub(crate) fn screen(&self) -> String {
        let run = testkit::run(self.tmux(&["capture-pane", "-p"]));
        run.expect_exit(0);
        run.stdout
    }

    /// Waits until the screen shows something, and returns it.
    #[track_caller]
    pub(crate) fn wait_for(&self, what: &str, condition: impl Fn(&str) -> bool) -> String {
        let mut last = String::new();
        let shown = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            wait_for(what, SOON, || {
                last = self.screen();
                condition(&last)
            });
        }));
        if let Err(panic) = shown {
            eprintln!("the screen while waiting for {what}:\n{last}");
            std::panic::resume_unwind(panic);
        }
        last
    }

    #[track_caller]
    pub(crate) fn wait_for_text(&self, text: &str) -> String {
        self.wait_for(text, |screen| screen.contains(text))
    }
}

impl Drop for RealTerminal {
    fn drop(&mut self) {
        // Gone already is as good.
        let _ = self.tmux(&["kill-server"]).output();
    }
}
