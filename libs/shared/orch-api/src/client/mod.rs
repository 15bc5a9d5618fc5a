//! How commands talk to a control plane.

mod jobs;
mod sse;
mod tls;
mod wire;

use std::time::{Duration, Instant};

use http::{Method, StatusCode};
use orch_core::{ExitCode, Failure};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::{
    CapturedRequest, CreatedKey, DaemonStatus, DrainRequest, ErrorBody, Event, InstanceStats, InstanceView,
    KeyOrder, KeyView, MemoryReport, NodeView, Operation, RequestFilter, RequestView, RevokedKey,
    StartRequest, StopRequest, paths,
};
pub use sse::{SentEvent, StreamEnd};
use tls::Trust;
use wire::{ANSWER_LIMIT, CONNECT_LIMIT};

/// One look at an operation waits so long for its end.
const LOOK: Duration = Duration::from_secs(20);

/// A control plane that is asked. Every call opens a connection of its own and is limited in time.
#[derive(Clone)]
pub struct Client {
    host: String,
    port: u16,
    token: Option<String>,
    /// Absent, plain HTTP is spoken.
    trust: Option<Trust>,
}

impl Client {
    /// The control plane that listens there.
    pub fn new(host: String, port: u16, token: Option<String>) -> Self {
        Self { host, port, token, trust: None }
    }

    /// A control plane elsewhere: `http://host:port` or `https://host:port`. Fails with 2 on anything else. Over TLS
    /// its certificate has to be vouched for by an authority of the system, or of `SSL_CERT_FILE` where that is set.
    pub fn remote(url: &str, token: Option<String>) -> Result<Self, Failure> {
        let bad =
            |why: &str| Failure::new(ExitCode::Usage, format!("{url} cannot be used as a server: {why}"));
        let uri: http::Uri = url.parse().map_err(|_| bad("it is not a URL"))?;
        let port = match uri.scheme_str() {
            Some("http") => 80,
            Some("https") => 443,
            _ => return Err(bad("it does not begin with http:// or https://")),
        };
        let host = uri.host().ok_or_else(|| bad("it names no host"))?;
        let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        let trust = if port == 443 { Some(Trust::of_this_machine(&host)?) } else { None };
        Ok(Self { host, port: uri.port_u16().unwrap_or(port), token, trust })
    }

    /// Where it listens.
    pub fn address(&self) -> String {
        let scheme = if self.trust.is_some() { "https" } else { "http" };
        if self.host.contains(':') {
            format!("{scheme}://[{}]:{}", self.host, self.port)
        } else {
            format!("{scheme}://{}:{}", self.host, self.port)
        }
    }

    /// All instances.
    pub async fn instances(&self) -> Result<Vec<InstanceView>, Failure> {
        self.get(paths::INSTANCES, ANSWER_LIMIT).await
    }

    /// What the instances use and do now.
    pub async fn stats(&self) -> Result<Vec<InstanceStats>, Failure> {
        self.get(paths::STATS, ANSWER_LIMIT).await
    }

    /// Who holds how much memory where; with an instance, what loading it would take.
    pub async fn memory(&self, instance: Option<&str>) -> Result<MemoryReport, Failure> {
        let query = instance.map_or(String::new(), |name| format!("?instance={}", paths::escape(name)));
        self.get(&format!("{}{query}", paths::MEMORY), ANSWER_LIMIT).await
    }

    /// The newest events, newest first; of one instance where it is named.
    pub async fn events(&self, instance: Option<&str>, limit: usize) -> Result<Vec<Event>, Failure> {
        let instance = instance.map_or(String::new(), |name| format!("&instance={}", paths::escape(name)));
        self.get(&format!("{}?limit={limit}{instance}", paths::EVENTS), ANSWER_LIMIT).await
    }

    /// The document of `describe`.
    pub async fn describe(&self, name: &str) -> Result<Value, Failure> {
        self.get(&paths::fill(paths::INSTANCE, &[name]), ANSWER_LIMIT).await
    }

    /// Requests that are over.
    pub async fn requests(&self, filter: &RequestFilter) -> Result<Vec<RequestView>, Failure> {
        self.get(&format!("{}{}", paths::REQUESTS, filter.query()), ANSWER_LIMIT).await
    }

    /// One request with its body, by its id or the beginning of it.
    pub async fn captured(&self, id: &str) -> Result<CapturedRequest, Failure> {
        self.get(&paths::fill(paths::REQUEST, &[id]), ANSWER_LIMIT).await
    }

    /// The daemon about itself.
    pub async fn status(&self) -> Result<DaemonStatus, Failure> {
        self.get(paths::DAEMON, CONNECT_LIMIT).await
    }

    /// Whether it answers at all.
    pub async fn is_healthy(&self) -> bool {
        let answer = self.send(Method::GET, "/health", None, CONNECT_LIMIT).await;
        answer.is_ok_and(|(status, _)| status == StatusCode::OK)
    }

    /// Starts an instance. With `wait` this returns when it is ready, or fails with 23 when it still loads then;
    /// without, when the start has begun. Fails with 21 or 23 when it runs or starts already.
    pub async fn up(&self, name: &str, wait: Option<Duration>) -> Result<(), Failure> {
        let path = paths::fill(paths::INSTANCE_START, &[name]);
        let operation = self.post(&path, &StartRequest { expect_change: true }).await?;
        self.follow_start(operation, wait).await
    }

    /// Stops an instance; `drain` bounds the wait for requests in flight. Fails with 20 when it is stopped already.
    pub async fn down(&self, name: &str, force: bool, drain: Duration) -> Result<(), Failure> {
        let path = paths::fill(paths::INSTANCE_STOP, &[name]);
        let operation = self.post(&path, &stop_request(force, drain)).await?;
        self.follow(operation, None).await
    }

    /// Stops and starts an instance.
    pub async fn restart(
        &self,
        name: &str,
        force: bool,
        drain: Duration,
        wait: Option<Duration>,
    ) -> Result<(), Failure> {
        let path = paths::fill(paths::INSTANCE_RESTART, &[name]);
        let operation = self.post(&path, &stop_request(force, drain)).await?;
        self.follow_start(operation, wait.map(|wait| wait + drain)).await
    }

    /// Removes an instance.
    pub async fn remove(&self, name: &str, force: bool, keep_logs: bool) -> Result<(), Failure> {
        let path = paths::fill(paths::INSTANCE, &[name]);
        let path = format!("{path}?force={force}&keep_logs={keep_logs}");
        let operation = self.call(Method::DELETE, &path, None, ANSWER_LIMIT).await?;
        self.follow(operation, None).await
    }

    /// All keys, without their secrets.
    pub async fn keys(&self) -> Result<Vec<KeyView>, Failure> {
        self.get(paths::TOKENS, ANSWER_LIMIT).await
    }

    /// Makes a key. The answer is the only place where its secret is.
    pub async fn create_key(&self, order: &KeyOrder) -> Result<CreatedKey, Failure> {
        self.post(paths::TOKENS, order).await
    }

    /// Revokes a key, named by its id or its name.
    pub async fn revoke_key(&self, key: &str) -> Result<RevokedKey, Failure> {
        self.call(Method::DELETE, &paths::fill(paths::TOKEN, &[key]), None, ANSWER_LIMIT).await
    }

    /// All machines.
    pub async fn nodes(&self) -> Result<Vec<NodeView>, Failure> {
        self.get(paths::NODES, ANSWER_LIMIT).await
    }

    /// Keeps requests from a machine, or sends them there again.
    pub async fn set_cordoned(&self, node: &str, cordoned: bool) -> Result<NodeView, Failure> {
        let path = if cordoned { paths::NODE_CORDON } else { paths::NODE_UNCORDON };
        self.call(Method::POST, &paths::fill(path, &[node]), None, ANSWER_LIMIT).await
    }

    /// Keeps requests from a machine and waits until nothing is under way there.
    pub async fn drain_node(&self, node: &str, deadline: Option<Duration>) -> Result<(), Failure> {
        let deadline_ms = deadline.map(|limit| u64::try_from(limit.as_millis()).unwrap_or(u64::MAX));
        let path = paths::fill(paths::NODE_DRAIN, &[node]);
        let operation = self.post(&path, &DrainRequest { deadline_ms }).await?;
        self.follow(operation, None).await
    }

    async fn follow_start(&self, operation: Operation, wait: Option<Duration>) -> Result<(), Failure> {
        let Some(wait) = wait else {
            // A refusal comes at once; anything later is the instance's own story.
            return match self.look(&operation, Duration::from_millis(100)).await?.error {
                Some(failure) => Err(failure),
                None => Ok(()),
            };
        };
        self.follow(operation, Some(wait)).await
    }

    /// Waits for the end of an operation. Without a limit: as long as the daemon works on it.
    async fn follow(&self, mut operation: Operation, limit: Option<Duration>) -> Result<(), Failure> {
        let begun = Instant::now();
        while !operation.is_over() {
            let left = limit.map_or(LOOK, |limit| limit.saturating_sub(begun.elapsed()));
            if left.is_zero() {
                let name = &operation.instance;
                let seconds = limit.unwrap_or_default().as_secs();
                let message = format!("{name} is still loading after {seconds} s; it is left running");
                return Err(Failure::new(ExitCode::Starting, message)
                    .hint(format!("watch it: llama-orch logs -f {name}")));
            }
            operation = self.look(&operation, left.min(LOOK)).await?;
        }
        operation.error.map_or(Ok(()), Err)
    }

    async fn look(&self, operation: &Operation, wait: Duration) -> Result<Operation, Failure> {
        let path = paths::fill(paths::OPERATION, &[&operation.id.to_string()]);
        self.get(&format!("{path}?wait_ms={}", wait.as_millis()), wait + ANSWER_LIMIT).await
    }

    /// What lies at a path; `path` may hold a query.
    pub async fn get<T: DeserializeOwned>(&self, path: &str, limit: Duration) -> Result<T, Failure> {
        self.call(Method::GET, path, None, limit).await
    }

    /// Sends a document and reads the answer.
    pub async fn post<T: DeserializeOwned>(&self, path: &str, body: &impl Serialize) -> Result<T, Failure> {
        self.call(Method::POST, path, Some(json!(body)), ANSWER_LIMIT).await
    }

    async fn call<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Option<Value>,
        limit: Duration,
    ) -> Result<T, Failure> {
        let (status, text) = self.send(method, path, body, limit).await?;
        read_answer(status, &text)
    }
}

fn stop_request(force: bool, drain: Duration) -> StopRequest {
    let drain_ms = u64::try_from(drain.as_millis()).unwrap_or(u64::MAX);
    StopRequest { force, drain_ms, expect_change: true }
}

/// The document of a success; a refusal as a failure with the exit code that it names.
fn read_answer<T: DeserializeOwned>(status: StatusCode, text: &[u8]) -> Result<T, Failure> {
    if status.is_success() {
        // An answer without a body is a document that says nothing.
        let text = if text.is_empty() { b"null" } else { text };
        return serde_json::from_slice(text).map_err(|error| {
            Failure::new(
                ExitCode::DaemonUnreachable,
                format!("the daemon's answer cannot be understood: {error}"),
            )
        });
    }
    if let Ok(refusal) = serde_json::from_slice::<ErrorBody>(text) {
        return Err(refusal.into_failure());
    }
    // Whatever stands between, such as a proxy, may answer in its own words.
    let exit = match status {
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => ExitCode::Unauthorized,
        StatusCode::NOT_FOUND => ExitCode::InstanceNotFound,
        _ => ExitCode::General,
    };
    Err(Failure::new(exit, format!("the daemon answered {status}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_http_urls_are_servers_and_brackets_belong_to_the_url_alone() {
        let client = Client::remote("http://[::1]:9000", None).unwrap();
        assert_eq!((client.host.as_str(), client.port), ("::1", 9000));
        assert_eq!(client.address(), "http://[::1]:9000");
        for bad in ["host:80", "", "ftp://host"] {
            assert_eq!(Client::remote(bad, None).err().unwrap().exit, ExitCode::Usage, "{bad}");
        }
    }

    #[test]
    fn an_answer_of_a_proxy_in_between_is_a_failure_all_the_same() {
        let told = read_answer::<Value>(StatusCode::BAD_GATEWAY, b"<html>bad gateway</html>").unwrap_err();
        assert_eq!(told.exit, ExitCode::General);
        let told = read_answer::<Value>(StatusCode::UNAUTHORIZED, b"").unwrap_err();
        assert_eq!(told.exit, ExitCode::Unauthorized);
        assert_eq!(read_answer::<()>(StatusCode::NO_CONTENT, b""), Ok(()));
    }
}
