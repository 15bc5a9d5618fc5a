//! The front door: every request passes here once, in visible steps — guard, key, then its room.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use axum::Router;
use gateway::{Gateway, GatewayBody, refuse};
use http::{Request, Response};
use http_body_util::Either;
use hyper::body::Incoming;
use hyper::service::Service;
use llm_adapters::{Dialect, Problem};
use orch_runtime::RequestId;
use pool_managerd::{Door, is_ours};
use tower::ServiceExt;

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
    door: Door,
}

impl Front {
    pub(crate) fn new(gateway: Gateway, api: Router, door: Door) -> Self {
        Self { inner: Arc::new(Inner { gateway, api, door }) }
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
        if let Err((code, message)) = self.door.admit(&request) {
            let dialect = Dialect::of_path(request.uri().path());
            return refuse(dialect, &Problem::new(code, message), &id).map(Either::Left);
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
