//! Steps that change something out there: never repeated while nobody knows what became of them.

use std::time::Duration;

use workflow::{CallFailure, Decided, EventType, JobOutcome, leave_decision};
use workflow_spec::FailureKind;

use crate::support::{Act, Home, Model};

const SPEC: &str = "version: 1\nproject: p\nsteps:\n  \
    order: { llm: { model: m, prompt: order }, effect: external, retry: { max: 5, base: 1ms } }\n  \
    after: { llm: { model: m, prompt: \"after [{{ steps.order.output.text }}]\" } }\n";

fn decide(home: &Home, choice: &str) {
    let decided =
        Decided { step: "order".into(), choice: choice.into(), by: "somebody".into(), at: String::new() };
    leave_decision(&home.run_folder("one").join("control"), &decided).unwrap();
}

/// A run that was ended in the middle of the effect, and the model, which answers from now on.
async fn broken_off() -> (Home, std::sync::Arc<Model>) {
    let (home, mut first) = (Home::new(), true);
    let model = Model::new(move |_, _| {
        let act = Act::say("done");
        if std::mem::take(&mut first) { act.after(u64::from(u32::MAX)) } else { act }
    });
    let run = home.run("one", SPEC, &model);
    // Dropped in the middle: of all that it holds, nothing is told any more.
    assert!(tokio::time::timeout(Duration::from_secs(5), run).await.is_err());
    assert_eq!(model.prompts(), ["order"]);
    (home, model)
}

#[tokio::test(start_paused = true)]
async fn somebody_is_asked_as_often_as_the_job_is_resumed() {
    let (home, model) = broken_off().await;
    for _ in 0..3 {
        let end = home.run("one", SPEC, &model).await;
        assert_eq!((end.outcome, model.calls()), (JobOutcome::Waiting, 1));
        let asked = home.data("one", EventType::GateWaiting, "order");
        assert_eq!(asked["choices"], serde_json::json!(["repeat", "done", "fail"]));
    }
}

#[tokio::test(start_paused = true)]
async fn an_effect_is_repeated_once_for_each_time_that_somebody_says_so() {
    let (home, model) = broken_off().await;
    home.run("one", SPEC, &model).await;
    decide(&home, "repeat");
    let end = home.run("one", SPEC, &model).await;
    assert_eq!(end.outcome, JobOutcome::Succeeded);
    assert_eq!(model.prompts(), ["order", "order", "after [done]"]);
    let end = home.run("one", SPEC, &model).await;
    assert_eq!((end.outcome, model.calls()), (JobOutcome::Succeeded, 3));
}

#[tokio::test(start_paused = true)]
async fn an_effect_that_is_said_to_be_done_is_done() {
    let (home, model) = broken_off().await;
    home.run("one", SPEC, &model).await;
    decide(&home, "done");
    for _ in 0..2 {
        let end = home.run("one", SPEC, &model).await;
        assert_eq!(end.outcome, JobOutcome::Succeeded);
        assert_eq!(model.prompts(), ["order", "after []"]);
    }
}

#[tokio::test(start_paused = true)]
async fn an_effect_that_is_let_fail_is_asked_about_again_by_the_next_life() {
    let (home, model) = broken_off().await;
    home.run("one", SPEC, &model).await;
    decide(&home, "fail");
    let end = home.run("one", SPEC, &model).await;
    assert_eq!((end.outcome, model.calls()), (JobOutcome::Failed, 1));
    assert_eq!(home.data("one", EventType::StepFailed, "order")["kind"], "cancelled");
    let end = home.run("one", SPEC, &model).await;
    assert_eq!((end.outcome, model.calls()), (JobOutcome::Waiting, 1));
}

#[tokio::test(start_paused = true)]
async fn only_a_failure_that_is_sure_is_tried_again() {
    let sure = |unsure| CallFailure { unsure, ..CallFailure::new(FailureKind::Connect, "as told") };
    let home = Home::new();
    let model = Model::new(move |_, before| match before {
        0 => Act { answer: Err(sure(false)), ..Act::say("") },
        1 => Act::fail(FailureKind::RateLimit),
        _ => Act { answer: Err(sure(true)), ..Act::say("") },
    });
    let end = home.run("one", SPEC, &model).await;
    assert_eq!((end.outcome, model.calls()), (JobOutcome::Waiting, 3));
    assert!(home.told("one").contains(&"gate.waiting order".to_owned()));
}

#[tokio::test(start_paused = true)]
async fn a_cancelled_effect_is_asked_about_too() {
    let mut home = Home::new();
    let model = Model::new(|_, _| Act::say("late").after(3_600_000));
    let run = home.run("one", SPEC, &model);
    let cancel = async {
        tokio::time::sleep(Duration::from_secs(5)).await;
        home.cancel.cancel();
    };
    let (end, ()) = tokio::join!(run, cancel);
    assert_eq!(end.outcome, JobOutcome::Cancelled);
    home.cancel = tokio_util::sync::CancellationToken::new();
    let end = home.run("one", SPEC, &model).await;
    assert_eq!((end.outcome, model.calls()), (JobOutcome::Waiting, 1));
}

#[tokio::test(start_paused = true)]
async fn an_effect_whose_result_was_lost_is_not_repeated_by_itself() {
    let (home, model) = (Home::new(), Model::echo());
    let end = home.run("one", SPEC, &model).await;
    assert_eq!((end.outcome, model.calls()), (JobOutcome::Succeeded, 2));
    std::fs::remove_dir_all(home.run_folder("one").join(".cache")).unwrap();
    let end = home.run("one", SPEC, &model).await;
    assert_eq!((end.outcome, model.calls()), (JobOutcome::Waiting, 2));
    let asked = home.data("one", EventType::GateWaiting, "order");
    assert!(asked["message"].as_str().unwrap().contains("its result is lost"), "{asked:?}");
    decide(&home, "done");
    let end = home.run("one", SPEC, &model).await;
    assert_eq!(
        (end.outcome, model.prompts()[2..].to_vec()),
        (JobOutcome::Succeeded, vec!["after []".to_owned()])
    );
}

#[tokio::test(start_paused = true)]
async fn an_effect_that_happened_and_left_nothing_of_use_is_not_tried_again() {
    let (home, model) = (
        Home::new(),
        Model::new(|_, _| {
            let failure = CallFailure::new(FailureKind::Overloaded, "as told").after_the_effect();
            Act { answer: Err(failure), ..Act::say("") }
        }),
    );
    let end = home.run("one", SPEC, &model).await;
    assert_eq!((end.outcome, model.calls()), (JobOutcome::Waiting, 1));
}

#[tokio::test]
async fn a_run_removes_from_the_store_what_writers_left_that_crashed_long_ago() {
    let (home, model) = (Home::new(), Model::echo());
    let unfinished = home.cache().join(".tmp");
    std::fs::create_dir_all(&unfinished).unwrap();
    let (old, new) = (unfinished.join("old"), unfinished.join("new"));
    std::fs::write(&new, "x").unwrap();
    let file = std::fs::File::create(&old).unwrap();
    file.set_modified(std::time::UNIX_EPOCH).unwrap();
    home.run("one", SPEC, &model).await;
    assert!(!old.exists() && new.exists());
}
