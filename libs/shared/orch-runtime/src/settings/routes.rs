//! `[routes.<name>]`: names that clients may ask for, where these lead, and what of a request is changed on the way.

use std::collections::BTreeMap;

use serde_json::{Map, Value as Json};
use toml::{Table, Value};

use super::keys::ROUTE_KEYS;
use super::layers::unknown;
use super::providers::Provider;

/// Longer names and chains are mistakes.
const LONGEST_NAME: usize = 128;
const LONGEST_CHAIN: usize = 16;

/// One `[routes.<name>]`.
#[derive(Clone, Debug, PartialEq)]
pub struct RouteSetting {
    /// Where a request may go, tried in this order: names of instances, aliases, or `provider/model`. Never empty.
    pub to: Vec<String>,
    /// Fields that every request gets, whatever it says itself; objects are merged as by RFC 7396.
    pub set: Map<String, Json>,
    /// Fields for requests that do not say anything else.
    pub default: Map<String, Json>,
    /// Fields that are taken out of every request.
    pub strip: Vec<String>,
}

pub(super) fn read(
    file: &Table,
    providers: &BTreeMap<String, Provider>,
    problems: &mut Vec<String>,
) -> BTreeMap<String, RouteSetting> {
    let entries = match file.get("routes") {
        None => return BTreeMap::new(),
        Some(Value::Table(entries)) => entries,
        Some(_) => {
            problems.push("routes has to hold tables, written [routes.name]".to_owned());
            return BTreeMap::new();
        }
    };
    let mut routes = BTreeMap::new();
    for (name, entry) in entries {
        match route(name, entry, providers) {
            Ok(route) => drop(routes.insert(name.clone(), route)),
            Err(problem) => problems.push(problem),
        }
    }
    routes
}

fn route(name: &str, entry: &Value, providers: &BTreeMap<String, Provider>) -> Result<RouteSetting, String> {
    let path = format!("routes.{}", name.escape_debug());
    if name.is_empty() || name.len() > LONGEST_NAME || name.chars().any(char::is_control) {
        return Err(format!("{path} has to be a name of up to {LONGEST_NAME} visible characters"));
    }
    let entry = entry.as_table().ok_or_else(|| format!("{path} has to be a table"))?;
    let known = || ROUTE_KEYS.iter().map(|(name, _)| *name);
    if let Some(name) = entry.keys().find(|name| !known().any(|key| key == *name)) {
        return Err(unknown(name, &format!("{path}."), known()));
    }
    let route = RouteSetting {
        to: destinations(name, entry, &path, providers)?,
        set: fields(entry, &path, "set")?,
        default: fields(entry, &path, "default")?,
        strip: texts(entry, &path, "strip")?.unwrap_or_default(),
    };
    let named = route.set.keys().chain(route.default.keys()).chain(&route.strip);
    match named.into_iter().find(|field| matches!(field.as_str(), "model" | "stream")) {
        Some(field) => Err(format!("{path} cannot change `{field}`: the route and the caller decide it")),
        None => Ok(route),
    }
}

/// Without a chain a route leads to what is called as it is: it only changes parameters.
fn destinations(
    name: &str,
    entry: &Table,
    path: &str,
    providers: &BTreeMap<String, Provider>,
) -> Result<Vec<String>, String> {
    let Some(to) = texts(entry, path, "to")? else { return Ok(vec![name.to_owned()]) };
    if to.is_empty() || to.len() > LONGEST_CHAIN {
        return Err(format!(
            "{path}.to has to name 1 to {LONGEST_CHAIN} instances, aliases or provider/model"
        ));
    }
    for (provider, model) in to.iter().filter_map(|word| word.split_once('/')) {
        let allowed = providers.get(provider).map(|it| it.models.as_slice()).unwrap_or_default();
        if !allowed.is_empty() && !allowed.iter().any(|it| it == model) {
            return Err(format!("{path}.to names {model}, which is not among providers.{provider}.models"));
        }
    }
    Ok(to)
}

fn texts(entry: &Table, path: &str, name: &str) -> Result<Option<Vec<String>>, String> {
    let problem = || format!("{path}.{name} has to be a list of texts, none of them empty");
    let list = match entry.get(name) {
        None => return Ok(None),
        Some(Value::String(one)) => vec![one.trim().to_owned()],
        Some(Value::Array(list)) => {
            let texts = list.iter().map(|it| it.as_str().map(|text| text.trim().to_owned()));
            texts.collect::<Option<_>>().ok_or_else(problem)?
        }
        Some(_) => return Err(problem()),
    };
    if list.iter().any(String::is_empty) { Err(problem()) } else { Ok(Some(list)) }
}

fn fields(entry: &Table, path: &str, name: &str) -> Result<Map<String, Json>, String> {
    let Some(value) = entry.get(name) else { return Ok(Map::new()) };
    let table = value.as_table().ok_or_else(|| format!("{path}.{name} has to be a table of fields"))?;
    table.iter().map(|(key, value)| Ok((key.clone(), json(value, path, name)?))).collect()
}

fn json(value: &Value, path: &str, name: &str) -> Result<Json, String> {
    Ok(match value {
        Value::String(text) => text.clone().into(),
        Value::Integer(number) => (*number).into(),
        Value::Float(number) => serde_json::Number::from_f64(*number)
            .map(Json::Number)
            .ok_or_else(|| format!("{path}.{name} holds a number that JSON cannot say"))?,
        Value::Boolean(flag) => (*flag).into(),
        Value::Array(list) => {
            Json::Array(list.iter().map(|it| json(it, path, name)).collect::<Result<_, _>>()?)
        }
        Value::Table(table) => Json::Object(
            table
                .iter()
                .map(|(key, value)| Ok((key.clone(), json(value, path, name)?)))
                .collect::<Result<_, String>>()?,
        ),
        Value::Datetime(_) => return Err(format!("{path}.{name} holds a time; put it in quotes")),
    })
}
