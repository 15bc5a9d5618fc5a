//! `stats`: what instances use and do, now.

use pool_manager::stats::{InstanceStats, Sampler};

use crate::arguments::StatsArguments;
use crate::context::Context;
use crate::ending::CommandResult;
use crate::rows::replica_name;
use crate::runtime::watch;
use crate::watching::look_closely;
use crate::words::{or_dash, show_percent, show_rate, show_slots};

const HEADINGS: [&str; 10] =
    ["NAME", "PID", "CPU", "MEMORY", "VRAM", "SLOTS", "WAITING", "TOKENS/S", "PROMPT/S", "STATUS"];

pub(super) fn run(context: &Context, arguments: &StatsArguments) -> CommandResult {
    let mut sampler = Sampler::default();
    watch(arguments.watch, || {
        let seen = look_closely(context, &mut sampler)?;
        if arguments.watch && context.printer.json() {
            return Ok(context.printer.record(&seen.stats)?);
        }
        if context.printer.json() {
            context.warn(&seen.warnings());
            return Ok(context.printer.document(&seen.stats)?);
        }
        let cells: Vec<Vec<String>> = seen.stats.iter().map(cells).collect();
        context.show_table(arguments.watch, &HEADINGS, &cells, &seen.warnings())
    })
}

fn cells(row: &InstanceStats) -> Vec<String> {
    vec![
        replica_name(&row.name, row.replica_id),
        or_dash(row.pid),
        or_dash(row.cpu_percent.map(show_percent)),
        or_dash(row.rss_bytes),
        or_dash(row.vram_bytes),
        or_dash(row.slots.map(show_slots)),
        or_dash(row.waiting),
        or_dash(row.tokens_per_second.map(show_rate)),
        or_dash(row.prompt_tokens_per_second.map(show_rate)),
        row.status.to_string(),
    ]
}
