//! The workflow and its inputs, as they were typed.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use orch_core::{ExitCode, Failure};
use orchestratord::jobs::{SpecFolder, read_inputs, read_spec_file, read_spec_text};
use serde_json::{Map, Value};
use workflow_spec::{JobSpec, SpecError, SpecErrors};

use crate::context::{Context, working_folder};
use crate::ending::Ended;

/// Stands for stdin.
const STDIN: &str = "-";

/// Reads and checks the workflow that `--spec` names; all that is wrong with it is told at once.
pub(super) fn read_spec(context: &Context, name: &str) -> Result<JobSpec, Ended> {
    let (text, shown) = match name {
        STDIN => (read_spec_text(std::io::stdin().lock()), "stdin"),
        path => (read_spec_file(Path::new(path)), path),
    };
    let text = text.map_err(|error| unreadable(shown, &error))?;
    check_spec(context, &text, spec_folder(name), shown)
}

/// Where the files lie that a workflow names.
pub(super) fn spec_folder(name: &str) -> PathBuf {
    let beside = Path::new(name).parent().filter(|folder| name != STDIN && !folder.as_os_str().is_empty());
    beside.map_or_else(working_folder, Path::to_owned)
}

fn check_spec(context: &Context, text: &str, folder: PathBuf, shown: &str) -> Result<JobSpec, Ended> {
    let spec =
        JobSpec::read(text, &SpecFolder(folder)).map_err(|errors| spec_refused(context, errors, shown))?;
    let place = |warning: &SpecError| format!("{shown}:{warning}");
    context.warn(&spec.warnings.iter().map(place).collect::<Vec<_>>());
    Ok(spec)
}

/// One `error:` line for each thing that is wrong, with its place.
pub(super) fn spec_refused(context: &Context, errors: SpecErrors, shown: &str) -> Ended {
    let errors = errors.in_file(shown);
    let failures: Vec<Failure> = errors.errors.into_iter().map(refusal).collect();
    let ended = refuse_all(context, &failures);
    if errors.more > 0 {
        context.talk.note(&format!("and {} more", errors.more));
    }
    ended
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

fn unreadable(name: &str, error: &std::io::Error) -> Failure {
    let exit = match error.kind() {
        ErrorKind::PermissionDenied => ExitCode::PermissionDenied,
        _ => ExitCode::JobSpecInvalid,
    };
    let failure = Failure::new(exit, format!("cannot read the workflow {name}: {error}"));
    match error.kind() {
        ErrorKind::NotFound => failure.hint("--spec takes a YAML or JSON file, or - for stdin"),
        _ => failure,
    }
}

/// The inputs by `--var`, the others as a job had them in an `earlier` life; all that is wrong with them is told at once.
pub(super) fn typed_inputs(
    context: &Context,
    spec: &JobSpec,
    vars: &[(String, String)],
    earlier: Map<String, Value>,
) -> Result<Map<String, Value>, Ended> {
    read_inputs(&spec.inputs, vars, &working_folder(), earlier)
        .map_err(|failures| refuse_all(context, &failures))
}

/// Several things that are wrong, each with its hint; then the code.
fn refuse_all(context: &Context, failures: &[Failure]) -> Ended {
    for failure in failures {
        context.talk.failure(failure);
    }
    Ended::Told(failures.first().map_or(ExitCode::General, |failure| failure.exit))
}
