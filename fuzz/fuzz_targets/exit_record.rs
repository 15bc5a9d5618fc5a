//! The record of an engine's end, of any bytes.

#![no_main]

use std::sync::LazyLock;

use engine_process::ExitRecord;
use libfuzzer_sys::fuzz_target;

static FOLDER: LazyLock<tempfile::TempDir> =
    LazyLock::new(|| tempfile::tempdir().expect("the temporary folder is writable"));

fuzz_target!(|bytes: &[u8]| {
    let path = FOLDER.path().join("exit.json");
    std::fs::write(&path, bytes).expect("the file is ours");
    if let Some(record) = ExitRecord::read(&path) {
        let _ = record.shell_code();
    }
});
