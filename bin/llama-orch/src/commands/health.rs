//! `health`: engines asked now, not what was written down some seconds ago.

use futures_util::future::join_all;
use instance_config::LoadedInstance;
use orch_core::{DesiredState, ExitCode, Failure, Health, HomeLayout, ReplicaId, Status};
use orch_runtime::reachable_host;
use pool_manager::lifecycle::ProbeOutcome;
use pool_manager::view::{InstanceView, Slots};
use pool_manager::{Prober, running_key};
use serde::Serialize;

use crate::arguments::HealthArguments;
use crate::context::Context;
use crate::ending::{CommandResult, Ended};
use crate::rows::replica_name;
use crate::runtime::{block_on, watch};
use crate::watching::look_at_home;
use crate::words::{or_dash, show_slots};

/// One instance's health; the names of the fields are a contract.
#[derive(Serialize)]
struct Answer {
    name: String,
    replica_id: ReplicaId,
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
    let home = context.home()?;
    let mut questions = Vec::new();
    for instance in chosen {
        let of_instance = |row: &&InstanceView| row.name == instance.config.name.as_str();
        let mut rows: Vec<InstanceView> = seen.rows.iter().filter(of_instance).cloned().collect();
        if rows.is_empty() {
            rows = context.look(|viewer| viewer.replicas(instance))?;
        }
        let shown = |row: &InstanceView| arguments.name.is_some() || arguments.all || !is_off(row);
        questions.extend(rows.into_iter().filter(shown).map(|row| judge(row, instance, home)));
    }
    // All at once: together they take as long as the slowest, and that one no longer than its timeout.
    let answers = block_on(async { Ok::<_, Failure>(join_all(questions).await) })?;
    Ok((answers, seen.warnings()))
}

fn is_off(row: &InstanceView) -> bool {
    row.status == Status::Stopped && row.desired_state != DesiredState::Running
}

/// A process is asked; where there is none, the state says it all.
async fn judge(row: InstanceView, instance: &LoadedInstance, home: &HomeLayout) -> Answer {
    let check = &instance.config.healthcheck;
    let (health, exit, error, response_time) = if row.pid.is_some() {
        let prober = Prober {
            host: reachable_host(&row.host).to_owned(),
            port: row.port,
            api_key: running_key(home, &instance.config, row.replica_id, row.pid),
            check: check.clone(),
            home: home.root().to_path_buf(),
        };
        let report = prober.probe().await;
        let is_cold = check.warmup_enabled && row.status == Status::Starting;
        let (health, exit, error) = judge_probe(report.outcome, is_cold, &row);
        (health, exit, error, Some(report.response_time))
    } else {
        let (health, exit) = judge_absence(row.status);
        let error = row.last_error.clone().filter(|_| exit != ExitCode::NotRunning);
        (health, exit, error, None)
    };
    Answer {
        name: row.name,
        replica_id: row.replica_id,
        status: row.status,
        health,
        response_time_ms: response_time.map(|time| (time.as_secs_f64() * 1e5).round() / 100.0),
        slots: row.slots,
        error,
        exit,
    }
}

/// `is_cold`: its warm-up completion is still to come.
fn judge_probe(
    outcome: ProbeOutcome,
    is_cold: bool,
    row: &InstanceView,
) -> (Health, ExitCode, Option<String>) {
    match outcome {
        ProbeOutcome::Healthy if is_cold => {
            let why = row.last_error.clone().unwrap_or_else(|| "waits for its warm-up completion".to_owned());
            (Health::Loading, ExitCode::Starting, Some(why))
        }
        ProbeOutcome::Healthy => (Health::Healthy, ExitCode::Success, None),
        ProbeOutcome::Loading { .. } => (Health::Loading, ExitCode::Starting, None),
        ProbeOutcome::Failed { reason } => (Health::Unhealthy, ExitCode::Unhealthy, Some(reason)),
    }
}

fn judge_absence(status: Status) -> (Health, ExitCode) {
    match status {
        Status::Stopped | Status::Stopping => (Health::Unknown, ExitCode::NotRunning),
        Status::Crashed => (Health::Error, ExitCode::Crashed),
        Status::Error => (Health::Error, ExitCode::Unhealthy),
        Status::Starting | Status::Running | Status::Unknown => (Health::Unknown, ExitCode::Starting),
    }
}

const HEADINGS: [&str; 6] = ["NAME", "STATUS", "HEALTH", "RESPONSE", "SLOTS", "ERROR"];

fn table(answers: &[Answer]) -> Vec<Vec<String>> {
    let cells = |answer: &Answer| {
        vec![
            replica_name(&answer.name, answer.replica_id),
            answer.status.to_string(),
            answer.health.to_string(),
            or_dash(answer.response_time_ms.map(|millis| format!("{millis} ms"))),
            or_dash(answer.slots.map(show_slots)),
            or_dash(answer.error.as_ref()),
        ]
    };
    answers.iter().map(cells).collect()
}
