//! One exchange over one connection.

use std::time::Duration;

use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE, HOST};
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use orch_core::{ExitCode, Failure};
use orch_runtime::{RequestId, read_body};
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

use super::Client;

/// Longest wait for a connection, and for an answer beyond what was asked to wait for.
pub(super) const CONNECT_LIMIT: Duration = Duration::from_secs(3);
pub(super) const ANSWER_LIMIT: Duration = Duration::from_secs(15);
/// Largest answer that is read.
const MAX_ANSWER: u64 = 32 * 1024 * 1024;

/// Reads an answer.
pub(super) trait Reader: Send {
    type Read;

    /// So long may the beginning of the answer take.
    fn head_limit(&self) -> Duration;

    /// Fails with what is wrong with the connection.
    fn read(self, response: Response<Incoming>) -> impl Future<Output = Result<Self::Read, String>> + Send;
}

/// Reads all of an answer; each wait for a piece of it is limited.
pub(super) struct Whole {
    pub(super) limit: Duration,
}

impl Reader for Whole {
    type Read = (StatusCode, Bytes);

    fn head_limit(&self) -> Duration {
        self.limit
    }

    async fn read(self, response: Response<Incoming>) -> Result<Self::Read, String> {
        let status = response.status();
        let text = read_body(response.into_body(), MAX_ANSWER, self.limit).await;
        Ok((status, text.map_err(|error| error.to_string())?))
    }
}

impl Client {
    pub(super) async fn send(
        &self,
        method: Method,
        path: &str,
        body: Option<Value>,
        limit: Duration,
    ) -> Result<(StatusCode, Bytes), Failure> {
        let body = body.map_or(Bytes::new(), |body| Bytes::from(body.to_string()));
        self.exchange(self.request(method, path, body)?, limit).await
    }

    /// Sends a request of the data plane under this id and reads the answer, whatever it is.
    pub async fn forward(
        &self,
        path: &str,
        body: Bytes,
        request_id: &str,
        limit: Duration,
    ) -> Result<(StatusCode, Bytes), Failure> {
        let mut request = self.request(Method::POST, path, body)?;
        let id = HeaderValue::from_str(request_id).map_err(|error| unusable(&error))?;
        request.headers_mut().insert(RequestId::HEADER, id);
        self.exchange(request, limit).await
    }

    async fn exchange(
        &self,
        request: Request<Full<Bytes>>,
        limit: Duration,
    ) -> Result<(StatusCode, Bytes), Failure> {
        let late = |_| self.unreachable("it does not answer", ExitCode::DaemonUnreachable);
        tokio::time::timeout(limit, self.converse(request, Whole { limit })).await.map_err(late)?
    }

    /// Sends a request over a connection of its own and lets its answer be read.
    pub(super) async fn converse<R: Reader>(
        &self,
        request: Request<Full<Bytes>>,
        reader: R,
    ) -> Result<R::Read, Failure> {
        let failed =
            |error: &dyn std::fmt::Display| self.unreachable(&error.to_string(), ExitCode::DaemonUnreachable);
        let connect = TcpStream::connect((self.host.as_str(), self.port));
        let stream = match tokio::time::timeout(CONNECT_LIMIT, connect).await {
            Ok(stream) => stream.map_err(|error| failed(&error))?,
            Err(error) => return Err(failed(&error)),
        };
        let Some(trust) = &self.trust else { return self.speak(stream, request, reader).await };
        match tokio::time::timeout(CONNECT_LIMIT, Box::pin(trust.secure(stream))).await {
            // Boxed: a TLS connection is large, and most are plain.
            Ok(Ok(secured)) => Box::pin(self.speak(secured, request, reader)).await,
            Ok(Err(error)) => Err(failed(&error)),
            Err(error) => Err(failed(&error)),
        }
    }

    async fn speak<R: Reader>(
        &self,
        stream: impl AsyncRead + AsyncWrite + Unpin,
        request: Request<Full<Bytes>>,
        reader: R,
    ) -> Result<R::Read, Failure> {
        let failed =
            |error: &dyn std::fmt::Display| self.unreachable(&error.to_string(), ExitCode::DaemonUnreachable);
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|error| failed(&error))?;
        let answer = async {
            let head = tokio::time::timeout(reader.head_limit(), sender.send_request(request)).await;
            let response = head.map_err(|_| failed(&"it does not answer"))?;
            let response = response.map_err(|error| failed(&error))?;
            reader.read(response).await.map_err(|error| failed(&error))
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

    pub(super) fn request(
        &self,
        method: Method,
        path: &str,
        body: Bytes,
    ) -> Result<Request<Full<Bytes>>, Failure> {
        let host = if self.host.contains(':') { format!("[{}]", self.host) } else { self.host.clone() };
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header(HOST, format!("{host}:{}", self.port))
            .header(CONTENT_TYPE, "application/json");
        if let Some(token) = &self.token {
            let mut value =
                HeaderValue::from_str(&format!("Bearer {token}")).map_err(|error| unusable(&error))?;
            value.set_sensitive(true);
            request = request.header(AUTHORIZATION, value);
        }
        request.body(Full::new(body)).map_err(|error| unusable(&error))
    }

    fn unreachable(&self, why: &str, exit: ExitCode) -> Failure {
        Failure::new(exit, format!("the daemon at {}:{} cannot be reached: {why}", self.host, self.port))
            .hint("see `llama-orch daemon status`; `llama-orch daemon restart` starts it anew, engines keep running")
    }
}

fn unusable(error: &dyn std::fmt::Display) -> Failure {
    Failure::new(ExitCode::Usage, format!("the request cannot be made: {error}"))
}
