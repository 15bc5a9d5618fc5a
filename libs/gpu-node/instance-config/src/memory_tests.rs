use proptest::prelude::*;
use serde_json::{Value, json};
use testkit::{TinyModel, write_tiny_model};

use super::*;
use crate::load_file;

/// A folder with a model and configs that name it.
struct Bench {
    folder: tempfile::TempDir,
}

impl Bench {
    /// Eight layers of width 64, four heads of sixteen elements, all kept.
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let recipe = TinyModel { layers: 8, ..TinyModel::default() };
        write_tiny_model(&folder.path().join("m.gguf"), &recipe).unwrap();
        Self { folder }
    }

    fn weights(&self) -> u64 {
        std::fs::metadata(self.model()).unwrap().len()
    }

    fn model(&self) -> PathBuf {
        self.folder.path().join("m.gguf")
    }

    fn estimate(&self, gpu: &Value, args: &[&str], devices: &[DeviceInfo]) -> MemoryEstimate {
        let config = json!({
            "name": "chat",
            "model": {"path": self.model(), "context_size": 1024},
            "gpu": gpu,
            "args": args,
        });
        let path = self.folder.path().join("config.json");
        std::fs::write(&path, config.to_string()).unwrap();
        let instance = load_file(&path).unwrap();
        estimate_memory(&instance.config, &HomeLayout::new(self.folder.path()), &self.model(), devices)
            .unwrap()
    }
}

fn device(id: &str, gib: u64) -> DeviceInfo {
    DeviceInfo {
        id: id.to_owned(),
        name: "a card".to_owned(),
        memory_total: ByteCount::from_mib(gib * 1024),
        memory_free: ByteCount::from_mib(gib * 1024),
    }
}

fn on(estimate: &MemoryEstimate, id: &str) -> MemoryShare {
    estimate.places[&Place::Device(id.to_owned())]
}

/// 1,024 tokens × 8 layers × 4 heads × 16 elements, keys and values, two bytes each.
const CACHE: u64 = 1024 * 8 * 4 * 16 * 2 * 2;

#[test]
fn on_the_processor_all_counts_against_the_host() {
    let bench = Bench::new();
    let estimate = bench.estimate(&json!({}), &[], &[device("CUDA0", 24)]);
    let host = estimate.places[&Place::Host];
    assert_eq!((host.weights.0, host.cache.0), (bench.weights(), CACHE));
    assert!(host.working.0 > HOST_BASE);
    assert_eq!(estimate.places.len(), 1);
}

#[test]
fn layers_on_a_device_take_their_part_of_weights_and_cache_with_them() {
    let bench = Bench::new();
    let cards = [device("CUDA0", 24), device("CUDA1", 24)];
    let all = bench.estimate(&json!({"backend": "cuda", "device_id": 1, "layers": 999}), &[], &cards);
    assert_eq!((on(&all, "CUDA1").weights.0, on(&all, "CUDA1").cache.0), (bench.weights(), CACHE));
    assert_eq!(all.places[&Place::Host].kept(), ByteCount(0));
    assert!(!all.places.contains_key(&Place::Device("CUDA0".to_owned())));
    let some = bench.estimate(&json!({"backend": "cuda", "device_id": 0, "layers": 3}), &[], &cards);
    assert_eq!(on(&some, "CUDA0").cache.0, CACHE / 3, "three of eight layers and the output");
    let near = bench.estimate(&json!({"backend": "cuda", "layers": 999}), &["--no-kv-offload"], &cards);
    assert_eq!(near.places[&Place::Host].cache.0, CACHE);
}

#[test]
fn several_devices_share_by_what_the_split_says_or_by_their_size() {
    let bench = Bench::new();
    let cards = [device("CUDA0", 24), device("CUDA1", 8)];
    let gpu = json!({"backend": "cuda", "device_id": null, "layers": 999});
    let by_size = bench.estimate(&gpu, &[], &cards);
    assert_eq!(on(&by_size, "CUDA0").cache.0, CACHE / 4 * 3);
    let by_split = bench.estimate(&gpu, &["--tensor-split", "1,1"], &cards);
    assert_eq!(on(&by_split, "CUDA0").cache.0, CACHE / 2);
    let alone = bench.estimate(&gpu, &["-sm", "none", "-mg", "1"], &cards);
    assert_eq!(on(&alone, "CUDA1").cache.0, CACHE);
    let named = bench.estimate(&gpu, &["--device", "CUDA1"], &cards);
    assert_eq!((named.places.len(), on(&named, "CUDA1").cache.0), (2, CACHE));
}

#[test]
fn without_a_device_of_its_backend_an_engine_computes_on_the_processor() {
    let bench = Bench::new();
    let gpu = json!({"backend": "cuda", "layers": 999});
    let estimate = bench.estimate(&gpu, &[], &[device("Vulkan0", 8)]);
    assert_eq!(estimate.places[&Place::Host].kept().0, bench.weights() + CACHE);
}

#[test]
fn a_quantised_cache_and_a_context_in_the_arguments_count() {
    let bench = Bench::new();
    let args = ["-c", "2048", "--cache-type-k", "q8_0", "-ctv", "q4_0"];
    let cache = bench.estimate(&json!({}), &args, &[]).places[&Place::Host].cache.0;
    assert_eq!(cache, CACHE / 2 / 2 * 2 * 34 / 32 + CACHE / 2 / 2 * 2 * 18 / 32);
}

#[test]
fn tensors_that_are_placed_one_by_one_make_it_a_bound() {
    let bench = Bench::new();
    let gpu = json!({"backend": "cuda", "layers": 999});
    let estimate = bench.estimate(&gpu, &["--cpu-moe"], &[device("CUDA0", 8)]);
    assert!(estimate.at_most);
    assert_eq!(estimate.places[&Place::Host].weights.0, bench.weights());
}

#[test]
fn all_parts_of_a_model_count() {
    let folder = tempfile::tempdir().unwrap();
    for (number, length) in [(1, 100), (2, 20), (3, 3)] {
        let path = folder.path().join(format!("m-0000{number}-of-00003.gguf"));
        std::fs::File::create(path).unwrap().set_len(length).unwrap();
    }
    assert_eq!(file_size(&folder.path().join("m-00001-of-00003.gguf")), Some(123));
    assert_eq!(file_size(&folder.path().join("gone.gguf")), None);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn wherever_layers_lie_nothing_is_lost(layers in 0u32..20, split in 1u32..9, parallel in 1u32..8) {
        let bench = Bench::new();
        let cards = [device("CUDA0", 24), device("CUDA1", 8)];
        let gpu = json!({"backend": "cuda", "device_id": null, "layers": layers});
        let (split, parallel) = (format!("{split},3"), parallel.to_string());
        let estimate = bench.estimate(&gpu, &["-ts", &split, "-np", &parallel], &cards);
        let sum = |part: fn(&MemoryShare) -> u64| estimate.places.values().map(part).sum::<u64>();
        // Two divisions may each lose a byte.
        prop_assert!(bench.weights() - sum(|share| share.weights.0) <= 2);
        prop_assert!(CACHE - sum(|share| share.cache.0) <= 2);
    }
}
