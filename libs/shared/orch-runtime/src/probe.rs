//! One bounded GET to a local server: the question "are you well?" and nothing more.

use std::io;
use std::pin::pin;
use std::time::Duration;

use bytes::Bytes;
use http::header::{AUTHORIZATION, CONNECTION, HOST};
use http::{HeaderValue, Request};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use orch_core::{ExitCode, Failure};
use thiserror::Error;
use tokio::net::TcpStream;
use tokio::time::Instant;

/// An answer longer than this is a protocol error: health and property pages are far smaller.
const MAX_BODY: usize = 64 * 1024;

/// What the server answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProbeResponse {
    pub status: u16,
    pub body: Bytes,
    /// From before the connection was opened until the last byte.
    pub elapsed: Duration,
}

/// Why there was no answer.
#[derive(Debug, Error)]
pub enum ProbeError {
    #[error("connection refused")]
    Refused,
    #[error("no answer in time")]
    Timeout,
    #[error("not an HTTP answer: {0}")]
    Protocol(String),
    #[error("connection failed")]
    Io(#[source] io::Error),
}

impl From<ProbeError> for Failure {
    fn from(error: ProbeError) -> Self {
        let exit = match &error {
            ProbeError::Refused => ExitCode::ConnectionRefused,
            ProbeError::Timeout => ExitCode::ConnectionTimeout,
            ProbeError::Protocol(_) | ProbeError::Io(_) => ExitCode::General,
        };
        match &error {
            ProbeError::Io(source) => Failure::new(exit, format!("{error}: {source}")),
            _ => Failure::new(exit, error.to_string()),
        }
    }
}

/// Asks `GET http://host:port{path}` on a connection of its own, which is closed afterwards.
///
/// `timeout` bounds the whole exchange and 64 KiB the body. A wildcard host is asked through loopback. Dropping
/// the future closes the connection.
pub async fn probe_get(
    host: &str,
    port: u16,
    path: &str,
    api_key: Option<&str>,
    timeout: Duration,
) -> Result<ProbeResponse, ProbeError> {
    let began = Instant::now();
    let (status, body) = tokio::time::timeout(timeout, exchange(reachable(host), port, path, api_key))
        .await
        .map_err(|_| ProbeError::Timeout)??;
    Ok(ProbeResponse { status, body, elapsed: began.elapsed() })
}

/// The address under which a server bound to `host` is asked from this machine.
fn reachable(host: &str) -> &str {
    match host.trim_start_matches('[').trim_end_matches(']') {
        "0.0.0.0" | "" => "127.0.0.1",
        "::" => "::1",
        bare => bare,
    }
}

async fn exchange(
    host: &str,
    port: u16,
    path: &str,
    api_key: Option<&str>,
) -> Result<(u16, Bytes), ProbeError> {
    let request = request(host, port, path, api_key)?;
    let stream = TcpStream::connect((host, port)).await.map_err(classify)?;
    let _ = stream.set_nodelay(true);
    let (mut sender, connection) = http1::Builder::new()
        .max_buf_size(MAX_BODY)
        .handshake(TokioIo::new(stream))
        .await
        .map_err(|error| protocol(&error))?;
    let answer = async {
        let response = sender.send_request(request).await.map_err(|error| protocol(&error))?;
        let status = response.status().as_u16();
        let body = Limited::new(response.into_body(), MAX_BODY).collect().await;
        body.map(|body| (status, body.to_bytes())).map_err(|error| ProbeError::Protocol(error.to_string()))
    };
    drive(pin!(connection), pin!(answer)).await
}

/// Polls the connection for as long as the answer needs it. The connection's own error also reaches the answer,
/// so it is not looked at here.
async fn drive<T>(
    mut connection: std::pin::Pin<&mut impl Future>,
    mut answer: std::pin::Pin<&mut impl Future<Output = T>>,
) -> T {
    tokio::select! {
        biased;
        answer = &mut answer => return answer,
        _ = &mut connection => {}
    }
    answer.await
}

fn request(
    host: &str,
    port: u16,
    path: &str,
    api_key: Option<&str>,
) -> Result<Request<Empty<Bytes>>, ProbeError> {
    let authority = if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") };
    let mut builder = Request::get(path).header(HOST, authority).header(CONNECTION, "close");
    if let Some(key) = api_key {
        let mut value = HeaderValue::try_from(format!("Bearer {key}")).map_err(|_| {
            ProbeError::Protocol("the API key holds characters no header may hold".to_owned())
        })?;
        value.set_sensitive(true);
        builder = builder.header(AUTHORIZATION, value);
    }
    builder.body(Empty::new()).map_err(|error| ProbeError::Protocol(error.to_string()))
}

fn classify(error: io::Error) -> ProbeError {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => ProbeError::Refused,
        io::ErrorKind::TimedOut => ProbeError::Timeout,
        _ => ProbeError::Io(error),
    }
}

/// A connection that broke is told apart from one that spoke something else.
fn protocol(error: &hyper::Error) -> ProbeError {
    let source = std::error::Error::source(error).and_then(|source| source.downcast_ref::<io::Error>());
    match source {
        Some(broken) => ProbeError::Io(io::Error::new(broken.kind(), broken.to_string())),
        None => ProbeError::Protocol(error.to_string()),
    }
}
