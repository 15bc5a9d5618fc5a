//! What a template sees, as the engine's own kind of values: everything is asked for when it is named.

use std::sync::Arc;

use minijinja::value::{Enumerator, Object, Serde, Value as JinjaValue};

use crate::{Names, StepOutput};

/// The top of what a template sees.
pub(crate) fn everything(names: &Arc<dyn Names>) -> JinjaValue {
    JinjaValue::from_object(Root(Arc::clone(names)))
}

struct Root(Arc<dyn Names>);

/// One family of names below it.
struct OneFamily {
    names: Arc<dyn Names>,
    find: fn(&dyn Names, &str) -> Option<JinjaValue>,
}

impl std::fmt::Debug for Root {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("names")
    }
}

impl std::fmt::Debug for OneFamily {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("names")
    }
}

impl Object for Root {
    fn get_value(self: &Arc<Self>, key: &JinjaValue) -> Option<JinjaValue> {
        let family = |find| Some(JinjaValue::from_object(OneFamily { names: self.0.clone(), find }));
        match key.as_str()? {
            "inputs" => family(|names, name| names.input(name).map(from_json)),
            "steps" => family(|names, id| names.step(id).map(step_value)),
            "files" => family(|names, path| names.file(path).map(JinjaValue::from)),
            "secrets" => family(|names, name| names.secret(name).map(JinjaValue::from)),
            local => self.0.local(local).map(from_json),
        }
    }
}

impl Object for OneFamily {
    fn get_value(self: &Arc<Self>, key: &JinjaValue) -> Option<JinjaValue> {
        (self.find)(self.names.as_ref(), key.as_str()?)
    }
}

/// `steps.<id>`, of which `output` is all there is.
#[derive(Debug)]
struct StepValue(Arc<StepOutput>);

impl Object for StepValue {
    fn get_value(self: &Arc<Self>, key: &JinjaValue) -> Option<JinjaValue> {
        (key.as_str()? == "output").then(|| JinjaValue::from_object(OutputValue(Arc::clone(&self.0))))
    }

    fn enumerate(self: &Arc<Self>) -> Enumerator {
        Enumerator::Str(&["output"])
    }
}

fn step_value(output: Arc<StepOutput>) -> JinjaValue {
    JinjaValue::from_object(StepValue(output))
}

/// `output`: the fields of its JSON, and `text`, `json`, `code`, which go before fields of those names.
#[derive(Debug)]
struct OutputValue(Arc<StepOutput>);

impl Object for OutputValue {
    fn get_value(self: &Arc<Self>, key: &JinjaValue) -> Option<JinjaValue> {
        match key.as_str()? {
            "text" => Some(JinjaValue::from(self.0.text.clone())),
            "code" => Some(JinjaValue::from(self.0.code())),
            "json" => self.0.json.as_ref().map(from_json),
            field => self.0.json.as_ref()?.get(field).map(from_json),
        }
    }

    fn enumerate(self: &Arc<Self>) -> Enumerator {
        let own = ["text", "code", "json"];
        let fields = self.0.json.as_ref().and_then(serde_json::Value::as_object).into_iter().flatten();
        let mut keys: Vec<_> = fields
            .map(|(name, _)| name.as_str())
            .filter(|name| !own.contains(name))
            .map(JinjaValue::from)
            .collect();
        let own = own.into_iter().filter(|name| *name != "json" || self.0.json.is_some());
        keys.extend(own.map(JinjaValue::from));
        Enumerator::Values(keys)
    }

    /// Where the whole output stands in a text, its text is meant.
    fn render(self: &Arc<Self>, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0.text)
    }
}

fn from_json(value: impl serde::Serialize) -> JinjaValue {
    JinjaValue::from(Serde(value))
}
