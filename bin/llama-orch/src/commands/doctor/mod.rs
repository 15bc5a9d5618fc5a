//! `doctor`: looks at all that may keep engines from running, and says of each finding how it is mended.
//!
//! It changes no byte and creates nothing; every look has an end, also at an engine or a daemon that hangs.

mod daemon;
mod engine;
mod home;
mod records;

use orch_core::ExitCode;
use serde::Serialize;
use serde_json::json;

use crate::context::Context;
use crate::ending::{CommandResult, Ended};

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
enum Severity {
    Ok,
    /// Worth knowing; nothing is wrong.
    Info,
    Warning,
    Error,
}

impl Severity {
    const fn label(self) -> &'static str {
        match self {
            Severity::Ok => "ok",
            Severity::Info => "info",
            Severity::Warning => "warning",
            Severity::Error => "error",
        }
    }
}

/// What one look has found.
#[derive(Clone, Debug, Serialize)]
struct Diagnosis {
    /// What was looked at: `home`, `engine`, `ports` …
    check: &'static str,
    severity: Severity,
    message: String,
    /// What to do about it.
    mend: Option<String>,
}

impl Diagnosis {
    fn new(check: &'static str, severity: Severity, message: impl Into<String>) -> Self {
        Self { check, severity, message: message.into(), mend: None }
    }

    fn ok(check: &'static str, message: impl Into<String>) -> Self {
        Self::new(check, Severity::Ok, message)
    }

    fn info(check: &'static str, message: impl Into<String>) -> Self {
        Self::new(check, Severity::Info, message)
    }

    fn warning(check: &'static str, message: impl Into<String>) -> Self {
        Self::new(check, Severity::Warning, message)
    }

    fn error(check: &'static str, message: impl Into<String>) -> Self {
        Self::new(check, Severity::Error, message)
    }

    /// What a command would have ended with.
    fn of(check: &'static str, failure: &orch_core::Failure) -> Self {
        Self { mend: failure.hint.clone(), ..Self::error(check, &failure.message) }
    }

    fn mend(mut self, how: impl Into<String>) -> Self {
        self.mend = Some(how.into());
        self
    }
}

pub(super) fn run(context: &Context) -> CommandResult {
    let home = context.home()?;
    // An engine or a daemon that hangs is waited for beside the rest.
    let found: Vec<Diagnosis> = std::thread::scope(|scope| {
        let engine = scope.spawn(|| engine::check(home));
        let daemon = scope.spawn(|| daemon::check(home));
        let mut found = home::check(context);
        found.extend(engine.join().unwrap_or_default());
        found.extend(daemon.join().unwrap_or_default());
        found.extend(records::check(context));
        found
    });
    show(context, &found)?;
    let healthy = found.iter().all(|one| one.severity < Severity::Error);
    if healthy { Ok(()) } else { Err(Ended::Told(ExitCode::General)) }
}

fn show(context: &Context, found: &[Diagnosis]) -> CommandResult {
    let count = |severity| found.iter().filter(|one| one.severity == severity).count();
    let (errors, warnings) = (count(Severity::Error), count(Severity::Warning));
    if context.printer.json() {
        let document = json!({"healthy": errors == 0, "checks": found});
        return Ok(context.printer.document(&document)?);
    }
    for one in found {
        context.printer.line(format_args!("{:8} {:9} {}", one.severity.label(), one.check, one.message))?;
        if let Some(mend) = &one.mend {
            context.printer.line(format_args!("{:18} mend: {mend}", ""))?;
        }
    }
    let verdict = match (errors, warnings) {
        (0, 0) => "all is well".to_owned(),
        (0, warnings) => format!("nothing is broken; warnings: {warnings}"),
        (errors, warnings) => format!("errors: {errors}, warnings: {warnings}"),
    };
    Ok(context.printer.line(verdict)?)
}
