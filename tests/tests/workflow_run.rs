//! Workflows through the command line, against a provider on a real socket.

#![cfg(target_os = "linux")]

mod support;

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::process::Stdio;

use serde_json::{Value, json};
use support::SOON;
use support::workflow::{Running, Scene};
use testkit::provider::{Fault, Rule, Script};
use testkit::wait_for;

/// The seed's job, its latencies divided by 100.
const SEED: &str = "
project: notes_api
inputs: { task: { type: string, default: notes } }
steps:
  architect: { llm: { model: fake, prompt: 'ARCHITECT {{ inputs.task }}' } }
  builder: { llm: { model: fake, prompt: 'BUILDER {{ steps.architect.output.text }}' }, files: [ { path: main.py } ] }
  docs: { llm: { model: fake, prompt: 'DOCS {{ steps.architect.output.text }}' } }
  qa: { llm: { model: fake, prompt: 'QA {{ steps.builder.output.text }} {{ steps.docs.output.text }}' } }
";

fn seed_script() -> Script {
    let rule = |part: &str, latency| Rule { latency_ms: Some(latency), ..Rule::on(part) };
    Script::default()
        .rule(rule("QA", 50))
        .rule(rule("DOCS", 250))
        .rule(rule("BUILDER", 250))
        .rule(rule("ARCHITECT", 50))
}

/// The places of events in a journal, by type and step.
fn moments(events: &[Value]) -> HashMap<String, usize> {
    let word = |event: &Value, name: &str| event[name].as_str().unwrap_or_default().to_owned();
    let named = |event: &Value| format!("{} {}", word(event, "type"), word(event, "step"));
    events.iter().enumerate().map(|(at, event)| (named(event), at)).collect()
}

#[test]
fn steps_run_side_by_side_and_not_at_all_when_their_results_are_known() {
    let scene = Scene::new(seed_script());
    let spec = scene.spec(SEED);
    scene.ok(&["--spec", &spec, "--job-id", "serial", "--concurrency", "1", "--no-cache"]);
    scene.ok(&["--spec", &spec, "--job-id", "parallel", "--concurrency", "4"]);
    scene.ok(&["--spec", &spec, "--job-id", "cached"]);

    let serial = scene.end("serial", "job.succeeded");
    assert!(serial["duration_s"].as_f64() >= Some(0.60), "{serial}");
    // How much less it takes at once is a measurement: `cargo xtask bench workflow`.
    for (job, at_once) in [("serial", false), ("parallel", true)] {
        let moment = moments(&scene.events(job));
        let overlap = moment["step.started builder"] < moment["step.succeeded docs"]
            && moment["step.started docs"] < moment["step.succeeded builder"];
        assert_eq!(overlap, at_once, "{moment:?}");
    }
    let cached = scene.end("cached", "job.succeeded");
    assert_eq!(cached["from_cache"], 4);
    assert_eq!(cached["tokens"], 0);
    assert_eq!(scene.asked(""), 8, "nobody was asked a third time");
}

#[test]
fn two_staggered_chains_do_not_wait_for_each_other() {
    let mut text = "project: chains\nsteps:\n".to_owned();
    for (chain, slow_first) in [("a", false), ("b", true)] {
        for n in 0..20 {
            let speed = if (n % 2 == 0) == slow_first { "SLOW" } else { "FAST" };
            let needs = if n == 0 { String::new() } else { format!(", needs: {chain}{}", n - 1) };
            let step = format!("{chain}{n}: {{ llm: {{ model: fake, prompt: {speed} {chain}{n} }}{needs} }}");
            text = text + "  " + &step + "\n";
        }
    }
    let rule = |part: &str, latency| Rule { latency_ms: Some(latency), ..Rule::on(part) };
    let scene = Scene::new(Script::default().rule(rule("SLOW", 100)).rule(rule("FAST", 10)));
    scene.ok(&["--spec", &scene.spec(&text), "--job-id", "chains"]);
    // In waves nobody goes on before the slower of two has ended. Here the chain whose step is the fast one does;
    // on a machine that is very busy not always.
    let moment = moments(&scene.events("chains"));
    let goes_ahead = |n: &usize| {
        let (fast, slow) = if n.is_multiple_of(2) { ("a", "b") } else { ("b", "a") };
        moment[&format!("step.started {fast}{}", n + 1)] < moment[&format!("step.succeeded {slow}{n}")]
    };
    let ahead: Vec<usize> = (0..19).filter(goes_ahead).collect();
    assert!(ahead.len() >= 5, "{ahead:?} {moment:?}");
}

#[test]
fn a_resumed_job_does_only_what_is_left() {
    let bad = Fault::Status { status: 400, retry_after: None, headers: BTreeMap::new(), body: None };
    let scene = Scene::new(Script::default().fault("DOCS", bad, 1));
    let spec = scene.spec(SEED);
    let failed = scene.run(&["--spec", &spec, "--job-id", "broken"]);
    failed.expect_exit(70);
    assert!(failed.stderr.contains("error: step docs: validation"), "{failed}");
    assert!(failed.stdout.contains("llama-orch run --resume broken"), "{failed}");
    assert_eq!(scene.steps("broken", "step.succeeded"), ["architect", "builder"]);

    scene.ok(&["--resume", "broken"]);
    assert_eq!(scene.skipped("broken", "resume"), ["architect", "builder"]);
    let asked = ["ARCHITECT", "BUILDER", "DOCS", "QA"].map(|step| scene.asked(step));
    assert_eq!(asked, [1, 1, 2, 1]);

    // Resumed twice is resumed once.
    let before = scene.asked("");
    scene.ok(&["--spec", &spec, "--resume"]);
    assert_eq!(scene.asked(""), before);
    assert_eq!(
        std::fs::read_dir(scene.home.path().join("runs")).unwrap().count(),
        1,
        "no further job was made"
    );
}

/// The queries that the seed shows, as they stand there but for the path.
const QUERIES: [&str; 3] = [
    "grep '\"type\":\"llm.response\"' \"$JOURNAL\" | jq -c .type | sort | uniq -c | xargs",
    "jq -r 'select(.type==\"llm.response\") | .data.duration_s' \"$JOURNAL\" | awk '{sum+=$1} END {print sum}'",
    "echo \"Hits: $(grep cache.hit \"$JOURNAL\" | wc -l)\"; echo \"Misses: $(grep cache.miss \"$JOURNAL\" | wc -l)\"",
];

#[expect(clippy::disallowed_methods, reason = "the journal is read by other people's tools")]
fn query(scene: &Scene, id: &str, query: &str) -> String {
    let mut shell = std::process::Command::new("sh");
    shell.args(["-c", query]).env("JOURNAL", scene.journal(id));
    let run = testkit::run(shell);
    run.expect_exit(0);
    run.stdout.trim().to_owned()
}

#[test]
fn the_journal_answers_grep_and_jq() {
    let scene = Scene::new(seed_script());
    let spec = scene.spec(SEED);
    scene.ok(&["--spec", &spec, "--job-id", "first"]);
    scene.ok(&["--spec", &spec, "--job-id", "second"]);
    assert_eq!(query(&scene, "first", QUERIES[2]), "Hits: 0\nMisses: 4");
    assert_eq!(query(&scene, "second", QUERIES[2]), "Hits: 4\nMisses: 0");
    assert_eq!(scene.steps("first", "llm.response").len(), 4);
    if query(&scene, "first", "command -v jq || true").is_empty() {
        eprintln!("there is no jq here: two of the three queries are not tried");
        return;
    }
    assert_eq!(query(&scene, "first", QUERIES[0]), "4 llm.response");
    let sum: f64 = query(&scene, "first", QUERIES[1]).parse().unwrap();
    assert!(sum >= 0.60, "{sum}");
}

#[test]
fn an_edited_prompt_runs_its_step_and_what_changes_by_it() {
    // The reviewer says the same whatever it reads: what comes after it does not change.
    let scene = Scene::new(Script::default().answer("REVIEW", "fine"));
    let text = "
project: edits
steps:
  a: { llm: { model: fake, prompt: A } }
  b: { llm: { model: fake, prompt: 'B {{ steps.a.output.text }}' }, files: [ { path: b.txt, from: output.text } ] }
  c: { llm: { model: fake, prompt: 'C {{ steps.a.output.text }}' } }
  review: { llm: { model: fake, prompt: 'REVIEW {{ steps.b.output.text }}' } }
  last: { llm: { model: fake, prompt: 'LAST {{ steps.review.output.text }}' } }
";
    scene.ok(&["--spec", &scene.spec(text), "--job-id", "one"]);
    assert_eq!(scene.asked(""), 5);
    let file = scene.job("one").join("outputs/edits/b.txt");
    let before = fs::read_to_string(&file).unwrap_or_default();

    let edited = text.replace("prompt: 'B ", "prompt: 'B, better: ");
    scene.ok(&["--spec", &scene.spec(&edited), "--resume", "one"]);
    let after = fs::read_to_string(&file).unwrap_or_default();
    assert!(before != after && !after.is_empty(), "its own file is not in its way: {after:?}");
    assert_eq!(scene.asked(""), 7, "b and review");
    scene.ok(&["--spec", &scene.spec(&edited), "--job-id", "two"]);
    assert_eq!(scene.steps("two", "cache.hit").len(), 5);

    let renamed = edited.replace("steps.b.", "steps.build.").replace("  b: {", "  build: {");
    scene.ok(&["--spec", &scene.spec(&renamed), "--resume", "one"]);
    scene.ok(&["--spec", &scene.spec(&renamed), "--job-id", "three"]);
    assert_eq!(scene.asked(""), 7, "a name is not part of the question");
}

#[test]
fn a_file_that_somebody_else_has_changed_is_not_replaced_by_an_edited_step() {
    let scene = Scene::new(Script::default());
    let text = "project: mine\nsteps: { a: { llm: { model: fake, prompt: A }, files: [ { path: a.txt, from: output.text } ] } }\n";
    scene.ok(&["--spec", &scene.spec(text), "--job-id", "one"]);
    let file = scene.job("one").join("outputs/mine/a.txt");
    fs::write(&file, "by hand").expect("outputs are writable");
    let edited = scene.spec(&text.replace("prompt: A", "prompt: B"));
    let run = scene.run(&["--spec", &edited, "--resume", "one"]);
    run.expect_exit(70);
    assert!(run.stderr.contains("a.txt exists with other content"), "{run}");
    assert_eq!(fs::read_to_string(&file).unwrap_or_default(), "by hand");
}

#[test]
fn a_job_is_run_by_one_process_at_a_time() {
    let scene = Scene::new(Script::default().fault("A", Fault::Hang, 1));
    let spec = scene.spec("project: held\nsteps: { a: { llm: { model: fake, prompt: A } } }\n");
    let first = scene.start(&["--spec", &spec, "--job-id", "held"]);
    wait_for("the request", SOON, || scene.asked("A") == 1);

    let second = scene.run(&["--resume", "held"]);
    second.expect_exit(33);
    assert!(second.stderr.contains(&format!("pid {}", first.0.id())), "{second}");
    drop(first);
    // The lock goes with its holder.
    scene.ok(&["--resume", "held"]);
    assert_eq!(scene.asked("A"), 2);
}

#[test]
fn ctrl_c_ends_a_job_politely_and_it_can_be_gone_on_with() {
    use nix::sys::signal::{Signal, kill};
    use nix::unistd::Pid;
    let scene = Scene::new(Script::default().fault("B", Fault::Hang, 1));
    let text = "project: cut\nsteps:\n  a: { llm: { model: fake, prompt: A } }\n  b: { llm: { model: fake, prompt: B }, needs: a }\n";
    let spec = scene.spec(text);
    let mut run = scene.start(&["--spec", &spec, "--job-id", "cut"]);
    wait_for("the second request", SOON, || scene.asked("B") == 1);
    kill(Pid::from_raw(i32::try_from(run.0.id()).unwrap()), Signal::SIGINT).unwrap();
    assert_eq!(run.exit_code(), Some(130));
    scene.end("cut", "job.cancelled");
    assert_eq!(scene.steps("cut", "step.cancelled"), ["b"]);

    scene.ok(&["--resume", "cut"]);
    assert_eq!((scene.asked("A"), scene.asked("B")), (1, 2));
}

#[test]
fn jobs_are_named_once_and_unknown_ones_are_not_found() {
    let scene = Scene::new(Script::default());
    let spec = scene.spec("project: names\nsteps: { a: { llm: { model: fake, prompt: A } } }\n");
    scene.run(&["--resume", "nobody"]).expect_exit(72);
    scene.run(&["--resume", "last"]).expect_exit(72);
    scene.run(&["--resume"]).expect_exit(2);
    scene.run(&["--spec", &spec, "--job-id", "../up"]).expect_exit(2);
    // With its workflow it is started.
    scene.ok(&["--spec", &spec, "--resume", "mine"]);
    let again = scene.run(&["--spec", &spec, "--job-id", "mine"]);
    again.expect_exit(14);
    assert!(again.stderr.contains("mine exists already"), "{again}");
    assert_eq!(scene.asked("A"), 1);
    scene.ok(&["--resume", "last"]);
    assert_eq!(scene.asked("A"), 1);
}

#[test]
fn a_job_that_only_waits_for_a_decision_says_how_it_goes_on() {
    let scene = Scene::new(Script::default());
    let text = "
project: gated
steps:
  ask: { gate: { message: Shall it?, choices: [approve, reject] } }
  then: { llm: { model: fake, prompt: 'GO {{ steps.ask.output.text }}' } }
";
    let waiting = scene.run(&["--spec", &scene.spec(text), "--job-id", "gated"]);
    waiting.expect_exit(73);
    assert!(waiting.stdout.contains("llama-orch decide gated ask approve|reject"), "{waiting}");
    assert_eq!(scene.asked(""), 0);
    scene.home.run(&["decide", "gated", "ask", "approve"]).expect_exit(0);
    scene.ok(&["--resume", "gated"]);
    assert_eq!(scene.asked("GO approve"), 1);
}

#[test]
fn a_resumed_job_asks_whom_it_has_asked() {
    let scene = Scene::new(Script::default());
    let config = scene.home.path().join("config.toml");
    let others =
        std::fs::read_to_string(&config).unwrap().replace("provider = \"fake\"", "provider = \"local\"");
    std::fs::write(&config, others).unwrap();
    let text = "
project: faithful
steps:
  first: { llm: { model: fake, prompt: FIRST } }
  ask: { gate: 'Go on?', needs: first }
  then: { llm: { model: fake, prompt: THEN }, needs: ask }
";
    let spec = scene.spec(text);
    scene.run(&["--spec", &spec, "--job-id", "one", "--provider", "fake"]).expect_exit(73);
    scene.home.ok(&["decide", "one", "ask", "approve"]);
    scene.ok(&["--resume", "one"]);
    scene.ok(&["--spec", &spec, "--resume", "one"]);
    assert_eq!((scene.asked("FIRST"), scene.asked("THEN")), (1, 1));
    // What is said now goes before.
    let elsewhere = text.replace("project:", "provider: local\nproject:");
    scene.run(&["--spec", &scene.spec(&elsewhere), "--resume", "one"]).expect_exit(70);
    scene.ok(&["--resume", "one", "--provider", "fake"]);
    assert_eq!((scene.asked("FIRST"), scene.asked("THEN")), (1, 1));
}

#[test]
fn everything_that_is_wrong_with_a_workflow_is_told_before_anything_runs() {
    let scene = Scene::new(Script::default());
    let text = "project: bad\nsteps:\n  a: { llm: { model: fake, prompt: '{{ steps.zz.output.text }}' } }\n  b: { lmm: {} }\n";
    let refused = scene.run(&["--spec", &scene.spec(text)]);
    refused.expect_exit(71);
    let errors: Vec<&str> = refused.stderr.lines().filter(|line| line.starts_with("error:")).collect();
    assert!(errors.len() >= 2, "{refused}");
    assert!(errors[0].contains("job.yaml:3:"), "{refused}");
    assert!(errors[1].contains("job.yaml:4:"), "{refused}");

    let good = "project: good\ninputs: { n: integer }\nsteps: { a: { llm: { model: fake, prompt: '{{ inputs.n }}' } } }\n";
    let spec = scene.spec(good);
    scene.run(&["--spec", &spec]).expect_exit(2);
    scene.run(&["--spec", &spec, "--var", "n=many"]).expect_exit(2);
    scene.run(&["--spec", &spec, "--var", "n=1", "--provider", "nobody"]).expect_exit(2);
    scene.run(&["--spec", "gone.yaml"]).expect_exit(71);
    assert_eq!(scene.asked(""), 0);
    assert!(!scene.home.path().join("runs").exists(), "nothing was written");
}

#[test]
fn for_programs_the_journal_is_on_stdout_and_nothing_else() {
    let scene = Scene::new(Script::default());
    let run = scene.ok(&["--spec", &scene.spec(SEED), "--job-id", "told", "--json"]);
    assert_eq!(run.stdout, std::fs::read_to_string(scene.journal("told")).unwrap());
    assert_eq!(run.stderr, "");
}

#[test]
fn a_job_goes_on_when_nobody_hears_what_is_said_of_it() {
    let scene = Scene::new(Script::default());
    let spec = scene.spec(SEED);
    let full = std::fs::File::options().write(true).open("/dev/full").unwrap();
    let (reader, closed) = std::io::pipe().unwrap();
    drop(reader);
    for (id, stderr) in [("full", Stdio::from(full)), ("closed", Stdio::from(closed))] {
        let mut command = scene.home.command(&["run", "--spec", &spec, "--job-id", id]);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(stderr);
        assert_eq!(Running(command.spawn().unwrap()).exit_code(), Some(0), "{id}");
        scene.end(id, "job.succeeded");
    }
}

#[test]
fn without_a_terminal_a_line_tells_each_event_that_matters_and_the_end_what_came_of_it() {
    let scene = Scene::new(Script::default());
    let run = scene.ok(&["--spec", &scene.spec(SEED), "--job-id", "told"]);
    for said in ["architect: started", "builder: created main.py", "qa: done in"] {
        assert!(run.stderr.contains(said), "{said}\n{run}");
    }
    let file = scene.job("told").join("outputs").join("notes_api").join("main.py");
    assert!(file.is_file());
    for said in ["succeeded, 4 of 4 steps", &format!("{}", file.display()), "llama-orch show told"] {
        assert!(run.stdout.contains(said), "{said}\n{run}");
    }
    let quiet = scene.ok(&["--spec", &scene.spec(SEED), "--job-id", "quiet", "-q"]);
    assert_eq!(quiet.stderr, "");
}

#[test]
fn inputs_are_read_by_their_types_and_kept_for_the_next_time() {
    let scene = Scene::new(Script::default().fault("SUM", Fault::Refuse, 1));
    let text = "
project: inputs
inputs: { notes: files, factor: integer }
steps:
  each: { map: { over: inputs.notes, as: note }, llm: { model: fake, prompt: 'NOTE {{ note.text }} {{ inputs.factor * 2 }}' } }
  sum: { llm: { model: fake, prompt: 'SUM {{ steps.each.output.text }}' }, retry: 0 }
";
    let notes = scene.home.scratch().join("notes");
    std::fs::create_dir(&notes).unwrap();
    for name in ["one", "two"] {
        std::fs::write(notes.join(format!("{name}.txt")), name).unwrap();
    }
    let spec = scene.spec(text);
    let inputs = ["--var", "notes=notes/*.txt", "--var", "factor=3"];
    scene.run(&[&["--spec", &spec, "--job-id", "inputs"], &inputs[..]].concat()).expect_exit(70);
    assert_eq!((scene.asked("NOTE one 6"), scene.asked("NOTE two 6")), (1, 1));
    std::fs::remove_dir_all(&notes).unwrap();
    std::fs::remove_file(&spec).unwrap();

    scene.ok(&["--resume", "inputs"]);
    let kept: Value =
        serde_json::from_slice(&std::fs::read(scene.job("inputs").join("inputs/inputs.json")).unwrap())
            .unwrap();
    assert_eq!(kept["notes"][1]["path"], json!("notes/two.txt"));
}

#[test]
fn a_plan_tells_what_is_known_what_is_not_and_what_it_will_take() {
    let scene = Scene::new(seed_script());
    let spec = scene.spec(SEED);
    let plan = |spec: &str| scene.home.json(&["plan", "--spec", spec, "--json"]);
    let outlooks = |plan: &Value| {
        let rows = plan["steps"].as_array().unwrap().iter();
        rows.map(|row| row["outlook"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    let before = plan(&spec);
    assert_eq!(outlooks(&before), ["miss", "unknown", "unknown", "unknown"]);
    assert_eq!(before["steps"][1]["until"], json!(["architect"]));
    assert_eq!(before["totals"]["is_least"], true);
    assert_eq!(scene.asked(""), 0);
    assert!(!scene.home.path().join("runs").exists() && !scene.home.path().join("cache").exists());

    scene.ok(&["--spec", &spec, "--job-id", "made"]);
    let after = plan(&spec);
    assert_eq!(outlooks(&after), ["hit"; 4]);
    assert_eq!(after["totals"]["tokens"], 0);

    let edited = plan(&scene.spec(&SEED.replace("'DOCS", "'MANUAL")));
    assert_eq!(outlooks(&edited), ["hit", "hit", "miss", "unknown"]);
    assert_eq!(edited["steps"][3]["until"], json!(["docs"]));
    assert_eq!(edited["totals"]["critical_path"], json!(["docs", "qa"]));
    assert!(edited["totals"]["duration_s"].as_f64().unwrap() >= 0.30, "{edited}");
    assert!(edited["totals"]["tokens"].as_u64().unwrap() > 0, "{edited}");
    assert_eq!(scene.asked(""), 4, "nobody is asked for a plan");
}

#[test]
fn a_plan_looks_into_maps_loops_and_what_waits_for_people() {
    let scene = Scene::new(Script::default());
    let text = "
project: inside
steps:
  list: { pass: { value: [one, two] } }
  each: { map: { over: steps.list.output.json }, llm: { model: fake, prompt: 'EACH {{ item }}' } }
  ask: { gate: { message: Go? } }
  last: { llm: { model: fake, prompt: '{{ steps.each.output.text }}' }, needs: ask }
";
    let plan = |text: &str| {
        let plan = scene.home.json(&["plan", "--spec", &scene.spec(text), "--json"]);
        let rows = plan["steps"].as_array().unwrap().clone();
        let told =
            |row: &Value| format!("{} {}", row["step"].as_str().unwrap(), row["outlook"].as_str().unwrap());
        rows.iter().map(told).collect::<Vec<_>>()
    };
    assert_eq!(
        plan(text),
        ["list value", "each unknown", "ask gate", "last unknown", "each[0] miss", "each[1] miss"]
    );
    scene.run(&["--spec", &scene.spec(text)]).expect_exit(73);
    let more = text.replace("[one, two]", "[one, two, three]");
    assert_eq!(
        plan(&more),
        [
            "list value",
            "each unknown",
            "ask gate",
            "last unknown",
            "each[0] hit",
            "each[1] hit",
            "each[2] miss"
        ]
    );
}

#[test]
fn a_dry_run_shows_the_order_and_touches_nothing() {
    let scene = Scene::new(Script::default());
    let run = scene.ok(&["--spec", &scene.spec(SEED), "--dry-run"]);
    let steps: Vec<&str> =
        run.stdout.lines().skip(1).filter_map(|line| line.split_whitespace().next()).collect();
    assert_eq!(steps, ["architect", "builder", "docs", "qa"], "{run}");
    assert!(run.stdout.contains("fake/fake"), "{run}");
    assert_eq!(scene.asked(""), 0);
    assert!(!scene.home.path().join("runs").exists());
}

#[test]
fn the_file_of_the_older_orchestrator_is_run_as_it_is() {
    let scene = Scene::new(Script::default());
    let text = include_str!("../../examples/workflows/seed.json");
    let spec = scene.spec(text);
    let run = scene.ok(&["--spec", &spec, "--provider", "fake", "--var", "model=fake", "--job-id", "older"]);
    assert!(run.stderr.contains("warning:") && run.stderr.contains("output_dir"), "{run}");
    // The two in the middle run side by side, so either may end first.
    let mut done = scene.steps("older", "step.succeeded");
    done.sort();
    assert_eq!(done, ["architect", "builder", "docs", "qa"]);
    assert!(scene.job("older").join("outputs/notes_api/main.py").is_file());
}

#[test]
fn without_a_daemon_the_gateway_of_the_home_is_missed_by_name() {
    let scene = Scene::new(Script::default());
    let text = "project: local\nsteps: { a: { llm: { model: qwen, prompt: A }, retry: 0 } }\n";
    let run = scene.run(&["--spec", &scene.spec(text), "--provider", "local"]);
    run.expect_exit(70);
    assert!(run.stderr.contains("connect") && run.stderr.contains("llama-orch daemon start"), "{run}");
}

#[test]
fn on_a_terminal_the_steps_are_drawn_in_place_and_the_last_picture_stays() {
    use support::terminal::RealTerminal;
    let scene = Scene::new(Script::default().fault("QA", Fault::Hang, 1));
    let spec = scene.spec(SEED);
    let terminal = RealTerminal::open(&scene.home, 100, 30);
    terminal.start(&format!("run --spec {spec} --job-id drawn"));
    let screen = terminal.wait_for("a step under way", |screen| {
        screen.lines().any(|line| line.contains("qa") && line.contains("running") && line.contains("fake"))
    });
    assert!(screen.contains("3 of 4 steps"), "{screen}");
    assert_eq!(screen.matches("architect").count(), 1, "{screen}");

    terminal.resize(60, 20);
    terminal.wait_for("the picture in the smaller window", |screen| {
        screen.lines().filter(|line| line.contains("architect")).count() == 1
    });
    terminal.keys(&["C-c"]);
    let screen = terminal.wait_for_text("rc=130");
    assert!(screen.contains("cancelled") && screen.contains("run --resume drawn"), "{screen}");
    assert_eq!(screen.matches("3 of 4 steps").count(), 2, "in the picture and in the summary\n{screen}");
    assert_eq!(screen.matches("qa").count(), 1, "{screen}");
}
