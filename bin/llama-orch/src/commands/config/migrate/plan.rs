//! What there is to do, put together from the rooms that know configs, engines and databases.

use engine_provisioner::{EngineRemark, OlderEngines, Registry, older_engines};
use instance_config::{
    EngineFact, Finding, KnownInstance, LoadedInstance, MigrationPlan, Report, lint, plan_migration,
};
use orch_core::{ExitCode, Failure, HomeLayout};
use orchestratord::compose;
use state_store::{DatabaseKind, Migration, OlderCatalogRow, inspect, read_older_catalog};
use uuid::Uuid;

use super::super::facts::Facts;
use crate::context::Context;

/// Everything that would be done, and everything worth knowing.
pub(super) struct Plan {
    pub(super) configs: MigrationPlan,
    pub(super) engines: OlderEngines,
    /// The database of the older tool, if this home has one.
    pub(super) state: Option<Migration>,
    /// Errors first.
    pub(super) findings: Vec<Finding>,
}

impl Plan {
    /// Reads only.
    pub(super) fn make(context: &Context) -> Result<Self, Failure> {
        let home = context.home()?;
        let mut findings = older_daemon(home);
        let known = known_instances(home, &mut findings);
        let configs = plan_migration(home, &known).map_err(|error| {
            let path = home.instances();
            Failure::new(ExitCode::General, format!("cannot read {}: {error}", path.display()))
        })?;
        let engines = older_engines(home).unwrap_or_else(|failure| {
            findings.push(told(Finding::error("", failure.message), failure.hint));
            OlderEngines::default()
        });
        let state = state(home, &mut findings)?;
        findings.extend(engines.remarks.iter().map(remark));
        findings.extend(configs.findings.iter().cloned());
        findings.extend(lint_afterwards(home, &configs, &engines));
        Ok(Self { configs, engines, state, findings: Report::new(findings).findings })
    }

    pub(super) fn is_empty(&self) -> bool {
        self.configs.configs.is_empty() && self.engines.is_empty() && self.state.is_none()
    }
}

/// What the database would become. One that cannot be used is left as it is, and holds nothing else back.
fn state(home: &HomeLayout, findings: &mut Vec<Finding>) -> Result<Option<Migration>, Failure> {
    if let DatabaseKind::Unusable { reason } = inspect(home)? {
        let finding = Finding::error("", reason);
        findings.push(finding.suggest("set it aside with `llama-orch config init --force`"));
        return Ok(None);
    }
    match compose::preview_state_migration(home) {
        Err(failure) if failure.exit == ExitCode::StateUnusable => {
            findings.push(told(Finding::error("", failure.message), failure.hint));
            Ok(None)
        }
        migration => migration,
    }
}

/// A daemon of the older tool starts what it finds in its own books. Its pid file proves nothing, so this is only told.
fn older_daemon(home: &HomeLayout) -> Vec<Finding> {
    let written = std::fs::read_to_string(home.state().join("daemon.pid")).unwrap_or_default();
    let alive = written.trim().parse().ok().filter(|pid| engine_process::start_mark(*pid).is_some());
    let warn = |pid: u32| {
        let message = format!("the older tool's daemon may still run (pid {pid} in state/daemon.pid)");
        Finding::warning("", message).suggest("stop it first: it would start instances a second time")
    };
    alive.map(warn).into_iter().collect()
}

fn known_instances(home: &HomeLayout, findings: &mut Vec<Finding>) -> Vec<KnownInstance> {
    match read_older_catalog(home) {
        Ok(rows) => rows.into_iter().map(known_instance).collect(),
        Err(error) => {
            let failure = Failure::from(error);
            let message = format!("{}; what it holds beside the configs is lost", failure.message);
            findings.push(Finding::warning("", message));
            Vec::new()
        }
    }
}

fn known_instance(row: OlderCatalogRow) -> KnownInstance {
    let eight_digits = |number: String| {
        let number: u32 = number.trim().parse().ok().filter(|number| *number < 100_000_000)?;
        Some(format!("{number:08}"))
    };
    KnownInstance {
        uid: row.uid.and_then(|uid| Uuid::parse_str(uid.trim()).ok()),
        number: row.number.and_then(eight_digits),
        name: row.name,
        display_name: row.display_name,
        created_at: row.created_at,
        sort_order: row.sort_order,
    }
}

fn remark(remark: &EngineRemark) -> Finding {
    told(Finding::warning("", remark.message.clone()), remark.suggestion.clone())
}

fn told(finding: Finding, advice: Option<String>) -> Finding {
    match advice {
        Some(advice) => finding.suggest(advice),
        None => finding,
    }
}

/// The linter's view of the home as it would be. Of engines it only hears which are there: trying them out is for
/// `config lint`.
fn lint_afterwards(home: &HomeLayout, configs: &MigrationPlan, engines: &OlderEngines) -> Vec<Finding> {
    let mut ids: Vec<Uuid> = engines.engines.iter().map(|engine| engine.id).collect();
    ids.extend(Registry::load(home).iter().flat_map(Registry::list).map(|engine| engine.id));
    let mut facts = Facts::new(home);
    for instance in &configs.catalog.instances {
        if let Some(id) = lost_engine(instance, &ids) {
            let failure = Failure::new(ExitCode::EngineNotFound, format!("engine {id} is not installed"))
                .hint("choose another: llama-orch config set <name> binary.binary_id=null");
            facts.set_engine(instance, EngineFact::Missing(failure));
        }
    }
    lint(&configs.catalog, &facts.for_lint()).findings
}

fn lost_engine(instance: &LoadedInstance, ids: &[Uuid]) -> Option<Uuid> {
    instance.config.binary.binary_id.filter(|id| !ids.contains(id))
}
