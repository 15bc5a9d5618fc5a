//! `orchestratord`: the control plane by itself.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use orch_core::HomeLayout;
use orch_runtime::telemetry::{self, TelemetryOptions};
use orchestratord::daemon::{ADDR, DaemonOptions, run};

/// The control plane of llama-orch: one API in front of many llama.cpp servers.
#[derive(Parser)]
#[command(name = "orchestratord", version)]
struct Arguments {
    /// The home folder.
    #[arg(long, env = "LLAMA_ORCH_HOME")]
    home: PathBuf,
    /// Address to listen on (default 127.0.0.1:8080).
    #[arg(long)]
    addr: Option<String>,
}

fn main() -> ExitCode {
    // An engine's shim is this same program: decided first, so that it stays small.
    if std::env::args_os().nth(1).is_some_and(|argument| argument == "shim") {
        return ExitCode::from(engine_process::shim_main());
    }
    let arguments = Arguments::parse();
    let filter = std::env::var(orch_runtime::environment::LOG).ok();
    let result =
        telemetry::init(&TelemetryOptions { filter, default_filter: "info", color: true }).and_then(|()| {
            let home = std::path::absolute(&arguments.home).unwrap_or(arguments.home);
            let flags = arguments.addr.map(|addr| (ADDR, addr)).into_iter().collect();
            run(&DaemonOptions { home: HomeLayout::new(home), flags })
        });
    pool_managerd::compose::report(result)
}
