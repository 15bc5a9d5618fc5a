//! A home in a temporary folder, and small engines to check against.

use std::fs;
use std::path::{Path, PathBuf};

use instance_config::{BrokenInstance, InstanceConfig, LoadedInstance, discover, load_file};
use orch_core::{ByteCount, DeviceInfo, EngineProfile, HomeLayout};
use serde_json::Value;

pub(crate) struct Sandbox {
    folder: tempfile::TempDir,
    pub(crate) home: HomeLayout,
}

impl Sandbox {
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let root = folder.path().canonicalize().expect("it exists").join("home");
        Self { home: HomeLayout::new(root), folder }
    }

    /// A folder outside the home.
    pub(crate) fn outside(&self) -> PathBuf {
        self.folder.path().canonicalize().expect("it exists")
    }

    /// Writes `instances/<folder>/config.json`.
    pub(crate) fn write(&self, folder: &str, content: impl AsRef<[u8]>) -> PathBuf {
        self.write_file(&format!("instances/{folder}/config.json"), content)
    }

    pub(crate) fn write_json(&self, folder: &str, content: &Value) -> PathBuf {
        self.write(folder, content.to_string())
    }

    pub(crate) fn write_file(&self, path: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.home.root().join(path);
        fs::create_dir_all(path.parent().expect("it lies in the home")).expect("folders can be made");
        fs::write(&path, content).expect("files can be written");
        path
    }

    pub(crate) fn load(&self, content: &Value) -> Result<LoadedInstance, BrokenInstance> {
        load_file(&self.write_json("chat", content))
    }

    pub(crate) fn catalog(&self) -> instance_config::Catalog {
        discover(&self.home).expect("the home can be read")
    }
}

/// `{"name": "chat", "model": {"path": "m.gguf"}}` with these top-level keys besides.
pub(crate) fn minimal_with(extra: &Value) -> Value {
    let mut document = serde_json::json!({"name": "chat", "model": {"path": "m.gguf"}});
    for (key, value) in extra.as_object().expect("an object") {
        document[key] = value.clone();
    }
    document
}

/// The config of a minimal file with these keys besides.
pub(crate) fn config_with(extra: &Value) -> InstanceConfig {
    let sandbox = Sandbox::new();
    sandbox.load(&minimal_with(extra)).unwrap_or_else(|broken| panic!("{:?}", broken.findings)).config
}

pub(crate) fn home() -> HomeLayout {
    HomeLayout::new("/home/user/llama")
}

/// What an engine of late 2026 lists in its help, as far as these tests need it; two of the names are refused when
/// used.
pub(crate) fn engine() -> EngineProfile {
    let flags = "-m --model --host --port -c --ctx-size -b --batch-size -t --threads -a --alias -to --timeout -np \
                 --parallel -dev --device -ngl --gpu-layers --n-gpu-layers --metrics --cors-origins -lm --load-mode \
                 --draft --draft-n --draft-max --draft-min --draft-n-min --spec-draft-n-max --spec-draft-n-min \
                 --spec-ngram-size-n --spec-ngram-simple-size-n -fa --flash-attn --lora-scaled -ot \
                 --override-tensor --api-key --tools --top-k -ub --ubatch-size -v";
    EngineProfile {
        executable: Path::new("/opt/engine/llama-server").to_owned(),
        version: Some("b11434".to_owned()),
        flags: flags.split_whitespace().map(str::to_owned).collect(),
        devices: Vec::new(),
    }
}

pub(crate) fn device(id: &str) -> DeviceInfo {
    DeviceInfo {
        id: id.to_owned(),
        name: "a device".to_owned(),
        memory_total: ByteCount::from_mib(8192),
        memory_free: ByteCount::from_mib(8000),
    }
}

/// A GGUF head that tells the context the model was trained for.
pub(crate) fn tiny_gguf(context: u32) -> Vec<u8> {
    let key = "llama.context_length";
    let mut bytes = b"GGUF".to_vec();
    bytes.extend(3u32.to_le_bytes());
    bytes.extend(0u64.to_le_bytes());
    bytes.extend(1u64.to_le_bytes());
    bytes.extend((key.len() as u64).to_le_bytes());
    bytes.extend(key.as_bytes());
    bytes.extend(4u32.to_le_bytes());
    bytes.extend(context.to_le_bytes());
    bytes
}
