//! Services that steps ask over HTTP.

use std::collections::BTreeMap;
use std::time::Duration;

use llm_providers::{Reach, Services};
use testkit::provider::{FakeProvider, Fault, Rule, Script};
use testkit::{free_port, wait_for_async};
use workflow::{AskService as _, CallFailure, ServiceAnswer, ServiceRequest};
use workflow_spec::FailureKind;

fn get(url: &str) -> ServiceRequest {
    ServiceRequest {
        method: "GET".to_owned(),
        url: url.to_owned(),
        headers: Vec::new(),
        body: None,
        answer_limit: 10_000,
    }
}

async fn asked(request: ServiceRequest) -> Result<ServiceAnswer, CallFailure> {
    Services::new(Reach::Everywhere).ask(request).await
}

#[tokio::test]
async fn method_headers_and_body_arrive_and_the_answer_comes_back() {
    let fake = FakeProvider::start(Script::default());
    let request = ServiceRequest {
        method: "PUT".to_owned(),
        headers: vec![("X-Colour".to_owned(), "grün".to_owned()), ("x-colour".to_owned(), "two".to_owned())],
        body: Some("{\"a\":1}".to_owned()),
        ..get(&format!("{}/thing?x=1", fake.url()))
    };
    let answer = asked(request).await.unwrap();
    let seen: serde_json::Value = serde_json::from_str(&answer.body).unwrap();
    assert_eq!((answer.status, &seen["method"], &seen["path"]), (200, &"PUT".into(), &"/thing?x=1".into()));
    assert_eq!(seen["body"]["a"], 1);
    assert!(fake.requests()[0].headers.contains_key("x-colour"));
}

#[tokio::test]
async fn any_status_is_an_answer_and_redirects_are_not_followed() {
    let fake = FakeProvider::start(Script::default());
    let target = format!("{}/secret", fake.url());
    for (status, retry_after) in [(302, None), (404, None), (503, Some("3"))] {
        let headers = BTreeMap::from([("location".to_owned(), target.clone())]);
        let retry_after = retry_after.map(str::to_owned);
        let waits = retry_after.is_some();
        let fault = Fault::Status { status, retry_after, headers, body: None };
        fake.set_script(Script::default().fault("", fault, 1));
        let answer = asked(get(&fake.url())).await.unwrap();
        assert_eq!(answer.status, status);
        assert_eq!(answer.retry_after, waits.then_some(Duration::from_secs(3)));
    }
    assert!(fake.requests().iter().all(|request| request.path == "/"));
}

#[tokio::test]
async fn what_is_no_request_is_never_sent() {
    for (url, part) in [
        ("not a url", "is no URL"),
        ("ftp://host/x", "http or https"),
        ("file:///etc/passwd", "http or https"),
        ("http://", "is no URL"),
    ] {
        let failure = asked(get(url)).await.unwrap_err();
        assert_eq!(failure.kind, FailureKind::Validation, "{url}: {failure}");
        assert!(failure.message.contains(part), "{url}: {failure}");
    }
    let bad = ServiceRequest { method: "GE T".to_owned(), ..get("http://127.0.0.1:1/") };
    assert_eq!(asked(bad).await.unwrap_err().kind, FailureKind::Validation);
    let headers = vec![("bad name".to_owned(), "x".to_owned())];
    let bad = ServiceRequest { headers, ..get("http://127.0.0.1:1/") };
    assert_eq!(asked(bad).await.unwrap_err().kind, FailureKind::Validation);
}

#[tokio::test]
async fn a_longer_answer_than_is_taken_fails() {
    let fake = FakeProvider::start(Script::default().answer("", &"x".repeat(10_001)));
    let failure = asked(get(&fake.url())).await.unwrap_err();
    assert_eq!(failure.kind, FailureKind::Tool);
    assert!(failure.message.contains("10000 bytes"), "{failure}");
}

#[tokio::test]
async fn connections_that_fail_or_break_are_told_apart_from_answers() {
    let nobody = format!("http://127.0.0.1:{}/", free_port());
    assert_eq!(asked(get(&nobody)).await.unwrap_err().kind, FailureKind::Connect);
    let fake = FakeProvider::start(Script::default().fault("", Fault::Refuse, 1));
    assert_eq!(asked(get(&fake.url())).await.unwrap_err().kind, FailureKind::Connect);
}

#[tokio::test]
async fn whoever_stops_waiting_closes_the_connection() {
    let fake =
        FakeProvider::start(Script::default().rule(Rule { fault: Some(Fault::Hang), ..Rule::default() }));
    let waited = tokio::time::timeout(Duration::from_millis(200), asked(get(&fake.url()))).await;
    assert!(waited.is_err());
    wait_for_async("the service to notice", Duration::from_secs(5), || async { fake.stats().cancelled == 1 })
        .await;
}

#[tokio::test]
async fn private_addresses_are_out_of_reach_by_number_and_by_name() {
    let fake = FakeProvider::start(Script::default());
    let guarded = Services::new(Reach::PublicOnly);
    let port = fake.port();
    for host in [
        "127.0.0.1",
        "localhost",
        "[::1]",
        "[::ffff:127.0.0.1]",
        "0.0.0.0",
        "2130706433",
        "0x7f.1",
        "10.0.0.1",
    ] {
        let failure = guarded.ask(get(&format!("http://{host}:{port}/"))).await.unwrap_err();
        assert_eq!(failure.kind, FailureKind::Validation, "{host}: {failure}");
        assert!(failure.message.contains("not a public address"), "{host}: {failure}");
    }
    assert_eq!(fake.stats().connections, 0);
}
