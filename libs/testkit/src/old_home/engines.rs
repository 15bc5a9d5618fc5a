//! `bins/registry.json`, the engines it names, and those it does not.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use super::put;

/// An engine of the home.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OldEngine {
    /// The default, which nearly every instance asks for. Registered on Windows, used here.
    Main,
    /// The same version again. Unpacked by a program that lost the right to execute it.
    Again,
    /// Built from source: no release, an odd version.
    FromSource,
    /// Its id is a UUID of no version; its path names the file itself.
    OddIdentity,
    /// Registered, its files deleted.
    Lost,
    /// Registered, built for the other kind of system.
    OtherSystem,
    /// Never registered: only its own folder tells what it is.
    Unregistered,
}

impl OldEngine {
    pub const fn id(self) -> &'static str {
        match self {
            OldEngine::Main => "0b1d2c3e-4f50-4a61-8b72-9c83ad94be01",
            OldEngine::Again => "0b1d2c3e-4f50-4a61-8b72-9c83ad94be02",
            OldEngine::FromSource => "0b1d2c3e-4f50-4a61-8b72-9c83ad94be03",
            OldEngine::OddIdentity => "0b1d2c3e-4f50-0a61-0b72-9c83ad94be04",
            OldEngine::Lost => "0b1d2c3e-4f50-4a61-8b72-9c83ad94be05",
            OldEngine::OtherSystem => "0b1d2c3e-4f50-4a61-8b72-9c83ad94be06",
            OldEngine::Unregistered => "0b1d2c3e-4f50-4a61-8b72-9c83ad94be07",
        }
    }
}

const HERE: &str = if cfg!(windows) { "llama-server.exe" } else { "llama-server" };
const ELSEWHERE: &str = if cfg!(windows) { "llama-server" } else { "llama-server.exe" };

pub(super) fn write(root: &Path, engine: Option<&Path>) {
    let at = |engine: OldEngine, file: &str| format!("bins/{}/{file}", engine.id());
    place(root, &at(OldEngine::Main, HERE), engine);
    put(root, &at(OldEngine::Again, HERE), "#!/bin/sh\n");
    place(root, &at(OldEngine::FromSource, &format!("build/bin/{HERE}")), engine);
    place(root, &at(OldEngine::OddIdentity, HERE), engine);
    put(root, &at(OldEngine::OtherSystem, ELSEWHERE), "MZ");
    place(root, &at(OldEngine::Unregistered, HERE), engine);
    let said = json!({"version": "b6650", "variant": "ubuntu-x64", "installed_at": "2025-09-30T08:00:00Z"});
    put(root, &at(OldEngine::Unregistered, "version.json"), said.to_string());
    put(root, "bin/llama-server.exe", "MZ");
    put(
        root,
        "bins/registry.json",
        serde_json::to_string_pretty(&registry()).expect("a value with text keys"),
    );
}

/// The file of an engine: a link to one that runs, or at least something executable.
fn place(root: &Path, path: &str, engine: Option<&Path>) {
    put(root, path, "#!/bin/sh\nexit 1\n");
    let path = root.join(path);
    #[cfg(unix)]
    if let Some(engine) = engine {
        fs::remove_file(&path).expect("it was written above");
        std::os::unix::fs::symlink(engine, &path).expect("the home is writable");
    } else {
        use std::os::unix::fs::PermissionsExt;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("the file is ours");
    }
    #[cfg(not(unix))]
    if let Some(engine) = engine {
        fs::copy(engine, &path).expect("the home is writable");
    }
}

fn registry() -> Value {
    let entry = |engine: OldEngine, version: &str, installed: &str, path: String| {
        json!({
            "id": engine.id(), "version": version, "variant": "ubuntu-x64", "installed_at": installed, "path": path,
            "download_url": format!("https://github.com/ggml-org/llama.cpp/releases/download/{version}/llama.zip"),
            "sha256": "ab".repeat(32), "size_bytes": 41_000_000, "executables": [HERE, "llama-cli"],
            "github_release_info": {
                "tag_name": version, "published_at": "2025-10-20T22:01:02Z", "commit_sha": "0123abc",
                "html_url": format!("https://github.com/ggml-org/llama.cpp/releases/tag/{version}"),
            },
        })
    };
    let folder = |engine: OldEngine| format!("bins/{}", engine.id());
    let mut main = entry(
        OldEngine::Main,
        "b6700",
        "2025-10-21T10:00:00.123456+02:00",
        format!(r"bins\{}", OldEngine::Main.id()),
    );
    main["variant"] = json!("win-vulkan-x64");
    main["executables"] = json!(["llama-server.exe", "llama-cli.exe"]);
    let again = entry(OldEngine::Again, "b6700", "2025-10-22T10:00:00", folder(OldEngine::Again));
    let mut from_source = entry(
        OldEngine::FromSource,
        "b6812-dirty",
        "2025-10-22T08:00:00+00:00",
        folder(OldEngine::FromSource),
    );
    from_source["download_url"] = Value::Null;
    from_source["sha256"] = Value::Null;
    from_source["github_release_info"]["published_at"] = Value::Null;
    let odd = entry(
        OldEngine::OddIdentity,
        "b6701",
        "2025-10-22T08:00:00Z",
        format!("{}/{HERE}", folder(OldEngine::OddIdentity)),
    );
    let lost = entry(OldEngine::Lost, "b6600", "2025-10-01T08:00:00Z", folder(OldEngine::Lost));
    let mut other =
        entry(OldEngine::OtherSystem, "b6605", "2025-10-02T08:00:00Z", folder(OldEngine::OtherSystem));
    other["executables"] = json!([ELSEWHERE]);
    json!({
        "schema_version": "1.0.0",
        "binaries": [main.clone(), again, from_source, odd, lost, other, main],
        "default_binary_id": OldEngine::Main.id(),
    })
}
