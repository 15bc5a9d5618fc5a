//! OpenAI's and Anthropic's requests and answers, each in the other's words.

use std::time::Duration;

use orch_core::{ErrorCode, UnixMillis};
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

fn about() -> About {
    About {
        request_id: "req-1".to_owned(),
        model: "name".to_owned(),
        began: UnixMillis(1_700_000_000_000),
        waited: Duration::ZERO,
    }
}

fn body(translated: &Translated) -> Value {
    serde_json::from_slice(&translated.body).unwrap()
}

fn to_anthropic(request: &Value) -> Translated {
    openai_to_anthropic(request.to_string().as_bytes()).unwrap()
}

fn to_openai(request: &Value) -> Translated {
    anthropic_to_openai(request.to_string().as_bytes()).unwrap()
}

fn answered(plan: AnswerPlan, chunks: &[&[u8]]) -> (String, Option<AnswerFault>) {
    let mut translator = plan.begin(about());
    let mut text = Vec::new();
    let mut pieces: Vec<Piece> = chunks.iter().map(|chunk| translator.push(chunk)).collect();
    pieces.push(translator.finish());
    let mut fault = None;
    for piece in pieces {
        assert!(fault.is_none() || piece == Piece::default(), "nothing follows a fault");
        text.extend_from_slice(&piece.bytes);
        fault = fault.or(piece.fault);
    }
    (String::from_utf8(text).unwrap(), fault)
}

/// The JSON of every event; `[DONE]` is none.
fn events(text: &str) -> Vec<Value> {
    text.lines().filter_map(|line| serde_json::from_str(line.strip_prefix("data: ")?).ok()).collect()
}

const OPENAI_TOOLS: &str =
    r#"[{"type":"function","function":{"name":"look","description":"d","parameters":{"type":"object"}}}]"#;
const ANTHROPIC_TOOLS: &str = r#"[{"name":"look","input_schema":{"type":"object"},"description":"d"}]"#;

fn json_of(text: &str) -> Value {
    serde_json::from_str(text).unwrap()
}

#[test]
fn an_openai_chat_is_told_to_anthropic() {
    let translated = to_anthropic(&json!({
        "model": "m", "stream": true, "stream_options": {"include_usage": true}, "temperature": 0.5, "stop": "END",
        "user": "u", "n": 1, "presence_penalty": 0.0, "response_format": {"type": "text"}, "max_completion_tokens": 9,
        "tools": json_of(OPENAI_TOOLS), "tool_choice": "required", "parallel_tool_calls": false,
        "messages": [
            {"role": "system", "content": "be brief"},
            {"role": "developer", "content": [{"type": "text", "text": "be kind"}]},
            {"role": "user", "content": [
                {"type": "text", "text": "see"},
                {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}},
                {"type": "image_url", "image_url": {"url": "https://example.org/a.png"}},
            ]},
            {"role": "assistant", "content": null, "tool_calls": [
                {"id": "a", "type": "function", "function": {"name": "look", "arguments": "{\"x\":1}"}},
                {"id": "b", "type": "function", "function": {"name": "look", "arguments": ""}},
            ]},
            {"role": "tool", "tool_call_id": "a", "content": "red"},
            {"role": "tool", "tool_call_id": "b", "content": "blue"},
            {"role": "user", "content": "well?"},
        ],
    }));
    assert_eq!(translated.path, "/v1/messages");
    let expected = json!({
        "model": "m", "stream": true, "temperature": 0.5, "stop_sequences": ["END"], "max_tokens": 9,
        "metadata": {"user_id": "u"}, "system": "be brief\n\nbe kind",
        "tools": json_of(ANTHROPIC_TOOLS), "tool_choice": {"type": "any", "disable_parallel_tool_use": true},
        "messages": [
            {"role": "user", "content": [
                {"type": "text", "text": "see"},
                {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "AAAA"}},
                {"type": "image", "source": {"type": "url", "url": "https://example.org/a.png"}},
            ]},
            {"role": "assistant", "content": [
                {"type": "tool_use", "id": "a", "name": "look", "input": {"x": 1}},
                {"type": "tool_use", "id": "b", "name": "look", "input": {}},
            ]},
            {"role": "user", "content": [
                {"type": "tool_result", "tool_use_id": "a", "content": [{"type": "text", "text": "red"}]},
                {"type": "tool_result", "tool_use_id": "b", "content": [{"type": "text", "text": "blue"}]},
                {"type": "text", "text": "well?"},
            ]},
        ],
    });
    assert_eq!(body(&translated), expected);
}

#[test]
fn an_anthropic_message_is_told_to_openai() {
    let translated = to_openai(&json!({
        "model": "m", "max_tokens": 9, "stream": true, "top_p": 0.5, "stop_sequences": ["END"],
        "metadata": {"user_id": "u"}, "system": [{"type": "text", "text": "be brief"}],
        "tools": json_of(ANTHROPIC_TOOLS), "tool_choice": {"type": "tool", "name": "look"},
        "thinking": {"type": "enabled", "budget_tokens": 5000},
        "messages": [
            {"role": "user", "content": "hi"},
            {"role": "assistant", "content": [
                {"type": "thinking", "thinking": "hm", "signature": "s"},
                {"type": "text", "text": "let me see"},
                {"type": "tool_use", "id": "a", "name": "look", "input": {"x": 1}},
            ]},
            {"role": "user", "content": [
                {"type": "tool_result", "tool_use_id": "a", "content": [{"type": "text", "text": "red"}]},
                {"type": "text", "text": "and this?"},
                {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "AAAA"}},
            ]},
        ],
    }));
    assert_eq!(
        (translated.path, translated.plan.media_type()),
        ("/v1/chat/completions", "text/event-stream")
    );
    let expected = json!({
        "model": "m", "max_tokens": 9, "stream": true, "stream_options": {"include_usage": true}, "top_p": 0.5,
        "stop": ["END"], "user": "u", "reasoning_effort": "medium",
        "tools": json_of(OPENAI_TOOLS), "tool_choice": {"type": "function", "function": {"name": "look"}},
        "messages": [
            {"role": "system", "content": "be brief"},
            {"role": "user", "content": "hi"},
            {"role": "assistant", "content": "let me see", "tool_calls": [
                {"id": "a", "type": "function", "function": {"name": "look", "arguments": "{\"x\":1}"}},
            ]},
            {"role": "tool", "tool_call_id": "a", "content": "red"},
            {"role": "user", "content": [
                {"type": "text", "text": "and this?"},
                {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}},
            ]},
        ],
    });
    assert_eq!(body(&translated), expected);
}

#[test]
fn what_the_other_side_has_no_words_for_is_refused_by_name() {
    let with = |field: &str, value: Value| {
        let mut request = json!({"model": "m", "messages": [{"role": "user", "content": "x"}]});
        request[field] = value;
        request.to_string()
    };
    for (field, value) in [
        ("n", json!(2)),
        ("response_format", json!({"type": "json_object"})),
        ("logit_bias", json!({"1": 2})),
        ("seed", json!(7)),
        ("reasoning_effort", json!("high")),
        ("frequency_penalty", json!(0.5)),
        ("stop", json!(7)),
        ("stream", json!("x")),
        ("messages", json!([{"role": "king", "content": "x"}])),
        ("messages", json!([{"role": "user", "content": [{"type": "input_audio"}]}])),
        ("messages", json!([{"role": "tool", "content": "x"}])),
    ] {
        let problem = openai_to_anthropic(with(field, value).as_bytes()).unwrap_err();
        assert_eq!((problem.code, problem.param), (ErrorCode::InvalidParams, Some(field)));
    }
    for (field, value) in [
        ("tools", json!([{"type": "web_search_20250305", "name": "web_search"}])),
        ("messages", json!([{"role": "user", "content": [{"type": "document"}]}])),
        ("messages", json!([{"role": "system", "content": "x"}])),
        ("messages", json!("x")),
        ("system", json!(7)),
    ] {
        let problem = anthropic_to_openai(with(field, value).as_bytes()).unwrap_err();
        assert_eq!((problem.code, problem.param), (ErrorCode::InvalidParams, Some(field)));
    }
}

fn anthropic_stream() -> String {
    let event = |value: Value| format!("event: {}\ndata: {value}\n\n", value["type"].as_str().unwrap());
    [
        json!({"type": "message_start", "message": {"usage": {"input_tokens": 3, "cache_read_input_tokens": 7, "output_tokens": 1}}}),
        json!({"type": "ping"}),
        json!({"type": "content_block_start", "index": 0, "content_block": {"type": "thinking", "thinking": ""}}),
        json!({"type": "content_block_delta", "index": 0, "delta": {"type": "thinking_delta", "thinking": "hm"}}),
        json!({"type": "content_block_delta", "index": 0, "delta": {"type": "signature_delta", "signature": "s"}}),
        json!({"type": "content_block_stop", "index": 0}),
        json!({"type": "content_block_start", "index": 1, "content_block": {"type": "text", "text": ""}}),
        json!({"type": "content_block_delta", "index": 1, "delta": {"type": "text_delta", "text": "hé 🦙"}}),
        json!({"type": "content_block_stop", "index": 1}),
        json!({"type": "content_block_start", "index": 2, "content_block": {"type": "tool_use", "id": "a", "name": "look", "input": {}}}),
        json!({"type": "content_block_delta", "index": 2, "delta": {"type": "input_json_delta", "partial_json": "{\"x\":"}}),
        json!({"type": "content_block_delta", "index": 2, "delta": {"type": "input_json_delta", "partial_json": "1}"}}),
        json!({"type": "content_block_stop", "index": 2}),
        json!({"type": "message_delta", "delta": {"stop_reason": "tool_use"}, "usage": {"output_tokens": 21}}),
        json!({"type": "message_stop"}),
    ]
    .map(event)
    .concat()
}

fn openai_plan() -> AnswerPlan {
    let request = json!({"messages": [], "stream": true, "stream_options": {"include_usage": true}});
    to_anthropic(&request).plan
}

fn anthropic_plan() -> AnswerPlan {
    to_openai(&json!({"messages": [], "stream": true})).plan
}

#[test]
fn an_anthropic_stream_is_heard_as_openais() {
    let (text, fault) = answered(openai_plan(), &[anthropic_stream().as_bytes()]);
    assert_eq!(fault, None);
    assert!(text.ends_with("data: [DONE]\n\n"), "{text}");
    let events = events(&text);
    let deltas: Vec<&Value> = events.iter().map(|event| &event["choices"][0]["delta"]).collect();
    assert_eq!(deltas[0], &json!({"role": "assistant", "content": ""}));
    assert_eq!(deltas[1], &json!({"reasoning_content": "hm"}));
    assert_eq!(deltas[2], &json!({"content": "hé 🦙"}));
    let call =
        json!({"index": 0, "id": "a", "type": "function", "function": {"name": "look", "arguments": ""}});
    assert_eq!(deltas[3], &json!({"tool_calls": [call]}));
    assert_eq!(deltas[4], &json!({"tool_calls": [{"index": 0, "function": {"arguments": "{\"x\":"}}]}));
    assert_eq!(events[6]["choices"][0]["finish_reason"], "tool_calls");
    let usage = json!({"prompt_tokens": 10, "completion_tokens": 21, "total_tokens": 31,
                       "prompt_tokens_details": {"cached_tokens": 7}});
    assert_eq!((&events[7]["usage"], &events[7]["choices"]), (&usage, &json!([])));
    assert!(events.iter().all(|event| event["id"] == "chatcmpl-req-1" && event["model"] == "name"));
}

#[test]
fn an_openai_stream_is_heard_as_anthropics_and_back_again_as_it_was() {
    let (openai, _) = answered(openai_plan(), &[anthropic_stream().as_bytes()]);
    let (anthropic, fault) = answered(anthropic_plan(), &[openai.as_bytes()]);
    assert_eq!(fault, None);
    let kinds: Vec<String> =
        events(&anthropic).iter().map(|event| event["type"].as_str().unwrap().to_owned()).collect();
    let block = ["content_block_start", "content_block_delta", "content_block_stop"];
    let tool = ["content_block_start", "content_block_delta", "content_block_delta", "content_block_stop"];
    let expected: Vec<&str> = ["message_start"]
        .into_iter()
        .chain(block)
        .chain(block)
        .chain(tool)
        .chain(["message_delta", "message_stop"])
        .collect();
    assert_eq!(kinds, expected);
    let last = &events(&anthropic)[kinds.len() - 2];
    assert_eq!(last["delta"]["stop_reason"], "tool_use");
    assert_eq!(last["usage"], json!({"input_tokens": 3, "cache_read_input_tokens": 7, "output_tokens": 21}));
    for line in anthropic.lines().filter_map(|line| line.strip_prefix("event: ")) {
        assert!(kinds.iter().any(|kind| kind == line), "every event is named as its type says");
    }
    assert_eq!(answered(openai_plan(), &[anthropic.as_bytes()]), (openai, None));
}

#[test]
fn whole_answers_go_both_ways() {
    let message = json!({
        "id": "msg_req-1", "type": "message", "role": "assistant", "model": "name",
        "content": [
            {"type": "thinking", "thinking": "hm", "signature": ""},
            {"type": "text", "text": "see"},
            {"type": "tool_use", "id": "a", "name": "look", "input": {"x": 1}},
        ],
        "stop_reason": "tool_use", "stop_sequence": null,
        "usage": {"input_tokens": 3, "cache_read_input_tokens": 7, "output_tokens": 21},
    });
    let plan = to_anthropic(&json!({"messages": []})).plan;
    let (text, fault) = answered(plan, &[message.to_string().as_bytes()]);
    let completion = json_of(&text);
    let expected = json!({
        "id": "chatcmpl-req-1", "object": "chat.completion", "created": 1_700_000_000, "model": "name",
        "choices": [{"index": 0, "finish_reason": "tool_calls", "message": {
            "role": "assistant", "content": "see", "reasoning_content": "hm",
            "tool_calls": [{"id": "a", "type": "function", "function": {"name": "look", "arguments": "{\"x\":1}"}}],
        }}],
        "usage": {"prompt_tokens": 10, "completion_tokens": 21, "total_tokens": 31,
                  "prompt_tokens_details": {"cached_tokens": 7}},
    });
    assert_eq!((&completion, fault), (&expected, None));
    let plan = to_openai(&json!({"messages": []})).plan;
    let (text, fault) = answered(plan, &[completion.to_string().as_bytes()]);
    assert_eq!((json_of(&text), fault), (message, None));
}

#[test]
fn why_a_model_stopped_is_told_in_the_words_of_each() {
    for (anthropic, openai) in [
        ("end_turn", "stop"),
        ("max_tokens", "length"),
        ("tool_use", "tool_calls"),
        ("refusal", "content_filter"),
    ] {
        let message = json!({"content": [], "stop_reason": anthropic});
        let (text, _) =
            answered(to_anthropic(&json!({"messages": []})).plan, &[message.to_string().as_bytes()]);
        assert_eq!(json_of(&text)["choices"][0]["finish_reason"], openai);
        let (text, _) = answered(to_openai(&json!({"messages": []})).plan, &[text.as_bytes()]);
        assert_eq!(json_of(&text)["stop_reason"], anthropic);
    }
}

#[test]
fn whatever_is_wrong_with_a_provider_is_one_fault() {
    let broken_off = || AnswerFault::BrokenOff("overloaded".to_owned());
    for (bad, expected) in [
        ("event: error\ndata: {\"type\":\"error\",\"error\":{\"message\":\"overloaded\"}}\n\n", broken_off()),
        ("data: {\"type\":\"message_stop\"}\n\n", AnswerFault::Incomplete),
        ("data: {}\n\n", AnswerFault::Malformed("an event without a type")),
        (
            "data: {\"type\":\"content_block_delta\",\"delta\":{\"type\":\"input_json_delta\"}}\n\n",
            AnswerFault::Malformed("arguments of a tool that was not called"),
        ),
        ("", AnswerFault::Incomplete),
    ] {
        let text = format!("{}{bad}", anthropic_stream().split_inclusive("\n\n").take(2).collect::<String>());
        let more = if bad.is_empty() { String::new() } else { anthropic_stream() };
        assert_eq!(answered(openai_plan(), &[text.as_bytes(), more.as_bytes()]).1, Some(expected), "{bad}");
    }
    let lost = "data: {\"choices\":[{\"delta\":{\"tool_calls\":[{\"index\":0,\"function\":{\"arguments\":\"1\"}}]}}]}\n\n";
    assert!(matches!(answered(anthropic_plan(), &[lost.as_bytes()]).1, Some(AnswerFault::Malformed(_))));
}

#[test]
fn an_ollama_client_reaches_an_anthropic_provider_through_both() {
    let request =
        json!({"model": "m", "messages": [{"role": "user", "content": "hi"}], "options": {"num_predict": 5}});
    let translated = translate_ollama("/api/chat", request.to_string().as_bytes()).unwrap();
    let translated = translated.for_anthropic().unwrap();
    assert_eq!((translated.path, translated.plan.media_type()), ("/v1/messages", "application/x-ndjson"));
    assert_eq!((&body(&translated)["max_tokens"], &body(&translated)["stream"]), (&json!(5), &json!(true)));
    let (text, fault) = answered(translated.plan, &[anthropic_stream().as_bytes()]);
    assert_eq!((text.lines().count(), fault), (4, None));
    let embed = translate_ollama("/api/embed", br#"{"input":"x"}"#).unwrap();
    assert_eq!(embed.for_anthropic().unwrap_err().code, ErrorCode::InvalidParams);
}

proptest! {
    #[test]
    fn cuts_do_not_matter(cuts in prop::collection::vec(1_usize..60, 0..60)) {
        let (openai, _) = answered(openai_plan(), &[anthropic_stream().as_bytes()]);
        for (plan, text) in [(openai_plan(), anthropic_stream()), (anthropic_plan(), openai)] {
            let mut chunks = Vec::new();
            let mut rest = text.as_bytes();
            for cut in &cuts {
                let (head, tail) = rest.split_at((*cut).min(rest.len()));
                chunks.push(head);
                rest = tail;
            }
            chunks.push(rest);
            prop_assert_eq!(answered(plan, &chunks), answered(plan, &[text.as_bytes()]));
        }
    }

    #[test]
    fn hostile_bytes_never_panic(text in "(data: |\\{|\\}|\"type\"|\"delta\"|\"content_block_delta\"|\"content_block_start\"|:|,|\\[|\\]|1|\"x\"|\n\n){0,30}") {
        let _ = answered(openai_plan(), &[text.as_bytes()]);
        let _ = answered(anthropic_plan(), &[text.as_bytes()]);
        let _ = openai_to_anthropic(text.as_bytes());
        let _ = anthropic_to_openai(text.as_bytes());
    }
}
