//! The table of everything an instance config may hold.

use serde_json::Value;

use crate::Kind;

/// One field of the config format.
#[derive(Clone, Copy, Debug)]
pub struct Field {
    /// Dotted path, such as `server.port`.
    pub path: &'static str,
    /// Where the dot of the path is: found once, because every reading of a config asks for every field's parts.
    dot: Option<usize>,
    pub kind: Kind,
    pub preset: Preset,
    pub reach: Reach,
    /// One line for editors and generated documentation.
    pub meaning: &'static str,
}

/// What an absent field means.
#[derive(Clone, Copy, Debug)]
pub enum Preset {
    /// The field must be written.
    Required,
    /// No value.
    Absent,
    /// This value, as JSON text.
    Value(&'static str),
}

/// Who is concerned when the value changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// It reaches the engine or its log files: a change takes effect with the next start.
    Engine,
    /// Only the node or people read it: a change applies at once.
    Node,
}

impl Field {
    /// The default as a JSON value; none for required fields and for those that are simply absent.
    pub fn default_value(&self) -> Option<Value> {
        match self.preset {
            Preset::Value(text) => {
                Some(serde_json::from_str(text).expect("presets are JSON, a test reads them all"))
            }
            Preset::Required | Preset::Absent => None,
        }
    }

    /// The section and the key inside it; top-level fields have no section.
    pub fn parts(&self) -> (Option<&'static str>, &'static str) {
        match self.dot {
            Some(dot) => (Some(&self.path[..dot]), &self.path[dot + 1..]),
            None => (None, self.path),
        }
    }

    pub fn find(path: &str) -> Option<&'static Field> {
        FIELDS.iter().find(|field| field.path == path)
    }
}

const fn field(path: &'static str, kind: Kind, preset: Preset, reach: Reach, meaning: &'static str) -> Field {
    Field { path, dot: first_dot(path), kind, preset, reach, meaning }
}

const fn first_dot(path: &str) -> Option<usize> {
    let (bytes, mut at) = (path.as_bytes(), 0);
    while at < bytes.len() {
        if bytes[at] == b'.' {
            return Some(at);
        }
        at += 1;
    }
    None
}

use Kind::{
    Alias, Anything, Arguments, Bool, Choice, Environment, Host, HttpPath, Integer, LogTemplate, ModelPath,
    Moment, Name, NullableInteger, Number, Port, Replicas, Seconds, SerialNumber, Statuses, Tags, Text, Uuid,
};
use Preset::{Absent, Required, Value as Is};
use Reach::{Engine, Node};

/// Engines read these counts as signed 32-bit numbers.
const ENGINE_INT_MAX: i64 = i32::MAX as i64;
/// Where the format names no upper bound for a time, a year is one.
const YEAR: f64 = 31_536_000.0;

/// Every field, in the order in which `config show` prints them.
#[rustfmt::skip]
pub static FIELDS: &[Field] = &[
    field("$schema", Anything, Absent, Node, "address of this schema, for editors"),
    field("name", Name, Required, Engine, "name of the instance: 1-64 of a-z 0-9 _ -"),
    field("schema_version", Text, Is("\"2\""), Node, "version of this format"),
    field("instance_uid", Uuid, Absent, Node, "identity that survives renames"),
    field("instance_no", SerialNumber, Absent, Node, "eight digits, unique in a home"),
    field("display_name", Text, Absent, Node, "name shown to people; the name when absent"),
    field("created_at", Moment, Absent, Node, "when the config was made (RFC 3339)"),
    field("updated_at", Moment, Absent, Node, "when the config was last written (RFC 3339)"),
    field("tags", Tags, Is("[]"), Node, "labels that commands can select by"),
    field("binary.binary_id", Uuid, Absent, Engine, "an installed engine, exactly this one"),
    field("binary.version", Text, Absent, Engine, "engine version; `latest` is the newest installed of the variant"),
    field("binary.variant", Text, Absent, Engine, "engine build, such as `ubuntu-x64`; the host's when absent"),
    field("binary.source_url", Text, Absent, Node, "where the engine came from"),
    field("binary.sha256", Text, Absent, Node, "checksum of the engine's archive"),
    field("model.path", ModelPath, Required, Engine, "a .gguf file, relative to this file's folder, then to the home; or an hf: reference"),
    field("model.context_size", Integer { min: 512, max: 1_048_576 }, Is("4096"), Engine, "context in tokens, shared by the slots"),
    field("model.batch_size", Integer { min: 1, max: 8192 }, Is("512"), Engine, "tokens processed in one step of a prompt"),
    field("model.threads", Integer { min: 1, max: 1024 }, Is("8"), Engine, "CPU threads"),
    field("server.host", Host, Is("\"127.0.0.1\""), Engine, "address the engine listens on"),
    field("server.port", Port, Is("8001"), Engine, "port of the engine; 0 picks a free one at each start"),
    field("server.timeout", Seconds { min: 0.0, max: YEAR }, Is("600"), Engine, "the engine's read and write timeout in seconds"),
    field("server.parallel", Integer { min: 1, max: 256 }, Is("1"), Engine, "slots: requests served at the same time"),
    field("gpu.backend", Choice(&["cpu", "vulkan", "cuda", "metal", "hip"]), Is("\"cpu\""), Engine, "what the model computes on"),
    field("gpu.device_id", NullableInteger { min: 0, max: ENGINE_INT_MAX }, Is("0"), Engine, "which device; null means all"),
    field("gpu.layers", Integer { min: 0, max: ENGINE_INT_MAX }, Is("0"), Engine, "layers on the device; 999 means all"),
    field("env", Environment, Is("{}"), Engine, "environment of the engine; wins over computed variables"),
    field("args", Arguments, Is("[]"), Engine, "further arguments of the engine, appended as they are"),
    field("healthcheck.type", Choice(&["http", "tcp", "custom"]), Is("\"http\""), Node, "how health is probed"),
    field("healthcheck.path", HttpPath, Is("\"/health\""), Node, "path of the HTTP probe"),
    field("healthcheck.expected_status", Statuses, Is("[200]"), Node, "HTTP statuses that mean healthy"),
    field("healthcheck.expected_body", Text, Absent, Node, "text the answer must contain"),
    field("healthcheck.custom_script", Text, Absent, Node, "shell command of the custom probe; {host} and {port} are filled in"),
    field("healthcheck.interval", Seconds { min: 0.1, max: 3600.0 }, Is("10"), Node, "seconds between probes"),
    field("healthcheck.timeout", Seconds { min: 0.1, max: 60.0 }, Is("5"), Node, "seconds a probe may take"),
    field("healthcheck.retries", Integer { min: 1, max: 10 }, Is("3"), Node, "failures in a row before a restart"),
    field("healthcheck.retry_delay", Seconds { min: 0.1, max: 60.0 }, Is("1"), Node, "seconds before a failed probe is repeated"),
    field("healthcheck.start_period", Seconds { min: 0.0, max: 3600.0 }, Is("60"), Node, "seconds after a start in which failures do not count"),
    field("healthcheck.load_stall", Seconds { min: 1.0, max: 86_400.0 }, Is("300"), Node, "seconds without any progress after which loading has stalled"),
    field("healthcheck.backoff_enabled", Bool, Is("true"), Node, "probe less often while unhealthy"),
    field("healthcheck.backoff_base", Seconds { min: 0.0, max: 3600.0 }, Is("1"), Node, "first extra delay in seconds"),
    field("healthcheck.backoff_max", Seconds { min: 0.0, max: 86_400.0 }, Is("60"), Node, "longest extra delay in seconds"),
    field("healthcheck.backoff_jitter", Number { min: 0.0, max: 1.0 }, Is("0.1"), Node, "share of the delay left to chance"),
    field("healthcheck.warmup_enabled", Bool, Is("false"), Node, "ready only after one real completion"),
    field("healthcheck.warmup_prompt", Text, Is("\"Hello\""), Node, "prompt of that completion"),
    field("restart_policy.enabled", Bool, Is("true"), Node, "restart an engine that ended by itself"),
    field("restart_policy.max_retries", Integer { min: 0, max: 100 }, Is("5"), Node, "restarts before giving up"),
    field("restart_policy.initial_delay", Seconds { min: 0.0, max: 3600.0 }, Is("1"), Node, "seconds before the first restart"),
    field("restart_policy.max_delay", Seconds { min: 0.0, max: 86_400.0 }, Is("300"), Node, "longest delay in seconds"),
    field("restart_policy.backoff_multiplier", Number { min: 1.0, max: 10.0 }, Is("2"), Node, "growth from one delay to the next"),
    field("restart_policy.jitter", Number { min: 0.0, max: 1.0 }, Is("0.1"), Node, "share of the delay left to chance"),
    field("logs.stdout", LogTemplate, Is("\"logs/{name}/stdout.log\""), Engine, "file of the engine's output, relative to the home"),
    field("logs.stderr", LogTemplate, Is("\"logs/{name}/stderr.log\""), Engine, "file of the engine's errors, relative to the home"),
    field("logs.max_size_mb", Integer { min: 1, max: 1_048_576 }, Is("10"), Engine, "size in MiB at which a log is rotated"),
    field("logs.rotation", Integer { min: 0, max: 1000 }, Is("3"), Engine, "rotated files kept"),
    field("logs.retention_days", Integer { min: 0, max: 36_500 }, Is("7"), Node, "days after which rotated files go"),
    field("lifecycle.load", Choice(&["manual", "on_demand", "always"]), Is("\"manual\""), Node, "who loads it: up, the first request, or the daemon"),
    field("lifecycle.idle_ttl", Seconds { min: 0.0, max: YEAR }, Is("0"), Node, "seconds without a request before it is unloaded; 0 is never"),
    field("lifecycle.group", Text, Absent, Node, "at most one loaded member of a group on a node"),
    field("lifecycle.pin", Bool, Is("false"), Node, "never evicted"),
    field("replicas", Replicas { max: crate::replicas::MAX }, Is("1"), Node, "engines of this instance, 1 to 64; or per_device: one for each device of the backend"),
    field("aliases", Alias, Is("[]"), Node, "other names under which clients reach it"),
    field("model_metadata", Anything, Absent, Node, "kept as it is"),
    field("parameter_mutability", Anything, Absent, Node, "kept as it is"),
    field("sort_order", Anything, Absent, Node, "kept as it is"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_preset_is_json_and_obeys_its_own_rule() {
        for field in FIELDS {
            if let Some(value) = field.default_value() {
                let read =
                    field.kind.read(&value).unwrap_or_else(|refusal| panic!("{}: {refusal:?}", field.path));
                assert!(read.notes.is_empty(), "{}", field.path);
            }
        }
    }

    #[test]
    fn paths_are_unique_and_at_most_two_levels_deep() {
        let mut paths: Vec<_> = FIELDS.iter().map(|field| field.path).collect();
        assert!(paths.iter().all(|path| path.matches('.').count() <= 1));
        paths.sort_unstable();
        paths.dedup();
        assert_eq!(paths.len(), FIELDS.len());
    }
}
