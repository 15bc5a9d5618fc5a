//! What a step's templates see of secrets: their names for keys and logs, their values for the effect.

use std::sync::Arc;

use serde_json::Value;
use workflow_spec::{FailureKind, Names, StepOutput, TemplateError};

use crate::CallFailure;
use crate::secrets::{Secrets, placeholder};

/// A step's names, seen from both sides.
pub(crate) struct Sight {
    shown: Arc<dyn Names>,
    /// Why there are no values is told when the effect would need them, and not where an earlier result will do.
    revealed: Result<(Arc<dyn Names>, Secrets), CallFailure>,
}

/// Something rendered for keys and logs, and for the effect.
pub(crate) struct Rendered<T> {
    pub(crate) shown: T,
    pub(crate) revealed: Result<(T, Secrets), CallFailure>,
}

impl Sight {
    pub(crate) fn new(
        names: &Arc<dyn Names>,
        declared: &[String],
        find: &dyn Fn(&str) -> Option<String>,
    ) -> Self {
        let declared: Arc<[String]> = declared.into();
        let with = |values| -> Arc<dyn Names> {
            Arc::new(WithSecrets { names: names.clone(), declared: declared.clone(), values })
        };
        let revealed = Secrets::read(&declared, find).map(|secrets| (with(Some(secrets.clone())), secrets));
        Self { shown: with(None), revealed }
    }

    pub(crate) fn render<T>(
        &self,
        make: impl Fn(&Arc<dyn Names>) -> Result<T, CallFailure>,
    ) -> Result<Rendered<T>, CallFailure> {
        let shown = make(&self.shown)?;
        let revealed = match &self.revealed {
            // What a template makes of a value may fail where its name did not, and must not tell the value.
            Ok((names, secrets)) => make(names)
                .map(|made| (made, secrets.clone()))
                .map_err(|failure| secrets.filter_failure(failure)),
            Err(failure) => Err(failure.clone()),
        };
        Ok(Rendered { shown, revealed })
    }
}

/// What a template that gives no text does to its step.
pub(crate) fn unusable(what: &str, error: &TemplateError) -> CallFailure {
    let line = error.line.map(|line| format!(" (line {line})")).unwrap_or_default();
    CallFailure::new(FailureKind::Validation, format!("{what}: {}{line}", error.message))
}

struct WithSecrets {
    names: Arc<dyn Names>,
    declared: Arc<[String]>,
    /// `None`: secrets are shown by name.
    values: Option<Secrets>,
}

impl Names for WithSecrets {
    fn input(&self, name: &str) -> Option<Value> {
        self.names.input(name)
    }

    fn step(&self, id: &str) -> Option<Arc<StepOutput>> {
        self.names.step(id)
    }

    fn file(&self, path: &str) -> Option<String> {
        self.names.file(path)
    }

    fn local(&self, name: &str) -> Option<Value> {
        self.names.local(name)
    }

    fn secret(&self, name: &str) -> Option<String> {
        if !self.declared.iter().any(|declared| declared == name) {
            return None;
        }
        match &self.values {
            Some(secrets) => secrets.value(name).map(str::to_owned),
            None => Some(placeholder(name)),
        }
    }
}
