//! Answering one request, and doing wrong what the script says.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{self, ErrorKind};
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};

use super::answer::{Told, error, error_frame, frames, whole};
use super::asked::{Asked, Speech, asked};
use super::connection::{Connection, Request};
use super::ledger::{Ledger, Prompt, SeenRequest};
use super::schema::instance;
use super::script::{Fault, Rule, Script};

/// The script, not the client, closes the connection.
const BROKEN_OFF: ErrorKind = ErrorKind::Interrupted;

fn broken_off() -> io::Error {
    BROKEN_OFF.into()
}

/// Takes connections until the runtime ends.
pub(crate) async fn serve(listener: TcpListener, ledger: Arc<Ledger>) {
    loop {
        // A client that has left again in the queue is no reason to stop.
        let Ok((stream, _)) = listener.accept().await else { continue };
        ledger.connected();
        let ledger = Arc::clone(&ledger);
        tokio::spawn(async move {
            // The client hears of it by the connection that closes.
            let _ = converse(stream, &ledger).await;
        });
    }
}

async fn converse(stream: TcpStream, ledger: &Ledger) -> io::Result<()> {
    let mut connection = Connection::new(stream)?;
    while let Some(request) = connection.request().await? {
        let path = request.path.split('?').next().unwrap_or_default().to_owned();
        connection.split = 0;
        match (request.method.as_str(), path.as_str()) {
            ("GET", "/stats") => whole_answer(&mut connection, 200, &json!(ledger.stats()), &[]).await?,
            ("GET", "/requests") => whole_answer(&mut connection, 200, &json!(ledger.seen()), &[]).await?,
            ("POST", "/script") => {
                let (status, said) = match serde_json::from_slice(&request.body) {
                    Ok(script) => {
                        ledger.set_script(script);
                        (200, json!({"ok": true}))
                    }
                    Err(error) => (400, json!({"error": error.to_string()})),
                };
                whole_answer(&mut connection, status, &said, &[]).await?;
            }
            ("GET", "/models" | "/v1/models" | "/api/tags") => {
                ledger.listed();
                let listed = models(&path, &ledger.script());
                whole_answer(&mut connection, 200, &listed, &[]).await?;
            }
            _ => {
                let answered = answer_request(&mut connection, ledger, request, &path).await;
                let by_script = answered.as_ref().is_err_and(|error| error.kind() == BROKEN_OFF);
                ledger.end(answered.is_ok() || by_script);
                answered?;
            }
        }
    }
    Ok(())
}

fn models(path: &str, script: &Script) -> Value {
    if path == "/api/tags" {
        let model =
            |name: &String| json!({"name": name, "model": name, "digest": format!("{:064x}", hash(name))});
        return json!({"models": script.models.iter().map(model).collect::<Vec<_>>()});
    }
    let model = |name: &String| json!({"id": name, "object": "model", "created": 1, "owned_by": "fake"});
    json!({"object": "list", "data": script.models.iter().map(model).collect::<Vec<_>>()})
}

/// What one request is answered from.
struct Turn {
    script: Script,
    rule: Rule,
    speech: Option<Speech>,
    headers: Vec<(String, String)>,
}

async fn answer_request(
    connection: &mut Connection,
    ledger: &Ledger,
    request: Request,
    path: &str,
) -> io::Result<()> {
    let speech = Speech::of_path(path);
    let text = String::from_utf8_lossy(&request.body).into_owned();
    let body: Value = serde_json::from_str(&text).unwrap_or(Value::String(text));
    let asked = speech.map(|speech| asked(speech, &body));
    let prompt = asked.as_ref().map_or_else(
        || Prompt { last: path.to_owned(), all: body.to_string(), ..Prompt::default() },
        |asked| asked.prompt.clone(),
    );
    let seen = SeenRequest {
        method: request.method,
        path: request.path,
        headers: request.headers.clone(),
        body,
        at_ms: ledger.now_ms(),
    };
    let echo = asked.is_none().then(|| json!(seen));
    let (script, rule, count) = ledger.begin(seen, &prompt, path);
    let rule = rule.unwrap_or_default();
    let headers = script.headers.iter().chain(&rule.headers);
    let headers = headers.map(|(name, value)| (name.clone(), value.clone())).collect();
    let turn = Turn { script, rule, speech, headers };
    connection.split = turn.script.split_bytes;
    connection.pause(Duration::from_millis(turn.rule.latency_ms.unwrap_or(turn.script.latency_ms))).await?;
    if !has_key(&turn.script, &request.headers) {
        let said = error(speech, 401, "authentication_error", "this key is not known");
        return whole_answer(connection, 401, &said, &turn.headers).await;
    }
    if early_fault(connection, &turn).await? {
        return Ok(());
    }
    match (speech, asked) {
        (Some(speech), Some(asked)) => {
            let told = told(&turn, &asked, count);
            speak(connection, &turn, speech, &asked, &told).await
        }
        _ => match &turn.rule.text {
            Some(text) => body_answer(connection, 200, "text/plain", text.as_bytes(), &turn.headers).await,
            None => whole_answer(connection, 200, &echo.unwrap_or_default(), &turn.headers).await,
        },
    }
}

fn has_key(script: &Script, headers: &BTreeMap<String, String>) -> bool {
    let Some(key) = &script.key else { return true };
    let bearer = headers.get("authorization").and_then(|value| value.strip_prefix("Bearer "));
    bearer == Some(key) || headers.get("x-api-key") == Some(key)
}

/// The faults that strike before the first word. `true`: the request is answered.
async fn early_fault(connection: &mut Connection, turn: &Turn) -> io::Result<bool> {
    match &turn.rule.fault {
        Some(Fault::Refuse) => Err(broken_off()),
        Some(Fault::Hang) => {
            connection.left().await;
            Err(ErrorKind::ConnectionAborted.into())
        }
        Some(Fault::Status { status, retry_after, headers, body }) => {
            let mut all = turn.headers.clone();
            all.extend(headers.iter().map(|(name, value)| (name.clone(), value.clone())));
            all.extend(retry_after.iter().map(|value| ("retry-after".to_owned(), value.clone())));
            let said = body.clone().unwrap_or_else(|| {
                error(
                    turn.speech,
                    *status,
                    word_for(*status),
                    &format!("the fake was told to answer {status}"),
                )
            });
            whole_answer(connection, *status, &said, &all).await.map(|()| true)
        }
        Some(Fault::Garbage) => {
            let junk = b"data: {\"choices\":[{\"delta\n\n";
            body_answer(connection, 200, "text/event-stream", junk, &turn.headers).await.map(|()| true)
        }
        Some(Fault::Page) => {
            let page = b"<html><body>It works!</body></html>";
            body_answer(connection, 200, "text/html", page, &turn.headers).await.map(|()| true)
        }
        Some(Fault::Endless) => endless(connection).await,
        _ => Ok(false),
    }
}

async fn endless(connection: &mut Connection) -> io::Result<bool> {
    connection.write(&stream_head("text/event-stream", &[])).await?;
    chunk(connection, b"data: ").await?;
    let much = vec![b'x'; 64 * 1024];
    loop {
        chunk(connection, &much).await?;
    }
}

const fn word_for(status: u16) -> &'static str {
    match status {
        401 => "authentication_error",
        403 => "permission_error",
        404 => "not_found_error",
        429 => "rate_limit_error",
        400..=499 => "invalid_request_error",
        529 => "overloaded_error",
        _ => "api_error",
    }
}

/// What the model says: scripted, else a value that fits the schema, else the prompt's hash and the prompt.
fn told(turn: &Turn, asked: &Asked, count: u64) -> Told {
    let hash = format!("{:016x}", hash(&asked.prompt.all));
    let text = match (&turn.rule.text, &asked.schema) {
        (Some(text), _) => text
            .replace("{hash}", &hash)
            .replace("{count}", &count.to_string())
            .replace("{prompt}", &asked.prompt.last),
        (None, Some(schema)) => instance(schema, &hash).to_string(),
        (None, None) => format!("{hash} {}", asked.prompt.last),
    };
    let tools = !turn.rule.tool_calls.is_empty();
    let mut finish = turn.rule.finish.clone().unwrap_or(if tools { "tool_calls" } else { "stop" }.to_owned());
    let mut words: Vec<&str> = text.split_inclusive(char::is_whitespace).collect();
    if let Some(limit) = asked.max_tokens.filter(|limit| words.len() as u64 > *limit) {
        words.truncate(usize::try_from(limit).unwrap_or(usize::MAX));
        "length".clone_into(&mut finish);
    }
    Told {
        model: asked.prompt.model.clone(),
        pieces: pieces(&words.concat(), turn.script.pieces),
        thinking: turn.rule.thinking.clone(),
        tool_calls: turn.rule.tool_calls.clone(),
        finish,
        prompt_tokens: asked.prompt.all.split_whitespace().count(),
        completion_tokens: words.len(),
    }
}

/// FNV-1a: the same on every machine and in every release.
fn hash(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

fn pieces(text: &str, count: usize) -> Vec<String> {
    let characters: Vec<char> = text.chars().collect();
    let size = characters.len().div_ceil(count.max(1)).max(1);
    characters.chunks(size).map(|piece| piece.iter().collect()).collect()
}

async fn speak(
    connection: &mut Connection,
    turn: &Turn,
    speech: Speech,
    asked: &Asked,
    told: &Told,
) -> io::Result<()> {
    if !asked.streams {
        return whole_answer(connection, 200, &whole(speech, asked, told), &turn.headers).await;
    }
    let media_type = if speech == Speech::Ollama { "application/x-ndjson" } else { "text/event-stream" };
    let all = frames(speech, asked, told);
    let middle = all.len() / 2;
    let pause = match turn.rule.fault {
        Some(Fault::Slow { piece_ms }) => piece_ms,
        _ => turn.rule.piece_ms.unwrap_or(turn.script.piece_ms),
    };
    let sent = match turn.rule.fault {
        Some(Fault::Cut | Fault::Stall | Fault::End | Fault::Error { .. }) => &all[..middle],
        _ => &all[..],
    };
    let mut out = stream_head(media_type, &turn.headers);
    for frame in sent {
        push_chunk(&mut out, frame.as_bytes());
        if pause > 0 {
            connection.write(&std::mem::take(&mut out)).await?;
            connection.pause(Duration::from_millis(pause)).await?;
        }
    }
    match &turn.rule.fault {
        Some(Fault::Cut) => {
            connection.write(&out).await?;
            return Err(broken_off());
        }
        Some(Fault::Stall) => {
            connection.write(&out).await?;
            connection.left().await;
            return Err(ErrorKind::ConnectionAborted.into());
        }
        Some(Fault::Error { error_type, message }) => {
            push_chunk(&mut out, error_frame(speech, error_type, message).as_bytes());
        }
        _ => {}
    }
    out.extend_from_slice(b"0\r\n\r\n");
    connection.write(&out).await
}

async fn whole_answer(
    connection: &mut Connection,
    status: u16,
    body: &Value,
    headers: &[(String, String)],
) -> io::Result<()> {
    body_answer(connection, status, "application/json", body.to_string().as_bytes(), headers).await
}

async fn body_answer(
    connection: &mut Connection,
    status: u16,
    media_type: &str,
    body: &[u8],
    headers: &[(String, String)],
) -> io::Result<()> {
    let mut head = head(status, media_type, headers);
    // Writing to a String cannot fail.
    let _ = write!(head, "content-length: {}\r\n\r\n", body.len());
    let mut bytes = head.into_bytes();
    bytes.extend_from_slice(body);
    connection.write(&bytes).await
}

fn head(status: u16, media_type: &str, headers: &[(String, String)]) -> String {
    let mut head = format!("HTTP/1.1 {status} Status\r\ncontent-type: {media_type}\r\n");
    for (name, value) in headers {
        // Writing to a String cannot fail.
        let _ = write!(head, "{name}: {value}\r\n");
    }
    head
}

fn stream_head(media_type: &str, headers: &[(String, String)]) -> Vec<u8> {
    let mut head = head(200, media_type, headers);
    head.push_str("transfer-encoding: chunked\r\n\r\n");
    head.into_bytes()
}

async fn chunk(connection: &mut Connection, bytes: &[u8]) -> io::Result<()> {
    let mut framed = Vec::with_capacity(bytes.len() + 16);
    push_chunk(&mut framed, bytes);
    connection.write(&framed).await
}

fn push_chunk(out: &mut Vec<u8>, bytes: &[u8]) {
    out.extend_from_slice(format!("{:x}\r\n", bytes.len()).as_bytes());
    out.extend_from_slice(bytes);
    out.extend_from_slice(b"\r\n");
}
