//! A stand-in for `llama-server` that misbehaves on request.
//!
//! It takes the same flags, answers the same paths in the same shapes and stops the way the real one does; it
//! computes nothing. Each `FAKE_*` variable is one fault, and all can be changed while it runs
//! (`POST /fake/faults`). `--help` lists them. What it saw and did can be asked under `/fake/`.
//!
//! Read first: `faults::KNOBS`, what can go wrong, and `engine::Engine`, the state that all threads share.

#![expect(clippy::disallowed_methods, reason = "a test tool: it waits on the real clock and has children")]

mod answers;
mod children;
mod connection;
mod control;
mod disguise;
mod engine;
mod faults;
mod flags;
mod generation;
mod lifecycle;
mod logs;
mod models;
mod options;
mod router;
mod signals;
mod stream;

use std::io::Write;
use std::process::ExitCode;

use crate::faults::Faults;
use crate::options::{Action, Options};

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let Some(manners) = children::is_child(&arguments) {
        children::live(manners);
    }
    let begun = Faults::from_environment(std::env::vars())
        .and_then(|faults| Options::parse(&arguments, &faults).map(|action| (action, faults)));
    match begun {
        Ok((Action::Serve(options), faults)) => lifecycle::run(options, faults),
        Ok((Action::PrintOut(text), _)) => {
            let _ = std::io::stdout().write_all(text.as_bytes());
            ExitCode::SUCCESS
        }
        Ok((Action::PrintErr(text), _)) => {
            let _ = std::io::stderr().write_all(text.as_bytes());
            ExitCode::SUCCESS
        }
        Err(message) => {
            eprintln!("{message}");
            ExitCode::FAILURE
        }
    }
}
