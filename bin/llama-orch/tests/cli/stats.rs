//! `stats`: what instances use and do.

use serde_json::{Value, json};
use testkit::{TempHome, http};

use crate::scene::{Attached, add_instance, home_with_engine};

fn row<'a>(rows: &'a Value, name: &str) -> &'a Value {
    let found = rows.as_array().unwrap().iter().find(|row| row["name"] == name);
    found.unwrap_or_else(|| panic!("no {name} in {rows}"))
}

fn stats(home: &TempHome) -> Value {
    home.llama_orch(&["stats", "--json"]).expect_exit(0).json()
}

#[test]
fn without_a_home_there_is_nothing_to_measure_and_nothing_is_made() {
    let home = TempHome::new();
    let run = home.llama_orch(&["stats"]);
    run.expect_exit(0);
    assert_eq!(run.stdout, "NAME  PID  CPU  MEMORY  VRAM  SLOTS  WAITING  TOKENS/S  PROMPT/S  STATUS\n");
    assert_eq!(std::fs::read_dir(home.path()).unwrap().count(), 0);
}

#[test]
fn an_engine_tells_its_slots_with_and_without_a_daemon_and_a_stopped_instance_has_only_dashes() {
    let home = home_with_engine();
    let port = add_instance(&home, "chat", &[("FAKE_TOKEN_MS", "50")]);
    add_instance(&home, "off", &[]);
    home.llama_orch(&["up", "chat"]).expect_exit(0);
    let answer = std::thread::spawn(move || {
        let asked = json!({"messages": [{"role": "user", "content": "hello"}], "max_tokens": 400});
        http::post_json(&format!("127.0.0.1:{port}"), "/v1/chat/completions", &asked)
    });
    let seen = |rows: &Value| row(rows, "chat")["slots"]["busy"] == 1;
    testkit::wait_for("a busy slot", std::time::Duration::from_secs(20), || seen(&stats(&home)));
    home.llama_orch(&["daemon", "start"]).expect_exit(0);
    testkit::wait_for("the daemon to see it too", std::time::Duration::from_secs(20), || seen(&stats(&home)));

    let rows = stats(&home);
    let chat = row(&rows, "chat");
    assert!(chat["cpu_percent"].is_number() && chat["rss_bytes"].as_u64() > Some(100_000), "{chat}");
    assert_eq!(chat["vram_bytes"], Value::Null, "an engine on the CPU holds none: {chat}");
    assert_eq!(chat["slot_activity"].as_array().map(Vec::len), Some(1), "{chat}");
    let off = row(&rows, "off");
    assert_eq!((&off["pid"], &off["cpu_percent"], &off["slots"]), (&Value::Null, &Value::Null, &Value::Null));
    let table = home.llama_orch(&["stats"]);
    let line = table.stdout.lines().find(|line| line.starts_with("off")).unwrap();
    assert_eq!(line.split_whitespace().collect::<Vec<_>>().join(" "), "off - - - - - - - - stopped");
    home.llama_orch(&["down", "chat", "--force"]).expect_exit(0);
    let _ = answer.join();
}

#[test]
fn an_engine_that_may_sleep_is_not_asked_what_would_wake_it() {
    let home = home_with_engine();
    let port = add_instance(&home, "nap", &[]);
    home.llama_orch(&["config", "set", "nap", r#"args=["--sleep-idle-seconds","60"]"#]).expect_exit(0);
    home.llama_orch(&["up", "nap"]).expect_exit(0);
    let rows = stats(&home);
    assert_eq!(row(&rows, "nap")["slot_activity"], json!([]), "{rows}");
    assert!(row(&rows, "nap")["waiting"].is_number(), "it is asked what does not wake it: {rows}");
    let seen = http::get(&format!("127.0.0.1:{port}"), "/fake/requests").unwrap().text();
    assert!(!seen.contains("/slots"), "{seen}");
}

#[test]
fn an_engine_with_a_key_is_asked_with_it_and_one_that_hangs_holds_up_nobody() {
    let home = home_with_engine();
    add_instance(&home, "locked", &[("LLAMA_API_KEY", "open-sesame")]);
    let port = add_instance(&home, "hung", &[]);
    home.llama_orch(&["up", "locked", "hung"]).expect_exit(0);
    http::post_json(&format!("127.0.0.1:{port}"), "/fake/faults", &json!({"FAKE_HANG": "all"})).unwrap();
    let begun = std::time::Instant::now();
    let run = home.llama_orch(&["stats", "--json"]);
    assert!(begun.elapsed() < std::time::Duration::from_secs(20));
    let rows = run.expect_exit(0).json();
    assert_eq!(row(&rows, "locked")["slots"]["idle"], 1, "{rows}");
    assert!(!run.stdout.contains("open-sesame"));
    home.llama_orch(&["config", "set", "locked", "env.LLAMA_API_KEY=another"]).expect_exit(0);
    assert_eq!(row(&stats(&home), "locked")["slots"]["idle"], 1, "its next start has the new key");
    assert!(row(&rows, "hung")["rss_bytes"].is_number(), "{rows}");
}

#[test]
fn watched_as_json_it_is_a_document_a_line_until_it_is_interrupted() {
    let home = TempHome::new();
    let watching = Attached::start(&home, &["stats", "--watch", "--json"]);
    watching.wait_for("two looks", |output| output == "[]\n[]\n");
    assert_eq!(watching.interrupt(), Some(130));
}
