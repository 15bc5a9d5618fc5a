//! What an engine inherits.

use std::collections::BTreeMap;

use crate::InstanceConfig;

/// Prefixes of variables that engines or daemons read: an orchestrator's own environment must not reach into every
/// engine it starts.
const FOREIGN_PREFIXES: [&str; 5] = ["LLAMA_", "AIP_", "LLORCH_", "ORCHESTRATORD_", "POOL_MANAGERD_"];
/// Keys of the user's other programs are none of the engine's business.
const SECRET_SUFFIXES: [&str; 2] = ["_API_KEY", "_TOKEN"];

/// The complete environment of an engine: the parent's without what is not the engine's business, then the computed
/// variables (`overrides`, from [`crate::engine_command`]), then the config's `env`. Sorted by name.
pub fn engine_environment(
    parent: impl Iterator<Item = (String, String)>,
    config: &InstanceConfig,
    overrides: &[(String, String)],
) -> Vec<(String, String)> {
    let mut environment: BTreeMap<String, String> = parent.filter(|(name, _)| is_inherited(name)).collect();
    environment.extend(overrides.iter().cloned());
    environment.extend(config.env.clone());
    environment.into_iter().collect()
}

/// Whether an engine, or a probe of one, inherits a variable of this name. Names are compared without case, as
/// Windows does.
pub fn is_inherited(name: &str) -> bool {
    let upper = name.to_ascii_uppercase();
    let foreign = FOREIGN_PREFIXES.iter().any(|prefix| upper.starts_with(prefix));
    let secret = SECRET_SUFFIXES.iter().any(|suffix| upper.ends_with(suffix));
    !foreign && !secret
}
