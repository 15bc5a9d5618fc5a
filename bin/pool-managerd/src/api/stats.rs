//! `/v2/stats`: what instances use and do now. Engines are asked when somebody looks, once for all who look.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use pool_manager::stats::{InstanceStats, Sampler, targets};
use tokio::sync::Mutex;

use super::ApiState;
use super::answers::Refusal;
use super::instances::look;

/// The last look at the engines, shared by all who ask.
#[derive(Clone, Debug, Default)]
pub struct LiveStats {
    sampler: Arc<Mutex<Sampler>>,
}

pub(super) async fn list(State(state): State<ApiState>) -> Result<Json<Vec<InstanceStats>>, Refusal> {
    let catalog = state.manager.refresh().await?;
    let (stats, home) = (state.stats.clone(), state.node.home.clone());
    let targets = look(state, move |viewer| {
        let views = viewer.instances(&catalog)?;
        Ok(targets(&catalog, views, &home))
    });
    let targets = targets.await?;
    Ok(Json(stats.sampler.lock().await.sample(&targets).await))
}
