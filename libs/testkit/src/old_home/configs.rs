//! The instances' configs.

use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};

use super::engines::OldEngine;
use super::{OldInstance, put};

pub(super) const MODELS: usize = 4;

pub(super) fn model_file(number: usize) -> String {
    format!("tiny-Q{}_K_M.gguf", number + 3)
}

/// What is special about a config. Instance `n` has the shape `n % 16`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// Everything where the newest version of the tool puts it.
    Newest,
    /// In a folder of its name, without identity and version; the catalog database knows the rest.
    NamedFolder,
    /// Written on Windows: backslashes, CR LF, a build for Windows.
    FromWindows,
    /// Begins with a byte order mark.
    ByteOrderMark,
    /// Identities that are UUIDs of no version.
    OddIdentity,
    /// Keys that nobody knows.
    UnknownKeys,
    /// The port of the instance six before it.
    ClaimedPort,
    /// The folder has another number than the config.
    OtherNumber,
    /// `--parallel` in `args` beside the field.
    ParallelTwice,
    /// A flag several times, with regular expressions.
    RepeatedFlags,
    /// `--host` and `--port` in `args`.
    AddressInArgs,
    /// Cache types of somebody's own build.
    CustomCache,
    /// Flags that newer engines no longer take.
    RemovedFlags,
    /// Metadata with a chat template of 20 KB.
    BigMetadata,
    /// An engine that is not there.
    LostEngine,
    /// Numbers as text, floats where whole numbers are meant, nulls.
    LooseTypes,
}

const SHAPES: [Shape; 16] = [
    Shape::Newest,
    Shape::NamedFolder,
    Shape::FromWindows,
    Shape::ByteOrderMark,
    Shape::OddIdentity,
    Shape::UnknownKeys,
    Shape::ClaimedPort,
    Shape::OtherNumber,
    Shape::ParallelTwice,
    Shape::RepeatedFlags,
    Shape::AddressInArgs,
    Shape::CustomCache,
    Shape::RemovedFlags,
    Shape::BigMetadata,
    Shape::LostEngine,
    Shape::LooseTypes,
];

pub(super) fn number(index: usize) -> String {
    format!("{:08}", index + 1)
}

pub(super) fn uid(index: usize, shape: Shape) -> String {
    let version = if shape == Shape::OddIdentity { 0 } else { 4 };
    format!("{:08x}-51ce-{version}a0b-8f00-{:012x}", 0x5eed_0000 + index, 0x00c0_ffee + index)
}

pub(super) fn write(root: &Path, index: usize, first_port: u16) -> OldInstance {
    let shape = SHAPES[index % SHAPES.len()];
    let name = format!("model-{index:02}");
    let offset = if shape == Shape::ClaimedPort { index - 6 } else { index };
    let port = first_port + u16::try_from(offset).expect("there are fewer instances than ports");
    let folder = match shape {
        Shape::NamedFolder => name.clone(),
        Shape::OtherNumber => format!("{}_{}", number(index + 500), uid(index, shape)),
        _ => format!("{}_{}", number(index), uid(index, shape)),
    };
    let config = config(index, shape, &name, port);
    let text = text(&config, shape);
    let path = format!("instances/{folder}/config.json");
    put(root, &path, &text);
    put(root, &format!("{path}.bak-20251022-101112"), &text);
    put(root, &format!("{path}.bak-model-metadata-20251023-091500"), &text);
    put(root, &format!("instances/{folder}/config_old.json"), "{\"name\": \"before\"}");
    let config: PathBuf = root.join(path);
    OldInstance { name, shape, config, port }
}

fn text(config: &Value, shape: Shape) -> String {
    let plain = serde_json::to_string_pretty(config).expect("a value with text keys");
    match shape {
        Shape::FromWindows => plain.replace('\n', "\r\n") + "\r\n",
        Shape::ByteOrderMark => format!("\u{feff}{plain}\n"),
        _ => plain + "\n",
    }
}

fn config(index: usize, shape: Shape, name: &str, port: u16) -> Value {
    let mut config = plain(index, shape, name, port);
    match shape {
        Shape::NamedFolder => forget_identity(&mut config),
        Shape::UnknownKeys => {
            config["notes"] = json!({"owner": "me", "kept": [1, 2.5, null]});
            config["server"]["cors"] = json!(true);
        }
        Shape::ParallelTwice => {
            config["server"]["parallel"] = json!(2);
            config["args"] = json!(["--parallel", "4", "--cont-batching"]);
        }
        Shape::RepeatedFlags => config["args"] = json!(repeated_flags()),
        Shape::AddressInArgs => {
            config["server"]["port"] = json!(8080);
            config["args"] = json!(["--port", port.to_string(), "--host", "127.0.0.1", "--no-webui"]);
        }
        Shape::CustomCache => {
            config["args"] = json!(["--cache-type-k", "turbo3", "--cache-type-v", "tq3_0"]);
        }
        Shape::RemovedFlags => config["args"] = json!(["--no-mmap", "--draft-max", "8"]),
        Shape::BigMetadata => config["model_metadata"] = metadata(),
        Shape::LostEngine => config["binary"]["binary_id"] = json!(OldEngine::Lost.id()),
        Shape::LooseTypes => loosen(&mut config),
        Shape::OddIdentity => config["binary"]["binary_id"] = json!(OldEngine::OddIdentity.id()),
        _ => {}
    }
    config
}

fn plain(index: usize, shape: Shape, name: &str, port: u16) -> Value {
    let separator = if shape == Shape::FromWindows { '\\' } else { '/' };
    let model = format!("models/acme__tiny-GGUF/{}", model_file(index % MODELS));
    let model = model.replace('/', &separator.to_string());
    let variant = if shape == Shape::FromWindows { "win-vulkan-x64" } else { "ubuntu-x64" };
    json!({
        "name": name,
        "schema_version": "2",
        "instance_uid": uid(index, shape),
        "instance_no": number(index),
        "display_name": format!("Model {index}"),
        "created_at": "2025-10-21T10:00:00+02:00",
        "updated_at": "2025-10-22T10:11:12Z",
        "tags": ["Chat", "old"],
        "binary": {"binary_id": OldEngine::Main.id(), "version": "b6700", "variant": variant},
        "model": {"path": model, "context_size": 2048, "batch_size": 512, "threads": 1},
        "server": {"host": "127.0.0.1", "port": port, "timeout": 600, "parallel": 1},
        "gpu": {"backend": "cpu", "device_id": 0, "layers": 0},
        "env": {},
        "args": [],
        "healthcheck": {"type": "http", "path": "/health", "interval": 10, "timeout": 5, "retries": 3},
        "restart_policy": {"enabled": true, "max_retries": 5, "initial_delay": 1, "max_delay": 300},
        "logs": {
            "stdout": format!("logs{separator}{{name}}{separator}stdout.log"),
            "stderr": format!("logs{separator}{{name}}{separator}stderr.log"),
            "max_size_mb": 10, "rotation": 3,
        },
        "parameter_mutability": {"static": ["model.path", "server.port"], "dynamic": ["tags"]},
        "sort_order": index,
    })
}

fn forget_identity(config: &mut Value) {
    let config: &mut Map<String, Value> = config.as_object_mut().expect("a config is an object");
    let later = ["schema_version", "instance_uid", "instance_no", "display_name", "created_at", "updated_at"];
    for key in later.into_iter().chain(["tags", "parameter_mutability", "sort_order"]) {
        config.remove(key);
    }
}

fn repeated_flags() -> Vec<String> {
    let moved = r"blk\.(1|2)\.ffn_(up|down)_exps\.weight=CPU";
    let other = r"\.ffn_gate_inp\.=CPU";
    ["-ot", moved, "-ot", other, "--override-tensor", r"output\.weight=CPU"].map(str::to_owned).to_vec()
}

fn metadata() -> Value {
    let template = "{% for message in messages %}{{ message['content'] }}\n{% endfor %}";
    json!({
        "architecture": "llama",
        "tokenizer.chat_template": template.repeat(20 * 1024 / template.len()),
        "quantization": {"name": "Q4_K_M", "bits": 4.5},
        "read_at": null,
    })
}

fn loosen(config: &mut Value) {
    config["server"]["port"] = json!(config["server"]["port"].to_string());
    config["model"]["context_size"] = json!(2048.0);
    config["model"]["threads"] = json!("1");
    config["gpu"]["device_id"] = Value::Null;
    config["gpu"]["backend"] = json!("CPU");
    config["healthcheck"]["timeout"] = json!(5.0);
    config["healthcheck"]["expected_body"] = Value::Null;
    config["tags"] = Value::Null;
    config["env"] = json!({"OMP_NUM_THREADS": 1, "GGML_LOG": null});
}
