//! Typed fields of a request, with an error that names the field at fault.

use orch_core::ErrorCode;
use serde_json::{Map, Value};

use crate::Problem;

pub(super) type Object = Map<String, Value>;

/// The object that a request body is.
pub(super) fn object(body: &[u8]) -> Result<Object, Problem> {
    let body = body.strip_prefix(b"\xef\xbb\xbf").unwrap_or(body);
    match serde_json::from_slice(body) {
        Ok(Value::Object(object)) => Ok(object),
        Ok(_) => Err(invalid("the body is not a JSON object")),
        Err(error) => Err(invalid(format!("the body is not valid JSON: {error}"))),
    }
}

pub(super) fn invalid(message: impl Into<String>) -> Problem {
    Problem::new(ErrorCode::InvalidParams, message)
}

/// A field holds something else than `wanted`.
pub(super) fn wrong(param: &'static str, wanted: &str) -> Problem {
    invalid(format!("`{param}` must be {wanted}")).param(param)
}

/// A field as it stands; `null` is the same as absent.
pub(super) fn take(object: &mut Object, param: &'static str) -> Option<Value> {
    object.remove(param).filter(|value| !value.is_null())
}

pub(super) fn take_text(object: &mut Object, param: &'static str) -> Result<Option<String>, Problem> {
    match take(object, param) {
        None => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(_) => Err(wrong(param, "a string")),
    }
}

pub(super) fn take_bool(object: &mut Object, param: &'static str) -> Result<Option<bool>, Problem> {
    match take(object, param) {
        None => Ok(None),
        Some(Value::Bool(flag)) => Ok(Some(flag)),
        Some(_) => Err(wrong(param, "true or false")),
    }
}

pub(super) fn take_list(object: &mut Object, param: &'static str) -> Result<Option<Vec<Value>>, Problem> {
    match take(object, param) {
        None => Ok(None),
        Some(Value::Array(items)) => Ok(Some(items)),
        Some(_) => Err(wrong(param, "a list")),
    }
}

pub(super) fn take_object(object: &mut Object, param: &'static str) -> Result<Option<Object>, Problem> {
    match take(object, param) {
        None => Ok(None),
        Some(Value::Object(inner)) => Ok(Some(inner)),
        Some(_) => Err(wrong(param, "an object")),
    }
}

/// An item of a list that has to be an object.
pub(super) fn item(value: Value, param: &'static str) -> Result<Object, Problem> {
    match value {
        Value::Object(object) => Ok(object),
        _ => Err(wrong(param, "a list of objects")),
    }
}
