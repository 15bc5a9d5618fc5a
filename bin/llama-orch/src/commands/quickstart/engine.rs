//! An engine: the one that was asked for, one that is there, or one that is brought here.

use std::path::PathBuf;

use engine_provisioner::{InstalledEngine, Registry};
use orch_core::{ExitCode, Failure};

use crate::commands::engine::{chosen_engine, install_version, origin_words, register};
use crate::context::{Context, working_folder};

/// The engine of the quick start.
pub(super) struct Engine {
    pub(super) executable: PathBuf,
    pub(super) version: Option<String>,
    /// The id to write into the config, where the user has asked for this very one.
    pub(super) pinned: Option<String>,
    chosen: &'static str,
}

impl Engine {
    pub(super) fn words(&self) -> String {
        let version = self.version.as_deref().map_or(String::new(), |version| format!(" {version}"));
        format!("{}{version} ({})", self.executable.display(), self.chosen)
    }

    fn of(installed: InstalledEngine, is_pinned: bool, chosen: &'static str) -> Self {
        Self {
            executable: installed.executable,
            version: Some(installed.version),
            pinned: is_pinned.then(|| installed.id.to_string()),
            chosen,
        }
    }
}

pub(super) fn find_or_install(context: &Context, asked: Option<&str>) -> Result<Engine, Failure> {
    if let Some(asked) = asked {
        return asked_for(context, asked);
    }
    match chosen_engine(context.home()?) {
        Ok(found) => Ok(Engine {
            executable: found.executable,
            version: found.version,
            pinned: None,
            chosen: origin_words(found.origin),
        }),
        // An engine that was named and is not there is never replaced silently.
        Err(failure) if is_named() => Err(failure),
        Err(failure) if failure.exit == ExitCode::EngineNotFound => {
            context.talk.note("no llama-server here yet: installing one");
            install_version(context, None).map(|installed| Engine::of(installed, false, "installed now"))
        }
        Err(failure) => Err(failure),
    }
}

fn is_named() -> bool {
    std::env::var_os(orch_runtime::environment::ENGINE).is_some_and(|path| !path.is_empty())
}

/// A place on this machine, or a version.
fn asked_for(context: &Context, asked: &str) -> Result<Engine, Failure> {
    let path = working_folder().join(asked);
    if path.exists() || asked.contains(['/', '\\']) {
        return register(context, path).map(|installed| Engine::of(installed, true, "asked for"));
    }
    let installed = match Registry::load(context.home()?)?.select(asked) {
        Ok(installed) => installed,
        Err(_) => install_version(context, Some(asked))?,
    };
    Ok(Engine::of(installed, true, "asked for"))
}
