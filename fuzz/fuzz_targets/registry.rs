//! The registry of engines, of any bytes.

#![no_main]

use std::sync::LazyLock;

use engine_provisioner::{EngineRequest, Registry, resolve};
use libfuzzer_sys::fuzz_target;
use orch_core::HomeLayout;

static FOLDER: LazyLock<tempfile::TempDir> = LazyLock::new(|| {
    let folder = tempfile::tempdir().expect("the temporary folder is writable");
    std::fs::create_dir_all(HomeLayout::new(folder.path()).engines()).expect("the folder is ours");
    folder
});

fuzz_target!(|bytes: &[u8]| {
    let home = HomeLayout::new(FOLDER.path());
    std::fs::write(home.engine_registry(), bytes).expect("the file is ours");
    if let Ok(registry) = Registry::load(&home) {
        let engines = registry.list();
        let _ = (registry.default(), registry.select("b1"));
        assert!(engines.iter().all(|engine| registry.get(engine.id).is_some()));
    }
    let _ = resolve(&EngineRequest::default(), &home, None, None);
});
