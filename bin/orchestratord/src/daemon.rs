//! The start-up story of the HOME profile: one process with gateway, pool manager and this machine's node.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use control_store::ControlStore;
use gateway::{Gateway, ReplicaKey, Routes, TableHandle};
use orch_core::{ExitCode, Failure, HomeLayout, is_secret_name};
use orch_runtime::{
    PlacementStrategy, ServeOptions, Settings, Tasks, TlsIdentity, allow_many_open_files, bind,
    check_exposure, serve_encrypted, termination,
};
use pool_manager::stats::Devices;
use pool_manager::{Node, PoolManager, Traffic};
use pool_managerd::api::{ApiState, LiveStats, Operations, SlotCounter, reap_trials};
use pool_managerd::daemon_file::connect_address;
use pool_managerd::{Door, HomeDaemon, compose, housekeeping};
use tokio::net::TcpListener;

use crate::api::{self, ControlState, capabilities_of};
use crate::conditions::Conditions;
use crate::cordon::Cordon;
use crate::front::Front;
use crate::jobs::{EnginesHere, JobCounts, JobManager, Kit, environment};
use crate::keys::{KeyKeeper, KeyRing};
use crate::metrics::Readings;
use crate::request_log::{self, LogReader};
use crate::routes::routes;
use crate::routing::GatewayTraffic;
use workflow::Store;

/// For the last bytes to requests that had to be cut off when their time to finish was over.
const GOODBYE: Duration = Duration::from_millis(250);

const SHORTEST_SECRET: usize = 8;

/// The setting behind `--addr`.
pub const ADDR: &str = "orchestratord.addr";

/// What the daemon is told when it starts.
pub struct DaemonOptions {
    pub home: HomeLayout,
    /// Settings given as flags: a key's path and its value.
    pub flags: Vec<(&'static str, String)>,
}

/// Runs the daemon in the foreground until it is asked to stop (SIGTERM, SIGINT, a closed terminal). Engines keep running.
pub fn run(options: &DaemonOptions) -> Result<(), Failure> {
    let home = &options.home;
    let settings = load_settings(options)?;
    let routes = routes(&settings, &|name| std::env::var(name).ok())?;
    let node = compose::open_node(home)?;
    let daemon = HomeDaemon::claim(home)?;
    let addr_flag = options.flags.iter().find(|(key, _)| *key == ADDR).map(|(_, value)| value.clone());
    allow_many_open_files();
    let runtime = compose::runtime()?;
    let result = runtime.block_on(live(node, settings, routes, daemon, addr_flag));
    runtime.shutdown_timeout(compose::LAST_MOMENTS);
    result
}

/// The settings of a home, as the daemon sees them.
pub fn load_settings(options: &DaemonOptions) -> Result<Settings, Failure> {
    let environment = |name: &str| std::env::var(name).ok();
    Settings::load(&options.home.settings(), &environment, &options.flags)
}

/// The settings, if a daemon could start with them: what stops it is known before another one makes room for it.
pub fn usable_settings(options: &DaemonOptions) -> Result<Settings, Failure> {
    let settings = load_settings(options)?;
    routes(&settings, &|name| std::env::var(name).ok())?;
    settings.orchestratord.tls.clone().map(TlsIdentity::load).transpose()?;
    LogReader::open(&options.home)?;
    Ok(settings)
}

async fn live(
    node: Node,
    settings: Settings,
    routes: Routes,
    daemon: HomeDaemon,
    addr_flag: Option<String>,
) -> Result<(), Failure> {
    let node = Arc::new(node);
    let started = Instant::now();
    let tasks = Tasks::new();
    let http = tasks.child();
    let termination =
        termination(engine_process::outlives_terminal()).map_err(|error| cannot_start(&error))?;
    let store = Arc::new(ControlStore::open(&node.home.control_database())?);
    let keys = KeyKeeper::open(Arc::clone(&store), &settings.auth)?;
    let identity = settings.orchestratord.tls.clone().map(TlsIdentity::load).transpose()?;
    let listener = open_door(&settings, &keys)?;
    let address = listener.local_addr().map_err(|error| cannot_start(&error))?;

    let table = TableHandle::default();
    let node_id = compose::node_id(&settings);
    let traffic = Arc::new(GatewayTraffic::new(table.clone(), node_id.clone()));
    let cordon = Cordon::open(Arc::clone(&store), Arc::clone(&traffic))?;
    let manager = PoolManager::start(Arc::clone(&node), traffic.clone(), &tasks.child()).await?;
    if manager.snapshots().is_empty() {
        // Nobody publishes for a home without instances; its routes may lead elsewhere.
        traffic.publish(Vec::new());
    }
    manager.manage_residency(compose::residency(&settings));
    reap_trials(&manager, &tasks).await;
    let conditions = Conditions::default();
    let log_trouble = conditions.teller("request_log");
    let secrets = known_secrets(&daemon);
    let (log, log_keeper) = request_log::start(store, settings.capture_bodies, secrets, log_trouble)?;
    let readings = Readings::new(manager.clone(), &node_id, log_keeper.health());
    let jobs_counted = JobCounts::default();
    let mut registry = readings.registry();
    registry.register_collector(Box::new(jobs_counted.clone()));
    let gateway = Gateway::new(table.clone(), gateway_limits(&settings), routes, registry, Some(log));
    gateway.set_strategy(strategy(settings.orchestratord.placement_strategy));
    conditions.report_to(gateway.clone());

    let engines = EnginesHere { manager: manager.clone(), cordon: cordon.clone(), node_id: node_id.clone() };
    let kit = job_kit(&node, &settings, keys.ring(), address, engines);
    let jobs = JobManager::start(&node.home, kit, jobs_counted, &tasks);
    let state = ApiState {
        node: Arc::clone(&node),
        manager: manager.clone(),
        slots: slot_counter(table, &node_id),
        operations: Arc::new(Operations::new(&tasks)),
        stats: LiveStats::default(),
        node_id: node_id.into(),
        address,
        started,
        ending: http.token(),
    };
    let door = Door {
        guard: settings.auth.guard.clone(),
        keys: keys.ring(),
        local: daemon.local_token.clone(),
        loopback: address.ip().to_canonical().is_loopback(),
    };
    keys.keep(&tasks.child());
    let control = ControlState {
        node: state,
        keys: keys.clone(),
        jobs: jobs.clone(),
        body_bytes: settings.limits.body.0,
        log: LogReader::open(&node.home)?,
        log_written: log_keeper.written(),
        stopping: http.token(),
        gateway: gateway.clone(),
        tasks: Arc::default(),
        work: http.clone(),
        drain: settings.limits.drain,
        cordon,
        devices: Devices::default(),
        capabilities: Arc::new(capabilities_of(&settings)),
    };
    let front = Front::new(gateway, api::router(control), door, Some(readings));
    crate::certificate::keep(identity.clone(), address, &tasks.child());
    http.spawn("http", serve_encrypted(listener, identity, front, ServeOptions::default(), http.clone()));
    daemon.announce(&node, address, addr_flag)?;
    tracing::info!(%address, pid = std::process::id(), home = %node.home.root().display(), "ready");

    // The gateway serves without it; whoever asks is told.
    let store_trouble = conditions.teller("store");
    housekeeping::keep_house(&node, &tasks.child(), move |trouble| store_trouble(trouble.is_some()));

    let signal = termination.await;
    tracing::info!(signal, "stopping; engines keep running");
    // Requests first: while they finish, supervision and routing go on.
    drain(settings.limits.drain, &http, &jobs, &manager, &traffic).await;
    tasks.shutdown(compose::LAST_MOMENTS).await;
    // Programs of steps that did not end when they were asked to.
    engine_process::end_running_tools();
    keys.write_spending();
    log_keeper.close();
    daemon.farewell(&node);
    Ok(())
}

/// What jobs are run with.
fn job_kit(
    node: &Node,
    settings: &Settings,
    keys: KeyRing,
    address: SocketAddr,
    engines: EnginesHere,
) -> Kit {
    Kit {
        store: Arc::new(Store::home(node.home.cache())),
        settings: Arc::new(settings.clone()),
        variables: environment(),
        keys,
        address: connect_address(address),
        serving: Arc::new(engines),
    }
}

/// Lets running jobs and requests finish; what has not by then ends in good order.
async fn drain(
    limit: Duration,
    http: &Tasks,
    jobs: &JobManager,
    manager: &PoolManager,
    traffic: &GatewayTraffic,
) {
    let requests = async {
        tokio::select! {
            _ = http.shutdown(limit + GOODBYE) => {}
            () = cut_after(limit, manager, traffic) => {}
        }
    };
    // Jobs are left before the gateway cuts off what they have under way: they have not failed, and the next daemon goes
    // on with them.
    tokio::join!(jobs.pause(limit.saturating_sub(GOODBYE)), requests);
}

/// Cuts off the requests that are still in flight then, each with a terminal error; never ends by itself.
async fn cut_after(limit: Duration, manager: &PoolManager, traffic: &GatewayTraffic) {
    tokio::time::sleep(limit).await;
    for snapshot in manager.snapshots() {
        traffic.cut(&snapshot.instance, snapshot.replica);
    }
    std::future::pending::<()>().await;
}

/// What a captured body must not repeat: keys that this process was given, and the one that it made.
fn known_secrets(daemon: &HomeDaemon) -> Vec<String> {
    let given = std::env::vars().filter(|(name, _)| is_secret_name(name));
    let mut secrets: Vec<String> = given
        .flat_map(|(_, value)| value.split(',').map(|it| it.trim().to_owned()).collect::<Vec<_>>())
        .collect();
    // A short one would garble what it protects.
    secrets.retain(|secret| secret.len() >= SHORTEST_SECRET);
    secrets.push(daemon.local_token.secret().to_owned());
    secrets
}

/// Slots in use, as the gateway counts them.
fn slot_counter(table: TableHandle, node_id: &str) -> SlotCounter {
    let node_id = node_id.to_owned();
    Arc::new(move |instance, replica| {
        let key = ReplicaKey { node_id: node_id.clone(), pool_id: instance.to_string(), replica_id: replica };
        Some(u32::try_from(table.busy_slots(&key)).unwrap_or(u32::MAX))
    })
}

fn open_door(settings: &Settings, keys: &KeyKeeper) -> Result<TcpListener, Failure> {
    check_exposure(settings.orchestratord.addr, &settings.auth.tokens, keys.has_stored())?;
    bind(settings.orchestratord.addr)
}

fn gateway_limits(settings: &Settings) -> gateway::Limits {
    gateway::Limits {
        body_bytes: settings.limits.body.0,
        token_idle: settings.limits.token_idle,
        retries: settings.limits.retries,
        queue: settings.limits.queue as usize,
        full_policy: settings.limits.full_policy,
        queue_deadline: settings.limits.queue_deadline,
        ..gateway::Limits::default()
    }
}

const fn strategy(setting: PlacementStrategy) -> gateway::Strategy {
    match setting {
        PlacementStrategy::Affinity => gateway::Strategy::Affinity,
        PlacementStrategy::RoundRobin => gateway::Strategy::RoundRobin,
        PlacementStrategy::LeastLoaded => gateway::Strategy::LeastLoaded,
        PlacementStrategy::Random => gateway::Strategy::Random,
    }
}

fn cannot_start(error: &std::io::Error) -> Failure {
    Failure::new(ExitCode::DaemonStartFailed, format!("cannot start: {error}"))
}
