//! The plain way: steps that ask a model, one after another and beside each other.

use workflow::{EventType, JobOutcome};

use crate::support::{Act, Home, Model};

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

fn appending(name: &str, path: &str) -> String {
    format!(
        "version: 1\nproject: p\nsteps:\n  {name}: {{ llm: {{ model: m, prompt: a }}, files: [ {{ path: log, from: output.text, mode: append }}, {{ path: {path}, from: output.text, mode: overwrite }} ] }}\n"
    )
}

#[tokio::test(start_paused = true)]
async fn files_are_made_whole_again_and_nothing_is_appended_twice() {
    let (home, model) = (Home::new(), Model::echo());
    home.run("one", &appending("a", "x"), &model).await;
    std::fs::remove_file(home.run_folder("one").join("outputs/p/x")).unwrap();
    home.run("one", &appending("renamed", "x"), &model).await;
    assert_eq!(home.output("one", "x").unwrap(), "a!", "it was restored from the store");
    assert_eq!(home.output("one", "log").unwrap(), "a!");
    home.run("one", &appending("renamed", "y"), &model).await;
    assert_eq!(home.output("one", "y").unwrap(), "a!", "another path is written without asking again");
    assert_eq!(home.output("one", "log").unwrap(), "a!");
    assert_eq!(model.calls(), 1);
}

#[tokio::test(start_paused = true)]
async fn an_edited_prompt_runs_that_step_and_those_whose_own_request_changed() {
    let (home, model) = (
        Home::new(),
        Model::new(|request, _| {
            let said = if crate::support::prompt(request).starts_with("judge") { "good" } else { "a draft" };
            crate::support::Act::say(&format!("{said} {}", crate::support::prompt(request).len()))
        }),
    );
    let spec = |draft: &str, judge: &str| {
        format!(
            "version: 1\nproject: p\nsteps:\n  draft: {{ llm: {{ model: m, prompt: {draft} }} }}\n  {judge}: {{ llm: {{ model: m, prompt: 'judge {{{{ steps.draft.output.text }}}}' }} }}\n  far: {{ llm: {{ model: m, prompt: far }} }}\n"
        )
    };
    home.run("one", &spec("one", "judge"), &model).await;
    assert_eq!(model.calls(), 3);
    home.run("one", &spec("two", "judge"), &model).await;
    assert_eq!(model.calls(), 4, "another draft of the same text: its judge is not asked again");
    home.run("one", &spec("three", "judge"), &model).await;
    assert_eq!(model.calls(), 6, "the draft has changed");
    home.run("one", &spec("three", "referee"), &model).await;
    assert_eq!(model.calls(), 6, "a step that was renamed does not run");
}

#[tokio::test(start_paused = true)]
async fn equal_requests_in_flight_are_made_once() {
    let home = Home::new();
    let model = Model::new(|_, _| crate::support::Act::say("same").after(100));
    let spec = "version: 1\nproject: p\nsteps:\n  a: { llm: { model: m, prompt: x } }\n  b: { llm: { model: m, prompt: x } }\n  c: { llm: { model: m, prompt: x } }\n";
    let end = home.run("one", spec, &model).await;
    assert_eq!(end.outcome, JobOutcome::Succeeded);
    assert_eq!(model.calls(), 1);
    assert_eq!(home.told("one").iter().filter(|line| line.starts_with("cache.joined")).count(), 2);
}

#[tokio::test(start_paused = true)]
async fn without_the_cache_nothing_is_taken_or_offered_but_a_resume_finds_its_own() {
    let (mut home, model) = (Home::new(), Model::echo());
    home.run("one", DIAMOND, &model).await;
    home.options.no_cache = true;
    home.run("two", DIAMOND, &model).await;
    assert_eq!(model.calls(), 8);
    home.run("two", DIAMOND, &model).await;
    assert_eq!(model.calls(), 8);
}

#[tokio::test(start_paused = true)]
async fn a_poisoned_result_is_refused_and_made_again() {
    let (home, model) = (Home::new(), Model::echo());
    home.run("one", DIAMOND, &model).await;
    let key = home.data("one", EventType::StepSucceeded, "plan")["key"].as_str().unwrap().to_owned();
    for folder in [home.cache().join(&key[..2]), home.run_folder("one").join(".cache")] {
        let path = folder.join(format!("{key}.json"));
        let text = std::fs::read_to_string(&path).unwrap().replace("plan!", "evil!");
        std::fs::remove_file(&path).unwrap();
        std::fs::write(&path, text).unwrap();
    }
    home.run("one", DIAMOND, &model).await;
    assert_eq!(model.calls(), 5);
    assert!(home.told("one").contains(&"cache.refused plan".to_owned()));
    assert_eq!(home.output("one", "main.py").unwrap(), "build plan!!");
}

#[tokio::test(start_paused = true)]
async fn a_path_that_leads_out_is_refused_and_fails_its_step() {
    let home = Home::new();
    let model = Model::new(|_, _| crate::support::Act::say("../../evil"));
    let spec = "version: 1\nproject: p\nsteps:\n  a: { llm: { model: m, prompt: x }, files: [ { path: '{{ steps.b.output.text }}', from: output.text } ], needs: [b] }\n  b: { llm: { model: m, prompt: y } }\n";
    let end = home.run("one", spec, &model).await;
    assert_eq!(end.outcome, JobOutcome::Failed);
    assert_eq!(home.data("one", EventType::FileRefused, "a")["path"], "../../evil");
    assert_eq!(home.data("one", EventType::StepFailed, "a")["kind"], "validation");
    assert!(!home.run_folder("one").join("evil").exists());
}

#[tokio::test]
async fn a_strict_journal_has_the_same_results() {
    let (mut home, model) = (Home::new(), Model::echo());
    home.options.strict = true;
    let end = home.run("one", DIAMOND, &model).await;
    assert_eq!(end.outcome, JobOutcome::Succeeded);
    assert_eq!(home.output("one", "main.py").unwrap(), "build plan!!");
    home.run("one", DIAMOND, &model).await;
    assert_eq!(model.calls(), 4);
}

#[tokio::test]
async fn a_wish_to_end_a_job_that_comes_when_it_has_ended_does_not_end_its_next_life() {
    let home = Home::new();
    let control = home.run_folder("one").join("control");
    let left = control.clone();
    let model = Model::new(move |_, _| {
        // So late that nobody looks any more.
        workflow::leave_cancel(&left).unwrap();
        Act::say("done")
    });
    let spec = "version: 1\nproject: p\nsteps:\n  a: { llm: { model: m, prompt: hi } }\n";
    let end = home.run("one", spec, &model).await;
    assert_eq!(end.outcome, JobOutcome::Succeeded);
    assert_eq!(home.run("one", spec, &model).await.outcome, JobOutcome::Succeeded);
}
