//! Who may know whom. A new crate needs a row here, and a new dependency between rooms a reason.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeSet;

use cargo_metadata::{DependencyKind, Metadata, MetadataCommand, Package};

/// Each crate of the workspace with the crates of the workspace that it may use. Only downwards; the node's side
/// and the control plane's never know each other: they meet in the programs.
const MAY_USE: &[(&str, &[&str])] = &[
    // Shared: the vocabulary, and the kit of which daemons are made.
    ("orch-core", &[]),
    ("orch-runtime", &["orch-core"]),
    // What is said under /v2, and the client that says it.
    ("orch-api", &["orch-core", "orch-runtime"]),
    // One node.
    ("instance-config", &["orch-core", "orch-runtime"]),
    ("state-store", &["orch-core", "orch-runtime"]),
    ("engine-process", &["orch-core", "orch-runtime"]),
    (
        "pool-manager",
        &["orch-core", "orch-runtime", "orch-api", "instance-config", "state-store", "engine-process"],
    ),
    // Where engines come from.
    ("engine-provisioner", &["orch-core", "orch-runtime"]),
    ("model-provisioner", &["orch-core", "orch-runtime"]),
    // Protocols, and the control plane's data path.
    ("llm-adapters", &["orch-core", "orch-runtime"]),
    ("gateway", &["orch-core", "orch-runtime", "llm-adapters"]),
    ("control-store", &["orch-core"]),
    // Workflows: what one is, how it runs, and whom it asks.
    ("workflow-spec", &["orch-core"]),
    ("workflow", &["orch-core", "workflow-spec"]),
    ("llm-providers", &["orch-core", "llm-adapters", "workflow", "workflow-spec"]),
    // Programs: they wire everything together. At home the control plane links the node in.
    ("pool-managerd", NODE_ROOMS),
    (
        "orchestratord",
        &[
            "orch-core",
            "orch-runtime",
            "orch-api",
            "instance-config",
            "state-store",
            "engine-process",
            "pool-manager",
            "engine-provisioner",
            "llm-adapters",
            "gateway",
            "control-store",
            "workflow-spec",
            "workflow",
            "llm-providers",
            "pool-managerd",
        ],
    ),
    (
        "llama-orch",
        &[
            "orch-core",
            "orch-runtime",
            "orch-api",
            "instance-config",
            "state-store",
            "engine-process",
            "pool-manager",
            "engine-provisioner",
            "model-provisioner",
            "workflow-spec",
            "workflow",
            "llm-providers",
            "pool-managerd",
            "orchestratord",
        ],
    ),
    // For developers only.
    ("testkit", &["orch-core", "model-provisioner"]),
    ("xtask", &["orch-core", "testkit"]),
    ("end-to-end", &[]),
];

const NODE_ROOMS: &[&str] = &[
    "orch-core",
    "orch-runtime",
    "orch-api",
    "instance-config",
    "state-store",
    "engine-process",
    "pool-manager",
    "engine-provisioner",
];

/// Outside crates that only these of ours may use.
const ONLY_IN: &[(&str, &[&str])] = &[
    // The test kit writes databases of the older tool.
    ("rusqlite", &["control-store", "state-store", "testkit"]),
    ("axum", &["orchestratord", "pool-managerd"]),
    ("clap", &["llama-orch", "orchestratord", "pool-managerd"]),
    ("windows-sys", &["engine-process"]),
    ("procfs", &["engine-process"]),
    ("reqwest", &["engine-provisioner", "gateway", "llm-providers", "model-provisioner"]),
    ("ratatui", &["llama-orch"]),
    // The listener, and the client of commands.
    ("tokio-rustls", &["orch-runtime", "orch-api"]),
    ("anyhow", &["llama-orch", "orchestratord", "pool-managerd", "xtask"]),
];

/// What must not be linked at all: one TLS, one SQLite, nothing that needs a system library.
const NOWHERE: &[&str] =
    &["openssl", "openssl-sys", "native-tls", "aws-lc-rs", "aws-lc-sys", "sqlx", "serde_yaml"];

fn workspace() -> Metadata {
    MetadataCommand::new().no_deps().exec().unwrap()
}

fn names_of_ours(metadata: &Metadata) -> BTreeSet<String> {
    metadata.workspace_packages().iter().map(|package| package.name.to_string()).collect()
}

/// What a crate uses, not counting what only its tests use.
fn uses(package: &Package) -> impl Iterator<Item = &str> {
    let shipped =
        package.dependencies.iter().filter(|dependency| dependency.kind != DependencyKind::Development);
    shipped.map(|dependency| dependency.name.as_str())
}

#[test]
fn every_crate_knows_only_those_below_it() {
    let metadata = workspace();
    let ours = names_of_ours(&metadata);
    for package in metadata.workspace_packages() {
        let name = package.name.as_str();
        let row = MAY_USE.iter().find(|(row, _)| *row == name);
        let (_, allowed) = row.unwrap_or_else(|| panic!("{name} has no row in MAY_USE"));
        for used in uses(package).filter(|used| ours.contains(*used)) {
            assert!(allowed.contains(&used), "{name} must not use {used}");
        }
    }
}

#[test]
fn the_table_names_no_crate_that_is_gone() {
    let ours = names_of_ours(&workspace());
    for (name, allowed) in MAY_USE {
        for listed in allowed.iter().chain([name]) {
            assert!(ours.contains(*listed), "{listed} is no crate of this workspace");
        }
    }
}

#[test]
fn the_test_kit_ships_with_nothing() {
    for package in workspace().workspace_packages().iter().filter(|package| package.name.as_str() != "xtask")
    {
        assert!(!uses(package).any(|used| used == "testkit"), "{} ships the test kit", package.name);
    }
}

#[test]
fn outside_crates_stay_in_their_rooms() {
    for package in workspace().workspace_packages() {
        for (outside, rooms) in ONLY_IN {
            let name = package.name.as_str();
            assert!(
                rooms.contains(&name) || !uses(package).any(|used| used == *outside),
                "{name} must not use {outside}"
            );
        }
    }
}

#[test]
fn nothing_pulls_in_a_second_tls_or_sqlite() {
    let lock_file = workspace().workspace_root.join("Cargo.lock");
    let locked = std::fs::read_to_string(lock_file).unwrap();
    let packages: BTreeSet<&str> = locked.lines().filter_map(|line| line.strip_prefix("name = ")).collect();
    assert!(packages.contains("\"tokio\""), "the lock file is not understood");
    for name in NOWHERE {
        let quoted = format!("\"{name}\"");
        assert!(
            !packages.contains(quoted.as_str()),
            "`cargo tree --invert {name}` tells through whom it came in"
        );
    }
}

#[test]
fn every_crate_keeps_the_workspaces_lints_and_is_not_published() {
    for package in workspace().workspace_packages() {
        let manifest = std::fs::read_to_string(&package.manifest_path).unwrap();
        assert!(manifest.contains("[lints]\nworkspace = true"), "{}", package.manifest_path);
        assert_eq!(package.publish.as_deref(), Some([].as_slice()), "{}", package.manifest_path);
    }
}
