//! What an engine leaves behind when its shim did not live to clean up.

use std::path::Path;
use std::time::Duration;

use crate::identity::Ownership;
use crate::locks;
use crate::sys::{
    ProcessEntry, ProcessHandle, Signal, group_members, lock_sharers, process_entry, process_table,
};
use crate::wait::wait_until;

const KILL_LIMIT: Duration = Duration::from_secs(3);

/// Kills what a dead engine started and left behind: the processes that still hold the lock they inherited
/// from it. Does nothing while the engine or a shim lives. Returns how many were killed.
///
/// Holding the very lock is proof of descent: it can only be inherited.
pub fn clear_leftovers(engine_lock: &Path) -> usize {
    if !locks::is_held(engine_lock) || has_living_owner(engine_lock) {
        return 0;
    }
    kill_sharers(engine_lock)
}

/// Kills every process that holds the lock, except this one. For callers who know that the engine is gone and
/// that no shim is at work.
pub(crate) fn kill_sharers(engine_lock: &Path) -> usize {
    let mut sharers = lock_sharers(engine_lock);
    sharers.retain(|entry| entry.pid != std::process::id());
    let leftovers = open_all(&sharers);
    for process in &leftovers {
        let _ = process.signal(Signal::Kill);
    }
    wait_until(KILL_LIMIT, || leftovers.iter().all(|process| process.wait(Duration::ZERO)));
    leftovers.len()
}

fn has_living_owner(engine_lock: &Path) -> bool {
    if locks::is_held(&shim_lock(engine_lock)) {
        return true;
    }
    let engine = locks::read_text(engine_lock).and_then(|holder| holder.engine);
    // Without a text nobody knows whether the holder is the engine itself: leave it alone.
    engine.is_none_or(|identity| match identity.check() {
        Ownership::Ours | Ownership::Vouched { .. } | Ownership::Denied { .. } => true,
        Ownership::Gone | Ownership::Foreign { .. } => false,
    })
}

/// Held by a shim alone, never inherited: tells a living shim from a living engine.
pub(crate) fn shim_lock(engine_lock: &Path) -> std::path::PathBuf {
    engine_lock.with_extension("shim.lock")
}

/// Handles of processes that are still the ones the table showed.
pub(crate) fn open_all(entries: &[ProcessEntry]) -> Vec<ProcessHandle> {
    let open = |entry: &ProcessEntry| {
        let handle = ProcessHandle::open(entry.pid).ok().flatten()?;
        // The pid may have been reused between the look and the opening; after it, it cannot be.
        process_entry(entry.pid).filter(|now| now.started == entry.started).map(|_| handle)
    };
    entries.iter().filter_map(open).collect()
}

/// Children, grandchildren and so on of a process, found by the parent column.
pub(crate) fn descendants(table: &[ProcessEntry], root: u32) -> Vec<ProcessEntry> {
    let mut family = vec![root];
    let mut found: Vec<ProcessEntry> = Vec::new();
    while let Some(parent) = family.pop() {
        // A pid is taken into the family once, so a table that changed while it was read cannot loop.
        for entry in table.iter().filter(|entry| entry.parent == parent && entry.pid != root) {
            if !found.iter().any(|known| known.pid == entry.pid) {
                found.push(*entry);
                family.push(entry.pid);
            }
        }
    }
    found
}

/// All that belongs to a living engine apart from itself: its descendants, its group, and what inherited its
/// lock.
pub(crate) fn relatives(engine: u32, engine_lock: Option<&Path>) -> Vec<ProcessEntry> {
    let table = process_table();
    let mut found = descendants(&table, engine);
    let mut add = |entry: &ProcessEntry| {
        if entry.pid != engine && !found.iter().any(|known| known.pid == entry.pid) {
            found.push(*entry);
        }
    };
    group_members(&table, engine).iter().for_each(&mut add);
    engine_lock.map(lock_sharers).unwrap_or_default().iter().for_each(&mut add);
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(pid: u32, parent: u32) -> ProcessEntry {
        ProcessEntry { pid, parent, group: pid, started: 0, zombie: false }
    }

    #[test]
    fn descendants_are_found_in_any_order_and_strangers_are_not() {
        let table = [entry(5, 4), entry(4, 3), entry(3, 1), entry(9, 1), entry(6, 4)];
        let mut pids: Vec<u32> = descendants(&table, 3).iter().map(|entry| entry.pid).collect();
        pids.sort_unstable();
        assert_eq!(pids, [4, 5, 6]);
    }

    #[test]
    fn a_table_with_a_circle_ends() {
        let table = [entry(3, 4), entry(4, 3), entry(0, 0)];
        assert_eq!(descendants(&table, 3).len(), 1);
    }
}
