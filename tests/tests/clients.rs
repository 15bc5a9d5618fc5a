//! The official clients of every dialect, against real engines behind a real daemon.
//!
//! The engines' models are tiny and random. Where an answer has to mean something, a grammar forces it: by a schema,
//! or by the tools of an instance whose template and token biases make every chat with tools a call.

#![cfg(target_os = "linux")]
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use serde_json::json;
use support::home::{Daemon, Home};
use testkit::run_python;

/// One sign begins a call and one ends it, so that a grammar can hold even a random model to it.
const TOOL_TEMPLATE: &str = r#"{%- if tools %}<|system|>{% for tool in tools %}{{ tool | tojson }}
{% endfor %}{% endif %}
{%- for message in messages %}<|{{ message.role }}|>{{ message.content }}
{%- if message.tool_calls %}{% for call in message.tool_calls -%}
~{"name": "{{ call.function.name }}", "arguments": {{ call.function.arguments | tojson }}}${% endfor %}{% endif %}
{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}"#;

/// The tokens of `~` and `$` in the tiny model's vocabulary, which are written wherever a grammar lets them be.
const BEGIN_CALL: &str = "353+200";
const END_CALL: &str = "263+150";

/// A daemon with engines for text, tools and embeddings, and an instance that is stopped.
struct Fleet {
    home: Home,
    daemon: Daemon,
    tiny_port: u16,
    /// Keys of a client and of one that is held short; empty in a home that wants none.
    key: String,
    limited_key: String,
}

impl Fleet {
    fn open() -> Self {
        let home = Home::real();
        let template = home.scratch().join("tools.jinja");
        std::fs::write(&template, TOOL_TEMPLATE).unwrap();
        let tiny_port = home.instance("tiny", &json!({}));
        let biases = ["--logit-bias", BEGIN_CALL, "--logit-bias", END_CALL];
        let template = ["--chat-template-file", template.to_str().unwrap()];
        let arguments = [template.as_slice(), &biases].concat();
        home.instance("tools", &json!({"args": arguments}));
        home.instance("embed", &json!({"args": ["--embeddings", "--pooling", "mean"]}));
        home.instance("stopped", &json!({}));
        let daemon = home.start_daemon();
        home.ok(&["up", "tiny", "tools", "embed"]);
        Self { home, daemon, tiny_port, key: String::new(), limited_key: String::new() }
    }

    fn with_keys() -> Self {
        let mut fleet = Self::open();
        let create = |arguments: &[&str]| {
            let key = fleet.home.json(&[&["token", "create", "--json"], arguments].concat());
            key["token"].as_str().unwrap().to_owned()
        };
        fleet.limited_key = create(&["--rpm", "1", "--models", "tiny"]);
        fleet.key = create(&[]);
        fleet
    }

    /// What a client tells of its work with the fleet.
    #[track_caller]
    fn told_by(&self, script: &str) -> String {
        let run = run_python(
            script,
            &[
                ("BASE", &format!("http://{}", self.daemon.address)),
                ("KEY", &self.key),
                ("LIMITED_KEY", &self.limited_key),
                ("TINY_PORT", &self.tiny_port.to_string()),
                ("LITELLM_LOCAL_MODEL_COST_MAP", "True"),
                ("HOME", self.home.scratch().to_str().unwrap()),
            ],
        );
        run.expect_exit(0).stdout.clone()
    }
}

#[test]
fn openais_client_chats_streams_calls_tools_embeds_and_understands_every_refusal() {
    let fleet = Fleet::with_keys();
    let expected = "\
models embed tiny tools
model tiny
chat length 8 8
stream 8 8
completion length 5
tools tool_calls get_weather True
tools streamed get_weather True
schema True
responses response.created response.completed 6 6
response completed
embeddings 2 True True
unknown model NotFoundError 404 MODEL_NOT_FOUND
unknown model in responses NotFoundError 404 MODEL_NOT_FOUND
bad header BadRequestError 400 INVALID_PARAMS
bad body ('BadRequestError', 400)
wrong key AuthenticationError 401 UNAUTHORIZED
stopped InternalServerError 503 MODEL_NOT_AVAILABLE
naps of the patient [10.0, 10.0]
naps for nobody []
not its model PermissionDeniedError 403 FORBIDDEN
its one request 4
limited 429 RATE_LIMITED 1 True
cancel True True
";
    assert_eq!(fleet.told_by(include_str!("clients/openai.py")), expected);
}

#[test]
fn anthropics_client_talks_streams_calls_tools_counts_and_understands_every_refusal() {
    let fleet = Fleet::with_keys();
    let expected = "\
message max_tokens text 8
stream message_start message_stop max_tokens 8
tools tool_use tool_use get_weather True
tools streamed tool_use get_weather True
count True
unknown model NotFoundError 404 error not_found_error
unknown model counted NotFoundError 404 error not_found_error
bad header BadRequestError 400 error invalid_request_error
wrong key AuthenticationError 401 error authentication_error
stopped ServiceUnavailableError 503 error overloaded_error
";
    assert_eq!(fleet.told_by(include_str!("clients/anthropic.py")), expected);
}

#[test]
fn ollamas_client_finds_all_of_its_api_in_translation() {
    let fleet = Fleet::with_keys();
    let expected = "\
list embed tiny tools
ps embed tiny tools
show num_ctx 32768 gguf
chat tiny True length 8 8 True True
stream 8 1 length 8
generate 6 6
raw stream 6 True
load load
schema True
tools get_weather True
tools streamed 1 get_weather True
tool answered 4
embed 2 True True
unknown model 404 True
unknown model shown 404 True
unknown model streamed 404 True
no embeddings here True
wrong key 401 True
stopped 503 True
";
    assert_eq!(fleet.told_by(include_str!("clients/ollama.py")), expected);
}

#[test]
fn litellm_reaches_the_same_engines_through_three_dialects() {
    let fleet = Fleet::open();
    // LiteLLM has one word for whatever an Ollama server refuses, and one reason why it ended.
    let expected = "\
openai/tiny length True 8
openai/tiny streamed True
ollama_chat/tiny stop True 8
ollama_chat/tiny streamed True
anthropic/tiny length True 8
anthropic/tiny streamed True
openai/embed 2
ollama/embed 2
openai/tiny unknown NotFoundError 404
ollama_chat/tiny unknown APIConnectionError 500
anthropic/tiny unknown NotFoundError 404
";
    assert_eq!(fleet.told_by(include_str!("clients/litellm.py")), expected);
}
