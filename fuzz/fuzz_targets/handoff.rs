//! A handoff file of any bytes is read or refused, and never hides its neighbour.

#![no_main]

use std::sync::LazyLock;

use engine_process::{Handoff, scan_handoffs};
use libfuzzer_sys::fuzz_target;

const GOOD: &str = r#"{"pool_id":"good","replica_id":"r0","instance":"good","engine":"llama.cpp","engine_version":null,
"exe":"/opt/llama-server","url":"http://127.0.0.1:8001","pid":1,"process_started_at":"1","shim_pid":1,"slots_total":1,
"slots_free":1,"device_mask":null,"model":{"id":"m","path":"/m.gguf"},"config_hash":"x"}"#;

static FOLDER: LazyLock<tempfile::TempDir> = LazyLock::new(|| {
    let folder = tempfile::tempdir().expect("the temporary folder is writable");
    std::fs::write(folder.path().join("good-r0.json"), GOOD).expect("the folder is ours");
    Handoff::read(&folder.path().join("good-r0.json")).expect("the neighbour is sound");
    folder
});

fuzz_target!(|bytes: &[u8]| {
    let path = FOLDER.path().join("fuzzed-r0.json");
    std::fs::write(&path, bytes).expect("the file is ours");
    if let Ok(handoff) = Handoff::read(&path) {
        let _ = (handoff.identity(), handoff.host(), handoff.port());
    }
    let scanned = scan_handoffs(FOLDER.path());
    assert!(scanned.iter().flatten().any(|handoff| handoff.pool_id.as_str() == "good"));
});
