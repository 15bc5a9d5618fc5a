//! Programs of a workflow's steps, as processes of this machine.

use std::ffi::OsString;
use std::io::ErrorKind;
use std::process::ExitStatus;
use std::sync::Arc;
use std::time::Duration;

use engine_process::{ProgramCommand, ProgramEar, ProgramError, Stream, run_program};
use workflow::{CallFailure, HearProgram, PortFuture, ProgramEnd, ProgramRequest, ProgramStream, RunProgram};
use workflow_spec::FailureKind;

/// How long a program may take to end after it was asked to.
const GRACE: Duration = Duration::from_secs(2);

/// What a program inherits: where things lie, who runs it and how they speak. Nothing that tends to hold a secret.
const INHERITED: &[&str] = &[
    "PATH",
    "HOME",
    "USER",
    "LOGNAME",
    "SHELL",
    "TMPDIR",
    "LANG",
    "LANGUAGE",
    "TZ",
    // Without these hardly anything runs on Windows.
    "TEMP",
    "TMP",
    "SYSTEMROOT",
    "SYSTEMDRIVE",
    "WINDIR",
    "COMSPEC",
    "PATHEXT",
    "USERNAME",
    "USERPROFILE",
    "APPDATA",
    "LOCALAPPDATA",
    "PROGRAMDATA",
    "PROGRAMFILES",
];
const INHERITED_FAMILY: &str = "LC_";

/// Runs programs in process groups of their own, with the few variables of this process's environment that
/// programs need anywhere.
pub struct Programs {
    environment: Vec<(OsString, OsString)>,
}

impl Programs {
    pub fn new() -> Self {
        Self { environment: std::env::vars_os().filter(|(name, _)| is_inherited(name)).collect() }
    }
}

impl Default for Programs {
    fn default() -> Self {
        Self::new()
    }
}

/// Names are told apart by case alone nowhere but on Unix, where those of Windows are not to be found.
fn is_inherited(name: &OsString) -> bool {
    let Some(name) = name.to_str().map(str::to_ascii_uppercase) else { return false };
    INHERITED.contains(&name.as_str()) || name.starts_with(INHERITED_FAMILY)
}

impl RunProgram for Programs {
    fn run(
        &self,
        request: ProgramRequest,
        ear: Arc<dyn HearProgram>,
    ) -> PortFuture<Result<ProgramEnd, CallFailure>> {
        let command = self.command(request);
        Box::pin(async move {
            let name = command.program.to_string_lossy().into_owned();
            let output =
                run_program(command, Arc::new(Ear(ear))).await.map_err(|error| failure(&name, &error))?;
            let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
            Ok(ProgramEnd {
                exit_code: output.status.code(),
                signal: signal_of(output.status),
                stdout: text(output.stdout),
                stderr: text(output.stderr),
            })
        })
    }
}

impl Programs {
    fn command(&self, request: ProgramRequest) -> ProgramCommand {
        let mut argv = request.argv.into_iter().map(OsString::from);
        let mut env = self.environment.clone();
        env.extend(request.env.into_iter().map(|(name, value)| (name.into(), value.into())));
        ProgramCommand {
            program: argv.next().unwrap_or_default(),
            args: argv.collect(),
            env,
            cwd: request.cwd,
            stdin: request.stdin.map(String::into_bytes),
            output_limit: request.output_limit,
            grace: GRACE,
        }
    }
}

struct Ear(Arc<dyn HearProgram>);

impl ProgramEar for Ear {
    fn hear(&self, stream: Stream, bytes: &[u8]) {
        let stream = match stream {
            Stream::Stdout => ProgramStream::Stdout,
            Stream::Stderr => ProgramStream::Stderr,
        };
        self.0.hear(stream, bytes);
    }
}

fn failure(name: &str, error: &ProgramError) -> CallFailure {
    let (kind, message) = match error {
        ProgramError::Start { source, .. } if source.kind() == ErrorKind::NotFound => (
            FailureKind::Tool,
            format!("cannot run {name}: there is no such program in PATH; install it, or give its path"),
        ),
        ProgramError::Start { source, .. } => (FailureKind::Tool, format!("cannot run {name}: {source}")),
        ProgramError::TooMuchOutput { limit, .. } => (
            FailureKind::Tool,
            format!("{name} said more than {limit} bytes and was ended; let it write a file"),
        ),
        ProgramError::Lost { source, .. } => {
            (FailureKind::Internal, format!("lost track of {name}: {source}"))
        }
    };
    let failure = CallFailure::new(kind, message);
    // One that was ended in the middle of its work may have done it.
    if matches!(error, ProgramError::TooMuchOutput { .. }) { failure.after_the_effect() } else { failure }
}

#[cfg(unix)]
fn signal_of(status: ExitStatus) -> Option<i32> {
    std::os::unix::process::ExitStatusExt::signal(&status)
}

#[cfg(not(unix))]
fn signal_of(_status: ExitStatus) -> Option<i32> {
    None
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    struct Deaf;

    impl HearProgram for Deaf {
        fn hear(&self, _stream: ProgramStream, _bytes: &[u8]) {}
    }

    #[allow(clippy::unwrap_used, reason = "in tests a panic is the answer")]
    async fn run(argv: &[&str], env: &[(&str, &str)]) -> Result<ProgramEnd, CallFailure> {
        let folder = tempfile::tempdir().unwrap();
        let request = ProgramRequest {
            argv: argv.iter().map(|&word| word.to_owned()).collect(),
            env: env.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
            stdin: None,
            cwd: folder.path().to_owned(),
            output_limit: 1000,
        };
        Programs::new().run(request, Arc::new(Deaf)).await
    }

    #[tokio::test]
    async fn a_program_inherits_the_way_to_other_programs_and_nothing_that_may_be_secret() {
        let end = run(&["env"], &[("GREETING", "hello")]).await.unwrap();
        let names: Vec<&str> = end.stdout.lines().filter_map(|line| line.split('=').next()).collect();
        assert!(names.contains(&"PATH") && names.contains(&"GREETING"), "{names:?}");
        // Set by whoever builds and tests this.
        assert!(!names.iter().any(|name| name.starts_with("CARGO")), "{names:?}");
    }

    #[tokio::test]
    async fn a_step_may_set_a_variable_that_would_be_inherited() {
        let end = run(&["sh", "-c", "echo $LANG"], &[("LANG", "tlh")]).await.unwrap();
        assert_eq!(end.stdout, "tlh\n");
    }

    #[tokio::test]
    async fn an_end_by_a_signal_is_told() {
        let end = run(&["sh", "-c", "kill -9 $$"], &[]).await.unwrap();
        assert_eq!((end.exit_code, end.signal), (None, Some(9)));
    }

    #[tokio::test]
    async fn what_cannot_be_run_and_what_talks_too_much_are_failures_of_the_tool() {
        let missing = run(&["no-such-program-anywhere"], &[]).await.unwrap_err();
        assert_eq!(missing.kind, FailureKind::Tool);
        assert!(missing.message.contains("no-such-program-anywhere"), "{missing}");
        let flood = run(&["yes"], &[]).await.unwrap_err();
        assert_eq!(flood.kind, FailureKind::Tool);
        assert!(flood.message.contains("1000 bytes"), "{flood}");
    }
}
