//! A JSON object to a config, field by field along the table, so that one bad field hides no other.

use std::borrow::Cow;

use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};
use uuid::Uuid;

use crate::endpoint_arguments;
use crate::field::{FIELDS, Field, Preset};
use crate::finding::{Finding, Severity};
use crate::nearest::nearest;
use crate::{InstanceConfig, Kind};

type Document = Map<String, Value>;

/// What a document says: a config unless a finding is an error.
pub(crate) struct Reading {
    pub config: Option<InstanceConfig>,
    pub findings: Vec<Finding>,
}

/// Reads a document. `older` tells that its folder is one of the older tool's: such a config may hold its address
/// in `args`.
pub(crate) fn read(document: &Document, older: bool) -> Reading {
    let mut findings = Vec::new();
    let mut document = Cow::Borrowed(document);
    if older || endpoint_arguments::is_older_document(&document) {
        findings.extend(endpoint_arguments::move_to_server(document.to_mut()));
    } else {
        findings.extend(endpoint_arguments::refuse(&document));
    }
    let mut effective = fill(&document, &mut findings);
    check_across_fields(&effective, &mut findings);
    findings.extend(unknown_keys(&document));
    let valid = findings.iter().all(|finding| finding.severity != Severity::Error);
    if !valid {
        return Reading { config: None, findings };
    }
    add_computed(&mut effective);
    match serde_path_to_error::deserialize(Value::Object(effective)) {
        Ok(config) => Reading { config: Some(config), findings },
        // The table and the types disagree: a fault of ours, told rather than panicked over.
        Err(error) => {
            let path = error.path().to_string();
            findings.push(Finding::error(&path, "has a value that this version cannot hold"));
            Reading { config: None, findings }
        }
    }
}

/// Every field of the table in its strict form, defaults included.
fn fill(document: &Document, findings: &mut Vec<Finding>) -> Document {
    let mut effective = Document::new();
    let broken_sections = check_sections(document, findings);
    for field in FIELDS.iter().filter(|field| !matches!(field.kind, Kind::Anything)) {
        if field.parts().0.is_some_and(|section| broken_sections.contains(&section)) {
            continue;
        }
        let value = match written(document, field) {
            Some(value) => read_field(field, value, findings),
            None => default(field, findings),
        };
        put(&mut effective, field, value.unwrap_or(Value::Null));
    }
    effective
}

fn check_sections<'a>(document: &'a Document, findings: &mut Vec<Finding>) -> Vec<&'a str> {
    let mut broken = Vec::new();
    for (key, value) in document {
        let is_section = FIELDS.iter().any(|field| field.parts().0 == Some(key));
        if is_section && !value.is_object() && !value.is_null() {
            findings.push(Finding::error(key, "must be a map"));
            broken.push(key.as_str());
        }
    }
    broken
}

/// What the document holds for a field. Null is absent, except where null is a value of its own.
pub(crate) fn written<'a>(document: &'a Document, field: &Field) -> Option<&'a Value> {
    let (section, key) = field.parts();
    let holder = match section {
        Some(section) => document.get(section)?.as_object()?,
        None => document,
    };
    holder.get(key).filter(|value| !value.is_null() || field.kind.null_is_a_value())
}

fn read_field(field: &Field, value: &Value, findings: &mut Vec<Finding>) -> Option<Value> {
    match field.kind.read(value) {
        Ok(read) => {
            let mut notes = read.notes;
            notes.dedup();
            findings.extend(notes.into_iter().map(|note| Finding::warning(field.path, note)));
            Some(read.value)
        }
        Err(refusal) => {
            findings.push(Finding::error(field.path, refusal));
            None
        }
    }
}

fn default(field: &Field, findings: &mut Vec<Finding>) -> Option<Value> {
    if matches!(field.preset, Preset::Required) {
        findings.push(Finding::error(field.path, "is required"));
    }
    field.default_value()
}

fn put(effective: &mut Document, field: &Field, value: Value) {
    match field.parts() {
        (Some(section), key) => {
            let section = effective.entry(section).or_insert_with(|| json!({}));
            if let Some(section) = section.as_object_mut() {
                section.insert(key.to_owned(), value);
            }
        }
        (None, key) => {
            effective.insert(key.to_owned(), value);
        }
    }
}

/// The version of the format that this crate writes.
pub(crate) const SCHEMA_VERSION: u32 = 2;

fn check_across_fields(effective: &Document, findings: &mut Vec<Finding>) {
    let version =
        effective.get("schema_version").and_then(Value::as_str).and_then(|text| text.parse::<u32>().ok());
    if version.is_some_and(|version| version > SCHEMA_VERSION) {
        findings.push(Finding::warning(
            "schema_version",
            "is newer than this version knows; some of it may be ignored",
        ));
    }
    let Some(healthcheck) = effective.get("healthcheck") else { return };
    let script = healthcheck["custom_script"].as_str().unwrap_or("");
    if healthcheck["type"] == "custom" && script.trim().is_empty() {
        findings
            .push(Finding::error("healthcheck.custom_script", "is required when healthcheck.type is custom"));
    }
}

/// Values that depend on others: the name shown, and an identity for files that bring none.
fn add_computed(effective: &mut Document) {
    let name = effective["name"].as_str().unwrap_or_default().to_owned();
    if effective["display_name"].as_str().is_none_or(|shown| shown.trim().is_empty()) {
        effective.insert("display_name".to_owned(), json!(name));
    }
    if effective["instance_uid"].is_null() {
        effective.insert("instance_uid".to_owned(), json!(stand_in_uid(&name).to_string()));
    }
}

/// Reading never writes, so a config without an identity needs one that is the same at every reading.
fn stand_in_uid(name: &str) -> Uuid {
    let digest = Sha256::digest(format!("instance without uid: {name}"));
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&digest[..16]);
    uuid::Builder::from_custom_bytes(bytes).into_uuid()
}

fn unknown_keys(document: &Document) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (key, value) in document {
        let inside: Vec<&str> = keys_of(Some(key)).collect();
        if !inside.is_empty() {
            let keys = value.as_object().into_iter().flat_map(Map::keys);
            findings.extend(
                keys.filter(|inner| !inside.contains(&inner.as_str())).map(|inner| unknown(Some(key), inner)),
            );
        } else if !keys_of(None).any(|known| known == key) {
            findings.push(unknown(None, key));
        }
    }
    findings
}

fn keys_of(section: Option<&str>) -> impl Iterator<Item = &'static str> {
    FIELDS.iter().filter(move |field| field.parts().0 == section).map(|field| field.parts().1)
}

fn unknown(section: Option<&str>, key: &str) -> Finding {
    let finding = Finding::warning(&join(section, key), "is not a known field; it is kept and ignored");
    match meant(section, key) {
        Some(meant) => finding.suggest(format!("did you mean {meant}?")),
        None => finding,
    }
}

/// A neighbour with a similar name, the same name in another section, or a section of a similar name.
fn meant(section: Option<&str>, key: &str) -> Option<String> {
    let neighbour = nearest(key, keys_of(section)).map(|near| join(section, near));
    let elsewhere = || FIELDS.iter().find(|field| field.parts().1 == key).map(|field| field.path.to_owned());
    let sections = || nearest(key, FIELDS.iter().filter_map(|field| field.parts().0)).map(str::to_owned);
    neighbour.or_else(elsewhere).or_else(|| if section.is_none() { sections() } else { None })
}

fn join(section: Option<&str>, key: &str) -> String {
    section.map_or_else(|| key.to_owned(), |section| format!("{section}.{key}"))
}

/// The field that a mistyped path most likely meant.
pub(crate) fn meant_path(path: &str) -> Option<String> {
    match path.split_once('.') {
        Some((section, key)) if keys_of(Some(section)).next().is_some() => meant(Some(section), key),
        Some((_, key)) => meant(None, key),
        None => meant(None, path),
    }
}
