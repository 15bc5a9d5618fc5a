//! Schemas that a server would not enforce: they are told in words from then on.

use std::collections::HashSet;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::{Mutex, PoisonError};

use serde_json::Value;

/// A workflow has few schemas; whoever has more asks once more.
const MOST: usize = 1000;

/// Pairs of a model and a schema, as hashes: a collision costs a worse answer, never a wrong one.
#[derive(Debug, Default)]
pub(crate) struct RefusedSchemas(Mutex<HashSet<u64>>);

impl RefusedSchemas {
    pub(crate) fn note(&self, model: &str, schema: &Value) {
        let mut refused = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if refused.len() >= MOST {
            refused.clear();
        }
        refused.insert(hash(model, schema));
    }

    pub(crate) fn has(&self, model: &str, schema: &Value) -> bool {
        let refused = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        !refused.is_empty() && refused.contains(&hash(model, schema))
    }
}

fn hash(model: &str, schema: &Value) -> u64 {
    let mut hasher = DefaultHasher::new();
    (model, schema.to_string()).hash(&mut hasher);
    hasher.finish()
}
