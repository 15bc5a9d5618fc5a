//! `gpu list` and `plan-load`: who holds how much memory where, and what loading something would take.

use orch_core::{Failure, InstanceName};
use orchestratord::compose;
use orchestratord::daemon::{DaemonOptions, load_settings};
use pool_manager::residency::{
    EvictionReport, HolderReport, MemoryReport, NeedReport, PlaceReport, memory_alone,
};

use crate::context::Context;
use crate::ending::CommandResult;
use crate::runtime::block_on;
use crate::targets::Plane;
use crate::words::{or_dash, show_duration};

const HEADINGS: [&str; 7] = ["PLACE", "NAME", "USABLE", "FREE", "RESERVED", "AVAILABLE", "HELD BY"];

/// `gpu list`.
pub(super) fn list(context: &Context) -> CommandResult {
    let report = look(context, None)?;
    if context.printer.json() {
        return Ok(context.printer.document(&report.places)?);
    }
    let rows: Vec<Vec<String>> = report.places.iter().map(place_cells).collect();
    Ok(context.printer.table(&HEADINGS, &rows)?)
}

fn place_cells(place: &PlaceReport) -> Vec<String> {
    let holder = |it: &HolderReport| format!("{} {} ({})", it.instance, it.reserved_bytes, it.basis);
    let holders: Vec<String> = place.holders.iter().map(holder).collect();
    vec![
        place.place.clone(),
        or_dash(place.name.clone()),
        place.usable_bytes.to_string(),
        or_dash(place.free_bytes),
        place.reserved_bytes.to_string(),
        place.available_bytes.to_string(),
        or_dash((!holders.is_empty()).then(|| holders.join(", "))),
    ]
}

/// `plan-load`.
pub(super) fn plan_load(context: &Context, name: &str) -> CommandResult {
    let report = look(context, Some(name))?;
    if context.printer.json() {
        return Ok(context.printer.document(&report)?);
    }
    Ok(context.printer.text(&told(&report))?)
}

fn told(report: &MemoryReport) -> String {
    let Some(plan) = &report.plan else { return String::new() };
    let name = &plan.instance;
    let mut lines = vec![match plan.verdict.as_str() {
        "loaded" => format!("{name} is loaded, or on its way"),
        "fits" => format!("{name} fits: nothing would be evicted"),
        "evicts" => format!("{name} fits after evictions:"),
        "waits" => format!("{name} would have to wait:"),
        _ => format!("{name} cannot be loaded:"),
    }];
    lines.extend(plan.evicts.iter().map(|it| eviction(it, report)));
    lines.extend(plan.obstacles.iter().map(|it| format!("  {it}")));
    let about = if plan.at_most { "needs at most" } else { "needs about" };
    for need in &plan.needs {
        lines.push(format!("{}: {about} {}", need.place, need_words(need)));
    }
    lines.join("\n") + "\n"
}

fn need_words(need: &NeedReport) -> String {
    let available = match (need.available_bytes, need.available_after_bytes) {
        (Some(now), Some(after)) if after != now => {
            format!("; {now} are available, {after} after the evictions")
        }
        (Some(now), _) => format!("; {now} are available"),
        (None, _) => "; what is available is not known".to_owned(),
    };
    format!(
        "{} ({} weights, {} cache, {} working){available}",
        need.total_bytes, need.weights_bytes, need.cache_bytes, need.working_bytes
    )
}

fn eviction(eviction: &EvictionReport, report: &MemoryReport) -> String {
    let holders = report.places.iter().flat_map(|place| {
        let holders = place.holders.iter().filter(|it| it.instance == eviction.instance);
        holders.map(move |it| (format!("{} of {}", it.reserved_bytes, place.place), it.idle_seconds))
    });
    let (held, idle): (Vec<String>, Vec<u64>) = holders.unzip();
    let idle = idle.first().map_or(String::new(), |idle| format!(", idle for {}", show_duration(*idle)));
    format!("  evicts {}: {} (frees {}{idle})", eviction.instance, eviction.reason, held.join(", "))
}

/// The daemon knows who is busy; without one, or where it does not answer, this command looks by itself.
fn look(context: &Context, wanted: Option<&str>) -> Result<MemoryReport, Failure> {
    let plane = Plane::find(context)?;
    if let Plane::Remote(client) = &plane {
        return block_on(client.memory(wanted));
    }
    let catalog = context.catalog()?;
    let wanted: Option<InstanceName> = match wanted {
        Some(selector) => Some(catalog.select(selector)?.config.name.clone()),
        None => None,
    };
    if let Some(client) = plane.client() {
        match block_on(client.memory(wanted.as_ref().map(InstanceName::as_str))) {
            Ok(report) => return Ok(report),
            Err(failure) => context.talk.warning(&failure.message),
        }
    }
    let home = context.home()?;
    let settings = load_settings(&DaemonOptions { home: home.clone(), flags: Vec::new() })?;
    let views = context.look(|viewer| viewer.instances(&catalog))?;
    let engines = compose::engines_read_only(home);
    let residency = compose::residency(&settings);
    Ok(memory_alone(home, &engines, &residency, &catalog, &views, wanted.as_ref()))
}
