//! Which replica gets a request: a pure choice over one snapshot.

use std::cmp::Reverse;
use std::sync::Arc;

use crate::live::Target;
use crate::table::ReplicaKey;

/// What a request allows.
#[derive(Clone, Copy, Default)]
pub(crate) struct Wanted<'a> {
    /// Only this node.
    pub(crate) node: Option<&'a str>,
    /// Replicas that failed this request already.
    pub(crate) tried: &'a [ReplicaKey],
}

/// The usable replica with the most free slots; of equals the first in the order of their names.
pub(crate) fn choose<'t>(
    targets: impl Iterator<Item = &'t Arc<Target>>,
    wanted: Wanted<'_>,
) -> Option<&'t Arc<Target>> {
    targets
        .filter(|target| target.usable())
        .filter(|target| wanted.node.is_none_or(|node| target.replica.key.node_id == node))
        .filter(|target| !wanted.tried.contains(&target.replica.key))
        .min_by_key(|target| (Reverse(target.free_slots()), &target.replica.key))
}
