//! Clients that speak something else than the engine, and errors in everybody's own words.

use gateway::Outcome;
use serde_json::{Value, json};

use crate::support::{
    Engine, Front, Reply, Script, Then, answer_with, chat, events, events_without_end, instance, key,
    replica, wait_idle, whole,
};

const DELTA: &str = "data: {\"choices\":[{\"delta\":{\"content\":\"h\u{f6}\"},\"finish_reason\":null}]}\n\n";
const END: &str = "data: {\"choices\":[{\"delta\":{},\"finish_reason\":\"stop\"}],\
                   \"timings\":{\"prompt_n\":3,\"prompt_ms\":1.0,\"predicted_n\":1,\"predicted_ms\":2.0}}\n\n";
const DONE: &str = "data: [DONE]\n\n";

fn question() -> Value {
    json!({"model": "chat", "messages": [{"role": "user", "content": "hi"}]})
}

async fn ask(front: &Front, path: &str, body: &Value) -> Reply {
    front.post(path, &body.to_string()).await
}

fn lines(reply: &Reply) -> Vec<Value> {
    reply.text().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[tokio::test]
async fn an_ollama_chat_is_asked_and_answered_in_translation_however_the_bytes_are_cut() {
    let engine = Engine::start(|_| {
        let mut script = events(&[DELTA, END, DONE]);
        let all = script.pieces.concat();
        script.pieces = all.chunks(3).map(<[u8]>::to_vec).collect();
        script
    });
    let front = Front::start(chat(&[engine.address])).await;
    let reply = ask(&front, "/api/chat", &question()).await;
    assert_eq!((reply.status, reply.complete), (200, true));
    assert_eq!(reply.header("content-type"), Some("application/x-ndjson"));
    assert_eq!(reply.header("x-llama-orch-instance"), Some("chat"));
    let lines = lines(&reply);
    assert_eq!(lines[0]["message"]["content"], "h\u{f6}");
    assert_eq!((&lines[1]["done"], &lines[1]["done_reason"]), (&json!(true), &json!("stop")));
    assert_eq!((&lines[1]["prompt_eval_count"], &lines[1]["eval_duration"]), (&json!(3), &json!(2_000_000)));

    let seen = &engine.seen()[0];
    assert_eq!(seen.line, "POST /v1/chat/completions HTTP/1.1");
    let body: Value = serde_json::from_slice(&seen.body).unwrap();
    assert_eq!((&body["messages"], &body["stream"]), (&question()["messages"], &json!(true)));
    let record = &front.records()[0];
    assert_eq!(
        (record.endpoint.as_str(), record.streamed, record.outcome),
        ("/api/chat", true, Outcome::Done)
    );
    assert_eq!((record.usage.prompt_tokens, record.first_token.is_some()), (Some(3), true));
    wait_idle(&front, &key("chat", 0)).await;
}

#[tokio::test]
async fn an_answer_in_one_piece_has_a_length_and_a_tag_that_nobody_knows_is_no_obstacle() {
    let engine = Engine::start(|_| {
        whole("{\"choices\":[{\"message\":{\"content\":\"yes\"},\"finish_reason\":\"length\"}]}")
    });
    let front = Front::start(chat(&[engine.address])).await;
    let body = json!({"model": "chat:latest", "prompt": "?", "stream": false});
    let reply = ask(&front, "/api/generate", &body).await;
    assert_eq!((reply.status, reply.header("content-type")), (200, Some("application/json")));
    assert_eq!(reply.header("content-length"), Some(reply.body.len().to_string().as_str()));
    let answer = reply.json();
    assert_eq!((&answer["model"], &answer["response"]), (&json!("chat"), &json!("yes")));
    assert_eq!((&answer["done"], &answer["done_reason"]), (&json!(true), &json!("length")));
}

#[tokio::test]
async fn a_translated_stream_that_goes_wrong_ends_with_one_line_that_says_so() {
    for reason in ["no valid JSON", "too early", "died", "out of luck"] {
        let engine = Engine::start(move |_| match reason {
            "no valid JSON" => events(&[DELTA, "data: {\"choices\n\n", DONE]),
            "too early" => events(&[DELTA]),
            "died" => events_without_end(&[DELTA], Then::Close),
            _ => events(&[DELTA, "data: {\"error\":{\"message\":\"out of luck\"}}\n\n"]),
        });
        let front = Front::start(chat(&[engine.address])).await;
        let reply = ask(&front, "/api/chat", &question()).await;
        assert_eq!((reply.status, reply.complete), (200, false), "{reason}");
        let lines = lines(&reply);
        assert_eq!(lines.len(), 2, "{lines:?}");
        assert!(lines[1]["error"].as_str().is_some_and(|error| error.contains(reason)), "{lines:?}");
        wait_idle(&front, &key("chat", 0)).await;
        let outcomes: Vec<Outcome> = front.records().iter().map(|record| record.outcome).collect();
        assert_eq!(outcomes, [Outcome::Broken], "{reason}");
    }
}

#[tokio::test]
async fn what_is_not_streamed_and_goes_wrong_is_an_error_from_its_first_byte_on() {
    let no_json: fn() -> Script = || whole("<html>");
    let cut: fn() -> Script = || {
        let mut script = whole("{\"choices\":[");
        script.pieces[1].truncate(3);
        script.then = Then::Close;
        script
    };
    for script in [no_json, cut] {
        let engine = Engine::start(move |_| script());
        let front = Front::start(chat(&[engine.address])).await;
        let reply = ask(&front, "/api/generate", &json!({"prompt": "?", "stream": false})).await;
        assert_eq!((reply.status, reply.complete), (502, true));
        assert!(reply.json()["error"].is_string());
        wait_idle(&front, &key("chat", 0)).await;
        assert_eq!(front.records().len(), 1);
    }
}

#[tokio::test]
async fn an_error_of_the_engine_is_told_in_ollamas_words() {
    let body = r#"{"error":{"code":400,"message":"request (9 tokens) exceeds the available context size (4 tokens)",
                   "type":"exceed_context_size_error","n_prompt_tokens":9,"n_ctx":4}}"#;
    let engine = Engine::start(move |_| answer_with("400 Bad Request", "application/json", body));
    let front = Front::start(chat(&[engine.address])).await;
    let reply = ask(&front, "/api/chat", &question()).await;
    assert_eq!((reply.status, reply.header("x-should-retry")), (400, Some("false")));
    assert_eq!(reply.header("x-llama-orch-instance"), Some("chat"));
    let expected = json!({"error": "request (9 tokens) exceeds the available context size (4 tokens)"});
    assert_eq!(reply.json(), expected);
}

#[tokio::test]
async fn a_bad_request_is_refused_before_any_engine_sees_it() {
    let engine = Engine::start(|_| whole("{}"));
    let front = Front::start(chat(&[engine.address])).await;
    for body in [json!({"messages": "x"}), json!([]), json!({"prompt": "x", "template": "y"})] {
        let path = if body.get("prompt").is_some() { "/api/generate" } else { "/api/chat" };
        let reply = ask(&front, path, &body).await;
        assert_eq!(reply.status, 400, "{body}");
        assert!(reply.json()["error"].is_string());
    }
    assert!(engine.seen().is_empty());
    assert_eq!(front.records().len(), 3, "each with its one outcome");
}

#[tokio::test]
async fn a_model_that_nobody_knows_is_told_in_the_words_of_each_dialect() {
    let front = Front::start(chat(&[])).await;
    for path in [
        "/v1/chat/completions",
        "/v1/completions",
        "/v1/embeddings",
        "/v1/responses",
        "/v1/rerank",
        "/v1/messages",
        "/v1/messages/count_tokens",
        "/api/chat",
        "/api/generate",
        "/api/embed",
        "/api/show",
        "/infill",
        "/completion",
        "/tokenize",
        "/apply-template",
    ] {
        let body = json!({"model": "nobody", "messages": [{"role": "user", "content": "x"}], "prompt": "x", "input": "x"});
        let reply = ask(&front, path, &body).await;
        assert_eq!(reply.status, 404, "{path}");
        let error = reply.json();
        let kind = if path.starts_with("/v1/messages") {
            assert_eq!(error["type"], "error", "{path}");
            &error["error"]["type"]
        } else if path.starts_with("/api") {
            assert!(error["error"].as_str().is_some_and(|error| error.contains("nobody")), "{path}: {error}");
            continue;
        } else {
            &error["error"]["type"]
        };
        assert_eq!(kind, "not_found_error", "{path}");
    }
}

#[tokio::test]
async fn ollamas_questions_about_models_are_answered_from_the_routing_table() {
    let engine = Engine::start(|_| whole("{}"));
    let mut shown = instance("chat", vec![replica("chat", 0, engine.address)]);
    shown.aliases = vec!["gpt".to_owned()];
    let front = Front::start(vec![shown, instance("down", Vec::new())]).await;
    let tags = front.get("/api/tags").await.json();
    let names: Vec<&Value> = tags["models"].as_array().unwrap().iter().map(|model| &model["name"]).collect();
    assert_eq!(names, ["chat", "gpt"]);
    let modified_at = "2023-11-14T22:13:20.000Z";
    let expected =
        json!({"name": "chat", "model": "chat", "modified_at": modified_at, "details": {"format": "gguf"}});
    assert_eq!(tags["models"][0], expected, "nothing is invented");
    let loaded = front.get("/api/ps").await.json();
    assert_eq!(loaded["models"][1]["context_length"], 4096);
    assert!(front.get("/api/version").await.json()["version"].is_string());
    let show = ask(&front, "/api/show", &json!({"model": "gpt:latest"})).await.json();
    assert_eq!((&show["parameters"], &show["details"]["format"]), (&json!("num_ctx 4096"), &json!("gguf")));
    assert_eq!(show["model_info"], json!({}), "the official client insists on it");
    assert_eq!(ask(&front, "/api/show", &json!({})).await.status, 400);
    assert!(engine.seen().is_empty(), "no engine was asked");
}

#[tokio::test]
async fn an_upload_passes_byte_for_byte_and_counting_takes_no_slot() {
    let engine = Engine::start(|_| whole("{\"text\":\"x\"}"));
    let front = Front::start(chat(&[engine.address])).await;
    let upload = "--b\r\nContent-Disposition: form-data; name=\"model\"\r\n\r\nchat\r\n--b\r\n\
                  Content-Disposition: form-data; name=\"file\"; filename=\"a.wav\"\r\n\r\nRIFF\u{1}\u{0}\r\n--b--\r\n";
    let media_type = "content-type: multipart/form-data; boundary=b\r\n";
    let reply = front.post_with("/v1/audio/transcriptions", media_type, upload).await;
    assert_eq!((reply.status, reply.text().as_str()), (200, "{\"text\":\"x\"}"));
    let seen = &engine.seen()[0];
    assert_eq!(
        (seen.body.as_slice(), seen.header("content-type")),
        (upload.as_bytes(), Some("multipart/form-data; boundary=b"))
    );
    for path in
        ["/v1/messages/count_tokens", "/v1/responses/input_tokens", "/detokenize", "/upstream/chat/anything"]
    {
        assert_eq!(ask(&front, path, &json!({"model": "chat"})).await.status, 200, "{path}");
    }
    let started = front.metric("tasks_started_total").await.unwrap_or_default();
    assert!(started.ends_with(" 1"), "only the upload took a slot: {started}");
}

#[tokio::test]
async fn streams_that_announce_their_end_otherwise_are_not_taken_for_whole_when_they_are_cut() {
    let cut = "event: response.output_text.delta\ndata: {\"type\":\"response.output_text.delta\",\"delta\":\"a\"}\n\n";
    let whole = "event: response.completed\ndata: {\"type\":\"response.completed\",\"response\":{}}\n\n";
    let native = "data: {\"content\":\"a\",\"stop\":false}\n\n";
    for (path, stream, error) in [
        (
            "/v1/responses",
            vec![cut],
            Some("event: error\ndata: {\"type\":\"error\",\"code\":\"WORKER_RESET\""),
        ),
        ("/v1/responses", vec![cut, whole], None),
        ("/completion", vec![native], Some("data: {\"error\":{\"code\":502")),
        ("/infill", vec![native, "data: {\"content\":\"\",\"stop\":true}\n\n"], None),
    ] {
        let sent = stream.clone();
        let engine = Engine::start(move |_| events(&sent));
        let front = Front::start(chat(&[engine.address])).await;
        let reply = ask(&front, path, &json!({"model": "chat", "stream": true})).await;
        let text = reply.text();
        assert!(text.starts_with(&stream.concat()), "{path}: {text}");
        assert_eq!(reply.complete, error.is_none(), "{path}");
        assert!(text.contains(error.unwrap_or_default()), "{path}: {text}");
    }
}
