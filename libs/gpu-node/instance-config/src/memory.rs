//! How much memory an engine will take, and where: said before it is started, by a rule that rather says too much.
//!
//! Three parts, as the engine itself accounts for them: the weights (the files, as large as they are), the cache of
//! keys and values (from the model's shape, the context and the cache's types) and what computing takes (buffers, the
//! driver's own part). Sliding windows and the like make the cache smaller than told here; nothing makes it larger.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use orch_core::{ByteCount, DeviceInfo, HomeLayout};
use serde::{Deserialize, Serialize, Serializer};

use crate::arguments::{has_flag, last_value};
use crate::command::mask_variables;
use crate::gguf::{KeptHeads, ModelShape};
use crate::{Backend, InstanceConfig};

/// Where memory is taken.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Place {
    /// The machine's own memory.
    Host,
    /// A device, by the name that engines give it when they see all of them: `CUDA0`.
    Device(String),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Place::Host => "host",
            Place::Device(id) => id,
        })
    }
}

impl Serialize for Place {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// What is taken in one place.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemoryShare {
    pub weights: ByteCount,
    pub cache: ByteCount,
    /// Buffers of the computation, and what process and driver take for themselves.
    pub working: ByteCount,
}

impl MemoryShare {
    pub fn total(&self) -> ByteCount {
        ByteCount(self.kept().0.saturating_add(self.working.0))
    }

    /// What is known for certain: of the host's memory a process may not show all of it, for the system brings the
    /// pages of a file only when they are asked for.
    pub fn kept(&self) -> ByteCount {
        ByteCount(self.weights.0.saturating_add(self.cache.0))
    }
}

/// What one engine will take.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct MemoryEstimate {
    pub places: BTreeMap<Place, MemoryShare>,
    /// Arguments place tensors one by one: how much goes where is not known, only that it is not more than this.
    pub at_most: bool,
}

impl MemoryEstimate {
    pub fn total(&self, place: &Place) -> ByteCount {
        self.places.get(place).map_or(ByteCount(0), MemoryShare::total)
    }
}

const MIB: u64 = 1024 * 1024;
/// What a process takes on the host, whatever it serves: code, threads, tokenizer.
const HOST_BASE: u64 = 96 * MIB;
/// The same of a process that talks to a graphics driver.
const HOST_BASE_WITH_DRIVER: u64 = 256 * MIB;
/// The engine's own default of a physical batch.
const PHYSICAL_BATCH: u64 = 512;
/// For models whose files do not tell.
const USUAL_VOCABULARY: u64 = 128_000;
const USUAL_EMBEDDING: u64 = 4096;
const USUAL_CONTEXT: u64 = 4096;

/// What a context and its kernels take on each device of a driver.
const fn driver_base(backend: Backend) -> u64 {
    match backend {
        Backend::Cpu => 0,
        Backend::Cuda | Backend::Hip => 384 * MIB,
        Backend::Vulkan | Backend::Metal => 128 * MIB,
    }
}

/// Flags by which single tensors are placed, or computed elsewhere.
const PLACING: [&str; 9] = [
    "--cpu-moe",
    "-cmoe",
    "--n-cpu-moe",
    "-ncmoe",
    "--n-cpu-ffn",
    "-ncffn",
    "--override-tensor",
    "-ot",
    "--rpc",
];

/// What one engine of this config will take; `devices` are those that its engine lists without any mask. A model that
/// is not there takes nothing that could be told: `None`.
pub fn estimate_memory(
    config: &InstanceConfig,
    home: &HomeLayout,
    model: &Path,
    devices: &[DeviceInfo],
) -> Option<MemoryEstimate> {
    let weights = file_size(model)?.saturating_add(companions(config, home));
    let shape = ModelShape::read(model);
    let used = devices_used(config, devices);
    let at_most = !used.is_empty() && has_flag(&config.args, &PLACING);
    let offloaded = if used.is_empty() { (0, 1) } else { offloaded(config, &shape) };
    let cache = cache_bytes(config, &shape, weights);
    let working = compute_bytes(config, &shape).saturating_add(weights / 20);
    let on_devices = part(weights, offloaded);
    let keeps_cache = has_flag(&config.args, &["--no-kv-offload", "-nkvo"]);
    let cache_on_devices = if keeps_cache { 0 } else { part(cache, offloaded) };
    let host_base = if used.is_empty() { HOST_BASE.saturating_add(working) } else { HOST_BASE_WITH_DRIVER };
    let host = MemoryShare {
        weights: ByteCount(if at_most { weights } else { weights - on_devices }),
        cache: ByteCount(cache - cache_on_devices),
        working: ByteCount(host_base),
    };
    let mut places = BTreeMap::from([(Place::Host, host)]);
    let whole: u64 = used.iter().map(|(_, portion)| portion).sum::<u64>().max(1);
    for (id, portion) in used {
        let portion = (portion, whole);
        let share = MemoryShare {
            weights: ByteCount(part(on_devices, portion)),
            cache: ByteCount(part(cache_on_devices, portion)),
            working: ByteCount(working.saturating_add(driver_base(config.gpu.backend))),
        };
        places.insert(Place::Device(id), share);
    }
    Some(MemoryEstimate { places, at_most })
}

/// `amount × numerator / denominator`, never more than the amount.
fn part(amount: u64, (numerator, denominator): (u64, u64)) -> u64 {
    let numerator = u128::from(numerator.min(denominator));
    let part = u128::from(amount) * numerator / u128::from(denominator.max(1));
    u64::try_from(part).unwrap_or(amount)
}

/// The size of a model's file, or of all its parts: `<name>-00001-of-00003.gguf`.
fn file_size(model: &Path) -> Option<u64> {
    let first = std::fs::metadata(model).ok()?.len();
    let parts = parts_of(model).unwrap_or_default();
    let others = parts.iter().filter(|part| part.as_path() != model);
    Some(
        others
            .filter_map(|part| std::fs::metadata(part).ok())
            .fold(first, |sum, it| sum.saturating_add(it.len())),
    )
}

/// More parts than any model has.
const MOST_PARTS: u32 = 1000;

/// All parts of a model whose name says that it has some.
pub(crate) fn parts_of(model: &Path) -> Option<Vec<PathBuf>> {
    let stem = model.file_stem()?.to_str()?;
    let extension = model.extension()?.to_str()?;
    let (front, count) = stem.rsplit_once("-of-")?;
    let (name, number) = front.rsplit_once('-')?;
    let is_number = |text: &str| text.len() == 5 && text.bytes().all(|byte| byte.is_ascii_digit());
    if !is_number(number) || !is_number(count) {
        return None;
    }
    let count: u32 = count.parse().ok().filter(|count| *count <= MOST_PARTS)?;
    let part = |index| model.with_file_name(format!("{name}-{index:05}-of-{count:05}.{extension}"));
    Some((1..=count).map(part).collect())
}

/// The size of the files that are loaded beside the model.
fn companions(config: &InstanceConfig, home: &HomeLayout) -> u64 {
    let size = |path: PathBuf| Some(std::fs::metadata(path).ok()?.len());
    companion_files(config, home).filter_map(size).fold(0, u64::saturating_add)
}

/// Files that are loaded beside the model.
pub(crate) fn companion_files(config: &InstanceConfig, home: &HomeLayout) -> impl Iterator<Item = PathBuf> {
    const FLAGS: [&[&str]; 3] =
        [&["--mmproj", "-mm"], &["--model-draft", "-md", "--spec-draft-model"], &["--lora"]];
    // A path as the engine reads it: from its working folder, which is the home.
    FLAGS.iter().filter_map(|flags| Some(home.root().join(last_value(&config.args, flags)?)))
}

/// Layers on devices, of all: the output counts as one more.
fn offloaded(config: &InstanceConfig, shape: &ModelShape) -> (u64, u64) {
    let written = last_value(&config.args, &["--n-gpu-layers", "--gpu-layers", "-ngl"]);
    // `auto` and `all`, as far as memory goes, are all.
    let asked = written.map_or(u64::from(config.gpu.layers), |written| written.parse().unwrap_or(u64::MAX));
    match shape.layers {
        _ if asked == 0 => (0, 1),
        Some(layers) => (asked, layers.saturating_add(1)),
        None => (1, 1),
    }
}

/// Keys and values of the whole context.
fn cache_bytes(config: &InstanceConfig, shape: &ModelShape, weights: u64) -> u64 {
    let context = match number(config, &["--ctx-size", "-c"], config.model.context_size.into()) {
        0 => shape.context.unwrap_or(USUAL_CONTEXT),
        context => context,
    };
    let (Some(layers), Some(heads)) = (shape.layers, shape.heads) else { return weights / 4 };
    let kept = match shape.kept_heads {
        Some(KeptHeads::Together(sum)) => sum,
        Some(KeptHeads::EachLayer(each)) => each.saturating_mul(layers),
        None => heads.saturating_mul(layers),
    };
    let usual = shape.embedding.unwrap_or(USUAL_EMBEDDING) / heads.max(1);
    let bytes = |length: Option<u64>, flags: &[&str]| {
        let elements = context.saturating_mul(kept).saturating_mul(length.unwrap_or(usual));
        element_bytes(last_value(&config.args, flags), elements)
    };
    let keys = bytes(shape.key_length, &["--cache-type-k", "-ctk"]);
    keys.saturating_add(bytes(shape.value_length, &["--cache-type-v", "-ctv"]))
}

/// Bytes of so many elements of a cache type; blocks of 32 elements where it is quantised.
fn element_bytes(kind: Option<&str>, elements: u64) -> u64 {
    let of_32: u64 = match kind {
        Some("f32") => 128,
        Some("q8_0") => 34,
        Some("q5_1") => 24,
        Some("q5_0") => 22,
        Some("q4_1") => 20,
        Some("q4_0" | "iq4_nl") => 18,
        _ => 64,
    };
    elements.div_ceil(32).saturating_mul(of_32)
}

/// Buffers of one batch: its logits, its hidden states, and its attention scores where they are made at all.
fn compute_bytes(config: &InstanceConfig, shape: &ModelShape) -> u64 {
    let batch = number(config, &["--batch-size", "-b"], config.model.batch_size.into());
    let batch = number(config, &["--ubatch-size", "-ub"], PHYSICAL_BATCH).min(batch).max(1);
    let width = shape
        .vocabulary
        .unwrap_or(USUAL_VOCABULARY)
        .saturating_add(shape.embedding.unwrap_or(USUAL_EMBEDDING).saturating_mul(16));
    let scores = match last_value(&config.args, &["--flash-attn", "-fa"]) {
        Some("off" | "0" | "false") => {
            let context = number(config, &["--ctx-size", "-c"], config.model.context_size.into());
            context.saturating_mul(shape.heads.unwrap_or(32))
        }
        _ => 0,
    };
    batch.saturating_mul(width.saturating_add(scores)).saturating_mul(4)
}

fn number(config: &InstanceConfig, flags: &[&str], field: u64) -> u64 {
    last_value(&config.args, flags).and_then(|written| written.parse().ok()).unwrap_or(field)
}

/// The devices that this instance computes on, each with its portion of what is spread over them. None: the processor.
fn devices_used(config: &InstanceConfig, devices: &[DeviceInfo]) -> Vec<(String, u64)> {
    if config.gpu.backend == Backend::Cpu {
        return Vec::new();
    }
    let all: Vec<&DeviceInfo> = devices.iter().filter(|device| belongs(device, config.gpu.backend)).collect();
    let visible = visible(config, &all);
    let portions = tensor_split(config);
    let portion = |(index, device): (usize, &&DeviceInfo)| {
        let told = portions.get(index).copied().unwrap_or(0);
        (device.id.clone(), if portions.is_empty() { device.memory_total.0.max(1) } else { told })
    };
    visible.iter().enumerate().map(portion).filter(|(_, portion)| *portion > 0).collect()
}

/// Whether a device of an engine's list is one of this backend.
pub(crate) fn belongs(device: &DeviceInfo, backend: Backend) -> bool {
    let prefix = match backend {
        Backend::Cpu => return false,
        Backend::Vulkan => "vulkan",
        Backend::Cuda => "cuda",
        Backend::Metal => "mtl",
        Backend::Hip => "rocm",
    };
    let id = device.id.to_ascii_lowercase();
    id.starts_with(prefix) || id.starts_with(backend.label())
}

fn visible<'a>(config: &InstanceConfig, all: &[&'a DeviceInfo]) -> Vec<&'a DeviceInfo> {
    let numbered = |list: &str| -> Vec<&'a DeviceInfo> {
        let index = |word: &str| word.trim().parse::<usize>().ok();
        list.split(',').filter_map(index).filter_map(|index| all.get(index).copied()).collect()
    };
    if let Some(named) = last_value(&config.args, &["--device", "-dev"]) {
        return all.iter().copied().filter(|it| named.split(',').any(|name| name.trim() == it.id)).collect();
    }
    let alone = last_value(&config.args, &["--split-mode", "-sm"]) == Some("none");
    if alone {
        return numbered(last_value(&config.args, &["--main-gpu", "-mg"]).unwrap_or("0"));
    }
    let masked = mask_variables(config.gpu.backend).iter().find_map(|name| config.env.get(*name));
    match (masked, crate::device_mask(config)) {
        (Some(mask), _) => numbered(mask),
        (None, Some(mask)) => numbered(&mask),
        (None, None) => all.to_vec(),
    }
}

/// The portions of `--tensor-split`, in thousandths: whole and broken numbers are both written.
fn tensor_split(config: &InstanceConfig) -> Vec<u64> {
    let written = last_value(&config.args, &["--tensor-split", "-ts"]).unwrap_or_default();
    let portion = |word: &str| word.trim().parse::<f64>().ok().filter(|it| (0.0..1e6).contains(it));
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "between 0 and 10⁹")]
    let thousandths = |portion: f64| (portion * 1000.0) as u64;
    written.split([',', '/']).filter_map(portion).map(thousandths).collect()
}

#[cfg(test)]
#[path = "memory_tests.rs"]
mod tests;
