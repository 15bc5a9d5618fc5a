//! Working on one job, from taking hold of its folder to its end.

use std::sync::Arc;
use std::time::Duration;

use orch_core::{ExitCode, Failure};
use orch_runtime::CancellationToken;
use tokio::sync::watch;
use workflow::{Halt, Job, JobFacts, JobId, JobOutcome, JobStatus, Recorder, Watch, has_wishes, run_job};

use super::kit::options;
use super::manager::JobManager;
use super::permissions::Rights;
use super::shelf::Opened;

/// Works on a job until it ends, waits for a decision, or the daemon stops.
pub(super) async fn attend(manager: JobManager, id: JobId, cancel: CancellationToken) {
    let mut place = Place { manager, id, at_gate: false };
    let worked = work(&place.manager, &place.id, cancel).await;
    if !matches!(&worked, Ok(Some(outcome)) if outcome.is_over()) {
        let (shelf, id) = (place.manager.inner.shelf.clone(), place.id.clone());
        let noted = place.manager.inner.tasks.spawn_blocking("job", move || shelf.note_good_end(&id));
        // A daemon that ends at once does not note it.
        let _cut_short = noted.await;
    }
    match worked {
        Ok(None | Some(JobOutcome::Paused)) => tracing::info!(job = %place.id, "a job is left where it is"),
        Ok(Some(outcome)) => {
            tracing::info!(job = %place.id, ?outcome, "a job has ended");
            place.manager.inner.counts.ended(outcome);
            place.at_gate = outcome == JobOutcome::Waiting;
        }
        Err(failure) => tracing::warn!(job = %place.id, %failure, "a job cannot be worked on"),
    }
}

/// A job's place among those that are worked on; leaving is dropping, however the work ends.
struct Place {
    manager: JobManager,
    id: JobId,
    at_gate: bool,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.manager.book().ended(&self.id, self.at_gate);
        // Whoever follows its journal sees that nobody writes there any more.
        self.manager.inner.written.send_modify(|count| *count += 1);
        self.manager.tell();
    }
}

/// `None`: nothing is left to do, or the daemon stops and the job goes on with the next one.
async fn work(
    manager: &JobManager,
    id: &JobId,
    cancel: CancellationToken,
) -> Result<Option<JobOutcome>, Failure> {
    let inner = &manager.inner;
    let (shelf, wanted) = (inner.shelf.clone(), id.clone());
    let opened = away(inner.tasks.spawn_blocking("job", move || shelf.open(&wanted))).await?;
    if is_done(&opened) || inner.pausing.is_cancelled() {
        return Ok(None);
    }
    let (rights, provider) = match standing(manager, &opened) {
        Ok(standing) => standing,
        Err(failure) => {
            let ended = inner.tasks.spawn_blocking("job", move || refuse(opened, &failure));
            return away(ended).await.map(Some);
        }
    };
    let (ports, lent) = inner.kit.ports(&opened.owner.submitter, rights)?;
    let how = options(&opened.owner.options, provider);
    let job = Job { spec: Arc::new(opened.spec), inputs: opened.inputs, options: how };
    let past = Some(opened.past);
    let watch = Arc::new(Teller { written: inner.written.clone() });
    let store = Arc::clone(&inner.kit.store);
    let halt = Halt { cancel, pause: inner.pausing.clone(), patience: inner.patience };
    let end = Box::pin(run_job(opened.folder, past, job, store, ports, watch, halt)).await;
    drop(lent);
    Ok(Some(end?.outcome))
}

/// Whether somebody else has brought it to its end while it waited for its turn, and nobody has wanted more since.
fn is_done(opened: &Opened) -> bool {
    let manifest = &opened.past.manifest;
    let is_over =
        matches!(manifest.status, Some(JobStatus::Succeeded | JobStatus::Failed | JobStatus::Cancelled));
    is_over && manifest.journal.seq != opened.owner.wanted_at && !has_wishes(&opened.folder.control())
}

/// What the submitter may do now, and whom steps ask that name nobody: keys and settings may have changed since the
/// job was taken.
fn standing(manager: &JobManager, opened: &Opened) -> Result<(Rights, String), Failure> {
    let kit = &manager.inner.kit;
    let owner = &opened.owner.submitter;
    let rights = kit.rights_of(owner).ok_or_else(|| {
        let message = format!("the key {owner}, with which this job was submitted, is no longer valid");
        Failure::new(ExitCode::Unauthorized, message)
    })?;
    let provider = kit.provider(opened.owner.options.provider.as_deref(), &opened.spec)?;
    rights.check(&opened.spec, &provider).map_err(|body| body.into_failure())?;
    Ok((rights, provider))
}

/// Ends a job that may not go on; its journal says why.
fn refuse(opened: Opened, why: &Failure) -> Result<JobOutcome, Failure> {
    let Opened { folder, past, spec, owner, .. } = opened;
    let steps: Vec<&str> = spec.graph.steps.iter().map(|step| step.id.as_str()).collect();
    let facts = JobFacts {
        project: &spec.project,
        provider: owner.options.provider.as_deref().or(spec.provider.as_deref()).unwrap_or_default(),
        task: None,
        spec_sha256: &spec.sha256,
        steps: &steps,
    };
    let mut recorder = Recorder::open(folder, Some(&past))?;
    if past.lives() > 0 {
        recorder.job_resumed(&facts);
    } else {
        recorder.job_started(&facts);
    }
    recorder.job_failed(&why.message, Duration::ZERO);
    recorder.sync()?;
    recorder.write_manifest()?;
    Ok(JobOutcome::Failed)
}

async fn away<T>(work: tokio::task::JoinHandle<Result<T, Failure>>) -> Result<T, Failure> {
    let cut = |error| Failure::new(ExitCode::General, format!("the work was cut short: {error}"));
    work.await.map_err(cut)?
}

/// Tells those who follow that there is something to read. They read the journal itself, each at its own pace.
struct Teller {
    written: watch::Sender<u64>,
}

impl Watch for Teller {
    fn lines(&self, _: &[u8]) {
        self.written.send_modify(|count| *count += 1);
    }

    fn piece(&self, _: &str, _: &str) {}
}
