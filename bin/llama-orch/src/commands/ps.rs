//! `ps`: what there is, and how it is.

use instance_config::BrokenInstance;
use orch_core::{Failure, UnixMillis};
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
            let broken = std::mem::take(&mut seen.broken);
            seen.rows.extend(unclaimed_rows(context, &broken)?);
        } else {
            // An engine that runs is shown, whatever became of its config. The rows above count more than these:
            // a state that cannot be read is told with them.
            let left = left_rows(context).unwrap_or_default();
            seen.rows.extend(left.into_iter().filter(|row| row.status.has_process()));
        }
        if arguments.watch && context.printer.json() {
            return Ok(context.printer.record(&seen.rows)?);
        }
        if context.printer.json() {
            context.warn(&seen.warnings());
            return Ok(context.printer.document(&seen.rows)?);
        }
        let mut headings = HEADINGS.to_vec();
        let mut table = table(&seen.rows);
        if arguments.nodes {
            headings.push("NODE");
            for (cells, row) in table.iter_mut().zip(&seen.rows) {
                cells.push(row.node_id.clone());
            }
        }
        context.show_table(arguments.watch, &headings, &table, &seen.warnings())
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

/// Configs that cannot be used, and what is left of instances without one.
fn unclaimed_rows(context: &Context, broken: &[BrokenInstance]) -> Result<Vec<InstanceView>, Failure> {
    if context.remote()?.is_some() {
        return Ok(Vec::new());
    }
    let node_id = context.node_id()?;
    let mut left = left_rows(context)?;
    let mut rows = Vec::new();
    for fault in broken.iter().map(|broken| broken_row(broken, &node_id)) {
        rows.push(match left.iter().position(|row| row.name == fault.name) {
            Some(known) => InstanceView { last_error: fault.last_error, ..left.remove(known) },
            None => fault,
        });
    }
    rows.append(&mut left);
    Ok(rows)
}

/// What is left of instances of this home whose config is gone or cannot be used.
fn left_rows(context: &Context) -> Result<Vec<InstanceView>, Failure> {
    if context.remote()?.is_some() {
        return Ok(Vec::new());
    }
    let catalog = context.catalog()?;
    context.look(|viewer| viewer.remnants(&catalog))
}
