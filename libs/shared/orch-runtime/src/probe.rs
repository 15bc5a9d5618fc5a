//! One bounded question to a local server: "are you well?", or a tiny piece of work that shows it.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::pin;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::header::{AUTHORIZATION, CONNECTION, CONTENT_TYPE, HOST};
use http::{HeaderValue, Request};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use orch_core::{ExitCode, Failure};
use thiserror::Error;
use tokio::net::TcpStream;
use tokio::time::Instant;

/// So much of an answer's body is read and the rest left: health and property pages are far smaller.
const MAX_BODY: usize = 64 * 1024;

/// What the server answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProbeResponse {
    pub status: u16,
    /// At most the first 64 KiB.
    pub body: Bytes,
    /// Who answered: a host name may stand for several addresses.
    pub peer: SocketAddr,
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
    bounded_get(host, port, path, api_key, timeout, MAX_BODY).await
}

/// [`probe_get`], for pages that may be longer.
pub async fn bounded_get(
    host: &str,
    port: u16,
    path: &str,
    api_key: Option<&str>,
    timeout: Duration,
    max_body: usize,
) -> Result<ProbeResponse, ProbeError> {
    within(timeout, exchange(host, port, path, api_key, None, max_body)).await
}

/// [`probe_get`], but posts a JSON document.
pub async fn probe_post(
    host: &str,
    port: u16,
    path: &str,
    api_key: Option<&str>,
    json: String,
    timeout: Duration,
) -> Result<ProbeResponse, ProbeError> {
    within(timeout, exchange(host, port, path, api_key, Some(json), MAX_BODY)).await
}

/// The host under which a server bound to `host` is asked from this machine: a wildcard is reached through
/// loopback, and the brackets of an IPv6 address belong to URLs only.
pub fn reachable_host(host: &str) -> &str {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    match bare.parse() {
        Ok(IpAddr::V4(address)) if address.is_unspecified() => "127.0.0.1",
        Ok(IpAddr::V6(address)) if address.is_unspecified() => "::1",
        _ if bare.is_empty() => "127.0.0.1",
        _ => bare,
    }
}

async fn within(
    timeout: Duration,
    exchange: impl Future<Output = Result<(u16, Bytes, SocketAddr), ProbeError>>,
) -> Result<ProbeResponse, ProbeError> {
    let began = Instant::now();
    let answer = tokio::time::timeout(timeout, exchange).await;
    let (status, body, peer) = answer.map_err(|_| ProbeError::Timeout)??;
    Ok(ProbeResponse { status, body, peer, elapsed: began.elapsed() })
}

async fn exchange(
    host: &str,
    port: u16,
    path: &str,
    api_key: Option<&str>,
    json: Option<String>,
    max_body: usize,
) -> Result<(u16, Bytes, SocketAddr), ProbeError> {
    let host = reachable_host(host);
    let request = request(host, port, path, api_key, json)?;
    let stream = TcpStream::connect((host, port)).await.map_err(classify)?;
    let _ = stream.set_nodelay(true);
    let peer = stream.peer_addr().map_err(ProbeError::Io)?;
    let (mut sender, connection) = http1::Builder::new()
        .max_buf_size(MAX_BODY)
        .handshake(TokioIo::new(stream))
        .await
        .map_err(|error| protocol(&error))?;
    let answer = async {
        let response = sender.send_request(request).await.map_err(|error| protocol(&error))?;
        let status = response.status().as_u16();
        let body = read_beginning(response.into_body(), max_body).await.map_err(|error| protocol(&error))?;
        Ok((status, body, peer))
    };
    drive(pin!(connection), pin!(answer)).await
}

/// The body, or as much of it as is looked at.
async fn read_beginning(mut body: Incoming, max_body: usize) -> Result<Bytes, hyper::Error> {
    let mut beginning = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame?.into_data() else { continue };
        let room = max_body - beginning.len();
        beginning.extend_from_slice(&data[..data.len().min(room)]);
        if beginning.len() == max_body {
            break;
        }
    }
    Ok(beginning.freeze())
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
    json: Option<String>,
) -> Result<Request<Full<Bytes>>, ProbeError> {
    let authority = if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") };
    let mut builder = match &json {
        Some(_) => Request::post(path).header(CONTENT_TYPE, "application/json"),
        None => Request::get(path),
    };
    builder = builder.header(HOST, authority).header(CONNECTION, "close");
    if let Some(key) = api_key {
        let mut value = HeaderValue::try_from(format!("Bearer {key}")).map_err(|_| {
            ProbeError::Protocol("the API key holds characters no header may hold".to_owned())
        })?;
        value.set_sensitive(true);
        builder = builder.header(AUTHORIZATION, value);
    }
    let body = Full::new(json.map_or_else(Bytes::new, Bytes::from));
    builder.body(body).map_err(|error| ProbeError::Protocol(error.to_string()))
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
