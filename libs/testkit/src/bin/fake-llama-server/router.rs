//! Which request gets which answer, in the order in which the real one checks.

use std::io;
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::answers::{embeddings, error, health, input_tokens, metrics, props, slots, tokens};
use crate::connection::{Answer, Connection, Request};
use crate::engine::Engine;
use crate::generation::{Dialect, generate};
use crate::logs::log;
use crate::models::models;
use crate::{control, stream};

/// Accepts connections for ever, each on its own thread.
pub(crate) fn serve(engine: &Arc<Engine>, listener: &TcpListener) {
    if let Ok(address) = listener.local_addr() {
        log(&format!("srv  llama_server: listening on http://{address}"));
    }
    for accepted in listener.incoming() {
        match accepted {
            Ok(stream) => {
                let engine = Arc::clone(engine);
                engine.counters.connections.fetch_add(1, Ordering::Relaxed);
                std::thread::spawn(move || converse(&engine, stream));
            }
            Err(error) => log(&format!("fake: accept: {error}")),
        }
    }
}

/// All requests of one connection. Any error means that it is over.
fn converse(engine: &Arc<Engine>, stream: TcpStream) {
    let Ok(mut connection) = Connection::new(stream) else { return };
    while let Ok(Some(request)) = connection.read_request() {
        let close = request.header("connection").is_some_and(|value| value.eq_ignore_ascii_case("close"));
        if answer(engine, &request, &mut connection).is_err() || close {
            return;
        }
    }
}

fn answer(engine: &Arc<Engine>, request: &Request, connection: &mut Connection) -> io::Result<()> {
    if request.path.starts_with("/fake/") {
        return connection.answer(&control::answer(engine, request));
    }
    engine.remember(control::describe(request));
    let faults = engine.faults();
    let hang = faults.text("FAKE_HANG").unwrap_or("");
    let is_health = matches!(request.path.as_str(), "/health" | "/v1/health");
    if hang == "all" || (hang == "health" && is_health) {
        return Err(connection.hang());
    }
    if !engine.is_ready() {
        return connection.answer(&error(503, "unavailable_error", "Loading model"));
    }
    if is_health {
        connection.pause(faults.millis("FAKE_HEALTH_MS"))?;
        return connection.answer(&health(&faults));
    }
    if !is_authorized(engine, request) {
        return connection.answer(&error(401, "authentication_error", "Invalid API Key"));
    }
    match dialect(request) {
        Some(dialect) => infer(engine, request, connection, dialect),
        None => connection.answer(&plain(engine, request)),
    }
}

fn is_authorized(engine: &Engine, request: &Request) -> bool {
    let keys = &engine.options.api_keys;
    let bearer = request.header("authorization").map(|value| value.strip_prefix("Bearer ").unwrap_or(value));
    let given = bearer.or_else(|| request.header("x-api-key"));
    keys.is_empty() || given.is_some_and(|given| keys.iter().any(|key| key == given))
}

fn dialect(request: &Request) -> Option<Dialect> {
    if request.method != "POST" {
        return None;
    }
    match request.path.as_str() {
        "/v1/chat/completions" | "/chat/completions" => Some(Dialect::Chat),
        "/v1/completions" | "/completions" | "/completion" => Some(Dialect::Completion),
        "/v1/messages" => Some(Dialect::Messages),
        _ => None,
    }
}

fn plain(engine: &Engine, request: &Request) -> Answer {
    match (request.method.as_str(), request.path.as_str()) {
        ("GET", "/props") => props(engine),
        ("GET", "/slots") => slots(engine),
        ("GET", "/metrics") => metrics(engine),
        ("GET", "/v1/models" | "/models") => models(engine),
        ("POST", "/tokenize") => tokens(request),
        ("POST", "/v1/embeddings" | "/embeddings" | "/embedding") => embeddings(engine, request),
        ("POST", "/v1/messages/count_tokens" | "/v1/chat/completions/input_tokens") => input_tokens(request),
        _ => error(404, "not_found_error", "File Not Found"),
    }
}

/// A generation, with everything that may go wrong with it.
fn infer(
    engine: &Engine,
    request: &Request,
    connection: &mut Connection,
    dialect: Dialect,
) -> io::Result<()> {
    let guard = engine.begin_request();
    if engine.faults().text("FAKE_HANG") == Some("inference") {
        return Err(connection.hang());
    }
    if let Some(status) = control::take_status(engine) {
        return connection.answer(&error(status, "server_error", "the fake was told to fail"));
    }
    let generation = match generate(engine, request, dialect) {
        Ok(generation) => generation,
        Err(refusal) => return connection.answer(&refusal),
    };
    let outcome = engine.take_slot(connection).and_then(|slot| {
        let outcome = stream::play(engine, connection, &generation);
        drop(slot);
        outcome
    });
    drop(guard);
    if outcome.as_ref().is_err_and(|error| error.kind() != io::ErrorKind::ConnectionAborted) {
        engine.counters.cancelled.fetch_add(1, Ordering::Relaxed);
        log("srv          stop: cancel task, the client has left");
    }
    outcome
}
