//! Writing a new instance.

use std::path::{Path, PathBuf};

use orch_core::{ExitCode, Failure, HomeLayout, InstanceName, UnixMillis};
use serde_json::{Map, Value, json};
use uuid::Uuid;

use crate::field::Field;
use crate::gguf::ModelShape;
use crate::loaded::{load_document, write_document};
use crate::reader::SCHEMA_VERSION;
use crate::{Backend, Catalog, LoadedInstance, Template, resolve_model_path};

/// Which port a new instance gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PortChoice {
    Fixed(u16),
    /// The first from 8001 on that no config claims and nobody listens on.
    Auto,
}

/// What `init` was asked for. Only what is given here, or differs from the defaults, is written.
#[derive(Clone, Debug)]
pub struct NewInstance {
    pub name: InstanceName,
    /// As it is to be written: see [`model_field`].
    pub model: String,
    pub port: PortChoice,
    pub backend: Backend,
    pub device: Option<u32>,
    /// All of them on a GPU backend, none on a CPU, when not given.
    pub layers: Option<u32>,
    /// The template's or the default, and no more than the model was trained for, when not given.
    pub context: Option<u32>,
    pub threads: Option<u32>,
    pub template: Option<&'static Template>,
    /// Replaces a config of that name, whose identity is kept.
    pub force: bool,
}

const FIRST_PORT: u16 = 8001;
const ALL_LAYERS: u32 = 999;

/// Writes the config of a new instance. Refused are a name that exists (exit 14) and a port that another config
/// claims (exit 11).
pub fn create(
    home: &HomeLayout,
    catalog: &Catalog,
    new: &NewInstance,
    is_free: &dyn Fn(u16) -> bool,
    now: UnixMillis,
) -> Result<LoadedInstance, Failure> {
    let instance = unsaved(home, catalog, new, is_free, now)?;
    write_document(&instance.path, &instance.document.0)?;
    Ok(instance)
}

/// The config of a new instance, not written yet; the home is there.
pub(crate) fn unsaved(
    home: &HomeLayout,
    catalog: &Catalog,
    new: &NewInstance,
    is_free: &dyn Fn(u16) -> bool,
    now: UnixMillis,
) -> Result<LoadedInstance, Failure> {
    let replaced = replaced_path(home, catalog, new)?;
    let port = choose_port(catalog, new, is_free)?;
    let document = document(catalog, new, port, now);
    let path = replaced.unwrap_or_else(|| home.instance_config(&new.name));
    let instance = load_document(&path, document).map_err(|broken| broken.failure())?;
    let instance = within_model(instance, new, home)?;
    crate::home::create(home).map_err(|error| {
        Failure::new(ExitCode::General, format!("{} cannot be created: {error}", home.root().display()))
    })?;
    Ok(instance)
}

/// Nobody asked for a context: it is no longer than what the model was trained for.
fn within_model(
    instance: LoadedInstance,
    new: &NewInstance,
    home: &HomeLayout,
) -> Result<LoadedInstance, Failure> {
    let model = resolve_model_path(&instance.config, &instance.path, home);
    let trained = ModelShape::read(&model).context.and_then(|trained| u32::try_from(trained).ok());
    let Some(trained) = trained.filter(|_| new.context.is_none()) else { return Ok(instance) };
    if instance.config.model.context_size <= trained {
        return Ok(instance);
    }
    let mut document = instance.document.0;
    put(&mut document, "model.context_size", json!(trained.max(SHORTEST_CONTEXT)));
    load_document(&instance.path, document).map_err(|broken| broken.failure())
}

/// The least that the format allows.
const SHORTEST_CONTEXT: u32 = 512;

/// The file that this name has already, which only `force` may replace.
fn replaced_path(
    home: &HomeLayout,
    catalog: &Catalog,
    new: &NewInstance,
) -> Result<Option<PathBuf>, Failure> {
    let name = new.name.as_str();
    let good =
        catalog.instances.iter().find(|known| known.config.name == new.name).map(|known| known.path.clone());
    let broken =
        || catalog.broken.iter().find(|broken| broken.name == name).map(|broken| broken.path.clone());
    let target = home.instance_config(&new.name);
    let existing = good.or_else(broken).or_else(|| target.exists().then_some(target));
    match &existing {
        Some(path) if !new.force => {
            let message = format!("instance {name} exists already: {}", path.display());
            Err(Failure::new(ExitCode::AlreadyExists, message)
                .hint("choose another name, or replace it with --force"))
        }
        _ => Ok(existing),
    }
}

fn choose_port(catalog: &Catalog, new: &NewInstance, is_free: &dyn Fn(u16) -> bool) -> Result<u16, Failure> {
    let claimant =
        |port| catalog.claiming(port).map(|claim| claim.name).find(|name| *name != new.name.as_str());
    match new.port {
        PortChoice::Fixed(port) => match claimant(port) {
            None => Ok(port),
            Some(other) => {
                let message = format!("port {port} is claimed by instance {other}");
                Err(Failure::new(ExitCode::ConfigInvalid, message)
                    .hint("choose another port, or --port auto"))
            }
        },
        PortChoice::Auto => {
            (FIRST_PORT..=u16::MAX).find(|&port| claimant(port).is_none() && is_free(port)).ok_or_else(|| {
                Failure::new(ExitCode::PortUnavailable, format!("no port from {FIRST_PORT} on is free"))
            })
        }
    }
}

fn document(catalog: &Catalog, new: &NewInstance, port: u16, now: UnixMillis) -> Map<String, Value> {
    let predecessor =
        catalog.instances.iter().find(|known| known.config.name == new.name).map(|known| &known.config);
    let uid = predecessor.map_or_else(Uuid::new_v4, |config| config.instance_uid);
    let number =
        predecessor.and_then(|config| config.instance_no.clone()).unwrap_or_else(|| next_number(catalog));
    let created =
        predecessor.and_then(|config| config.created_at.clone()).unwrap_or_else(|| now.to_rfc3339());
    let mut document = Map::new();
    let mut put = |path: &str, value: Value| put(&mut document, path, value);
    put("name", json!(new.name));
    put("schema_version", json!(SCHEMA_VERSION.to_string()));
    put("instance_uid", json!(uid));
    put("instance_no", json!(number));
    put("created_at", json!(created));
    put("updated_at", json!(now.to_rfc3339()));
    put("model.path", json!(new.model));
    for (path, value) in new.template.into_iter().flat_map(Template::fields) {
        put(path, value);
    }
    for (path, value) in asked_for(new) {
        put(path, value);
    }
    put("server.port", json!(port));
    document
}

fn asked_for(new: &NewInstance) -> Vec<(&'static str, Value)> {
    let on_gpu = new.backend != Backend::Cpu;
    let layers = new.layers.or(on_gpu.then_some(ALL_LAYERS));
    let backend = on_gpu.then(|| json!(new.backend.label()));
    let number = |value: Option<u32>| value.map(|value| json!(value));
    [
        ("model.context_size", number(new.context)),
        ("model.threads", number(new.threads)),
        ("gpu.backend", backend),
        ("gpu.device_id", number(new.device)),
        ("gpu.layers", number(layers)),
    ]
    .into_iter()
    .filter_map(|(path, value)| value.map(|value| (path, value)))
    .collect()
}

fn put(document: &mut Map<String, Value>, path: &str, value: Value) {
    debug_assert!(Field::find(path).is_some(), "{path} is not in the table");
    match path.split_once('.') {
        None => {
            document.insert(path.to_owned(), value);
        }
        Some((section, key)) => {
            let section = document.entry(section).or_insert_with(|| json!({}));
            section[key] = value;
        }
    }
}

/// One above the highest in use.
fn next_number(catalog: &Catalog) -> String {
    let numbers =
        catalog.instances.iter().filter_map(|known| known.config.instance_no.as_deref()?.parse::<u32>().ok());
    format!("{:08}", numbers.max().unwrap_or(0) + 1)
}

/// How a model that was named on the command line is written: paths that exist become absolute, or relative to the
/// home when they lie in it, so that a home can be moved.
pub fn model_field(reference: &str, working_folder: &Path, home: &HomeLayout) -> String {
    let path = reference.strip_prefix("file:").unwrap_or(reference);
    let Ok(found) = dunce::canonicalize(working_folder.join(path)) else { return path.to_owned() };
    let root = dunce::canonicalize(home.root()).unwrap_or_else(|_| home.root().to_owned());
    match found.strip_prefix(&root) {
        Ok(inside) => {
            inside.components().map(|part| part.as_os_str().to_string_lossy()).collect::<Vec<_>>().join("/")
        }
        Err(_) => found.display().to_string(),
    }
}
