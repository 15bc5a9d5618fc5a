//! Workflows: run, refused, cut short, gone on with, and left to the daemon.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use serde_json::{Value, json};
use testkit::provider::{FakeProvider, Rule, Script};
use testkit::{ProgramRun, free_port, wait_for};

use super::{Named, SOON, Scene};

pub(super) const SCENARIOS: &[Named] = &[
    ("a workflow asks, runs a program and writes files, and the second time does nothing", twice),
    ("names that lead out of the outputs or mean a device write nothing", hostile_names),
    ("a killed run goes on where it was, and one that is resumed twice is told so", killed),
    ("Ctrl-C ends a run with the program of its step", ended_by_hand),
    ("the daemon carries a workflow out", submitted),
];

/// A job's spec beside the home.
fn spec(scene: &Scene<'_>, text: &str) -> String {
    fs::write(scene.folder().join("job.yaml"), text).expect("the scene's folder is writable");
    scene.windows_path("job.yaml")
}

/// `run` with whom it asks.
fn command(scene: &Scene<'_>, provider: &FakeProvider, arguments: &[&str]) -> Command {
    let mut command = scene.command(&[&["run"], arguments].concat());
    command
        .env("PROVIDER", "openai")
        .env("OPENAI_BASE_URL", format!("{}/v1", provider.url()))
        .env("OPENAI_API_KEY", "none");
    command
}

fn run(scene: &Scene<'_>, provider: &FakeProvider, arguments: &[&str]) -> ProgramRun {
    testkit::run(command(scene, provider, arguments))
}

/// Lines of a job's journal of this type.
fn events(scene: &Scene<'_>, job: &str, kind: &str) -> Vec<Value> {
    let journal = scene.text(&format!("runs/{job}/events.jsonl"));
    // The last line may be under way.
    let lines = journal.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    lines.filter(|event| event["type"] == kind).collect()
}

fn twice(scene: &Scene<'_>) {
    let provider = FakeProvider::start(Script::default());
    let spec = spec(
        scene,
        "project: notes
steps:
  ask: { llm: { model: m, prompt: 'Grüße' }, files: [ { path: 'Über uns/a.txt', from: output.text } ] }
  list: { run: [cmd, /c, 'echo hello& echo more>made.txt'], needs: [ask], cache: true, files: [ { path: b.txt, from: 'file:made.txt' } ] }
",
    );
    run(scene, &provider, &["--spec", &spec, "--job-id", "one"]).expect_exit(0);
    let outputs = |job: &str| scene.path("runs").join(job).join("outputs/notes");
    let asked = fs::read_to_string(outputs("one").join("Über uns/a.txt")).expect("the answer is a file");
    assert!(!asked.is_empty());
    assert_eq!(fs::read_to_string(outputs("one").join("b.txt")).expect("the program's file").trim(), "more");
    assert!(scene.text("runs/one/logs/list.log").contains("hello"));

    run(scene, &provider, &["--spec", &spec, "--job-id", "two"]).expect_exit(0);
    assert_eq!(events(scene, "two", "cache.hit").len(), 2);
    assert_eq!(provider.count(""), 1);
    assert_eq!(fs::read_to_string(outputs("two").join("b.txt")).expect("its file too").trim(), "more");
    assert!(scene.path("runs/two/.cache").read_dir().is_ok_and(|found| found.count() >= 2));
}

fn hostile_names(scene: &Scene<'_>) {
    let provider = FakeProvider::start(Script::default());
    for name in [r"..\out.txt", r"C:\out.txt", "/out.txt", "NUL", "com1.txt", "a:stream", "dot."] {
        let name = serde_json::to_string(name).expect("text is JSON");
        let file = format!("{{ path: '{{{{ {name} }}}}', from: output.text, mode: overwrite }}");
        let text = format!("project: p\nsteps:\n  a: {{ pass: {{ value: x }}, files: [ {file} ] }}\n");
        let refused = run(scene, &provider, &["--spec", &spec(scene, &text)]);
        assert!(matches!(refused.exit_code, Some(70 | 71)), "{name}: {refused}");
    }
    let written: Vec<PathBuf> = scene.picture().into_iter().map(|(path, _)| path).collect();
    let is_output =
        |path: &PathBuf| path.is_file() && path.components().any(|part| part.as_os_str() == "outputs");
    assert_eq!(written.iter().filter(|path| is_output(path)).collect::<Vec<_>>(), Vec::<&PathBuf>::new());
    assert!(!scene.folder().join("out.txt").exists());
}

fn killed(scene: &Scene<'_>) {
    let slow = Rule { latency_ms: Some(60_000), times: Some(1), ..Rule::on("second") };
    let provider = FakeProvider::start(Script::default().rule(slow));
    let spec = spec(
        scene,
        "project: p
steps:
  first: { llm: { model: m, prompt: first } }
  second: { llm: { model: m, prompt: 'second {{ steps.first.output.text }}' }, files: [ { path: a.txt, from: output.text } ] }
",
    );
    let mut running = command(scene, &provider, &["--spec", &spec, "--job-id", "cut"]);
    let mut running = running.spawn().expect("wine starts");
    wait_for("the second request", SOON, || events(scene, "cut", "llm.request").len() == 2);
    let other = run(scene, &provider, &["--resume", "cut"]);
    other.expect_exit(33);
    for process in scene.processes(&["--job-id cut"]) {
        process.kill();
    }
    wait_for("its end", SOON, || running.try_wait().is_ok_and(|status| status.is_some()));
    run(scene, &provider, &["--resume", "cut"]).expect_exit(0);
    assert_eq!(events(scene, "cut", "step.succeeded").len(), 2);
    assert_eq!(provider.count(""), 3, "the first is not asked again");
    assert!(scene.path("runs/cut/outputs/p/a.txt").is_file());
}

fn ended_by_hand(scene: &Scene<'_>) {
    let provider = FakeProvider::start(Script::default());
    let port = free_port().to_string();
    let program = scene.program_path("fake-llama-server");
    let argv = [program.as_str(), "--model", "none.gguf", "--port", &port];
    let spec = spec(scene, &json!({"project": "p", "steps": {"wait": {"run": argv}}}).to_string());
    let mut running = command(scene, &provider, &["--spec", &spec, "--job-id", "long"]);
    let mut running = running.spawn().expect("wine starts");
    wait_for("the program", SOON, || !scene.processes(&["--model none.gguf"]).is_empty());
    for process in scene.processes(&["--job-id long"]) {
        process.press_ctrl_c();
    }
    wait_for("the end of the run", SOON, || running.try_wait().is_ok_and(|status| status.is_some()));
    wait_for("the end of its program", SOON, || scene.processes(&["--model none.gguf"]).is_empty());
    assert_eq!(events(scene, "long", "job.cancelled").len(), 1);
}

fn submitted(scene: &Scene<'_>) {
    scene.instance("a", &[], &json!({}));
    scene.ok(&["daemon", "start"]);
    scene.ok(&["up", "a"]);
    let spec = spec(
        scene,
        "project: p\nsteps: { ask: { llm: { model: a, prompt: hello, options: { max_tokens: 8 } }, files: [ { path: a.txt, from: output.text } ] } }\n",
    );
    scene.ok(&["run", "--spec", &spec, "--submit", "--job-id", "sent"]);
    assert!(scene.path("runs/sent/outputs/p/a.txt").is_file());
    scene.ok(&["down", "a"]);
    scene.ok(&["daemon", "stop"]);
}
