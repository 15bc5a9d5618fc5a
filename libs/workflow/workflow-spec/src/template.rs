//! Text made from values: minijinja, where an unknown name is an error and the work is bounded.

use std::sync::{Arc, LazyLock};

use minijinja::value::{Object, Serde, Value as JinjaValue};
use minijinja::{Environment, UndefinedBehavior};
use serde_json::{Map, Value};

use crate::{Names, StepOutput};

/// Steps of work that one rendering may cost: far above what a prompt needs, far below what a reader would wait.
const FUEL: u64 = 5_000_000;

static ENVIRONMENT: LazyLock<Environment<'static>> = LazyLock::new(|| {
    let mut environment = Environment::new();
    environment.set_undefined_behavior(UndefinedBehavior::Strict);
    environment.set_fuel(Some(FUEL));
    environment
});

/// A text with `{{ … }}` in it, known to compile.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template {
    source: Arc<str>,
    literal: bool,
}

/// Why a template gives no text.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{message}")]
pub struct TemplateError {
    pub message: String,
    /// The line inside the template, from 1, where it is known.
    pub line: Option<usize>,
}

impl From<minijinja::Error> for TemplateError {
    fn from(error: minijinja::Error) -> Self {
        let message = match error.detail() {
            Some(detail) => format!("{}: {detail}", error.kind()),
            None => error.kind().to_string(),
        };
        Self { message, line: error.line() }
    }
}

impl Template {
    pub fn compile(source: &str) -> Result<Self, TemplateError> {
        ENVIRONMENT.template_from_str(source)?;
        let literal = !["{{", "{%", "{#"].iter().any(|opening| source.contains(opening));
        Ok(Self { source: source.into(), literal })
    }

    pub fn source(&self) -> &str {
        &self.source
    }

    /// The text, with everything that it names asked of `names`.
    pub fn render(&self, names: &Arc<dyn Names>) -> Result<String, TemplateError> {
        if self.literal {
            return Ok(self.source.to_string());
        }
        let template = ENVIRONMENT.template_from_str(&self.source)?;
        Ok(template.render(JinjaValue::from_object(Root(names.clone())))?)
    }

    /// The expression, where the text is nothing but one `{{ expression }}`.
    fn sole_expression(&self) -> Option<&str> {
        let inner = self.source.trim().strip_prefix("{{")?.strip_suffix("}}")?;
        let other = inner.contains("{{") || inner.contains("}}") || inner.contains("{%");
        (!other).then_some(inner)
    }
}

/// A JSON value whose strings are templates. A string that is nothing but one `{{ … }}` becomes the value itself,
/// not its text.
#[derive(Clone, Debug, PartialEq)]
pub enum ValueTemplate {
    Literal(Value),
    Text(Template),
    List(Vec<ValueTemplate>),
    Object(Vec<(String, ValueTemplate)>),
}

impl ValueTemplate {
    pub fn compile(value: &Value) -> Result<Self, TemplateError> {
        Ok(match value {
            Value::String(text) => Self::Text(Template::compile(text)?),
            Value::Array(items) => Self::List(items.iter().map(Self::compile).collect::<Result<_, _>>()?),
            Value::Object(fields) => {
                let field = |(name, value): (&String, &Value)| Ok((name.clone(), Self::compile(value)?));
                Self::Object(fields.iter().map(field).collect::<Result<_, TemplateError>>()?)
            }
            other => Self::Literal(other.clone()),
        })
    }

    pub fn render(&self, names: &Arc<dyn Names>) -> Result<Value, TemplateError> {
        Ok(match self {
            Self::Literal(value) => value.clone(),
            Self::Text(template) => render_text(template, names)?,
            Self::List(items) => {
                Value::Array(items.iter().map(|item| item.render(names)).collect::<Result<_, _>>()?)
            }
            Self::Object(fields) => {
                let mut object = Map::new();
                for (name, value) in fields {
                    object.insert(name.clone(), value.render(names)?);
                }
                Value::Object(object)
            }
        })
    }

    /// Every template in it, in order.
    pub fn each_template(&self, look: &mut dyn FnMut(&Template)) {
        match self {
            Self::Literal(_) => {}
            Self::Text(template) => look(template),
            Self::List(items) => items.iter().for_each(|item| item.each_template(look)),
            Self::Object(fields) => fields.iter().for_each(|(_, value)| value.each_template(look)),
        }
    }
}

fn render_text(template: &Template, names: &Arc<dyn Names>) -> Result<Value, TemplateError> {
    let Some(expression) = template.sole_expression() else {
        return Ok(Value::String(template.render(names)?));
    };
    let compiled = ENVIRONMENT.compile_expression(expression)?;
    let value = compiled.eval(JinjaValue::from_object(Root(names.clone())))?;
    serde_json::to_value(&value).map_err(|error| TemplateError { message: error.to_string(), line: None })
}

/// The top of what a template sees.
struct Root(Arc<dyn Names>);

/// One family of names below it.
struct Family {
    names: Arc<dyn Names>,
    find: fn(&dyn Names, &str) -> Option<JinjaValue>,
}

impl std::fmt::Debug for Root {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("names")
    }
}

impl std::fmt::Debug for Family {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("names")
    }
}

impl Object for Root {
    fn get_value(self: &Arc<Self>, key: &JinjaValue) -> Option<JinjaValue> {
        let family = |find| Some(JinjaValue::from_object(Family { names: self.0.clone(), find }));
        match key.as_str()? {
            "inputs" => family(|names, name| names.input(name).map(from_json)),
            "steps" => family(|names, id| names.step(id).map(step_value)),
            "files" => family(|names, path| names.file(path).map(JinjaValue::from)),
            "secrets" => family(|names, name| names.secret(name).map(JinjaValue::from)),
            local => self.0.local(local).map(from_json),
        }
    }
}

impl Object for Family {
    fn get_value(self: &Arc<Self>, key: &JinjaValue) -> Option<JinjaValue> {
        (self.find)(self.names.as_ref(), key.as_str()?)
    }
}

/// `steps.<id>`, of which `output` is all there is.
fn step_value(output: Arc<StepOutput>) -> JinjaValue {
    JinjaValue::from_iter([("output", JinjaValue::from_object(OutputValue(output)))])
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
}

fn from_json(value: impl serde::Serialize) -> JinjaValue {
    JinjaValue::from(Serde(value))
}
