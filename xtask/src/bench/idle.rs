//! What streams that wait for their next token cost the gateway in memory.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::json;
use testkit::free_port;

use super::contenders::{CHAT, MODEL, chat};
use super::numbers::megabytes;
use super::ours::{API_KEY, Ours};
use super::processes::proportional_kib;
use super::report::workspace;
use crate::command::run;

const STREAMS: usize = 2000;
/// More than the streams, so that none of them queues.
const SLOTS: &str = "2500";
/// Of all slots together.
const CONTEXT: &str = "1000000";
const ANSWER_LIMIT: Duration = Duration::from_secs(30);

/// Opens streams to an engine that says one token and then nothing, and asks the kernel what the daemon holds.
pub(super) fn measure(program: &Path) -> Result<String> {
    let ours = Ours::with_engine(program, quiet_engine()?);
    let silence =
        json!({"env": {"FAKE_HANG_AFTER_TOKENS": "1"}, "args": ["--parallel", SLOTS, "--ctx-size", CONTEXT]});
    ours.write_instance(MODEL, free_port(), 1, &silence);
    ours.run(&["daemon", "start"])?;
    ours.run(&["up", MODEL])?;
    let daemon = ours.daemon_pid()?;
    let mut streams = vec![open(&ours.address())?];
    let before = proportional_kib(daemon)?;
    for _ in 0..STREAMS {
        streams.push(open(&ours.address())?);
    }
    let after = proportional_kib(daemon)?;
    drop(streams);
    ours.run(&["down", MODEL, "--force"])?;
    let more = megabytes(after.saturating_sub(before));
    Ok(format!(
        "{STREAMS} streams that have had one token and wait for the next (a fake engine that never sends it): the \
         daemon's memory (PSS) grows by {more:.1} MB, {:.1} KB a stream (goal: ≤ 60 MB).\n",
        more * 1000.0 / STREAMS as f64
    ))
}

/// The test kit's engine: a real one would have to keep 2,000 slots.
fn quiet_engine() -> Result<std::path::PathBuf> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut build = Command::new(cargo);
    run(build
        .args(["build", "--package", "testkit", "--bin", "fake-llama-server"])
        .current_dir(workspace()))?;
    let own = std::env::current_exe().context("a running program has an executable")?;
    let folder = own.parent().context("a program lies in a folder")?;
    let engine = folder.join(format!("fake-llama-server{}", std::env::consts::EXE_SUFFIX));
    ensure!(engine.is_file(), "the build has left no {}", engine.display());
    Ok(engine)
}

/// A stream whose first token has come.
fn open(address: &str) -> Result<TcpStream> {
    let body = chat(64, true);
    let mut stream = TcpStream::connect(address).context("the gateway takes no connection")?;
    stream.set_read_timeout(Some(ANSWER_LIMIT))?;
    write!(
        stream,
        "POST {CHAT} HTTP/1.1\r\nhost: {address}\r\nauthorization: Bearer {API_KEY}\r\n\
         content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    )?;
    let mut got = Vec::new();
    let mut piece = [0; 4096];
    while !got.windows(6).any(|part| part == b"data: ") {
        let count = stream.read(&mut piece).context("the stream does not begin")?;
        ensure!(count > 0, "the stream ended: {}", String::from_utf8_lossy(&got));
        got.extend_from_slice(&piece[..count]);
    }
    Ok(stream)
}
