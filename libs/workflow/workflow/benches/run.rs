//! What the engine itself costs: 10,000 steps that do nothing, or whose results are there. `cargo bench -p workflow`.

#![expect(clippy::unwrap_used, reason = "a measurement fails by panicking")]

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::Map;
use workflow::{
    Answer, AnswerPiece, AskModel, AskService, CallFailure, FinishReason, Halt, HearProgram, Job, JobId,
    JobOptions, JobOutcome, ModelFacts, ModelRequest, PortFuture, Ports, ProgramEnd, ProgramRequest,
    RunFolder, RunProgram, ServiceAnswer, ServiceRequest, Store, TokenUse, Watch, run_job,
};
use workflow_spec::{FailureKind, JobSpec, LoadNothing};

const STEPS: usize = 10_000;
const STRICT_CHAIN: usize = 500;
/// Short measurements are made so often.
const TIMES: usize = 5;

/// Answers at once, or after as long as the prompt says in milliseconds.
struct World;

impl AskModel for World {
    fn facts(&self, provider: &str, model: Option<&str>) -> PortFuture<Result<ModelFacts, CallFailure>> {
        let (provider_kind, model) = (provider.to_owned(), model.unwrap_or("first").to_owned());
        Box::pin(async move { Ok(ModelFacts { provider_kind, model, digest: None }) })
    }

    fn ask(
        &self,
        request: ModelRequest,
        _pieces: Arc<dyn AnswerPiece>,
    ) -> PortFuture<Result<Answer, CallFailure>> {
        let wait = request.messages[0].content.split(' ').next().and_then(|word| word.parse().ok());
        Box::pin(async move {
            if let Some(wait) = wait {
                tokio::time::sleep(Duration::from_millis(wait)).await;
            }
            let usage = TokenUse { prompt: 1, completion: 1, cached: 0 };
            let text = "done".to_owned();
            Ok(Answer { text, finish: FinishReason::Stop, usage, first_token: None, tool_calls: None })
        })
    }
}

impl RunProgram for World {
    fn run(
        &self,
        _request: ProgramRequest,
        _ear: Arc<dyn HearProgram>,
    ) -> PortFuture<Result<ProgramEnd, CallFailure>> {
        Box::pin(async { Err(CallFailure::new(FailureKind::Tool, "no programs here")) })
    }
}

impl AskService for World {
    fn ask(&self, _request: ServiceRequest) -> PortFuture<Result<ServiceAnswer, CallFailure>> {
        Box::pin(async { Err(CallFailure::new(FailureKind::Connect, "no services here")) })
    }
}

impl Watch for World {
    fn lines(&self, _journal: &[u8]) {}
    fn piece(&self, _step: &str, _text: &str) {}
}

fn spec(steps: &str) -> Arc<JobSpec> {
    let text = format!("version: 1\nproject: p\nlimits: {{ steps: 8 }}\nsteps:\n{steps}");
    Arc::new(JobSpec::read(&text, &LoadNothing).unwrap_or_else(|errors| panic!("{errors}")))
}

fn wide(what: &str) -> String {
    (0..STEPS).fold(String::new(), |mut text, step| {
        writeln!(text, "  s{step}: {{ {} }}", what.replace("NUMBER", &step.to_string())).unwrap();
        text
    })
}

fn chain(length: usize) -> String {
    (0..length).fold(String::new(), |mut text, step| {
        let needs = if step == 0 { String::new() } else { format!("needs: [s{}], ", step - 1) };
        writeln!(text, "  s{step}: {{ {needs}pass: {{}} }}").unwrap();
        text
    })
}

/// Two chains that take turns to wait long: whoever runs them in waves waits twice as long.
fn staggered() -> String {
    let mut text = String::new();
    for chain in ["a", "b"] {
        for step in 0..20 {
            let wait = if (step % 2 == 0) == (chain == "a") { 10 } else { 100 };
            let before = if step == 0 {
                String::new()
            } else {
                format!(" {{{{ steps.{chain}{}.output.text }}}}", step - 1)
            };
            writeln!(
                text,
                "  {chain}{step}: {{ llm: {{ model: m, prompt: '{wait} {chain}{step}{before}' }} }}"
            )
            .unwrap();
        }
    }
    text
}

const FOUR: &str = "  architect: { llm: { model: m, prompt: '50 a' } }
  builder: { llm: { model: m, prompt: '250 b {{ steps.architect.output.text }}' } }
  docs: { llm: { model: m, prompt: '250 d {{ steps.architect.output.text }}' } }
  qa: { llm: { model: m, prompt: '50 q {{ steps.builder.output.text }} {{ steps.docs.output.text }}' } }
";

/// Runs a job and answers how long that took, with opening its folder.
async fn run(home: &Path, name: &str, spec: &Arc<JobSpec>, strict: bool) -> Duration {
    let (runs, id) = (home.join("runs"), JobId::new(name).unwrap());
    let began = Instant::now();
    let (folder, past) = if runs.join(name).exists() {
        let (folder, past) = RunFolder::resume(&runs, &id, "bench").unwrap();
        (folder, Some(past))
    } else {
        (RunFolder::create(&runs, &id, "p", "bench").unwrap(), None)
    };
    let options = JobOptions { provider: "local".into(), strict, ..JobOptions::default() };
    let job = Job { spec: spec.clone(), inputs: Map::new(), options };
    let world = Arc::new(World);
    let ports = Ports {
        models: world.clone(),
        programs: world.clone(),
        services: world.clone(),
        serving: None,
        secrets: Arc::new(|_| None),
    };
    let store = Arc::new(Store::home(home.join("cache")));
    let end = run_job(folder, past, job, store, ports, world, Halt::default()).await.unwrap();
    assert_eq!(end.outcome, JobOutcome::Succeeded, "{:?}", end.error);
    began.elapsed()
}

/// How long something took, and how long processors worked at it.
struct Figure {
    wall: Duration,
    work: Duration,
}

async fn measured(home: &Path, name: &str, spec: &Arc<JobSpec>, strict: bool) -> Figure {
    let before = processors();
    let wall = run(home, name, spec, strict).await;
    Figure { wall, work: processors().saturating_sub(before) }
}

/// The best of several: whatever else the machine does only makes it slower.
async fn best(home: &Path, name: &str, spec: &Arc<JobSpec>) -> Figure {
    let mut best = measured(home, &format!("{name}-0"), spec, false).await;
    for time in 1..TIMES {
        let again = measured(home, &format!("{name}-{time}"), spec, false).await;
        best = if again.wall < best.wall { again } else { best };
    }
    best
}

/// The same for a run that lacks its last step's end each time.
async fn best_resumed(home: &Path, name: &str, spec: &Arc<JobSpec>) -> Figure {
    let mut best = Figure { wall: Duration::MAX, work: Duration::ZERO };
    for _ in 0..TIMES {
        forget_one(home, name);
        let again = measured(home, name, spec, false).await;
        best = if again.wall < best.wall { again } else { best };
    }
    best
}

/// What all threads of this process have had of processors.
fn processors() -> Duration {
    let threads = std::fs::read_dir("/proc/self/task").into_iter().flatten().flatten();
    let of_thread = |thread: std::fs::DirEntry| -> Option<u64> {
        let times = std::fs::read_to_string(thread.path().join("schedstat")).ok()?;
        times.split(' ').next()?.parse().ok()
    };
    Duration::from_nanos(threads.filter_map(of_thread).sum())
}

fn tell(what: &str, figure: &Figure, steps: usize) {
    let each = figure.wall.as_secs_f64() * 1e6 / steps as f64;
    let [wall, work] = [figure.wall, figure.work].map(|time| time.as_secs_f64() * 1e3);
    let line = format!("{what:<28} {wall:>9.1} ms {each:>9.2} µs a step {work:>9.1} ms of processors\n");
    std::io::stdout().write_all(line.as_bytes()).unwrap();
}

/// Takes the last line of a step's end away, as if the process had been killed before it.
fn forget_one(home: &Path, name: &str) {
    let journal = home.join("runs").join(name).join("events.jsonl");
    let text = std::fs::read_to_string(&journal).unwrap();
    let end = text.match_indices("step.succeeded").last().unwrap().0;
    let line = text[..end].rfind('\n').unwrap() + 1;
    std::fs::write(&journal, &text[..line]).unwrap();
}

fn memory_kib() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|line| line.starts_with("VmHWM"))?;
    line.split_whitespace().nth(1)?.parse().ok()
}

#[tokio::main]
async fn main() {
    let home = tempfile::tempdir().unwrap();
    let home = home.path();
    let nothing = spec(&wide("pass: {}"));
    let read = memory_kib().unwrap_or(0);
    run(home, "warm", &nothing, false).await;
    let ran = memory_kib().unwrap_or(0);
    tell("wide", &best(home, "wide", &nothing).await, STEPS);
    tell("wide, resumed", &best_resumed(home, "wide-0", &nothing).await, STEPS);
    tell("wide, strict", &measured(home, "wide-strict", &nothing, true).await, STEPS);
    tell("chain", &best(home, "chain", &spec(&chain(STEPS))).await, STEPS);
    let short = spec(&chain(STRICT_CHAIN));
    tell("chain, strict", &measured(home, "chain-strict", &short, true).await, STRICT_CHAIN);
    let asking = spec(&wide("llm: { model: m, prompt: 'ask NUMBER' }"));
    tell("asked", &measured(home, "asked", &asking, false).await, STEPS);
    tell("cached", &best(home, "cached", &asking).await, STEPS);
    tell("asked, resumed", &best_resumed(home, "asked", &asking).await, STEPS);
    tell("seed's four, parallel", &measured(home, "four", &spec(FOUR), false).await, 4);
    tell("seed's four, cached", &measured(home, "four-again", &spec(FOUR), false).await, 4);
    tell("two staggered chains of 20", &measured(home, "staggered", &spec(&staggered()), false).await, 40);
    let line = format!("memory: {read} KiB with the spec, {ran} KiB after 10,000 steps\n");
    std::io::stdout().write_all(line.as_bytes()).unwrap();
}
