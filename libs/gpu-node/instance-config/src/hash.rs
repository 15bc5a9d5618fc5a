//! A fingerprint of what reaches the engine.

use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::InstanceConfig;
use crate::field::Reach;

/// The same for two configs exactly when an engine started from either would be the same: it covers every field that
/// reaches the engine or its log files, with defaults filled in, and nothing else.
pub fn config_hash(config: &InstanceConfig) -> String {
    let document = config.to_value();
    let mut hasher = Sha256::new();
    for (field, value) in InstanceConfig::values(&document).filter(|(field, _)| field.reach == Reach::Engine)
    {
        hasher.update(field.path);
        hasher.update([0]);
        hasher.update(canonical(value));
        hasher.update([0]);
    }
    hex::encode(hasher.finalize())
}

/// Whether a running engine still is what it was started as.
pub fn restart_needed(old: &InstanceConfig, new: &InstanceConfig) -> bool {
    config_hash(old) != config_hash(new)
}

/// The one map among the fields, `env`, is sorted by its type already.
fn canonical(value: &Value) -> String {
    value.to_string()
}
