//! Fetching over HTTP: bounded in time to connect, in silence, and in size.

use std::error::Error;
use std::io::Write;
use std::time::Duration;

use futures_util::StreamExt;
use orch_core::{ByteCount, Failure};
use reqwest::{Client, RequestBuilder, Response, StatusCode, Url};
use sha2::{Digest, Sha256};
use tempfile::NamedTempFile;

use crate::faults;

/// A hub that cannot be reached must not keep a user waiting who has another way.
const CONNECT_LIMIT: Duration = Duration::from_secs(5);
/// For a short answer, connecting included.
const ANSWER_LIMIT: Duration = Duration::from_secs(10);
/// The longest silence within a download.
const SILENCE_LIMIT: Duration = Duration::from_secs(30);
const REDIRECTS: usize = 5;
const ANSWER_BYTES: usize = 8 * 1024 * 1024;

/// Who watches a download.
pub trait Progress: Send + Sync {
    /// A new stage begins.
    fn step(&self, message: &str);
    /// So much of it is there.
    fn bytes(&self, done: ByteCount, total: Option<ByteCount>);
}

/// Nobody watches.
#[derive(Clone, Copy, Debug, Default)]
pub struct SilentProgress;

impl Progress for SilentProgress {
    fn step(&self, _: &str) {}
    fn bytes(&self, _: ByteCount, _: Option<ByteCount>) {}
}

/// Talks to one hub. One that is spoken to encrypted is never spoken to in the clear.
pub(crate) struct Http<'a> {
    client: Client,
    token: Option<&'a str>,
}

impl<'a> Http<'a> {
    pub(crate) fn new(endpoint: &Url, token: Option<&'a str>) -> Result<Self, Failure> {
        if rustls::crypto::CryptoProvider::get_default().is_none() {
            // Two threads may come here at once; the second's failure means that the first has done it.
            let _ = rustls::crypto::ring::default_provider().install_default();
        }
        let encrypted = endpoint.scheme() == "https";
        let client = Client::builder()
            .user_agent(concat!("llama-orch/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(CONNECT_LIMIT)
            .read_timeout(SILENCE_LIMIT)
            .redirect(reqwest::redirect::Policy::limited(REDIRECTS))
            .https_only(encrypted)
            .build()
            .map_err(|error| failed(endpoint, &error))?;
        // A token never travels in the clear, except within this machine.
        Ok(Self { client, token: token.filter(|_| encrypted || is_loopback(endpoint)) })
    }

    /// Fetches a short JSON document.
    pub(crate) async fn json<T: serde::de::DeserializeOwned>(&self, url: &Url) -> Result<T, Failure> {
        let response = self.send(url, self.client.get(url.clone()).timeout(ANSWER_LIMIT)).await?;
        let mut body = Vec::new();
        let mut stream = response.bytes_stream();
        while let Some(chunk) = stream.next().await {
            body.extend_from_slice(&chunk.map_err(|error| failed(url, &error))?);
            if body.len() > ANSWER_BYTES {
                return Err(faults::download(format!("the answer of {} is too large", host(url))));
            }
        }
        serde_json::from_slice(&body).map_err(|error| {
            faults::download(format!("{} answered something unexpected: {error}", host(url)))
        })
    }

    /// Fetches a file of a known size and returns its SHA-256 checksum.
    pub(crate) async fn file(
        &self,
        url: &Url,
        size: ByteCount,
        target: &mut NamedTempFile,
        progress: &dyn Progress,
    ) -> Result<String, Failure> {
        let response = self.send(url, self.client.get(url.clone())).await?;
        let mut hash = Sha256::new();
        let mut done = ByteCount(0);
        let mut stream = response.bytes_stream();
        while let Some(chunk) = stream.next().await {
            let chunk = chunk.map_err(|error| failed(url, &error))?;
            done.0 += chunk.len() as u64;
            if done > size {
                break;
            }
            hash.update(&chunk);
            target.write_all(&chunk).map_err(|error| faults::file("write", target.path(), &error))?;
            progress.bytes(done, Some(size));
        }
        if done != size {
            let message = format!("{} sent {done} of a file of {size}", host(url));
            return Err(faults::download(message).hint("try again"));
        }
        Ok(hex::encode(hash.finalize()))
    }

    async fn send(&self, url: &Url, request: RequestBuilder) -> Result<Response, Failure> {
        let request = match self.token {
            Some(token) => request.bearer_auth(token),
            None => request,
        };
        accept(url, request.send().await.map_err(|error| failed(url, &error))?)
    }
}

fn accept(url: &Url, response: Response) -> Result<Response, Failure> {
    let status = response.status();
    if status.is_success() {
        return Ok(response);
    }
    let message = format!("{} answered {status} for {}", host(url), url.path());
    Err(match status {
        StatusCode::NOT_FOUND => faults::not_found(message).hint("check the name of the model"),
        // The hub says this of what does not exist as well, so as not to tell what does.
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => faults::not_found(message)
            .hint("check the name of the model; a private or gated one needs a token in HF_TOKEN"),
        _ => faults::download(message).hint("try again later"),
    })
}

/// The innermost cause says what happened; the layers above repeat the address, which may hold a secret.
fn failed(url: &Url, error: &reqwest::Error) -> Failure {
    let mut cause: &dyn Error = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    let why = if error.is_timeout() { "no answer in time".to_owned() } else { cause.to_string() };
    faults::download(format!("cannot download from {}: {why}", host(url)))
        .hint("check the network; HF_ENDPOINT names a mirror")
}

fn is_loopback(url: &Url) -> bool {
    matches!(url.host_str(), Some("127.0.0.1" | "localhost" | "[::1]"))
}

fn host(url: &Url) -> &str {
    url.host_str().unwrap_or("the hub")
}
