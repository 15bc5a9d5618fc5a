//! Doing what was planned: engines first, so that configs never name one that is not there.

use std::path::PathBuf;
use std::time::Duration;

use instance_config::ConfigPlan;
use orch_core::{EventLevel, EventType, Failure, HomeLayout, InstanceName, UnixMillis};
use orchestratord::compose::{self, Tools};
use serde_json::json;
use state_store::{Migration, NewEvent};

use super::plan::Plan;
use crate::context::Context;

const LOCK_WAIT: Duration = Duration::from_secs(10);

/// What was done.
pub(super) struct Done {
    pub(super) plan: Plan,
    /// In the order of the plan's configs.
    pub(super) backups: Vec<PathBuf>,
    pub(super) state: Result<Option<Migration>, Failure>,
}

pub(super) fn run(context: &Context) -> Result<Done, Failure> {
    let home = context.home()?;
    // The dot cannot occur in an instance name, so no instance's lock has this path.
    let lock = home.locks().join(".migrate.lock");
    let _guard = engine_process::acquire(&lock, "config migrate", LOCK_WAIT)?;
    // Somebody else may have been at work while we waited.
    let plan = Plan::make(context)?;
    let now = UnixMillis::now();
    plan.engines.take_over(home, &Tools, now)?;
    let configs = &plan.configs.configs;
    let backups = configs.iter().map(|config| change(home, config, now)).collect::<Result<_, _>>()?;
    let state = compose::migrate_state(home, &mut |_| ());
    let state = state.and_then(|migration| remember(home, &plan, now).map(|()| migration));
    Ok(Done { plan, backups, state })
}

fn change(home: &HomeLayout, config: &ConfigPlan, now: UnixMillis) -> Result<PathBuf, Failure> {
    let name = InstanceName::new(config.name.as_str())
        .expect("only configs that can be read are planned for, and those have a name");
    let _guard = engine_process::acquire(&home.instance_lock(&name), "config migrate", LOCK_WAIT)?;
    config.apply(now)
}

/// The database tells its own migration itself.
fn remember(home: &HomeLayout, plan: &Plan, now: UnixMillis) -> Result<(), Failure> {
    if plan.configs.configs.is_empty() && plan.engines.is_empty() {
        return Ok(());
    }
    let node = compose::open_node(home)?;
    let (configs, engines) = (plan.configs.configs.len(), plan.engines.engines.len());
    let event = NewEvent {
        instance: None,
        level: EventLevel::Info,
        event_type: EventType::Migrated,
        message: format!("brought up to date: {configs} configs, {engines} engines"),
        meta: Some(json!({"configs": configs, "engines": engines})),
    };
    node.store.append_event(&event, now)?;
    Ok(())
}
