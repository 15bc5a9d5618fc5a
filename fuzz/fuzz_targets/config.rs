//! An instance config of any bytes is read or refused, and what is read can be shown, hashed and planned for.

#![no_main]

use std::path::PathBuf;
use std::sync::LazyLock;

use instance_config::{config_hash, load_file, plan_migration};
use libfuzzer_sys::fuzz_target;
use orch_core::HomeLayout;

static HOME: LazyLock<(tempfile::TempDir, PathBuf)> = LazyLock::new(|| {
    let home = tempfile::tempdir().expect("the temporary folder is writable");
    let folder = home.path().join("instances/00000001_6f1c2d3e-4a5b-4c6d-8e9f-0a1b2c3d4e5f");
    std::fs::create_dir_all(&folder).expect("a fresh folder takes others");
    (home, folder.join("config.json"))
});

fuzz_target!(|bytes: &[u8]| {
    let (home, path) = &*HOME;
    std::fs::write(path, bytes).expect("the file is ours");
    match load_file(path) {
        Ok(instance) => {
            let _ = (instance.effective(), instance.config.shown(), config_hash(&instance.config));
            let mut changed = instance.clone();
            if changed.set("tags", "a,b").is_ok() {
                assert_eq!(changed.config.tags.len(), 2);
            }
        }
        Err(broken) => assert!(!broken.findings.is_empty(), "refused without a reason"),
    }
    let plan = plan_migration(&HomeLayout::new(home.path()), &[]).expect("the home can be read");
    assert_eq!(plan.catalog.instances.len() + plan.catalog.broken.len(), 1);
});
