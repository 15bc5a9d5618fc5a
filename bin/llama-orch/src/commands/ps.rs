//! `ps`: what there is, and how it is.

use orch_core::UnixMillis;
use pool_manager::view::InstanceView;

use crate::arguments::PsArguments;
use crate::context::Context;
use crate::ending::CommandResult;
use crate::rows::{HEADINGS, broken_row, cells};
use crate::runtime::watch;
use crate::watching::look;

pub(super) fn run(context: &Context, arguments: &PsArguments) -> CommandResult {
    watch(arguments.watch, || {
        let mut seen = look(context)?;
        if arguments.all {
            let node_id = context.node_id()?;
            let broken = std::mem::take(&mut seen.broken);
            seen.rows.extend(broken.iter().map(|broken| broken_row(broken, &node_id)));
        }
        if arguments.watch && context.printer.json() {
            return Ok(context.printer.record(&seen.rows)?);
        }
        if context.printer.json() {
            context.warn(&seen.warnings());
            return Ok(context.printer.document(&seen.rows)?);
        }
        context.show_table(arguments.watch, &HEADINGS, &table(&seen.rows), &seen.warnings())
    })
}

/// Prints rows as `ps` does.
pub(super) fn show(context: &Context, rows: &[InstanceView]) -> CommandResult {
    if context.printer.json() {
        return Ok(context.printer.document(&rows)?);
    }
    Ok(context.printer.table(&HEADINGS, &table(rows))?)
}

fn table(rows: &[InstanceView]) -> Vec<Vec<String>> {
    let now = UnixMillis::now();
    rows.iter().map(|row| cells(row, now)).collect()
}
