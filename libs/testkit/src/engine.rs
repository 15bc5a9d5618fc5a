//! Engines that a test starts by itself, without any of our own code between.

use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use serde_json::{Value, json};

use crate::{fake_engine, http, real_llama_server, wait_for, wait_for_value};

/// A generous limit: the real engine takes 0.3 s, but tests share the machine.
const READY_LIMIT: Duration = Duration::from_secs(30);

/// A `llama-server`, real or fake, on a free loopback port. Killed when dropped.
///
/// Its logs go to `engine.<port>.stdout` and `.stderr` in the folder it was given.
pub struct RunningEngine {
    child: Child,
    port: u16,
}

impl RunningEngine {
    /// A fake engine that is ready, with these knobs (`fake-llama-server --help` lists them).
    pub fn fake(folder: &Path, faults: &[(&str, &str)]) -> Self {
        Self::fake_with(folder, &[], faults)
    }

    /// [`RunningEngine::fake`] with more flags, such as `--parallel 2`.
    pub fn fake_with(folder: &Path, flags: &[&str], faults: &[(&str, &str)]) -> Self {
        let engine = Self::start_fake(folder, flags, faults);
        engine.wait_until_ready();
        engine
    }

    /// A fake engine that has been started, and not waited for: it may be told never to get ready.
    pub fn start_fake(folder: &Path, flags: &[&str], faults: &[(&str, &str)]) -> Self {
        Self::start(&fake_engine(), folder, flags, faults)
    }

    /// The real engine on the tiny model, ready.
    pub fn real(folder: &Path, flags: &[&str]) -> Self {
        // More than one thread spins while it waits for the others: on a busy machine, for seconds.
        let mut all = vec!["--threads", "1"];
        all.extend_from_slice(flags);
        let engine = Self::start(&real_llama_server(), folder, &all, &[]);
        engine.wait_until_ready();
        engine
    }

    fn start(program: &Path, folder: &Path, flags: &[&str], variables: &[(&str, &str)]) -> Self {
        let model = folder.join("tiny.gguf");
        if !model.exists() {
            crate::write_tiny_model(&model, &crate::TinyModel::default())
                .expect("the test's folder is writable");
        }
        let port = free_port();
        let log = |stream: &str| {
            let path = folder.join(format!("engine.{port}.{stream}"));
            Stdio::from(std::fs::File::create(path).expect("the test's folder is writable"))
        };
        let child = Command::new(program)
            .arg("--model")
            .arg(&model)
            .args(["--host", "127.0.0.1", "--port", &port.to_string()])
            .args(flags)
            .envs(variables.iter().copied())
            .stdin(Stdio::null())
            .stdout(log("stdout"))
            .stderr(log("stderr"))
            .spawn()
            .unwrap_or_else(|error| panic!("{} does not start: {error}", program.display()));
        Self { child, port }
    }

    fn wait_until_ready(&self) {
        wait_for("the engine to get ready", READY_LIMIT, || {
            self.get("/health").is_some_and(|it| it.status == 200)
        });
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// `127.0.0.1:<port>`.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// `None` when it does not answer.
    pub fn get(&self, path: &str) -> Option<http::Reply> {
        http::get(&self.address(), path).ok()
    }

    /// Turns one knob of a living fake; an empty value takes it back.
    pub fn set_fault(&self, knob: &str, value: &str) {
        let reply =
            http::post_json(&self.address(), "/fake/faults", &json!({knob: value})).expect("the fake lives");
        assert_eq!(reply.status, 200, "{}", reply.text());
    }

    /// What a fake has done: `connections, requests, cancelled, tokens, in_flight, slots_busy`.
    pub fn stats(&self) -> Value {
        self.get("/fake/stats").expect("the fake lives").json()
    }

    /// The latest requests that a fake has seen: `{method, path, query, headers, body, body_length}` each.
    pub fn requests(&self) -> Vec<Value> {
        let seen = self.get("/fake/requests").expect("the fake lives").json();
        seen.as_array().cloned().unwrap_or_default()
    }

    /// SIGKILL, and reaped: as a crash looks from outside.
    pub fn kill(&mut self) {
        // Dead already is as good.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// How it ended; panics when it has not within `limit`.
    pub fn wait_for_exit(&mut self, limit: Duration) -> ExitStatus {
        wait_for_value("the engine to end", limit, || self.child.try_wait().expect("the child is ours"))
    }
}

impl Drop for RunningEngine {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A loopback port that is free now. Somebody else may take it before it is used; the kernel gives them out in
/// an order that makes that rare.
pub fn free_port() -> u16 {
    let probe = std::net::TcpListener::bind(("127.0.0.1", 0)).expect("loopback has a free port");
    probe.local_addr().expect("a bound listener has an address").port()
}
