//! The command line: what a user typed becomes one call into the libraries, and their answer becomes text.
//!
//! Commands ask the living daemon of the home, or a control plane elsewhere, where there is one, and otherwise do
//! the step themselves under the same locks. The crate deliberately decides nothing about instances, engines or
//! requests: it chooses, asks, waits and prints.
//!
//! Read first: [`arguments`], what can be typed, and `context::Context`, what every command gets.

mod answer_text;
pub mod arguments;
mod chat;
mod commands;
mod context;
mod daemon_control;
mod dashboard;
mod ending;
mod live;
mod printer;
mod progress;
mod rows;
mod runtime;
mod services;
mod steps;
mod talk;
mod targets;
mod terminal;
mod watching;
mod words;

use std::ffi::OsString;

use clap::Parser;
use orch_core::{ExitCode, Failure};
use orch_runtime::environment;
use orch_runtime::telemetry::{self, TelemetryOptions};

use arguments::{Arguments, Command, DaemonAction};
use context::Context;
use ending::Ended;
use talk::Talk;

/// Runs one command line to its end and gives the exit code.
pub fn run(typed: impl IntoIterator<Item = OsString>) -> ExitCode {
    let arguments = match Arguments::try_parse_from(typed) {
        Ok(arguments) => arguments,
        Err(told) => return usage(&told),
    };
    let talk = Talk::new(&arguments.global);
    let result = start_log(&arguments)
        .map_err(Ended::from)
        .and_then(|()| commands::run(&Context::new(&arguments.global, talk), arguments.command));
    match result {
        Ok(()) | Err(Ended::OutputClosed) => ExitCode::Success,
        Err(Ended::Told(code)) => code,
        Err(Ended::Failure(failure)) => {
            talk.failure(&failure);
            failure.exit
        }
    }
}

/// Help and version are answers; everything else that clap says is a usage error.
fn usage(told: &clap::Error) -> ExitCode {
    // Somebody who closed the pipe needs no answer.
    let _ = told.print();
    if told.use_stderr() { ExitCode::Usage } else { ExitCode::Success }
}

/// Commands log only when somebody asks for it; the daemon always.
fn start_log(arguments: &Arguments) -> Result<(), Failure> {
    let filter = std::env::var(environment::LOG).ok().filter(|filter| !filter.is_empty());
    let is_daemon = matches!(
        &arguments.command,
        Command::Daemon { action: DaemonAction::Start { foreground: true, .. } }
    );
    let default_filter = match (is_daemon, arguments.global.verbose) {
        (true, 0) => "info",
        (false, 0 | 1) => "warn",
        (true | false, _) => "debug",
    };
    if !is_daemon && filter.is_none() && default_filter == "warn" {
        return Ok(());
    }
    telemetry::init(&TelemetryOptions { filter, default_filter, color: arguments.global.color.on_stderr() })
}
