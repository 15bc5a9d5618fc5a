//! A model: the one that was asked for, the one of the last time, a small real one, or a random one.

use std::path::{Path, PathBuf};

use instance_config::{LoadedInstance, check_model, model_field, resolve_model_path};
use model_provisioner::{Hub, HubModel, TinyModel, fetch, write_tiny_model};
use orch_core::{ExitCode, Failure, HomeLayout};
use orch_runtime::environment;

use crate::context::{Context, working_folder};
use crate::progress::Stages;
use crate::runtime::block_on;

/// Small enough to be fetched in a minute, large enough to make sense.
const DEFAULT: &str = "hf:Qwen/Qwen2.5-0.5B-Instruct-GGUF:qwen2.5-0.5b-instruct-q4_k_m.gguf";
const RANDOM: &str = "tiny-random.gguf";

/// The model of the quick start.
pub(super) struct Model {
    pub(super) path: PathBuf,
    /// As the config names it.
    pub(super) field: String,
    /// Made of random numbers.
    pub(super) is_noise: bool,
}

impl Model {
    fn at(path: PathBuf, home: &HomeLayout) -> Self {
        let field = model_field(&path.display().to_string(), Path::new("/"), home);
        let is_noise = path.file_name().is_some_and(|name| name == RANDOM);
        Self { path, field, is_noise }
    }

    pub(super) fn words(&self) -> String {
        let noise = if self.is_noise { " (random: its words are noise)" } else { "" };
        format!("{}{noise}", self.path.display())
    }

    /// What it was trained for, where that is known to be little.
    pub(super) fn context(&self) -> Option<u32> {
        self.is_noise.then(|| TinyModel::default().context)
    }
}

pub(super) fn find_or_fetch(
    context: &Context,
    asked: Option<&str>,
    known: Option<&LoadedInstance>,
) -> Result<Model, Failure> {
    let home = context.home()?;
    if let Some(asked) = asked {
        return asked_for(context, asked);
    }
    let last_time = known.map(|instance| resolve_model_path(&instance.config, &instance.path, home));
    if let Some(path) = last_time.filter(|path| check_model(path).is_ok()) {
        return Ok(Model::at(path, home));
    }
    match from_hub(context, DEFAULT) {
        Ok(model) => Ok(model),
        Err(failure) if is_out_of_reach(&failure) => random(context, &failure),
        Err(failure) => Err(failure),
    }
}

fn is_out_of_reach(failure: &Failure) -> bool {
    matches!(failure.exit, ExitCode::DownloadFailed | ExitCode::ModelNotFound | ExitCode::ModelInvalid)
}

fn asked_for(context: &Context, asked: &str) -> Result<Model, Failure> {
    if HubModel::is_reference(asked) {
        return from_hub(context, asked);
    }
    let path = working_folder().join(asked.strip_prefix("file:").unwrap_or(asked));
    check_model(&path)?;
    Ok(Model::at(path, context.home()?))
}

fn from_hub(context: &Context, reference: &str) -> Result<Model, Failure> {
    let home = context.home()?;
    let variable = |name: &str| std::env::var(name).ok();
    let hub = Hub::new(variable(environment::HF_ENDPOINT), variable(environment::HF_TOKEN));
    let model = HubModel::parse(reference)?;
    let progress = Stages::new(context.talk);
    let path = block_on(fetch(home, &hub, &model, &progress))?;
    Ok(Model::at(path, home))
}

fn random(context: &Context, why: &Failure) -> Result<Model, Failure> {
    let home = context.home()?;
    context.talk.warning(&format!("{why}; making a tiny random model instead: its words will be noise"));
    let path = home.models().join(RANDOM);
    if check_model(&path).is_err() {
        let cannot = |error: std::io::Error| {
            Failure::new(ExitCode::General, format!("cannot write {}: {error}", path.display()))
        };
        std::fs::create_dir_all(home.models()).map_err(cannot)?;
        write_tiny_model(&path, &TinyModel::default()).map_err(cannot)?;
    }
    Ok(Model::at(path, home))
}
