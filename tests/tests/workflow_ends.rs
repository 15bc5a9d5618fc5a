//! What becomes of jobs when that ends which they live in: a terminal, a command, a daemon.

#![cfg(target_os = "linux")]
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use support::SOON;
use support::home::Home;
use support::processes::{is_alive, kill_hard};
use support::terminal::RealTerminal;
use testkit::provider::{FakeProvider, Fault, Rule, Script};
use testkit::{wait_for, wait_for_value};

/// A home whose workflows ask a provider that does as it is told: directly, and through the gateway (model `m`).
struct Scene {
    home: Home,
    provider: FakeProvider,
}

impl Scene {
    fn new(script: Script) -> Self {
        let home = Home::fake();
        let provider = FakeProvider::start(script);
        let config = format!(
            "[workflow]\nprovider = \"fake\"\n[routes.m]\nto = [\"fake/fake\"]\n\
             [providers.fake]\nkind = \"openai_compatible\"\nbase_url = \"{}/v1\"\n",
            provider.url()
        );
        std::fs::write(home.path().join("config.toml"), config).unwrap();
        Self { home, provider }
    }

    /// Writes a spec beside the home.
    fn spec(&self, text: &str) -> String {
        let path = self.home.scratch().join("job.yaml");
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    }

    #[track_caller]
    fn events(&self, id: &str) -> Vec<Value> {
        let journal = self.home.path().join("runs").join(id).join("events.jsonl");
        let text = std::fs::read_to_string(journal).unwrap_or_default();
        // The last line may be half written.
        text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
    }

    /// The steps with an event of this type, by name.
    #[track_caller]
    fn steps(&self, id: &str, kind: &str) -> Vec<String> {
        let events = self.events(id);
        let of_kind = events.iter().filter(|event| event["type"] == kind);
        let mut steps: Vec<String> =
            of_kind.map(|event| event["step"].as_str().unwrap_or_default().to_owned()).collect();
        steps.sort();
        steps
    }

    #[track_caller]
    fn wait_for_end(&self, id: &str, kind: &str) {
        wait_for(&format!("{kind} of {id}"), SOON, || {
            self.events(id).last().is_some_and(|event| event["type"] == kind)
        });
    }
}

const PROGRAM_BESIDE: &str = "project: cut
steps:
  a: { llm: { model: fake, prompt: A } }
  b: { llm: { model: fake, prompt: B }, needs: a }
  c: { run: { argv: [sh, -c, 'sleep 600 & echo $! > PIDS; wait'] } }
";

#[test]
fn a_job_whose_terminal_is_closed_ends_as_politely_as_by_ctrl_c() {
    let scene = Scene::new(Script::default().fault("B", Fault::Hang, 1));
    let pids = scene.home.scratch().join("pids");
    let spec = scene.spec(&PROGRAM_BESIDE.replace("PIDS", pids.to_str().unwrap()));
    let terminal = RealTerminal::open(&scene.home, 100, 30);
    terminal.start(&format!("run --spec {spec} --job-id cut"));
    wait_for("the second request", SOON, || scene.provider.count("B") == 1);
    let pid: u32 = wait_for_value("the program's child", SOON, || {
        std::fs::read_to_string(&pids).ok().and_then(|text| text.trim().parse().ok())
    });
    drop(terminal);
    scene.wait_for_end("cut", "job.cancelled");
    assert_eq!(scene.steps("cut", "step.cancelled"), ["b", "c"]);
    wait_for("the provider has lost its client", SOON, || scene.provider.stats().cancelled == 1);
    wait_for("the program's child has ended", SOON, || !is_alive(pid));
}

#[test]
fn a_job_that_was_started_to_outlive_its_terminal_goes_on_when_it_is_closed() {
    let scene = Scene::new(Script::default().rule(Rule { latency_ms: Some(1500), ..Rule::on("B") }));
    let spec = scene.spec("project: kept\nsteps: { b: { llm: { model: fake, prompt: B } } }\n");
    let terminal = RealTerminal::open(&scene.home, 100, 30);
    terminal.keys(&["trap '' HUP", "Enter"]);
    terminal.start(&format!("run --spec {spec} --job-id kept"));
    wait_for("the request", SOON, || scene.provider.count("B") == 1);
    drop(terminal);
    scene.wait_for_end("kept", "job.succeeded");
    assert_eq!(scene.provider.count("B"), 1);
}

#[test]
fn a_hangup_is_a_polite_end_however_often_it_is_told() {
    let scene = Scene::new(Script::default().fault("B", Fault::Hang, 1));
    let spec = scene.spec("project: cut\nsteps: { b: { llm: { model: fake, prompt: B } } }\n");
    let mut run = scene.home.spawn(&["run", "--spec", &spec, "--job-id", "cut"], "run");
    wait_for("the request", SOON, || scene.provider.count("B") == 1);
    // The system tells of it, and so does a shell.
    for _ in 0..3 {
        kill(Pid::from_raw(i32::try_from(run.pid()).unwrap()), Signal::SIGHUP).unwrap();
    }
    let ended = wait_for_value("the end of the run", SOON, || run.exit_status());
    assert_eq!(ended.code(), Some(130));
    scene.wait_for_end("cut", "job.cancelled");
}

/// Two steps in a row, asked through the gateway.
const SUBMITTED: &str = "project: left
steps:
  b: { llm: { model: m, provider: local, prompt: B } }
  next: { needs: b, llm: { model: m, provider: local, prompt: N } }
";

/// Submits a workflow, stops the daemon once it is `under_way`, and answers how long the stop took.
fn submit_and_stop(scene: &Scene, spec: &str, under_way: impl Fn() -> bool) -> Duration {
    let daemon = scene.home.start_daemon();
    let spec = scene.spec(spec);
    let mut follower =
        scene.home.spawn(&["run", "--submit", "--spec", &spec, "--job-id", "left"], "submitted");
    wait_for("steps under way", SOON, || follower.has_ended() || under_way());
    drop(follower);
    let began = Instant::now();
    scene.home.ok(&["daemon", "stop"]);
    let took = began.elapsed();
    wait_for("the daemon is gone", SOON, || !is_alive(daemon.pid));
    assert_eq!(scene.home.json(&["show", "left", "--json"])["status"], "interrupted");
    took
}

#[test]
fn a_daemon_that_stops_waits_for_the_answer_of_a_step_and_begins_no_other() {
    let scene = Scene::new(Script::default().rule(Rule { latency_ms: Some(1500), ..Rule::on("B") }));
    submit_and_stop(&scene, SUBMITTED, || scene.provider.count("B") == 1);
    assert_eq!(scene.steps("left", "step.succeeded"), ["b"]);
    assert_eq!(scene.provider.count("N"), 0);
    scene.home.start_daemon();
    scene.wait_for_end("left", "job.succeeded");
    assert_eq!((scene.provider.count("B"), scene.provider.count("N")), (1, 1));
}

#[test]
fn a_step_that_takes_long_holds_no_stop_and_its_programs_end() {
    let slow = Rule { latency_ms: Some(60_000), ..Rule::on("B") };
    let scene = Scene::new(Script::default().rule(slow));
    let settings = scene.home.path().join("config.toml");
    let text = std::fs::read_to_string(&settings).unwrap();
    std::fs::write(&settings, text.replace("[workflow]", "[workflow]\nallow_run = true")).unwrap();
    let pids = scene.home.scratch().join("pids");
    // The program's child does not hear what it is asked.
    let program = "  c: { run: { argv: [sh, -c, \"trap '' TERM; sleep 600 & echo $! > PIDS; wait\"] } }\n";
    let program = program.replace("PIDS", pids.to_str().unwrap());
    let child = || -> Option<u32> { std::fs::read_to_string(&pids).ok()?.trim().parse().ok() };
    let took = submit_and_stop(&scene, &format!("{SUBMITTED}{program}"), || {
        scene.provider.count("B") == 1 && child().is_some()
    });
    // A stop that waited for the step would take a minute.
    assert!(took < Duration::from_secs(10), "{took:?}");
    let child = child().unwrap();
    wait_for("the program's child has ended", SOON, || !is_alive(child));
    let events = scene.events("left");
    let ended = |event: &&Value| {
        event["type"].as_str().unwrap().starts_with("step.") && event["type"] != "step.started"
    };
    assert_eq!(events.iter().filter(ended).count(), 0, "{events:?}");
    let owner = scene.home.read_json("runs/left/control/owner.json").unwrap();
    assert_eq!(owner["lives_in_vain"], 0, "no daemon died: {owner}");
    let listed = scene.home.ok(&["jobs"]);
    let tells = |words: &str| listed.stderr.contains(words);
    assert!(tells("the daemon goes on with left by itself") && !tells("run --resume"), "{listed}");

    scene.provider.set_script(Script::default());
    scene.home.start_daemon();
    wait_for("the step is asked again", SOON, || scene.provider.count("B") == 2);
}

/// A gate, with nothing before it.
const GATED: &str = "project: gated
steps:
  review: { gate: { message: good enough?, choices: [approve, reject] } }
  b: { needs: review, llm: { model: m, provider: local, prompt: B } }
";

#[test]
fn commands_know_that_the_daemon_takes_care_of_what_was_submitted() {
    const AT_ONCE: usize = 4;
    let scene = Scene::new(Script::default().fault("wait", Fault::Hang, AT_ONCE as u64));
    scene.home.start_daemon();
    let submit = |id: &str, text: &str| {
        let spec = scene.spec(text);
        scene.home.spawn(&["run", "--submit", "--spec", &spec, "--job-id", id], id)
    };
    let status = |id: &str| scene.home.run(&["show", id, "--json"]).stdout;
    let is = |id: &str, word: &str| status(id).contains(&format!("\"status\": \"{word}\""));
    let _followers = ["approved", "cancelled"].map(|id| {
        let follower = submit(id, GATED);
        wait_for("the gate", SOON, || is(id, "waiting"));
        follower
    });
    let next = scene.home.json(&["show", "approved", "--json"])["next"].clone();
    assert_eq!(next, serde_json::json!(["llama-orch decide approved review approve"]));
    let decided = scene.home.ok(&["decide", "approved", "review", "approve"]);
    assert!(!decided.stderr.contains("nobody runs"), "{decided}");
    scene.wait_for_end("approved", "job.succeeded");
    let cancelled = scene.home.ok(&["cancel", "cancelled"]);
    assert!(cancelled.stdout.contains("has ended: cancelled"), "{cancelled}");

    let _full: Vec<_> = (0..AT_ONCE)
        .map(|number| {
            let text = format!("project: p\nsteps: {{ a: {{ llm: {{ model: m, provider: local, prompt: wait {number} }} }} }}\n");
            let follower = submit(&format!("full{number}"), &text);
            wait_for("it is asked", SOON, || scene.provider.count(&format!("wait {number}")) == 1);
            follower
        })
        .collect();
    let _queued = submit("queued", GATED);
    wait_for("it is submitted", SOON, || is("queued", "queued"));
    let listed = scene.home.ok(&["jobs"]);
    assert!(listed.stdout.contains("queued") && !listed.stdout.contains("interrupted"), "{listed}");
}

#[test]
fn a_job_of_which_daemons_die_again_and_again_is_left_until_somebody_wants_it() {
    let scene = Scene::new(Script::default().fault("B", Fault::Hang, 3));
    let mut daemon = scene.home.start_daemon();
    let spec = scene.spec(SUBMITTED);
    let follower = scene.home.spawn(&["run", "--submit", "--spec", &spec, "--job-id", "left"], "submitted");
    for life in 1..=3 {
        wait_for("the step is asked", SOON, || scene.provider.count("B") == life);
        kill_hard(daemon.pid);
        wait_for("the daemon is gone", SOON, || !is_alive(daemon.pid));
        daemon = scene.home.start_daemon();
    }
    drop(follower);
    let log = scene.home.path().join("logs").join("daemon.log");
    wait_for("the daemon says that it leaves the job", SOON, || {
        let text = std::fs::read_to_string(&log).unwrap();
        text.contains("died 3 times") && text.contains("llama-orch run --resume left")
    });
    assert_eq!(scene.home.json(&["show", "left", "--json"])["status"], "interrupted");
    assert_eq!(scene.provider.count("B"), 3);

    // Whoever ends it is not told to wait for a turn that never comes.
    let cancelled = scene.home.ok(&["cancel", "left"]);
    assert!(cancelled.stdout.contains("has ended: cancelled"), "{cancelled}");
    scene.home.ok(&["run", "--submit", "--resume", "left"]);
    assert_eq!(scene.provider.count("B"), 4);
}
