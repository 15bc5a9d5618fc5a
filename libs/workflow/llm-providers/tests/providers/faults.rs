//! Bad answers: of which kind each fault is, and that nothing hangs or leaks.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use llm_providers::{Access, ProviderKind, ProviderSetting, Providers, Token};
use serde_json::json;
use testkit::provider::{FakeProvider, Fault, Rule, Script};
use testkit::{free_port, wait_for_async};
use workflow::AskModel as _;
use workflow_spec::FailureKind;

use crate::support::{ALL, KEY, ask, last_body, providers, question};

const SOON: Duration = Duration::from_secs(20);

fn status(status: u16) -> Fault {
    Fault::Status { status, retry_after: None, headers: BTreeMap::new(), body: None }
}

/// Asks each provider once while this goes wrong.
async fn each_fails(fault: Fault, kind: FailureKind) {
    let fake =
        FakeProvider::start(Script::default().rule(Rule { fault: Some(fault.clone()), ..Rule::default() }));
    let providers = providers(&fake.url());
    for name in ALL {
        let failure = ask(&providers, question(name, "please")).await.unwrap_err();
        assert_eq!(failure.kind, kind, "{name}, {fault:?}: {}", failure.message);
        assert!(
            failure.message.contains(name) && failure.message.contains(&fake.url()),
            "{}",
            failure.message
        );
    }
    assert_eq!(fake.stats().requests, ALL.len() as u64, "{fault:?}: one attempt is one request");
}

#[tokio::test]
async fn each_fault_has_its_kind_in_every_protocol() {
    for (fault, kind) in [
        (Fault::Refuse, FailureKind::Connect),
        (Fault::Cut, FailureKind::Connect),
        (Fault::End, FailureKind::Connect),
        (Fault::Garbage, FailureKind::Overloaded),
        (Fault::Page, FailureKind::Overloaded),
        (status(400), FailureKind::Validation),
        (status(401), FailureKind::Auth),
        (status(403), FailureKind::Auth),
        (status(408), FailureKind::Timeout),
        (status(429), FailureKind::RateLimit),
        (status(500), FailureKind::Overloaded),
        (status(503), FailureKind::Overloaded),
        (status(529), FailureKind::Overloaded),
    ] {
        each_fails(fault, kind).await;
    }
}

#[tokio::test]
async fn nobody_listens() {
    let url = format!("http://127.0.0.1:{}", free_port());
    let providers = providers(&url);
    for name in ALL {
        let failure = ask(&providers, question(name, "anybody?")).await.unwrap_err();
        assert_eq!(failure.kind, FailureKind::Connect);
        assert!(failure.message.contains("refused"), "{}", failure.message);
    }
}

#[tokio::test]
async fn an_error_within_a_stream_has_its_own_kind() {
    for (word, kind) in
        [("overloaded_error", FailureKind::Overloaded), ("rate_limit_exceeded", FailureKind::RateLimit)]
    {
        let fault = Fault::Error { error_type: word.to_owned(), message: "no more".to_owned() };
        let fake =
            FakeProvider::start(Script::default().rule(Rule { fault: Some(fault), ..Rule::default() }));
        let providers = providers(&fake.url());
        for name in ["local", "openai", "responses", "anthropic", "mlx"] {
            let failure = ask(&providers, question(name, "please")).await.unwrap_err();
            assert_eq!(failure.kind, kind, "{name}, {word}: {}", failure.message);
            assert!(failure.message.contains("no more"), "{}", failure.message);
        }
    }
}

#[tokio::test]
async fn a_line_that_never_ends_is_given_up() {
    let fake = FakeProvider::start(Script::default().fault("", Fault::Endless, 2));
    let providers = providers(&fake.url());
    for name in ["local", "ollama"] {
        let failure = ask(&providers, question(name, "please")).await.unwrap_err();
        assert_eq!(failure.kind, FailureKind::Validation, "{name}: {}", failure.message);
    }
}

#[tokio::test]
async fn a_refusal_tells_when_to_come_back() {
    let told =
        Fault::Status { status: 429, retry_after: Some("7".into()), headers: BTreeMap::new(), body: None };
    let fake = FakeProvider::start(Script::default().fault("", told, 1));
    let failure = ask(&providers(&fake.url()), question("openai", "please")).await.unwrap_err();
    assert_eq!((failure.kind, failure.retry_after), (FailureKind::RateLimit, Some(Duration::from_secs(7))));
}

#[tokio::test]
async fn a_model_that_is_not_there_is_told_with_those_that_are() {
    let script = Script { models: vec!["small".into(), "large".into()], ..Script::default() };
    let fake = FakeProvider::start(script.fault("", status(404), 9));
    let providers = providers(&fake.url());
    for name in ["local", "ollama", "anthropic"] {
        let failure = ask(&providers, question(name, "please")).await.unwrap_err();
        assert_eq!(failure.kind, FailureKind::Validation);
        assert!(failure.message.contains("small, large"), "{}", failure.message);
    }
}

#[tokio::test]
async fn an_allowance_that_is_used_up_holds_the_next_request_back() {
    let headers = BTreeMap::from([
        ("x-ratelimit-remaining-requests".to_owned(), "0".to_owned()),
        ("x-ratelimit-reset-requests".to_owned(), "400ms".to_owned()),
    ]);
    let rule = Rule { headers, times: Some(1), ..Rule::default() };
    let fake = FakeProvider::start(Script::default().rule(rule));
    let providers = providers(&fake.url());
    for _ in 0..3 {
        ask(&providers, question("openai", "please")).await.unwrap();
    }
    let came: Vec<u64> = fake.requests().iter().map(|request| request.at_ms).collect();
    assert!(came[1] - came[0] >= 390, "the second waited: {came:?}");
}

#[tokio::test]
async fn whoever_stops_waiting_closes_the_connection() {
    for fault in [Fault::Hang, Fault::Stall, Fault::Slow { piece_ms: 60_000 }] {
        let fake = FakeProvider::start(Script::default().fault("", fault.clone(), 1));
        let providers = providers(&fake.url());
        let asked =
            tokio::time::timeout(Duration::from_millis(200), ask(&providers, question("local", "please")));
        assert!(asked.await.is_err(), "{fault:?} does not end by itself");
        let begin = Instant::now();
        wait_for_async("the provider to notice", SOON, || async { fake.stats().cancelled == 1 }).await;
        assert!(begin.elapsed() < Duration::from_secs(5), "{fault:?}");
        assert_eq!(fake.stats().in_flight, 0);
    }
}

#[tokio::test]
async fn a_provider_that_fails_again_and_again_is_left_alone_for_a_while() {
    let fake = FakeProvider::start(Script::default().fault("", status(503), 100));
    let providers = providers(&fake.url());
    for _ in 0..5 {
        let failure = ask(&providers, question("openai", "please")).await.unwrap_err();
        assert_eq!(failure.kind, FailureKind::Overloaded);
    }
    let failure = ask(&providers, question("openai", "please")).await.unwrap_err();
    assert_eq!(failure.kind, FailureKind::CircuitOpen, "{}", failure.message);
    assert!(failure.message.contains("; what failed last: overloaded: "), "{}", failure.message);
    let wait = failure.retry_after.unwrap();
    assert!(wait > Duration::from_secs(1) && wait <= Duration::from_secs(10), "{wait:?}");
    assert_eq!(fake.stats().requests, 5, "the last one was not sent");
    ask(&providers, question("mlx", "please")).await.unwrap_err();
    assert_eq!(fake.stats().requests, 6, "each provider has a circuit of its own");
}

#[tokio::test]
async fn a_server_that_will_not_enforce_a_schema_is_told_it_in_words_from_then_on() {
    let refuses = Rule {
        fault: Some(status(400)),
        path: Some("/v1/chat/completions".into()),
        times: Some(1),
        ..Rule::default()
    };
    let fake = FakeProvider::start(Script::default().rule(refuses).answer("", "{\"n\":1}"));
    let providers = providers(&fake.url());
    for requests in [2, 3] {
        let mut request = question("mlx", "how many?");
        request.schema = Some(Arc::new(json!({"type": "object"})));
        assert_eq!(ask(&providers, request).await.unwrap().text, "{\"n\":1}");
        assert_eq!(fake.stats().requests, requests, "only the first time costs a refusal");
        let body = last_body(&fake);
        assert_eq!(body.get("response_format"), None);
        let system = body["messages"][0]["content"].as_str().unwrap();
        assert!(system.starts_with("Be brief.") && system.contains("{\"type\":\"object\"}"), "{system}");
    }
}

#[tokio::test]
async fn a_daemon_that_has_been_restarted_is_found_again() {
    let script = |key: &str| Script { key: Some(key.to_owned()), ..Script::default() };
    let (first, second) = (FakeProvider::start(script("one")), FakeProvider::start(script("two")));
    let (old, new) = (first.url(), second.url());
    let asked = Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let count = Arc::clone(&asked);
    let local = ProviderSetting::local(move || {
        let (url, key) = match count.fetch_add(1, std::sync::atomic::Ordering::Relaxed) {
            0 => (old.clone(), "one"),
            1 => (old.clone(), "three"),
            _ => (new.clone(), "two"),
        };
        Some(Access { base_url: url, token: Token::new(key) })
    });
    let providers = Providers::new(vec![local]);
    ask(&providers, question("local", "first")).await.unwrap();
    first.set_script(script("three"));
    ask(&providers, question("local", "another token")).await.unwrap();
    drop(first);
    ask(&providers, question("local", "another address")).await.unwrap();
    assert_eq!(asked.load(std::sync::atomic::Ordering::Relaxed), 3);
    assert_eq!(second.stats().completed, 1);
}

#[tokio::test]
async fn without_a_daemon_the_message_says_how_to_start_one() {
    let providers = Providers::new(vec![ProviderSetting::local(|| None)]);
    for failure in [
        providers.facts("local", None).await.unwrap_err(),
        ask(&providers, question("local", "please")).await.unwrap_err(),
    ] {
        assert_eq!(failure.kind, FailureKind::Connect);
        assert!(failure.message.contains("llama-orch daemon start"), "{}", failure.message);
    }
    let failure = ask(&providers, question("nobody", "please")).await.unwrap_err();
    assert_eq!(failure.kind, FailureKind::Validation);
    assert!(failure.message.contains("local"), "{}", failure.message);
}

#[tokio::test]
async fn no_secret_is_in_any_message() {
    let echo = Fault::Status {
        status: 401,
        retry_after: None,
        headers: BTreeMap::new(),
        body: Some(json!({"error": {"message": format!("Incorrect API key provided: {KEY}"), "type": "x"}})),
    };
    let stream = Fault::Error { error_type: "api_error".into(), message: format!("the key was {KEY}") };
    for fault in [echo, stream] {
        let fake =
            FakeProvider::start(Script::default().rule(Rule { fault: Some(fault), ..Rule::default() }));
        let providers = providers(&fake.url());
        for name in ALL {
            let failure = ask(&providers, question(name, "please")).await.unwrap_err();
            assert!(!format!("{failure:?} {failure}").contains("very-secret"), "{name}: {failure}");
        }
    }
    let setting = ProviderSetting::new("x", ProviderKind::OpenAi, "http://u:very-secret@h/", Token::new(KEY));
    let access = Access { base_url: String::new(), token: Token::new(KEY) };
    assert!(!format!("{setting:?} {access:?}").contains("very-secret"));
}
