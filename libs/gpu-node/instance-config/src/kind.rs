//! What one field may hold, and how liberally it is read.

use std::net::IpAddr;

use orch_core::{InstanceName, UnixMillis};
use serde_json::{Map, Value, json};

/// The type of a field. Reading gives the value in its strict form, with a note for each liberty taken.
#[derive(Clone, Copy, Debug)]
pub enum Kind {
    Name,
    Text,
    Uuid,
    Moment,
    /// Eight digits.
    SerialNumber,
    Bool,
    Integer {
        min: i64,
        max: i64,
    },
    /// As `Integer`, but an explicit null is a value of its own.
    NullableInteger {
        min: i64,
        max: i64,
    },
    Number {
        min: f64,
        max: f64,
    },
    /// As `Number`; becomes a `Duration`.
    Seconds {
        min: f64,
        max: f64,
    },
    Choice(&'static [&'static str]),
    Port,
    Host,
    HttpPath,
    ModelPath,
    LogTemplate,
    Tags,
    Alias,
    Arguments,
    Environment,
    /// One HTTP status or several.
    Statuses,
    Replicas {
        max: u16,
    },
    /// Not looked into.
    Anything,
}

/// A value in its strict form.
#[derive(Debug)]
pub struct Read {
    pub value: Value,
    /// What had to be bent, as warnings.
    pub notes: Vec<String>,
}

/// Why a value cannot be used. Never holds the value of an argument or environment variable.
pub(crate) type Refusal = String;

impl Kind {
    /// Whether an explicit null means something else than leaving the field out.
    pub fn null_is_a_value(&self) -> bool {
        matches!(self, Kind::NullableInteger { .. })
    }

    /// Whether a list of these may be typed as `a,b`. Arguments may hold commas themselves.
    pub fn splits_at_commas(&self) -> bool {
        matches!(self, Kind::Tags | Kind::Alias | Kind::Statuses)
    }

    pub fn read(&self, value: &Value) -> Result<Read, Refusal> {
        let mut notes = Vec::new();
        let value = self.strict(value, &mut notes)?;
        Ok(Read { value, notes })
    }

    fn strict(&self, value: &Value, notes: &mut Vec<String>) -> Result<Value, Refusal> {
        match *self {
            Kind::NullableInteger { .. } if value.is_null() => Ok(Value::Null),
            Kind::Integer { min, max } | Kind::NullableInteger { min, max } => {
                integer(value, min, max, notes)
            }
            Kind::Number { min, max } | Kind::Seconds { min, max } => number(value, min, max, notes),
            Kind::Port => port(value, notes),
            Kind::Bool => boolean(value, notes),
            Kind::Choice(words) => choice(&text(value, notes)?, words, notes),
            Kind::Name => name(&text(value, notes)?),
            Kind::Text => text(value, notes).map(Value::String),
            Kind::Uuid => uuid(&text(value, notes)?),
            Kind::Moment => Ok(moment(text(value, notes)?, notes)),
            Kind::SerialNumber => serial_number(text(value, notes)?),
            Kind::Host => host(&text(value, notes)?),
            Kind::HttpPath => http_path(&text(value, notes)?, notes),
            Kind::ModelPath => model_path(text(value, notes)?),
            Kind::LogTemplate => log_template(text(value, notes)?),
            Kind::Tags => tags(value, notes),
            Kind::Alias => aliases(value, notes),
            Kind::Arguments => arguments(value, notes),
            Kind::Environment => environment(value, notes),
            Kind::Statuses => statuses(value, notes),
            Kind::Replicas { max } => replicas(value, i64::from(max), notes),
            Kind::Anything => Ok(value.clone()),
        }
    }
}

const COERCED_NUMBER: &str = "a number written as text";

fn integer(value: &Value, min: i64, max: i64, notes: &mut Vec<String>) -> Result<Value, Refusal> {
    let found =
        whole_number(value, notes).ok_or_else(|| format!("must be a whole number, is {}", nature(value)))?;
    if found < min || found > max {
        return Err(format!("must be between {min} and {max}, is {found}"));
    }
    Ok(json!(found))
}

fn whole_number(value: &Value, notes: &mut Vec<String>) -> Option<i64> {
    match value {
        Value::Number(number) => number.as_i64().or_else(|| whole(number.as_f64()?)),
        Value::String(text) => {
            let number = text.trim().parse().ok().or_else(|| whole(text.trim().parse().ok()?))?;
            notes.push(COERCED_NUMBER.to_owned());
            Some(number)
        }
        _ => None,
    }
}

/// 4096.0 is a whole number; 2^53 is where floating numbers stop telling neighbours apart.
fn whole(number: f64) -> Option<i64> {
    (number.fract() == 0.0 && number.abs() <= 9_007_199_254_740_992.0).then_some(number as i64)
}

fn number(value: &Value, min: f64, max: f64, notes: &mut Vec<String>) -> Result<Value, Refusal> {
    let found = match value {
        Value::Number(number) => number.as_f64(),
        Value::String(text) => {
            notes.push(COERCED_NUMBER.to_owned());
            text.trim().parse().ok()
        }
        _ => None,
    };
    let found: f64 = found.ok_or_else(|| format!("must be a number, is {}", nature(value)))?;
    if !(min..=max).contains(&found) {
        return Err(format!("must be between {min} and {max}, is {found}"));
    }
    Ok(whole(found).map_or_else(|| json!(found), |whole| json!(whole)))
}

fn port(value: &Value, notes: &mut Vec<String>) -> Result<Value, Refusal> {
    let found =
        whole_number(value, notes).ok_or_else(|| format!("must be a port number, is {}", nature(value)))?;
    if found != 0 && !(1024..=65_535).contains(&found) {
        return Err(format!("must be between 1024 and 65535, or 0 for a free one, is {found}"));
    }
    Ok(json!(found))
}

fn boolean(value: &Value, notes: &mut Vec<String>) -> Result<Value, Refusal> {
    match value {
        Value::Bool(_) => Ok(value.clone()),
        Value::String(text) if text.eq_ignore_ascii_case("true") || text.eq_ignore_ascii_case("false") => {
            notes.push("a yes or no written as text".to_owned());
            Ok(json!(text.eq_ignore_ascii_case("true")))
        }
        _ => Err(format!("must be true or false, is {}", nature(value))),
    }
}

fn text(value: &Value, notes: &mut Vec<String>) -> Result<String, Refusal> {
    let text = scalar_text(value, notes).ok_or_else(|| format!("must be text, is {}", nature(value)))?;
    if text.contains('\0') {
        return Err("must not hold a NUL character".to_owned());
    }
    Ok(text)
}

fn scalar_text(value: &Value, notes: &mut Vec<String>) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => {
            notes.push("text written as a number".to_owned());
            Some(number.to_string())
        }
        _ => None,
    }
}

fn choice(found: &str, words: &[&str], notes: &mut Vec<String>) -> Result<Value, Refusal> {
    if words.contains(&found) {
        return Ok(json!(found));
    }
    let lower = found.trim().to_ascii_lowercase();
    if words.contains(&lower.as_str()) {
        notes.push(format!("{found:?} is read as {lower:?}"));
        return Ok(json!(lower));
    }
    Err(format!("must be one of {}, is {found:?}", words.join(", ")))
}

fn name(found: &str) -> Result<Value, Refusal> {
    InstanceName::new(found)
        .map(|name| json!(name.as_str()))
        .map_err(|error| format!("{error}, is {found:?}"))
}

fn uuid(found: &str) -> Result<Value, Refusal> {
    match uuid::Uuid::parse_str(found.trim()) {
        Ok(uuid) => Ok(json!(uuid.to_string())),
        Err(_) => Err(format!("must be a UUID, is {found:?}")),
    }
}

/// A moment that cannot be read harms nobody, so it is kept with a note.
fn moment(found: String, notes: &mut Vec<String>) -> Value {
    if UnixMillis::from_rfc3339(&found).is_none() {
        notes.push("not a moment in RFC 3339".to_owned());
    }
    Value::String(found)
}

fn serial_number(found: String) -> Result<Value, Refusal> {
    if found.len() == 8 && found.bytes().all(|byte| byte.is_ascii_digit()) {
        return Ok(Value::String(found));
    }
    Err(format!("must be eight digits, is {found:?}"))
}

fn host(found: &str) -> Result<Value, Refusal> {
    let bare = found.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(found);
    if bare.parse::<IpAddr>().is_ok() || is_host_name(bare) {
        return Ok(json!(bare));
    }
    Err(format!("must be an IPv4 address, an IPv6 address or a host name, is {found:?}"))
}

/// The syntax of host names, with the underscore that local networks use. A name whose last label is a number
/// would be a mistyped IPv4 address.
fn is_host_name(found: &str) -> bool {
    let label = |label: &str| {
        let bytes = label.as_bytes();
        let inside = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
        (1..=63).contains(&bytes.len())
            && bytes.iter().all(inside)
            && bytes[0] != b'-'
            && bytes[bytes.len() - 1] != b'-'
    };
    let numeric = |label: &str| label.bytes().all(|byte| byte.is_ascii_digit());
    found.len() <= 253 && found.split('.').all(label) && !found.rsplit('.').next().is_some_and(numeric)
}

fn http_path(found: &str, notes: &mut Vec<String>) -> Result<Value, Refusal> {
    // The path goes into a request line: a space or control character there would begin another request.
    if found.bytes().any(|byte| byte <= b' ' || byte == 0x7f) {
        return Err("must not hold spaces or control characters".to_owned());
    }
    if found.starts_with('/') {
        return Ok(json!(found));
    }
    notes.push("a path without its leading slash".to_owned());
    Ok(json!(format!("/{found}")))
}

fn model_path(found: String) -> Result<Value, Refusal> {
    let lower = found.to_ascii_lowercase();
    if lower.starts_with("http://") || lower.starts_with("https://") {
        return Err("must be a file or an hf: reference, is an address: download the model first".to_owned());
    }
    let is_gguf = std::path::Path::new(&lower).extension().is_some_and(|extension| extension == "gguf");
    if is_gguf || lower.starts_with("hf:") {
        return Ok(Value::String(found));
    }
    Err(format!("must be a .gguf file or an hf: reference, is {found:?}"))
}

fn log_template(found: String) -> Result<Value, Refusal> {
    let rest = found.replace("{name}", "");
    if rest.contains(['{', '}']) {
        return Err("knows only the placeholder {name}".to_owned());
    }
    if found.trim().is_empty() || found.ends_with(['/', '\\']) {
        return Err(format!("must name a file, is {found:?}"));
    }
    Ok(Value::String(found))
}

fn tags(value: &Value, notes: &mut Vec<String>) -> Result<Value, Refusal> {
    let mut tags: Vec<String> = Vec::new();
    for text in texts(value, notes)? {
        let tag = text.trim().to_lowercase();
        let reserved = tag == "all" || tag == "clean";
        if !reserved && InstanceName::new(tag.as_str()).is_err() {
            return Err(format!("a tag has 1 to 64 characters of a-z, 0-9, '_' and '-', is {tag:?}"));
        }
        if !tags.contains(&tag) {
            tags.push(tag);
        }
    }
    Ok(json!(tags))
}

const LONGEST_ALIAS: usize = 256;

/// Clients write model names of other houses (`gpt-4o`, `org/model:tag`), so aliases are freer than names.
fn aliases(value: &Value, notes: &mut Vec<String>) -> Result<Value, Refusal> {
    let mut aliases: Vec<String> = Vec::new();
    for text in texts(value, notes)? {
        let alias = text.trim();
        let strange = alias.chars().any(|character| character.is_control() || character.is_whitespace());
        if alias.is_empty() || alias.len() > LONGEST_ALIAS || strange {
            return Err(format!("an alias has 1 to {LONGEST_ALIAS} bytes without spaces, is {alias:?}"));
        }
        if !aliases.iter().any(|known| known == alias) {
            aliases.push(alias.to_owned());
        }
    }
    Ok(json!(aliases))
}

fn texts(value: &Value, notes: &mut Vec<String>) -> Result<Vec<String>, Refusal> {
    let list = value.as_array().ok_or_else(|| format!("must be a list of texts, is {}", nature(value)))?;
    list.iter().map(|item| text(item, notes)).collect()
}

fn arguments(value: &Value, notes: &mut Vec<String>) -> Result<Value, Refusal> {
    texts(value, notes).map(|arguments| json!(arguments))
}

fn environment(value: &Value, notes: &mut Vec<String>) -> Result<Value, Refusal> {
    let map = value.as_object().ok_or_else(|| format!("must be a map of texts, is {}", nature(value)))?;
    let mut read = Map::new();
    for (name, value) in map {
        if name.is_empty() || name.contains(['=', '\0']) {
            return Err(format!("{name:?} cannot be the name of an environment variable"));
        }
        // Null is the absent value everywhere in this format.
        if value.is_null() {
            continue;
        }
        let text = variable(value, notes).map_err(|refusal| format!("{name}: {refusal}"))?;
        read.insert(name.clone(), Value::String(text));
    }
    Ok(Value::Object(read))
}

fn variable(value: &Value, notes: &mut Vec<String>) -> Result<String, Refusal> {
    if let Value::Bool(flag) = value {
        notes.push("text written as true or false".to_owned());
        return Ok(flag.to_string());
    }
    text(value, notes)
}

fn statuses(value: &Value, notes: &mut Vec<String>) -> Result<Value, Refusal> {
    let one = std::slice::from_ref(value);
    let list = value.as_array().map_or(one, Vec::as_slice);
    if list.is_empty() {
        return Err("must name at least one HTTP status".to_owned());
    }
    list.iter()
        .map(|status| integer(status, 100, 599, notes))
        .collect::<Result<Vec<_>, _>>()
        .map(Value::Array)
}

fn replicas(value: &Value, max: i64, notes: &mut Vec<String>) -> Result<Value, Refusal> {
    if value.as_str() == Some("per_device") {
        return Ok(value.clone());
    }
    integer(value, 1, max, notes).map_err(|refusal| format!("{refusal}; or `per_device`"))
}

/// The JSON type, for messages that must not repeat the value.
fn nature(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "true or false",
        Value::Number(_) => "a number",
        Value::String(_) => "text",
        Value::Array(_) => "a list",
        Value::Object(_) => "a map",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn accepts(kind: Kind, value: &Value) -> Value {
        kind.read(value).unwrap_or_else(|refusal| panic!("{value}: {refusal}")).value
    }

    fn refuses(kind: Kind, value: &Value) {
        assert!(kind.read(value).is_err(), "{value} must be refused");
    }

    #[test]
    fn a_number_written_as_text_is_read_with_a_note() {
        let read = Kind::Port.read(&json!(" 8001 ")).unwrap();
        assert_eq!((read.value, read.notes.len()), (json!(8001), 1));
        assert_eq!(accepts(Kind::Integer { min: 0, max: 9 }, &json!("7.0")), json!(7));
        refuses(Kind::Port, &json!("eighty"));
        refuses(Kind::Port, &json!(8001.5));
    }

    #[test]
    fn ports_below_1024_are_refused_but_zero_asks_for_a_free_one() {
        for good in [0, 1024, 65_535] {
            accepts(Kind::Port, &json!(good));
        }
        for bad in [-1, 1, 80, 1023, 65_536] {
            refuses(Kind::Port, &json!(bad));
        }
    }

    #[test]
    fn hosts_are_addresses_or_names() {
        for good in ["127.0.0.1", "::1", "[::1]", "localhost", "gpu_box.lan", "a-b.example"] {
            accepts(Kind::Host, &json!(good));
        }
        assert_eq!(accepts(Kind::Host, &json!("[::1]")), json!("::1"));
        for bad in ["", "999.0.0.1", "1.2.3", "a b", "-a", "a..b", "/tmp/x.sock", "a,b", &"a".repeat(64)] {
            refuses(Kind::Host, &json!(bad));
        }
    }

    #[test]
    fn tags_are_trimmed_lowered_and_kept_once() {
        assert_eq!(accepts(Kind::Tags, &json!([" Chat ", "chat", "gpu"])), json!(["chat", "gpu"]));
        refuses(Kind::Tags, &json!(["two words"]));
        refuses(Kind::Tags, &json!("chat"));
    }

    #[test]
    fn aliases_may_be_model_names_of_other_houses() {
        let list = json!(["gpt-4o", "org/model:Q4_K_M", "gpt-4o"]);
        assert_eq!(accepts(Kind::Alias, &list), json!(["gpt-4o", "org/model:Q4_K_M"]));
        refuses(Kind::Alias, &json!(["two words"]));
        refuses(Kind::Alias, &json!([""]));
    }

    #[test]
    fn arguments_keep_order_duplicates_and_odd_characters() {
        let list = json!(["-ot", r"blk\.\d+=CPU", "-ot", "a b", ""]);
        assert_eq!(accepts(Kind::Arguments, &list), list);
        assert_eq!(accepts(Kind::Arguments, &json!(["--top-k", 40])), json!(["--top-k", "40"]));
        refuses(Kind::Arguments, &json!(["a\0b"]));
    }

    #[test]
    fn environment_values_become_text_and_null_is_absent() {
        let read = accepts(Kind::Environment, &json!({"A": 1, "B": null, "C": true}));
        assert_eq!(read, json!({"A": "1", "C": "true"}));
        refuses(Kind::Environment, &json!({"A=B": "x"}));
        refuses(Kind::Environment, &json!({"A": ["x"]}));
    }

    #[test]
    fn a_refused_environment_value_is_not_repeated() {
        let refusal = Kind::Environment.read(&json!({"KEY": ["hunter2"]})).unwrap_err();
        assert!(!refusal.contains("hunter2"), "{refusal}");
    }

    #[test]
    fn one_status_or_several() {
        assert_eq!(accepts(Kind::Statuses, &json!(200)), json!([200]));
        assert_eq!(accepts(Kind::Statuses, &json!([200, 204])), json!([200, 204]));
        refuses(Kind::Statuses, &json!([]));
        refuses(Kind::Statuses, &json!(99));
    }

    #[test]
    fn a_model_is_a_gguf_file_of_any_case_or_a_reference() {
        for good in ["a.gguf", r"models\A.GGUF", "hf:owner/repo", "hf:owner/repo:a.gguf"] {
            accepts(Kind::ModelPath, &json!(good));
        }
        for bad in ["", "a.bin", "https://example.org/a.gguf"] {
            refuses(Kind::ModelPath, &json!(bad));
        }
    }

    #[test]
    fn a_health_path_cannot_smuggle_a_second_request() {
        refuses(Kind::HttpPath, &json!("/health HTTP/1.1\r\nX: y"));
        assert_eq!(accepts(Kind::HttpPath, &json!("v1/health")), json!("/v1/health"));
    }

    #[test]
    fn log_templates_know_one_placeholder() {
        accepts(Kind::LogTemplate, &json!("logs/{name}.log"));
        refuses(Kind::LogTemplate, &json!("logs/{nam}.log"));
        refuses(Kind::LogTemplate, &json!("logs/"));
    }

    #[test]
    fn numbers_that_are_none_are_refused() {
        refuses(Kind::Seconds { min: 0.0, max: 10.0 }, &json!("NaN"));
        refuses(Kind::Seconds { min: 0.0, max: 10.0 }, &json!("inf"));
        refuses(Kind::Integer { min: 0, max: 10 }, &json!(1e300));
    }

    #[test]
    fn replicas_are_counted_or_one_for_each_device() {
        assert_eq!(accepts(Kind::Replicas { max: 64 }, &json!("per_device")), json!("per_device"));
        assert_eq!(accepts(Kind::Replicas { max: 64 }, &json!(2)), json!(2));
        refuses(Kind::Replicas { max: 64 }, &json!(0));
    }

    proptest! {
        #[test]
        fn integers_inside_their_range_are_kept_and_others_refused(found in any::<i64>()) {
            let read = Kind::Integer { min: 512, max: 1_048_576 }.read(&json!(found));
            prop_assert_eq!(read.is_ok(), (512..=1_048_576).contains(&found));
        }
    }
}
