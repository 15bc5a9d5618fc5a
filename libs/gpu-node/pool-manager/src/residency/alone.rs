//! The same look without a daemon: from configs, database and processes. Nobody counts requests then, so that nobody is
//! known to be busy.

use std::time::Duration;

use instance_config::{Catalog, LoadMode, LoadedInstance};
use orch_api::MemoryReport;
use orch_core::{DesiredState, HomeLayout, InstanceName, ReplicaId, Status};

use super::ResidencySettings;
use super::book::{Booked, Bookkeeper};
use super::planner::{Resident, Urgency};
use super::report;
use super::scheduler::{protection, want_of};
use crate::node::EngineResolver;
use crate::view::InstanceView;

/// Who holds what, and what loading `wanted` would take. `views` are the rows of `ps`.
pub fn memory_alone(
    home: &HomeLayout,
    engines: &dyn EngineResolver,
    settings: &ResidencySettings,
    catalog: &Catalog,
    views: &[InstanceView],
    wanted: Option<&InstanceName>,
) -> MemoryReport {
    let rows = |instance: &LoadedInstance| -> Vec<&InstanceView> {
        let name = instance.config.name.as_str();
        views.iter().filter(|view| view.name == name && view.pid.is_some()).collect()
    };
    let booked: Vec<Booked> = catalog.instances.iter().map(|it| booked(it, &rows(it))).collect();
    let book = Bookkeeper::default().look_at_all(home, engines, &settings.budget, &booked);
    let present = catalog.instances.iter().filter(|it| !rows(it).is_empty());
    let residents: Vec<Resident> = present.map(|it| resident(it, &rows(it))).collect();
    let wanted = catalog.instances.iter().find(|it| Some(&it.config.name) == wanted);
    let plan = wanted.map(|instance| {
        let urgency = Urgency::Requests { oldest_wait: Duration::ZERO, load_time: Duration::ZERO };
        let want = want_of(instance, &book, urgency);
        let estimate = book.estimates.get(&instance.config.name).cloned().unwrap_or_default();
        report::plan_report(&want, &estimate, &residents, &book.ledger, &settings.policy)
    });
    MemoryReport { places: report::places(&book.ledger, &residents), plan }
}

fn booked(instance: &LoadedInstance, rows: &[&InstanceView]) -> Booked {
    // Where devices have to be counted first, those that run tell how many there are.
    let running = u16::try_from(rows.len()).unwrap_or(u16::MAX);
    let count = instance.config.fixed_replicas().unwrap_or(running).max(1);
    Booked {
        name: instance.config.name.clone(),
        replicas: (0..count).map(|replica| instance.of_replica(ReplicaId(replica))).collect(),
        pids: rows.iter().filter_map(|row| row.pid).collect(),
        settled: !rows.is_empty() && rows.iter().all(|row| row.status == Status::Running),
        present: !rows.is_empty(),
    }
}

fn resident(instance: &LoadedInstance, rows: &[&InstanceView]) -> Resident {
    let config = &instance.config;
    let uptime = rows.iter().filter_map(|row| row.uptime_seconds).min().unwrap_or(0);
    let uptime = Duration::from_secs(uptime);
    let on_demand = rows.iter().any(|row| row.desired_state == DesiredState::OnDemand);
    Resident {
        instance: config.name.clone(),
        group: config.lifecycle.group.clone(),
        protection: protection(config, on_demand && config.lifecycle.load == LoadMode::OnDemand),
        settled: rows.iter().all(|row| row.status == Status::Running),
        in_flight: 0,
        waiting: 0,
        idle_for: uptime,
        loaded_for: uptime,
        yielding: false,
    }
}
