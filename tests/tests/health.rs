//! Health, end to end: engines that say they are well and are of no use are replaced, those that are merely slow are
//! left alone, and none waits for another.

mod support;

use std::time::Duration;

use serde_json::{Value, json};
use support::home::Home;
use support::{SOON, stream};
use testkit::{http, wait_for};

/// Detection is measured in health-check timeouts: six seconds of silence, three for the canary.
const TIMEOUT: f64 = 0.5;
/// Generous: two busy cores, and a detection of some ten seconds.
const REPLACED_WITHIN: Duration = Duration::from_secs(90);

/// An instance that is restarted at once when it has to be, and never for a probe that came late on a busy machine.
fn watched(home: &Home, name: &str, changes: &Value) -> u16 {
    let mut config = json!({
        "healthcheck": {"timeout": TIMEOUT, "interval": 0.3, "start_period": 0, "retries": 10},
        "restart_policy": {"initial_delay": 0},
    });
    for (key, value) in changes.as_object().expect("changes are an object") {
        config[key] = value.clone();
    }
    home.instance(name, &config)
}

fn chat(model: &str, stream: bool) -> Value {
    let messages = json!([{"role": "user", "content": "hello"}]);
    json!({"model": model, "messages": messages, "max_tokens": 4, "stream": stream})
}

fn ask(address: &str, body: &Value) -> u16 {
    http::post_json(address, "/v1/chat/completions", body).map_or(0, |reply| reply.status)
}

fn set_fault(port: u16, knobs: &Value) {
    let reply = http::post_json(&format!("127.0.0.1:{port}"), "/fake/faults", knobs).expect("the fake lives");
    assert_eq!(reply.status, 200, "{}", reply.text());
}

/// What a fake has been asked for, besides what tests ask.
fn asked_for(port: u16, path: &str) -> usize {
    let seen = http::get(&format!("127.0.0.1:{port}"), "/fake/requests").expect("the fake lives").json();
    let seen = seen.as_array().expect("a list").clone();
    seen.iter().filter(|request| request["path"] == path).count()
}

/// Its engine was ended and replaced because it was of no use, and the events say so.
#[track_caller]
fn assert_replaced(home: &Home, name: &str, old_pid: u32, why: &str) {
    wait_for("another engine", REPLACED_WITHIN, || {
        let row = home.ps(name);
        row["status"] == "running" && row["health"] == "healthy" && row["pid"] != old_pid
    });
    let events = home.events(name);
    let says = |event: &Value, text: &str| event["message"].as_str().is_some_and(|it| it.contains(text));
    let changed = |to: &str| {
        events.iter().position(|it| it["event_type"] == "health_changed" && says(it, &format!("-> {to}: ")))
    };
    let unhealthy = changed("unhealthy").unwrap_or_else(|| panic!("never unhealthy: {events:#?}"));
    assert!(says(&events[unhealthy], why), "{:#?}", events[unhealthy]);
    assert!(says(&events[unhealthy], "it answers its health checks, but"), "{:#?}", events[unhealthy]);
    let types = home.event_types(name);
    let after: Vec<&str> = types[unhealthy..].iter().map(String::as_str).collect();
    let place = |event: &str| after.iter().position(|it| *it == event).unwrap_or_else(|| panic!("{after:?}"));
    assert!(place("crashed") < place("restart_scheduled"), "{after:?}");
    assert!(place("restart_scheduled") < place("restarted"), "{after:?}");
}

#[test]
fn an_engine_that_is_healthy_and_answers_nobody_is_replaced_and_serves_again() {
    let home = Home::fake();
    let port = watched(&home, "chat", &json!({}));
    let daemon = home.start_daemon();
    home.ok(&["up", "chat"]);
    assert_eq!(ask(&daemon.address, &chat("chat", false)), 200);
    let old = home.engine_pid("chat");
    set_fault(port, &json!({"FAKE_HANG": "inference"}));
    let address = daemon.address.clone();
    let waiting = std::thread::spawn(move || ask(&address, &chat("chat", false)));
    assert_replaced(&home, "chat", old, "no request made progress for");
    let told = waiting.join().expect("the client was answered");
    assert_ne!(told, 200, "it was cut off");
    assert_eq!(ask(&daemon.address, &chat("chat", false)), 200);
}

#[test]
fn an_engine_that_is_healthy_and_fails_every_request_is_replaced_and_serves_again() {
    let home = Home::fake();
    let port = watched(&home, "chat", &json!({}));
    let daemon = home.start_daemon();
    home.ok(&["up", "chat"]);
    let old = home.engine_pid("chat");
    set_fault(port, &json!({"FAKE_STATUS": "500"}));
    for _ in 0..3 {
        assert_eq!(ask(&daemon.address, &chat("chat", false)), 500);
    }
    assert_replaced(&home, "chat", old, "3 requests in a row failed (HTTP 500)");
    assert_eq!(ask(&daemon.address, &chat("chat", false)), 200);
}

#[test]
fn an_engine_that_works_slowly_and_clients_that_err_are_no_reason_for_a_restart() {
    let home = Home::fake();
    // Twice the silence that is suspicious: a prompt that takes long, tokens that come seldom.
    let slow_prompt = json!({"env": {"FAKE_FIRST_TOKEN_MS": "14000", "FAKE_WORKS": "1"}});
    let slow_tokens = json!({"env": {"FAKE_TOKEN_MS": "4000"}});
    // It looks as if it hung, but the canary gets its one token in the other slot.
    let asleep = json!({"env": {"FAKE_TOKEN_MS": "7000"}, "server": {"parallel": 2}});
    watched(&home, "prompt", &slow_prompt);
    watched(&home, "tokens", &slow_tokens);
    let asleep = watched(&home, "asleep", &asleep);
    let erring = watched(&home, "erring", &json!({}));
    let daemon = home.start_daemon();
    home.ok(&["up", "--all"]);
    let pids: Vec<Value> =
        ["prompt", "tokens", "asleep", "erring"].iter().map(|name| home.ps(name)["pid"].clone()).collect();
    std::thread::scope(|scope| {
        let address = &daemon.address;
        let slow: Vec<_> = ["prompt", "tokens", "asleep"]
            .map(|name| scope.spawn(move || (name, ask(address, &chat(name, name == "tokens")))))
            .into_iter()
            .collect();
        for _ in 0..10 {
            assert_eq!(ask(address, &json!({"model": "erring", "stream": false})), 400);
        }
        for one in slow {
            let (name, status) = one.join().expect("a request ends");
            assert_eq!(status, 200, "{name}");
        }
    });
    assert!(asked_for(asleep, "/v1/completions") > 0, "it was suspected, and asked");
    for (name, pid) in ["prompt", "tokens", "asleep", "erring"].iter().zip(&pids) {
        let row = home.ps(name);
        assert_eq!((&row["pid"], &row["restarts"]), (pid, &json!(0)), "{name}");
        assert!(!home.event_types(name).contains(&"crashed".to_owned()), "{name}");
    }
    assert_eq!(asked_for(erring, "/v1/completions"), 0, "an engine nobody suspects is asked for nothing");
    assert_eq!(asked_for(erring, "/slots"), 0);
}

#[test]
fn an_engine_that_hangs_at_its_probe_delays_no_other_s_and_each_interval_is_its_own() {
    let home = Home::fake();
    let lasting = json!({"timeout": 60, "interval": 0.1, "start_period": 3600});
    let often = json!({
        "interval": 0.1, "start_period": 3600, "retry_delay": 0.1, "backoff_base": 0.1, "backoff_max": 0.2,
    });
    let hanging = home.instance("hanging", &json!({"healthcheck": lasting}));
    let quick = home.instance("quick", &json!({"healthcheck": often}));
    let slow = home.instance("slow", &json!({"healthcheck": {"interval": 3600}}));
    home.start_daemon();
    home.ok(&["up", "--all"]);
    let before = asked_for(hanging, "/health");
    set_fault(hanging, &json!({"FAKE_HANG": "health"}));
    wait_for("the probe that hangs", SOON, || asked_for(hanging, "/health") > before);
    // The daemon's first look at it may still be to come.
    wait_for("the slow one to be seen well", SOON, || home.ps("slow")["health"] == "healthy");
    for port in [quick, slow] {
        set_fault(port, &json!({"FAKE_HEALTH_STATUS": "500"}));
    }
    for (health, next) in [("unhealthy", ""), ("healthy", "500"), ("unhealthy", "")] {
        wait_for(health, SOON, || home.ps("quick")["health"] == health);
        set_fault(quick, &json!({"FAKE_HEALTH_STATUS": next}));
    }
    assert_eq!(home.ps("slow")["health"], "healthy", "an hour has not passed");
    assert!(asked_for(hanging, "/health") <= before + 2, "it still hangs");
}

#[test]
fn a_stream_that_falls_silent_in_the_middle_is_noticed() {
    let home = Home::fake();
    let port = watched(&home, "chat", &json!({}));
    let daemon = home.start_daemon();
    home.ok(&["up", "chat"]);
    let old = home.engine_pid("chat");
    set_fault(port, &json!({"FAKE_HANG_AFTER_TOKENS": "3"}));
    let stream = stream::Stream::chat(&daemon.address, "chat", 100);
    assert_replaced(&home, "chat", old, "no request made progress for");
    let finished = stream.finish(SOON);
    assert!(finished.tokens() <= 3 && !finished.events.iter().any(|event| event == "[DONE]"));
}
