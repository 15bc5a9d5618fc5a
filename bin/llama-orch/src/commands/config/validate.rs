//! `config validate` and `config lint`: what is wrong, what may be, and what to do about it.

use std::path::{Path, PathBuf};

use instance_config::{Catalog, Finding, Report, Severity, lint, lint_instance, load_file};
use orch_core::{ExitCode, Failure};

use super::facts::Facts;
use crate::context::{Context, working_folder};
use crate::ending::{CommandResult, Ended};
use crate::words::counted;

/// One file, or all of the home; with `runtime` also against this machine.
pub(super) fn validate(context: &Context, path: Option<&str>, runtime: bool) -> CommandResult {
    match path {
        Some(path) => validate_file(context, path, runtime),
        None => report_home(context, runtime),
    }
}

/// All of the home against everything.
pub(super) fn lint_home(context: &Context) -> CommandResult {
    report_home(context, true)
}

fn report_home(context: &Context, runtime: bool) -> CommandResult {
    let catalog = context.catalog()?;
    let instances: Vec<_> = catalog.instances.iter().collect();
    let facts = if runtime { Facts::of_machine(context, &instances)? } else { Facts::new(context.home()?) };
    tell(context, &lint(&catalog, &facts.for_lint()), ExitCode::ConfigInvalid)
}

fn validate_file(context: &Context, path: &str, runtime: bool) -> CommandResult {
    let catalog = context.catalog()?;
    let file = find_file(&catalog, path)?;
    let instance = match load_file(&file) {
        Ok(instance) => instance,
        Err(broken) => return tell(context, &Report::new(broken.findings), broken.exit),
    };
    let facts = if runtime { Facts::of_machine(context, &[&instance])? } else { Facts::new(context.home()?) };
    let report = Report::new(lint_instance(&instance, &catalog, &facts.for_lint()));
    tell(context, &report, ExitCode::ConfigInvalid)
}

/// A file, its folder, or the instance that goes by this name.
fn find_file(catalog: &Catalog, path: &str) -> Result<PathBuf, Failure> {
    let file = working_folder().join(path);
    if file.is_dir() && file.join("config.json").exists() {
        return Ok(file.join("config.json"));
    }
    if file.exists() {
        return Ok(file);
    }
    let broken = catalog.broken.iter().find(|broken| broken.name == path).map(|broken| broken.path.clone());
    let named = || catalog.select(path).ok().map(|instance| instance.path.clone());
    broken.or_else(named).ok_or_else(|| {
        let looks_like_a_file = path.contains(['/', '\\']) || Path::new(path).extension().is_some();
        let what = if looks_like_a_file { "there is no" } else { "there is no file or instance" };
        Failure::new(ExitCode::ConfigNotFound, format!("{what} {path}"))
    })
}

fn tell(context: &Context, report: &Report, exit: ExitCode) -> CommandResult {
    if context.printer.json() {
        context.printer.document(report)?;
    } else {
        show(context, report)?;
    }
    Ended::told(if report.valid { ExitCode::Success } else { exit })
}

fn show(context: &Context, report: &Report) -> CommandResult {
    for finding in &report.findings {
        show_finding(context, finding)?;
    }
    let count = |severity| report.findings.iter().filter(|finding| finding.severity == severity).count();
    let (errors, warnings) = (count(Severity::Error), count(Severity::Warning));
    let verdict = if report.valid { "valid" } else { "not valid" };
    Ok(context.printer.line(format_args!(
        "{verdict}: {}, {}",
        counted(errors, "error"),
        counted(warnings, "warning")
    ))?)
}

/// One finding on one line.
pub(super) fn show_finding(context: &Context, finding: &Finding) -> CommandResult {
    let severity = match finding.severity {
        Severity::Error => "error",
        Severity::Warning => "warning",
        Severity::Info => "info",
    };
    let place: String = [&finding.instance, &finding.field]
        .into_iter()
        .flatten()
        .fold(String::new(), |place, part| place + part + ": ");
    let advice = finding.suggestion.as_ref().map_or(String::new(), |advice| format!(" ({advice})"));
    Ok(context.printer.line(format_args!("{severity:7}  {place}{}{advice}", finding.message))?)
}
