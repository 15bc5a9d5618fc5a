//! Which executable an instance runs.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use orch_core::{Failure, HomeLayout};
use uuid::Uuid;

use crate::registry::{InstalledEngine, Registry};
use crate::variant::Variant;
use crate::{EXECUTABLE_NAME, faults, tree, version};

/// What a config says about its engine.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EngineRequest {
    pub binary_id: Option<Uuid>,
    /// An exact version, or `latest`.
    pub version: Option<String>,
    pub variant: Option<String>,
}

/// Why this executable was chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EngineOrigin {
    /// The config names this very engine or version.
    Pinned,
    /// `LLAMA_SERVER`.
    Environment,
    /// The newest installed engine that fits.
    Newest,
    /// The home's default.
    Default,
    /// Found on `PATH`.
    SearchPath,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResolvedEngine {
    /// Absolute.
    pub executable: PathBuf,
    /// As recorded at installation; unknown for executables that are not installed here.
    pub version: Option<String>,
    pub id: Option<Uuid>,
    pub origin: EngineOrigin,
}

/// Finds the engine: the pinned one → `LLAMA_SERVER` → the newest of the variant the config asks for → the
/// home's default → the newest installed for this machine → `llama-server` on `PATH`. Reads only.
///
/// An engine that is pinned, or named by `LLAMA_SERVER`, is never silently replaced by another one.
pub fn resolve(
    request: &EngineRequest,
    home: &HomeLayout,
    llama_server: Option<&Path>,
    search_path: Option<&OsStr>,
) -> Result<ResolvedEngine, Failure> {
    if let Some(pinned) = pinned(request, home)? {
        return Ok(pinned);
    }
    if let Some(path) = llama_server {
        return from_environment(path);
    }
    if let Some(installed) = installed(request, home)? {
        return Ok(installed);
    }
    search_path.and_then(on_search_path).ok_or_else(|| {
        faults::not_found("no llama-server is installed and none is on PATH")
            .hint("install one with: llama-orch engine install")
    })
}

fn pinned(request: &EngineRequest, home: &HomeLayout) -> Result<Option<ResolvedEngine>, Failure> {
    let exact = request.version.as_deref().filter(|version| !version.eq_ignore_ascii_case("latest"));
    if request.binary_id.is_none() && exact.is_none() {
        return Ok(None);
    }
    let engines = usable(&Registry::load(home)?);
    let (found, what) = match (request.binary_id, exact) {
        (Some(id), _) => (engines.into_iter().find(|engine| engine.id == id), format!("engine {id}")),
        (None, exact) => {
            let version = exact.unwrap_or_default();
            let variant = request.variant.as_deref().map(Variant::for_host);
            let fits = |engine: &InstalledEngine| {
                version::same(&engine.version, version)
                    && variant.as_ref().is_none_or(|variant| variant.accepts(&engine.variant))
            };
            (engines.into_iter().find(fits), format!("engine version {version}"))
        }
    };
    match found {
        Some(engine) => Ok(Some(chosen(engine, EngineOrigin::Pinned))),
        None => Err(faults::not_found(format!("{what} is not installed"))
            .hint("install it with llama-orch engine install, or change the instance's binary")),
    }
}

fn from_environment(path: &Path) -> Result<ResolvedEngine, Failure> {
    let executable = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    if !tree::is_executable(&executable) {
        let message = format!("LLAMA_SERVER names {}, which is no executable file", path.display());
        return Err(faults::not_found(message).hint("correct or unset LLAMA_SERVER"));
    }
    Ok(ResolvedEngine { executable, version: None, id: None, origin: EngineOrigin::Environment })
}

fn installed(request: &EngineRequest, home: &HomeLayout) -> Result<Option<ResolvedEngine>, Failure> {
    let engines = usable(&Registry::load(home)?);
    let variant = request.variant.as_deref().map_or_else(Variant::host, Variant::for_host);
    let newest = engines.iter().find(|engine| variant.accepts(&engine.variant));
    let default = engines.iter().find(|engine| engine.is_default);
    // A default is somebody's choice: it yields to a config's own wish, not to a newer engine.
    let asked_for = request.variant.is_some() || request.version.is_some();
    let newest = newest.map(|engine| (engine, EngineOrigin::Newest));
    let default = default.map(|engine| (engine, EngineOrigin::Default));
    let choice = if asked_for { newest.or(default) } else { default.or(newest) };
    Ok(choice.map(|(engine, origin)| chosen(engine.clone(), origin)))
}

/// Installed engines whose executable is really there, newest first.
fn usable(registry: &Registry) -> Vec<InstalledEngine> {
    let mut engines = registry.list();
    engines.retain(|engine| tree::is_executable(&engine.executable));
    engines
}

fn chosen(engine: InstalledEngine, origin: EngineOrigin) -> ResolvedEngine {
    ResolvedEngine {
        executable: engine.executable,
        version: Some(engine.version),
        id: Some(engine.id),
        origin,
    }
}

/// Relative entries are passed over: what they mean depends on where a command was typed.
fn on_search_path(search_path: &OsStr) -> Option<ResolvedEngine> {
    let executable = std::env::split_paths(search_path)
        .filter(|folder| folder.is_absolute())
        .map(|folder| folder.join(EXECUTABLE_NAME))
        .find(|candidate| tree::is_executable(candidate))?;
    Some(ResolvedEngine { executable, version: None, id: None, origin: EngineOrigin::SearchPath })
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::registry::{self, Record};
    use orch_core::{ByteCount, ExitCode};

    struct Fixture {
        folder: tempfile::TempDir,
        home: HomeLayout,
    }

    impl Fixture {
        fn new() -> Self {
            let folder = tempfile::tempdir().unwrap();
            let home = HomeLayout::new(folder.path().join("home"));
            Self { folder, home }
        }

        fn executable(&self, name: &str) -> PathBuf {
            let path = self.folder.path().join(name).join(EXECUTABLE_NAME);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, "").unwrap();
            tree::make_executable(&path).unwrap();
            path
        }

        fn install(&self, version: &str, variant: &str) -> Uuid {
            let id = Uuid::new_v4();
            let record = Record {
                id,
                version: version.to_owned(),
                variant: variant.to_owned(),
                executable: self.executable(&id.to_string()),
                source: "path".to_owned(),
                sha256: None,
                installed_at: "2026-01-01T00:00:00Z".to_owned(),
                size_bytes: ByteCount(0),
            };
            registry::edit(&self.home, |registry| registry.put(&record, false)).unwrap();
            id
        }

        fn resolve(&self, request: &EngineRequest) -> Result<ResolvedEngine, Failure> {
            resolve(request, &self.home, None, None)
        }
    }

    fn version(text: &str) -> EngineRequest {
        EngineRequest { version: Some(text.to_owned()), ..EngineRequest::default() }
    }

    fn variant(text: &str) -> EngineRequest {
        EngineRequest { variant: Some(text.to_owned()), ..EngineRequest::default() }
    }

    #[test]
    fn a_pinned_engine_is_found_or_missing_and_never_another_one() {
        let fixture = Fixture::new();
        let old = fixture.install("b1", "ubuntu-x64");
        fixture.install("b2", "ubuntu-x64");
        assert_eq!(fixture.resolve(&version("b1")).unwrap().id, Some(old));
        let by_id = EngineRequest { binary_id: Some(old), ..version("b2") };
        assert_eq!(fixture.resolve(&by_id).unwrap().origin, EngineOrigin::Pinned);
        let server = fixture.executable("elsewhere");
        for missing in [version("b3"), EngineRequest { binary_id: Some(Uuid::new_v4()), ..version("b2") }] {
            let failure = resolve(&missing, &fixture.home, Some(&server), None).unwrap_err();
            assert_eq!(failure.exit, ExitCode::EngineNotFound);
        }
        let other_variant = EngineRequest { variant: Some("vulkan".to_owned()), ..version("b1") };
        assert_eq!(fixture.resolve(&other_variant).unwrap_err().exit, ExitCode::EngineNotFound);
    }

    #[test]
    fn a_pinned_engine_without_its_executable_is_missing() {
        let fixture = Fixture::new();
        fixture.install("b1", "ubuntu-x64");
        let executable = fixture.resolve(&version("b1")).unwrap().executable;
        fs::remove_file(executable).unwrap();
        assert_eq!(fixture.resolve(&version("b1")).unwrap_err().exit, ExitCode::EngineNotFound);
    }

    #[test]
    fn the_environment_comes_before_what_is_installed_and_is_never_passed_over() {
        let fixture = Fixture::new();
        fixture.install("b2", "ubuntu-x64");
        let server = fixture.executable("mine");
        let request = EngineRequest::default();
        let found = resolve(&request, &fixture.home, Some(&server), None).unwrap();
        assert_eq!((found.executable, found.origin), (server, EngineOrigin::Environment));
        let missing = fixture.folder.path().join("missing");
        let failure = resolve(&request, &fixture.home, Some(&missing), None).unwrap_err();
        assert_eq!(failure.exit, ExitCode::EngineNotFound);
        assert!(failure.message.contains("LLAMA_SERVER"));
    }

    #[test]
    fn the_newest_of_a_variant_answers_a_wish_and_a_default_answers_none() {
        let fixture = Fixture::new();
        let old = fixture.install("b9", "ubuntu-x64");
        let new = fixture.install("b10", "ubuntu-x64");
        let vulkan = fixture.install("b8", "ubuntu-vulkan-x64");
        let nothing = EngineRequest::default();
        assert_eq!(fixture.resolve(&nothing).unwrap().id, Some(new));
        assert_eq!(fixture.resolve(&version("latest")).unwrap().id, Some(new));
        assert_eq!(fixture.resolve(&variant("win-vulkan-x64")).unwrap().id, Some(vulkan));

        registry::set_default(&fixture.home, &old.to_string()).unwrap();
        let default = fixture.resolve(&nothing).unwrap();
        assert_eq!((default.id, default.origin), (Some(old), EngineOrigin::Default));
        assert_eq!(fixture.resolve(&version("latest")).unwrap().id, Some(new));
        assert_eq!(
            fixture.resolve(&variant("cuda")).unwrap().id,
            Some(old),
            "nothing of the variant: the default"
        );
    }

    #[test]
    fn the_search_path_is_last() {
        let fixture = Fixture::new();
        let server = fixture.executable("bin");
        let path = std::env::join_paths([Path::new("relative"), server.parent().unwrap()]).unwrap();
        let found = resolve(&EngineRequest::default(), &fixture.home, None, Some(&path)).unwrap();
        assert_eq!((found.executable, found.origin), (server, EngineOrigin::SearchPath));
        let failure = fixture.resolve(&EngineRequest::default()).unwrap_err();
        assert_eq!(failure.exit, ExitCode::EngineNotFound);
        assert!(failure.hint.is_some());
        assert!(!fixture.home.root().exists(), "looking creates nothing");
    }
}
