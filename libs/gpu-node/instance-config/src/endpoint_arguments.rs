//! `--host` and `--port` in `args`.
//!
//! The address belongs in `server`: probes, gateway and port checks read it there. The older tool let an argument
//! override it, so its configs are understood the way they worked; in ours it is an error.

use serde_json::{Map, Value, json};

use crate::arguments::is_one_of;
use crate::finding::Finding;

const ENDPOINT: [(&str, &str); 2] = [("--host", "host"), ("--port", "port")];

/// Whether the older tool wrote this document. It recorded which parameters may change, which we never do; before
/// that it left the format's version out but wrote every section, which nobody does by hand.
pub(crate) fn is_older_document(document: &Map<String, Value>) -> bool {
    let present = |key: &str| document.get(key).is_some_and(|value| !value.is_null());
    let every_section = ["server", "gpu", "healthcheck", "restart_policy", "logs"].into_iter().all(present);
    present("parameter_mutability") || (!present("schema_version") && every_section)
}

pub(crate) fn refuse(document: &Map<String, Value>) -> Vec<Finding> {
    let Some(args) = document.get("args").and_then(Value::as_array) else { return Vec::new() };
    let written = |flag: &str| args.iter().filter_map(Value::as_str).any(|token| is_one_of(token, &[flag]));
    let endpoint = ENDPOINT.into_iter().filter(|(flag, _)| written(flag));
    let refusal = |(flag, key)| {
        Finding::error("args", format!("{flag} must not be in args"))
            .suggest(format!("set server.{key} instead"))
    };
    endpoint.map(refusal).collect()
}

/// Takes the address out of `args` and puts it where it belongs, with a warning for each.
pub(crate) fn move_to_server(document: &mut Map<String, Value>) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (flag, key) in ENDPOINT {
        let Some(args) = document.get_mut("args").and_then(Value::as_array_mut) else { continue };
        let Some(taken) = take(args, flag) else { continue };
        let server = document.entry("server").or_insert_with(|| json!({}));
        if server.is_null() {
            *server = json!({});
        }
        if let Some(server) = server.as_object_mut().filter(|_| !taken.is_null()) {
            server.insert(key.to_owned(), taken);
        }
        let message = format!("{flag} in args is read as server.{key}");
        findings.push(Finding::warning("args", message).suggest(format!("write it as server.{key}")));
    }
    findings
}

/// Removes every occurrence of a flag with its value. None when there is none, else the last value; null when that
/// is missing.
fn take(args: &mut Vec<Value>, flag: &str) -> Option<Value> {
    let mut last = None;
    let mut position = 0;
    while position < args.len() {
        let token = args[position].as_str().unwrap_or("");
        if !is_one_of(token, &[flag]) {
            position += 1;
            continue;
        }
        let joined = token.split_once('=').map(|(_, value)| json!(value));
        args.remove(position);
        let value = joined.or_else(|| (position < args.len()).then(|| args.remove(position)));
        last = Some(value.map_or(Value::Null, as_number_if_it_is_one));
    }
    last
}

/// An argument is always text; a port is a number.
fn as_number_if_it_is_one(value: Value) -> Value {
    match value.as_str().and_then(|text| text.parse::<u16>().ok()) {
        Some(number) => json!(number),
        None => value,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn document(value: &Value) -> Map<String, Value> {
        value.as_object().unwrap().clone()
    }

    #[test]
    fn an_older_config_keeps_the_address_it_really_had() {
        let mut older = document(&json!({
            "args": ["--port", "9001", "-v", "--host=0.0.0.0", "--port", 9002],
            "server": {"port": 8001},
        }));
        let findings = move_to_server(&mut older);
        assert_eq!(older["args"], json!(["-v"]));
        assert_eq!(older["server"], json!({"port": 9002, "host": "0.0.0.0"}));
        assert_eq!(findings.len(), 2);
    }

    #[test]
    fn a_flag_without_value_at_the_end_changes_nothing_else() {
        let mut older = document(&json!({"args": ["-v", "--port"], "server": null}));
        move_to_server(&mut older);
        assert_eq!((&older["args"], &older["server"]), (&json!(["-v"]), &json!({})));
    }

    #[test]
    fn in_a_config_of_ours_it_is_refused() {
        let ours = document(&json!({"schema_version": "2", "args": ["--port", "1"]}));
        assert!(!is_older_document(&ours));
        let findings = refuse(&ours);
        assert_eq!(findings.len(), 1);
        assert_eq!(findings[0].suggestion.as_deref(), Some("set server.port instead"));
    }
}
