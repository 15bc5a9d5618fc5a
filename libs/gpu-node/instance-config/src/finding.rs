//! What is worth telling about a config.

use serde::Serialize;

/// How much a finding matters. Only errors make a config invalid.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    Error,
    Warning,
    Info,
}

/// One remark. The JSON shape is what `config validate --json` prints.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    pub severity: Severity,
    /// The instance's name, or its folder when the name cannot be read; none for remarks about the whole home.
    pub instance: Option<String>,
    /// Dotted path of the field, such as `server.port`.
    pub field: Option<String>,
    /// One lower-case sentence fragment. Never holds a value of `args` or `env`: those may be secret.
    pub message: String,
    /// What to do about it.
    pub suggestion: Option<String>,
}

impl Finding {
    pub fn new(severity: Severity, field: &str, message: impl Into<String>) -> Self {
        Self {
            severity,
            instance: None,
            field: (!field.is_empty()).then(|| field.to_owned()),
            message: message.into(),
            suggestion: None,
        }
    }

    pub fn error(field: &str, message: impl Into<String>) -> Self {
        Self::new(Severity::Error, field, message)
    }

    pub fn warning(field: &str, message: impl Into<String>) -> Self {
        Self::new(Severity::Warning, field, message)
    }

    pub fn info(field: &str, message: impl Into<String>) -> Self {
        Self::new(Severity::Info, field, message)
    }

    /// The same finding with advice attached.
    #[must_use]
    pub fn suggest(mut self, suggestion: impl Into<String>) -> Self {
        self.suggestion = Some(suggestion.into());
        self
    }

    /// The same finding, said of this instance.
    #[must_use]
    pub fn of(mut self, instance: &str) -> Self {
        self.instance = Some(instance.to_owned());
        self
    }
}

/// Everything found, and whether any of it is an error.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Report {
    pub valid: bool,
    pub findings: Vec<Finding>,
}

impl Report {
    /// Errors first, then by instance; the order of discovery otherwise.
    pub fn new(mut findings: Vec<Finding>) -> Self {
        findings.sort_by(|a, b| (a.severity, &a.instance).cmp(&(b.severity, &b.instance)));
        let valid = findings.iter().all(|finding| finding.severity != Severity::Error);
        Self { valid, findings }
    }
}
