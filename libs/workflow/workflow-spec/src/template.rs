//! Text made from values: minijinja, where an unknown name is an error and the work is bounded.

use std::collections::HashSet;
use std::sync::{Arc, LazyLock};

use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Kwargs, Value as JinjaValue};
use minijinja::{Environment, Expression, UndefinedBehavior};
use serde::Serialize;
use serde_json::{Map, Value};

use crate::Names;
use crate::references::{self, Found, Reference};
use crate::seen::everything;
use crate::ways::{Plain, Way};

/// Steps of work that one rendering may cost: far above what a prompt needs, far below what a reader would wait.
const FUEL: u64 = 5_000_000;

/// The name of the one template in its environment. It has no ending, so that nothing is escaped.
const NAME: &str = "text";

static ENVIRONMENT: LazyLock<Environment<'static>> = LazyLock::new(|| {
    let mut environment = Environment::new();
    environment.set_undefined_behavior(UndefinedBehavior::Strict);
    environment.set_fuel(Some(FUEL));
    environment.set_debug(false);
    environment.add_filter("tojson", to_json);
    let syntax = SyntaxConfig::builder().keep_trailing_newline(true).build();
    environment.set_syntax(syntax.expect("the usual marks do not contradict each other"));
    environment
});

/// Compact JSON, or lines with `indent`. The engine's own filter is for web pages: it escapes `<`, `>` and `&`.
#[expect(clippy::needless_pass_by_value, reason = "the signature is the engine's")]
fn to_json(value: &JinjaValue, indent: Option<usize>, options: Kwargs) -> Result<String, minijinja::Error> {
    let indent = match indent {
        Some(indent) => Some(indent),
        None => options.get::<Option<usize>>("indent")?,
    };
    options.assert_all_used()?;
    let failed = |error: serde_json::Error| {
        minijinja::Error::new(minijinja::ErrorKind::BadSerialization, error.to_string())
    };
    let Some(indent) = indent.filter(|indent| *indent > 0) else {
        return serde_json::to_string(value).map_err(failed);
    };
    let indent = " ".repeat(indent.min(8));
    let formatter = serde_json::ser::PrettyFormatter::with_indent(indent.as_bytes());
    let mut text = Vec::new();
    let mut serializer = serde_json::Serializer::with_formatter(&mut text, formatter);
    value.serialize(&mut serializer).map_err(failed)?;
    Ok(String::from_utf8_lossy(&text).into_owned())
}

static GLOBALS: LazyLock<HashSet<String>> =
    LazyLock::new(|| ENVIRONMENT.globals().map(|(name, _)| name.to_owned()).collect());

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
    /// Text with ways to values in it.
    Plain(Arc<Plain>),
    /// A compiled template in an environment of its own, which shares everything else with all others.
    Compiled(Arc<Environment<'static>>),
    /// Nothing but the way to one value, which is wanted and not its text.
    Way(Arc<Way>),
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
        let form = if is_literal(source) {
            Form::Literal
        } else if let Some(plain) = Plain::parse(source, is_global) {
            Form::Plain(Arc::new(plain))
        } else {
            Form::Compiled(Arc::new(compiled(source)?))
        };
        Ok(Self { source: source.into(), form })
    }

    /// A template of which the value counts, where it is nothing but one expression.
    fn compile_value(source: &str) -> Result<Self, TemplateError> {
        let Some(expression) = sole_expression(source) else { return Self::compile(source) };
        let form = match Way::parse(expression, 0, &is_global) {
            Some(way) => Form::Way(Arc::new(way)),
            None => Form::Value(Arc::new(ENVIRONMENT.compile_expression_owned(expression.to_owned())?)),
        };
        Ok(Self { source: source.into(), form })
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
        let from_outside = match &self.form {
            Form::Literal => return Vec::new(),
            Form::Plain(plain) => return plain.references(),
            Form::Way(way) => return vec![way.found()],
            Form::Compiled(environment) => {
                let template = environment.get_template(NAME);
                template.map(|template| template.undeclared_variables(false)).unwrap_or_default()
            }
            Form::Value(expression) => expression.undeclared_variables(false),
        };
        let mut found = references::in_template(&self.source);
        found.retain(|found| match &found.reference {
            Reference::Local(name) => from_outside.contains(name) && !is_global(name),
            _ => true,
        });
        found
    }

    /// The text, with everything that it names asked of `names`.
    pub fn render(&self, names: &Arc<dyn Names>) -> Result<String, TemplateError> {
        match &self.form {
            Form::Literal => Ok(self.source.to_string()),
            Form::Plain(plain) => match plain.render(names.as_ref()) {
                Some(text) => Ok(text),
                None => render_compiled(&compiled(&self.source)?, names),
            },
            Form::Compiled(environment) => render_compiled(environment, names),
            Form::Way(_) | Form::Value(_) => render_compiled(&compiled(&self.source)?, names),
        }
    }

    /// The value of a sole expression, else the text.
    fn render_value(&self, names: &Arc<dyn Names>) -> Result<Value, TemplateError> {
        let evaluated = match &self.form {
            Form::Way(way) => match way.value(names.as_ref()) {
                Some(value) => return Ok(value),
                None => ENVIRONMENT
                    .compile_expression(sole_expression(&self.source).unwrap_or_default())?
                    .eval(everything(names)),
            },
            Form::Value(expression) => expression.eval(everything(names)),
            _ => return Ok(Value::String(self.render(names)?)),
        };
        let value = evaluated?;
        if value.is_undefined() {
            let message = format!("undefined value: {} names nothing that is there", self.source.trim());
            return Err(TemplateError { message, line: Some(1) });
        }
        serde_json::to_value(&value).map_err(|error| TemplateError { message: error.to_string(), line: None })
    }
}

fn compiled(source: &str) -> Result<Environment<'static>, TemplateError> {
    let mut environment = ENVIRONMENT.clone();
    environment.add_template_owned(NAME, source.to_owned())?;
    Ok(environment)
}

fn render_compiled(
    environment: &Environment<'static>,
    names: &Arc<dyn Names>,
) -> Result<String, TemplateError> {
    Ok(environment.get_template(NAME)?.render(everything(names))?)
}

fn is_global(name: &str) -> bool {
    GLOBALS.contains(name)
}

fn is_literal(source: &str) -> bool {
    !["{{", "{%", "{#"].iter().any(|opening| source.contains(opening))
}

/// The expression, where the text is nothing but one `{{ expression }}`.
fn sole_expression(source: &str) -> Option<&str> {
    let inner = source.trim().strip_prefix("{{")?.strip_suffix("}}")?;
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::StepOutput;
    use serde_json::json;

    /// A step `a`, an input `n` for each kind of value, a file, a secret and an element.
    struct Fixed;

    impl Names for Fixed {
        fn input(&self, name: &str) -> Option<Value> {
            let values = json!({"text": "t<&>", "int": 7, "float": 1.5, "yes": true, "null": null, "list": [1, "x"],
                "map": {"z": 1, "a": {"b": "deep"}}});
            values.get(name).cloned()
        }
        fn step(&self, id: &str) -> Option<Arc<StepOutput>> {
            let output = StepOutput {
                text: "```\ncode\n```\n".into(),
                json: Some(json!({"n": 3, "s": "x", "text": "no"})),
            };
            (id == "a").then(|| Arc::new(output))
        }
        fn file(&self, path: &str) -> Option<String> {
            (path == "x.txt").then(|| "content".to_owned())
        }
        fn local(&self, name: &str) -> Option<Value> {
            (name == "item").then(|| json!({"k": "v"}))
        }
        fn secret(&self, name: &str) -> Option<String> {
            (name == "T").then(|| "s3cret".to_owned())
        }
    }

    fn names() -> Arc<dyn Names> {
        Arc::new(Fixed)
    }

    fn text(source: &str) -> Result<String, TemplateError> {
        Template::compile(source)?.render(&names())
    }

    fn value(source: &str) -> Result<Value, TemplateError> {
        ValueTemplate::of_text(source)?.render(&names())
    }

    /// Plain templates and what the engine makes of the same text.
    const PLAIN: [&str; 18] = [
        "{{ inputs.text }}",
        "a {{ inputs.int }} b {{inputs.float}}\n",
        "{{ inputs.yes }}{{ inputs.null }}{{ inputs.list }}{{ inputs.map }}",
        "{{ inputs.map.a.b }}{{ inputs['map']['z'] }}",
        "{{ inputs.map.gone }}",
        "{{ inputs.gone }}",
        "{{ inputs.text.x }}",
        "{{ steps.a.output.text }}|{{ steps.a.output.code }}|{{ steps.a.output.n }}|{{ steps.a.output.json.s }}",
        "{{ steps.a.output.gone }}",
        "{{ steps.a.output }}",
        "{{ steps.a }}",
        "{{ steps.b.output.text }}",
        "{{ steps.a.output.text.x }}",
        "{{ files['x.txt'] }}{{ files[\"x.txt\"] }}",
        "{{ secrets.T }}",
        "{{ item.k }}{{ nobody }}",
        "{ {{ item.k }} } }} {\r\n",
        "{{ item }}",
    ];

    #[test]
    fn plain_templates_give_what_the_engine_gives() {
        for source in PLAIN {
            let template = Template::compile(source).unwrap();
            assert!(matches!(template.form, Form::Plain(_)), "{source} is plain");
            let by_engine = render_compiled(&compiled(source).unwrap(), &names());
            let by_engine = by_engine.map_err(|error| error.to_string());
            assert_eq!(template.render(&names()).map_err(|error| error.to_string()), by_engine, "{source}");
        }
    }

    #[test]
    fn everything_that_a_step_gives_can_be_named() {
        assert_eq!(text("{{ steps.a.output.text | trim | upper }}").unwrap(), "```\nCODE\n```");
        assert_eq!(text("{{ steps.a.output.code }}").unwrap(), "code\n");
        assert_eq!(text("{{ steps.a.output.json | tojson }}").unwrap(), r#"{"n":3,"s":"x","text":"no"}"#);
        assert_eq!(text("{% for x in inputs.list %}{{ x }},{% endfor %}").unwrap(), "1,x,");
        assert_eq!(
            text("{{ inputs.list | join('-') }}{% if steps.a.output.n > 2 %}!{% endif %}").unwrap(),
            "1-x!"
        );
        assert_eq!(text("{{ steps.a.output }}").unwrap(), "```\ncode\n```\n");
    }

    #[test]
    fn json_in_a_text_is_not_escaped_for_web_pages() {
        assert_eq!(text("{{ inputs.text | tojson }}").unwrap(), r#""t<&>""#);
        assert_eq!(text("{{ inputs.list | tojson(indent=2) }}").unwrap(), "[\n  1,\n  \"x\"\n]");
        assert!(text("{{ inputs.list | tojson(indnt=2) }}").is_err());
    }

    #[test]
    fn a_sole_expression_is_the_value_and_not_its_text() {
        assert_eq!(value("{{ inputs.list }}").unwrap(), json!([1, "x"]));
        assert_eq!(value(" {{ inputs.map }} ").unwrap().to_string(), r#"{"z":1,"a":{"b":"deep"}}"#);
        assert_eq!(value("{{ inputs.int + 1 }}").unwrap(), json!(8));
        assert_eq!(value("{{ inputs.null }}").unwrap(), Value::Null);
        assert_eq!(value("x{{ inputs.int }}").unwrap(), json!("x7"));
        assert_eq!(value("{{ steps.a.output }}").unwrap()["n"], json!(3));
        assert!(value("{{ inputs.map.gone }}").is_err());
        assert!(value("{{ nobody }}").is_err());
    }

    #[test]
    fn what_is_not_there_is_an_error_with_its_line() {
        let error = text("one\n{{ steps.b.output.text }}").unwrap_err();
        assert_eq!(error.line, Some(2), "{error}");
        assert!(Template::compile("{{ x").is_err());
        assert!(Template::compile("{{ x | no_such_filter }}").and_then(|t| t.render(&names())).is_err());
    }

    #[test]
    fn the_text_of_a_block_stays_as_it_is() {
        assert_eq!(text("a\n{% if true %}\nb\n{% endif %}\n\n").unwrap(), "a\n\nb\n\n\n");
        assert_eq!(text("{{ inputs.text }}\n").unwrap(), "t<&>\n");
    }

    #[test]
    fn work_is_bounded() {
        let error = text("{% for a in range(10000) %}{% for b in range(10000) %}x{% endfor %}{% endfor %}");
        assert!(error.unwrap_err().message.contains("fuel"));
    }

    #[test]
    fn names_that_a_template_makes_itself_are_not_asked_for() {
        let known = |source: &str| -> Vec<Reference> {
            let found = Template::compile(source).unwrap().references();
            found.into_iter().map(|found| found.reference).collect()
        };
        assert!(
            known("{% set x = 1 %}{{ x }}{% for y in range(2) %}{{ y }}{{ loop.index }}{% endfor %}")
                .is_empty()
        );
        assert_eq!(known("{{ item.x | default('y') }}"), [Reference::Local("item".to_owned())]);
    }
}
