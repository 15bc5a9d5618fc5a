//! Jobs whose process is about to end, and that go on in another.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use workflow::{JobOutcome, JobStatus};
use workflow_spec::FailureKind;

use super::support::{Act, Home, Model, PATIENCE, prompt};

const CHAIN: &str = "version: 1
project: p
steps:
  a: { llm: { model: m, prompt: a } }
  b: { llm: { model: m, prompt: 'b {{ steps.a.output.text }}' } }
  slow: { llm: { model: m, prompt: slow } }
";

/// Runs a job that is to pause after a second. Answers how it ended and how long that took.
async fn paused(home: &mut Home, spec: &str, model: &Arc<Model>) -> (JobOutcome, Duration) {
    let began = tokio::time::Instant::now();
    let pausing = async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        home.pause.cancel();
    };
    let (end, ()) = tokio::join!(home.run("one", spec, model), pausing);
    if end.outcome == JobOutcome::Paused {
        assert_eq!(end.manifest.status, Some(JobStatus::Running), "it has not ended");
    }
    let outcome = end.outcome;
    home.pause = CancellationToken::new();
    (outcome, began.elapsed())
}

#[tokio::test(start_paused = true)]
async fn what_is_under_way_ends_and_nothing_else_begins() {
    let mut home = Home::new();
    let model = Model::new(|request, _| Act::say(prompt(request)).after(2500));
    let (outcome, took) = paused(&mut home, CHAIN, &model).await;
    assert_eq!(outcome, JobOutcome::Paused);
    assert!(took < Duration::from_secs(3), "{took:?}: nobody waits longer than for the last step under way");
    let told = home.told("one");
    assert_eq!(told.iter().filter(|line| line.starts_with("step.succeeded")).count(), 2, "{told:?}");
    assert!(!told.iter().any(|line| line.ends_with(" b")), "{told:?}");

    let end = home.run("one", CHAIN, &model).await;
    assert_eq!(end.outcome, JobOutcome::Succeeded);
    let mut asked = model.prompts();
    asked.sort();
    assert_eq!(asked, ["a", "b a", "slow"], "each once");
}

#[tokio::test(start_paused = true)]
async fn what_takes_too_long_is_left_and_done_again_by_the_next_life() {
    let mut home = Home::new();
    let model = Model::new(|request, before| {
        let act = Act::say(prompt(request));
        if before == 0 && prompt(request) == "slow" { act.after(3_600_000) } else { act }
    });
    let (outcome, took) = paused(&mut home, CHAIN, &model).await;
    assert_eq!(outcome, JobOutcome::Paused);
    assert!(took >= Duration::from_secs(1) + PATIENCE && took < Duration::from_secs(6), "{took:?}");
    let told = home.told("one");
    assert_eq!(told.iter().rfind(|line| line.ends_with(" slow")).unwrap(), "llm.request slow", "{told:?}");

    assert_eq!(home.run("one", CHAIN, &model).await.outcome, JobOutcome::Succeeded);
    assert_eq!(model.prompts().iter().filter(|prompt| *prompt == "slow").count(), 2);
    assert_eq!(model.calls(), 4);
}

#[tokio::test(start_paused = true)]
async fn what_fails_meanwhile_has_not_failed_the_job() {
    let mut home = Home::new();
    let model = Model::new(|request, before| match (prompt(request), before) {
        ("slow", 0) => Act::fail(FailureKind::Auth).after(2000),
        (said, _) => Act::say(said),
    });
    let (outcome, took) = paused(&mut home, CHAIN, &model).await;
    assert_eq!(outcome, JobOutcome::Paused);
    assert!(took < Duration::from_secs(3), "{took:?}");
    assert!(!home.told("one").contains(&"step.failed slow".to_owned()));
    assert_eq!(home.run("one", CHAIN, &model).await.outcome, JobOutcome::Succeeded);
}

#[tokio::test(start_paused = true)]
async fn a_job_whose_last_step_ends_meanwhile_has_ended() {
    for effect in ["none", "external"] {
        let mut home = Home::new();
        let model = Model::new(|request, _| Act::say(prompt(request)).after(2000));
        let step = format!("effect: {effect}, llm: {{ model: m, prompt: a }}");
        let spec = format!("version: 1\nproject: p\nsteps: {{ a: {{ {step} }} }}\n");
        assert_eq!(paused(&mut home, &spec, &model).await.0, JobOutcome::Succeeded);
        assert_eq!(home.told("one").last().unwrap(), "job.succeeded");
    }
}
