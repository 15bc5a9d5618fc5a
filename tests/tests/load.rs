//! Many requests through one port while engines are killed under them: each ends in exactly one way, and none that
//! had not begun to answer fails while another engine is up.
//!
//! `LOAD_REQUESTS` says how many there are, `LOAD_KILL_EVERY_MS` how often an engine is killed.

#![cfg(target_os = "linux")]
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use serde_json::json;
use support::SOON;
use support::home::{Daemon, Home};
use support::processes::{engines_in, try_to_kill};
use testkit::{http, wait_for};

/// Few enough for every day; the goal is 20,000 with a kill every 2 s.
const REQUESTS: usize = 1500;
const KILL_EVERY_MS: usize = 400;
const CLIENTS: usize = 64;
const REPLICAS: usize = 3;
const LIMIT: Duration = Duration::from_secs(120);
const NAME: &str = "pool";

/// How a request ended, as its client saw it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum End {
    Whole,
    /// A stream that had begun, with its terminal error event.
    ToldBroken,
}

fn from_environment(variable: &str, usual: usize) -> usize {
    std::env::var(variable).map_or(usual, |text| text.parse().unwrap())
}

#[test]
fn every_request_has_one_end_while_engines_are_killed_and_only_begun_streams_break() {
    let requests = from_environment("LOAD_REQUESTS", REQUESTS);
    let pause = Duration::from_millis(from_environment("LOAD_KILL_EVERY_MS", KILL_EVERY_MS) as u64);
    let home = Home::fake();
    let policy = json!({"initial_delay": 0.05, "max_delay": 0.1, "max_retries": 100});
    let engine = json!({"FAKE_TOKENS": "6", "FAKE_TOKEN_MS": "3"});
    home.instance(
        NAME,
        &json!({"replicas": REPLICAS, "server": {"parallel": 8}, "env": engine, "restart_policy": policy}),
    );
    let daemon = home.start_daemon();
    home.ok(&["up", NAME]);
    let (next, over) = (AtomicUsize::new(0), AtomicBool::new(false));
    let ends = Mutex::new(Vec::with_capacity(requests));
    let begun = Instant::now();
    let kills = std::thread::scope(|scope| {
        let killer = scope.spawn(|| kill_now_and_then(&home, &daemon, pause, &over));
        let clients: Vec<_> = (0..CLIENTS)
            .map(|_| {
                scope.spawn(|| {
                    loop {
                        let number = next.fetch_add(1, Ordering::Relaxed);
                        if number >= requests {
                            return;
                        }
                        let end = ask(&daemon.address, number % 2 == 0);
                        ends.lock().unwrap().push(end);
                    }
                })
            })
            .collect();
        for client in clients {
            client.join().unwrap();
        }
        over.store(true, Ordering::Relaxed);
        killer.join().unwrap()
    });
    let ends = ends.into_inner().unwrap();
    let broken = ends.iter().filter(|end| **end == End::ToldBroken).count();
    eprintln!(
        "{requests} requests, {kills} engines killed, {broken} begun streams broke, {:?}",
        begun.elapsed()
    );
    assert_eq!(ends.len(), requests);
    assert!(kills > 0, "nothing was killed");
    assert_all_recorded_and_free(&daemon, requests, broken);
}

/// Kills one engine after the other, always leaving one that serves. Says how many.
fn kill_now_and_then(home: &Home, daemon: &Daemon, pause: Duration, over: &AtomicBool) -> usize {
    let mut killed = 0;
    let mut last = Instant::now();
    wait_for("the requests", LIMIT * 10, || {
        if last.elapsed() >= pause && serving(daemon) == REPLICAS {
            let engines = engines_in(home.path());
            if let Some((pid, _)) = engines.get(killed % REPLICAS) {
                try_to_kill(*pid);
                killed += 1;
                last = Instant::now();
            }
        }
        over.load(Ordering::Relaxed)
    });
    killed
}

fn serving(daemon: &Daemon) -> usize {
    let rows = http::get(&daemon.address, "/v2/instances").unwrap().json();
    rows.as_array().unwrap().iter().filter(|row| row["health"] == "healthy").count()
}

fn ask(address: &str, streams: bool) -> End {
    let body = json!({"model": NAME, "stream": streams, "messages": [{"role": "user", "content": "hi"}]});
    let (head, text) = exchange(address, &body.to_string());
    assert!(head.starts_with("HTTP/1.1 200"), "no answer had begun: {head}\n{text}");
    match streams {
        false => assert!(text.contains("\"choices\""), "{text}"),
        true if text.contains("data: [DONE]") => {}
        true => {
            let errors = text.matches("data: {\"error\"").count();
            assert_eq!(errors, 1, "a broken stream says so once: {text}");
            return End::ToldBroken;
        }
    }
    End::Whole
}

/// Head and rest of an answer, whether it is whole or not.
fn exchange(address: &str, body: &str) -> (String, String) {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(LIMIT)).unwrap();
    write!(
        stream,
        "POST /v1/chat/completions HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\
         content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    )
    .unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    let answer = String::from_utf8_lossy(&answer).into_owned();
    let (head, rest) = answer.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no head: {answer:?}"));
    (head.to_owned(), rest.to_owned())
}

/// The request log knows each request once, with the end that its client saw, and nobody holds a slot any more.
#[track_caller]
fn assert_all_recorded_and_free(daemon: &Daemon, requests: usize, broken: usize) {
    let sum = |text: &str, name: &str| -> usize {
        let lines = text.lines().filter(|line| line.starts_with(name));
        lines.map(|line| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap() as usize).sum()
    };
    wait_for("all slots to be free", SOON, || {
        let text = http::get(&daemon.address, "/metrics").unwrap().text();
        sum(&text, "slots_free{") == sum(&text, "slots_total{") && serving(daemon) == REPLICAS
    });
    let ends = || {
        let rows = http::get(&daemon.address, "/v2/usage").unwrap().json();
        let count = |field: &str| -> u64 {
            rows.as_array().unwrap().iter().map(|row| row[field].as_u64().unwrap()).sum()
        };
        ["requests", "done", "broken", "refused", "canceled"].map(count)
    };
    let all = requests as u64;
    let expected = [all, all - broken as u64, broken as u64, 0, 0];
    // Records are written in batches, beside the requests.
    wait_for("the request log", SOON, || ends()[0] >= all);
    assert_eq!(ends(), expected, "requests, done, broken, refused, canceled");
}
