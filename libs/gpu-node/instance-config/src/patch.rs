//! Changes and new configs as documents: RFC 7396 over the table of fields.

use orch_core::{ExitCode, Failure, HomeLayout, InstanceName, UnixMillis};
use serde_json::{Map, Value};

use crate::create::unsaved;
use crate::endpoint_arguments;
use crate::field::{FIELDS, Field};
use crate::loaded::{changeable_field, known_field, put, write_document};
use crate::{Backend, Catalog, LoadedInstance, NewInstance, PortChoice};

impl LoadedInstance {
    /// Applies a merge patch: what it names is replaced, `null` takes a field out, everything else stays. Unknown
    /// fields and values of another type are refused, and so is a result that is not valid. Gives the fields that were
    /// named. The file is untouched until [`crate::save`].
    pub fn merge(&mut self, patch: &Map<String, Value>) -> Result<Vec<String>, Failure> {
        let mut document = self.document.0.clone();
        if endpoint_arguments::is_older_document(&document) || self.in_older_folder() {
            // Otherwise the address in `args` would overrule what is being set.
            endpoint_arguments::move_to_server(&mut document);
        }
        let mut named = Vec::new();
        for (key, value) in patch {
            match value {
                Value::Object(inside) if is_section(key) => {
                    for (key, value) in inside.iter().map(|(name, value)| (format!("{key}.{name}"), value)) {
                        merge_field(&mut document, &key, value)?;
                        named.push(key);
                    }
                }
                Value::Null if is_section(key) => {
                    document.shift_remove(key);
                    named.push(key.clone());
                }
                value => {
                    merge_field(&mut document, key, value)?;
                    named.push(key.clone());
                }
            }
        }
        self.take(document)?;
        Ok(named)
    }
}

/// Writes the config of a new instance from a document: `name` and `model.path` are needed, a port that is not given is
/// the first free one. Refused are a name that exists (14), a port that another config claims and whatever
/// [`LoadedInstance::merge`] refuses (11, 2).
pub fn create_from(
    home: &HomeLayout,
    catalog: &Catalog,
    document: &Map<String, Value>,
    is_free: &dyn Fn(u16) -> bool,
    now: UnixMillis,
) -> Result<LoadedInstance, Failure> {
    let mut rest = document.clone();
    let new = NewInstance {
        name: name_in(&mut rest)?,
        model: text_in(document, "model", "path")?,
        port: port_in(document)?,
        backend: Backend::Cpu,
        device: None,
        layers: None,
        context: None,
        threads: None,
        template: None,
        force: false,
    };
    let mut instance = unsaved(home, catalog, &new, is_free, now)?;
    instance.merge(&rest)?;
    write_document(&instance.path, &instance.document.0)?;
    Ok(instance)
}

fn name_in(document: &mut Map<String, Value>) -> Result<InstanceName, Failure> {
    let missing = || Failure::new(ExitCode::ConfigInvalid, "name: a new instance needs a name");
    let name = document.shift_remove("name").ok_or_else(missing)?;
    let text = name.as_str().ok_or_else(|| Failure::new(ExitCode::ConfigInvalid, "name: must be text"))?;
    InstanceName::new(text)
        .map_err(|error| Failure::new(ExitCode::ConfigInvalid, format!("name: {text:?}: {error}")))
}

fn text_in(document: &Map<String, Value>, section: &str, key: &str) -> Result<String, Failure> {
    let value = document.get(section).and_then(|section| section.get(key));
    let text = value.and_then(Value::as_str).filter(|text| !text.trim().is_empty());
    let missing = || {
        Failure::new(ExitCode::ConfigInvalid, format!("{section}.{key}: a new instance needs one, as text"))
    };
    text.map(str::to_owned).ok_or_else(missing)
}

fn port_in(document: &Map<String, Value>) -> Result<PortChoice, Failure> {
    let Some(port) = document.get("server").and_then(|server| server.get("port")) else {
        return Ok(PortChoice::Auto);
    };
    let port = port.as_u64().and_then(|port| u16::try_from(port).ok());
    port.map(PortChoice::Fixed)
        .ok_or_else(|| Failure::new(ExitCode::ConfigInvalid, "server.port: must be a port number"))
}

/// Refuses a port that a change takes from another config.
pub fn refuse_claimed_port(
    catalog: &Catalog,
    before: &LoadedInstance,
    after: &LoadedInstance,
) -> Result<(), Failure> {
    let port = after.config.server.port;
    let claimant = catalog.claiming(port).find(|claim| claim.path != before.path);
    match claimant {
        Some(claim) if port != before.config.server.port => {
            let message = format!("server.port: port {port} is claimed by instance {}", claim.name);
            Err(Failure::new(ExitCode::ConfigInvalid, message)
                .hint("choose another port, or 0 for a free one at each start"))
        }
        _ => Ok(()),
    }
}

fn is_section(key: &str) -> bool {
    FIELDS.iter().any(|field| field.parts().0 == Some(key))
}

fn merge_field(document: &mut Map<String, Value>, path: &str, value: &Value) -> Result<(), Failure> {
    let field = changeable_field(path).map_err(|failure| Failure {
        // In a document a field that does not exist is a mistake in the config, not on a command line.
        exit: ExitCode::ConfigInvalid,
        ..failure
    })?;
    if value.is_null() {
        take_out(document, field);
        return Ok(());
    }
    let value = match (value, held(document, field)) {
        // An object within a field, such as `env`, is merged as well.
        (Value::Object(changes), held) if field.path == "env" => {
            let mut variables = held.and_then(Value::as_object).cloned().unwrap_or_default();
            for (name, value) in changes {
                match value {
                    Value::Null => drop(variables.shift_remove(name)),
                    value => drop(variables.insert(name.clone(), value.clone())),
                }
            }
            Value::Object(variables)
        }
        (value, _) => value.clone(),
    };
    let read = field.kind.read(&value).map_err(|refusal| invalid(field, &refusal))?;
    if let Some(note) = read.notes.first() {
        return Err(invalid(field, note));
    }
    put(document, known_field(path)?, read.value);
    Ok(())
}

fn invalid(field: &Field, why: &str) -> Failure {
    Failure::new(ExitCode::ConfigInvalid, format!("{}: {why}", field.path))
}

fn held<'d>(document: &'d Map<String, Value>, field: &Field) -> Option<&'d Value> {
    match field.parts() {
        (None, key) => document.get(key),
        (Some(section), key) => document.get(section)?.get(key),
    }
}

fn take_out(document: &mut Map<String, Value>, field: &Field) {
    let (section, key) = field.parts();
    match section {
        None => drop(document.shift_remove(key)),
        Some(section) => {
            if let Some(section) = document.get_mut(section).and_then(Value::as_object_mut) {
                section.shift_remove(key);
            }
        }
    }
}
