//! The plain way: steps that ask a model, one after another and beside each other.

use workflow::{EventType, JobOutcome};

use crate::support::{Home, Model};

const DIAMOND: &str = r#"
version: 1
project: p
steps:
  plan: { llm: { model: m, prompt: "plan" } }
  build: { llm: { model: m, prompt: "build {{ steps.plan.output.text }}" }, files: [ { path: main.py, from: output.text, mode: overwrite } ] }
  docs: { llm: { model: m, prompt: "docs {{ steps.plan.output.text }}" } }
  qa: { llm: { model: m, prompt: "{{ files['main.py'] }} {{ steps.docs.output.text }}" } }
  done: { pass: "{{ steps.qa.output.text }}" }
"#;

#[tokio::test(start_paused = true)]
async fn steps_run_in_order_and_see_what_they_need() {
    let (home, model) = (Home::new(), Model::echo());
    let end = home.run("one", DIAMOND, &model).await;
    assert_eq!(end.outcome, JobOutcome::Succeeded, "{:?} {:#?}", end.error, home.told("one"));
    assert_eq!(model.prompts(), ["plan", "build plan!", "docs plan!", "build plan!! docs plan!!"]);
    assert_eq!(home.output("one", "main.py").unwrap(), "build plan!!");
    let told = home.told("one");
    assert_eq!(told.first().unwrap(), "job.started");
    assert_eq!(told.last().unwrap(), "job.succeeded");
    let plan: Vec<_> = told.iter().filter(|line| line.ends_with(" plan")).collect();
    assert_eq!(
        plan,
        [
            "step.started plan",
            "cache.miss plan",
            "llm.request plan",
            "llm.response plan",
            "cache.stored plan",
            "step.succeeded plan"
        ]
    );
    assert_eq!(home.data("one", EventType::StepSucceeded, "plan")["provider_calls"], 1);
    assert_eq!(model.facts_asked.load(std::sync::atomic::Ordering::SeqCst), 1, "asked once for each model");
}

#[tokio::test(start_paused = true)]
async fn a_second_job_takes_everything_from_the_store() {
    let (home, model) = (Home::new(), Model::echo());
    home.run("one", DIAMOND, &model).await;
    let end = home.run("two", DIAMOND, &model).await;
    assert_eq!(end.outcome, JobOutcome::Succeeded);
    assert_eq!(model.calls(), 4, "nothing was asked again");
    assert_eq!(home.output("two", "main.py"), home.output("one", "main.py"));
    let told = home.told("two");
    assert_eq!(told.iter().filter(|line| line.starts_with("cache.hit")).count(), 4);
    assert_eq!(home.data("two", EventType::StepSucceeded, "qa")["provider_calls"], 0);
    assert_eq!(std::fs::read_dir(home.run_folder("two").join(".cache")).unwrap().count(), 4);
}

#[tokio::test(start_paused = true)]
async fn a_finished_job_that_is_resumed_does_nothing_again() {
    let (home, model) = (Home::new(), Model::echo());
    home.run("one", DIAMOND, &model).await;
    for _ in 0..2 {
        let end = home.run("one", DIAMOND, &model).await;
        assert_eq!(end.outcome, JobOutcome::Succeeded);
        assert_eq!(model.calls(), 4);
        let skipped = |step: &str| home.data("one", EventType::StepSkipped, step)["reason"] == "resume";
        assert!(["plan", "build", "docs", "qa", "done"].into_iter().all(skipped));
    }
}
