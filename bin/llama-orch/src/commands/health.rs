//! `health`: engines asked now, not what was written down some seconds ago.

use instance_config::LoadedInstance;
use orch_core::{DesiredState, ExitCode, Failure, Health, Status};
use orch_runtime::reachable_host;
use pool_manager::Prober;
use pool_manager::lifecycle::ProbeOutcome;
use pool_manager::view::{InstanceView, Slots};
use serde::Serialize;

use crate::arguments::HealthArguments;
use crate::context::Context;
use crate::ending::{CommandResult, Ended};
use crate::runtime::{block_on, watch};
use crate::steps::side_by_side;
use crate::watching::look_at_home;
use crate::words::{or_dash, show_slots};

/// One instance's health; the names of the fields are a contract.
#[derive(Serialize)]
struct Answer {
    name: String,
    status: Status,
    health: Health,
    response_time_ms: Option<f64>,
    slots: Option<Slots>,
    error: Option<String>,
    #[serde(skip)]
    exit: ExitCode,
}

pub(super) fn run(context: &Context, arguments: &HealthArguments) -> CommandResult {
    watch(arguments.watch, || {
        let (answers, warnings) = ask(context, arguments)?;
        if arguments.watch && context.printer.json() {
            context.printer.record(&answers)?;
        } else if context.printer.json() {
            context.warn(&warnings);
            context.printer.document(&answers)?;
        } else {
            context.show_table(arguments.watch, &HEADINGS, &table(&answers), &warnings)?;
        }
        let named = arguments.name.is_some();
        // Without a name an instance that is stopped and meant to be is nothing bad.
        let bad = answers
            .iter()
            .map(|answer| answer.exit)
            .find(|exit| *exit != ExitCode::Success && (named || *exit != ExitCode::NotRunning));
        Ended::told(bad.unwrap_or(ExitCode::Success))
    })
}

/// The answers, and what else should be known.
fn ask(context: &Context, arguments: &HealthArguments) -> Result<(Vec<Answer>, Vec<String>), Failure> {
    let catalog = context.catalog()?;
    let seen = look_at_home(context)?;
    let chosen: Vec<&LoadedInstance> = match &arguments.name {
        Some(name) => vec![catalog.select(name)?],
        None => catalog.instances.iter().collect(),
    };
    let mut pairs = Vec::new();
    for instance in chosen {
        let row = seen.rows.iter().find(|row| row.name == instance.config.name.as_str()).cloned();
        let row = row.map_or_else(|| context.look(|viewer| viewer.instance(instance)), Ok)?;
        let skipped = arguments.name.is_none() && !arguments.all && is_off(&row);
        if !skipped {
            pairs.push((instance, row));
        }
    }
    let home = context.home()?;
    let answers = side_by_side(&pairs, |(instance, row)| {
        let prober = row.pid.map(|_| Prober {
            host: reachable_host(&row.host).to_owned(),
            port: row.port,
            api_key: instance_config::api_key(&instance.config, home),
            check: instance.config.healthcheck.clone(),
            home: home.root().to_path_buf(),
        });
        judge(row, prober)
    });
    Ok((answers, seen.warnings()))
}

fn is_off(row: &InstanceView) -> bool {
    row.status == Status::Stopped && row.desired_state != DesiredState::Running
}

/// A process is asked; where there is none, the state says it all.
fn judge(row: &InstanceView, prober: Option<Prober>) -> Answer {
    let answer = |health, exit, error: Option<String>| Answer {
        name: row.name.clone(),
        status: row.status,
        health,
        response_time_ms: None,
        slots: row.slots,
        error,
        exit,
    };
    let Some(prober) = prober else {
        let error = row.last_error.clone();
        return match row.status {
            Status::Stopped | Status::Stopping => answer(Health::Unknown, ExitCode::NotRunning, None),
            Status::Crashed => answer(Health::Error, ExitCode::Crashed, error),
            Status::Error => answer(Health::Error, ExitCode::Unhealthy, error),
            Status::Starting | Status::Running | Status::Unknown => {
                answer(Health::Unknown, ExitCode::Starting, error)
            }
        };
    };
    let report = match block_on(async { Ok::<_, Failure>(prober.probe().await) }) {
        Ok(report) => report,
        Err(failure) => return answer(Health::Unknown, failure.exit, Some(failure.message)),
    };
    let (health, exit, error) = match report.outcome {
        ProbeOutcome::Healthy => (Health::Healthy, ExitCode::Success, None),
        ProbeOutcome::Loading { .. } => (Health::Loading, ExitCode::Starting, None),
        ProbeOutcome::Failed { reason } => (Health::Unhealthy, ExitCode::Unhealthy, Some(reason)),
    };
    let millis = (report.response_time.as_secs_f64() * 1e5).round() / 100.0;
    Answer { response_time_ms: Some(millis), ..answer(health, exit, error) }
}

const HEADINGS: [&str; 6] = ["NAME", "STATUS", "HEALTH", "RESPONSE", "SLOTS", "ERROR"];

fn table(answers: &[Answer]) -> Vec<Vec<String>> {
    let cells = |answer: &Answer| {
        vec![
            answer.name.clone(),
            answer.status.to_string(),
            answer.health.to_string(),
            or_dash(answer.response_time_ms.map(|millis| format!("{millis} ms"))),
            or_dash(answer.slots.map(show_slots)),
            or_dash(answer.error.as_ref()),
        ]
    };
    answers.iter().map(cells).collect()
}
