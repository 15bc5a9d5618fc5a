//! Ollama's requests and answers, each beside what the engine is asked and says.

use std::time::Duration;

use orch_core::{ErrorCode, UnixMillis};
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::Problem;

fn about() -> About {
    About {
        request_id: "req-1".to_owned(),
        model: "tiny".to_owned(),
        began: UnixMillis(1_700_000_000_123),
        waited: Duration::from_millis(2),
    }
}

fn translated(path: &str, body: &Value) -> (Translated, Value) {
    let translated = translate_ollama(path, body.to_string().as_bytes()).unwrap();
    let body = serde_json::from_slice(&translated.body).unwrap();
    (translated, body)
}

fn refused(path: &str, body: &Value) -> Problem {
    translate_ollama(path, body.to_string().as_bytes()).unwrap_err()
}

/// Everything that reaches the client, and how it ended.
fn answered(plan: AnswerPlan, chunks: &[&[u8]]) -> (String, Option<AnswerFault>) {
    let mut translator = plan.begin(about());
    let mut text = Vec::new();
    let pieces = chunks.iter().map(|chunk| translator.push(chunk)).collect::<Vec<_>>();
    for piece in pieces.into_iter().chain([translator.finish()]) {
        text.extend_from_slice(&piece.bytes);
        if piece.fault.is_some() {
            return (String::from_utf8(text).unwrap(), piece.fault);
        }
    }
    (String::from_utf8(text).unwrap(), None)
}

fn lines(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn chat_plan() -> AnswerPlan {
    translated("/api/chat", &json!({"messages": [{"role": "user", "content": "hi"}]})).0.plan
}

fn chunk(delta: &Value, finish: &Value) -> String {
    format!("data: {}\n\n", json!({"choices": [{"index": 0, "delta": delta, "finish_reason": finish}]}))
}

/// What llama-server sends for a chat with thoughts, two calls of tools and text of more than one byte a letter.
fn stream() -> String {
    let end = json!({
        "choices": [],
        "usage": {"prompt_tokens": 12, "completion_tokens": 7, "prompt_tokens_details": {"cached_tokens": 3}},
        "timings": {"prompt_n": 9, "cache_n": 3, "prompt_ms": 1.5, "predicted_n": 7, "predicted_ms": 20.25},
    });
    [
        ":\n\n".to_owned(),
        chunk(&json!({"role": "assistant", "content": null}), &Value::Null),
        chunk(&json!({"reasoning_content": "hmm"}), &Value::Null),
        chunk(&json!({"content": "Grüße 🦙"}), &Value::Null),
        chunk(&json!({"tool_calls": [{"index": 0, "id": "a", "type": "function", "function": {"name": "add", "arguments": "{\"x\":"}}]}), &Value::Null),
        chunk(&json!({"tool_calls": [{"index": 0, "function": {"arguments": "1}"}}]}), &Value::Null),
        chunk(&json!({"tool_calls": [{"index": 1, "id": "b", "type": "function", "function": {"name": "stop", "arguments": ""}}]}), &Value::Null),
        chunk(&json!({}), &json!("tool_calls")),
        format!("data: {end}\n\n"),
        "data: [DONE]\n\n".to_owned(),
    ]
    .concat()
}

#[test]
fn a_chat_becomes_an_openai_chat_with_all_that_it_asks_for() {
    let schema = json!({"type": "object", "properties": {"a": {"type": "string"}}});
    let (translated, body) = translated(
        "/api/chat",
        &json!({
            "model": "tiny",
            "messages": [
                {"role": "user", "content": "what is it?", "images": ["iVBORw0K"]},
                {"role": "assistant", "content": "", "thinking": "look", "tool_calls": [
                    {"function": {"name": "look", "arguments": {"at": "it"}}},
                    {"function": {"name": "smell", "arguments": {}}},
                ]},
                {"role": "tool", "tool_name": "smell", "content": "sweet"},
                {"role": "tool", "content": "red"},
                {"role": "tool", "content": "of something forgotten"},
            ],
            "tools": [{"type": "function", "function": {"name": "look"}}],
            "format": schema,
            "think": true,
            "keep_alive": "5m",
            "options": {"temperature": 0.5, "top_k": 3, "seed": 7, "num_predict": 9, "num_ctx": 99999,
                        "stop": "END", "repeat_penalty": 1.1, "num_keep": 4, "of_tomorrow": true},
        }),
    );
    assert_eq!(translated.path, "/v1/chat/completions");
    assert!(translated.plan.streams());
    assert_eq!(translated.plan.media_type(), "application/x-ndjson");
    let expected = json!({
        "model": "tiny",
        "messages": [
            {"role": "user", "content": [
                {"type": "text", "text": "what is it?"},
                {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0K"}},
            ]},
            {"role": "assistant", "content": "", "reasoning_content": "look", "tool_calls": [
                {"id": "call_0", "type": "function", "function": {"name": "look", "arguments": "{\"at\":\"it\"}"}},
                {"id": "call_1", "type": "function", "function": {"name": "smell", "arguments": "{}"}},
            ]},
            {"role": "tool", "content": "sweet", "tool_call_id": "call_1"},
            {"role": "tool", "content": "red", "tool_call_id": "call_0"},
            {"role": "tool", "content": "of something forgotten", "tool_call_id": "call_2"},
        ],
        "tools": [{"type": "function", "function": {"name": "look"}}],
        "temperature": 0.5, "top_k": 3, "seed": 7, "repeat_penalty": 1.1, "n_keep": 4, "max_tokens": 9,
        "stop": ["END"],
        "chat_template_kwargs": {"enable_thinking": true},
        "response_format": {"type": "json_schema", "json_schema": {"name": "format", "schema": schema}},
        "stream": true,
        "stream_options": {"include_usage": true},
    });
    assert_eq!(body, expected);
}

#[test]
fn a_question_becomes_a_chat_and_raw_text_stays_text() {
    let (question, body) = translated(
        "/api/generate",
        &json!({"model": "m", "prompt": "why?", "system": "be brief", "stream": false, "options": {"num_predict": -1}}),
    );
    assert_eq!((question.path, question.plan.streams()), ("/v1/chat/completions", false));
    assert_eq!(question.plan.media_type(), "application/json");
    let messages = json!([{"role": "system", "content": "be brief"}, {"role": "user", "content": "why?"}]);
    assert_eq!(body, json!({"model": "m", "messages": messages}));

    let (raw, body) = translated(
        "/api/generate",
        &json!({"prompt": "[INST]", "raw": true, "stream": false, "format": "json", "template": ""}),
    );
    assert_eq!(raw.path, "/v1/completions");
    assert_eq!(body, json!({"prompt": "[INST]", "json_schema": {"type": "object"}}));

    let (hole, body) = translated("/api/generate", &json!({"prompt": "fn ", "suffix": "}", "stream": false}));
    assert_eq!(hole.path, "/infill");
    assert_eq!(body, json!({"input_prefix": "fn ", "input_suffix": "}"}));
}

#[test]
fn what_an_engine_cannot_do_for_one_request_is_refused_by_name() {
    let chat = |field: &str, value: Value| {
        let mut body = json!({"messages": [{"role": "user", "content": "x"}]});
        body[field] = value;
        ("/api/chat", body)
    };
    let generate = |field: &str, value: Value| {
        let mut body = json!({"prompt": "x"});
        body[field] = value;
        ("/api/generate", body)
    };
    for ((path, body), param) in [
        (generate("template", json!("{{ .Prompt }}")), "template"),
        (generate("context", json!([1, 2])), "context"),
        (generate("prompt", json!(3)), "prompt"),
        (generate("stream", json!("no")), "stream"),
        (("/api/generate", json!({"prompt": "x", "raw": true, "system": "y"})), "system"),
        (("/api/generate", json!({"prompt": "x", "suffix": "y", "images": ["z"]})), "images"),
        (("/api/generate", json!({"keep_alive": 0})), "keep_alive"),
        (chat("format", json!("yaml")), "format"),
        (chat("think", json!("a lot")), "think"),
        (chat("options", json!({"temperature": "hot"})), "options"),
        (chat("options", json!({"stop": [1]})), "options"),
        (chat("options", json!([])), "options"),
        (chat("messages", json!("x")), "messages"),
        (chat("messages", json!(["x"])), "messages"),
        (chat("messages", json!([{"content": "x"}])), "messages"),
        (chat("messages", json!([{"role": "user", "images": [1]}])), "images"),
        (chat("messages", json!([{"role": "assistant", "tool_calls": [{}]}])), "tool_calls"),
        (("/api/embed", json!({})), "input"),
    ] {
        let problem = refused(path, &body);
        assert_eq!((problem.code, problem.param), (ErrorCode::InvalidParams, Some(param)), "{body}");
    }
    assert_eq!(translate_ollama("/api/chat", b"{").unwrap_err().code, ErrorCode::InvalidParams);
    assert_eq!(translate_ollama("/api/pull", b"{}").unwrap_err().code, ErrorCode::NotFound);
}

#[test]
fn a_stream_becomes_lines_with_whole_tool_calls_and_a_last_line_of_counts() {
    let (text, fault) = answered(chat_plan(), &[stream().as_bytes()]);
    assert_eq!(fault, None);
    let lines = lines(&text);
    let head = json!({"model": "tiny", "created_at": "2023-11-14T22:13:20.123Z"});
    assert!(
        lines
            .iter()
            .all(|line| (&line["model"], &line["created_at"]) == (&head["model"], &head["created_at"]))
    );
    let messages: Vec<&Value> = lines.iter().map(|line| &line["message"]).collect();
    assert_eq!(messages[0], &json!({"role": "assistant", "content": "", "thinking": "hmm"}));
    assert_eq!(messages[1], &json!({"role": "assistant", "content": "Grüße 🦙"}));
    let calls = json!([
        {"id": "a", "function": {"index": 0, "name": "add", "arguments": {"x": 1}}},
        {"id": "b", "function": {"index": 1, "name": "stop", "arguments": {}}},
    ]);
    assert_eq!(messages[2], &json!({"role": "assistant", "content": "", "tool_calls": calls}));
    let last = json!({
        "model": "tiny", "created_at": "2023-11-14T22:13:20.123Z",
        "message": {"role": "assistant", "content": ""},
        "done": true, "done_reason": "stop",
        "total_duration": 23_750_000, "load_duration": 2_000_000,
        "prompt_eval_duration": 1_500_000, "eval_duration": 20_250_000,
        "prompt_eval_count": 12, "eval_count": 7,
    });
    assert_eq!(lines[3], last);
    assert_eq!(lines.len(), 4);
}

#[test]
fn an_answer_in_one_piece_is_one_object() {
    let (question, _) = translated("/api/generate", &json!({"prompt": "x", "stream": false}));
    let body = json!({
        "choices": [{"message": {"role": "assistant", "content": "yes", "reasoning_content": "t"}, "finish_reason": "length"}],
        "usage": {"prompt_tokens": 1, "completion_tokens": 2},
    });
    let (text, fault) = answered(question.plan, &[body.to_string().as_bytes()]);
    assert_eq!(fault, None);
    let expected = json!({
        "model": "tiny", "created_at": "2023-11-14T22:13:20.123Z", "response": "yes", "thinking": "t",
        "done": true, "done_reason": "length", "load_duration": 2_000_000,
        "prompt_eval_count": 1, "eval_count": 2,
    });
    assert_eq!(serde_json::from_str::<Value>(&text).unwrap(), expected, "what is not known is not told");
}

#[test]
fn completions_and_filled_holes_are_read_too() {
    let (raw, _) = translated("/api/generate", &json!({"prompt": "x", "raw": true}));
    let stream = "data: {\"choices\":[{\"text\":\"a\",\"finish_reason\":null}]}\n\n\
                  data: {\"choices\":[{\"text\":\"\",\"finish_reason\":\"length\"}],\"timings\":{\"prompt_n\":2}}\n\ndata: [DONE]\n\n";
    let (text, fault) = answered(raw.plan, &[stream.as_bytes()]);
    assert_eq!((lines(&text)[0]["response"].as_str(), fault), (Some("a"), None));

    let (hole, _) = translated("/api/generate", &json!({"prompt": "x", "suffix": "y"}));
    let stream = "data: {\"content\":\"b\",\"stop\":false}\n\n\
                  data: {\"content\":\"\",\"stop\":true,\"stop_type\":\"limit\",\"timings\":{\"predicted_n\":1}}\n\n";
    let (text, fault) = answered(hole.plan, &[stream.as_bytes()]);
    let lines = lines(&text);
    assert_eq!((lines[0]["response"].as_str(), fault), (Some("b"), None));
    assert_eq!(
        (lines[1]["done_reason"].as_str(), lines[1]["eval_count"].as_u64()),
        (Some("length"), Some(1))
    );
}

#[test]
fn embeddings_are_told_in_the_order_of_their_inputs() {
    let (request, body) =
        translated("/api/embed", &json!({"model": "m", "input": ["a", "b"], "truncate": true}));
    assert_eq!((request.path, body), ("/v1/embeddings", json!({"model": "m", "input": ["a", "b"]})));
    let body = json!({"data": [{"index": 1, "embedding": [2.0]}, {"index": 0, "embedding": [1.0]}], "usage": {"prompt_tokens": 4}});
    let (text, fault) = answered(request.plan, &[body.to_string().as_bytes()]);
    let expected = json!({"model": "tiny", "embeddings": [[1.0], [2.0]], "load_duration": 2_000_000, "prompt_eval_count": 4});
    assert_eq!((serde_json::from_str::<Value>(&text).unwrap(), fault), (expected, None));
    let (_, fault) = answered(request.plan, &[b"{\"data\": [{}]}"]);
    assert!(matches!(fault, Some(AnswerFault::Malformed(_))));
}

#[test]
fn a_request_without_a_question_only_loads_the_model() {
    for (path, field) in [("/api/chat", "message"), ("/api/generate", "response")] {
        let (request, body) = translated(path, &json!({"model": "m", "keep_alive": "10m"}));
        assert_eq!((request.path, body), ("/tokenize", json!({"model": "m", "content": ""})));
        let (text, fault) = answered(request.plan, &[b"{\"tokens\":[]}"]);
        let answer: Value = serde_json::from_str(&text).unwrap();
        assert_eq!((&answer["done"], &answer["done_reason"], fault), (&json!(true), &json!("load"), None));
        assert!(answer.get(field).is_some(), "{path}");
    }
}

#[test]
fn whatever_is_wrong_with_a_stream_is_one_fault_behind_what_was_good() {
    let good = chunk(&json!({"content": "ok"}), &Value::Null);
    for (bad, expected) in [
        ("data: {\"choices\":[{\"delta\n\n", AnswerFault::Malformed("no valid JSON")),
        ("data: 3\n\n", AnswerFault::Malformed("no JSON object")),
        ("data: {\"x\":1}\n\n", AnswerFault::Malformed("no choices")),
        (
            "data: {\"error\":{\"message\":\"out of luck\"}}\n\n",
            AnswerFault::BrokenOff("out of luck".to_owned()),
        ),
        ("data: [DONE]\n\n", AnswerFault::Incomplete),
        ("", AnswerFault::Incomplete),
        ("data: {\"choices\":[{\"delta\":{\"tool_calls\":[{\"index\":999}]}}]}\n\n", AnswerFault::TooLong),
        (
            "data: {\"choices\":[{\"delta\":{\"tool_calls\":[7]}}]}\n\n",
            AnswerFault::Malformed("a tool call that is none"),
        ),
    ] {
        let mut translator = chat_plan().begin(about());
        let text = format!("{good}{bad}");
        let mut pieces = vec![translator.push(text.as_bytes())];
        if !bad.is_empty() {
            pieces.push(translator.push(stream().as_bytes()));
        }
        pieces.extend([translator.finish(), translator.finish()]);
        assert_eq!(lines(std::str::from_utf8(&pieces[0].bytes).unwrap()).len(), 1, "{bad}");
        let faults: Vec<&AnswerFault> = pieces.iter().filter_map(|piece| piece.fault.as_ref()).collect();
        assert_eq!(faults, [&expected], "{bad}");
        assert!(pieces[1..].iter().all(|piece| piece.bytes.is_empty()), "{bad}: nothing follows");
    }
}

#[test]
fn a_tool_call_cut_off_at_the_limit_is_left_out_and_any_other_half_one_is_a_fault() {
    let half = chunk(
        &json!({"tool_calls": [{"index": 0, "id": "a", "function": {"name": "f", "arguments": "{\"x"}}]}),
        &Value::Null,
    );
    let cut = format!("{half}{}data: [DONE]\n\n", chunk(&json!({}), &json!("length")));
    let (text, fault) = answered(chat_plan(), &[cut.as_bytes()]);
    assert_eq!(
        (lines(&text).len(), lines(&text)[0]["done_reason"].as_str(), fault),
        (1, Some("length"), None)
    );
    let broken = format!("{half}{}data: [DONE]\n\n", chunk(&json!({}), &json!("tool_calls")));
    assert!(matches!(answered(chat_plan(), &[broken.as_bytes()]).1, Some(AnswerFault::Malformed(_))));
}

proptest! {
    #[test]
    fn cuts_do_not_matter(cuts in prop::collection::vec(1_usize..40, 0..60), whole in 0_usize..2) {
        let text = if whole == 1 { stream() } else { stream().replace("tool_calls\"}", "tool_calls\"") };
        let mut chunks = Vec::new();
        let mut rest = text.as_bytes();
        for cut in cuts {
            let (head, tail) = rest.split_at(cut.min(rest.len()));
            chunks.push(head);
            rest = tail;
        }
        chunks.push(rest);
        prop_assert_eq!(answered(chat_plan(), &chunks), answered(chat_plan(), &[text.as_bytes()]));
    }

    #[test]
    fn hostile_bytes_never_panic(text in "(data: |\\{|\\}|\"choices\"|\"delta\"|:|,|\\[|\\]|1|\"x\"|null|\n|\n\n){0,30}") {
        let _ = answered(chat_plan(), &[text.as_bytes()]);
        let _ = translate_ollama("/api/chat", text.as_bytes());
        let (whole, _) = translated("/api/generate", &json!({"prompt": "x", "stream": false}));
        let _ = answered(whole.plan, &[text.as_bytes()]);
    }
}
