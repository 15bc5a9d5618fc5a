//! `llama-orch`: the command line.

use std::process::ExitCode;

fn main() -> ExitCode {
    // An engine's shim is this same program: decided before anything is set up, so that it stays small.
    if std::env::args_os().nth(1).is_some_and(|argument| argument == "shim") {
        return ExitCode::from(engine_process::shim_main());
    }
    ExitCode::from(llama_orch::run(std::env::args_os()).number())
}
