//! Loading and unloading by the residency scheduler's word.

use std::time::Duration;

use orch_core::{DesiredState, ExitCode, Failure};
use orch_runtime::probe_get;
use serde::Deserialize;

use super::{Answer, Goal, Supervisor};
use crate::lifecycle::{Event, Phase};
use crate::probe::Prober;

/// A request that was sent just when unloading began may finish.
const LAST_REQUESTS: Duration = Duration::from_secs(30);
/// An engine that does not tell its slots at once is not waited for.
const SLOTS_LIMIT: Duration = Duration::from_secs(1);

impl Supervisor {
    pub(super) async fn command_load(&mut self, answer: Answer) {
        let name = self.name();
        if self.machine.desired != DesiredState::OnDemand {
            let failure = Failure::new(ExitCode::NotRunning, format!("{name} is not wanted on demand"));
            let _ = answer.send(Err(failure));
            return;
        }
        if matches!(self.machine.phase, Phase::Running { .. }) {
            let _ = answer.send(Ok(()));
            return;
        }
        self.waiting.push((Goal::Ready, answer));
        self.step(Event::Load).await;
    }

    /// New requests are kept away first; only then it is certain that there are none.
    pub(super) async fn command_unload(&mut self, why: String, answer: Answer) {
        let loaded = matches!(self.machine.phase, Phase::Running { .. });
        if !loaded || self.machine.desired != DesiredState::OnDemand {
            let failure =
                Failure::new(ExitCode::NotRunning, format!("{} is not loaded on demand", self.name()));
            let _ = answer.send(Err(failure));
            return;
        }
        let did_yield = std::mem::replace(&mut self.yielding, true);
        self.publish();
        if self.is_busy().await {
            self.yielding = did_yield;
            let failure = Failure::new(ExitCode::StopFailed, format!("{} serves somebody", self.name()));
            let _ = answer.send(Err(failure));
            return;
        }
        self.drain = LAST_REQUESTS;
        self.reconciling = false;
        self.unloading = Some(why);
        self.waiting.push((Goal::Stopped, answer));
        self.step(Event::Unload).await;
    }

    /// Whether somebody is served: through the gateway, or past it on the engine's own port.
    async fn is_busy(&mut self) -> bool {
        if self.board.traffic().signs(self.name(), self.replica).in_flight > 0 {
            return true;
        }
        let config = &self.instance.config;
        match &self.engine {
            Some(engine) if !instance_config::may_sleep(config) => works(&engine.prober).await,
            _ => false,
        }
    }
}

/// Whether any slot works, as the engine says; one that does not say is taken for idle.
async fn works(prober: &Prober) -> bool {
    #[derive(Deserialize)]
    struct Slot {
        #[serde(default)]
        is_processing: bool,
    }
    let (host, key) = (&prober.host, prober.api_key.as_deref());
    let Ok(answer) = probe_get(host, prober.port, "/slots", key, SLOTS_LIMIT).await else { return false };
    let slots: Vec<Slot> = serde_json::from_slice(&answer.body).unwrap_or_default();
    slots.iter().any(|slot| slot.is_processing)
}
