//! One exchange over one connection.

use std::time::Duration;

use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE, HOST};
use http::{HeaderValue, Method, Request, StatusCode};
use http_body_util::Full;
use hyper_util::rt::TokioIo;
use orch_core::{ExitCode, Failure};
use orch_runtime::read_body;
use serde_json::Value;
use tokio::net::TcpStream;

use super::Client;

/// Longest wait for a connection, and for an answer beyond what was asked to wait for.
pub(super) const CONNECT_LIMIT: Duration = Duration::from_secs(3);
pub(super) const ANSWER_LIMIT: Duration = Duration::from_secs(15);
/// Largest answer that is read.
const MAX_ANSWER: u64 = 32 * 1024 * 1024;

impl Client {
    pub(super) async fn send(
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
