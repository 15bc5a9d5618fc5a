//! The start-up story of a machine without a control plane: supervision, and `/v2` for its commands.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::body::Body;
use axum::response::IntoResponse;
use http::{Request, Response, StatusCode};
use hyper::body::Incoming;
use hyper::service::Service;
use orch_core::{ExitCode, Failure, HomeLayout, InstanceName, ReplicaId, UnixMillis};
use orch_runtime::{
    RequestId, ServeOptions, Settings, Tasks, TokenSet, bind, check_exposure, serve, termination,
};
use pool_manager::{BoxFuture, Demand, Node, PoolManager, ReplicaSnapshot, RequestSigns, Traffic};
use serde_json::json;
use tower::ServiceExt;

use crate::api::{self, ApiState, LiveStats, Operations};
use crate::compose;
use crate::door::Door;
use crate::home_daemon::HomeDaemon;
use crate::housekeeping;

/// Runs the node in the foreground until it is asked to stop. Engines keep running.
pub fn run(home: &HomeLayout, flags: &[(&str, String)]) -> Result<(), Failure> {
    let environment = |name: &str| std::env::var(name).ok();
    let settings = Settings::load(&home.settings(), &environment, flags)?;
    let node = compose::open_node(home)?;
    let daemon = HomeDaemon::claim(home)?;
    let runtime = compose::runtime()?;
    let result = runtime.block_on(live(node, settings, daemon));
    runtime.shutdown_timeout(compose::LAST_MOMENTS);
    result
}

async fn live(node: Node, settings: Settings, daemon: HomeDaemon) -> Result<(), Failure> {
    let node = Arc::new(node);
    let tasks = Tasks::new();
    let http = tasks.child();
    let cannot_start =
        |error: std::io::Error| Failure::new(ExitCode::DaemonStartFailed, format!("cannot start: {error}"));
    let asked_to_end = termination(engine_process::outlives_terminal()).map_err(cannot_start)?;
    check_exposure(settings.pool_managerd.addr, &settings.auth.tokens, false)?;
    let listener = bind(settings.pool_managerd.addr)?;
    let address = listener.local_addr().map_err(cannot_start)?;
    let manager = PoolManager::start(Arc::clone(&node), Arc::new(NoTraffic), &tasks.child()).await?;
    manager.manage_residency(compose::residency(&settings));
    api::reap_trials(&manager, &tasks).await;
    let state = ApiState {
        node: Arc::clone(&node),
        manager,
        slots: Arc::new(|_, _| None),
        operations: Arc::new(Operations::new(&tasks)),
        stats: LiveStats::default(),
        node_id: compose::node_id(&settings).into(),
        address,
        started: Instant::now(),
        ending: http.token(),
    };
    let door = Door {
        guard: settings.auth.guard.clone(),
        keys: settings.auth.tokens.clone(),
        local: daemon.local_token.clone(),
        loopback: address.ip().to_canonical().is_loopback(),
    };
    let front = NodeFront { door: Arc::new(door), api: api::router(state) };
    http.spawn("http", serve(listener, front, ServeOptions::default(), http.clone()));
    daemon.announce(&node, address, None)?;
    tracing::info!(%address, pid = std::process::id(), home = %node.home.root().display(), "ready");
    housekeeping::keep_house(&node, &tasks.child(), |_| ());
    let signal = asked_to_end.await;
    tracing::info!(signal, "stopping; engines keep running");
    // Requests first: while they finish, supervision and routing go on.
    http.shutdown(settings.limits.drain).await;
    tasks.shutdown(compose::LAST_MOMENTS).await;
    daemon.farewell(&node);
    Ok(())
}

/// Nobody sends requests through this process: users talk to the instances' own ports.
pub(crate) struct NoTraffic;

impl Traffic for NoTraffic {
    fn publish(&self, _: Vec<ReplicaSnapshot>) {}

    fn probed(&self, _: &InstanceName, _: ReplicaId, _: UnixMillis) {}

    fn signs(&self, _: &InstanceName, _: ReplicaId) -> RequestSigns {
        RequestSigns::default()
    }

    fn demand(&self) -> Vec<Demand> {
        Vec::new()
    }

    fn demand_changed(&self) -> BoxFuture<'_, ()> {
        Box::pin(std::future::pending())
    }

    fn drain<'a>(&'a self, _: &'a InstanceName, _: ReplicaId, _: Duration) -> BoxFuture<'a, ()> {
        Box::pin(std::future::ready(()))
    }
}

/// Every request passes the door once; then `/v2` answers, or the sign at the wall.
#[derive(Clone)]
struct NodeFront {
    door: Arc<Door<TokenSet>>,
    api: axum::Router,
}

impl Service<Request<Incoming>> for NodeFront {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        let front = self.clone();
        Box::pin(async move {
            let id = RequestId::from_headers(request.headers());
            let mut response = front.answer(request).await;
            response.headers_mut().insert(RequestId::HEADER, id.header_value());
            Ok(response)
        })
    }
}

impl NodeFront {
    async fn answer(self, request: Request<Incoming>) -> Response<Body> {
        if let Err((code, message)) = self.door.admit(&request) {
            let status = StatusCode::from_u16(code.http_status()).unwrap_or(StatusCode::FORBIDDEN);
            let body = json!({"code": code.label(), "message": message, "retriable": code.retriable()});
            return (status, axum::Json(body)).into_response();
        }
        if request.uri().path() == "/health" {
            return axum::Json(json!({"status": "ok"})).into_response();
        }
        self.api.oneshot(request).await.unwrap_or_else(|never| match never {})
    }
}
