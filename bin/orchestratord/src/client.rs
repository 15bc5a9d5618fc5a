//! How commands talk to a control plane: the daemon of their home, or one elsewhere.

use std::time::{Duration, Instant};

use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE, HOST};
use http::{HeaderValue, Method, Request, StatusCode};
use http_body_util::Full;
use hyper_util::rt::TokioIo;
use orch_core::{ExitCode, Failure, HomeLayout};
use orch_runtime::read_body;
use pool_manager::stats::InstanceStats;
use pool_manager::view::InstanceView;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::net::TcpStream;

use pool_managerd::api::{DaemonStatus, Operation};
use pool_managerd::daemon_file;

/// Longest wait for a connection, and for an answer beyond what was asked to wait for.
const CONNECT_LIMIT: Duration = Duration::from_secs(3);
const ANSWER_LIMIT: Duration = Duration::from_secs(15);
/// Largest answer that is read.
const MAX_ANSWER: u64 = 32 * 1024 * 1024;
/// One look at an operation waits so long for its end.
const LOOK: Duration = Duration::from_secs(20);

/// A control plane that commands ask.
#[derive(Clone)]
pub struct DaemonClient {
    host: String,
    port: u16,
    token: Option<String>,
}

impl DaemonClient {
    /// The living daemon of this home.
    pub fn living(home: &HomeLayout) -> Option<Self> {
        let file = daemon_file::living(home)?;
        let address = file.connect_address();
        Some(Self { host: address.ip().to_string(), port: address.port(), token: Some(file.token) })
    }

    /// A control plane elsewhere: `http://host:port`. TLS comes with the gateway's own.
    pub fn remote(url: &str, token: Option<String>) -> Result<Self, Failure> {
        let bad =
            |why: &str| Failure::new(ExitCode::Usage, format!("{url} cannot be used as a server: {why}"));
        let uri: http::Uri = url.parse().map_err(|_| bad("it is not a URL"))?;
        if uri.scheme_str() != Some("http") {
            return Err(bad("only http:// is spoken so far"));
        }
        let host = uri.host().ok_or_else(|| bad("it names no host"))?;
        let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        Ok(Self { host, port: uri.port_u16().unwrap_or(80), token })
    }

    /// Where it listens.
    pub fn address(&self) -> String {
        if self.host.contains(':') {
            format!("http://[{}]:{}", self.host, self.port)
        } else {
            format!("http://{}:{}", self.host, self.port)
        }
    }

    pub async fn instances(&self) -> Result<Vec<InstanceView>, Failure> {
        self.get("/v2/instances", ANSWER_LIMIT).await
    }

    /// What the instances use and do now.
    pub async fn stats(&self) -> Result<Vec<InstanceStats>, Failure> {
        self.get("/v2/stats", ANSWER_LIMIT).await
    }

    /// The newest events, newest first; of one instance where it is named.
    pub async fn events(&self, instance: Option<&str>, limit: usize) -> Result<Vec<Value>, Failure> {
        // Names hold no character that a query would have to escape.
        let instance = instance.map_or(String::new(), |name| format!("&instance={name}"));
        self.get(&format!("/v2/events?limit={limit}{instance}"), ANSWER_LIMIT).await
    }

    /// The document of `describe`.
    pub async fn describe(&self, name: &str) -> Result<Value, Failure> {
        self.get(&instance_path(name), ANSWER_LIMIT).await
    }

    pub async fn status(&self) -> Result<DaemonStatus, Failure> {
        self.get("/v2/daemon", CONNECT_LIMIT).await
    }

    /// Whether it answers at all.
    pub async fn is_healthy(&self) -> bool {
        let answer = self.send(Method::GET, "/health", None, CONNECT_LIMIT).await;
        answer.is_ok_and(|(status, _)| status == StatusCode::OK)
    }

    /// Starts an instance. With `wait` this returns when it is ready, or fails with 23 when it still loads then;
    /// without, when the start has begun.
    pub async fn up(&self, name: &str, wait: Option<Duration>) -> Result<(), Failure> {
        let operation =
            self.begin(Method::POST, &format!("{}/start", instance_path(name)), Some(json!({}))).await?;
        self.follow_start(operation, wait).await
    }

    /// Stops an instance; `drain` bounds the wait for requests in flight.
    pub async fn down(&self, name: &str, force: bool, drain: Duration) -> Result<(), Failure> {
        let body = stop_body(force, drain);
        let operation =
            self.begin(Method::POST, &format!("{}/stop", instance_path(name)), Some(body)).await?;
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
        let body = stop_body(force, drain);
        let operation =
            self.begin(Method::POST, &format!("{}/restart", instance_path(name)), Some(body)).await?;
        self.follow_start(operation, wait.map(|wait| wait + drain)).await
    }

    /// Removes an instance.
    pub async fn remove(&self, name: &str, force: bool, keep_logs: bool) -> Result<(), Failure> {
        let path = format!("{}?force={force}&keep_logs={keep_logs}", instance_path(name));
        let operation = self.begin(Method::DELETE, &path, None).await?;
        self.follow(operation, None).await
    }

    async fn begin(&self, method: Method, path: &str, body: Option<Value>) -> Result<Operation, Failure> {
        let (status, text) = self.send(method, path, body, ANSWER_LIMIT).await?;
        read_answer(status, &text)
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
        let path = format!("/v2/operations/{}?wait_ms={}", operation.id, wait.as_millis());
        self.get(&path, wait + ANSWER_LIMIT).await
    }

    async fn get<T: DeserializeOwned>(&self, path: &str, limit: Duration) -> Result<T, Failure> {
        let (status, text) = self.send(Method::GET, path, None, limit).await?;
        read_answer(status, &text)
    }

    async fn send(
        &self,
        method: Method,
        path: &str,
        body: Option<Value>,
        limit: Duration,
    ) -> Result<(StatusCode, Bytes), Failure> {
        let late = |_| self.unreachable("it does not answer", ExitCode::DaemonUnreachable);
        tokio::time::timeout(limit, self.exchange(method, path, body)).await.map_err(late)?
    }

    async fn exchange(
        &self,
        method: Method,
        path: &str,
        body: Option<Value>,
    ) -> Result<(StatusCode, Bytes), Failure> {
        let failed =
            |error: &dyn std::fmt::Display| self.unreachable(&error.to_string(), ExitCode::DaemonUnreachable);
        let connect = TcpStream::connect((self.host.as_str(), self.port));
        let stream = match tokio::time::timeout(CONNECT_LIMIT, connect).await {
            Ok(stream) => stream.map_err(|error| failed(&error))?,
            Err(error) => return Err(failed(&error)),
        };
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|error| failed(&error))?;
        let request = self.request(method, path, body)?;
        let answer = async {
            let response = sender.send_request(request).await.map_err(|error| failed(&error))?;
            let status = response.status();
            let text = read_body(response.into_body(), MAX_ANSWER, ANSWER_LIMIT);
            Ok((status, text.await.map_err(|error| failed(&error))?))
        };
        // The connection is driven beside the exchange and ends with it: no task is left behind.
        tokio::pin!(answer);
        tokio::pin!(connection);
        tokio::select! {
            biased;
            result = &mut answer => result,
            ended = &mut connection => match ended {
                Ok(()) => answer.await,
                Err(error) => Err(failed(&error)),
            },
        }
    }

    fn request(
        &self,
        method: Method,
        path: &str,
        body: Option<Value>,
    ) -> Result<Request<Full<Bytes>>, Failure> {
        let broken = |error: &dyn std::fmt::Display| {
            Failure::new(ExitCode::Usage, format!("the request cannot be made: {error}"))
        };
        let host = if self.host.contains(':') { format!("[{}]", self.host) } else { self.host.clone() };
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header(HOST, format!("{host}:{}", self.port))
            .header(CONTENT_TYPE, "application/json");
        if let Some(token) = &self.token {
            let mut value =
                HeaderValue::from_str(&format!("Bearer {token}")).map_err(|error| broken(&error))?;
            value.set_sensitive(true);
            request = request.header(AUTHORIZATION, value);
        }
        let body = body.map_or(Bytes::new(), |body| Bytes::from(body.to_string()));
        request.body(Full::new(body)).map_err(|error| broken(&error))
    }

    fn unreachable(&self, why: &str, exit: ExitCode) -> Failure {
        Failure::new(exit, format!("the daemon at {}:{} cannot be reached: {why}", self.host, self.port))
            .hint("see `llama-orch daemon status`; `llama-orch daemon restart` starts it anew, engines keep running")
    }
}

fn stop_body(force: bool, drain: Duration) -> Value {
    json!({"force": force, "drain_ms": u64::try_from(drain.as_millis()).unwrap_or(u64::MAX)})
}

/// A selector may hold any character; in a path it is a single segment.
fn instance_path(name: &str) -> String {
    let mut path = "/v2/instances/".to_owned();
    for byte in name.bytes() {
        if byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte) {
            path.push(char::from(byte));
        } else {
            use std::fmt::Write as _;
            let _ = write!(path, "%{byte:02X}");
        }
    }
    path
}

fn read_answer<T: DeserializeOwned>(status: StatusCode, text: &[u8]) -> Result<T, Failure> {
    if status.is_success() {
        return serde_json::from_slice(text).map_err(|error| {
            Failure::new(
                ExitCode::DaemonUnreachable,
                format!("the daemon's answer cannot be understood: {error}"),
            )
        });
    }
    if let Ok(failure) = serde_json::from_slice::<Failure>(text) {
        return Err(failure);
    }
    let exit = match status {
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => ExitCode::Unauthorized,
        StatusCode::NOT_FOUND => ExitCode::InstanceNotFound,
        _ => ExitCode::General,
    };
    let told = serde_json::from_slice::<Value>(text).ok();
    let message = told.as_ref().and_then(|body| body["message"].as_str()).map_or_else(
        || format!("the daemon answered {status}"),
        |message| format!("the daemon answered {status}: {message}"),
    );
    Err(Failure::new(exit, message))
}
