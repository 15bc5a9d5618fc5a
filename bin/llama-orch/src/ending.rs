//! How a command ends when it does not simply succeed.

use std::io;

use orch_core::{ExitCode, Failure};

/// Every way out of a command but success.
#[derive(Debug)]
pub(crate) enum Ended {
    /// To be told, then the program ends with its code.
    Failure(Failure),
    /// The answer itself has told everything; only the code is left to give.
    Told(ExitCode),
    /// Whoever read our output has gone: no more to say, and nothing wrong.
    OutputClosed,
}

/// What a command returns.
pub(crate) type CommandResult = Result<(), Ended>;

impl Ended {
    /// Success for success, else the code.
    pub(crate) fn told(code: ExitCode) -> CommandResult {
        if code == ExitCode::Success { Ok(()) } else { Err(Ended::Told(code)) }
    }
}

impl From<Failure> for Ended {
    fn from(failure: Failure) -> Self {
        Ended::Failure(failure)
    }
}

/// Writing is the only input or output that commands do themselves without a better word for its failure.
impl From<io::Error> for Ended {
    fn from(error: io::Error) -> Self {
        if is_closed_output(&error) {
            return Ended::OutputClosed;
        }
        Failure::new(ExitCode::General, format!("cannot write the answer: {error}")).into()
    }
}

fn is_closed_output(error: &io::Error) -> bool {
    /// `ERROR_PIPE_NOT_CONNECTED`: some shells of Windows connect commands by named pipes.
    const NOT_CONNECTED: i32 = 233;
    error.kind() == io::ErrorKind::BrokenPipe
        || (cfg!(windows) && error.raw_os_error() == Some(NOT_CONNECTED))
}
