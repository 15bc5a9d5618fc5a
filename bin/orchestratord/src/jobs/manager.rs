//! The jobs of a daemon: taken, queued, worked on a few at a time, and taken up again when it comes back.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use gateway::Caller;
use orch_api::{
    ErrorBody, JobAccepted, JobDecision, JobRequest, JobStatus, JobSummary, Problem, ResumeRequest, paths,
};
use orch_core::{ErrorCode, ExitCode, Failure, HomeLayout, UnixMicros, UnixMillis};
use orch_runtime::{CancellationToken, Tasks};
use pool_managerd::api::Refusal;
use serde_json::{Map, Value};
use tokio::sync::{Notify, watch};
use workflow::{Decided, JobId, RunStatus, RunSummary, RunView};
use workflow_spec::{JobSpec, SpecErrors};

use super::book::{Book, Full};
use super::follow::Journal;
use super::inputs::all_of;
use super::kit::Kit;
use super::metrics::JobCounts;
use super::owner::Owner;
use super::shelf::{Found, Looked, NewJob, Shelf, Taken, fingerprint, not_ours};
use super::{attend, check_inputs};

/// Jobs at a gate are looked at so often: somebody may have decided without asking this daemon.
const GATE_PACE: Duration = Duration::from_secs(1);
/// Of a provider, as submissions name it.
const LONGEST_NAME: usize = 200;
/// So often in a row a daemon may die of a job that gets no further.
const MOST_LIVES_IN_VAIN: u32 = 3;
/// A job that has come to its end is let go of within moments.
const LETS_GO_WITHIN: Duration = Duration::from_secs(10);
/// When the daemon stops, programs that have not ended by themselves have so much of the time to do so when they are
/// asked to, or a third of it where there is little.
const PROGRAMS_END: Duration = Duration::from_secs(3);
/// When too many wait, a client is asked to come back after this.
const RETRY_MS: u64 = 5000;

/// Clones share everything.
#[derive(Clone)]
pub(crate) struct JobManager {
    pub(super) inner: Arc<Inner>,
}

pub(super) struct Inner {
    pub(super) shelf: Shelf,
    pub(super) kit: Kit,
    pub(super) counts: JobCounts,
    pub(super) tasks: Tasks,
    /// Jobs are left where they are.
    pub(super) pausing: CancellationToken,
    /// Of steps that are under way then.
    pub(super) patience: Duration,
    /// Changes whenever a job has written to its journal.
    pub(super) written: watch::Sender<u64>,
    book: Mutex<Book>,
    /// There may be something to begin.
    turn: Notify,
}

impl JobManager {
    /// `kit`: what jobs are run with. Jobs of earlier daemons are taken up by and by.
    pub(crate) fn start(home: &HomeLayout, kit: Kit, counts: JobCounts, tasks: &Tasks) -> Self {
        let drain = kit.settings.limits.drain;
        let inner = Inner {
            shelf: Shelf::new(home.runs()),
            kit,
            counts,
            tasks: tasks.child(),
            pausing: CancellationToken::new(),
            patience: drain.saturating_sub((drain / 3).min(PROGRAMS_END)),
            written: watch::Sender::new(0),
            book: Mutex::default(),
            turn: Notify::new(),
        };
        let manager = Self { inner: Arc::new(inner) };
        manager.inner.tasks.spawn("jobs", manager.clone().keep());
        manager
    }

    /// Leaves every job where it is, for the next daemon to go on with. Steps under way have most of `limit` to end; the
    /// others are given up, and their programs have the rest.
    pub(crate) async fn pause(&self, limit: Duration) {
        self.book().close();
        self.inner.pausing.cancel();
        let (shelf, running) = (self.inner.shelf.clone(), self.book().running());
        // At once: whatever is left of this process is no death of a daemon.
        self.inner
            .tasks
            .spawn_blocking("jobs", move || running.iter().for_each(|id| shelf.note_good_end(id)));
        self.inner.tasks.shutdown(limit).await;
    }

    /// Takes a workflow; `false`: the same one was taken before under its id.
    pub(crate) async fn submit(
        &self,
        caller: &Caller,
        request: JobRequest,
    ) -> Result<(bool, JobAccepted), Refusal> {
        let this = self.clone();
        let caller = caller.clone();
        let (id, taken) = self.away(move || this.take_in(&caller, request)).await?;
        self.tell();
        let accepted = self.accepted(&id).await?;
        Ok((taken == Taken::New, accepted))
    }

    fn take_in(&self, caller: &Caller, request: JobRequest) -> Result<(JobId, Taken), Refusal> {
        self.book().room(&caller.id).map_err(full)?;
        let JobRequest { spec, specs, inputs, options, job_id } = request;
        let spec = read_spec(&spec_text(spec), &specs)?;
        self.check(caller, &spec, options.provider.as_deref())?;
        let inputs = check_inputs(&spec.inputs, inputs, Map::new()).map_err(|problems| all_of(&problems))?;
        let id = match job_id {
            Some(id) => job_name(&id)?,
            None => JobId::fresh(&spec.project),
        };
        let owner = Owner {
            submitter: caller.id.clone(),
            submitted_at: UnixMillis::now().to_rfc3339(),
            request: fingerprint(&spec, &inputs, &options),
            wanted_at: 0,
            lives_in_vain: 0,
            results: 0,
            options,
        };
        let taken = self.inner.shelf.take_in(&NewJob { id: id.clone(), spec, inputs, owner })?;
        if taken == Taken::New {
            tracing::info!(job = %id, owner = caller.id, "a job was submitted");
            self.book().enqueue(&id, &caller.id);
        }
        Ok((id, taken))
    }

    fn check(&self, caller: &Caller, spec: &JobSpec, provider: Option<&str>) -> Result<(), Refusal> {
        if provider.is_some_and(|name| name.len() > LONGEST_NAME) {
            let message = format!("options.provider is longer than any name: {LONGEST_NAME} bytes");
            return Err(ErrorBody::new(ErrorCode::InvalidParams, message).into());
        }
        let provider = self.inner.kit.provider(provider, spec)?;
        let rights = self.inner.kit.rights(caller.operator);
        rights.check(spec, &provider).map_err(|body| Refusal::from(*body))
    }

    /// The newest jobs that a caller may see, newest first.
    pub(crate) async fn list(&self, caller: &Caller, limit: usize) -> Result<Vec<JobSummary>, Refusal> {
        let (this, caller) = (self.clone(), caller.clone());
        self.away(move || Ok(this.summaries(&caller, limit)?)).await
    }

    /// The document of `show --json`.
    pub(crate) async fn show(&self, caller: &Caller, id: &str) -> Result<Value, Refusal> {
        let (this, caller, id) = (self.clone(), caller.clone(), id.to_owned());
        self.away(move || {
            let looked = this.find(&caller, &id)?;
            let mut document = looked.view.to_json(UnixMicros::now());
            document["status"] = this.status_of(&looked).label().into();
            if !caller.operator {
                // Where things lie on this machine is none of their business.
                document["path"] = Value::Null;
                document["holder"] = Value::Null;
            }
            Ok(document)
        })
        .await
    }

    /// The journal of a job from behind `after` on.
    pub(crate) async fn follow(&self, caller: &Caller, id: &str, after: u64) -> Result<Journal, Refusal> {
        let (this, caller, id) = (self.clone(), caller.clone(), id.to_owned());
        let view = self.away(move || Ok(this.find(&caller, &id)?.view)).await?;
        let ended = view.manifest.status.is_some_and(|it| it != workflow::JobStatus::Running);
        let has_seen_the_end = ended && after >= view.manifest.journal.seq;
        Ok(Journal::new(self.clone(), view.id, after, has_seen_the_end))
    }

    /// Ends a job; one that is over stays as it is.
    pub(crate) async fn cancel(&self, caller: &Caller, id: &str) -> Result<(), Refusal> {
        let (this, caller, id) = (self.clone(), caller.clone(), id.to_owned());
        self.away(move || {
            let looked = this.find(&caller, &id)?;
            if looked.is_over() {
                return Ok(());
            }
            let Looked { view, owner } = looked;
            // Before anybody is told: whoever was answered may rely on it, also if this daemon is killed now.
            workflow::leave_cancel(&this.inner.shelf.control(&view.id))
                .map_err(|error| cannot_ask(&view.id, &error))?;
            // It may have ended meanwhile: whoever resumes it wants it to go on.
            if this.find(&caller, &id)?.is_over() {
                workflow::forget_cancel(&this.inner.shelf.control(&view.id));
                return Ok(());
            }
            if !this.book().cancel(&view.id) {
                this.go_on(&view, owner.as_ref());
            }
            Ok(())
        })
        .await?;
        self.tell();
        Ok(())
    }

    /// Answers a gate.
    pub(crate) async fn decide(
        &self,
        caller: &Caller,
        id: &str,
        decision: JobDecision,
    ) -> Result<(), Refusal> {
        let (this, caller, id) = (self.clone(), caller.clone(), id.to_owned());
        self.away(move || {
            let Looked { view, owner } = this.find(&caller, &id)?;
            let JobDecision { step, choice } = decision;
            workflow::check_decision(&view.manifest, &step, &choice).map_err(Failure::from)?;
            let by = caller.name.clone().unwrap_or_else(|| caller.id.clone());
            let decided = Decided { step, choice, by, at: UnixMillis::now().to_rfc3339() };
            workflow::leave_decision(&this.inner.shelf.control(&view.id), &decided)
                .map_err(|error| cannot_ask(&view.id, &error))?;
            this.go_on(&view, owner.as_ref());
            Ok(())
        })
        .await?;
        self.tell();
        Ok(())
    }

    /// A job of a daemon that nobody works on is worked on again; of others, whoever runs them reads what was left.
    fn go_on(&self, view: &RunView, owner: Option<&Owner>) {
        if let Some(owner) = owner
            && view.status != RunStatus::Running
        {
            self.book().enqueue(&view.id, &owner.submitter);
        }
    }

    /// Goes on with a job that nobody works on.
    pub(crate) async fn resume(
        &self,
        caller: &Caller,
        id: &str,
        request: ResumeRequest,
    ) -> Result<JobAccepted, Refusal> {
        let (this, caller, id) = (self.clone(), caller.clone(), id.to_owned());
        self.let_go(&caller, &id).await?;
        let id = self.away(move || this.want_again(&caller, &id, request)).await?;
        self.tell();
        self.accepted(&id).await
    }

    /// A job that has come to its end is still held for a moment: nobody is to see that.
    async fn let_go(&self, caller: &Caller, id: &str) -> Result<(), Refusal> {
        let mut written = self.inner.written.subscribe();
        let (this, caller, id) = (self.clone(), caller.clone(), id.to_owned());
        let looked = self.away(move || Ok(this.find(&caller, &id)?)).await?;
        let is_held = looked.is_over() && self.book().is_running(&looked.view.id);
        let is_free = written.wait_for(|_| !self.book().is_running(&looked.view.id));
        if is_held {
            // Whoever waited in vain is told that it is still held.
            let _in_vain = tokio::time::timeout(LETS_GO_WITHIN, is_free).await;
        }
        Ok(())
    }

    fn want_again(&self, caller: &Caller, id: &str, request: ResumeRequest) -> Result<JobId, Refusal> {
        let Looked { view, owner } = self.find(caller, id)?;
        let id = view.id;
        let owner = owner.ok_or_else(|| not_ours(&id))?;
        if self.book().is_running(&id) {
            let message = format!("the job {id} is being worked on");
            let failure = Failure::new(ExitCode::LockNotAcquired, message);
            return Err(failure.hint("wait for its end, or cancel it first").into());
        }
        self.book().room(&owner.submitter).map_err(full)?;
        let ResumeRequest { spec, specs, options } = request;
        let spec = spec.map(|spec| read_spec(&spec_text(spec), &specs)).transpose()?;
        let asked = options.as_ref().and_then(|options| options.provider.clone()).or(owner.options.provider);
        self.inner.shelf.want_again(&id, spec, options, |spec| self.check(caller, spec, asked.as_deref()))?;
        self.book().enqueue(&id, &owner.submitter);
        Ok(id)
    }

    async fn accepted(&self, id: &JobId) -> Result<JobAccepted, Refusal> {
        let (this, sought) = (self.clone(), id.clone());
        let status = self
            .away(move || {
                let looked = this.inner.shelf.look(&sought)?.ok_or_else(|| unknown(sought.as_str()))?;
                Ok(this.status_of(&looked))
            })
            .await?;
        let events_url = paths::fill(paths::JOB_EVENTS, &[id.as_str()]);
        Ok(JobAccepted { job_id: id.to_string(), status, events_url })
    }

    /// A job of this caller. Those of others are as unknown as any that never were.
    fn find(&self, caller: &Caller, id: &str) -> Result<Looked, Failure> {
        let looked = JobId::new(id).ok().map(|id| self.inner.shelf.look(&id)).transpose()?.flatten();
        looked.filter(|looked| may_see(caller, looked.owner.as_ref())).ok_or_else(|| unknown(id))
    }

    fn summaries(&self, caller: &Caller, limit: usize) -> Result<Vec<JobSummary>, Failure> {
        let rows = self.inner.shelf.list()?.into_iter();
        let theirs = rows.filter_map(|row| {
            let id = JobId::new(&row.job_id).ok()?;
            let owner = || Owner::read(&self.inner.shelf.run(&id));
            (caller.operator || may_see(caller, owner().as_ref())).then(|| self.summary(&id, row))
        });
        Ok(theirs.take(limit).collect())
    }

    fn summary(&self, id: &JobId, row: RunSummary) -> JobSummary {
        JobSummary {
            status: self.status(id, row.status),
            job_id: row.job_id,
            project: row.project,
            steps_done: row.steps_done,
            steps: row.steps,
            tokens: row.tokens,
            started_at: row.started_at,
            finished_at: row.finished_at,
            duration_s: row.duration_s,
        }
    }

    /// How a job stands: one that goes on has not come to its end, though its journal tells of nothing later yet.
    fn status_of(&self, looked: &Looked) -> JobStatus {
        let view = &looked.view;
        let goes_on = view.status.is_over() && !looked.is_over() && self.book().is_running(&view.id);
        if goes_on { JobStatus::Running } else { self.status(&view.id, view.status) }
    }

    /// A run's own word, unless it waits for its turn.
    fn status(&self, id: &JobId, status: RunStatus) -> JobStatus {
        if self.book().is_queued(id) {
            return JobStatus::Queued;
        }
        match status {
            RunStatus::Running => JobStatus::Running,
            // Between its turn and the moment in which its folder is held.
            RunStatus::Queued | RunStatus::Interrupted if self.book().is_running(id) => JobStatus::Running,
            RunStatus::Queued | RunStatus::Interrupted => JobStatus::Interrupted,
            RunStatus::Waiting => JobStatus::Waiting,
            RunStatus::Succeeded => JobStatus::Succeeded,
            RunStatus::Failed => JobStatus::Failed,
            RunStatus::Cancelled => JobStatus::Cancelled,
        }
    }

    /// Whether this daemon works on a job or is going to.
    pub(super) fn is_wanted(&self, id: &JobId) -> bool {
        let book = self.book();
        book.is_queued(id) || book.is_running(id)
    }

    pub(super) fn book(&self) -> MutexGuard<'_, Book> {
        // Each change is one step, so a panic elsewhere leaves nothing half done.
        self.inner.book.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whoever begins jobs looks again.
    pub(super) fn tell(&self) {
        self.inner.turn.notify_one();
    }

    /// Begins jobs as places get free.
    async fn keep(self) {
        let this = self.clone();
        // A folder of many runs takes a moment; what is submitted meanwhile does not wait for it.
        self.inner.tasks.spawn_blocking("earlier jobs", move || this.take_up());
        loop {
            let (pausing, turn) = (&self.inner.pausing, &self.inner.turn);
            tokio::select! {
                () = pausing.cancelled() => return,
                () = turn.notified() => {}
                () = tokio::time::sleep(GATE_PACE) => self.look_at_gates().await,
            }
            while let Some((id, cancel)) = { self.book().begin_next() } {
                self.inner.tasks.spawn("job", attend::attend(self.clone(), id, cancel));
            }
            self.inner.counts.set(self.book().counts());
        }
    }

    /// Takes up what an earlier daemon left: all of it had its place there.
    fn take_up(&self) {
        for (id, owner) in self.inner.shelf.submitted() {
            match self.inner.shelf.found(&id, &owner) {
                Ok(Found::ToDo) if owner.lives_in_vain >= MOST_LIVES_IN_VAIN => tracing::warn!(
                    job = %id,
                    "the daemon has died {MOST_LIVES_IN_VAIN} times while it worked on this job, which got no further: it is left \
                     where it is; go on with: llama-orch run --resume {id}"
                ),
                Ok(Found::ToDo) => {
                    tracing::info!(job = %id, "going on with a job of an earlier daemon");
                    self.book().enqueue(&id, &owner.submitter);
                }
                Ok(Found::AtGate) => self.book().note_at_gate(id, owner.submitter),
                Ok(Found::Over) => {}
                Err(failure) => tracing::warn!(job = %id, %failure, "a job cannot be taken up"),
            }
        }
        self.tell();
    }

    /// Jobs at a gate go on when somebody has left a decision, however it came there.
    async fn look_at_gates(&self) {
        let waiting = self.book().at_gate();
        if waiting.is_empty() {
            return;
        }
        let shelf = self.inner.shelf.clone();
        let asked = self.inner.tasks.spawn_blocking("gates", move || {
            waiting.into_iter().filter(|id| workflow::has_wishes(&shelf.control(id))).collect()
        });
        let asked: Vec<JobId> = asked.await.unwrap_or_default();
        for id in asked {
            self.book().enqueue_from_gate(&id);
        }
    }

    /// Run folders lie on a disk: they are read where waiting holds nobody up.
    async fn away<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T, Refusal> + Send + 'static,
    ) -> Result<T, Refusal> {
        let cut = |error| Failure::new(ExitCode::General, format!("the jobs were not reached: {error}"));
        self.inner.tasks.spawn_blocking("jobs", work).await.map_err(cut)?
    }
}

fn may_see(caller: &Caller, owner: Option<&Owner>) -> bool {
    // What was run beside the daemon is the operators'.
    owner.map_or(caller.operator, |owner| caller.may_look_after(&owner.submitter))
}

fn unknown(id: &str) -> Failure {
    Failure::new(ExitCode::JobNotFound, format!("there is no job {id:?}"))
}

fn full(why: Full) -> Refusal {
    let refusal = ErrorBody::new(ErrorCode::AdmissionReject, why.to_string());
    let hint = Some("wait until some of them have ended; `llama-orch jobs` lists them".to_owned());
    ErrorBody { retry_after_ms: Some(RETRY_MS), hint, ..refusal }.into()
}

/// A spec that is sent as a document is read like a text, so that problems have places.
fn spec_text(spec: Value) -> String {
    match spec {
        Value::String(text) => text,
        document => serde_json::to_string_pretty(&document).unwrap_or_default(),
    }
}

fn job_name(id: &str) -> Result<JobId, Failure> {
    let shown: String = id.chars().take(LONGEST_NAME).collect();
    JobId::new(id).map_err(|error| Failure::new(ExitCode::Usage, format!("{shown:?} names no job: {error}")))
}

fn read_spec(text: &str, parts: &std::collections::BTreeMap<String, String>) -> Result<JobSpec, Refusal> {
    JobSpec::read(text, parts).map_err(|errors| wrong_spec(&errors))
}

/// Everything that is wrong with a spec.
fn wrong_spec(errors: &SpecErrors) -> Refusal {
    let problem = |error: &workflow_spec::SpecError| Problem {
        file: error.file.clone(),
        line: error.line,
        column: error.column,
        path: error.path.clone(),
        message: error.message.clone(),
        hint: error.hint.clone(),
    };
    let body = ErrorBody::from(Failure::new(ExitCode::JobSpecInvalid, errors.to_string()));
    ErrorBody { problems: errors.errors.iter().map(problem).collect(), ..body }.into()
}

fn cannot_ask(id: &JobId, error: &std::io::Error) -> Failure {
    Failure::new(ExitCode::General, format!("nothing can be left for the job {id}: {error}"))
}
