//! What a client may say about where its request is to go, held against what there is.

use llm_adapters::Problem;
use orch_core::ErrorCode;

use crate::facts::Placement;
use crate::live::Snapshot;
use crate::table::ReplicaKey;

/// Whether a client's word means this replica: by its pool, its node, or both (`pool@node`).
pub(super) fn means(word: &str, key: &ReplicaKey) -> bool {
    let ReplicaKey { pool_id, node_id, .. } = key;
    word == pool_id || word == node_id || word.strip_prefix(&**pool_id) == Some(&format!("@{node_id}"))
}

/// Whether any of these words means it.
pub(super) fn is_meant(words: &[String], key: &ReplicaKey) -> bool {
    words.iter().any(|word| means(word, key))
}

/// Refuses a request that is pinned to something that nobody knows, that is away, or that does not have the model.
pub(crate) fn check_placement(
    placement: &Placement,
    snapshot: &Snapshot,
    route: &[usize],
) -> Result<(), Problem> {
    let mut serves = placement.pin.is_empty();
    for word in &placement.pin {
        match find(word, snapshot, route) {
            Pinned::Unknown => {
                let message = format!("no pool and no node is called {word:?}; the request is pinned to it");
                return Err(Problem::new(ErrorCode::InvalidParams, message));
            }
            Pinned::Offline(node) => {
                let message = format!("node {node:?} is offline; the request is pinned to it");
                return Err(Problem::new(ErrorCode::NodeUnavailable, message));
            }
            Pinned::Elsewhere => {}
            Pinned::OfRoute => serves = true,
        }
    }
    if serves {
        return Ok(());
    }
    let message =
        format!("{} does not serve this model; the request is pinned to it", placement.pin.join(", "));
    Err(Problem::new(ErrorCode::InvalidParams, message))
}

enum Pinned<'w> {
    Unknown,
    Offline(&'w str),
    /// Known, but nothing of it has the model.
    Elsewhere,
    OfRoute,
}

fn find<'w>(word: &'w str, snapshot: &Snapshot, route: &[usize]) -> Pinned<'w> {
    let table = &snapshot.table;
    let (pool, node) = match word.split_once('@') {
        Some((pool, node)) => (Some(pool), Some(node)),
        None => (None, None),
    };
    let known_node = |name: &str| table.nodes.iter().find(|node| node.id == name);
    if let Some(found) = known_node(node.unwrap_or(word)) {
        if !found.online {
            return Pinned::Offline(node.unwrap_or(word));
        }
        if pool.is_none() {
            return Pinned::OfRoute;
        }
    } else if node.is_some() {
        return Pinned::Unknown;
    }
    let pool = pool.unwrap_or(word);
    match table.instances.iter().position(|instance| instance.name.as_str() == pool) {
        None => Pinned::Unknown,
        Some(index) if route.contains(&index) => Pinned::OfRoute,
        Some(_) => Pinned::Elsewhere,
    }
}
