//! `engine`: the llama-server versions of a home.

mod install;
mod remove;

use std::path::PathBuf;

use engine_provisioner::{
    Endpoints, EngineOrigin, EngineRequest, InstalledEngine, Registry, ResolvedEngine, known_profile,
    latest_release, probe, resolve, set_default,
};
use instance_config::Backend;
use orch_core::{EngineProfile, Failure, HomeLayout};
use orch_runtime::environment;
use orchestratord::compose::Tools;
use serde_json::json;

use crate::arguments::EngineAction;
use crate::context::Context;
use crate::ending::CommandResult;
use crate::runtime::block_on;

pub(super) use install::{install_version, register};

pub(super) fn run(context: &Context, action: EngineAction) -> CommandResult {
    match action {
        EngineAction::Install(arguments) => install::run(context, &arguments),
        EngineAction::List => list(context),
        EngineAction::Info { engine } => info(context, engine.as_deref()),
        EngineAction::Use { engine } => make_default(context, &engine),
        EngineAction::Remove { engine, force } => remove::run(context, &engine, force),
        EngineAction::Latest => latest(context),
        EngineAction::Devices { engine } => devices(context, engine.as_deref()),
    }
}

fn list(context: &Context) -> CommandResult {
    let engines = Registry::load(context.home()?)?.list();
    if context.printer.json() {
        return Ok(context.printer.document(&engines)?);
    }
    let row = |engine: &InstalledEngine| {
        vec![
            engine.version.clone(),
            engine.variant.clone(),
            engine.source.clone(),
            engine.size_bytes.to_string(),
            engine.installed_at.clone(),
            if engine.is_default { "default" } else { "" }.to_owned(),
            engine.id.to_string(),
        ]
    };
    let rows: Vec<Vec<String>> = engines.iter().map(row).collect();
    context.printer.table(&["VERSION", "VARIANT", "SOURCE", "SIZE", "INSTALLED", "", "ID"], &rows)?;
    if let Ok(used) = chosen_engine(context.home()?)
        && used.id.is_none()
    {
        let executable = used.executable.display();
        context.talk.note(&format!("in use: {executable} ({})", origin_words(used.origin)));
    }
    Ok(())
}

/// The engine that instances without a wish of their own run.
pub(super) fn chosen_engine(home: &HomeLayout) -> Result<ResolvedEngine, Failure> {
    let named = std::env::var_os(environment::ENGINE).filter(|path| !path.is_empty()).map(PathBuf::from);
    let search_path = std::env::var_os("PATH");
    resolve(&EngineRequest::default(), home, named.as_deref(), search_path.as_deref())
}

/// Why an engine was chosen, for people.
pub(super) fn origin_words(origin: EngineOrigin) -> &'static str {
    match origin {
        EngineOrigin::Pinned => "asked for",
        EngineOrigin::Environment => "named by LLAMA_SERVER",
        EngineOrigin::Newest => "the newest installed",
        EngineOrigin::Default => "the default of this home",
        EngineOrigin::SearchPath => "found on PATH",
    }
}

/// What an engine is and can do; devices are asked for anew, because they come and go.
fn examine(home: &HomeLayout, selector: Option<&str>) -> Result<(ResolvedEngine, EngineProfile), Failure> {
    let engine = match selector {
        None => chosen_engine(home)?,
        Some(selector) => {
            let engine = Registry::load(home)?.select(selector)?;
            ResolvedEngine {
                executable: engine.executable,
                version: Some(engine.version),
                id: Some(engine.id),
                origin: EngineOrigin::Pinned,
            }
        }
    };
    let profile = probe(&engine.executable, &Tools)?;
    Ok((engine, profile))
}

fn info(context: &Context, selector: Option<&str>) -> CommandResult {
    let home = context.home()?;
    let (engine, profile) = examine(home, selector)?;
    let registry = Registry::load(home)?;
    let installed = engine.id.and_then(|id| registry.get(id));
    let version = engine.version.clone().or(profile.version.clone());
    if context.printer.json() {
        return Ok(context.printer.document(&json!({
            "executable": engine.executable,
            "version": version,
            "chosen": origin_words(engine.origin),
            "installed": installed,
            "devices": profile.devices,
            "flags": profile.flags,
        }))?);
    }
    let mut pairs = vec![
        ("executable", engine.executable.display().to_string()),
        ("version", version.unwrap_or_else(|| "-".to_owned())),
        ("chosen", origin_words(engine.origin).to_owned()),
    ];
    if let Some(installed) = installed {
        pairs.push(("id", installed.id.to_string()));
        pairs.push(("variant", installed.variant));
        pairs.push(("source", installed.source));
        pairs.push(("installed", installed.installed_at));
        pairs.extend(installed.sha256.map(|sha256| ("sha256", sha256)));
    }
    pairs.push(("flags", profile.flags.len().to_string()));
    let devices: Vec<&str> = profile.devices.iter().map(|device| device.id.as_str()).collect();
    pairs.push((
        "devices",
        if devices.is_empty() { "none but the CPU".to_owned() } else { devices.join(", ") },
    ));
    Ok(context.printer.pairs(&pairs)?)
}

fn devices(context: &Context, selector: Option<&str>) -> CommandResult {
    let (_, profile) = examine(context.home()?, selector)?;
    if context.printer.json() {
        return Ok(context.printer.document(&profile.devices)?);
    }
    if profile.devices.is_empty() {
        context.talk.note("this engine lists no device but the CPU");
    }
    let row = |device: &orch_core::DeviceInfo| {
        vec![
            device.id.clone(),
            device.name.clone(),
            device.memory_total.to_string(),
            device.memory_free.to_string(),
        ]
    };
    let rows: Vec<Vec<String>> = profile.devices.iter().map(row).collect();
    Ok(context.printer.table(&["DEVICE", "NAME", "MEMORY", "FREE"], &rows)?)
}

fn make_default(context: &Context, selector: &str) -> CommandResult {
    let engine = set_default(context.home()?, selector)?;
    if context.printer.json() {
        return Ok(context.printer.document(&engine)?);
    }
    Ok(context.printer.line(format_args!("{} ({}) is the default", engine.version, engine.variant))?)
}

fn latest(context: &Context) -> CommandResult {
    let token = std::env::var(environment::GITHUB_TOKEN).ok().filter(|token| !token.is_empty());
    let release = block_on(latest_release(&Endpoints::default(), token.as_deref()))?;
    let installed = Registry::load(context.home()?)?.list();
    let installed = installed.iter().any(|engine| engine.version == release.version);
    if context.printer.json() {
        return Ok(context.printer.document(&json!({
            "version": release.version,
            "published_at": release.published_at,
            "installed": installed,
            "variants": release.variants(),
        }))?);
    }
    Ok(context.printer.pairs(&[
        ("version", release.version.clone()),
        ("published", release.published_at.clone().unwrap_or_else(|| "-".to_owned())),
        ("installed", if installed { "yes" } else { "no" }.to_owned()),
        ("variants", release.variants().join(", ")),
    ])?)
}

/// What the engines of this machine can compute on; the CPU where nothing is known.
pub(super) fn backend_of_machine(home: &HomeLayout) -> Backend {
    let Ok(engine) = chosen_engine(home) else { return Backend::Cpu };
    let known = known_profile(home, &engine.executable);
    let Some(profile) = known.or_else(|| probe(&engine.executable, &Tools).ok()) else { return Backend::Cpu };
    best_backend(profile.devices.iter().map(|device| device.id.as_str()))
}

/// A vendor's own backend goes before the general one.
fn best_backend<'a>(devices: impl Iterator<Item = &'a str>) -> Backend {
    const BY_PREFIX: [(&str, Backend); 5] = [
        ("cuda", Backend::Cuda),
        ("mtl", Backend::Metal),
        ("metal", Backend::Metal),
        ("rocm", Backend::Hip),
        ("vulkan", Backend::Vulkan),
    ];
    let names: Vec<String> = devices.map(str::to_ascii_lowercase).collect();
    let found = BY_PREFIX.into_iter().find(|(prefix, _)| names.iter().any(|name| name.starts_with(prefix)));
    found.map_or(Backend::Cpu, |(_, backend)| backend)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_backend_is_that_of_the_best_device() {
        for (devices, backend) in [
            (&[][..], Backend::Cpu),
            (&["BLAS"], Backend::Cpu),
            (&["Vulkan0"], Backend::Vulkan),
            (&["Vulkan0", "CUDA0"], Backend::Cuda),
            (&["ROCm1"], Backend::Hip),
            (&["MTL0"], Backend::Metal),
        ] {
            assert_eq!(best_backend(devices.iter().copied()), backend, "{devices:?}");
        }
    }
}
