//! What was asked, what it cost and how it ended: metrics, the request log and the commands that read it.

#![cfg(target_os = "linux")]
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::TcpStream;

use serde_json::{Value, json};
use support::SOON;
use support::home::{Daemon, Home};
use support::stream::Stream;
use testkit::{http, wait_for, wait_for_value};

/// The names of a scrape, each with the names of its labels, one a line.
fn names_and_labels(scrape: &str) -> BTreeSet<String> {
    let samples = scrape.lines().filter(|line| !line.starts_with('#'));
    let shape = |line: &str| {
        let (series, _) = line.rsplit_once(' ')?;
        let Some((name, labels)) = series.split_once('{') else { return Some(series.to_owned()) };
        let labels: Vec<&str> =
            labels.split(',').filter_map(|label| Some(label.split_once('=')?.0)).collect();
        Some(format!("{name}{{{}}}", labels.join(",")))
    };
    samples.filter_map(shape).filter(|shape| !shape.contains("_bucket{") && !shape.contains("_sum")).collect()
}

/// One completion through the gateway.
fn ask(address: &str) {
    let asked = json!({"model": "chat", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 4});
    let answer = http::post_json(address, "/v1/chat/completions", &asked).unwrap();
    assert_eq!(answer.status, 200, "{}", answer.text());
}

/// The sum of all series of one metric that counts whole things.
fn total(scrape: &str, name: &str) -> u64 {
    let values = scrape.lines().filter_map(|line| {
        let rest = line.strip_prefix(name)?;
        rest.starts_with(['{', ' ']).then(|| rest.rsplit_once(' ')?.1.parse::<f64>().ok())?
    });
    values.sum::<f64>() as u64
}

#[test]
fn a_scrape_has_the_metrics_of_the_contract_and_the_engines_own_counters() {
    let home = Home::real();
    home.instance("chat", &json!({}));
    let daemon = home.start_daemon();
    home.ok(&["up", "chat"]);
    ask(&daemon.address);
    let scrape = http::get(&daemon.address, "/metrics").unwrap().text();
    let shapes: Vec<String> = names_and_labels(&scrape).into_iter().collect();
    insta::assert_snapshot!(shapes.join("\n"));
}

#[test]
fn the_engines_counters_agree_with_ours_and_never_fall_when_an_engine_starts_anew() {
    let home = Home::real();
    home.instance("chat", &json!({}));
    let daemon = home.start_daemon();
    let scrape = || http::get(&daemon.address, "/metrics").unwrap().text();
    // An answer is there a moment before the engine has counted it, and a look shows what was known a second ago.
    let agreed = |generated: u64| {
        wait_for("both counters", SOON, || {
            let scrape = scrape();
            total(&scrape, "tokens_out_total") == generated
                && total(&scrape, "llamacpp_tokens_predicted_total") == generated
                && total(&scrape, "tokens_in_total")
                    == total(&scrape, "llamacpp_prompt_tokens_total")
                        + total(&scrape, "llamacpp_prompt_tokens_cached_total")
        });
    };
    home.ok(&["up", "chat"]);
    ask(&daemon.address);
    agreed(4);
    let calm = scrape();
    assert_eq!(calm, scrape(), "a scrape changes nothing");
    home.ok(&["restart", "chat"]);
    assert!(total(&scrape(), "llamacpp_tokens_predicted_total") >= 4);
    ask(&daemon.address);
    agreed(8);
}

/// The entries of the log once there are as many as expected, the latest first.
fn entries(home: &Home, count: usize) -> Vec<Value> {
    wait_for_value("the entries of the log", SOON, || {
        let rows = home.json(&["requests", "--json"]);
        let rows = rows.as_array().unwrap().clone();
        assert!(rows.len() <= count, "more than {count}: {rows:?}");
        (rows.len() == count).then_some(rows)
    })
}

/// A question to our own interface with the token of the home.
fn look(daemon: &Daemon, path: &str) -> Value {
    let key = format!("Bearer {}", daemon.token);
    let reply = http::request(&daemon.address, "GET", path, &[("authorization", &key)], b"").unwrap();
    assert_eq!(reply.status, 200, "{}", reply.text());
    reply.json()
}

#[test]
fn every_request_is_in_the_log_once_however_it_ended_and_stays_there_without_a_daemon() {
    let home = Home::fake();
    let port = home.instance("chat", &json!({"env": {"FAKE_TOKEN_MS": "5"}}));
    let daemon = home.start_daemon();
    home.ok(&["up", "chat"]);
    ask(&daemon.address);
    let unknown = json!({"model": "nobody", "messages": []});
    assert_eq!(http::post_json(&daemon.address, "/v1/chat/completions", &unknown).unwrap().status, 404);
    let engine = format!("127.0.0.1:{port}");
    http::post_json(&engine, "/fake/faults", &json!({"FAKE_CLOSE_AFTER_TOKENS": "2"})).unwrap();
    drop(Stream::chat(&daemon.address, "chat", 5).finish(SOON));
    http::post_json(&engine, "/fake/faults", &json!({"FAKE_CLOSE_AFTER_TOKENS": ""})).unwrap();
    drop(Stream::chat(&daemon.address, "chat", 10_000));
    let rows = entries(&home, 4);
    let ends: Vec<_> = rows
        .iter()
        .rev()
        .map(|row| (row["outcome"].as_str().unwrap(), row["status"].as_u64().unwrap()))
        .collect();
    assert_eq!(ends, [("done", 200), ("refused", 404), ("broken", 200), ("canceled", 499)], "{rows:?}");
    let done = &rows[3];
    assert_eq!(
        (&done["model"], &done["instance"], &done["key"]),
        (&json!("chat"), &json!("chat"), &json!("anyone"))
    );
    assert_eq!((&done["endpoint"], &done["has_body"]), (&json!("/v1/chat/completions"), &json!(false)));
    assert!(
        done["total_ms"].as_f64() >= done["queue_ms"].as_f64() && done["completion_tokens"] == 4,
        "{done}"
    );
    assert_eq!(rows[2]["instance"], Value::Null);

    let usage = look(&daemon, "/v2/usage");
    let sum =
        |field: &str| usage.as_array().unwrap().iter().filter_map(|row| row[field].as_u64()).sum::<u64>();
    let counts = ["requests", "done", "refused", "broken", "canceled"].map(sum);
    assert_eq!(counts, [4, 1, 1, 1, 1], "{usage}");
    assert_eq!(look(&daemon, "/v2/requests?outcome=broken").as_array().unwrap().len(), 1);

    home.ok(&["daemon", "stop"]);
    assert_eq!(entries(&home, 4), rows, "the log is read where it lies");
    let table = home.ok(&["requests", "--model", "chat", "--limit", "2"]).stdout;
    assert!(table.starts_with("TIME") && table.contains("canceled 499 CANCELLED"), "{table}");
    assert_eq!(table.lines().count(), 3, "{table}");
}

#[test]
fn usage_is_what_the_engine_says_on_every_endpoint_without_being_asked_for() {
    let home = Home::real();
    home.instance("chat", &json!({}));
    let daemon = home.start_daemon();
    home.ok(&["up", "chat"]);
    let mut asked = 0;
    for path in [
        "/v1/chat/completions",
        "/v1/completions",
        "/v1/messages",
        "/v1/responses",
        "/completion",
        "/api/chat",
    ] {
        for stream in [true, false] {
            let body = json!({
                "model": "chat", "messages": [{"role": "user", "content": "hello"}], "prompt": "hello", "input": "hello",
                "max_tokens": 3, "max_output_tokens": 3, "n_predict": 3, "options": {"num_predict": 3}, "stream": stream,
            });
            let answer = http::post_json(&daemon.address, path, &body).unwrap();
            assert_eq!(answer.status, 200, "{path}: {}", answer.text());
            asked += 1;
        }
    }
    let rows = entries(&home, asked);
    for row in &rows {
        assert!(row["prompt_tokens"].as_u64() > Some(0), "{row}");
        assert_eq!(row["completion_tokens"], 3, "{row}");
    }
    let logged = |field: &str| rows.iter().filter_map(|row| row[field].as_u64()).sum::<u64>();
    wait_for("the engine's own counters", SOON, || {
        let scrape = http::get(&daemon.address, "/metrics").unwrap().text();
        total(&scrape, "llamacpp_tokens_predicted_total") == logged("completion_tokens")
            && total(&scrape, "llamacpp_prompt_tokens_cached_total") == logged("cached_tokens")
            && total(&scrape, "llamacpp_prompt_tokens_total") + logged("cached_tokens")
                == logged("prompt_tokens")
    });
}

#[test]
fn a_captured_request_is_sent_again_elsewhere_and_compared() {
    let home = Home::real();
    std::fs::write(home.path().join("config.toml"), "[capture]\nbodies = true\n").unwrap();
    for name in ["one", "two"] {
        home.instance(name, &json!({}));
    }
    let daemon = home.start_daemon();
    home.ok(&["up", "--all"]);
    let body = json!({
        "model": "one", "messages": [{"role": "user", "content": "my key is sk-abcdefghijklmnopqrstuv"}],
        "max_tokens": 6, "temperature": 0, "stream": true,
    });
    let answer = http::post_json(&daemon.address, "/v1/chat/completions", &body).unwrap();
    assert_eq!(answer.status, 200);
    let id = answer.header("x-request-id").unwrap().to_owned();
    entries(&home, 1);
    let kept = look(&daemon, &format!("/v2/requests/{id}"));
    let text = kept["body"].as_str().unwrap();
    assert!(text.contains("my key is sk-********") && !text.contains("abcdef"), "{text}");
    let secret = http::get(&daemon.address, &format!("/v2/requests/{id}")).unwrap();
    assert_eq!(secret.status, 401, "what others asked is for administrators");

    let replay = home.json(&["replay", &id, "--on", "two", "--json"]);
    assert_eq!(replay["replay"]["request"]["instance"], "two", "{replay}");
    assert_eq!(replay["original"]["request"]["instance"], "one");
    // The key in the prompt is masked now: another prompt, so another text is right. Twice the same is the same.
    let second = replay["replay"]["request"]["id"].as_str().unwrap();
    let again = home.json(&["replay", second, "--on", "one", "--json"]);
    assert_eq!(again["same_text"], true, "{again}");
    assert!(again["replay"]["text_length"].as_u64() > Some(0), "{again}");
    let shown = home.ok(&["replay", second, "--on", "two"]).stdout;
    assert!(shown.contains("the texts are equal"), "{shown}");
    home.run(&["replay", "nothing-like-it", "--on", "two"]).expect_exit(13);
    home.run(&["replay", second, "--on", "nobody"]).expect_exit(13);
}

#[test]
fn a_request_that_was_not_captured_cannot_be_replayed_and_the_way_to_capture_is_told() {
    let home = Home::fake();
    home.instance("chat", &json!({}));
    let daemon = home.start_daemon();
    home.ok(&["up", "chat"]);
    ask(&daemon.address);
    let id = entries(&home, 1)[0]["id"].as_str().unwrap().to_owned();
    let run = home.run(&["replay", &id, "--on", "chat"]);
    run.expect_exit(1);
    assert!(run.stderr.contains("[capture]"), "{}", run.stderr);
    home.ok(&["daemon", "stop"]);
    home.run(&["replay", &id, "--on", "chat"]).expect_exit(60);
}

#[test]
fn whoever_follows_the_log_hears_of_each_request_and_lets_the_daemon_go() {
    let home = Home::fake();
    home.instance("chat", &json!({}));
    let daemon = home.start_daemon();
    home.ok(&["up", "chat"]);
    ask(&daemon.address);
    entries(&home, 1);
    let mut follower = TcpStream::connect(&daemon.address).unwrap();
    follower.set_read_timeout(Some(SOON)).unwrap();
    let head = "GET /v2/requests?follow=true&after=0 HTTP/1.1\r\nHost: localhost\r\n\r\n";
    follower.write_all(head.as_bytes()).unwrap();
    let mut heard = String::new();
    let mut hear = |events: usize| {
        while heard.matches("event: request").count() < events {
            let mut piece = [0; 4096];
            let count = follower.read(&mut piece).unwrap();
            assert!(count > 0, "the stream ended: {heard}");
            heard.push_str(&String::from_utf8_lossy(&piece[..count]));
        }
        heard.clone()
    };
    assert!(hear(1).contains("id: 1\n"), "what has happened since `after` comes first");
    ask(&daemon.address);
    assert!(hear(2).contains("id: 2\n"));
    home.ok(&["daemon", "stop"]);
}
