//! A provider of text that is not one, as a program: it prints its address as JSON and serves until it is killed.

use std::io::Write as _;
use std::process::ExitCode;

use serde_json::json;
use testkit::provider::{FakeProvider, Script};

const HELP: &str = "\
A stand-in for providers of text: OpenAI (chat, responses), Anthropic and Ollama on one port.

fake-provider [--port N] [--script FILE] [--latency-ms N]

  --port N         the loopback port; 0, the default, takes a free one
  --script FILE    how to answer, as JSON: latency_ms, piece_ms, pieces, split_bytes, key, models, headers, rules
  --latency-ms N   from the request's last byte to the answer's first

A rule holds: contains, model, path, times, text ({prompt}, {hash}, {count}), thinking, tool_calls, finish,
latency_ms, piece_ms, headers, fault. A fault is {\"kind\": …}: refuse, hang, stall, slow (piece_ms), status (status,
retry_after, headers, body), garbage, page, cut, end, error (error_type, message), endless.

GET /stats and GET /requests tell what came; POST /script replaces the script.
";

struct Options {
    port: u16,
    script: Script,
}

fn main() -> ExitCode {
    match options(std::env::args().skip(1)) {
        Ok(Some(options)) => run(options),
        Ok(None) => say(HELP),
        Err(message) => fail(&message),
    }
}

fn run(options: Options) -> ExitCode {
    match FakeProvider::start_at(options.port, options.script) {
        Ok(provider) => {
            say(&format!("{}\n", json!({"address": provider.address(), "url": provider.url()})));
            loop {
                std::thread::park();
            }
        }
        Err(error) => fail(&format!("port {} cannot be used: {error}", options.port)),
    }
}

fn say(text: &str) -> ExitCode {
    let mut stdout = std::io::stdout();
    // Whoever started it has closed the pipe: nobody wants to know.
    let _ = stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush());
    ExitCode::SUCCESS
}

fn fail(message: &str) -> ExitCode {
    eprintln!("error: {message}");
    ExitCode::FAILURE
}

fn options(mut arguments: impl Iterator<Item = String>) -> Result<Option<Options>, String> {
    let mut options = Options { port: 0, script: Script::default() };
    let mut latency = None;
    while let Some(flag) = arguments.next() {
        if flag == "--help" {
            return Ok(None);
        }
        let value = arguments.next().ok_or_else(|| format!("{flag} needs a value"))?;
        let number = || value.parse::<u64>().map_err(|_| format!("{flag} needs a number, not {value}"));
        match flag.as_str() {
            "--port" => options.port = u16::try_from(number()?).map_err(|_| "no such port".to_owned())?,
            "--latency-ms" => latency = Some(number()?),
            "--script" => {
                let text = std::fs::read(&value).map_err(|error| format!("{value}: {error}"))?;
                options.script =
                    serde_json::from_slice(&text).map_err(|error| format!("{value}: {error}"))?;
            }
            _ => return Err(format!("{flag} is not known; see --help")),
        }
    }
    options.script.latency_ms = latency.unwrap_or(options.script.latency_ms);
    Ok(Some(options))
}
