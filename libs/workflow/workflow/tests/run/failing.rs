//! Attempts that fail, and what that does to the rest.

use std::time::Duration;

use tokio::time::Instant;
use workflow::{CallFailure, EventType, JobOutcome};
use workflow_spec::FailureKind;

use crate::support::{Act, Home, Model, prompt};

#[tokio::test(start_paused = true)]
async fn an_attempt_that_may_be_made_again_is_after_the_time_that_was_asked_for() {
    let home = Home::new();
    let model = Model::new(|_, before| match before {
        0 => {
            let mut failure = CallFailure::new(FailureKind::RateLimit, "slow down");
            failure.retry_after = Some(Duration::from_secs(7));
            Act { answer: Err(failure), ..Act::say("") }
        }
        1 => Act::fail(FailureKind::Connect),
        _ => Act::say("at last"),
    });
    let spec = "version: 1\nproject: p\nsteps:\n  a: { llm: { model: m, prompt: a } }\n";
    let began = Instant::now();
    let end = home.run("one", spec, &model).await;
    assert_eq!(end.outcome, JobOutcome::Succeeded);
    assert_eq!(model.calls(), 3);
    let waited = began.elapsed();
    assert!(waited >= Duration::from_secs(8) && waited < Duration::from_secs(10), "{waited:?}");
    assert_eq!(home.data("one", EventType::StepRetrying, "a")["kind"], "connect");
    assert_eq!(home.data("one", EventType::StepSucceeded, "a")["provider_calls"], 3);
}

#[tokio::test(start_paused = true)]
async fn an_open_circuit_is_waited_for_without_using_up_the_tries() {
    let home = Home::new();
    let model = Model::new(|_, before| match before {
        0 => Act::fail(FailureKind::Connect),
        1..6 => {
            let mut failure = CallFailure::new(FailureKind::CircuitOpen, "left alone");
            failure.retry_after = Some(Duration::from_secs(10));
            Act { answer: Err(failure), ..Act::say("") }
        }
        6 => Act::fail(FailureKind::Overloaded),
        _ => Act::say("back again"),
    });
    let spec = "version: 1\nproject: p\nsteps:\n  a: { llm: { model: m, prompt: a } }\n";
    let began = Instant::now();
    let end = home.run("one", spec, &model).await;
    assert_eq!(end.outcome, JobOutcome::Succeeded, "{:?}", end.error);
    assert!(began.elapsed() >= Duration::from_secs(50), "{:?}", began.elapsed());
    // A provider that never comes back is not waited for without end.
    let model = Model::new(|_, _| {
        let mut failure = CallFailure::new(FailureKind::CircuitOpen, "left alone");
        failure.retry_after = Some(Duration::from_secs(50));
        Act { answer: Err(failure), ..Act::say("") }
    });
    let end = home.run("two", &spec.replace("prompt: a", "prompt: b"), &model).await;
    assert_eq!((end.outcome, model.calls()), (JobOutcome::Failed, 3));
    assert_eq!(home.data("two", EventType::StepFailed, "a")["kind"], "circuit_open");
}

#[tokio::test(start_paused = true)]
async fn an_attempt_without_an_end_is_ended_and_the_next_candidate_asked() {
    let home = Home::new();
    let model = Model::new(|request, _| match request.provider.as_str() {
        "near" => Act::say("never").after(3_600_000),
        _ => Act::say("from afar"),
    });
    let spec = r"
version: 1
project: p
models: { m: [ { provider: near, model: a }, { provider: far, model: b, on: [timeout] } ] }
steps:
  a: { llm: { model: m, prompt: a }, timeout: 3s }
";
    let began = Instant::now();
    let end = home.run("one", spec, &model).await;
    assert_eq!(end.outcome, JobOutcome::Succeeded, "{:?}", end.error);
    assert!(began.elapsed() < Duration::from_secs(4));
    assert_eq!(home.data("one", EventType::StepRetrying, "a")["kind"], "timeout");
    assert_eq!(home.data("one", EventType::LlmRequest, "a")["provider"], "far");
}

const TWO_WAYS: &str = r#"
version: 1
project: p
limits: { steps: 2 }
on_error: ON_ERROR
steps:
  bad: { llm: { model: m, prompt: bad } }
  after_bad: { llm: { model: m, prompt: "{{ steps.bad.output.text }}" } }
  slow: { llm: { model: m, prompt: slow } }
  after_slow: { llm: { model: m, prompt: "then {{ steps.slow.output.text }}" } }
"#;

/// The events with which the steps have ended, and the job.
async fn ends(on_error: &str) -> Vec<String> {
    let home = Home::new();
    let model = Model::new(|request, _| match prompt(request) {
        "bad" => Act::fail(FailureKind::Auth).after(10),
        _ => Act::say("well").after(100),
    });
    let end = home.run("one", &TWO_WAYS.replace("ON_ERROR", on_error), &model).await;
    assert_eq!(end.outcome, JobOutcome::Failed);
    assert!(end.error.unwrap().contains("bad"));
    let events = home.events("one");
    let ended = |event: &&workflow::Event| event.kind.ends_step() || event.kind.ends_job();
    let mut words: Vec<String> = events
        .iter()
        .filter(ended)
        .map(|event| format!("{} {}", event.kind.word(), event.step.as_deref().unwrap_or_default()))
        .collect();
    words.sort();
    words
}

#[tokio::test(start_paused = true)]
async fn by_default_what_runs_finishes_and_nothing_else_begins() {
    let expected = ["job.failed ", "step.failed bad", "step.skipped after_bad", "step.succeeded slow"];
    assert_eq!(ends("drain").await, expected);
}

#[tokio::test(start_paused = true)]
async fn a_failure_may_end_everything_at_once() {
    let expected = ["job.failed ", "step.cancelled slow", "step.failed bad", "step.skipped after_bad"];
    assert_eq!(ends("cancel").await, expected);
}

#[tokio::test(start_paused = true)]
async fn a_failure_may_leave_alone_what_does_not_need_it() {
    let expected = [
        "job.failed ",
        "step.failed bad",
        "step.skipped after_bad",
        "step.succeeded after_slow",
        "step.succeeded slow",
    ];
    assert_eq!(ends("continue").await, expected);
}

#[tokio::test(start_paused = true)]
async fn a_gate_inside_another_step_is_closed_when_the_job_fails() {
    let home = Home::new();
    let model = Model::new(|_, _| Act::fail(FailureKind::Auth).after(50));
    let spec = r#"
version: 1
project: p
steps:
  bad: { llm: { model: m, prompt: bad } }
  rounds: { loop: { max: 2, until: "true", body: { ask: { gate: { message: "Go on?" } } } } }
"#;
    let end = home.run("one", spec, &model).await;
    assert_eq!(end.outcome, JobOutcome::Failed);
    let told = home.told("one");
    let of = |step: &str| told.iter().filter(|line| line.ends_with(step)).cloned().collect::<Vec<_>>();
    assert_eq!(
        of(" rounds/1/ask"),
        ["step.started rounds/1/ask", "gate.waiting rounds/1/ask", "step.cancelled rounds/1/ask"]
    );
    assert_eq!(told.iter().filter(|line| *line == "step.cancelled rounds").count(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_provider_that_asks_to_wait_for_ever_is_asked_again_after_an_hour() {
    let home = Home::new();
    let model = Model::new(|_, before| {
        let failure = CallFailure::new(FailureKind::RateLimit, "as told");
        let failure = CallFailure { retry_after: Some(Duration::MAX), ..failure };
        if before == 0 { Act { answer: Err(failure), ..Act::say("") } } else { Act::say("done") }
    });
    let spec = "version: 1\nproject: p\nsteps:\n  a: { llm: { model: m, prompt: hi } }\n";
    let end = home.run("one", spec, &model).await;
    assert_eq!((end.outcome, model.calls()), (JobOutcome::Succeeded, 2));
    assert_eq!(home.data("one", EventType::StepRetrying, "a")["delay_s"], 3600.0);
}

#[tokio::test(start_paused = true)]
async fn steps_that_were_ready_with_one_that_failed_do_not_begin() {
    let home = Home::new();
    let model = Model::new(|request, _| match prompt(request) {
        "first" => Act::fail(FailureKind::Auth),
        _ => Act::say("done"),
    });
    let spec = "version: 1\nproject: p\nlimits: { steps: 1 }\nsteps:\n  a: { llm: { model: m, prompt: first } }\n  \
                b: { llm: { model: m, prompt: second } }\n  c: { llm: { model: m, prompt: third } }\n";
    let end = home.run("one", spec, &model).await;
    assert_eq!(end.outcome, JobOutcome::Failed);
    assert_eq!(model.calls(), 1, "the failure was the only request");
}
