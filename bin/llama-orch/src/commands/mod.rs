//! One module a command.

mod cancel;
mod completions;
mod config;
mod daemon;
mod decide;
mod describe;
mod doctor;
mod down;
mod engine;
mod events;
mod graph;
mod health;
mod init;
mod jobs;
mod jobs_elsewhere;
mod journal_words;
mod logs;
mod memory;
mod node;
mod plan;
mod ps;
mod quickstart;
mod replay;
mod requests;
mod restart;
mod rm;
mod run;
mod scale;
mod service;
mod show;
mod stats;
mod surroundings;
mod tail;
mod token;
mod unlock;
mod up;
mod why;
mod workflow_text;

use crate::arguments::{Command, ConfigAction, DaemonAction, EngineAction, GpuAction, NodeAction};
use crate::context::Context;
use crate::dashboard;
use crate::ending::CommandResult;
use crate::runtime::exit_on_interrupt;

/// Carries out what was typed.
pub(crate) fn run(context: &Context, command: Command) -> CommandResult {
    if !knows_servers(&command) {
        context.refuse_server()?;
    }
    if takes_long(&command) {
        exit_on_interrupt();
    }
    match command {
        Command::Quickstart(arguments) => quickstart::run(context, &arguments),
        Command::Init(arguments) => init::run(context, &arguments),
        Command::Up(arguments) => up::run(context, &arguments),
        Command::Down(arguments) => down::run(context, &arguments),
        Command::Restart(arguments) => restart::run(context, &arguments),
        Command::Rm(arguments) => rm::run(context, &arguments),
        Command::Ps(arguments) => ps::run(context, &arguments),
        Command::Health(arguments) => health::run(context, &arguments),
        Command::Logs(arguments) => logs::run(context, &arguments),
        Command::Stats(arguments) => stats::run(context, &arguments),
        Command::Dashboard(arguments) => dashboard::run(context, &arguments),
        Command::Gpu { action: GpuAction::List } => memory::list(context),
        Command::Node { action } => node::run(context, &action),
        Command::PlanLoad { name } => memory::plan_load(context, &name),
        Command::Describe { name } => describe::run(context, &name),
        Command::Plan(arguments) => plan::run(context, &arguments),
        Command::Run(arguments) => run::run(context, &arguments),
        Command::Events(arguments) => events::run(context, &arguments),
        Command::Requests(arguments) => requests::run(context, &arguments),
        Command::Replay(arguments) => replay::run(context, &arguments),
        Command::Graph(arguments) => graph::run(context, &arguments),
        Command::Show(arguments) => show::run(context, &arguments),
        Command::Tail(arguments) => tail::run(context, &arguments),
        Command::Jobs => jobs::run(context),
        Command::Decide(arguments) => decide::run(context, &arguments),
        Command::Cancel(arguments) => cancel::run(context, &arguments),
        Command::Why(arguments) => why::run(context, &arguments),
        Command::Config { action } => config::run(context, action),
        Command::Daemon { action } => daemon::run(context, action),
        Command::Engine { action } => engine::run(context, action),
        Command::Token { action } => token::run(context, action),
        Command::Doctor => doctor::run(context),
        Command::Completions { shell } => completions::run(context, shell),
    }
}

/// Commands that wait for something, and do not listen for Ctrl-C themselves.
fn takes_long(command: &Command) -> bool {
    match command {
        Command::Up(arguments) => !arguments.no_detach,
        Command::Engine { action } => matches!(action, EngineAction::Install(_)),
        Command::Config { action } => matches!(action, ConfigAction::Migrate { .. }),
        Command::Node { action } => matches!(action, NodeAction::Drain { .. }),
        Command::Daemon { action } => matches!(action, DaemonAction::Install(_) | DaemonAction::Uninstall(_)),
        Command::Quickstart(_)
        | Command::Down(_)
        | Command::Restart(_)
        | Command::Rm(_)
        | Command::Replay(_)
        | Command::Doctor => true,
        _ => false,
    }
}

/// Commands that can ask a control plane elsewhere.
fn knows_servers(command: &Command) -> bool {
    matches!(
        command,
        Command::Up(_)
            | Command::Down(_)
            | Command::Restart(_)
            | Command::Rm(_)
            | Command::Ps(_)
            | Command::Stats(_)
            | Command::Dashboard(_)
            | Command::Plan(_)
            | Command::Run(_)
            | Command::Requests(_)
            | Command::Replay(_)
            | Command::Describe { .. }
            | Command::Gpu { .. }
            | Command::Node { .. }
            | Command::PlanLoad { .. }
            | Command::Token { .. }
            | Command::Show(_)
            | Command::Decide(_)
            | Command::Cancel(_)
            | Command::Tail(_)
            | Command::Jobs
    )
}
