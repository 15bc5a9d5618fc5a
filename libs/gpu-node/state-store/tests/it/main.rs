//! The state database from outside: what is written is read, nothing is left behind, nothing is lost.

#![expect(clippy::unwrap_used, reason = "tests")]

mod keeping;
mod killed_migration;
mod migrating;
mod older;
mod older_catalog;
mod processes;
mod recognition;
mod records;
mod traces;

use std::path::Path;

use orch_core::{DesiredState, HomeLayout, InstanceName, ReplicaId, UnixMillis};
use state_store::{Spawned, StateStore};

const NOW: UnixMillis = UnixMillis(1_700_000_000_000);
const FIRST: ReplicaId = ReplicaId::FIRST;

/// A home and the folder that keeps it alive.
fn temp_home() -> (tempfile::TempDir, HomeLayout) {
    let folder = tempfile::tempdir().unwrap();
    let home = HomeLayout::new(folder.path().join("home"));
    (folder, home)
}

fn name(text: &str) -> InstanceName {
    InstanceName::new(text).unwrap()
}

fn later(milliseconds: i64) -> UnixMillis {
    UnixMillis(NOW.0 + milliseconds)
}

/// A store that knows the instance `chat`.
fn store_with_chat(home: &HomeLayout) -> StateStore {
    let store = StateStore::open(home).unwrap();
    know(&store, "chat");
    store
}

fn know(store: &StateStore, instance: &str) {
    let path = format!("/home/instances/{instance}/config.json");
    store.ensure_instance(&name(instance), "uid", Path::new(&path), DesiredState::Stopped, NOW).unwrap();
}

fn spawn(store: &StateStore, reset_restarts: bool, now: UnixMillis) {
    let cmdline = ["llama-server", "--port", "8001", "--api-key", "hunter22"].map(String::from);
    let spawned = Spawned {
        name: &name("chat"),
        replica: FIRST,
        pid: 4711,
        process_started_at: "boot:99",
        exe: Path::new("/opt/llama-server"),
        port: 8001,
        cmdline: &cmdline,
        engine_version: Some("b11434"),
        config_hash: "abc",
        reset_restarts,
    };
    store.record_spawned(&spawned, now).unwrap();
}
