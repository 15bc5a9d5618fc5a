//! Steps that run a program.

use std::sync::{Arc, Mutex, PoisonError};

use serde_json::{Map, Value, json};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::task::task_tracker::TaskTrackerToken;
use workflow_spec::{Effect, FailureKind, FileSource, Names, OutputFormat, RunStep, Step};

use super::format::{parsed, word};
use super::sight::{Rendered, Sight, unusable};
use super::working::WorkingFolder;
use super::{Action, Attempt, Performed};
use crate::log::{LogStream, StepLog};
use crate::secrets::Secrets;
use crate::{CallFailure, HearProgram, PortFuture, ProgramEnd, ProgramRequest, ProgramStream};

/// Bytes of both streams; more is for files.
const OUTPUT_LIMIT: usize = 16 * 1024 * 1024;
/// Of what a failed program said last, so much is told.
const TAIL_LIMIT: usize = 2000;
/// Under this name a program that must not act twice finds what tells one effect from another.
const IDEMPOTENCY_VARIABLE: &str = "LLAMA_ORCH_IDEMPOTENCY_KEY";

/// A `run` step with every text rendered.
pub(crate) struct ProgramAction {
    call: Rendered<Call>,
    secrets: Vec<String>,
    format: OutputFormat,
    effect: Effect,
    /// What is kept of the working folder.
    collect: Vec<String>,
    sample: Option<u32>,
    /// Held from a program's start until the last process of its group is gone: an attempt that was given up does
    /// not run beside the next one.
    turn: Arc<Semaphore>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Call {
    argv: Vec<String>,
    env: Vec<(String, String)>,
    stdin: Option<String>,
}

impl ProgramAction {
    pub(crate) fn new(
        step: &Step,
        run: &RunStep,
        sight: &Sight,
        sample: Option<u32>,
    ) -> Result<Self, CallFailure> {
        let collect = step.files.iter().filter_map(|rule| match &rule.from {
            FileSource::Working(path) => Some(path.clone()),
            _ => None,
        });
        let call = sight.render(|names| Call::render(run, names))?;
        // Whoever is on the same machine reads the words with which a program was started.
        if let Ok((revealed, _)) = &call.revealed
            && revealed.argv != call.shown.argv
        {
            let message = "a secret stands in argv; give it to the program in env or stdin";
            return Err(CallFailure::new(FailureKind::Validation, message));
        }
        Ok(Self {
            call,
            secrets: step.secrets.clone(),
            format: run.format,
            effect: step.effect,
            collect: collect.collect(),
            sample,
            turn: Arc::new(Semaphore::new(1)),
        })
    }

    async fn run(&self, attempt: Attempt) -> Result<Performed, CallFailure> {
        let (call, secrets) = self.call.revealed.clone()?;
        let failed = |failure: CallFailure| secrets.filter_failure(failure);
        let turn = self.turn.clone().acquire_owned().await.expect("nobody closes it");
        let folder = WorkingFolder::create(&attempt.working).map(Arc::new);
        let folder = folder.map_err(|error| {
            let message = format!("cannot make {}: {error}", attempt.working.display());
            CallFailure::new(FailureKind::Internal, message)
        })?;
        let ear = Arc::new(Ear::new(&attempt, &secrets, folder.clone(), turn));
        let name = call.argv[0].clone();
        let request = self.request(call, &attempt, &folder);
        let end = attempt.ports.programs.run(request, ear).await.map_err(failed)?;
        if end.exit_code != Some(0) {
            return Err(failed(unsuccessful(&name, &end)));
        }
        self.result(&end, &folder, &secrets).map_err(CallFailure::after_the_effect)
    }

    /// What a program that did its work has left.
    fn result(
        &self,
        end: &ProgramEnd,
        folder: &WorkingFolder,
        secrets: &Secrets,
    ) -> Result<Performed, CallFailure> {
        let collected = folder.collect(&self.collect)?;
        if let Some((file, secret)) =
            collected.iter().find_map(|file| Some((&file.path, secrets.named_in(&file.content)?)))
        {
            let message = format!("the file {file} holds the value of the secret {secret} and is not kept");
            return Err(CallFailure::new(FailureKind::Validation, message));
        }
        let text = secrets.filter(end.stdout.trim_end_matches(['\n', '\r'])).into_owned();
        let output = parsed(text, self.format, "the program's output")?;
        Ok(Performed { output, collected, ..Performed::default() })
    }

    fn request(&self, call: Call, attempt: &Attempt, folder: &WorkingFolder) -> ProgramRequest {
        let mut env = call.env;
        if self.effect == Effect::External {
            env.push((IDEMPOTENCY_VARIABLE.to_owned(), attempt.idempotency_key.clone()));
        }
        ProgramRequest {
            argv: call.argv,
            env,
            stdin: call.stdin,
            cwd: folder.path().to_owned(),
            output_limit: OUTPUT_LIMIT,
        }
    }
}

impl Action for ProgramAction {
    fn key_document(&self) -> Value {
        let call = &self.call.shown;
        let env: Map<String, Value> =
            call.env.iter().map(|(name, value)| (name.clone(), value.clone().into())).collect();
        let mut document = json!({
            "v": 1,
            "kind": "run",
            "argv": call.argv,
            "env": env,
            "format": word(self.format),
            "secrets": self.secrets,
        });
        if let Some(stdin) = &call.stdin {
            document["stdin"] = stdin.clone().into();
        }
        if !self.collect.is_empty() {
            document["collect"] = self.collect.clone().into();
        }
        if let Some(sample) = self.sample {
            document["sample"] = sample.into();
        }
        document
    }

    fn perform(self: Arc<Self>, attempt: Attempt) -> PortFuture<Result<Performed, CallFailure>> {
        Box::pin(async move { self.run(attempt).await })
    }
}

impl Call {
    fn render(run: &RunStep, names: &Arc<dyn Names>) -> Result<Self, CallFailure> {
        let mut argv = Vec::with_capacity(run.argv.len());
        for (index, word) in run.argv.iter().enumerate() {
            let what = format!("argv[{index}]");
            let word = word.render(names).map_err(|error| unusable(&what, &error))?;
            argv.push(without_nul(word, &what)?);
        }
        if argv.first().is_none_or(|program| program.trim().is_empty()) {
            return Err(CallFailure::new(FailureKind::Validation, "argv[0] is empty: name a program"));
        }
        let mut env = Vec::with_capacity(run.env.len());
        for (name, value) in &run.env {
            let what = format!("env.{name}");
            let value = value.render(names).map_err(|error| unusable(&what, &error))?;
            env.push((name.clone(), without_nul(value, &what)?));
        }
        let stdin = run.stdin.as_ref().map(|text| text.render(names)).transpose();
        Ok(Self { argv, env, stdin: stdin.map_err(|error| unusable("stdin", &error))? })
    }
}

/// No system takes it in an argument or a variable.
fn without_nul(text: String, what: &str) -> Result<String, CallFailure> {
    if text.contains('\0') {
        let message = format!("{what} holds a NUL character; give such text on stdin");
        return Err(CallFailure::new(FailureKind::Validation, message));
    }
    Ok(text)
}

fn unsuccessful(name: &str, end: &ProgramEnd) -> CallFailure {
    let how = match (end.exit_code, end.signal) {
        (Some(code), _) => format!("{name} ended with exit code {code}"),
        (None, Some(signal)) => format!("{name} was ended by signal {signal}"),
        (None, None) => format!("{name} was ended from outside"),
    };
    let said = tail(if end.stderr.trim().is_empty() { &end.stdout } else { &end.stderr });
    let message = if said.is_empty() { how } else { format!("{how}: {said}") };
    // A program that was ended in the middle cannot tell how far it came.
    CallFailure { unsure: end.exit_code.is_none(), ..CallFailure::new(FailureKind::Tool, message) }
}

/// The end of a text, from a line's beginning where it is cut.
fn tail(text: &str) -> &str {
    let text = text.trim();
    let Some(cut) = text.len().checked_sub(TAIL_LIMIT) else { return text };
    let cut = (cut..text.len()).find(|at| text.is_char_boundary(*at)).unwrap_or(text.len());
    let rest = &text[cut..];
    rest.split_once('\n').map_or(rest, |(_, lines)| lines)
}

/// Writes the step's log, and keeps what belongs to the program for as long as any of it lives.
struct Ear {
    stdout: Mutex<LogStream>,
    stderr: Mutex<LogStream>,
    _folder: Arc<WorkingFolder>,
    _turn: OwnedSemaphorePermit,
    _alive: TaskTrackerToken,
}

impl Ear {
    fn new(
        attempt: &Attempt,
        secrets: &Secrets,
        folder: Arc<WorkingFolder>,
        turn: OwnedSemaphorePermit,
    ) -> Self {
        let log = StepLog::new(&attempt.log, secrets);
        let stream = || Mutex::new(log.stream());
        Self {
            stdout: stream(),
            stderr: stream(),
            _folder: folder,
            _turn: turn,
            _alive: attempt.alive.clone(),
        }
    }
}

impl HearProgram for Ear {
    fn hear(&self, stream: ProgramStream, bytes: &[u8]) {
        let log = match stream {
            ProgramStream::Stdout => &self.stdout,
            ProgramStream::Stderr => &self.stderr,
        };
        log.lock().unwrap_or_else(PoisonError::into_inner).write(bytes);
    }
}
