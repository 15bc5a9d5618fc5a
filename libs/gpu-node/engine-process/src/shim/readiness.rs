//! Asks a new engine whether it is ready, and tells the world when it is.
//!
//! The questions never block the loop: a request is sent, and the answer is looked for at the next steps.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::time::{Duration, Instant};

use serde::Deserialize;

use crate::handoff::{Handoff, HandoffModel};
use crate::identity::{Ownership, ProcessIdentity, executable_of};
use crate::spec::EngineSpec;

/// To an engine on this machine a connection takes no time; the limit is for a full queue.
const CONNECT_LIMIT: Duration = Duration::from_millis(200);
const ANSWER_LIMIT: Duration = Duration::from_secs(5);
/// Properties hold the chat template, which can be long.
const ANSWER_SIZE: usize = 4 * 1024 * 1024;
/// Between a question and the look for its answer.
const LOOK: Duration = Duration::from_millis(10);
const FIRST_PAUSE: Duration = Duration::from_millis(20);
const LONGEST_PAUSE: Duration = Duration::from_millis(100);
/// While the handoff file cannot be written.
const WRITE_PAUSE: Duration = Duration::from_secs(1);
/// An engine that is ready but does not tell its slots is believed to have what its arguments ask for.
const PROPERTIES_TRIES: u32 = 3;

const HEALTH_PATHS: [&str; 2] = ["/health", "/v1/health"];

pub(super) struct Readiness {
    spec: EngineSpec,
    identity: ProcessIdentity,
    state: State,
    pause: Duration,
    health_path: usize,
    properties_tries: u32,
}

enum State {
    Resting {
        until: Instant,
        next: Question,
    },
    Asking {
        question: Question,
        exchange: Exchange,
    },
    /// Ready, but the handoff file could not be written yet.
    Untold {
        slots: u32,
        until: Instant,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Question {
    Health,
    Properties,
}

#[derive(Deserialize)]
struct Properties {
    total_slots: Option<u32>,
}

impl Readiness {
    pub(super) fn new(mut spec: EngineSpec, identity: ProcessIdentity) -> Self {
        // What the engine got is of no more use here, and it may hold secrets.
        spec.env = Vec::new();
        let state = State::Resting { until: Instant::now(), next: Question::Health };
        Self { spec, identity, state, pause: FIRST_PAUSE, health_path: 0, properties_tries: 0 }
    }

    /// Does what is due. Returns when to come back; `None` when the handoff file is written.
    pub(super) fn step(&mut self, now: Instant) -> Option<Duration> {
        match &mut self.state {
            State::Resting { until, .. } | State::Untold { until, .. } if *until > now => Some(*until - now),
            State::Resting { next, .. } => {
                let question = *next;
                self.ask(question, now)
            }
            State::Asking { question, exchange } => {
                let question = *question;
                match exchange.look(now) {
                    Look::Wait => Some(LOOK),
                    Look::Broken => self.retry(question, now),
                    Look::Answer(status, body) => self.hear(question, status, &body, now),
                }
            }
            State::Untold { slots, .. } => {
                let slots = *slots;
                self.tell(slots, now)
            }
        }
    }

    fn ask(&mut self, question: Question, now: Instant) -> Option<Duration> {
        let path = match question {
            Question::Health => HEALTH_PATHS[self.health_path],
            Question::Properties => "/props",
        };
        let Some(exchange) = Exchange::begin(&self.spec, path, now) else { return self.retry(question, now) };
        self.state = State::Asking { question, exchange };
        Some(LOOK)
    }

    /// Asks again later. Pauses grow: every question leaves a line in the engine's log.
    fn retry(&mut self, question: Question, now: Instant) -> Option<Duration> {
        if question == Question::Properties {
            self.properties_tries += 1;
            if self.properties_tries >= PROPERTIES_TRIES {
                return self.tell(self.asked_slots(), now);
            }
        }
        let pause = self.pause;
        self.pause = (pause * 3 / 2).min(LONGEST_PAUSE);
        self.state = State::Resting { until: now + pause, next: question };
        Some(pause)
    }

    fn hear(&mut self, question: Question, status: u16, body: &[u8], now: Instant) -> Option<Duration> {
        match question {
            Question::Health if status == 200 => {
                self.state = State::Resting { until: now, next: Question::Properties };
                Some(Duration::ZERO)
            }
            Question::Health => {
                if status == 404 {
                    self.health_path = (self.health_path + 1) % HEALTH_PATHS.len();
                }
                self.retry(question, now)
            }
            Question::Properties => {
                let properties: Option<Properties> = serde_json::from_slice(body).ok();
                match properties.filter(|_| status == 200).and_then(|properties| properties.total_slots) {
                    Some(slots) => self.tell(slots, now),
                    None => self.retry(question, now),
                }
            }
        }
    }

    fn asked_slots(&self) -> u32 {
        let asked = self.spec.args.windows(2).rev().find(|pair| pair[0] == "--parallel" || pair[0] == "-np");
        asked.and_then(|pair| pair[1].parse().ok()).unwrap_or(1)
    }

    fn tell(&mut self, slots: u32, now: Instant) -> Option<Duration> {
        if self.handoff(slots).write(&self.spec.handoff).is_ok() {
            return None;
        }
        self.state = State::Untold { slots, until: now + WRITE_PAUSE };
        Some(WRITE_PAUSE)
    }

    fn handoff(&self, slots: u32) -> Handoff {
        let spec = &self.spec;
        Handoff {
            pool_id: spec.instance.to_string(),
            replica_id: spec.replica,
            instance: spec.instance.clone(),
            engine: "llama.cpp".to_owned(),
            engine_version: spec.engine_version.clone(),
            exe: self.executable_now(),
            url: format!("http://{}:{}", bracketed(reachable_host(&spec.host)), spec.port),
            pid: self.identity.pid,
            process_started_at: self.identity.started_at.clone(),
            shim_pid: std::process::id(),
            slots_total: slots,
            slots_free: slots,
            device_mask: spec.device_mask.clone(),
            model: HandoffModel { id: spec.instance.to_string(), path: spec.model_path.clone() },
            config_hash: spec.config_hash.clone(),
            api_key: spec.api_key.clone(),
        }
    }

    /// A wrapper script may have become another program since; the handoff tells what runs now.
    fn executable_now(&self) -> std::path::PathBuf {
        let recorded = self.identity.executable.clone();
        if matches!(self.identity.check(), Ownership::Foreign { .. }) {
            return executable_of(self.identity.pid).unwrap_or(recorded);
        }
        recorded
    }
}

/// One request and the answer so far.
struct Exchange {
    stream: TcpStream,
    received: Vec<u8>,
    end: Instant,
}

enum Look {
    Wait,
    Broken,
    Answer(u16, Vec<u8>),
}

impl Exchange {
    fn begin(spec: &EngineSpec, path: &str, now: Instant) -> Option<Self> {
        let host = reachable_host(&spec.host);
        let mut stream = TcpStream::connect_timeout(&address(host, spec.port)?, CONNECT_LIMIT).ok()?;
        // HTTP/1.0: no chunks, and the end of the connection is the end of the answer.
        let mut request = format!("GET {path} HTTP/1.0\r\nHost: {}:{}\r\n", bracketed(host), spec.port);
        if let Some(key) = &spec.api_key {
            request.extend(["Authorization: Bearer ", key, "\r\n"]);
        }
        request.push_str("Connection: close\r\n\r\n");
        stream.set_nonblocking(true).ok()?;
        // Far smaller than a new connection's buffer, so it is taken at once.
        stream.write_all(request.as_bytes()).ok()?;
        Some(Self { stream, received: Vec::new(), end: now + ANSWER_LIMIT })
    }

    fn look(&mut self, now: Instant) -> Look {
        let mut block = [0; 4096];
        loop {
            match self.stream.read(&mut block) {
                Ok(0) => return self.parse(true),
                Ok(read) => self.received.extend_from_slice(&block[..read]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => return Look::Broken,
            }
            if self.received.len() > ANSWER_SIZE {
                return Look::Broken;
            }
        }
        if now >= self.end { Look::Broken } else { self.parse(false) }
    }

    /// An answer is complete when its announced length is there, or when the connection ended.
    fn parse(&self, ended: bool) -> Look {
        let mut headers = [httparse::EMPTY_HEADER; 64];
        let mut response = httparse::Response::new(&mut headers);
        let head = match response.parse(&self.received) {
            Ok(httparse::Status::Complete(head)) => head,
            Ok(httparse::Status::Partial) if !ended => return Look::Wait,
            _ => return Look::Broken,
        };
        let body = &self.received[head..];
        let length =
            response.headers.iter().find(|header| header.name.eq_ignore_ascii_case("content-length"));
        let length =
            length.and_then(|header| std::str::from_utf8(header.value).ok()?.trim().parse::<usize>().ok());
        match (length, response.code) {
            (Some(length), Some(code)) if body.len() >= length => Look::Answer(code, body[..length].to_vec()),
            (None, Some(code)) if ended => Look::Answer(code, body.to_vec()),
            _ if ended => Look::Broken,
            _ => Look::Wait,
        }
    }
}

/// The first of several hosts; a wildcard is reached through loopback.
fn reachable_host(host: &str) -> &str {
    match host.split(',').next().unwrap_or(host).trim() {
        // The last one spares the shim the system's resolver, which is larger than the shim.
        "0.0.0.0" | "*" | "" | "localhost" => "127.0.0.1",
        "::" | "[::]" => "::1",
        other => other,
    }
}

fn bracketed(host: &str) -> String {
    if host.contains(':') && !host.starts_with('[') { format!("[{host}]") } else { host.to_owned() }
}

fn address(host: &str, port: u16) -> Option<SocketAddr> {
    let host = host.trim_start_matches('[').trim_end_matches(']');
    match host.parse() {
        Ok(ip) => Some(SocketAddr::new(ip, port)),
        Err(_) => (host, port).to_socket_addrs().ok()?.next(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wildcards_are_reached_through_loopback() {
        assert_eq!(reachable_host("0.0.0.0"), "127.0.0.1");
        assert_eq!(reachable_host("::"), "::1");
        assert_eq!(reachable_host("10.0.0.5, 127.0.0.1"), "10.0.0.5");
        assert_eq!(bracketed("::1"), "[::1]");
        assert_eq!(address("[::1]", 80), address("::1", 80));
    }
}
