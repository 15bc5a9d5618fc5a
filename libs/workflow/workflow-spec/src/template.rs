//! Text made from values: minijinja, where an unknown name is an error and the work is bounded.

use std::sync::{Arc, LazyLock};

use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Object, Serde, Value as JinjaValue};
use minijinja::{Environment, Expression, UndefinedBehavior};
use serde_json::{Map, Value};

use crate::references::{self, Found, Reference};
use crate::{Names, StepOutput};

/// Steps of work that one rendering may cost: far above what a prompt needs, far below what a reader would wait.
const FUEL: u64 = 5_000_000;

/// The name of the one template in its environment. It has no ending, so that nothing is escaped.
const NAME: &str = "text";

static ENVIRONMENT: LazyLock<Environment<'static>> = LazyLock::new(|| {
    let mut environment = Environment::new();
    environment.set_undefined_behavior(UndefinedBehavior::Strict);
    environment.set_fuel(Some(FUEL));
    environment.set_debug(false);
    let syntax = SyntaxConfig::builder().keep_trailing_newline(true).build();
    environment.set_syntax(syntax.expect("the usual marks do not contradict each other"));
    environment
});

/// A text with `{{ … }}` in it, known to compile.
#[derive(Clone)]
pub struct Template {
    source: Arc<str>,
    form: Form,
}

/// How a template becomes text.
#[derive(Clone)]
enum Form {
    /// It is its own text.
    Literal,
    /// A compiled template in an environment of its own, which shares everything else with all others.
    Compiled(Arc<Environment<'static>>),
    /// Nothing but one expression, whose value is wanted and not its text.
    Value(Arc<Expression<'static, 'static>>),
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

impl std::fmt::Debug for Template {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Template({:?})", self.source)
    }
}

impl PartialEq for Template {
    fn eq(&self, other: &Self) -> bool {
        self.source == other.source
    }
}

impl Eq for Template {}

impl Template {
    pub fn compile(source: &str) -> Result<Self, TemplateError> {
        if is_literal(source) {
            return Ok(Self { source: source.into(), form: Form::Literal });
        }
        let mut environment = ENVIRONMENT.clone();
        environment.add_template_owned(NAME, source.to_owned())?;
        Ok(Self { source: source.into(), form: Form::Compiled(Arc::new(environment)) })
    }

    /// A template of which the value counts, where it is nothing but one expression.
    fn compile_value(source: &str) -> Result<Self, TemplateError> {
        let Some(expression) = sole_expression(source) else { return Self::compile(source) };
        let compiled = ENVIRONMENT.compile_expression_owned(expression.to_owned())?;
        Ok(Self { source: source.into(), form: Form::Value(Arc::new(compiled)) })
    }

    pub fn source(&self) -> &str {
        &self.source
    }

    /// Whether it names nothing and is its own text.
    pub fn is_literal(&self) -> bool {
        matches!(self.form, Form::Literal)
    }

    /// What it names, with the place in its text. Names that it makes itself are not among them.
    pub(crate) fn references(&self) -> Vec<Found> {
        if self.is_literal() {
            return Vec::new();
        }
        let mut found = references::in_template(&self.source);
        if found.iter().any(|found| matches!(found.reference, Reference::Local(_))) {
            let unknown = self.names_from_outside();
            found.retain(|found| match &found.reference {
                Reference::Local(name) => unknown.contains(name),
                _ => true,
            });
        }
        found
    }

    fn names_from_outside(&self) -> std::collections::HashSet<String> {
        let mut names = match &self.form {
            Form::Literal => std::collections::HashSet::new(),
            Form::Compiled(environment) => environment
                .get_template(NAME)
                .map(|template| template.undeclared_variables(false))
                .unwrap_or_default(),
            Form::Value(expression) => expression.undeclared_variables(false),
        };
        for (global, _) in ENVIRONMENT.globals() {
            names.remove(global);
        }
        names
    }

    /// The text, with everything that it names asked of `names`.
    pub fn render(&self, names: &Arc<dyn Names>) -> Result<String, TemplateError> {
        match &self.form {
            Form::Literal => Ok(self.source.to_string()),
            Form::Compiled(environment) => {
                let template = environment.get_template(NAME)?;
                Ok(template.render(JinjaValue::from_object(Root(names.clone())))?)
            }
            Form::Value(expression) => {
                Ok(expression.eval(JinjaValue::from_object(Root(names.clone())))?.to_string())
            }
        }
    }

    /// The value of a sole expression, else the text.
    fn render_value(&self, names: &Arc<dyn Names>) -> Result<Value, TemplateError> {
        let Form::Value(expression) = &self.form else { return Ok(Value::String(self.render(names)?)) };
        let value = expression.eval(JinjaValue::from_object(Root(names.clone())))?;
        if value.is_undefined() {
            let message = format!("undefined value: {} names nothing that is known here", self.source.trim());
            return Err(TemplateError { message, line: Some(1) });
        }
        serde_json::to_value(&value).map_err(|error| TemplateError { message: error.to_string(), line: None })
    }
}

fn is_literal(source: &str) -> bool {
    !["{{", "{%", "{#"].iter().any(|opening| source.contains(opening))
}

/// The expression, where the text is nothing but one `{{ expression }}`.
fn sole_expression(source: &str) -> Option<&str> {
    let inner = source.trim().strip_prefix("{{")?.strip_suffix("}}")?;
    let inner = inner.strip_prefix('-').unwrap_or(inner);
    let inner = inner.strip_suffix('-').unwrap_or(inner);
    let other = ["{{", "}}", "{%", "{#"].iter().any(|mark| inner.contains(mark));
    (!other).then_some(inner)
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
            Value::String(text) => Self::of_text(text)?,
            Value::Array(items) => Self::List(items.iter().map(Self::compile).collect::<Result<_, _>>()?),
            Value::Object(fields) => {
                let field = |(name, value): (&String, &Value)| Ok((name.clone(), Self::compile(value)?));
                Self::Object(fields.iter().map(field).collect::<Result<_, TemplateError>>()?)
            }
            other => Self::Literal(other.clone()),
        })
    }

    pub(crate) fn of_text(text: &str) -> Result<Self, TemplateError> {
        Ok(Self::Text(Template::compile_value(text)?))
    }

    /// The value, where no template in it has anything to fill in.
    pub(crate) fn as_literal(&self) -> Option<Value> {
        Some(match self {
            Self::Literal(value) => value.clone(),
            Self::Text(template) if template.is_literal() => Value::String(template.source().to_owned()),
            Self::Text(_) => return None,
            Self::List(items) => Value::Array(items.iter().map(Self::as_literal).collect::<Option<_>>()?),
            Self::Object(fields) => {
                let field = |(name, value): &(String, Self)| Some((name.clone(), value.as_literal()?));
                Value::Object(fields.iter().map(field).collect::<Option<_>>()?)
            }
        })
    }

    pub fn render(&self, names: &Arc<dyn Names>) -> Result<Value, TemplateError> {
        Ok(match self {
            Self::Literal(value) => value.clone(),
            Self::Text(template) => template.render_value(names)?,
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
