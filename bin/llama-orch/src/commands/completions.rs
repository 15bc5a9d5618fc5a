//! `completions`: what a shell needs to complete our command lines.

use clap::CommandFactory;
use clap_complete::Shell;

use crate::arguments::Arguments;
use crate::context::Context;
use crate::ending::CommandResult;

pub(super) fn run(context: &Context, shell: Shell) -> CommandResult {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Arguments::command(), "llama-orch", &mut script);
    Ok(context.printer.text(&String::from_utf8_lossy(&script))?)
}
