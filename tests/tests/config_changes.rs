//! Configs that change under a living daemon: what can be is in effect at once, the rest asks for a restart, and
//! nobody else notices.

#![cfg(target_os = "linux")]
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::time::Duration;

use serde_json::{Value, json};
use support::SOON;
use support::home::Home;
use support::stream::Stream;
use testkit::{http, wait_for, wait_for_value};

/// Edits the file by hand, as an editor would.
fn edit(home: &Home, name: &str, change: impl FnOnce(&mut Value)) {
    let path = format!("instances/{name}/config.json");
    let mut config = home.read_json(&path).unwrap();
    change(&mut config);
    home.write_config(name, &config.to_string());
}

/// The newest `config_changed` that names the field.
fn told(home: &Home, name: &str, field: &str) -> Value {
    wait_for_value("the change to be told", SOON, || {
        let events = home.events(name).into_iter().rev();
        events.into_iter().find(|event| {
            event["event_type"] == "config_changed" && event["message"].as_str().unwrap().contains(field)
        })
    })
}

#[test]
fn dynamic_fields_are_in_effect_at_once_and_others_ask_for_a_restart_while_nobody_else_notices() {
    let home = Home::real();
    home.instance("a", &json!({}));
    home.instance("bystander", &json!({}));
    let daemon = home.start_daemon();
    home.ok(&["up", "--all"]);
    let pids = (home.engine_pid("a"), home.engine_pid("bystander"));
    let stream = Stream::chat(&daemon.address, "bystander", 2000);

    edit(&home, "a", |config| config["aliases"] = json!(["nickname"]));
    let event = told(&home, "a", "aliases");
    assert_eq!(
        (&event["message"], &event["meta"]["restart_needed"]),
        (&json!("aliases changed; in effect"), &json!(false))
    );
    let question =
        json!({"model": "nickname", "max_tokens": 2, "messages": [{"role": "user", "content": "hi"}]});
    let answer = http::post_json(&daemon.address, "/v1/chat/completions", &question).unwrap();
    assert_eq!(answer.status, 200, "{}", answer.text());

    edit(&home, "a", |config| config["model"]["batch_size"] = json!(256));
    let event = told(&home, "a", "model.batch_size");
    assert_eq!(event["meta"]["restart_needed"], true, "{event}");
    let change = &event["meta"]["changes"][0];
    assert_eq!(
        (&change["field"], &change["from"], &change["to"]),
        (&json!("model.batch_size"), &json!(512), &json!(256))
    );
    assert_eq!(home.ps("a")["restart_needed"], true);
    assert!(home.ok(&["ps"]).stdout.contains("running (restart needed)"));
    let about = home.describe("a");
    assert_eq!(about["changes"], json!([{"argument": "--batch-size", "running": "512", "config": "256"}]));
    let sheet = home.ok(&["describe", "a"]).stdout;
    assert!(sheet.contains("--batch-size: 512 -> 256") && sheet.contains("model.batch_size:"), "{sheet}");

    // A key that only the next start will have is not used on the engine of today.
    edit(&home, "a", |config| config["args"] = json!(["--api-key", "sk-only-later"]));
    let event = told(&home, "a", "args");
    assert!(!event.to_string().contains("sk-only-later"), "{event}");
    let answer = http::post_json(&daemon.address, "/v1/chat/completions", &question).unwrap();
    assert_eq!(answer.status, 200, "{}", answer.text());

    assert_eq!((home.engine_pid("a"), home.engine_pid("bystander")), pids);
    stream.finish(Duration::from_secs(60)).assert_complete(2000);
    home.ok(&["restart", "a"]);
    assert_eq!(
        (&home.ps("a")["restart_needed"], &home.describe("a")["changes"]),
        (&json!(false), &json!([]))
    );
}

#[test]
fn configs_that_appear_break_and_are_mended_are_followed_by_the_living_daemon() {
    let home = Home::fake();
    let daemon = home.start_daemon();
    home.instance("a", &json!({"lifecycle": {"load": "always"}}));
    wait_for("the new instance to run", SOON, || home.ps("a")["status"] == "running");
    let pid = home.engine_pid("a");

    let text = std::fs::read_to_string(home.path().join("instances/a/config.json")).unwrap();
    home.write_config("a", "{ oops");
    let question = json!({"model": "a", "max_tokens": 2, "messages": [{"role": "user", "content": "hi"}]});
    let answer = || http::post_json(&daemon.address, "/v1/chat/completions", &question).unwrap().status;
    assert_eq!((home.ps("a")["pid"].as_u64(), answer()), (Some(u64::from(pid)), 200), "it serves on");
    home.write_config("a", &text.replace("\"always\"", "\"manual\""));
    told(&home, "a", "lifecycle.load");
    assert_eq!((home.engine_pid("a"), answer()), (pid, 200));
    let types = home.event_types("a");
    assert_eq!(types.iter().filter(|it| *it == "instance_started").count(), 1, "{types:?}");
}
