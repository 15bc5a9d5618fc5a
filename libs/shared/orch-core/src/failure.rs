//! Exit codes and the one shape in which a problem reaches a user.

use serde::{Deserialize, Serialize};

macro_rules! exit_codes {
    ($($variant:ident = $number:literal, $meaning:literal;)+) => {
        /// Process exit codes of the command line. The numbers are a contract with scripts and never change;
        /// the code always comes from an error's type, never from its text.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[repr(u8)]
        pub enum ExitCode {
            $(#[doc = $meaning] $variant = $number,)+
        }

        impl ExitCode {
            /// Every code, in ascending order: the documentation table is generated from it.
            pub const ALL: &'static [ExitCode] = &[$(ExitCode::$variant,)+];

            /// What the code means, as a short phrase.
            pub const fn meaning(self) -> &'static str {
                match self { $(ExitCode::$variant => $meaning,)+ }
            }

            /// The code for a number, if it is one of ours.
            pub const fn from_number(number: u8) -> Option<ExitCode> {
                match number { $($number => Some(ExitCode::$variant),)+ _ => None }
            }
        }
    };
}

exit_codes! {
    Success = 0, "success";
    General = 1, "general failure";
    Usage = 2, "usage error";
    Timeout = 4, "timed out";
    PermissionDenied = 5, "permission denied";
    ConfigNotFound = 10, "config not found";
    ConfigInvalid = 11, "config invalid";
    ConfigParse = 12, "config cannot be parsed";
    InstanceNotFound = 13, "instance not found";
    AlreadyExists = 14, "already exists";
    NotRunning = 20, "instance not running";
    AlreadyRunning = 21, "instance already running";
    Unhealthy = 22, "instance unhealthy";
    Starting = 23, "instance starting or loading";
    Stopping = 24, "instance stopping";
    Crashed = 25, "instance crashed";
    StartFailed = 30, "start failed";
    StopFailed = 31, "stop failed";
    ProcessNotFound = 32, "process not found";
    LockNotAcquired = 33, "lock not acquired";
    StateUnusable = 34, "state corrupt or too new";
    PortInUse = 40, "port in use";
    PortUnavailable = 41, "port unavailable";
    ConnectionRefused = 43, "connection refused";
    ConnectionTimeout = 44, "connection timed out";
    EngineNotFound = 50, "engine not found";
    EngineInvalid = 51, "engine invalid";
    DownloadFailed = 52, "download failed";
    InstallFailed = 53, "install failed";
    ModelNotFound = 54, "model not found";
    ModelInvalid = 55, "model invalid";
    DaemonNotRunning = 60, "daemon not running";
    DaemonAlreadyRunning = 61, "daemon already running";
    DaemonStartFailed = 62, "daemon start failed";
    DaemonStopFailed = 63, "daemon stop failed";
    DaemonUnreachable = 64, "daemon unreachable";
    JobFailed = 70, "job failed";
    JobSpecInvalid = 71, "job spec invalid";
    JobNotFound = 72, "job not found";
    JobAtGate = 73, "job waits at a gate";
    NodeNotFound = 80, "node not found";
    Unauthorized = 81, "unauthorized";
    Interrupted = 130, "interrupted";
}

impl ExitCode {
    /// The number handed to the operating system.
    pub const fn number(self) -> u8 {
        self as u8
    }
}

impl Serialize for ExitCode {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u8(self.number())
    }
}

impl<'de> Deserialize<'de> for ExitCode {
    /// An unknown number (a newer daemon's) reads as [`ExitCode::General`].
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let number = u8::deserialize(deserializer)?;
        Ok(ExitCode::from_number(number).unwrap_or(ExitCode::General))
    }
}

/// A problem as a user meets it: what happened, to what, and what to do next.
///
/// Library errors are their own enums; each converts into this at the edge, so that the command line and the
/// HTTP interface tell the same story with the same exit code.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// Decides the exit code, and through [`crate::ErrorCode`] the HTTP status.
    #[serde(rename = "exit_code")]
    pub exit: ExitCode,
    /// One lower-case sentence fragment without a final full stop.
    pub message: String,
    /// What to do next, as an imperative.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
}

impl Failure {
    pub fn new(exit: ExitCode, message: impl Into<String>) -> Self {
        Self { exit, message: message.into(), hint: None }
    }

    /// The same failure with advice attached.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Failure {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_exit_code_survives_its_number() {
        for code in ExitCode::ALL {
            assert_eq!(ExitCode::from_number(code.number()), Some(*code));
        }
    }

    #[test]
    fn a_failure_travels_as_json_with_its_exit_code_as_a_number() {
        let failure = Failure::new(ExitCode::PortInUse, "port 8001 is taken").hint("stop it");
        let json = serde_json::to_value(&failure).unwrap();
        assert_eq!(json["exit_code"], 40);
        assert_eq!(serde_json::from_value::<Failure>(json).unwrap(), failure);
    }

    #[test]
    fn an_exit_code_of_a_newer_version_reads_as_general() {
        let failure: Failure = serde_json::from_str(r#"{"exit_code":99,"message":"x"}"#).unwrap();
        assert_eq!(failure.exit, ExitCode::General);
    }
}
