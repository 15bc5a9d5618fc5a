//! What `run`, `why` and `plan` tell people of a job, through the command line.

#![cfg(target_os = "linux")]

mod support;

use std::fs;
use std::path::PathBuf;

use serde_json::{Value, json};
use support::workflow::Scene;
use testkit::provider::Script;

#[test]
fn the_end_of_a_run_lists_some_of_many_files_and_counts_the_rest() {
    let scene = Scene::new(Script::default());
    let text = "
project: many
steps:
  list: { pass: { value: LIST } }
  each: { map: { over: steps.list.output.json }, llm: { model: fake, prompt: 'EACH {{ item }}' }, files: [ { path: 'f{{ item }}.txt' } ] }
";
    let list: Vec<u32> = (0..30).collect();
    let spec = scene.spec(&text.replace("LIST", &format!("{list:?}")));
    let run = scene.ok(&["--spec", &spec, "--job-id", "many"]);
    assert_eq!(run.stdout.lines().filter(|line| line.contains("/outputs/many/")).count(), 20, "{run}");
    assert!(run.stdout.contains("… and 10 more (llama-orch show many --files)"), "{run}");
}

#[test]
fn the_end_of_a_run_lists_some_of_many_failures_and_counts_the_rest() {
    let scene = Scene::new(Script::default());
    let text = "
project: many
steps:
  list: { pass: { value: LIST } }
  each: { map: { over: steps.list.output.json }, on_error: continue, pass: { value: '{{ item.no.such }}' } }
";
    let list: Vec<u32> = (0..30).collect();
    let spec = scene.spec(&text.replace("LIST", &format!("{list:?}")));
    let run = scene.run(&["--spec", &spec, "--job-id", "many"]);
    run.expect_exit(70);
    assert_eq!(run.stderr.lines().filter(|line| line.starts_with("error: ")).count(), 20, "{run}");
    // All elements, and the map itself.
    assert!(run.stderr.ends_with("… and 11 more (llama-orch show many)\n"), "{run}");
}

#[test]
fn the_end_of_a_run_that_went_on_without_some_elements_counts_them() {
    let scene = Scene::new(Script::default());
    let text = "
project: gaps
steps:
  each: { map: { over: '[{\"a\": 1}, {}, {}]' }, on_error: continue, pass: { value: '{{ item.a }}' } }
";
    let spec = scene.spec(text);
    let run = scene.ok(&["--spec", &spec, "--job-id", "gaps"]);
    let row = run.stdout.lines().find(|line| line.starts_with("failed")).unwrap();
    assert!(row.ends_with(" 2 steps that the job went on without (llama-orch show gaps)"), "{run}");
}

#[test]
fn a_plan_of_steps_that_only_pass_values_on_says_that_they_cost_nothing() {
    let scene = Scene::new(Script::default());
    let spec = scene.spec("project: one\nsteps: { a: { pass: { value: 1 } }, b: { pass: { value: 2 } } }\n");
    let plan = scene.home.ok(&["plan", "--spec", &spec]);
    assert!(plan.stdout.contains("nothing that takes tokens or time; 2 steps of values\n"), "{plan}");
}

#[test]
fn one_step_is_not_steps() {
    let scene = Scene::new(Script::default());
    let spec = scene.spec("project: one\nsteps: { a: { llm: { model: fake, prompt: A } } }\n");
    let plan = scene.home.ok(&["plan", "--spec", &spec]);
    assert!(plan.stdout.contains("0 of 1 step\n") && plan.stdout.contains("1 step, then 0 more"), "{plan}");
    scene.ok(&["--spec", &spec]);
    let run = scene.ok(&["--spec", &spec]);
    let row = run.stdout.lines().find(|line| line.starts_with("from cache")).unwrap();
    assert!(row.ends_with(" 1 step"), "{run}");
}

#[test]
fn a_file_that_is_wrong_as_a_whole_is_named_apart_from_what_is_wrong() {
    let scene = Scene::new(Script::default());
    let spec = scene.spec(&format!("project: '{}'", "x".repeat(5 << 20)));
    let run = scene.run(&["--spec", &spec]);
    run.expect_exit(71);
    assert!(run.stderr.contains("job.yaml: is longer than"), "{run}");
}

const TWO: &str = "
project: reasons
steps:
  plan: { llm: { model: fake, options: { seed: 7 }, prompt: 'PLAN a small house' } }
  write: { llm: { model: fake, prompt: 'WRITE {{ steps.plan.output.text }}' } }
";

fn why(scene: &Scene, job: &str, step: &str) -> Value {
    scene.home.json(&["why", job, step, "--json"])
}

#[test]
fn why_names_the_word_and_the_option_that_became_different() {
    let scene = Scene::new(Script::default().answer("PLAN", "a plan"));
    scene.ok(&["--spec", &scene.spec(TWO), "--job-id", "first"]);
    assert_eq!(why(&scene, "first", "plan")["verdict"], "first_run");

    scene.ok(&["--spec", &scene.spec(&TWO.replace("small", "large")), "--job-id", "word"]);
    let told = scene.home.ok(&["why", "word", "plan"]);
    assert!(told.stdout.contains("PLAN a [-small-]{+large+} house"), "{told}");
    assert!(told.stdout.contains("prompt  messages[0].content") && told.stdout.contains("first"), "{told}");
    // The plan is the same, and so is the question of the second step.
    assert_eq!(why(&scene, "word", "write")["verdict"], "hit");
    let told = scene.home.ok(&["why", "word", "write"]);
    assert_eq!(told.stdout, "write did not run in word: a stored result has its key\n");

    scene.ok(&["--spec", &scene.spec(&TWO.replace("seed: 7", "seed: 8")), "--resume", "first"]);
    let told = scene.home.ok(&["why", "first", "plan"]);
    assert!(told.stdout.contains("option  candidates[0].options.seed: 7 -> 8"), "{told}");
    assert!(told.stdout.contains("earlier in this job"), "{told}");
}

#[test]
fn why_of_a_step_that_a_job_does_not_have_names_those_that_it_has() {
    let scene = Scene::new(Script::default());
    scene.ok(&["--spec", &scene.spec(TWO), "--job-id", "first"]);
    let near = scene.home.run(&["why", "first", "wirte"]);
    near.expect_exit(2);
    assert_eq!(near.stderr, "error: the job first has no step \"wirte\"\nhint: did you mean write?\n");
    let far = scene.home.run(&["why", "first", "something"]);
    far.expect_exit(2);
    assert!(far.stderr.contains("hint: it has plan, write;"), "{far}");
    scene.home.run(&["why", "nobody", "plan"]).expect_exit(72);
}

/// Where the entry of a step's result lies.
fn entry_of(scene: &Scene, job: &str, step: &str) -> PathBuf {
    let events = scene.events(job);
    let is_it = |event: &&Value| event["type"] == "step.started" && event["step"] == step;
    let started = events.iter().find(is_it).expect("the step has begun");
    let key = started["data"]["key"].as_str().expect("it has a key");
    scene.home.path().join("cache").join(&key[..2]).join(format!("{key}.json"))
}

/// The data of a step's event of this type.
fn data(scene: &Scene, job: &str, step: &str, kind: &str) -> Value {
    let mut events = scene.events(job).into_iter();
    events.find(|event| event["type"] == kind && event["step"] == step).unwrap_or_default()["data"].clone()
}

#[test]
fn a_stored_result_that_was_changed_is_refused_and_why_says_so() {
    let scene = Scene::new(Script::default());
    let spec = scene.spec(TWO);
    scene.ok(&["--spec", &spec, "--job-id", "first"]);
    let entry = entry_of(&scene, "first", "plan");
    let text = fs::read_to_string(&entry).unwrap();
    fs::write(&entry, text.replace("house", "horse")).unwrap();

    scene.ok(&["--spec", &spec, "--job-id", "second"]);
    assert_eq!(scene.steps("second", "cache.refused"), ["plan"]);
    let missed = data(&scene, "second", "plan", "cache.miss")["reason"].clone();
    assert!(missed.as_str().unwrap().starts_with("the stored result was refused: the entry was changed"));
    let told = scene.home.ok(&["why", "second", "plan"]);
    assert!(told.stdout.contains("its stored result was refused: the entry was changed"), "{told}");
    assert_eq!(scene.asked("PLAN"), 2);
    scene.ok(&["--spec", &spec, "--job-id", "third"]);
    assert_eq!(scene.steps("third", "cache.hit"), ["plan", "write"], "the new result took its place");
}

#[test]
fn a_folder_in_a_stored_results_place_is_put_aside() {
    let scene = Scene::new(Script::default());
    let spec = scene.spec(TWO);
    scene.ok(&["--spec", &spec, "--job-id", "first"]);
    let entry = entry_of(&scene, "first", "plan");
    fs::remove_file(&entry).unwrap();
    fs::create_dir(&entry).unwrap();
    fs::write(entry.join("notes"), "somebody's").unwrap();

    scene.ok(&["--spec", &spec, "--job-id", "second"]);
    let refused = data(&scene, "second", "plan", "cache.refused")["reason"].clone();
    assert_eq!(refused, json!("the entry is no regular file"));
    scene.ok(&["--spec", &spec, "--job-id", "third"]);
    assert_eq!(scene.steps("third", "cache.hit"), ["plan", "write"]);
    assert_eq!(scene.asked("PLAN"), 2);
    let aside = fs::read_dir(entry.parent().unwrap()).unwrap().flatten();
    let aside = aside.map(|entry| entry.path().join("notes")).find(|notes| notes.is_file()).unwrap();
    assert_eq!(fs::read_to_string(aside).unwrap(), "somebody's");
}

#[test]
fn a_store_that_takes_nothing_fails_no_step() {
    let scene = Scene::new(Script::default());
    let spec = scene.spec(TWO);
    fs::write(scene.home.path().join("cache"), "in the way").unwrap();
    scene.ok(&["--spec", &spec, "--job-id", "first"]);
    scene.ok(&["--resume", "first"]);
    assert_eq!(scene.asked(""), 2, "the job itself has its results");
    assert_eq!(scene.steps("first", "cache.stored"), Vec::<String>::new());
}

#[test]
fn a_plan_says_when_nobody_can_tell_which_model_would_be_asked() {
    let scene = Scene::new(Script::default());
    let spec = scene.spec("project: plain\nsteps: { a: { llm: { prompt: A } } }\n");
    let plan = scene.home.ok(&["plan", "--spec", &spec, "--provider", "local"]);
    assert!(plan.stderr.contains("warning: the gateway of this home does not run"), "{plan}");
    assert_eq!(scene.home.ok(&["plan", "--spec", &spec]).stderr, "", "this one is asked");
    let named = scene.spec("project: plain\nsteps: { a: { llm: { model: qwen, prompt: A } } }\n");
    assert_eq!(scene.home.ok(&["plan", "--spec", &named, "--provider", "local"]).stderr, "");
}
