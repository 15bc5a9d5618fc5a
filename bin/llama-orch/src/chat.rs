//! One question through the gateway, the answer word by word.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE, HOST};
use http::{HeaderValue, Request};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use orch_core::{ExitCode, Failure};
use serde_json::{Value, json};
use tokio::net::TcpStream;

use crate::ending::Ended;

const CONNECT_LIMIT: Duration = Duration::from_secs(3);
/// The longest silence: a long prompt on a slow machine.
const SILENCE_LIMIT: Duration = Duration::from_secs(120);
/// Far above any answer of so few tokens.
const LARGEST_ANSWER: usize = 4 * 1024 * 1024;

/// What is asked, and where.
pub(crate) struct Question<'a> {
    pub(crate) gateway: SocketAddr,
    pub(crate) token: &'a str,
    pub(crate) model: &'a str,
    pub(crate) prompt: &'a str,
    pub(crate) max_tokens: u32,
}

/// What came back.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Answer {
    pub(crate) text: String,
    /// From the request to the first word.
    pub(crate) first_token: Option<Duration>,
    pub(crate) total: Duration,
    /// As the engine counts them, where it does.
    pub(crate) tokens: Option<u64>,
    pub(crate) tokens_per_second: Option<f64>,
}

/// Asks, and hands on each piece of text as it arrives.
pub(crate) async fn ask(
    question: &Question<'_>,
    on_text: &mut dyn FnMut(&str) -> Result<(), Ended>,
) -> Result<Answer, Ended> {
    let connect = TcpStream::connect(question.gateway);
    let stream = match tokio::time::timeout(CONNECT_LIMIT, connect).await {
        Ok(stream) => stream.map_err(|error| broken(&error))?,
        Err(_) => return Err(failed("the gateway does not answer").into()),
    };
    let handshake = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await;
    let (mut sender, connection) = handshake.map_err(|error| broken(&error))?;
    let request = request(question)?;
    let begun = Instant::now();
    let conversation = async {
        let sent = tokio::time::timeout(SILENCE_LIMIT, sender.send_request(request)).await;
        let response = sent.map_err(|_| failed("the gateway is silent"))?.map_err(|error| broken(&error))?;
        let is_stream = response.status().is_success();
        let mut reading = Reading::new(begun, is_stream);
        read(response.into_body(), &mut reading, on_text).await?;
        reading.finish()
    };
    // The connection is driven beside the conversation and ends with it: no task is left behind.
    tokio::pin!(conversation);
    tokio::pin!(connection);
    tokio::select! {
        biased;
        answer = &mut conversation => answer,
        ended = &mut connection => match ended {
            Ok(()) => conversation.await,
            Err(error) => Err(broken(&error).into()),
        },
    }
}

fn request(question: &Question<'_>) -> Result<Request<Full<Bytes>>, Failure> {
    let body = json!({
        "model": question.model,
        "messages": [{"role": "user", "content": question.prompt}],
        "max_tokens": question.max_tokens,
        "stream": true,
    });
    let mut key =
        HeaderValue::from_str(&format!("Bearer {}", question.token)).map_err(|error| broken(&error))?;
    key.set_sensitive(true);
    Request::post("/v1/chat/completions")
        .header(HOST, question.gateway.to_string())
        .header(CONTENT_TYPE, "application/json")
        .header(AUTHORIZATION, key)
        .body(Full::new(Bytes::from(body.to_string())))
        .map_err(|error| broken(&error))
}

async fn read(
    mut body: Incoming,
    reading: &mut Reading,
    on_text: &mut dyn FnMut(&str) -> Result<(), Ended>,
) -> Result<(), Ended> {
    loop {
        let frame = tokio::time::timeout(SILENCE_LIMIT, body.frame()).await;
        let Some(frame) = frame.map_err(|_| failed("the gateway fell silent"))? else { return Ok(()) };
        if let Ok(data) = frame.map_err(|error| broken(&error))?.into_data() {
            reading.take(&data, on_text)?;
        }
    }
}

fn broken(error: &dyn std::fmt::Display) -> Failure {
    failed(&format!("the conversation broke off: {error}"))
}

fn failed(why: &str) -> Failure {
    Failure::new(ExitCode::General, why)
        .hint("see `llama-orch describe quickstart` and `llama-orch logs quickstart`")
}

/// Reads server-sent events, or the body of an error, piece by piece.
struct Reading {
    begun: Instant,
    is_stream: bool,
    pending: Vec<u8>,
    answer: Answer,
}

impl Reading {
    fn new(begun: Instant, is_stream: bool) -> Self {
        Self { begun, is_stream, pending: Vec::new(), answer: Answer::default() }
    }

    fn take(&mut self, data: &[u8], on_text: &mut dyn FnMut(&str) -> Result<(), Ended>) -> Result<(), Ended> {
        self.pending.extend_from_slice(data);
        if self.pending.len() + self.answer.text.len() > LARGEST_ANSWER {
            return Err(failed("the answer is too large").into());
        }
        if !self.is_stream {
            return Ok(());
        }
        while let Some(end) = self.pending.iter().position(|&byte| byte == b'\n') {
            let line: Vec<u8> = self.pending.drain(..=end).collect();
            if let Some(data) = String::from_utf8_lossy(&line).trim().strip_prefix("data:") {
                self.event(data.trim(), on_text)?;
            }
        }
        Ok(())
    }

    fn event(&mut self, data: &str, on_text: &mut dyn FnMut(&str) -> Result<(), Ended>) -> Result<(), Ended> {
        // The end mark is no JSON, and a remark of a future version is none of ours.
        let Ok(event) = serde_json::from_str::<Value>(data) else { return Ok(()) };
        if let Some(failure) = told_failure(&event) {
            return Err(failure.into());
        }
        let delta = &event["choices"][0]["delta"];
        let text = [&delta["reasoning_content"], &delta["content"]].into_iter().filter_map(Value::as_str);
        for text in text.filter(|text| !text.is_empty()) {
            self.answer.first_token.get_or_insert_with(|| self.begun.elapsed());
            self.answer.text.push_str(text);
            on_text(text)?;
        }
        let timings = &event["timings"];
        self.answer.tokens = timings["predicted_n"].as_u64().or(self.answer.tokens);
        self.answer.tokens_per_second =
            timings["predicted_per_second"].as_f64().or(self.answer.tokens_per_second);
        Ok(())
    }

    fn finish(mut self) -> Result<Answer, Ended> {
        self.answer.total = self.begun.elapsed();
        if !self.is_stream {
            let told = serde_json::from_slice(&self.pending).ok().and_then(|body| told_failure(&body));
            return Err(told.unwrap_or_else(|| failed("the gateway refused the question")).into());
        }
        if self.answer.first_token.is_none() {
            return Err(failed("the answer is empty").into());
        }
        Ok(self.answer)
    }
}

/// An error in the dialect of the question.
fn told_failure(body: &Value) -> Option<Failure> {
    let message = body["error"]["message"].as_str()?;
    Some(failed(&format!("the question was not answered: {message}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_all(pieces: &[&str], is_stream: bool) -> (Result<Answer, Ended>, String) {
        let mut reading = Reading::new(Instant::now(), is_stream);
        let mut heard = String::new();
        let mut on_text = |text: &str| {
            heard.push_str(text);
            Ok(())
        };
        let taken = pieces.iter().try_for_each(|piece| reading.take(piece.as_bytes(), &mut on_text));
        (taken.and_then(|()| reading.finish()), heard)
    }

    #[test]
    fn words_arrive_in_order_however_the_stream_is_cut() {
        let stream = "data: {\"choices\":[{\"delta\":{\"role\":\"assistant\",\"content\":null}}]}\n\n\
                      data: {\"choices\":[{\"delta\":{\"content\":\"Hel\"}}]}\n\n\
                      data: {\"choices\":[{\"delta\":{\"content\":\"lo\"}}]}\r\n\r\n: a remark\n\n\
                      data: {\"choices\":[],\"timings\":{\"predicted_n\":2,\"predicted_per_second\":50.5}}\n\n\
                      data: [DONE]\n\n";
        let pieces: Vec<String> = stream.chars().map(String::from).collect();
        let pieces: Vec<&str> = pieces.iter().map(String::as_str).collect();
        for pieces in [vec![stream], pieces] {
            let (answer, heard) = read_all(&pieces, true);
            let answer = answer.unwrap();
            assert_eq!((answer.text.as_str(), heard.as_str()), ("Hello", "Hello"));
            assert_eq!((answer.tokens, answer.tokens_per_second), (Some(2), Some(50.5)));
            assert!(answer.first_token.is_some());
        }
    }

    #[test]
    fn an_error_is_told_whether_it_comes_before_or_within_the_stream() {
        let error = "{\"error\":{\"message\":\"out of memory\"}}";
        for (text, is_stream) in [(error.to_owned(), false), (format!("data: {error}\n\n"), true)] {
            let (answer, _) = read_all(&[&text], is_stream);
            let Err(Ended::Failure(failure)) = answer else { panic!("no failure") };
            assert!(failure.message.contains("out of memory"), "{failure}");
        }
        assert!(read_all(&["data: [DONE]\n\n"], true).0.is_err());
    }

    #[test]
    fn an_endless_answer_ends() {
        let line = "x".repeat(1024 * 1024);
        assert!(read_all(&[line.as_str(); 5], true).0.is_err());
    }
}
