//! Where the programs under test lie.

use std::env::consts::EXE_SUFFIX;
use std::path::{Path, PathBuf};

/// The built program `name` of this workspace, found beside the running test.
///
/// Panics when it has not been built: `cargo test -p <crate>` builds no programs of other crates.
pub fn bin_path(name: &str) -> PathBuf {
    let test = std::env::current_exe().expect("a running test has an executable");
    let file = format!("{name}{EXE_SUFFIX}");
    // A test lies in `<profile>/deps`, an example in `<profile>/examples`, a program in `<profile>` itself.
    let built = test.ancestors().skip(1).take(3).map(|folder| folder.join(&file)).find(|path| path.is_file());
    built.unwrap_or_else(|| {
        let folder = test.ancestors().nth(2).unwrap_or(Path::new("target")).display();
        panic!("no {file} in {folder}; build it first: cargo build --workspace")
    })
}

/// The `llama-server` stand-in with fault knobs; `fake-llama-server --help` lists them.
pub fn fake_engine() -> PathBuf {
    bin_path("fake-llama-server")
}
