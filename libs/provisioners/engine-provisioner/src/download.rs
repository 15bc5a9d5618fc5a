//! Fetching over HTTP: bounded in time to connect, in silence, and in size.

use std::error::Error;
use std::path::Path;
use std::time::Duration;

use futures_util::StreamExt;
use orch_core::{ByteCount, ExitCode, Failure};
use reqwest::{Client, Response, StatusCode, Url};
use sha2::{Digest, Sha256};
use tokio::io::AsyncWriteExt;

use crate::faults;
use crate::ports::Progress;

/// A host that cannot be reached must not keep a user waiting who has another way.
const CONNECT_LIMIT: Duration = Duration::from_secs(5);
/// For a short answer, connecting included.
const ANSWER_LIMIT: Duration = Duration::from_secs(6);
/// The longest silence within a download.
const SILENCE_LIMIT: Duration = Duration::from_secs(30);
const REDIRECTS: usize = 5;
const ANSWER_BYTES: u64 = 8 * 1024 * 1024;
const DOWNLOAD_BYTES: ByteCount = ByteCount::from_mib(4 * 1024);

/// What was written, and its checksum in hexadecimal.
#[derive(Debug)]
pub(crate) struct Downloaded {
    pub(crate) sha256: String,
}

/// Whether the address lies on this machine, where encryption adds nothing.
pub(crate) fn is_loopback(url: &Url) -> bool {
    matches!(url.host_str(), Some("127.0.0.1" | "localhost" | "[::1]"))
}

pub(crate) fn parse_url(text: &str) -> Result<Url, Failure> {
    let url = Url::parse(text).ok().filter(|url| matches!(url.scheme(), "http" | "https"));
    url.ok_or_else(|| Failure::new(ExitCode::Usage, format!("{text} is not an http or https address")))
}

/// A client for one origin. One that starts encrypted never goes on in the clear.
fn client(url: &Url) -> Result<Client, Failure> {
    if rustls::crypto::CryptoProvider::get_default().is_none() {
        // Two threads may come here at once; the second's failure means that the first has done it.
        let _ = rustls::crypto::ring::default_provider().install_default();
    }
    Client::builder()
        .user_agent(concat!("llama-orch/", env!("CARGO_PKG_VERSION")))
        .connect_timeout(CONNECT_LIMIT)
        .read_timeout(SILENCE_LIMIT)
        .redirect(reqwest::redirect::Policy::limited(REDIRECTS))
        .https_only(url.scheme() == "https")
        .build()
        .map_err(|error| failed(url, &error))
}

/// Fetches a short JSON document.
pub(crate) async fn json<T: serde::de::DeserializeOwned>(
    url: &Url,
    token: Option<&str>,
) -> Result<T, Failure> {
    let mut request = client(url)?.get(url.clone()).timeout(ANSWER_LIMIT);
    if let Some(token) = token {
        request = request.bearer_auth(token);
    }
    let response = request.send().await.map_err(|error| failed(url, &error))?;
    let response = accept(url, response)?;
    let mut body = Vec::new();
    let mut stream = response.bytes_stream();
    while let Some(chunk) = stream.next().await {
        body.extend_from_slice(&chunk.map_err(|error| failed(url, &error))?);
        if body.len() as u64 > ANSWER_BYTES {
            return Err(Failure::new(
                ExitCode::DownloadFailed,
                format!("the answer of {} is too large", host(url)),
            ));
        }
    }
    serde_json::from_slice(&body).map_err(|error| {
        Failure::new(
            ExitCode::DownloadFailed,
            format!("{} answered something unexpected: {error}", host(url)),
        )
    })
}

/// Fetches a file of any size up to the limit.
pub(crate) async fn file(url: &Url, target: &Path, progress: &dyn Progress) -> Result<Downloaded, Failure> {
    let response = client(url)?.get(url.clone()).send().await.map_err(|error| failed(url, &error))?;
    let response = accept(url, response)?;
    let total = response.content_length().map(ByteCount);
    let too_large = || {
        Failure::new(ExitCode::DownloadFailed, format!("the file at {} is over {DOWNLOAD_BYTES}", host(url)))
    };
    if total.is_some_and(|total| total > DOWNLOAD_BYTES) {
        return Err(too_large());
    }
    let write_failed = |error: std::io::Error| faults::install("write", target, &error);
    let mut output = tokio::fs::File::create_new(target).await.map_err(write_failed)?;
    let mut hash = Sha256::new();
    let mut done = ByteCount(0);
    let mut stream = response.bytes_stream();
    while let Some(chunk) = stream.next().await {
        let chunk = chunk.map_err(|error| failed(url, &error))?;
        done.0 += chunk.len() as u64;
        if done > DOWNLOAD_BYTES {
            return Err(too_large());
        }
        hash.update(&chunk);
        output.write_all(&chunk).await.map_err(write_failed)?;
        progress.bytes(done, total);
    }
    output.flush().await.map_err(write_failed)?;
    Ok(Downloaded { sha256: hex::encode(hash.finalize()) })
}

fn accept(url: &Url, response: Response) -> Result<Response, Failure> {
    let status = response.status();
    if status.is_success() {
        return Ok(response);
    }
    let message = format!("{} answered {status} for {}", host(url), url.path());
    Err(match status {
        StatusCode::NOT_FOUND => faults::not_found(message),
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN | StatusCode::TOO_MANY_REQUESTS => {
            Failure::new(ExitCode::DownloadFailed, message).hint(
                "the server refuses or limits anonymous downloads: set GITHUB_TOKEN, or try again later",
            )
        }
        _ => Failure::new(ExitCode::DownloadFailed, message).hint("try again later"),
    })
}

/// The innermost cause says what happened; the layers above repeat the address, which may hold a secret.
fn failed(url: &Url, error: &reqwest::Error) -> Failure {
    let mut cause: &dyn Error = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    let why = if error.is_timeout() { "no answer in time".to_owned() } else { cause.to_string() };
    Failure::new(ExitCode::DownloadFailed, format!("cannot download from {}: {why}", host(url)))
        .hint("check the network, or install from elsewhere: --source pypi, or --source path with a build of your own")
}

fn host(url: &Url) -> &str {
    url.host_str().unwrap_or("the server")
}
