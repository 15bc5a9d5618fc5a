//! Decisions: CEL, which has no side effects and always ends.

use std::sync::Arc;

use cel::{Context, Env, Program};
use serde_json::{Map, Value};

use crate::{Names, StepOutput};

/// A CEL expression, known to compile.
#[derive(Clone)]
pub struct Decision {
    source: Arc<str>,
    program: Arc<Program>,
    steps: Arc<[String]>,
}

/// Why a decision cannot be taken.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{0}")]
pub struct DecisionError(pub String);

impl std::fmt::Debug for Decision {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Decision({:?})", self.source)
    }
}

impl Decision {
    pub fn compile(source: &str) -> Result<Self, DecisionError> {
        let program = Program::compile(source).map_err(|error| DecisionError(error.to_string()))?;
        let steps = named_steps(source).into();
        Ok(Self { source: source.into(), program: Arc::new(program), steps })
    }

    pub fn source(&self) -> &str {
        &self.source
    }

    /// The ids after `steps.`, which this decision cannot be taken without.
    pub fn steps(&self) -> &[String] {
        &self.steps
    }

    /// The value of the expression.
    pub fn evaluate(&self, names: &Arc<dyn Names>) -> Result<Value, DecisionError> {
        let fault = |error: &dyn std::fmt::Display| DecisionError(error.to_string());
        let mut context = Context::with_env(Arc::new(Env::stdlib()));
        for name in self.program.references().variables() {
            let value = match name {
                "inputs" => Some(inputs_named(&self.source, names.as_ref())),
                "steps" => Some(self.steps_value(names.as_ref())),
                local => names.local(local),
            };
            let value = value.ok_or_else(|| DecisionError(format!("{name} is not known here")))?;
            context.add_variable(name, value).map_err(|error| fault(&error))?;
        }
        let value = self.program.execute(&context).map_err(|error| fault(&error))?;
        value.json().map_err(|error| fault(&error))
    }

    /// Whether it holds. Anything but a boolean is an error.
    pub fn holds(&self, names: &Arc<dyn Names>) -> Result<bool, DecisionError> {
        match self.evaluate(names)? {
            Value::Bool(holds) => Ok(holds),
            other => Err(DecisionError(format!("gives {other}, not true or false"))),
        }
    }

    fn steps_value(&self, names: &dyn Names) -> Value {
        let mut steps = Map::new();
        for id in self.steps.iter() {
            let Some(output) = names.step(id) else { continue };
            let mut step = Map::new();
            step.insert("output".to_owned(), output_value(&output));
            steps.insert(id.clone(), Value::Object(step));
        }
        Value::Object(steps)
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

fn inputs_named(source: &str, names: &dyn Names) -> Value {
    let mut inputs = Map::new();
    for name in fields_after(source, "inputs") {
        if let Some(value) = names.input(&name) {
            inputs.insert(name, value);
        }
    }
    Value::Object(inputs)
}

fn named_steps(source: &str) -> Vec<String> {
    fields_after(source, "steps")
}

/// The names that follow `family.` or stand in `family['…']`.
fn fields_after(source: &str, family: &str) -> Vec<String> {
    let mut found = Vec::new();
    for (at, _) in source.match_indices(family) {
        let before = source[..at].chars().next_back();
        if before.is_some_and(|c| c.is_alphanumeric() || c == '_' || c == '.') {
            continue;
        }
        let rest = source[at + family.len()..].trim_start();
        let name: String = if let Some(dotted) = rest.strip_prefix('.') {
            dotted.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect()
        } else if let Some(quoted) = rest.strip_prefix("['").or_else(|| rest.strip_prefix("[\"")) {
            quoted.chars().take_while(|c| *c != '\'' && *c != '"').collect()
        } else {
            continue;
        };
        if !name.is_empty() && !found.contains(&name) {
            found.push(name);
        }
    }
    found
}
