//! The reaction policy of an instance, read off its config.

use std::time::Duration;

use instance_config::{InstanceConfig, LoadMode};
use orch_core::DesiredState;

use crate::lifecycle::Policy;

/// Running so long without a crash makes the next one count as the first.
const STABLE_AFTER: Duration = Duration::from_secs(300);

/// What `up` makes of an instance: on-demand ones stay in the gateway's hands.
pub(crate) fn desired_after_up(config: &InstanceConfig) -> DesiredState {
    match config.lifecycle.load {
        LoadMode::OnDemand => DesiredState::OnDemand,
        _ => DesiredState::Running,
    }
}

impl Policy {
    pub fn of(config: &InstanceConfig) -> Self {
        let check = &config.healthcheck;
        let restart = &config.restart_policy;
        Self {
            restart: restart.enabled.then(|| restart.backoff()),
            max_retries: restart.max_retries,
            stable_after: STABLE_AFTER,
            probe_interval: check.interval,
            retry_delay: check.retry_delay,
            probe_retries: check.retries,
            start_period: check.start_period,
            load_stall: check.load_stall,
            probe_backoff: check.backoff(),
        }
    }
}
