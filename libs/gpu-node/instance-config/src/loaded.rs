//! One config file in memory: what it says, and what it means.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use orch_core::{ExitCode, Failure, UnixMillis};
use serde::Serialize;
use serde_json::{Map, Value, json};

use crate::access::{create_private_folders, write_private};
use crate::endpoint_arguments;
use crate::field::{FIELDS, Field, Reach};
use crate::finding::{Finding, Severity};
use crate::reader::{self, meant_path, written};
use crate::{BrokenInstance, InstanceConfig};

/// A config that can be used, with the file's own document beside it: what this version does not know is kept
/// there and written back.
#[derive(Clone, Debug)]
pub struct LoadedInstance {
    pub config: InstanceConfig,
    pub path: PathBuf,
    /// Warnings of reading. Errors would have made it a [`BrokenInstance`].
    pub findings: Vec<Finding>,
    pub(crate) document: Document,
}

/// The file's object. Not shown when debugging: it may hold secrets.
#[derive(Clone)]
pub(crate) struct Document(pub(crate) Map<String, Value>);

impl std::fmt::Debug for Document {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Document of {} keys", self.0.len())
    }
}

/// Where an effective value comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Origin {
    File,
    Default,
}

/// One line of `config show`, fit to be seen: secrets are masked.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct EffectiveValue {
    pub field: &'static str,
    pub value: Value,
    pub origin: Origin,
    /// Whether a change takes effect only with the next start.
    pub needs_restart: bool,
}

impl LoadedInstance {
    /// Every field with its effective value and where that came from.
    pub fn effective(&self) -> Vec<EffectiveValue> {
        let shown = self.config.shown();
        let line = |(field, value): (&'static Field, &Value)| EffectiveValue {
            field: field.path,
            value: value.clone(),
            origin: if written(&self.document.0, field).is_some() { Origin::File } else { Origin::Default },
            needs_restart: field.reach == Reach::Engine,
        };
        InstanceConfig::values(&shown).map(line).collect()
    }

    /// Changes one field: see [`LoadedInstance::set_all`].
    pub fn set(&mut self, field: &str, value: &str) -> Result<(), Failure> {
        self.set_all(&[(field, value)])
    }

    /// Changes fields, as `config set` does: each value is JSON, or else the text itself; `env.NAME` is one variable.
    /// The order does not matter, and only the result is judged: it is refused as a whole when it would not be valid.
    /// The file is untouched until [`save`].
    pub fn set_all<T: AsRef<str>>(&mut self, assignments: &[(T, T)]) -> Result<(), Failure> {
        let mut document = self.document.0.clone();
        if endpoint_arguments::is_older_document(&document) || self.in_older_folder() {
            // Otherwise the address in `args` would overrule what is being set.
            endpoint_arguments::move_to_server(&mut document);
        }
        let assignments = assignments.iter().map(|(field, value)| (field.as_ref(), value.as_ref()));
        let (variables, fields): (Vec<_>, Vec<_>) =
            assignments.partition(|(field, _)| field.starts_with(VARIABLE));
        refuse_repeated(fields.iter().chain(&variables).map(|(field, _)| *field))?;
        for (path, value) in fields {
            let field = changeable_field(path)?;
            put(&mut document, field, strict(field, typed(field, value))?);
        }
        // After the fields: one of them may be the whole of `env`.
        for (path, value) in variables {
            put_variable(&mut document, &path[VARIABLE.len()..], value)?;
        }
        self.take(document)
    }

    /// Makes a changed document this config's own, if it is valid.
    pub(crate) fn take(&mut self, document: Map<String, Value>) -> Result<(), Failure> {
        let reading = reader::read(&document, self.in_older_folder());
        match reading.config {
            Some(config) => {
                let (path, findings) =
                    (self.path.clone(), of_instance(reading.findings, config.name.as_str()));
                *self = Self { config, path, findings, document: Document(document) };
                Ok(())
            }
            None => Err(refusal(&self.path, &reading.findings)),
        }
    }

    pub(crate) fn in_older_folder(&self) -> bool {
        crate::catalog::is_older_folder(&self.path)
    }
}

/// How one variable of `env` is named in an assignment.
const VARIABLE: &str = "env.";

/// What an instance is known by, in the database, in folder names and to its engine.
const IDENTITY: [&str; 3] = ["name", "instance_uid", "schema_version"];

pub(crate) fn changeable_field(path: &str) -> Result<&'static Field, Failure> {
    let field = known_field(path)?;
    if IDENTITY.contains(&field.path) {
        let message = format!("{path} cannot be changed: the instance is known by it");
        return Err(Failure::new(ExitCode::ConfigInvalid, message).hint(
            "make a new instance with `llama-orch init`, or edit the file while the instance is stopped",
        ));
    }
    Ok(field)
}

fn refuse_repeated<'a>(fields: impl Iterator<Item = &'a str>) -> Result<(), Failure> {
    let mut seen = BTreeSet::new();
    for field in fields {
        if !seen.insert(field) {
            return Err(Failure::new(ExitCode::Usage, format!("{field} is given more than once")));
        }
    }
    Ok(())
}

/// One variable of `env`; an empty value takes it out.
fn put_variable(document: &mut Map<String, Value>, variable: &str, value: &str) -> Result<(), Failure> {
    let env = known_field("env")?;
    let mut variables = document.get("env").and_then(Value::as_object).cloned().unwrap_or_default();
    if value.is_empty() {
        variables.shift_remove(variable);
    } else {
        variables.insert(variable.to_owned(), json!(value));
    }
    put(document, env, strict(env, Value::Object(variables))?);
    Ok(())
}

pub(crate) fn known_field(path: &str) -> Result<&'static Field, Failure> {
    Field::find(path).ok_or_else(|| {
        if let Some(inside) = FIELDS.iter().find(|field| field.parts().0 == Some(path)) {
            let message = format!("{path:?} is a section of an instance config, not a field");
            return Failure::new(ExitCode::Usage, message)
                .hint(format!("set what is in it, such as {}", inside.path));
        }
        let failure = Failure::new(ExitCode::Usage, format!("{path:?} is not a field of an instance config"));
        match meant_path(path) {
            Some(meant) => failure.hint(format!("did you mean {meant}?")),
            None => failure.hint("see `llama-orch config schema`"),
        }
    })
}

/// What was typed, as JSON. Short lists may be written without brackets: `tags=chat,gpu`. What fits in no way is kept as
/// it was meant, so that the refusal speaks of that.
fn typed(field: &Field, text: &str) -> Value {
    let parsed: Option<Value> = serde_json::from_str(text).ok();
    let as_text = if field.kind.splits_at_commas() {
        json!(text.split(',').map(str::trim).filter(|part| !part.is_empty()).collect::<Vec<_>>())
    } else {
        json!(text)
    };
    match parsed {
        Some(Value::Null) => Value::Null,
        // A version or name that looks like a number is text all the same.
        Some(parsed) if field.kind.read(&parsed).is_ok_and(|read| read.notes.is_empty()) => parsed,
        Some(parsed) if field.kind.read(&as_text).is_err() => parsed,
        _ => as_text,
    }
}

/// What is written is strict, however it was typed.
fn strict(field: &Field, value: Value) -> Result<Value, Failure> {
    if value.is_null() {
        return Ok(value);
    }
    let refuse = |refusal| Failure::new(ExitCode::ConfigInvalid, format!("{}: {refusal}", field.path));
    field.kind.read(&value).map(|read| read.value).map_err(refuse)
}

pub(crate) fn put(document: &mut Map<String, Value>, field: &Field, value: Value) {
    let (section, key) = field.parts();
    let holder = match section {
        None => document,
        Some(section) => {
            let entry = document.entry(section).or_insert_with(|| json!({}));
            if !entry.is_object() {
                *entry = json!({});
            }
            entry.as_object_mut().expect("it was made an object above")
        }
    };
    holder.insert(key.to_owned(), value);
}

pub(crate) fn of_instance(findings: Vec<Finding>, name: &str) -> Vec<Finding> {
    findings.into_iter().map(|finding| finding.of(name)).collect()
}

/// The first error of a reading as the failure of a command.
pub(crate) fn refusal(path: &Path, findings: &[Finding]) -> Failure {
    let error = findings.iter().find(|finding| finding.severity == Severity::Error);
    let text = error.map_or_else(
        || "is not valid".to_owned(),
        |finding| {
            let field = finding.field.as_deref().map(|field| format!("{field}: ")).unwrap_or_default();
            format!("{field}{}", finding.message)
        },
    );
    let failure = Failure::new(ExitCode::ConfigInvalid, format!("{}: {text}", path.display()));
    match error.and_then(|finding| finding.suggestion.as_ref()) {
        Some(suggestion) => failure.hint(suggestion),
        None => failure,
    }
}

/// Reads one document that is known to lie at `path`.
pub(crate) fn load_document(
    path: &Path,
    document: Map<String, Value>,
) -> Result<LoadedInstance, BrokenInstance> {
    let reading = reader::read(&document, crate::catalog::is_older_folder(path));
    match reading.config {
        Some(config) => {
            let findings = of_instance(reading.findings, config.name.as_str());
            Ok(LoadedInstance { config, path: path.to_owned(), findings, document: Document(document) })
        }
        None => Err(BrokenInstance::invalid(path, &document, reading.findings)),
    }
}

/// Writes a config back: atomically, readable by its owner alone, unknown keys and nulls kept, with the identity it
/// may have lacked and the time of the change.
pub fn save(instance: &mut LoadedInstance, now: UnixMillis) -> Result<(), Failure> {
    let mut document = instance.document.0.clone();
    let uid = instance.config.instance_uid.to_string();
    if document.get("instance_uid").is_none_or(Value::is_null) {
        document.insert("instance_uid".to_owned(), json!(uid));
    }
    document.insert("updated_at".to_owned(), json!(now.to_rfc3339()));
    write_document(&instance.path, &document)?;
    instance.config.updated_at = Some(now.to_rfc3339());
    instance.document = Document(document);
    Ok(())
}

pub(crate) fn write_document(path: &Path, document: &Map<String, Value>) -> Result<(), Failure> {
    let mut text = serde_json::to_string_pretty(document).expect("a JSON object with text keys");
    text.push('\n');
    let folder = path.parent().unwrap_or(Path::new("."));
    create_private_folders(folder)
        // A link to a config elsewhere stays a link: the file behind it is replaced.
        .and_then(|()| {
            write_private(&dunce::canonicalize(path).unwrap_or_else(|_| path.to_owned()), text.as_bytes())
        })
        .map_err(|error| write_failure(path, &error))
}

pub(crate) fn write_failure(path: &Path, error: &std::io::Error) -> Failure {
    let exit = match error.kind() {
        std::io::ErrorKind::PermissionDenied => ExitCode::PermissionDenied,
        _ => ExitCode::General,
    };
    Failure::new(exit, format!("{} cannot be written: {error}", path.display()))
}
