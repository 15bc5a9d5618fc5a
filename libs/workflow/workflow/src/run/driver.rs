//! The driver: one loop that owns the whole state of a run.
//!
//! It starts what can start, writes down what happened, and listens. Everything that takes time happens in tasks;
//! they hold nothing of the run and tell the driver in one of the ways of [`Heard`]. Only the driver writes the
//! journal, and before anything leaves (a request, a process) all that happened until then is in it.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Map, Value};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::attempts::working_folders;
use super::durable::Durable;
use super::engines::Engines;
use super::facts::{Facts, Told};
use super::funds::Funds;
use super::limits::Limits;
use super::lookups::Lookups;
use super::nodes::{NodeRef, Scopes};
use super::opening::InlineKeys;
use super::pausing::Pause;
use super::plan::Plan;
use super::publishing::{Published, Publisher};
use super::results::Results;
use super::schedule::ReadyQueue;
use super::tasks::{Launch, Made};
use super::timers::{Alarm, Timers};
use super::wall::Wall;
use super::{Foresee, Halt, Job, JobEnd, JobOutcome, RunError, Watch};
use crate::budget::BUDGET_GATE;
use crate::control::{Wish, forget_cancel, wishes};
use crate::past::Past;
use crate::ports::Ports;
use crate::recorder::{JobFacts, Recorder};
use crate::scope::WrittenFiles;
use crate::steps::{Report, Shape};
use crate::{CallFailure, Entry};

/// So many steps may be opened before the driver writes and listens again.
const BURST: usize = 512;
/// What goes on after its attempt was given up gets so long to end.
const LAST_WAIT: Duration = Duration::from_secs(10);
const MANIFEST_PACE: Duration = Duration::from_millis(250);

/// All that a driver hears.
pub(super) enum Heard {
    /// An attempt tells of a request.
    Reported(NodeRef, u32, Report),
    /// An attempt has ended.
    Attempted(NodeRef, u32, Result<Box<Made>, CallFailure>),
    /// Whoever asked the same first has an answer, or none.
    Followed(NodeRef, Option<Arc<Entry>>),
    /// A step's files are in place, or are not.
    Published(NodeRef, Published),
    /// What is known of a model.
    Facts(usize, Told),
    /// What people have left in the run's folder.
    Wished(Vec<Wish>),
    /// The journal is on the disk up to here, or is not.
    Synced(u64, io::Result<()>),
    /// Something that was waited for is due.
    Time,
    /// The job is to end.
    Cancelled,
}

pub(super) struct Driver {
    pub(super) job: Job,
    pub(super) ports: Ports,
    pub(super) watch: Arc<dyn Watch>,
    pub(super) past: Past,
    pub(super) foresee: Option<Arc<dyn Foresee>>,
    pub(super) recorder: Recorder,
    pub(super) durable: Durable,
    pub(super) results: Results,
    pub(super) publisher: Arc<Publisher>,
    pub(super) written: Arc<WrittenFiles>,

    pub(super) scopes: Scopes,
    /// Steps that need no place.
    pub(super) inline: VecDeque<NodeRef>,
    /// Steps that wait for one.
    pub(super) ready: ReadyQueue<NodeRef>,
    pub(super) lookups: Lookups,
    pub(super) limits: Limits,
    pub(super) facts: Facts,
    pub(super) timers: Timers,
    pub(super) inline_keys: InlineKeys,
    pub(super) funds: Funds,
    wall: Wall,
    pub(super) pause: Pause,
    /// Set when the job's time is over, and says so.
    pub(super) over: Option<String>,
    /// By the step's address: what is made once for a step, however often it runs.
    pub(super) plans: HashMap<usize, Arc<Plan>>,
    pub(super) shapes: HashMap<usize, Arc<Shape>>,

    pub(super) launches: Vec<Launch>,
    pub(super) engines: Engines,
    pub(super) tasks: JoinSet<()>,
    pub(super) alive: TaskTracker,
    /// Wishes whose files go as soon as the journal holds what came of them.
    pub(super) taken_up: Vec<Wish>,
    /// Requests that leave as soon as the journal says so.
    asking: Vec<oneshot::Sender<Result<(), CallFailure>>>,
    inbox: mpsc::UnboundedReceiver<Heard>,
    pub(super) tell: mpsc::UnboundedSender<Heard>,
    cancel: CancellationToken,
    pub(super) cancelled: Option<String>,
    began: Instant,
    manifest_at: Option<Instant>,
}

/// What a driver is made of.
pub(super) struct Parts {
    pub(super) job: Job,
    pub(super) ports: Ports,
    pub(super) watch: Arc<dyn Watch>,
    pub(super) past: Past,
    pub(super) recorder: Recorder,
    pub(super) results: Results,
    pub(super) publisher: Arc<Publisher>,
    pub(super) halt: Halt,
    /// Who is told of what would be done, where nothing is.
    pub(super) foresee: Option<Arc<dyn Foresee>>,
}

impl Driver {
    pub(super) fn new(parts: Parts) -> Self {
        let (tell, inbox) = mpsc::unbounded_channel();
        let files = parts.publisher.clone();
        let funds = Funds::new(parts.job.spec.budget, &parts.past);
        let wall = Wall::new(parts.job.spec.limits.wall, Instant::now());
        Self {
            limits: Limits::new(parts.job.spec.limits.clone(), parts.job.options.concurrency),
            durable: Durable::new(parts.job.options.strict),
            job: parts.job,
            engines: Engines::new(parts.ports.serving.clone()),
            ports: parts.ports,
            watch: parts.watch,
            past: parts.past,
            foresee: parts.foresee,
            recorder: parts.recorder,
            results: parts.results,
            publisher: parts.publisher,
            written: Arc::new(WrittenFiles::new(move |path| files.text(path))),
            scopes: Scopes::default(),
            inline: VecDeque::new(),
            ready: ReadyQueue::new(),
            lookups: Lookups::default(),
            facts: Facts::default(),
            timers: Timers::default(),
            inline_keys: InlineKeys::default(),
            funds,
            wall,
            cancel: parts.halt.cancel.clone(),
            pause: Pause::new(parts.halt),
            over: None,
            plans: HashMap::new(),
            shapes: HashMap::new(),
            launches: Vec::new(),
            tasks: JoinSet::new(),
            alive: TaskTracker::new(),
            taken_up: Vec::new(),
            asking: Vec::new(),
            inbox,
            tell,
            cancelled: None,
            began: Instant::now(),
            manifest_at: None,
        }
    }

    /// The whole run.
    pub(super) async fn run(mut self) -> Result<JobEnd, RunError> {
        self.begin();
        loop {
            self.pause.look();
            self.engines.look().await;
            let all_opened = self.start_ready();
            self.write_down()?;
            if all_opened && let Some(outcome) = self.outcome() {
                return self.end(outcome).await;
            }
            if all_opened {
                let heard = self.listen().await;
                self.hear(heard)?;
            } else {
                tokio::task::yield_now().await;
                if self.cancel.is_cancelled() && self.cancelled.is_none() {
                    self.hear(Heard::Cancelled)?;
                }
            }
            for _ in 0..BURST {
                let Ok(heard) = self.inbox.try_recv() else { break };
                self.hear(heard)?;
            }
            // However much there is to hear: time does not wait for silence.
            self.time_has_come()?;
            while self.tasks.try_join_next().is_some() {}
        }
    }

    fn begin(&mut self) {
        let spec = self.job.spec.clone();
        let steps: Vec<&str> = spec.graph.steps.iter().map(|step| step.id.as_str()).collect();
        let facts = JobFacts {
            project: &spec.project,
            provider: &self.job.options.provider,
            task: self.job.inputs.get("task").and_then(Value::as_str),
            spec_sha256: &spec.sha256,
            steps: &steps,
        };
        if self.past.lives() == 0 {
            self.recorder.job_started(&facts);
        } else {
            self.recorder.job_resumed(&facts);
        }
        self.open_root();
        // Who asked for the end while nobody ran the job gets it before anything begins.
        self.wished(wishes(&self.recorder.folder().control()));
        self.watch_control();
    }

    /// Opens steps until none can start. `false` where it broke off to write and listen.
    fn start_ready(&mut self) -> bool {
        if self.pause.is_on() {
            return true;
        }
        for _ in 0..BURST {
            if self.lookups.is_full() {
                self.look_up();
            }
            if let Some(node) = self.inline.pop_front() {
                self.open(node);
                continue;
            }
            let limits = &self.limits;
            let is_loaded = |lane| self.engines.is_loaded(limits.local_model(lane));
            match self.ready.take(|lane| limits.has_place(lane), is_loaded) {
                Some((_, _, node)) => self.open(node),
                None if self.lookups.is_empty() => return true,
                None => self.look_up(),
            }
        }
        self.look_up();
        false
    }

    /// Everything that happened is in the journal before anything leaves.
    fn write_down(&mut self) -> Result<(), RunError> {
        self.flush()?;
        for written in self.asking.drain(..) {
            // An attempt that was given up does not wait any more.
            let _nobody_waits = written.send(Ok(()));
        }
        for wish in self.taken_up.drain(..) {
            wish.done();
        }
        self.launch();
        if self.foresee.is_none() {
            self.results.link_on();
        }
        self.sync_if_due()
    }

    fn flush(&mut self) -> Result<(), RunError> {
        let waiting = self.recorder.waiting();
        if !waiting.is_empty() {
            // The journal first, then those who look on.
            let lines = waiting.to_vec();
            self.recorder.flush()?;
            self.watch.lines(&lines);
            self.durable.written(Instant::now());
            self.manifest_at.get_or_insert_with(|| Instant::now() + MANIFEST_PACE);
        }
        Ok(())
    }

    async fn listen(&mut self) -> Heard {
        let goes_on = self.scopes.busy() > 0;
        let wall = self.wall.due().filter(|_| goes_on && self.over.is_none());
        let due = [self.timers.next(), self.durable.due(), self.manifest_at, wall, self.pause.due()];
        let due = due.into_iter().flatten().min();
        let since = Instant::now();
        let time = async {
            match due {
                Some(due) => tokio::time::sleep_until(due).await,
                None => std::future::pending().await,
            }
        };
        let heard = tokio::select! {
            biased;
            () = self.cancel.cancelled(), if self.cancelled.is_none() => Heard::Cancelled,
            () = self.pause.wanted(), if !self.pause.is_on() => Heard::Time,
            Some(heard) = self.inbox.recv() => heard,
            () = time => Heard::Time,
        };
        if !goes_on {
            self.wall.rested(since.elapsed());
        }
        heard
    }

    fn hear(&mut self, heard: Heard) -> Result<(), RunError> {
        match heard {
            Heard::Reported(node, attempt, report) => self.reported(node, attempt, report),
            Heard::Attempted(node, attempt, result) => self.attempted(node, attempt, result),
            Heard::Followed(node, entry) => self.followed(node, entry),
            Heard::Published(node, published) => self.published(node, published),
            Heard::Facts(pair, told) => self.facts_told(pair, told),
            Heard::Wished(wishes) => self.wished(wishes),
            Heard::Synced(offset, result) => self.synced(offset, result)?,
            Heard::Time => {}
            Heard::Cancelled => self.cancel_job("the job was cancelled"),
        }
        Ok(())
    }

    fn time_has_come(&mut self) -> Result<(), RunError> {
        let now = Instant::now();
        while let Some(alarm) = self.timers.take_due(now) {
            match alarm {
                Alarm::Retry(node) => self.enqueue(node),
            }
        }
        if self.wall.due().is_some_and(|end| end <= now) && self.scopes.busy() > 0 && self.over.is_none() {
            self.end_by_wall();
        }
        if self.manifest_at.is_some_and(|at| at <= now) {
            self.recorder.write_manifest_if_due(now)?;
            // A large one takes longer pauses; what is new by then is written also if nothing more happens.
            self.manifest_at = self.recorder.manifest_due();
        }
        Ok(())
    }

    /// A request leaves when the journal says so.
    pub(super) fn let_go_when_written(&mut self, written: oneshot::Sender<Result<(), CallFailure>>) {
        self.asking.push(written);
    }

    /// How the job has ended, if it has.
    fn outcome(&self) -> Option<JobOutcome> {
        let root = self.scopes.get(0)?;
        if self.scopes.busy() > 0 {
            return self.left();
        }
        if root.is_settled() {
            return Some(if self.cancelled.is_some() {
                JobOutcome::Cancelled
            } else if self.over.is_some() || root.failure.is_some() {
                JobOutcome::Failed
            } else {
                JobOutcome::Succeeded
            });
        }
        if self.pause.is_on() {
            return self.left();
        }
        (!self.job.options.keep_waiting).then_some(JobOutcome::Waiting)
    }

    async fn end(mut self, outcome: JobOutcome) -> Result<JobEnd, RunError> {
        self.tasks.shutdown().await;
        self.alive.close();
        let all_ended = tokio::time::timeout(LAST_WAIT, self.alive.wait()).await.is_ok();
        if !all_ended {
            tracing::warn!(job = %self.recorder.folder().id(), "something that a step began has not ended");
        }
        let working = all_ended.then(|| working_folders(&self.run_path()));
        let duration = self.began.elapsed();
        let error = self.tell_end(outcome, duration);
        self.flush()?;
        if outcome.is_over() {
            forget_cancel(&self.recorder.folder().control());
        }
        let Self { mut recorder, results, foresee, .. } = self;
        let written = tokio::task::spawn_blocking(move || -> Result<_, RunError> {
            recorder.sync()?;
            recorder.write_manifest()?;
            // There is none where no program ran.
            let _gone = working.map(std::fs::remove_dir_all);
            Ok(recorder.manifest().clone())
        });
        if foresee.is_none() {
            results.link_rest().await;
        }
        let manifest = written.await.map_err(|_ended| RunError::Interrupted)??;
        Ok(JobEnd { outcome, error, duration, manifest })
    }

    fn tell_end(&mut self, outcome: JobOutcome, duration: Duration) -> Option<String> {
        let gates = self.scopes.deciding();
        let gates: Vec<Arc<str>> = gates.into_iter().map(|at| self.scopes.node(at).id.clone()).collect();
        if outcome.is_over() {
            for gate in &gates {
                self.recorder.step_cancelled(gate, 1, "the job ended before anybody decided", Duration::ZERO);
            }
        }
        let failure = self.scopes.get(0).and_then(|root| root.failure.as_ref());
        let failed = failure.map(|failed| format!("step {} failed: {}", failed.step, failed.message));
        let failed = self.over.clone().or(failed);
        match outcome {
            JobOutcome::Succeeded => self.recorder.job_succeeded(duration),
            JobOutcome::Waiting => {
                let budget = self.funds.is_asked().then_some(BUDGET_GATE);
                let gates: Vec<&str> = gates.iter().map(|gate| &**gate).chain(budget).collect();
                self.recorder.job_waiting(&gates, duration);
            }
            JobOutcome::Failed => self.recorder.job_failed(failed.as_deref().unwrap_or_default(), duration),
            JobOutcome::Cancelled => {
                self.recorder.job_cancelled(self.cancelled.as_deref().unwrap_or_default(), duration);
                return self.cancelled.clone();
            }
            JobOutcome::Paused => return None,
        }
        failed
    }

    pub(super) fn job_inputs(&self) -> Arc<Map<String, Value>> {
        Arc::new(self.job.inputs.clone())
    }

    pub(super) fn run_path(&self) -> PathBuf {
        self.recorder.folder().path().to_owned()
    }
}
