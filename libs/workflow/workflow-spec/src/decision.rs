//! Decisions: CEL, which has no side effects and always ends.

use std::sync::{Arc, LazyLock};

use cel::common::ast::{EntryExpr, Expr, IdedExpr, LiteralValue, operators};
use cel::{Context, Env, ExecutionError, Program};
use serde_json::{Map, Value};

use crate::read::is_identifier;
use crate::references::{Family, Reference};
use crate::{Names, StepOutput};

/// Longer decisions belong into a step.
const LONGEST: usize = 1024;
/// Brackets within brackets. The parser of CEL calls itself for each.
const DEEPEST: usize = 32;

/// What the language itself calls by a name.
const TYPE_NAMES: [&str; 10] =
    ["bool", "int", "uint", "double", "string", "bytes", "list", "map", "null_type", "type"];

/// Functions that are surely there. Others are tried, which takes longer.
const FUNCTIONS: [&str; 13] = [
    "bool",
    "bytes",
    "contains",
    "double",
    "dyn",
    "endsWith",
    "int",
    "matches",
    "size",
    "startsWith",
    "string",
    "type",
    "uint",
];

static ENVIRONMENT: LazyLock<Arc<Env>> = LazyLock::new(|| Arc::new(Env::stdlib()));

/// A CEL expression, known to compile.
#[derive(Clone)]
pub struct Decision {
    source: Arc<str>,
    program: Arc<Program>,
    references: Arc<[Reference]>,
    /// Where it is nothing but the way to a value: root first. Such a value comes out as it is, with the order of
    /// its fields.
    way: Option<Arc<[String]>>,
}

/// Why a decision cannot be taken.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{message}")]
pub struct DecisionError {
    pub message: String,
    /// Line and column inside the decision, from 1, where they are known.
    pub at: Option<(u32, u32)>,
}

impl DecisionError {
    fn new(message: impl std::fmt::Display) -> Self {
        Self { message: message.to_string(), at: None }
    }
}

impl From<cel::ParseErrors> for DecisionError {
    fn from(errors: cel::ParseErrors) -> Self {
        match errors.errors.first() {
            None => Self::new("is no CEL expression"),
            Some(error) => {
                let at = u32::try_from(error.pos.0).ok().zip(u32::try_from(error.pos.1).ok());
                Self { message: error.msg.lines().next().unwrap_or_default().to_owned(), at }
            }
        }
    }
}

impl std::fmt::Debug for Decision {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Decision({:?})", self.source)
    }
}

impl Decision {
    pub fn compile(source: &str) -> Result<Self, DecisionError> {
        if source.len() > LONGEST {
            return Err(DecisionError::new(format!("is longer than {LONGEST} bytes")));
        }
        if deepest(source) > DEEPEST {
            return Err(DecisionError::new(format!("is nested deeper than {DEEPEST} brackets")));
        }
        let program = Program::compile(source)?;
        let mut walk = Walk::default();
        walk.expression(program.expression());
        if let Some(name) = walk.called.iter().find(|name| !is_function(name)) {
            return Err(DecisionError::new(format!("no function is called \"{name}\"")));
        }
        let way = way_of(&program.expression().expr).map(Into::into);
        Ok(Self { source: source.into(), program: Arc::new(program), references: walk.found.into(), way })
    }

    pub fn source(&self) -> &str {
        &self.source
    }

    /// What it names, each once.
    pub fn references(&self) -> &[Reference] {
        &self.references
    }

    /// The ids after `steps.`, which this decision cannot be taken without.
    pub fn steps(&self) -> impl Iterator<Item = &str> {
        self.known(Family::Steps)
    }

    fn known(&self, wanted: Family) -> impl Iterator<Item = &str> {
        self.references.iter().filter_map(move |reference| match reference {
            Reference::Known(family, name) if *family == wanted => Some(name.as_str()),
            _ => None,
        })
    }

    /// The value of the expression.
    pub fn evaluate(&self, names: &Arc<dyn Names>) -> Result<Value, DecisionError> {
        if let Some(value) = self.way.as_deref().and_then(|way| follow(way, names.as_ref())) {
            return Ok(value);
        }
        let mut context = Context::with_env(Arc::clone(&ENVIRONMENT));
        for (name, value) in self.variables(names.as_ref())? {
            context.add_variable(name, value).map_err(DecisionError::new)?;
        }
        let value = self.program.execute(&context).map_err(DecisionError::new)?;
        to_json(&value)
    }

    /// Whether it holds. Anything but a boolean is an error.
    pub fn holds(&self, names: &Arc<dyn Names>) -> Result<bool, DecisionError> {
        match self.evaluate(names)? {
            Value::Bool(holds) => Ok(holds),
            other => Err(DecisionError::new(format!("gives {other}, not true or false"))),
        }
    }

    fn variables(&self, names: &dyn Names) -> Result<Vec<(String, Value)>, DecisionError> {
        let mut families: Vec<(Family, Map<String, Value>)> = Vec::new();
        let mut variables = Vec::new();
        for reference in self.references.iter() {
            let (family, found) = match reference {
                Reference::Known(family, name) => {
                    (*family, value_of(*family, name, names).map(|value| (name.clone(), value)))
                }
                Reference::Computed(family) => (*family, None),
                Reference::Local(name) => {
                    let unknown = || DecisionError::new(format!("{name} is not known here"));
                    variables.push((name.clone(), names.local(name).ok_or_else(unknown)?));
                    continue;
                }
            };
            let place = families.iter().position(|(known, _)| *known == family);
            let place = place.unwrap_or_else(|| {
                families.push((family, Map::new()));
                families.len() - 1
            });
            families[place].1.extend(found);
        }
        let families =
            families.into_iter().map(|(family, map)| (family.word().to_owned(), Value::Object(map)));
        variables.extend(families);
        Ok(variables)
    }
}

/// Whether something of the language is called so: else a call of it is an undeclared reference, whatever it is given.
fn is_function(name: &str) -> bool {
    FUNCTIONS.contains(&name) || is_declared(&format!("{name}()")) || is_declared(&format!("''.{name}()"))
}

fn is_declared(call: &str) -> bool {
    let context = Context::with_env(Arc::clone(&ENVIRONMENT));
    let Ok(program) = Program::compile(call) else { return false };
    !matches!(program.execute(&context), Err(ExecutionError::UndeclaredReference(_)))
}

/// How deep brackets are nested, those in strings among them.
fn deepest(source: &str) -> usize {
    let (mut depth, mut deepest) = (0usize, 0);
    for byte in source.bytes() {
        match byte {
            b'(' | b'[' | b'{' => depth += 1,
            b')' | b']' | b'}' => depth = depth.saturating_sub(1),
            _ => {}
        }
        deepest = deepest.max(depth);
    }
    deepest
}

fn value_of(family: Family, name: &str, names: &dyn Names) -> Option<Value> {
    match family {
        Family::Steps => {
            let mut step = Map::new();
            step.insert("output".to_owned(), output_value(names.step(name)?.as_ref()));
            Some(Value::Object(step))
        }
        Family::Inputs => names.input(name),
        Family::Files => names.file(name).map(Value::String),
        Family::Secrets => None,
    }
}

/// `output` as templates see it: the fields of its JSON, then `text`, `json` and `code`.
fn output_value(output: &StepOutput) -> Value {
    let mut fields = match &output.json {
        Some(Value::Object(fields)) => fields.clone(),
        _ => Map::new(),
    };
    fields.insert("text".to_owned(), output.text.clone().into());
    fields.insert("code".to_owned(), output.code().into());
    if let Some(json) = &output.json {
        fields.insert("json".to_owned(), json.clone());
    }
    Value::Object(fields)
}

/// The value at the end of a way, `None` where the way breaks off: then CEL says why.
fn follow(way: &[String], names: &dyn Names) -> Option<Value> {
    let root = way.first()?;
    let (mut value, rest) = match Family::of(root) {
        Some(Family::Secrets) => return None,
        Some(family) => (value_of(family, way.get(1)?, names)?, &way[2..]),
        None => (names.local(root)?, &way[1..]),
    };
    for field in rest {
        value = match value {
            Value::Object(mut fields) => fields.remove(field)?,
            _ => return None,
        };
    }
    Some(value)
}

/// `a.b['c']` as its names; `None` for everything that is more than that.
fn way_of(expression: &Expr) -> Option<Vec<String>> {
    match expression {
        Expr::Ident(name) => Some(vec![name.clone()]),
        Expr::Select(select) if !select.test => {
            let mut way = way_of(&select.operand.expr)?;
            way.push(select.field.clone());
            Some(way)
        }
        Expr::Call(call) if call.func_name == operators::INDEX && call.args.len() == 2 => {
            let mut way = way_of(&call.args[0].expr)?;
            way.push(literal_text(&call.args[1].expr)?.to_owned());
            Some(way)
        }
        _ => None,
    }
}

fn literal_text(expression: &Expr) -> Option<&str> {
    match expression {
        Expr::Literal(LiteralValue::String(text)) => Some(text.inner()),
        _ => None,
    }
}

/// CEL's maps have no order; JSON made from them gets one, so that the same decision always gives the same text.
fn to_json(value: &cel::Value) -> Result<Value, DecisionError> {
    Ok(match value {
        cel::Value::List(items) => Value::Array(items.iter().map(to_json).collect::<Result<_, _>>()?),
        cel::Value::Map(map) => {
            let mut fields: Vec<_> = map.map.iter().map(|(key, value)| (key.to_string(), value)).collect();
            fields.sort_by(|left, right| left.0.cmp(&right.0));
            let mut object = Map::new();
            for (key, value) in fields {
                object.insert(key, to_json(value)?);
            }
            Value::Object(object)
        }
        other => other.json().map_err(DecisionError::new)?,
    })
}

/// Walks a syntax tree for the names in it.
#[derive(Default)]
struct Walk {
    /// Names that comprehensions make themselves.
    bound: Vec<String>,
    found: Vec<Reference>,
    /// The functions that are called by a name, operators not among them.
    called: Vec<String>,
}

impl Walk {
    fn add(&mut self, reference: Reference) {
        if !self.found.contains(&reference) {
            self.found.push(reference);
        }
    }

    fn expression(&mut self, expression: &IdedExpr) {
        match &expression.expr {
            Expr::Unspecified | Expr::Literal(_) => {}
            Expr::Ident(name) => self.name(name),
            Expr::Select(select) => match self.family(&select.operand) {
                Some(family) => self.add(Reference::Known(family, select.field.clone())),
                None => self.expression(&select.operand),
            },
            Expr::Call(call) => {
                if let (operators::INDEX, [of, at]) = (call.func_name.as_str(), call.args.as_slice())
                    && let (Some(family), Some(name)) = (self.family(of), literal_text(&at.expr))
                {
                    return self.add(Reference::Known(family, name.to_owned()));
                }
                if is_identifier(&call.func_name) && !self.called.contains(&call.func_name) {
                    self.called.push(call.func_name.clone());
                }
                call.target.iter().for_each(|target| self.expression(target));
                call.args.iter().for_each(|argument| self.expression(argument));
            }
            Expr::List(list) => list.elements.iter().for_each(|element| self.expression(element)),
            Expr::Map(map) => map.entries.iter().for_each(|entry| self.entry(&entry.expr)),
            Expr::Struct(made) => made.entries.iter().for_each(|entry| self.entry(&entry.expr)),
            Expr::Comprehension(comprehension) => {
                self.expression(&comprehension.iter_range);
                self.expression(&comprehension.accu_init);
                let outside = self.bound.len();
                self.bound.push(comprehension.iter_var.clone());
                self.bound.extend(comprehension.iter_var2.clone());
                self.bound.push(comprehension.accu_var.clone());
                self.expression(&comprehension.loop_cond);
                self.expression(&comprehension.loop_step);
                self.expression(&comprehension.result);
                self.bound.truncate(outside);
            }
        }
    }

    fn entry(&mut self, entry: &EntryExpr) {
        match entry {
            EntryExpr::StructField(field) => self.expression(&field.value),
            EntryExpr::MapEntry(entry) => {
                self.expression(&entry.key);
                self.expression(&entry.value);
            }
        }
    }

    fn name(&mut self, name: &str) {
        if self.bound.iter().any(|bound| bound == name) || TYPE_NAMES.contains(&name) {
            return;
        }
        self.add(match Family::of(name) {
            Some(family) => Reference::Computed(family),
            None => Reference::Local(name.to_owned()),
        });
    }

    /// The family, where an expression is nothing but its word.
    fn family(&self, expression: &IdedExpr) -> Option<Family> {
        match &expression.expr {
            Expr::Ident(name) if !self.bound.contains(name) => Family::of(name),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known(source: &str) -> Vec<Reference> {
        Decision::compile(source).unwrap().references().to_vec()
    }

    fn step(id: &str) -> Reference {
        Reference::Known(Family::Steps, id.to_owned())
    }

    #[test]
    fn names_are_found_in_the_tree_and_not_in_text() {
        assert_eq!(known("steps.a.output.n > 1 && 'steps.b' != ''"), [step("a")]);
        assert_eq!(
            known("has(steps.a.output.n) || steps['b-c'].output.text == ''"),
            [step("a"), step("b-c")]
        );
        assert_eq!(known("[1, 2].filter(x, x > index)"), [Reference::Local("index".to_owned())]);
        assert_eq!(known("steps[inputs.name].output.text == ''").len(), 2);
    }

    struct Fixed(Value);

    impl Names for Fixed {
        fn input(&self, name: &str) -> Option<Value> {
            self.0.get(name).cloned()
        }
        fn step(&self, id: &str) -> Option<Arc<StepOutput>> {
            self.0.get(id).cloned().map(|json| Arc::new(StepOutput::of_json(json)))
        }
        fn file(&self, _: &str) -> Option<String> {
            None
        }
        fn local(&self, name: &str) -> Option<Value> {
            self.0.get(name).cloned()
        }
        fn secret(&self, _: &str) -> Option<String> {
            None
        }
    }

    fn evaluate(source: &str, values: Value) -> Result<Value, DecisionError> {
        let names: Arc<dyn Names> = Arc::new(Fixed(values));
        Decision::compile(source).unwrap().evaluate(&names)
    }

    #[test]
    fn a_way_to_a_value_keeps_the_order_of_its_fields() {
        let values = serde_json::json!({"a": {"list": [{"z": 1, "a": 2, "m": 3}]}});
        let value = evaluate("steps.a.output.list", values.clone()).unwrap();
        assert_eq!(value.to_string(), r#"[{"z":1,"a":2,"m":3}]"#);
        let computed = evaluate("steps.a.output.list.filter(x, x.z == 1)", values).unwrap();
        assert_eq!(computed.to_string(), r#"[{"a":2,"m":3,"z":1}]"#);
    }

    #[test]
    fn what_is_not_there_is_an_error_that_says_so() {
        let error = evaluate("steps.a.output.nothing", serde_json::json!({"a": {}})).unwrap_err();
        assert!(error.message.contains("nothing"), "{error}");
        let error = evaluate("item > 1", Value::Null).unwrap_err();
        assert_eq!(error.message, "item is not known here");
    }

    #[test]
    fn a_function_that_is_not_there_is_no_decision() {
        for source in
            ["steps.a.output.text.split(',')", "split(inputs.list)", "[1].filter(x, odd(x))", "len([1])"]
        {
            let error = Decision::compile(source).unwrap_err();
            assert!(error.message.starts_with("no function is called"), "{source}: {error}");
        }
        for source in [
            "size(inputs.list) > 0 && inputs.a.startsWith('x') && !('b' in inputs.list)",
            "[1, 2].map(x, x * 2).exists(x, x == 4) && has(inputs.a.b) && inputs.list[0] == int('1')",
            "inputs.n > -1 && !(1 == 2) ? true : type(1) == int",
        ] {
            assert!(Decision::compile(source).is_ok(), "{source}: {:?}", Decision::compile(source));
        }
        for name in FUNCTIONS {
            assert!(is_declared(&format!("{name}()")) || is_declared(&format!("''.{name}()")), "{name}");
        }
    }

    #[test]
    fn a_fault_names_its_column() {
        let error = Decision::compile("1 +").unwrap_err();
        assert_eq!(error.at.map(|at| at.0), Some(1), "{error:?}");
        for bracket in ["(", "[", "{", "f(", "a[", "!", "-", "a?", "1+", "a.", "a?b:", "a&&", "1<", "[1,"] {
            let ending = if bracket.len() == 1 { "" } else { "a" };
            let source = bracket.repeat(LONGEST / bracket.len() - 1) + ending;
            let _ = Decision::compile(&source).map(|decision| {
                let names: Arc<dyn Names> = Arc::new(Fixed(Value::Null));
                decision.evaluate(&names)
            });
        }
    }
}
