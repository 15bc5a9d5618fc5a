//! Steps that are made of others: maps, samples, loops, other workflows; and steps that may not run at all.

use serde_json::json;
use workflow::{EventType, JobOutcome};
use workflow_spec::FailureKind;

use crate::support::{Act, Home, Model, prompt};

async fn run(home: &Home, text: &str, model: &std::sync::Arc<Model>) -> JobOutcome {
    home.run("one", text, model).await.outcome
}

#[tokio::test(start_paused = true)]
async fn a_map_runs_its_step_for_each_element_and_gathers_the_outputs() {
    let (home, model) = (Home::new(), Model::echo());
    let spec = r#"
version: 1
project: p
steps:
  list: { pass: { value: [a, b, c] } }
  each: { map: { over: steps.list.output.json, as: letter }, llm: { model: m, prompt: "{{ index }}{{ letter }}" } }
  all: { pass: { value: { texts: "{{ steps.each.output.text }}", second: "{{ steps.each.output.json[1] }}" } }, files: [ { path: all.json, from: output.json } ] }
"#;
    assert_eq!(run(&home, spec, &model).await, JobOutcome::Succeeded);
    assert_eq!(model.prompts(), ["0a", "1b", "2c"]);
    let all: serde_json::Value = serde_json::from_str(&home.output("one", "all.json").unwrap()).unwrap();
    assert_eq!(all, json!({"texts": "0a!\n\n1b!\n\n2c!", "second": "1b!"}));
    assert_eq!(home.data("one", EventType::MapExpanded, "each")["count"], 3);
    assert!(home.told("one").contains(&"step.succeeded each[2]".to_owned()));
}

#[tokio::test(start_paused = true)]
async fn an_edited_element_alone_is_asked_again() {
    let (home, model) = (Home::new(), Model::echo());
    let spec = |list: &str| {
        format!(
            "version: 1\nproject: p\nsteps:\n  list: {{ pass: {{ value: {list} }} }}\n  each: {{ map: {{ over: steps.list.output.json }}, llm: {{ model: m, prompt: \"{{{{ item }}}}\" }} }}\n"
        )
    };
    run(&home, &spec("[a, b, c]"), &model).await;
    run(&home, &spec("[a, x, c]"), &model).await;
    assert_eq!(model.prompts(), ["a", "b", "c", "x"]);
}

#[tokio::test(start_paused = true)]
async fn a_map_may_have_gaps_where_it_says_so_and_fails_otherwise() {
    for (on_error, outcome) in [("on_error: continue,", JobOutcome::Succeeded), ("", JobOutcome::Failed)] {
        let home = Home::new();
        let model = Model::new(|request, _| match prompt(request) {
            "b" => Act::fail(FailureKind::Auth),
            other => Act::say(other),
        });
        let spec = format!(
            "version: 1\nproject: p\nsteps:\n  each: {{ {on_error} map: {{ over: \"['a', 'b', 'c']\" }}, llm: {{ model: m, prompt: \"{{{{ item }}}}\" }} }}\n  end: {{ pass: \"{{{{ steps.each.output.json }}}}\", files: [ {{ path: end, from: output.json }} ] }}\n"
        );
        assert_eq!(run(&home, &spec, &model).await, outcome);
        let file = home.output("one", "end").map(|text| serde_json::from_str(&text).unwrap());
        assert_eq!(file, (outcome == JobOutcome::Succeeded).then(|| json!(["a", null, "c"])));
    }
}

#[tokio::test(start_paused = true)]
async fn an_empty_map_has_an_empty_list() {
    let (home, model) = (Home::new(), Model::echo());
    let spec = "version: 1\nproject: p\nsteps:\n  none: { map: { over: '[]' }, llm: { model: m, prompt: '{{ item }}' } }\n  end: { pass: '{{ steps.none.output.json }}', files: [ { path: end, from: output.json } ] }\n";
    assert_eq!(run(&home, spec, &model).await, JobOutcome::Succeeded);
    assert_eq!(home.output("one", "end").unwrap(), "[]\n");
}

#[tokio::test(start_paused = true)]
async fn samples_ask_the_same_as_often_as_they_say() {
    let home = Home::new();
    let model = Model::new(|_, before| Act::say(&before.to_string()));
    let spec = "version: 1\nproject: p\nsteps:\n  dice: { samples: 3, llm: { model: m, prompt: roll } }\n";
    assert_eq!(run(&home, spec, &model).await, JobOutcome::Succeeded);
    assert_eq!(model.calls(), 3);
    assert_eq!(run(&home, spec, &model).await, JobOutcome::Succeeded);
    assert_eq!(model.calls(), 3, "each sample is found again");
}

const LOOP: &str = r#"
version: 1
project: p
steps:
  start: { pass: "s" }
  improve:
    loop:
      max: 5
      until: "steps.judge.output.text == 'good'"
      body:
        draft: { llm: { model: m, prompt: "{{ steps.start.output.text }} draft {{ iteration }} after {% if previous %}{{ previous.judge }}{% else %}nothing{% endif %}" } }
        judge: { llm: { model: m, prompt: "judge {{ steps.draft.output.text }}" } }
  end: { pass: "{{ steps.improve.output.draft }}", files: [ { path: end, from: output.text } ] }
"#;

fn judging(good: &'static str) -> std::sync::Arc<Model> {
    Model::new(move |request, _| match prompt(request) {
        judged if judged.starts_with("judge") && judged.contains(good) => Act::say("good"),
        judged if judged.starts_with("judge") => Act::say("bad"),
        draft => Act::say(draft),
    })
}

#[tokio::test(start_paused = true)]
async fn a_loop_goes_round_until_its_decision_holds() {
    let (home, model) = (Home::new(), judging("draft 3"));
    assert_eq!(run(&home, LOOP, &model).await, JobOutcome::Succeeded);
    assert_eq!(model.calls(), 6);
    assert_eq!(home.output("one", "end").unwrap(), "s draft 3 after bad");
    assert!(model.prompts()[0].ends_with("after nothing"));
    assert!(home.told("one").contains(&"step.succeeded improve/3/judge".to_owned()));
    run(&home, LOOP, &model).await;
    assert_eq!(model.calls(), 6, "a resumed loop finds its rounds again");
}

#[tokio::test(start_paused = true)]
async fn a_loop_that_never_holds_fails_after_its_last_round() {
    let (home, model) = (Home::new(), judging("draft 9"));
    assert_eq!(run(&home, LOOP, &model).await, JobOutcome::Failed);
    assert_eq!(model.calls(), 10);
    assert_eq!(home.data("one", EventType::StepFailed, "improve")["kind"], "validation");
}

#[tokio::test(start_paused = true)]
async fn programs_of_a_loop_run_in_every_round_and_once_each() {
    let (home, model) = (Home::new(), Model::echo());
    let spec = r#"
version: 1
project: p
steps:
  rounds:
    loop:
      max: 3
      until: "iteration == 3"
      body:
        same: { run: { argv: [say, hello] } }
"#;
    assert_eq!(run(&home, spec, &model).await, JobOutcome::Succeeded);
    let begun = |told: &[String]| told.iter().filter(|line| line.starts_with("step.started rounds/")).count();
    assert_eq!(begun(&home.told("one")), 3);
    assert_eq!(run(&home, spec, &model).await, JobOutcome::Succeeded);
    assert_eq!(begun(&home.told("one")), 0, "{:#?}", home.told("one"));
}

#[tokio::test(start_paused = true)]
async fn a_condition_skips_a_step_and_those_that_need_it_unless_something_stands_in() {
    let (home, model) = (Home::new(), Model::echo());
    let spec = r#"
version: 1
project: p
inputs: { go: { type: boolean, default: false } }
steps:
  maybe: { when: inputs.go, llm: { model: m, prompt: maybe } }
  needs: { llm: { model: m, prompt: "{{ steps.maybe.output.text }}" } }
  stands: { when: inputs.go, else: instead, llm: { model: m, prompt: stands } }
  uses: { llm: { model: m, prompt: "{{ steps.stands.output.text }}" } }
"#;
    assert_eq!(run(&home, spec, &model).await, JobOutcome::Succeeded);
    assert_eq!(model.prompts(), ["instead"]);
    for step in ["maybe", "needs", "stands"] {
        assert_eq!(home.data("one", EventType::StepSkipped, step)["reason"], "condition");
    }
}

#[tokio::test(start_paused = true)]
async fn a_gate_waits_and_what_was_decided_goes_on() {
    let (home, model) = (Home::new(), Model::echo());
    let spec = r#"
version: 1
project: p
steps:
  draft: { llm: { model: m, prompt: draft } }
  review: { gate: { message: "Good? {{ steps.draft.output.text }}" } }
  send: { llm: { model: m, prompt: "send {{ steps.review.output.text }}" } }
"#;
    assert_eq!(run(&home, spec, &model).await, JobOutcome::Waiting);
    assert_eq!(home.data("one", EventType::GateWaiting, "review")["message"], "Good? draft!");
    assert_eq!(run(&home, spec, &model).await, JobOutcome::Waiting, "nobody has decided");
    let (step, choice) = ("review".to_owned(), "approve".to_owned());
    let decided = workflow::Decided { step, choice, by: "me".into(), at: "now".into() };
    workflow::leave_decision(&home.run_folder("one").join("control"), &decided).unwrap();
    assert_eq!(run(&home, spec, &model).await, JobOutcome::Succeeded);
    assert_eq!(model.prompts(), ["draft", "send approve"]);
    assert_eq!(run(&home, spec, &model).await, JobOutcome::Succeeded, "it is not asked again");
    assert_eq!(std::fs::read_dir(home.run_folder("one").join("control")).unwrap().count(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_job_is_cancelled_from_outside_and_its_requests_end() {
    let home = Home::new();
    let model = Model::new(|_, _| Act::say("never").after(3_600_000));
    let spec = "version: 1\nproject: p\nsteps:\n  a: { llm: { model: m, prompt: a } }\n  b: { llm: { model: m, prompt: '{{ steps.a.output.text }}' } }\n";
    let cancel = home.cancel.clone();
    let cancelling = async {
        tokio::time::sleep(std::time::Duration::from_secs(5)).await;
        cancel.cancel();
    };
    let (outcome, ()) = tokio::join!(run(&home, spec, &model), cancelling);
    assert_eq!(outcome, JobOutcome::Cancelled);
    let told = home.told("one");
    assert_eq!(told[told.len() - 2..], ["step.cancelled a", "job.cancelled"]);
    assert!(!told.iter().any(|line| line.ends_with(" b")), "it has not begun");
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_does_not_fit_goes_back_with_the_reason() {
    let home = Home::new();
    let model = Model::new(|request, _| match request.messages.len() {
        1 => Act::say("certainly!"),
        3 => Act::say("```json\n{\"n\": \"one\"}\n```"),
        _ => Act::say("```json\n{\"n\": 1}\n```"),
    });
    let spec = |repair: u32| {
        format!(
            "version: 1\nproject: p\nsteps:\n  a: {{ llm: {{ model: m, prompt: a, output: {{ repair: {repair}, schema: {{ type: object, required: [n], properties: {{ n: {{ type: integer }} }} }} }} }} }}\n"
        )
    };
    assert_eq!(run(&home, &spec(1), &model).await, JobOutcome::Failed);
    assert_eq!(home.data("one", EventType::StepFailed, "a")["kind"], "schema");
    assert_eq!(model.calls(), 2);
    assert_eq!(run(&home, &spec(2), &model).await, JobOutcome::Succeeded);
    assert_eq!(home.data("one", EventType::StepSucceeded, "a")["provider_calls"], 3);
    let last = model.asked.lock().unwrap().last().unwrap().clone();
    assert!(last.messages[4].content.contains("/n"), "{}", last.messages[4].content);
}
