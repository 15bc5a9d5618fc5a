//! The front door: every request passes here once, in visible steps — guard, key, then its room.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use axum::Router;
use gateway::{Caller, Gateway, GatewayBody, refuse};
use http::{HeaderMap, Request, Response, StatusCode};
use http_body_util::Either;
use hyper::body::Incoming;
use hyper::service::Service;
use llm_adapters::{Dialect, Problem};
use orch_runtime::{RequestId, guard};
use pool_managerd::{Door, Visitor, is_ours};
use tower::ServiceExt;

use crate::cross_origin;
use crate::keys::{KeyRing, LOCAL};
use crate::metrics::Readings;

/// What a client gets: an engine's bytes passing by, or an answer of `/v2`.
type FrontBody = Either<GatewayBody, axum::body::Body>;

/// Decides who may come in, and to which room.
#[derive(Clone)]
pub(crate) struct Front {
    inner: Arc<Inner>,
}

struct Inner {
    gateway: Gateway,
    api: Router,
    door: Door<KeyRing>,
    /// Asked before each scrape.
    readings: Option<Readings>,
}

impl Front {
    pub(crate) fn new(
        gateway: Gateway,
        api: Router,
        door: Door<KeyRing>,
        readings: Option<Readings>,
    ) -> Self {
        Self { inner: Arc::new(Inner { gateway, api, door, readings }) }
    }
}

impl Service<Request<Incoming>> for Front {
    type Response = Response<FrontBody>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        let inner = Arc::clone(&self.inner);
        Box::pin(async move { Ok(inner.answer(request).await) })
    }
}

impl Inner {
    async fn answer(&self, request: Request<Incoming>) -> Response<FrontBody> {
        let id = RequestId::from_headers(request.headers());
        let origin = guard::allowed_origin(request.headers(), &self.door.guard).cloned();
        let mut response = if origin.is_some() && self.may_be_told(&request) {
            preflight(request.headers(), &id)
        } else {
            let mut response = self.serve(request, id).await;
            cross_origin::strip(response.headers_mut());
            response
        };
        cross_origin::settle(response.headers_mut(), origin);
        response
    }

    /// Whether this is a preflight that the guard lets in. Browsers send those without a key.
    fn may_be_told<B>(&self, request: &Request<B>) -> bool {
        let Door { guard: settings, loopback, .. } = &self.door;
        cross_origin::is_preflight(request)
            && guard::check(request.headers(), request.uri(), settings, *loopback).is_ok()
    }

    async fn serve(&self, mut request: Request<Incoming>, id: RequestId) -> Response<FrontBody> {
        let visitor = match self.door.admit(&request) {
            Ok(visitor) => visitor,
            Err((code, message)) => {
                let dialect = Dialect::of_path(request.uri().path());
                return refuse(dialect, &Problem::new(code, message), &id).map(Either::Left);
            }
        };
        match visitor {
            Visitor::Anyone => {}
            Visitor::Local => drop(request.extensions_mut().insert(Caller::operator(LOCAL))),
            Visitor::Holder(caller) => drop(request.extensions_mut().insert(caller)),
        }
        if request.uri().path() == "/metrics"
            && let Some(readings) = &self.readings
        {
            readings.refresh().await;
        }
        if !is_ours(request.uri().path()) {
            return self.gateway.handle_as(request, id).await.map(Either::Left);
        }
        let answered = self.api.clone().oneshot(request).await;
        let mut response = answered.unwrap_or_else(|never| match never {});
        response.headers_mut().insert(RequestId::HEADER, id.header_value());
        response.map(Either::Right)
    }
}

fn preflight(asked: &HeaderMap, id: &RequestId) -> Response<FrontBody> {
    let mut response = Response::new(Either::Right(axum::body::Body::empty()));
    *response.status_mut() = StatusCode::NO_CONTENT;
    response.headers_mut().insert(RequestId::HEADER, id.header_value());
    cross_origin::allow(asked, response.headers_mut());
    response
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use axum::routing::get;
    use gateway::{Limits, MetricsRegistry, Routes, TableHandle};
    use orch_runtime::{GuardSettings, ServeOptions, Tasks, Token, serve};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpListener, TcpStream};

    use super::*;

    const KEY: &str = "authorization: Bearer key-of-a-user-0123456789\r\n";
    const PAGE: &str = "origin: https://chat.example\r\n";
    const ASKS: &str = "access-control-request-method: POST\r\naccess-control-request-headers: x-api-key\r\n";
    const ALLOWED: &str = "access-control-allow-origin: https://chat.example\r\n";

    /// A home with a key and one listed page, whose `/v2/loose` would let every page in.
    fn front() -> Front {
        let loose = get(async || [("access-control-allow-origin", "*")]);
        let door = Door {
            guard: GuardSettings { hosts: vec![], cors_origins: vec!["https://chat.example".to_owned()] },
            keys: KeyRing::of_tokens("key-of-a-user-0123456789"),
            local: Token::new("local-token-of-this-test").unwrap(),
            loopback: true,
        };
        let gateway = Gateway::new(
            TableHandle::default(),
            Limits::default(),
            Routes::default(),
            MetricsRegistry::default(),
            None,
        );
        Front::new(gateway, Router::new().route("/v2/loose", loose), door, None)
    }

    async fn ask(address: &str, request_line: &str, host: &str, headers: &str) -> String {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let request =
            format!("{request_line} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n{headers}\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        let read = stream.read_to_string(&mut answer);
        tokio::time::timeout(Duration::from_secs(10), read).await.expect("an answer comes soon").unwrap();
        answer
    }

    #[tokio::test]
    async fn a_listed_page_can_read_every_answer_and_no_other_page_any() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let tasks = Tasks::new();
        tasks.spawn("http", serve(listener, front(), ServeOptions::default(), tasks.clone()));

        // From the listed page: rooms, a refusal for want of a key, an unknown path.
        for (line, key, status) in [
            ("GET /v2/loose", KEY, "200"),
            ("GET /v2/loose", "", "401"),
            ("GET /health", "", "200"),
            ("GET /v1/models", "", "401"),
            ("GET /nowhere", KEY, "404"),
        ] {
            let answer = ask(&address, line, "localhost", &format!("{PAGE}{key}")).await;
            assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{line}: {answer}");
            assert!(answer.contains(ALLOWED) && answer.contains("vary: Origin\r\n"), "{line}: {answer}");
            assert_eq!(answer.matches("access-control-allow-origin").count(), 1, "{line}: {answer}");
        }

        // Preflights need no key, but the right host and page.
        let asks = format!("{PAGE}{ASKS}");
        for path in ["/v1/chat/completions", "/v2/instances/a/start"] {
            let told = ask(&address, &format!("OPTIONS {path}"), "localhost", &asks).await;
            assert!(told.starts_with("HTTP/1.1 204") && told.contains(ALLOWED), "{told}");
            assert!(told.contains("access-control-allow-headers: x-api-key\r\n"), "{told}");
            assert!(told.contains("x-request-id: "), "{told}");
        }
        let rebound = ask(&address, "OPTIONS /v1/models", "evil.example", &asks).await;
        assert!(rebound.starts_with("HTTP/1.1 403"), "{rebound}");

        // Everybody else: nothing for browsers, whatever the room said.
        let evil = format!("origin: https://evil.example\r\n{KEY}");
        for (line, headers, status) in [
            ("GET /v2/loose", KEY.to_owned(), "200"),
            ("GET /v2/loose", evil.clone(), "403"),
            ("OPTIONS /v1/models", format!("{evil}{ASKS}"), "403"),
        ] {
            let answer = ask(&address, line, "localhost", &headers).await;
            assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{line}: {answer}");
            assert!(!answer.contains("access-control-"), "{line}: {answer}");
        }
        tasks.shutdown(Duration::from_secs(1)).await;
    }
}
