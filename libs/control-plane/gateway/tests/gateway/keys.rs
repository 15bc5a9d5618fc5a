//! What a key may ask for and use, and what it is told about that.

use std::sync::{Arc, Mutex};

use bytes::Bytes;
use gateway::{Caller, CallerFacts, GatewayBody, KeyLimits, Ledger, Quota};
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use serde_json::Value;

use crate::support::{
    Engine, Front, LIMIT, Then, chat, events_without_end, instance, replica, silence, whole,
};

const CHAT: &str = r#"{"model":"chat","messages":[{"role":"user","content":"hi"}],"max_tokens":10}"#;
const PATH: &str = "/v1/chat/completions";
const COUNTED: &str = r#"{"usage":{"prompt_tokens":30,"completion_tokens":20}}"#;

/// Remembers what was used.
#[derive(Default)]
struct Book(Mutex<Vec<(String, u64)>>);

impl Ledger for Book {
    fn used(&self, key: &str, tokens: u64) {
        self.0.lock().unwrap().push((key.to_owned(), tokens));
    }
}

impl Book {
    fn entries(&self) -> Vec<(String, u64)> {
        self.0.lock().unwrap().clone()
    }
}

fn caller(limits: KeyLimits, models: Option<Vec<String>>) -> (Caller, Arc<Book>) {
    let book = Arc::new(Book::default());
    let quota = Some(Arc::new(Quota::new("key-1".into(), limits, 0, book.clone())));
    (
        Caller::new(CallerFacts {
            id: "key-1".to_owned(),
            name: None,
            models,
            ceiling: None,
            quota,
            operator: false,
        }),
        book,
    )
}

/// Asks as the door does: with the caller in the request's extensions.
async fn ask(front: &Front, caller: &Caller, method: &str, path: &str, body: &str) -> Response<GatewayBody> {
    let mut request = Request::builder().method(method).uri(path).header("content-type", "application/json");
    request.extensions_mut().unwrap().insert(caller.clone());
    front.gateway.handle(request.body(Full::new(Bytes::from(body.to_owned()))).unwrap()).await
}

/// Asks and reads the answer to its end.
async fn answer(front: &Front, caller: &Caller, body: &str) -> (u16, http::HeaderMap, Value) {
    let (head, body) = ask(front, caller, "POST", PATH, body).await.into_parts();
    // Nothing is left to judge of an answer that breaks off.
    let bytes = body.collect().await.map(http_body_util::Collected::to_bytes).unwrap_or_default();
    (head.status.as_u16(), head.headers, serde_json::from_slice(&bytes).unwrap_or(Value::Null))
}

fn number(headers: &http::HeaderMap, name: &str) -> u64 {
    headers[name].to_str().unwrap().parse().unwrap()
}

#[tokio::test]
async fn a_key_sees_and_gets_the_models_that_it_may_ask_for_and_no_others() {
    let engine = Engine::start(|_| whole(COUNTED));
    let mut instances = chat(&[engine.address]);
    instances[0].aliases = vec!["gpt".to_owned()];
    instances.push(instance("other", vec![replica("other", 0, engine.address)]));
    let front = Front::start(instances).await;
    let (caller, _) = caller(KeyLimits::default(), Some(vec!["chat".to_owned()]));

    let list = ask(&front, &caller, "GET", "/v1/models", "").await;
    let list: Value = serde_json::from_slice(&list.into_body().collect().await.unwrap().to_bytes()).unwrap();
    let ids: Vec<_> = list["data"].as_array().unwrap().iter().map(|model| &model["id"]).collect();
    assert_eq!(ids, ["chat", "gpt"]);
    assert_eq!(ask(&front, &caller, "GET", "/v1/models/other", "").await.status(), 404);
    assert_eq!(ask(&front, &caller, "GET", "/v1/models/gpt", "").await.status(), 200);

    assert_eq!(answer(&front, &caller, CHAT).await.0, 200);
    assert_eq!(answer(&front, &caller, &CHAT.replace("chat\"", "gpt\"")).await.0, 200);
    let (status, headers, refusal) = answer(&front, &caller, &CHAT.replace("chat\"", "other\"")).await;
    assert_eq!((status, &refusal["error"]["type"]), (403, &"permission_error".into()), "{refusal}");
    assert_eq!(headers["x-should-retry"], "false");
    assert_eq!(ask(&front, &caller, "GET", "/props?model=other", "").await.status(), 403);
    assert_eq!(answer(&front, &caller, &CHAT.replace("chat\"", "nobody\"")).await.0, 404);
    assert_eq!(engine.seen().len(), 2);
}

#[tokio::test]
async fn requests_beyond_those_of_the_minute_are_told_when_their_turn_comes() {
    let engine = Engine::start(|_| whole(COUNTED));
    let front = Front::start(chat(&[engine.address])).await;
    let (caller, _) = caller(KeyLimits { rpm: Some(2), ..KeyLimits::default() }, None);
    let (status, headers, _) = answer(&front, &caller, CHAT).await;
    assert_eq!((status, number(&headers, "x-ratelimit-limit-requests")), (200, 2));
    assert_eq!(number(&headers, "x-ratelimit-remaining-requests"), 1);
    assert!(!headers.contains_key("x-ratelimit-limit-tokens"), "{headers:?}");
    assert_eq!(answer(&front, &caller, CHAT).await.0, 200);
    let (status, headers, refusal) = answer(&front, &caller, CHAT).await;
    assert_eq!((status, &refusal["error"]["type"]), (429, &"rate_limit_error".into()), "{refusal}");
    assert_eq!(number(&headers, "x-ratelimit-remaining-requests"), 0);
    assert!((20..=30).contains(&number(&headers, "retry-after")), "{headers:?}");
    assert_eq!(headers.get("x-should-retry"), None);
    assert_eq!(engine.seen().len(), 2);
}

#[tokio::test]
async fn tokens_are_reserved_before_and_corrected_by_what_was_used() {
    let engine = Engine::start(|seen| {
        let many = String::from_utf8_lossy(&seen.body).contains("many");
        whole(if many { r#"{"usage":{"prompt_tokens":5000,"completion_tokens":1}}"# } else { COUNTED })
    });
    let front = Front::start(chat(&[engine.address])).await;
    let (caller, book) = caller(KeyLimits { tpm: Some(1000), ..KeyLimits::default() }, None);
    let (status, headers, _) = answer(&front, &caller, &CHAT.replace("10}", "900}")).await;
    assert_eq!((status, number(&headers, "x-ratelimit-limit-tokens")), (200, 1000));
    assert!(number(&headers, "x-ratelimit-remaining-tokens") < 100, "{headers:?}");

    // 50 of the 900 were used; the rest is there for the next one, which uses more than the minute has.
    let (status, headers, _) = answer(&front, &caller, &CHAT.replace("hi", "many")).await;
    assert_eq!(status, 200);
    let left = number(&headers, "x-ratelimit-remaining-tokens");
    assert!((900..960).contains(&left), "{left}");
    let (status, headers, _) = answer(&front, &caller, CHAT).await;
    assert_eq!((status, number(&headers, "x-ratelimit-remaining-tokens")), (429, 0));
    assert!(number(&headers, "retry-after") > 200, "4000 tokens are owed: {headers:?}");
    assert_eq!(book.entries(), [("key-1".to_owned(), 50), ("key-1".to_owned(), 5001)]);
}

#[tokio::test]
async fn a_place_is_taken_while_a_request_runs_and_free_when_its_client_leaves() {
    let engine = Engine::start(|seen| {
        if String::from_utf8_lossy(&seen.body).contains("silence") { silence() } else { whole(COUNTED) }
    });
    let front = Front::start(chat(&[engine.address])).await;
    let (caller, book) = caller(KeyLimits { concurrency: Some(1), ..KeyLimits::default() }, None);
    let silent = CHAT.replace("hi", "silence");
    let while_it_runs = async {
        testkit::wait_for_async("the first to run", LIMIT, || async { engine.seen().len() == 1 }).await;
        let (status, headers, _) = answer(&front, &caller, CHAT).await;
        assert_eq!((status, number(&headers, "retry-after")), (429, 1));
    };
    tokio::select! {
        _ = ask(&front, &caller, "POST", PATH, &silent) => panic!("silence is no answer"),
        () = while_it_runs => {}
    }

    let quota = caller.quota.clone().unwrap();
    testkit::wait_for_async("the place to be free", LIMIT, || async { quota.running() == 0 }).await;
    assert_eq!(answer(&front, &caller, CHAT).await.0, 200);
    // The one that was left behind has used its prompt.
    let charged = silent.len().div_ceil(4) as u64;
    assert_eq!(book.entries(), [("key-1".to_owned(), charged), ("key-1".to_owned(), 50)]);
}

#[tokio::test]
async fn a_budget_that_is_used_up_is_final_and_refusals_cost_nothing() {
    let engine = Engine::start(|seen| {
        let body = String::from_utf8_lossy(&seen.body).into_owned();
        let cut = [
            "data: {}

",
            "data: {}

",
        ];
        if body.contains("cut") { events_without_end(&cut, Then::Close) } else { whole(COUNTED) }
    });
    let mut instances = chat(&[engine.address]);
    instances.push(instance("stopped", Vec::new()));
    let front = Front::start(instances).await;
    let (caller, book) = caller(KeyLimits { budget: Some(100), ..KeyLimits::default() }, None);
    assert_eq!(answer(&front, &caller, &CHAT.replace("chat\"", "stopped\"")).await.0, 503);
    assert_eq!(book.entries(), []);

    assert_eq!(answer(&front, &caller, CHAT).await.0, 200);
    // One that breaks off is charged for its prompt and what came.
    let cut = CHAT.replace("hi", &"cut".repeat(50));
    assert_eq!(answer(&front, &caller, &cut).await.0, 200);
    let entries = book.entries();
    assert_eq!((entries.len(), entries[0].1), (2, 50));
    assert!(entries[1].1 > cut.len() as u64 / 4, "{entries:?}");

    let (status, headers, refusal) = answer(&front, &caller, CHAT).await;
    assert_eq!((status, &refusal["error"]["type"]), (429, &"insufficient_quota".into()), "{refusal}");
    assert_eq!((headers.get("retry-after"), &headers["x-should-retry"]), (None, &"false".parse().unwrap()));
    assert_eq!(caller.quota.as_ref().unwrap().spent(), entries.iter().map(|(_, tokens)| tokens).sum::<u64>());
    assert_eq!(engine.seen().len(), 2);
}
