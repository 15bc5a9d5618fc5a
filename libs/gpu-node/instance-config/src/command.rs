//! A config to the engine's command line.

use std::path::Path;
use std::time::Duration;

use orch_core::{EngineProfile, HomeLayout};

use crate::arguments::has_flag;
use crate::finding::Finding;
use crate::flags::translate;
use crate::{Backend, InstanceConfig};

/// What the engine is started with.
#[derive(Clone, PartialEq, Eq)]
pub struct EngineCommand {
    /// Everything after the executable. May hold secrets of the user's `args`: mask before showing.
    pub args: Vec<String>,
    /// Variables computed from the config, which `env` of the config then overrules.
    pub env_overrides: Vec<(String, String)>,
    /// Which devices the engine may see, when that was computed.
    pub device_mask: Option<String>,
    /// What was left out or translated.
    pub warnings: Vec<String>,
    /// Arguments of the user that this engine is known to refuse. Starting it would only crash, again and again.
    pub rejected: Vec<Finding>,
}

/// Shows masked arguments only.
impl std::fmt::Debug for EngineCommand {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EngineCommand")
            .field("args", &orch_core::redact_args(&self.args))
            .field("device_mask", &self.device_mask)
            .field("warnings", &self.warnings)
            .field("rejected", &self.rejected)
            .finish_non_exhaustive()
    }
}

/// The command line of one engine. `port` is the replica's own; the config is the replica's own as well, as
/// [`InstanceConfig::of_replica`] makes it.
pub fn engine_command(
    config: &InstanceConfig,
    home: &HomeLayout,
    profile: &EngineProfile,
    model: &Path,
    port: u16,
) -> EngineCommand {
    let mut own = OwnFlags { profile, args: Vec::new(), warnings: Vec::new() };
    own.required("--model", &model.display().to_string());
    own.required("--host", &config.server.host);
    own.required("--port", &port.to_string());
    own.add_settings(config);
    let translation = translate(&config.args, profile);
    let OwnFlags { mut args, mut warnings, .. } = own;
    args.extend(translation.args);
    warnings.extend(translation.warnings);
    let device_mask = device_mask(config);
    EngineCommand {
        args,
        env_overrides: computed_variables(config.gpu.backend, home, device_mask.as_deref()),
        device_mask,
        warnings,
        rejected: translation.rejected,
    }
}

/// The flags that we write ourselves, less those that the engine does not know.
struct OwnFlags<'a> {
    profile: &'a EngineProfile,
    args: Vec<String>,
    warnings: Vec<String>,
}

impl OwnFlags<'_> {
    fn add_settings(&mut self, config: &InstanceConfig) {
        self.optional("--ctx-size", &config.model.context_size.to_string());
        self.optional("--batch-size", &config.model.batch_size.to_string());
        self.optional("--threads", &config.model.threads.to_string());
        self.optional("--alias", config.name.as_str());
        self.optional("--timeout", &whole_seconds(config.server.timeout).to_string());
        // Always: left out, engines choose a number of slots themselves.
        self.optional("--parallel", &config.server.parallel.to_string());
        if config.gpu.backend == Backend::Cpu {
            self.optional("--device", "none");
            self.optional("--n-gpu-layers", "0");
        } else {
            self.optional("--n-gpu-layers", &config.gpu.layers.to_string());
        }
        if !has_flag(&config.args, &["--metrics"]) {
            self.switch("--metrics");
        }
        // An engine without a key would otherwise answer every web page that the user opens.
        if !has_flag(&config.args, &["--cors-origins"]) {
            self.optional("--cors-origins", "localhost");
        }
    }

    fn required(&mut self, flag: &str, value: &str) {
        self.args.extend([flag.to_owned(), value.to_owned()]);
    }

    fn optional(&mut self, flag: &str, value: &str) {
        if self.knows(flag) {
            self.required(flag, value);
        }
    }

    fn switch(&mut self, flag: &str) {
        if self.knows(flag) {
            self.args.push(flag.to_owned());
        }
    }

    fn knows(&mut self, flag: &str) -> bool {
        let known = self.profile.knows_flag(flag);
        if !known {
            self.warnings.push(format!("this engine does not know {flag}; it is left out"));
        }
        known
    }
}

/// Engines count in whole seconds; a limit must not become shorter by that.
fn whole_seconds(duration: Duration) -> u64 {
    duration.as_secs() + u64::from(duration.subsec_nanos() > 0)
}

/// Flags by which the user chooses devices: a mask under them would renumber what they name.
pub(crate) const DEVICE_FLAGS: [&str; 9] =
    ["--device", "-dev", "--tensor-split", "-ts", "--split-mode", "-sm", "--main-gpu", "-mg", "--rpc"];

/// The devices that the engine is limited to, as its environment names them; none when it may see all.
pub fn device_mask(config: &InstanceConfig) -> Option<String> {
    let maskable = matches!(config.gpu.backend, Backend::Vulkan | Backend::Cuda | Backend::Hip);
    if !maskable || has_flag(&config.args, &DEVICE_FLAGS) {
        return None;
    }
    config.gpu.device_id.map(|device| device.to_string())
}

/// Whether the engine frees its model when nobody asks anything for a while. Some questions wake it, and keep it awake.
pub fn may_sleep(config: &InstanceConfig) -> bool {
    has_flag(&config.args, &["--sleep-idle-seconds"])
        || config.env.contains_key("LLAMA_ARG_SLEEP_IDLE_SECONDS")
}

/// The variables that carry the mask.
pub(crate) const fn mask_variables(backend: Backend) -> &'static [&'static str] {
    match backend {
        Backend::Vulkan => &["GGML_VULKAN_DEVICE", "GGML_VK_VISIBLE_DEVICES"],
        Backend::Cuda => &["CUDA_VISIBLE_DEVICES"],
        Backend::Hip => &["HIP_VISIBLE_DEVICES"],
        Backend::Cpu | Backend::Metal => &[],
    }
}

fn computed_variables(backend: Backend, home: &HomeLayout, mask: Option<&str>) -> Vec<(String, String)> {
    // Engines read settings of the user's own llama.cpp from there, and those would change an instance.
    let private_settings = ("XDG_CONFIG_HOME".to_owned(), home.engine_xdg().display().to_string());
    let masks = mask
        .into_iter()
        .flat_map(|mask| mask_variables(backend).iter().map(move |&name| (name.to_owned(), mask.to_owned())));
    std::iter::once(private_settings).chain(masks).collect()
}
