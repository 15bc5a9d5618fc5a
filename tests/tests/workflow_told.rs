//! What `run`, `why` and `plan` tell people of a job, through the command line.

#![cfg(target_os = "linux")]

mod support;

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
