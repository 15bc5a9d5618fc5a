//! A living engine in care: its process, how to ask it, and what it told of itself.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use engine_process::{Handoff, ProcessIdentity, StartMark};
use instance_config::InstanceConfig;
use orch_core::{HomeLayout, ReplicaId};
use orch_runtime::{probe_get, reachable_host};
use serde::Deserialize;

use crate::completion::{Completion, complete_once};
use crate::lifecycle::ProbeOutcome;
use crate::probe::{LoadProgress, ProbeReport, Prober};

/// The handoff file comes within one look of the shim's.
const HANDOFF_LIMIT: Duration = Duration::from_millis(300);
const HANDOFF_LOOK: Duration = Duration::from_millis(5);
/// The system answers for names of this machine at once; a name that it must ask others for may take longer.
const LOOKUP_LIMIT: Duration = Duration::from_secs(2);

/// What a ready engine tells of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct EngineFacts {
    pub slots_total: u32,
    /// Context of one slot, in tokens.
    pub context: Option<u64>,
}

/// The completion that an engine has to make before it counts as ready.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct WarmUp {
    prompt: String,
    /// As long as a load may go without progress.
    limit: Duration,
}

impl WarmUp {
    fn of(config: &InstanceConfig) -> Option<Self> {
        let check = &config.healthcheck;
        let warm_up = || Self { prompt: check.warmup_prompt.clone(), limit: check.load_stall };
        check.warmup_enabled.then(warm_up)
    }

    /// Sends it; says why the engine is not warm yet.
    async fn send(&self, prober: &Prober) -> Result<(), String> {
        let why = match complete_once(prober, &self.prompt, self.limit).await {
            Completion::Done => return Ok(()),
            Completion::Declined(why) | Completion::Failed(why) => why,
            Completion::Refused => "connection refused".to_owned(),
            Completion::Silent => format!("no answer within {} s", self.limit.as_secs_f64()),
        };
        Err(format!("the warm-up completion failed: {why}"))
    }
}

/// One engine that a supervisor looks after.
#[derive(Clone, Debug)]
pub(crate) struct Engine {
    pub identity: ProcessIdentity,
    /// The shim and its start mark; `None` when it is not known or gone.
    pub shim: Option<(u32, StartMark)>,
    pub prober: Prober,
    pub stderr_log: PathBuf,
    /// Where the shim tells of readiness.
    handoff: PathBuf,
    pub progress: LoadProgress,
    pub facts: Option<EngineFacts>,
    /// The engine's version, as its handoff file tells it once it is ready.
    pub version: Option<String>,
    /// What is still to be done before it is ready.
    pub warm_up: Option<WarmUp>,
    /// Where requests go; known at once for an address, for a name as soon as it has been looked up.
    pub address: Option<SocketAddr>,
}

impl Engine {
    pub(crate) fn new(
        home: &HomeLayout,
        config: &InstanceConfig,
        replica: ReplicaId,
        identity: ProcessIdentity,
        shim_pid: Option<u32>,
    ) -> Self {
        let shim = shim_pid.and_then(marked);
        let prober = Prober {
            host: reachable_host(&config.server.host).to_owned(),
            port: identity.port,
            api_key: instance_config::api_key(config, home),
            check: config.healthcheck.clone(),
            home: home.root().to_path_buf(),
        };
        let stderr_log = instance_config::log_path(&config.logs.stderr, config, home, replica);
        let handoff = home.handoff(&config.name, replica);
        let address = prober.host.parse().ok().map(|ip| SocketAddr::new(ip, prober.port));
        Self {
            identity,
            shim,
            prober,
            stderr_log,
            handoff,
            progress: LoadProgress::default(),
            facts: None,
            version: None,
            warm_up: WarmUp::of(config),
            address,
        }
    }

    /// Host and key as the engine was started with them.
    pub(crate) fn runs_as(&mut self, handoff: &Handoff) {
        if let Some(host) = handoff.host().filter(|host| *host != self.prober.host) {
            host.clone_into(&mut self.prober.host);
            self.address = host.parse().ok().map(|ip| SocketAddr::new(ip, self.prober.port));
        }
        self.prober.api_key.clone_from(&handoff.api_key);
        self.version.clone_from(&handoff.engine_version);
    }

    /// Another shim watches it now.
    pub(crate) fn watch(&mut self, shim_pid: Option<u32>) {
        self.shim = shim_pid.and_then(marked);
    }

    /// Looks up a host that is given by name. Which of several addresses answers, the first good probe shows.
    pub(crate) async fn look_up(&mut self) {
        if self.address.is_none() {
            let asked = tokio::net::lookup_host((self.prober.host.as_str(), self.prober.port));
            let found = tokio::time::timeout(LOOKUP_LIMIT, asked).await;
            self.address = found.ok().and_then(Result::ok).and_then(|mut addresses| addresses.next());
        }
    }

    /// The shim finds out by itself that its engine is ready; who hears of it from us finds the file in place. An
    /// engine whose shim is gone keeps nobody waiting.
    async fn await_handoff(&self) {
        let written = async {
            while !self.handoff.exists() {
                tokio::time::sleep(HANDOFF_LOOK).await;
            }
        };
        let _ = tokio::time::timeout(HANDOFF_LIMIT, written).await;
    }

    /// Asks the engine how it is and, the first time it is well, for its warm-up and what it has to offer.
    pub(crate) async fn examine(mut self) -> Examination {
        let mut report = self.prober.probe().await;
        let cold = if report.outcome == ProbeOutcome::Healthy { self.warm_up().await.err() } else { None };
        if cold.is_some() {
            // It logs each attempt: growth of its log is no progress now.
            report.outcome = ProbeOutcome::Loading { progressed: false };
        } else if let ProbeOutcome::Loading { progressed } = &mut report.outcome {
            let look = LoadProgress::look(self.identity.pid, &self.stderr_log);
            *progressed = look.grew_since(self.progress);
            self.progress = look;
        }
        if report.outcome == ProbeOutcome::Healthy && self.facts.is_none() {
            self.await_handoff().await;
            if let Ok(handoff) = Handoff::read(&self.handoff) {
                self.version = handoff.engine_version;
            }
            if let Some((peer, facts)) = read_facts(&self.prober).await {
                self.address = Some(peer);
                self.facts = facts;
            }
        }
        let Self { progress, facts, version, warm_up, address, .. } = self;
        Examination { report, cold, progress, facts, version, warm_up, address }
    }

    async fn warm_up(&mut self) -> Result<(), String> {
        if let Some(warm_up) = &self.warm_up {
            warm_up.send(&self.prober).await?;
            self.warm_up = None;
        }
        Ok(())
    }
}

/// The key that an engine asks for: the one it was started with, whatever its config says by now. An engine that is not
/// ready has written none down.
pub fn running_key(
    home: &HomeLayout,
    config: &InstanceConfig,
    replica: ReplicaId,
    pid: Option<u32>,
) -> Option<String> {
    let written = Handoff::read(&home.handoff(&config.name, replica)).ok();
    match written.filter(|file| Some(file.pid) == pid) {
        Some(file) => file.api_key,
        None => instance_config::api_key(config, home),
    }
}

/// A living process with its start mark.
fn marked(pid: u32) -> Option<(u32, StartMark)> {
    Some((pid, engine_process::start_mark(pid)?))
}

/// What one look at an engine brought.
#[derive(Clone, Debug)]
pub(crate) struct Examination {
    pub report: ProbeReport,
    /// Why its warm-up failed, if it did.
    pub cold: Option<String>,
    pub progress: LoadProgress,
    pub facts: Option<EngineFacts>,
    pub version: Option<String>,
    pub warm_up: Option<WarmUp>,
    pub address: Option<SocketAddr>,
}

/// Reads `/props`; an engine that does not answer it as expected (another server, or a fault) has no facts, but
/// whoever answers tells by that where it is.
async fn read_facts(prober: &Prober) -> Option<(SocketAddr, Option<EngineFacts>)> {
    #[derive(Deserialize)]
    struct Props {
        total_slots: u32,
        default_generation_settings: Option<Settings>,
    }
    #[derive(Deserialize)]
    struct Settings {
        n_ctx: Option<u64>,
    }
    let key = prober.api_key.as_deref();
    let answer = probe_get(&prober.host, prober.port, "/props", key, prober.check.timeout).await.ok()?;
    let props: Option<Props> = serde_json::from_slice(&answer.body).ok().filter(|_| answer.status == 200);
    let facts = props.map(|props| EngineFacts {
        slots_total: props.total_slots.max(1),
        context: props.default_generation_settings.and_then(|settings| settings.n_ctx),
    });
    Some((answer.peer, facts))
}
