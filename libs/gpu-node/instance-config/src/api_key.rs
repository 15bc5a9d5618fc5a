//! The key that guards an engine.

use std::fs::File;
use std::io::Read;

use orch_core::HomeLayout;

use crate::InstanceConfig;
use crate::arguments::last_value;

const LARGEST_KEY_FILE: u64 = 64 * 1024;

/// The key that probes and gateway present: from `--api-key` or `--api-key-file` in `args`, or from `LLAMA_API_KEY`
/// in `env`. Engines take several; the first does. A relative key file starts from the home, the engine's working
/// folder.
pub fn api_key(config: &InstanceConfig, home: &HomeLayout) -> Option<String> {
    last_value(&config.args, &["--api-key"])
        .and_then(first_key)
        .or_else(|| last_value(&config.args, &["--api-key-file"]).and_then(|path| key_in_file(path, home)))
        .or_else(|| config.env.get("LLAMA_API_KEY").and_then(|keys| first_key(keys)))
}

fn first_key(keys: &str) -> Option<String> {
    keys.split(',').map(str::trim).find(|key| !key.is_empty()).map(str::to_owned)
}

/// One key a line; lines that begin with `#` are remarks.
fn key_in_file(path: &str, home: &HomeLayout) -> Option<String> {
    let path = home.root().join(path);
    // Asked before opening: a named pipe would block the reader for ever.
    if !path.is_file() {
        return None;
    }
    let mut text = String::new();
    File::open(path).ok()?.take(LARGEST_KEY_FILE).read_to_string(&mut text).ok()?;
    text.lines().map(str::trim).find(|line| !line.is_empty() && !line.starts_with('#')).map(str::to_owned)
}
