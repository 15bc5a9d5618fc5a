//! What a job may cost: tokens over all its lives, and wall time of each.

use std::time::Duration;

use tokio::time::Instant;
use workflow::{Decided, EventType, JobOutcome, leave_decision};

use crate::support::{Act, Home, Model};

/// Each answer costs 15 tokens.
fn spec(budget: &str) -> String {
    format!(
        "version: 1\nproject: p\nbudget: {budget}\nsteps:\n  a: {{ llm: {{ model: m, prompt: a }} }}\n  \
         b: {{ llm: {{ model: m, prompt: \"b {{{{ steps.a.output.text }}}}\" }} }}\n  \
         c: {{ llm: {{ model: m, prompt: \"c {{{{ steps.b.output.text }}}}\" }} }}\n  \
         free: {{ needs: c, pass: x }}\n"
    )
}

fn decide(home: &Home, choice: &str) {
    let decided =
        Decided { step: "budget".into(), choice: choice.into(), by: "somebody".into(), at: String::new() };
    leave_decision(&home.run_folder("one").join("control"), &decided).unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_job_without_tokens_left_fails_before_it_asks_again() {
    let (home, model) = (Home::new(), Model::echo());
    let end = home.run("one", &spec("30"), &model).await;
    assert_eq!(end.outcome, JobOutcome::Failed);
    assert_eq!(model.prompts(), ["a", "b a!"]);
    assert_eq!(home.data("one", EventType::StepFailed, "c")["kind"], "budget");
    assert_eq!(home.told("one").iter().filter(|line| line.starts_with("budget.exceeded")).count(), 1);
    // What was used in the first life counts in the second; a larger budget lets it end.
    let end = home.run("one", &spec("30"), &model).await;
    assert_eq!((end.outcome, model.calls()), (JobOutcome::Failed, 2));
    let end = home.run("one", &spec("31"), &model).await;
    assert_eq!((end.outcome, model.calls()), (JobOutcome::Succeeded, 3));
}

#[tokio::test(start_paused = true)]
async fn what_is_in_the_store_costs_nothing() {
    let (home, model) = (Home::new(), Model::echo());
    home.run("other", &spec("1000"), &model).await;
    let end = home.run("one", &spec("1"), &model).await;
    assert_eq!((end.outcome, model.calls()), (JobOutcome::Succeeded, 3));
}

#[tokio::test(start_paused = true)]
async fn somebody_may_allow_as_much_again_and_again() {
    let (home, model) = (Home::new(), Model::echo());
    let spec = spec("{ tokens: 15, on_exceed: gate }");
    let end = home.run("one", &spec, &model).await;
    assert_eq!((end.outcome, model.calls()), (JobOutcome::Waiting, 1));
    assert_eq!(home.data("one", EventType::GateWaiting, "budget")["choices"][0], "continue");
    decide(&home, "continue");
    let end = home.run("one", &spec, &model).await;
    assert_eq!((end.outcome, model.calls()), (JobOutcome::Waiting, 2));
    decide(&home, "continue");
    let end = home.run("one", &spec, &model).await;
    assert_eq!((end.outcome, model.calls()), (JobOutcome::Succeeded, 3));
}

#[tokio::test(start_paused = true)]
async fn somebody_may_stop_it() {
    let (home, model) = (Home::new(), Model::echo());
    let spec = spec("{ tokens: 15, on_exceed: gate }");
    home.run("one", &spec, &model).await;
    decide(&home, "stop");
    let end = home.run("one", &spec, &model).await;
    assert_eq!((end.outcome, model.calls()), (JobOutcome::Failed, 1));
    assert_eq!(home.data("one", EventType::StepFailed, "b")["kind"], "budget");
}

#[tokio::test(start_paused = true)]
async fn repairs_are_paid_for_too() {
    let (home, model) = (Home::new(), Model::new(|_, _| Act::say("no json")));
    let spec = "version: 1\nproject: p\nbudget: 20\nsteps:\n  a: { llm: { model: m, prompt: a, output: { schema: { type: object }, repair: 9 } } }\n";
    let end = home.run("one", spec, &model).await;
    assert_eq!((end.outcome, model.calls()), (JobOutcome::Failed, 2));
    assert_eq!(home.data("one", EventType::StepFailed, "a")["kind"], "budget");
}

#[tokio::test(start_paused = true)]
async fn a_job_over_its_wall_time_fails_with_what_it_does() {
    let (home, model) = (Home::new(), Model::new(|_, _| Act::say("late").after(3_600_000)));
    let spec = "version: 1\nproject: p\nlimits: { wall: 5m }\nsteps:\n  a: { llm: { model: m, prompt: a }, timeout: 2h }\n  b: { needs: a, pass: x }\n";
    let began = Instant::now();
    let end = home.run("one", spec, &model).await;
    assert_eq!(end.outcome, JobOutcome::Failed);
    assert!(end.error.unwrap().contains("wall"));
    assert!((Duration::from_mins(5)..Duration::from_mins(6)).contains(&began.elapsed()));
    assert_eq!(home.data("one", EventType::StepFailed, "a")["kind"], "timeout");
}
