//! The workflow that `--spec` names.

use std::io::ErrorKind;
use std::path::Path;

use orch_core::{ExitCode, Failure};
use orchestratord::jobs::{SpecFolder, read_spec_file, read_spec_text};
use workflow_spec::{JobSpec, SpecError};

use crate::context::Context;
use crate::ending::Ended;

/// Stands for stdin.
const STDIN: &str = "-";

/// Reads and checks a workflow; all that is wrong with it is told at once.
pub(super) fn read_spec(context: &Context, name: &str) -> Result<JobSpec, Ended> {
    let from_stdin = name == STDIN;
    let path = Path::new(if from_stdin { "stdin" } else { name });
    let text = if from_stdin { read_spec_text(std::io::stdin().lock()) } else { read_spec_file(path) };
    let text = text.map_err(|error| unreadable(path, &error))?;
    let folder = path.parent().unwrap_or(Path::new("")).to_owned();
    let spec = JobSpec::read(&text, &SpecFolder(folder)).map_err(|errors| {
        let errors = errors.in_file(&path.to_string_lossy());
        errors.errors.into_iter().for_each(|error| context.talk.failure(&refusal(error)));
        if errors.more > 0 {
            context.talk.note(&format!("and {} more", errors.more));
        }
        Ended::Told(ExitCode::JobSpecInvalid)
    })?;
    let warned = |warning: &SpecError| format!("{}:{warning}", path.display());
    context.warn(&spec.warnings.iter().map(warned).collect::<Vec<_>>());
    Ok(spec)
}

/// One thing that is wrong, its hint apart.
fn refusal(mut error: SpecError) -> Failure {
    let hint = error.hint.take();
    let failure = Failure::new(ExitCode::JobSpecInvalid, error.to_string());
    match hint {
        Some(hint) => failure.hint(hint),
        None => failure,
    }
}

fn unreadable(path: &Path, error: &std::io::Error) -> Failure {
    let exit = match error.kind() {
        ErrorKind::PermissionDenied => ExitCode::PermissionDenied,
        _ => ExitCode::JobSpecInvalid,
    };
    let failure = Failure::new(exit, format!("cannot read the workflow {}: {error}", path.display()));
    match error.kind() {
        ErrorKind::NotFound => failure.hint("--spec takes a YAML or JSON file, or - for stdin"),
        _ => failure,
    }
}
