use std::time::Duration;

use serde_json::{Value, json};
use workflow::Event;

use super::model::JobPicture;
use super::plain::Teller;
use super::rows::{Line, last, live};

const JOB: &str = "job_notes_api_0123456789ab";

fn at(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

fn event(kind: &str, step: Option<&str>, data: &Value) -> Event {
    let mut event = json!({
        "ts": "2026-01-02T03:04:05.000006Z", "seq": 1, "level": "INFO", "job_id": JOB, "type": kind, "data": data,
    });
    if let Some(step) = step {
        event["step"] = json!(step);
    }
    serde_json::from_value(event).unwrap()
}

fn step(picture: &mut JobPicture, kind: &str, step: &str, data: &Value, now: u64) {
    picture.hear(&event(kind, Some(step), data), at(now));
}

fn text(lines: &[Line]) -> String {
    lines.iter().map(|line| line.text.as_str()).collect::<Vec<_>>().join("\n")
}

/// The seed's job: architect → {builder, docs} → qa.
fn four_steps() -> JobPicture {
    let steps: [(&str, &[&str]); 4] = [
        ("architect", &[]),
        ("builder", &["architect"]),
        ("docs", &["architect"]),
        ("qa", &["builder", "docs"]),
    ];
    let mut picture = JobPicture::new(
        steps.map(|(id, needs)| (id.to_owned(), needs.iter().map(|need| (*need).to_owned()).collect())),
    );
    picture.hear(&event("job.started", None, &json!({})), at(0));
    picture
}

fn half_way() -> JobPicture {
    let mut picture = four_steps();
    step(&mut picture, "step.started", "architect", &json!({"needs": []}), 0);
    step(&mut picture, "cache.hit", "architect", &json!({"cache_key": "ab"}), 1);
    step(&mut picture, "step.succeeded", "architect", &json!({"duration_s": 0.0, "provider_calls": 0}), 1);
    for id in ["builder", "docs"] {
        step(&mut picture, "step.started", id, &json!({"needs": ["architect"]}), 10);
        step(&mut picture, "llm.request", id, &json!({"provider": "local", "model": "qwen"}), 11);
    }
    (0..88).for_each(|_| picture.piece("builder"));
    picture
}

#[test]
fn every_step_shows_its_state_model_tokens_and_time() {
    let mut picture = half_way();
    step(&mut picture, "step.retrying", "docs", &json!({"kind": "rate_limit", "delay_s": 3.5}), 1000);
    insta::assert_snapshot!(text(&live(&picture, at(2100), 24)));
}

#[test]
fn a_gate_tells_what_can_be_decided_and_a_failure_what_went_wrong() {
    let mut picture = half_way();
    step(
        &mut picture,
        "step.failed",
        "builder",
        &json!({"kind": "timeout", "message": "no answer\u{1b}[2J within 600 s"}),
        2000,
    );
    step(
        &mut picture,
        "gate.waiting",
        "docs",
        &json!({"message": "Publish?", "choices": ["approve", "reject"]}),
        2000,
    );
    step(&mut picture, "step.skipped", "qa", &json!({"reason": "upstream_failed"}), 2000);
    picture.hear(&event("job.failed", None, &json!({})), at(2000));
    insta::assert_snapshot!(text(&last(&picture, at(2100))));
}

#[test]
fn children_stand_below_the_step_that_makes_them_and_are_folded_at_the_end() {
    let mut picture = JobPicture::new([("each".to_owned(), Vec::new()), ("fix".to_owned(), Vec::new())]);
    step(&mut picture, "step.started", "each", &json!({}), 0);
    for (id, end) in [("each[0]", "step.succeeded"), ("each[1]", "step.failed")] {
        step(&mut picture, "step.started", id, &json!({}), 0);
        step(
            &mut picture,
            end,
            id,
            &json!({"duration_s": 0.25, "kind": "schema", "message": "no summary"}),
            250,
        );
    }
    step(&mut picture, "step.started", "fix/1/draft", &json!({}), 300);
    insta::assert_snapshot!(text(&live(&picture, at(1300), 24)));
    insta::assert_snapshot!(text(&last(&picture, at(1300))));
}

#[test]
fn what_is_done_makes_room_for_what_is_not() {
    let mut picture = JobPicture::new((0..100).map(|n| (format!("step-{n:03}"), Vec::new())));
    for n in 0..60 {
        step(&mut picture, "step.started", &format!("step-{n:03}"), &json!({}), 0);
    }
    for n in 0..57 {
        step(&mut picture, "step.succeeded", &format!("step-{n:03}"), &json!({"duration_s": 1.0}), 1000);
    }
    let lines = live(&picture, at(2000), 8);
    insta::assert_snapshot!(text(&lines));
    for height in 1..30 {
        assert!(live(&picture, at(2000), height).len() <= height.max(2), "{height}");
    }
}

#[test]
fn without_a_terminal_each_event_that_matters_is_a_line() {
    let mut teller = Teller::default();
    let together = [
        event("job.started", None, &json!({})),
        event("step.started", Some("architect"), &json!({})),
        event("cache.hit", Some("architect"), &json!({"cache_key": "ab"})),
        event("step.succeeded", Some("architect"), &json!({"duration_s": 0.0})),
        event("step.started", Some("builder"), &json!({})),
    ];
    let later = [
        event("step.retrying", Some("builder"), &json!({"kind": "overloaded", "delay_s": 1.25})),
        event("llm.response", Some("builder"), &json!({"tokens": 1234, "duration_s": 2.0})),
        event("file.written", Some("builder"), &json!({"path": "main.py", "reason": "created"})),
        event("step.succeeded", Some("builder"), &json!({"duration_s": 4.2})),
        event("step.failed", Some("docs"), &json!({"kind": "auth", "message": "no key\nat all"})),
    ];
    insta::assert_snapshot!(teller.tell(&together) + &teller.tell(&later));
}
