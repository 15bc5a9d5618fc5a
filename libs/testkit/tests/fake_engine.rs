//! The fake engine does what the real one does, and each fault is really a fault.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::io::Read;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use testkit::{RunningEngine, TempHome, http, wait_for};

const SOON: Duration = Duration::from_secs(10);

fn ask(engine: &RunningEngine, path: &str, asked: &Value) -> http::Reply {
    http::post_json(&engine.address(), path, asked).unwrap()
}

fn chat(engine: &RunningEngine, streaming: bool) -> std::io::Result<http::Reply> {
    let asked =
        json!({"messages": [{"role": "user", "content": "hi"}], "max_tokens": 4, "stream": streaming});
    http::post_json(&engine.address(), "/v1/chat/completions", &asked)
}

/// A client that has asked for a stream and may leave at any time.
fn begin_stream(engine: &RunningEngine) -> std::net::TcpStream {
    use std::io::Write;
    let body = json!({"messages": [], "stream": true, "max_tokens": 1000}).to_string();
    let mut stream = std::net::TcpStream::connect(engine.address()).unwrap();
    write!(stream, "POST /v1/chat/completions HTTP/1.1\r\ncontent-length: {}\r\n\r\n{body}", body.len())
        .unwrap();
    stream.read_exact(&mut [0; 15]).unwrap();
    stream
}

#[test]
fn it_answers_like_an_engine() {
    let home = TempHome::new();
    let flags = ["--parallel", "2", "--ctx-size", "2048", "--alias", "chat", "--metrics", "--embeddings"];
    let engine = RunningEngine::fake_with(home.scratch(), &flags, &[]);
    assert_eq!(engine.get("/props").unwrap().json()["total_slots"], 2);
    assert_eq!(engine.get("/props").unwrap().json()["default_generation_settings"]["n_ctx"], 1024);
    assert_eq!(engine.get("/slots").unwrap().json().as_array().unwrap().len(), 2);
    assert_eq!(engine.get("/v1/models").unwrap().json()["data"][0]["id"], "chat");
    assert_eq!(engine.get("/nowhere").unwrap().status, 404);

    let reply = chat(&engine, false).unwrap().json();
    assert_eq!(reply["choices"][0]["message"]["content"], "the quick brown fox");
    assert_eq!(reply["usage"]["completion_tokens"], 4);
    let reply = ask(&engine, "/v1/completions", &json!({"prompt": "hi", "max_tokens": 2}));
    assert_eq!(reply.json()["choices"][0]["text"], "the quick");
    let asked = json!({"messages": [{"role": "user", "content": [{"type": "text", "text": "a b"}]}], "max_tokens": 2});
    assert_eq!(ask(&engine, "/v1/messages", &asked).json()["usage"]["input_tokens"], 3);
    let reply = ask(&engine, "/v1/embeddings", &json!({"input": ["a", "b"]}));
    assert_eq!(reply.json()["data"].as_array().unwrap().len(), 2);
    assert_eq!(ask(&engine, "/v1/chat/completions", &json!({})).status, 400);
    assert!(engine.get("/metrics").unwrap().text().contains("\nllamacpp:tokens_predicted_total 8\n"));
}

#[test]
fn a_stream_ends_with_its_last_frame() {
    let home = TempHome::new();
    let engine = RunningEngine::fake(home.scratch(), &[]);
    let text = chat(&engine, true).unwrap().text();
    assert!(text.ends_with("data: [DONE]\n\n"), "{text}");
    assert_eq!(text.matches("\"content\":\"").count(), 4);
    let asked = json!({"messages": [], "max_tokens": 2, "stream": true});
    let text = ask(&engine, "/v1/messages", &asked).text();
    assert!(text.starts_with("event: message_start\n") && text.contains("event: message_stop\n"), "{text}");
    engine.set_fault("FAKE_NO_MESSAGE_START", "1");
    let text = ask(&engine, "/v1/messages", &asked).text();
    assert!(text.starts_with("event: content_block_start\n"), "{text}");
}

#[test]
fn a_prompt_over_the_slots_context_is_refused_with_both_numbers() {
    let home = TempHome::new();
    let engine = RunningEngine::fake_with(home.scratch(), &["--parallel", "2", "--ctx-size", "16"], &[]);
    let reply = ask(&engine, "/v1/completions", &json!({"prompt": "a ".repeat(20)}));
    assert_eq!(reply.status, 400);
    assert_eq!(reply.json()["error"]["n_prompt_tokens"], 21);
    assert_eq!(reply.json()["error"]["n_ctx"], 8);
}

#[test]
fn a_key_is_asked_for_everywhere_but_at_health() {
    let home = TempHome::new();
    let engine = RunningEngine::fake_with(home.scratch(), &["--api-key", "k1,k2"], &[]);
    assert_eq!(engine.get("/props").unwrap().status, 401);
    let bearer = [("authorization", "Bearer k2")];
    assert_eq!(http::request(&engine.address(), "GET", "/props", &bearer, b"").unwrap().status, 200);
    assert_eq!(engine.get("/health").unwrap().status, 200);
}

#[test]
fn while_loading_everything_is_503() {
    let home = TempHome::new();
    let engine = RunningEngine::start_fake(home.scratch(), &[], &[("FAKE_NEVER_READY", "1")]);
    wait_for("a 503", SOON, || engine.get("/props").is_some_and(|reply| reply.status == 503));
    engine.set_fault("FAKE_NEVER_READY", "");
    wait_for("it to get ready", SOON, || engine.get("/health").is_some_and(|reply| reply.status == 200));
}

#[test]
fn unknown_and_removed_flags_are_refused() {
    let home = TempHome::new();
    for flags in [["--no-such-flag"].as_slice(), &["--no-mmap"], &["--draft-max", "3"], &["--parallel"]] {
        let mut engine = RunningEngine::start_fake(home.scratch(), flags, &[]);
        assert_eq!(engine.wait_for_exit(SOON).code(), Some(1), "{flags:?}");
    }
    let older = [("FAKE_UNKNOWN_FLAGS", "--metrics")];
    let mut engine = RunningEngine::start_fake(home.scratch(), &["--metrics"], &older);
    assert_eq!(engine.wait_for_exit(SOON).code(), Some(1));
}

#[test]
fn a_mistyped_knob_is_an_error() {
    let home = TempHome::new();
    for knob in [("FAKE_NO_SUCH_KNOB", "1"), ("FAKE_LOAD_MS", "long")] {
        let mut engine = RunningEngine::start_fake(home.scratch(), &[], &[knob]);
        assert_eq!(engine.wait_for_exit(SOON).code(), Some(1));
    }
}

#[test]
fn a_taken_port_ends_it() {
    let home = TempHome::new();
    let first = RunningEngine::fake(home.scratch(), &[]);
    // The last of a repeated flag wins.
    let port = first.port().to_string();
    let mut second = RunningEngine::start_fake(home.scratch(), &["--port", &port], &[]);
    assert_eq!(second.wait_for_exit(SOON).code(), Some(1));
}

#[test]
fn requests_beyond_the_slots_wait() {
    let home = TempHome::new();
    let faults = [("FAKE_TOKEN_MS", "20")];
    let engine = RunningEngine::fake_with(home.scratch(), &["--parallel", "1"], &faults);
    let first = begin_stream(&engine);
    let second = std::thread::spawn({
        let address = engine.address();
        move || {
            http::post_json(&address, "/v1/completions", &json!({"prompt": "x", "max_tokens": 1})).unwrap()
        }
    });
    wait_for("two requests", SOON, || engine.stats()["in_flight"] == 2);
    assert_eq!(engine.stats()["slots_busy"], 1);
    drop(first);
    assert_eq!(second.join().unwrap().status, 200);
    assert_eq!(engine.stats()["cancelled"], 1);
}

#[test]
fn faults_strike_at_their_token() {
    let home = TempHome::new();
    let engine = RunningEngine::fake(home.scratch(), &[]);
    engine.set_fault("FAKE_CLOSE_AFTER_TOKENS", "2");
    assert!(chat(&engine, true).is_err());
    engine.set_fault("FAKE_CLOSE_AFTER_TOKENS", "0");
    assert!(chat(&engine, false).is_err());
    engine.set_fault("FAKE_CLOSE_AFTER_TOKENS", "");
    engine.set_fault("FAKE_ERROR_AFTER_TOKENS", "1");
    let text = chat(&engine, true).unwrap().text();
    assert!(text.contains("data: {\"error\"") && !text.contains("[DONE]"), "{text}");
    assert_eq!(chat(&engine, false).unwrap().status, 500);
    engine.set_fault("FAKE_ERROR_AFTER_TOKENS", "");
    engine.set_fault("FAKE_MALFORMED_AFTER_TOKENS", "0");
    assert!(chat(&engine, true).unwrap().text().starts_with("data: {\"choices\":[{\"delta\n"));
    engine.set_fault("FAKE_MALFORMED_AFTER_TOKENS", "");
    engine.set_fault("FAKE_NO_DONE", "1");
    assert!(!chat(&engine, true).unwrap().text().contains("[DONE]"));
    engine.set_fault("FAKE_SPLIT_BYTES", "1");
    engine.set_fault("FAKE_TEXT", "grüße");
    assert!(chat(&engine, true).unwrap().text().contains("grüße"));
}

#[test]
fn a_status_can_be_told_for_the_next_requests_only() {
    let home = TempHome::new();
    let engine = RunningEngine::fake(home.scratch(), &[("FAKE_STATUS", "503"), ("FAKE_STATUS_TIMES", "1")]);
    assert_eq!(chat(&engine, false).unwrap().status, 503);
    assert_eq!(chat(&engine, false).unwrap().status, 200);
}

#[test]
fn a_hang_holds_the_request_until_the_client_leaves() {
    let home = TempHome::new();
    let engine = RunningEngine::fake(home.scratch(), &[("FAKE_HANG_AFTER_TOKENS", "1")]);
    let client = begin_stream(&engine);
    wait_for("the request", SOON, || engine.stats()["in_flight"] == 1);
    drop(client);
    wait_for("the slot to be free again", SOON, || engine.stats()["in_flight"] == 0);
    assert_eq!(engine.stats()["cancelled"], 1);
}

#[test]
fn what_clients_sent_can_be_asked() {
    let home = TempHome::new();
    let engine = RunningEngine::fake(home.scratch(), &[]);
    let headers = [("x-request-id", "abc")];
    http::request(&engine.address(), "POST", "/v1/completions?a=b", &headers, b"{\"prompt\":1}").unwrap();
    let seen = engine.requests();
    let last = seen.last().unwrap();
    assert_eq!(last["headers"]["x-request-id"], "abc");
    assert_eq!((last["body"].as_str(), last["query"].as_str()), (Some("{\"prompt\":1}"), Some("a=b")));
}

#[cfg(unix)]
mod on_unix {
    use std::os::unix::process::ExitStatusExt;

    use nix::sys::signal::{Signal, kill};
    use nix::unistd::Pid;

    use super::*;

    fn terminate(engine: &RunningEngine) {
        kill(Pid::from_raw(i32::try_from(engine.pid()).unwrap()), Signal::SIGTERM).unwrap();
    }

    #[test]
    fn an_idle_engine_ends_at_the_first_sigterm() {
        let home = TempHome::new();
        let mut engine = RunningEngine::fake(home.scratch(), &[]);
        terminate(&engine);
        assert_eq!(engine.wait_for_exit(SOON).code(), Some(0));
    }

    #[test]
    fn a_busy_engine_ends_at_the_second_sigterm_or_with_its_last_client() {
        let home = TempHome::new();
        let mut engine = RunningEngine::fake(home.scratch(), &[("FAKE_TOKEN_MS", "20")]);
        let client = begin_stream(&engine);
        terminate(&engine);
        let logged = || {
            std::fs::read_to_string(home.scratch().join(format!("engine.{}.stderr", engine.port()))).unwrap()
        };
        wait_for("the first signal to be seen", SOON, || logged().contains("cleaning up before exit"));
        assert_eq!(engine.stats()["in_flight"], 1);
        terminate(&engine);
        assert_eq!(engine.wait_for_exit(SOON).code(), Some(1));
        drop(client);

        let mut engine = RunningEngine::fake(home.scratch(), &[("FAKE_TOKEN_MS", "20")]);
        let client = begin_stream(&engine);
        terminate(&engine);
        drop(client);
        assert_eq!(engine.wait_for_exit(SOON).code(), Some(0));
    }

    #[test]
    fn a_deaf_engine_needs_sigkill() {
        let home = TempHome::new();
        let mut engine = RunningEngine::fake(home.scratch(), &[("FAKE_IGNORE_SIGTERM", "1000")]);
        for _ in 0..3 {
            terminate(&engine);
        }
        assert_eq!(engine.get("/health").unwrap().status, 200);
        engine.kill();
        assert_eq!(engine.wait_for_exit(SOON).signal(), Some(9));
    }

    #[test]
    fn it_crashes_with_the_code_or_signal_it_was_told() {
        let home = TempHome::new();
        let oom = [("FAKE_EXIT_AT", "loaded"), ("FAKE_EXIT_CODE", "7"), ("FAKE_LAST_WORDS", "out of memory")];
        let mut engine = RunningEngine::start_fake(home.scratch(), &[], &oom);
        assert_eq!(engine.wait_for_exit(SOON).code(), Some(7));
        let segfault = [("FAKE_EXIT_AFTER_MS", "50"), ("FAKE_EXIT_SIGNAL", "11")];
        let mut engine = RunningEngine::start_fake(home.scratch(), &[], &segfault);
        assert_eq!(engine.wait_for_exit(SOON).signal(), Some(11));
        let mut engine = RunningEngine::fake(home.scratch(), &[("FAKE_EXIT_AFTER_TOKENS", "2")]);
        assert!(chat(&engine, true).is_err());
        assert_eq!(engine.wait_for_exit(SOON).code(), Some(1));
    }

    #[test]
    fn only_the_first_starts_crash_when_told_so() {
        let home = TempHome::new();
        let log = home.scratch().join("starts");
        let faults =
            [("FAKE_EXIT_AT", "start"), ("FAKE_CRASHES", "1"), ("FAKE_START_LOG", log.to_str().unwrap())];
        let mut engine = RunningEngine::start_fake(home.scratch(), &[], &faults);
        assert_eq!(engine.wait_for_exit(SOON).code(), Some(1));
        let engine = RunningEngine::fake(home.scratch(), &faults);
        let starts = std::fs::read_to_string(log).unwrap();
        assert!(starts.ends_with(&format!("{} {}\n", engine.pid(), engine.port())), "{starts}");
        assert_eq!(starts.lines().count(), 2);
    }

    #[test]
    fn children_outlive_it_until_the_home_goes() {
        let home = TempHome::new();
        let faults =
            [("FAKE_CHILDREN", "2"), ("FAKE_CHILDREN_NEW_SESSION", "1"), ("FAKE_CHILDREN_DEAF", "1")];
        let mut engine = RunningEngine::fake(home.scratch(), &faults);
        let children = engine.get("/fake/process").unwrap().json()["children"].clone();
        let children: Vec<i32> = serde_json::from_value(children).unwrap();
        engine.kill();
        let lives = |pid: &i32| {
            std::fs::read_to_string(format!("/proc/{pid}/cmdline")).is_ok_and(|it| !it.is_empty())
        };
        assert_eq!(children.len(), 2);
        if cfg!(target_os = "linux") {
            assert!(children.iter().all(lives));
        }
        drop(home);
        assert!(!children.iter().any(lives));
    }
}

#[test]
fn a_flood_fills_both_streams_with_whole_lines() {
    let home = TempHome::new();
    let engine = RunningEngine::fake(home.scratch(), &[("FAKE_FLOOD_BYTES", "1000000")]);
    let file = |stream: &str| home.scratch().join(format!("engine.{}.{stream}", engine.port()));
    let read = |stream: &str| std::fs::read_to_string(file(stream)).unwrap();
    wait_for("the flood to pass", SOON, || read("stderr").contains("the flood is over"));
    let out = read("stdout");
    assert!(out.len() >= 1_000_000);
    assert!(out.lines().all(|line| line.starts_with("stdout ") && line.ends_with(" end")));
}

#[test]
fn a_slow_token_takes_its_time() {
    let home = TempHome::new();
    let engine =
        RunningEngine::fake(home.scratch(), &[("FAKE_FIRST_TOKEN_MS", "100"), ("FAKE_TOKEN_MS", "20")]);
    let begin = Instant::now();
    chat(&engine, false).unwrap();
    assert!(begin.elapsed() >= Duration::from_millis(160));
}
