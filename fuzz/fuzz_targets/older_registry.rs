//! The older tool's registry of engines, of any bytes: an engine that lies there is found all the same.

#![no_main]

use std::sync::LazyLock;

use engine_provisioner::{EXECUTABLE_NAME, older_engines};
use libfuzzer_sys::fuzz_target;
use orch_core::HomeLayout;

const ID: &str = "0b1d2c3e-4f50-4a61-8b72-9c83ad94be01";

static FOLDER: LazyLock<tempfile::TempDir> = LazyLock::new(|| {
    let folder = tempfile::tempdir().expect("the temporary folder is writable");
    let engine = folder.path().join("bins").join(ID);
    std::fs::create_dir_all(&engine).expect("the folder is ours");
    std::fs::write(engine.join(EXECUTABLE_NAME), "").expect("the folder is ours");
    folder
});

fuzz_target!(|bytes: &[u8]| {
    std::fs::write(FOLDER.path().join("bins/registry.json"), bytes).expect("the file is ours");
    let found = older_engines(&HomeLayout::new(FOLDER.path())).expect("nothing of it is fatal");
    assert!(found.engines.iter().any(|engine| engine.id.to_string() == ID));
});
