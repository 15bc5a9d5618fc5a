//! The official clients run, and understand the fake engine as they do the real one.

use testkit::{RunningEngine, TempHome, run_python};

const BOTH_CLIENTS: &str = r#"
import os, openai, anthropic
base = os.environ["BASE"]
reply = openai.OpenAI(base_url=base + "/v1", api_key="none").chat.completions.create(
    model="any", messages=[{"role": "user", "content": "hi"}], max_tokens=2)
print(reply.choices[0].message.content)
client = anthropic.Anthropic(base_url=base, api_key="none")
with client.messages.stream(model="any", max_tokens=3, messages=[{"role": "user", "content": "hi"}]) as stream:
    print(stream.get_final_text())
"#;

#[test]
fn official_clients_talk_to_the_fake_engine() {
    let home = TempHome::new();
    let engine = RunningEngine::fake(home.scratch(), &[]);
    let run = run_python(BOTH_CLIENTS, &[("BASE", &format!("http://{}", engine.address()))]);
    assert_eq!(run.expect_exit(0).stdout, "the quick\nthe quick brown\n");
}

#[test]
fn official_clients_talk_to_the_real_engine() {
    let home = TempHome::new();
    let engine = RunningEngine::real(home.scratch(), &[]);
    let run = run_python(BOTH_CLIENTS, &[("BASE", &format!("http://{}", engine.address()))]);
    assert_eq!(run.expect_exit(0).stdout.lines().count(), 2);
}
