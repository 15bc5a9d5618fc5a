//! A document on its way to its newer form, with an account of every step.

use orch_core::{MASK, is_secret_name, redact_args};
use serde::Serialize;
use serde_json::{Map, Value, json};

use crate::endpoint_arguments::{is_older_document, move_to_server};
use crate::field::{FIELDS, Field};
use crate::kind::Kind;
use crate::loaded::put;
use crate::reader::{SCHEMA_VERSION, written};

/// One field that changes, fit to be seen: secrets are masked.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Change {
    pub field: &'static str,
    /// Null where it was absent.
    pub from: Value,
    pub to: Value,
    pub reason: &'static str,
}

pub(super) struct Changing {
    document: Map<String, Value>,
    changes: Vec<Change>,
}

impl Changing {
    pub(super) fn new(document: Map<String, Value>) -> Self {
        Self { document, changes: Vec::new() }
    }

    pub(super) fn done(self) -> (Map<String, Value>, Vec<Change>) {
        (self.document, self.changes)
    }

    /// Whether the document leaves a field out.
    pub(super) fn lacks(&self, path: &str) -> bool {
        self.value(field(path)).is_null()
    }

    pub(super) fn set(&mut self, path: &str, value: &Value, reason: &'static str) {
        let field = field(path);
        let from = self.value(field);
        put(&mut self.document, field, value.clone());
        self.account(field, &from, value, reason);
    }

    /// `--host` and `--port` go from `args` to where everybody reads them.
    pub(super) fn move_address(&mut self, older_folder: bool) {
        if !older_folder && !is_older_document(&self.document) {
            return;
        }
        let touched = ["args", "server.host", "server.port"].map(field);
        let before = touched.map(|field| self.value(field));
        move_to_server(&mut self.document);
        for (field, from) in touched.into_iter().zip(before) {
            let to = self.value(field);
            if from != to {
                self.account(field, &from, &to, "the address of an engine belongs in server");
            }
        }
    }

    /// Values that are understood only by liberality.
    pub(super) fn make_strict(&mut self) {
        for field in FIELDS.iter().filter(|field| !matches!(field.kind, Kind::Anything)) {
            let Some(value) = written(&self.document, field).cloned() else { continue };
            let Ok(read) = field.kind.read(&value) else { continue };
            let strict = with_nulls_of(&value, read.value);
            if !read.notes.is_empty() && strict != value {
                put(&mut self.document, field, strict.clone());
                self.account(field, &value, &strict, "written in the form the format asks for");
            }
        }
    }

    pub(super) fn raise_version(&mut self) {
        if format_version(&self.document) < SCHEMA_VERSION {
            self.set("schema_version", &json!(SCHEMA_VERSION.to_string()), "the version of this format");
        }
    }

    fn value(&self, field: &Field) -> Value {
        written(&self.document, field).cloned().unwrap_or(Value::Null)
    }

    fn account(&mut self, field: &'static Field, from: &Value, to: &Value, reason: &'static str) {
        self.changes.push(Change {
            field: field.path,
            from: shown(field, from),
            to: shown(field, to),
            reason,
        });
    }
}

fn field(path: &str) -> &'static Field {
    Field::find(path).expect("migration names fields of the table only")
}

/// The version of the format that a document says it has; the first did not say.
pub(super) fn format_version(document: &Map<String, Value>) -> u32 {
    let whole = |text: &str| text.split('.').next().and_then(|part| part.trim().parse().ok());
    match document.get("schema_version") {
        None | Some(Value::Null) => 1,
        Some(Value::String(text)) => whole(text).unwrap_or(SCHEMA_VERSION),
        Some(other) => whole(&other.to_string()).unwrap_or(SCHEMA_VERSION),
    }
}

/// Reading passes over the nulls of a map; writing keeps them.
fn with_nulls_of(written: &Value, strict: Value) -> Value {
    let (Value::Object(written), Value::Object(mut strict)) = (written, strict.clone()) else {
        return strict;
    };
    let kept = |(key, value): (&String, &Value)| {
        let value = strict.remove(key).unwrap_or_else(|| value.clone());
        (key.clone(), value)
    };
    Value::Object(written.iter().map(kept).collect())
}

fn shown(field: &Field, value: &Value) -> Value {
    match (field.kind, value) {
        (Kind::Arguments, Value::Array(args)) => {
            let texts: Vec<String> =
                args.iter().map(|arg| arg.as_str().map_or_else(|| arg.to_string(), str::to_owned)).collect();
            json!(redact_args(&texts))
        }
        (Kind::Environment, Value::Object(variables)) => {
            let masked = |(name, value): (&String, &Value)| {
                let value = if is_secret_name(name) { json!(MASK) } else { value.clone() };
                (name.clone(), value)
            };
            Value::Object(variables.iter().map(masked).collect())
        }
        _ => value.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn changing(document: &Value) -> Changing {
        Changing::new(document.as_object().unwrap().clone())
    }

    #[test]
    fn secrets_are_masked_in_the_account_and_kept_in_the_document() {
        let mut changing = changing(&json!({
            "args": ["--port", "9000", "--api-key", "sesame1"],
            "env": {"MY_TOKEN": "sesame2", "THREADS": 4, "GONE": null},
        }));
        changing.move_address(true);
        changing.make_strict();
        let (document, changes) = changing.done();
        assert!(!serde_json::to_string(&changes).unwrap().contains("sesame"));
        assert_eq!(document["args"], json!(["--api-key", "sesame1"]));
        assert_eq!(document["env"], json!({"MY_TOKEN": "sesame2", "THREADS": "4", "GONE": null}));
    }

    #[test]
    fn the_version_is_read_however_it_is_written() {
        for (written, version) in
            [(json!({}), 1), (json!(null), 1), (json!("1.1"), 1), (json!(2), 2), (json!("?"), 2)]
        {
            let document = json!({"schema_version": written});
            let document =
                if written == json!({}) { Map::new() } else { document.as_object().unwrap().clone() };
            assert_eq!(format_version(&document), version, "{written}");
        }
    }

    #[test]
    fn a_strict_document_does_not_change() {
        let mut changing =
            changing(&json!({"schema_version": "2", "tags": ["A"], "model": {"threads": 4.0}}));
        changing.move_address(false);
        changing.make_strict();
        changing.raise_version();
        assert_eq!(changing.done().1, []);
    }
}
