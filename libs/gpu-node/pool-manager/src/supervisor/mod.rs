//! One loop for each replica: it owns the state machine, hears of everything that happens and carries out what
//! the machine decides. Others hold a [`SupervisorHandle`].

mod effects;
mod loading;
mod takeover;
mod usefulness;

use std::collections::BTreeMap;
use std::future::{Future, pending};
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use engine_process::{StartMark, wait_for_exit};
use instance_config::{InstanceConfig, LoadedInstance};
use orch_core::{DesiredState, ExitCode, Failure, InstanceName, ReplicaId, UnixMillis};
use orch_runtime::Tasks;
use tokio::sync::{Notify, mpsc, oneshot};

use crate::board::Board;
use crate::changes;
use crate::engine::{Engine, Examination};
use crate::instance_lock::SharedLock;
use crate::lifecycle::{AfterStop, Event, Lifecycle, Phase, Policy, ProbeOutcome};
use crate::node::Node;
use crate::operate::Launched;
use crate::record::Recorder;
use crate::suspicion::Inquiry;
use crate::traffic::ReplicaSnapshot;
use usefulness::Watch;

/// An unchanged finding is written to the health history at most so often.
const HEALTH_HISTORY_PACE: Duration = Duration::from_secs(10);

/// How a wish is answered.
pub(crate) type Answer = oneshot::Sender<Result<(), Failure>>;

/// What can be asked of a supervisor.
pub(crate) enum Command {
    Up {
        desired: DesiredState,
        /// Waits for a start that is under way already, instead of being refused.
        join: bool,
        answer: Answer,
    },
    Down {
        force: bool,
        drain: Duration,
        answer: Answer,
    },
    Restart {
        desired: DesiredState,
        force: bool,
        drain: Duration,
        answer: Answer,
    },
    /// The instance has fewer replicas now, without this one: no new requests, those in flight finish, then it ends.
    Retire {
        drain: Duration,
        answer: Answer,
    },
    /// It was to go, and is wanted again.
    Keep,
    /// Requests wait for it: it is loaded, if it is still wanted on demand.
    Load {
        answer: Answer,
    },
    /// Its place is needed, or nobody asks for it: it ends unless it serves somebody. It stays wanted on demand.
    Unload {
        why: String,
        answer: Answer,
    },
    /// It takes no new requests, or does again.
    Yield(bool),
    /// Why no request can load it now.
    Refuse(Option<String>),
    /// The config file changed.
    Config(Box<LoadedInstance>),
    /// The config file went away while the engine ran.
    ConfigGone,
    /// The database may say that something else is wanted than this loop thinks.
    LookAtDesired,
}

/// The way to a supervisor.
#[derive(Clone)]
pub(crate) struct SupervisorHandle {
    inbox: mpsc::Sender<Command>,
}

impl SupervisorHandle {
    /// Asks and waits for the answer.
    pub(crate) async fn ask(&self, command: impl FnOnce(Answer) -> Command) -> Result<(), Failure> {
        let (answer, answered) = oneshot::channel();
        let gone = || Failure::new(ExitCode::DaemonUnreachable, "the daemon is shutting down");
        self.inbox.send(command(answer)).await.map_err(|_| gone())?;
        answered.await.map_err(|_| gone())?
    }

    /// Tells without waiting; a supervisor that is gone needs no telling.
    pub(crate) async fn tell(&self, command: Command) {
        let _ = self.inbox.send(command).await;
    }
}

enum Goal {
    Ready,
    Stopped,
}

/// A step under way.
enum JobDone {
    Launched(Result<Box<Launched>, Failure>),
    Terminated(Result<(), Failure>),
}

type Job<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// What the loop heard next.
enum Heard {
    Command(Command),
    Job(JobDone),
    Examined(Box<Examination>),
    EngineGone,
    ShimGone,
    Inquired(Box<Inquiry>),
    Look,
    Tick,
    Leave,
}

/// The owner of one replica.
pub(crate) struct Supervisor {
    node: Arc<Node>,
    board: Arc<Board>,
    tasks: Tasks,
    lock: Arc<SharedLock>,
    /// As this replica has it.
    instance: LoadedInstance,
    replica: ReplicaId,
    /// The instance has fewer replicas now: this one ends, or has.
    retired: bool,
    /// It has ended for good; another may have come in its place.
    off_board: bool,
    machine: Lifecycle,
    engine: Option<Engine>,
    restarts: u32,
    restarts_seen: BTreeMap<&'static str, u64>,
    /// Why the next automatic restart will be one.
    restart_reason: Option<&'static str>,
    last_error: Option<String>,
    drain: Duration,
    /// It takes no new requests.
    yielding: bool,
    /// Why no request can load it now.
    refused: Option<String>,
    /// Why the unloading under way began.
    unloading: Option<String>,
    /// The stop under way is the reconciler's, not a user's.
    reconciling: bool,
    waiting: Vec<(Goal, Answer)>,
    inbox: mpsc::Receiver<Command>,
    job: Option<Job<JobDone>>,
    examination: Option<Job<Examination>>,
    engine_exit: Option<Job<()>>,
    shim_exit: Option<Job<()>>,
    last_history: Option<Instant>,
    /// Wakes the drain of the stop that is under way.
    hurry: Option<Arc<Notify>>,
    last_good_probe: UnixMillis,
    watch: Watch,
}

impl Supervisor {
    /// Starts the loop: looks at what is there, adopts what is ours, and reconciles it with what is wanted. The
    /// receiver hears of it when requests are routed to what it found.
    pub(crate) fn spawn(
        node: Arc<Node>,
        board: Arc<Board>,
        tasks: &Tasks,
        lock: Arc<SharedLock>,
        instance: &LoadedInstance,
        replica: ReplicaId,
    ) -> (SupervisorHandle, oneshot::Receiver<()>) {
        let (sender, inbox) = mpsc::channel(64);
        let instance = instance.of_replica(replica);
        let desired = instance.config.lifecycle.load.desired_default();
        let machine = Lifecycle::new(Policy::of(&instance.config), desired, 0);
        let supervisor = Self {
            node,
            board,
            tasks: tasks.clone(),
            lock,
            instance,
            replica,
            retired: false,
            off_board: false,
            machine,
            engine: None,
            restarts: 0,
            restarts_seen: BTreeMap::new(),
            restart_reason: None,
            last_error: None,
            drain: Duration::ZERO,
            yielding: false,
            refused: None,
            unloading: None,
            reconciling: false,
            waiting: Vec::new(),
            inbox,
            job: None,
            examination: None,
            engine_exit: None,
            shim_exit: None,
            last_history: None,
            hurry: None,
            last_good_probe: UnixMillis::default(),
            watch: Watch::new(),
        };
        let (begun, has_begun) = oneshot::channel();
        tasks.spawn("supervisor", supervisor.run(begun));
        (SupervisorHandle { inbox: sender }, has_begun)
    }

    fn name(&self) -> &InstanceName {
        &self.instance.config.name
    }

    /// What people call it.
    fn label(&self) -> String {
        self.replica.display_name(self.name())
    }

    async fn run(mut self, begun: oneshot::Sender<()>) {
        let read_at_once = self.begin().await;
        self.publish();
        // Whoever waited for it may have left.
        let _ = begun.send(());
        if !read_at_once && !self.begin_later().await {
            return self.leave_board();
        }
        loop {
            match self.hear().await {
                Heard::Command(command) => self.command(command).await,
                Heard::Job(done) => self.job_done(done).await,
                Heard::Examined(examination) => self.examined(*examination).await,
                Heard::EngineGone => self.engine_gone().await,
                Heard::ShimGone => self.shim_gone().await,
                Heard::Inquired(inquiry) => self.inquired(*inquiry).await,
                // It changes nothing that anybody would have to hear of.
                Heard::Look => {
                    self.look_at_requests();
                    continue;
                }
                Heard::Tick => self.step(Event::Tick).await,
                Heard::Leave => break,
            }
            self.publish();
        }
        self.leave_board();
    }

    fn leave_board(&self) {
        if !self.off_board {
            self.board.remove(self.name(), self.replica);
        }
    }

    async fn hear(&mut self) -> Heard {
        let token = self.tasks.token();
        let (tick, look) = (self.machine.next_tick(), self.next_look());
        tokio::select! {
            biased;
            () = token.cancelled() => Heard::Leave,
            done = next(&mut self.job) => Heard::Job(done),
            () = next(&mut self.engine_exit) => Heard::EngineGone,
            () = next(&mut self.shim_exit) => Heard::ShimGone,
            examination = next(&mut self.examination) => Heard::Examined(Box::new(examination)),
            command = self.inbox.recv() => command.map_or(Heard::Leave, Heard::Command),
            () = sleep_until(tick) => Heard::Tick,
            inquiry = next(&mut self.watch.inquiry) => Heard::Inquired(Box::new(inquiry)),
            () = sleep_until(look) => Heard::Look,
        }
    }

    async fn care_for(&mut self, identity: engine_process::ProcessIdentity, shim_pid: Option<u32>) {
        let home = &self.node.home;
        let mut engine = Engine::new(home, &self.instance.config, self.replica, identity, shim_pid);
        engine.look_up().await;
        self.engine_exit = Some(exit_of((engine.identity.pid, engine.identity.started_at.clone())));
        self.shim_exit = engine.shim.clone().map(exit_of);
        self.engine = Some(engine);
        self.watch = Watch::new();
    }

    fn forget_engine(&mut self) {
        self.engine = None;
        self.engine_exit = None;
        self.shim_exit = None;
        self.examination = None;
        self.watch.inquiry = None;
    }

    async fn command(&mut self, command: Command) {
        match command {
            Command::Up { desired, join, answer } => self.command_up(desired, join, answer).await,
            Command::Down { force, drain, answer } => self.command_down(force, drain, answer).await,
            Command::Restart { desired, force, drain, answer } => {
                self.drain = drain;
                self.waiting.push((Goal::Ready, answer));
                self.step(Event::Restart { desired, force }).await;
            }
            Command::Retire { drain, answer } => {
                self.retired = true;
                self.drain = drain;
                self.reconciling = false;
                self.waiting.push((Goal::Stopped, answer));
                self.step(Event::Retire).await;
            }
            Command::Keep => self.keep().await,
            Command::Load { answer } => self.command_load(answer).await,
            Command::Unload { why, answer } => self.command_unload(why, answer).await,
            Command::Yield(yielding) => self.yielding = yielding,
            Command::Refuse(why) => self.refused = why,
            Command::Config(instance) => self.take_config(instance.of_replica(self.replica)).await,
            Command::ConfigGone => {
                // It serves on until somebody stops it, but nothing starts it again.
                let policy = Policy { restart: None, ..self.machine.policy.clone() };
                self.step(Event::PolicyChanged { policy: Box::new(policy) }).await;
            }
            Command::LookAtDesired => self.look_at_desired().await,
        }
    }

    /// A stop that is under way is finished first.
    async fn keep(&mut self) {
        self.retired = false;
        self.off_board = false;
        let name = self.name().clone();
        let written = self.with_node(move |node| Ok(node.store.desired(&name)?)).await.flatten();
        if let Some(desired @ DesiredState::Running) = written {
            self.step(Event::Up { desired }).await;
        }
    }

    /// What a running engine need not hear of is in effect at once; the rest waits for its next start.
    async fn take_config(&mut self, instance: LoadedInstance) {
        let changes = changes::between(&self.instance, &instance);
        let policy = Box::new(Policy::of(&instance.config));
        if let Some(engine) = &mut self.engine {
            engine.prober.check = instance.config.healthcheck.clone();
        }
        let hash = instance_config::config_hash(&instance.config);
        self.instance = instance;
        self.step(Event::PolicyChanged { policy }).await;
        // Told once for all replicas.
        if !changes.is_empty() && self.replica == ReplicaId::FIRST {
            self.record(move |recorder| recorder.config_changed(&changes, &hash)).await;
        }
    }

    /// Whoever sent this loop here looked some time ago, so it looks again itself. A step under way may be just about
    /// to write a wish down.
    async fn look_at_desired(&mut self) {
        if self.job.is_some() || self.retired {
            return;
        }
        let name = self.name().clone();
        let Some(Some(desired)) = self.with_node(move |node| Ok(node.store.desired(&name)?)).await else {
            return;
        };
        match desired {
            desired if desired == self.machine.desired => {}
            DesiredState::Stopped => self.step(Event::Down { force: false }).await,
            desired => self.step(Event::Up { desired }).await,
        }
    }

    async fn command_up(&mut self, desired: DesiredState, join: bool, answer: Answer) {
        self.retired = false;
        self.off_board = false;
        let name = self.label();
        let refusal = match self.machine.phase {
            Phase::Running { .. } => {
                Some(Failure::new(ExitCode::AlreadyRunning, format!("{name} is already running")))
            }
            Phase::Launching | Phase::Loading { .. } if !join => {
                Some(Failure::new(ExitCode::Starting, format!("{name} is already starting")))
            }
            _ => None,
        };
        match refusal {
            Some(failure) => {
                let _ = answer.send(Err(failure));
            }
            None => self.waiting.push((Goal::Ready, answer)),
        }
        self.step(Event::Up { desired }).await;
    }

    async fn command_down(&mut self, force: bool, drain: Duration, answer: Answer) {
        let resting = matches!(self.machine.phase, Phase::Stopped);
        if resting && self.machine.desired == DesiredState::Stopped && self.unknown_engine().await.is_none() {
            let failure = Failure::new(ExitCode::NotRunning, format!("{} is not running", self.label()));
            let _ = answer.send(Err(failure));
            return;
        }
        self.drain = if force { Duration::ZERO } else { drain };
        self.reconciling = false;
        self.shorten_farewell(drain);
        self.waiting.push((Goal::Stopped, answer));
        self.step(Event::Down { force }).await;
    }

    /// Whoever stops the whole instance waits no longer for a replica that was about to go than for the others.
    fn shorten_farewell(&self, drain: Duration) {
        let Some(hurry) = self.hurry.clone().filter(|_| self.retired) else { return };
        self.tasks.spawn("farewell", async move {
            tokio::time::sleep(drain).await;
            hurry.notify_one();
        });
    }

    async fn job_done(&mut self, done: JobDone) {
        match done {
            JobDone::Launched(Ok(launched)) => {
                for warning in &launched.plan.warnings {
                    tracing::warn!(instance = %self.label(), "{warning}");
                }
                let handle = launched.handle;
                self.care_for(handle.identity, Some(handle.shim_pid)).await;
                self.step(Event::Launched).await;
            }
            JobDone::Launched(Err(failure)) => self.launch_failed(failure).await,
            JobDone::Terminated(result) => {
                self.hurry = None;
                let result = match result {
                    Err(failure) => self.stop_failed(failure).await,
                    Ok(()) => Ok(()),
                };
                if result.is_ok() {
                    self.forget_engine();
                    if matches!(self.machine.phase, Phase::Stopping { then: AfterStop::Recover }) {
                        self.record(|recorder| recorder.gone()).await;
                    }
                }
                self.step(Event::Terminated { result }).await;
            }
        }
    }

    /// An engine that lives already, though this loop did not know of it, is taken over instead.
    async fn launch_failed(&mut self, failure: Failure) {
        if matches!(failure.exit, ExitCode::AlreadyRunning | ExitCode::Starting)
            && let Some(live) = self.unknown_engine().await
        {
            return self.take_over(live).await;
        }
        self.last_error = Some(failure.message.clone());
        let name = self.name().clone();
        let written = self.with_node(move |node| Ok(node.store.desired(&name)?)).await.flatten();
        let desired = written.unwrap_or_else(|| self.instance.config.lifecycle.load.desired_default());
        self.step(Event::LaunchFailed { failure, desired }).await;
    }

    async fn examined(&mut self, examination: Examination) {
        let Some(engine) = &mut self.engine else { return };
        if examination.report.outcome == ProbeOutcome::Healthy {
            self.last_good_probe = UnixMillis::now();
        }
        engine.progress = examination.progress;
        engine.facts = examination.facts;
        engine.version = examination.version;
        engine.warm_up = examination.warm_up;
        engine.address = examination.address;
        if let Some(cold) = examination.cold.filter(|cold| self.last_error.as_ref() != Some(cold)) {
            tracing::warn!(instance = %self.label(), "{cold}");
            self.last_error = Some(cold.clone());
            self.record(move |recorder| recorder.cold(&cold)).await;
        }
        let from = self.machine.health;
        let reason = match &examination.report.outcome {
            ProbeOutcome::Failed { reason } => Some(reason.clone()),
            _ => None,
        };
        self.step(Event::Probed { outcome: examination.report.outcome }).await;
        let to = self.machine.health;
        let was_probed = matches!(self.machine.phase, Phase::Running { .. } | Phase::Stopping { .. });
        let due = self.last_history.is_none_or(|at| at.elapsed() >= HEALTH_HISTORY_PACE);
        if was_probed && (from != to || reason.is_some() || due) {
            self.last_history = Some(Instant::now());
            let response = examination.report.response_time;
            self.record(move |recorder| recorder.health_check(to, response, reason.as_deref())).await;
        }
    }

    async fn step(&mut self, event: Event) {
        let effects = self.machine.step(event, Instant::now(), fastrand::f64());
        // Routing follows before anything else happens: nothing is sent to an engine that is about to stop.
        self.publish();
        for effect in effects {
            self.carry_out(effect).await;
        }
    }

    fn publish(&self) {
        if self.off_board {
            return;
        }
        let config = &self.instance.config;
        let engine = self.engine.as_ref();
        let facts = engine.and_then(|engine| engine.facts);
        self.board.update(ReplicaSnapshot {
            instance: config.name.clone(),
            replica: self.replica,
            aliases: config.aliases.clone(),
            status: self.machine.status(),
            health: self.machine.health,
            desired: self.machine.desired,
            routable: engine.is_some() && self.machine.is_routable() && !self.yielding,
            address: engine.and_then(|engine| engine.address),
            pid: engine.map(|engine| engine.identity.pid),
            engine_version: engine.and_then(|engine| engine.version.clone()),
            // As the engine had it when it started.
            api_key: engine.and_then(|engine| engine.prober.api_key.clone()),
            slots_total: facts.map_or(1, |facts| facts.slots_total),
            context: facts.and_then(|facts| facts.context),
            device_mask: instance_config::device_mask(config),
            last_good_probe: self.last_good_probe,
            created_at: created_at(config),
            restarts: self.restarts,
            restarts_seen: self.restarts_seen.clone(),
            last_error: self.last_error.clone(),
            ready_since: self.machine.ready_since(),
            yielding: self.yielding,
            load_after: self.machine.load_after,
            gave_up: self.machine.gave_up_loading(),
            refused: self.refused.clone(),
        });
    }

    /// Writes on a blocking thread and waits: the order of records is the order of events. A write that fails is
    /// logged; supervision goes on without its memory.
    async fn record<F>(&mut self, write: F)
    where
        F: FnOnce(&Recorder<'_>) -> Result<(), state_store::StoreError> + Send + 'static,
    {
        let (name, replica) = (self.name().clone(), self.replica);
        self.with_node(move |node| Ok(write(&Recorder { store: &node.store, name: &name, replica })?)).await;
    }

    async fn with_node<T, F>(&mut self, work: F) -> Option<T>
    where
        T: Send + 'static,
        F: FnOnce(&Node) -> Result<T, Failure> + Send + 'static,
    {
        let node = Arc::clone(&self.node);
        match joined(self.tasks.spawn_blocking("state", move || work(&node)).await) {
            Ok(value) => Some(value),
            Err(failure) => {
                tracing::error!(instance = %self.label(), %failure, "state could not be read or written");
                None
            }
        }
    }
}

fn created_at(config: &InstanceConfig) -> UnixMillis {
    config.created_at.as_deref().and_then(UnixMillis::from_rfc3339).unwrap_or_default()
}

fn exit_of((pid, mark): (u32, StartMark)) -> Job<()> {
    Box::pin(async move { wait_for_exit(pid, &mark).await })
}

/// The next result of a step that may or may not be under way.
async fn next<T>(job: &mut Option<Job<T>>) -> T {
    match job {
        Some(work) => {
            let done = work.await;
            *job = None;
            done
        }
        None => pending().await,
    }
}

async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at.into()).await,
        None => pending().await,
    }
}

fn joined<T>(result: Result<Result<T, Failure>, tokio::task::JoinError>) -> Result<T, Failure> {
    result.unwrap_or_else(|error| {
        Err(Failure::new(ExitCode::General, format!("a step was cut short: {error}")))
    })
}
