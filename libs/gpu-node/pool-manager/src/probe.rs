//! Asking an engine how it is.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use engine_process::{ToolCommand, ToolError, ToolOutput};
use instance_config::{HealthCheck, HealthCheckType, is_inherited};
use orch_core::{ByteCount, redact_text};
use orch_runtime::{ProbeError, probe_get};

use crate::lifecycle::ProbeOutcome;

/// Everything that a probe of one engine needs.
#[derive(Clone, Debug)]
pub struct Prober {
    /// Host to connect to, never a wildcard.
    pub host: String,
    pub port: u16,
    pub api_key: Option<String>,
    pub check: HealthCheck,
    pub home: PathBuf,
}

/// One probe's answer.
#[derive(Clone, Debug)]
pub struct ProbeReport {
    pub outcome: ProbeOutcome,
    pub response_time: Duration,
}

impl Prober {
    /// Asks once. Never takes longer than the configured timeout.
    pub async fn probe(&self) -> ProbeReport {
        let begun = Instant::now();
        let outcome = match self.check.kind {
            HealthCheckType::Http => self.probe_http().await,
            HealthCheckType::Tcp => self.probe_tcp().await,
            HealthCheckType::Custom => self.probe_script().await,
        };
        let outcome = match outcome {
            ProbeOutcome::Failed { reason } => {
                ProbeOutcome::Failed { reason: redact_text(&reason, self.api_key.as_slice()) }
            }
            other => other,
        };
        ProbeReport { outcome, response_time: begun.elapsed() }
    }

    /// The second path is asked where the first one is not there. Both share the time.
    async fn probe_http(&self) -> ProbeOutcome {
        let both = async {
            let first = self.get(&self.check.path).await;
            let is_missing = match &first {
                Ok((404, _)) => !self.check.expected_status.contains(&404),
                Err(ProbeError::Refused) => true,
                _ => false,
            };
            if is_missing && self.check.path != FALLBACK_PATH { self.get(FALLBACK_PATH).await } else { first }
        };
        let answer = tokio::time::timeout(self.check.timeout, both).await;
        self.judge(answer.unwrap_or(Err(ProbeError::Timeout)))
    }

    async fn get(&self, path: &str) -> Result<(u16, String), ProbeError> {
        let path = if path.starts_with('/') { path.to_owned() } else { format!("/{path}") };
        let (key, limit) = (self.api_key.as_deref(), self.check.timeout);
        let answer = probe_get(&self.host, self.port, &path, key, limit).await?;
        Ok((answer.status, String::from_utf8_lossy(&answer.body).into_owned()))
    }

    fn judge(&self, answer: Result<(u16, String), ProbeError>) -> ProbeOutcome {
        match answer {
            Ok((status, body)) if self.check.expected_status.contains(&status) => self.judge_body(&body),
            Ok((503, _)) | Err(ProbeError::Refused) => ProbeOutcome::Loading { progressed: false },
            Ok((status, _)) => ProbeOutcome::Failed { reason: format!("HTTP {status}") },
            Err(error) => ProbeOutcome::Failed { reason: told(&error) },
        }
    }

    fn judge_body(&self, body: &str) -> ProbeOutcome {
        match &self.check.expected_body {
            Some(wanted) if !body.contains(wanted.as_str()) => {
                ProbeOutcome::Failed { reason: format!("the answer does not contain {wanted:?}") }
            }
            _ => ProbeOutcome::Healthy,
        }
    }

    async fn probe_tcp(&self) -> ProbeOutcome {
        let connect = tokio::net::TcpStream::connect((self.host.as_str(), self.port));
        match tokio::time::timeout(self.check.timeout, connect).await {
            Ok(Ok(_)) => ProbeOutcome::Healthy,
            Ok(Err(error)) if error.kind() == std::io::ErrorKind::ConnectionRefused => {
                ProbeOutcome::Loading { progressed: false }
            }
            Ok(Err(error)) => ProbeOutcome::Failed { reason: error.to_string() },
            Err(_) => ProbeOutcome::Failed { reason: "connecting timed out".to_owned() },
        }
    }

    async fn probe_script(&self) -> ProbeOutcome {
        let Some(script) = &self.check.custom_script else {
            return ProbeOutcome::Failed { reason: "no healthcheck.custom_script is set".to_owned() };
        };
        let script = script.replace("{host}", &self.host).replace("{port}", &self.port.to_string());
        let command = shell(&script, &self.home);
        let limit = self.check.timeout;
        let run = move || engine_process::run_tool(&command, limit, &mut |_| {});
        let reason = match tokio::task::spawn_blocking(run).await {
            Ok(Ok(output)) if output.status.success() => return ProbeOutcome::Healthy,
            Ok(Ok(output)) => format!("the script ended with {}{}", output.status, last_line(&output)),
            Ok(Err(ToolError::Timeout { .. })) => format!("the script took longer than {limit:?}"),
            Ok(Err(error)) => error.to_string(),
            Err(error) => error.to_string(),
        };
        ProbeOutcome::Failed { reason }
    }
}

/// An error with the cause that it wraps.
fn told(error: &ProbeError) -> String {
    match error {
        ProbeError::Io(source) => format!("{error}: {source}"),
        _ => error.to_string(),
    }
}

/// What a script said last, as far as it fits a line.
fn last_line(output: &ToolOutput) -> String {
    let mut lines = output.stderr.lines().rev().chain(output.stdout.lines().rev());
    let last = lines.find(|line| !line.trim().is_empty());
    last.map_or(String::new(), |line| format!(": {}", line.trim().chars().take(200).collect::<String>()))
}

/// The script as the system's shell runs it, in the home. It is the user's own, but it comes with a config that
/// somebody else may have written: keys and tokens of the daemon's environment are as little its business as an
/// engine's.
fn shell(script: &str, home: &Path) -> ToolCommand {
    let (program, flag) = if cfg!(windows) { ("cmd", "/C") } else { ("sh", "-c") };
    ToolCommand {
        program: program.into(),
        args: vec![flag.into(), script.into()],
        env: std::env::vars_os().filter(|(name, _)| is_inherited(&name.to_string_lossy())).collect(),
        clear_env: true,
        cwd: Some(home.to_path_buf()),
    }
}

const FALLBACK_PATH: &str = "/v1/health";

/// Signs of life of a loading engine: as long as one of them grows, it has not stalled.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct LoadProgress {
    stderr_bytes: u64,
    memory: ByteCount,
    bytes_read: u64,
}

impl LoadProgress {
    /// Looks now.
    pub(crate) fn look(pid: u32, stderr_log: &Path) -> Self {
        Self {
            stderr_bytes: std::fs::metadata(stderr_log).map_or(0, |file| file.len()),
            memory: engine_process::rss_bytes(pid).unwrap_or_default(),
            bytes_read: engine_process::bytes_read(pid).unwrap_or_default(),
        }
    }

    /// Whether anything grew between two looks. A rotated log file that shrank counts: it was written to.
    pub(crate) fn grew_since(self, earlier: Self) -> bool {
        self.stderr_bytes != earlier.stderr_bytes
            || self.memory > earlier.memory
            || self.bytes_read > earlier.bytes_read
    }
}

#[cfg(test)]
#[path = "probe_tests.rs"]
mod tests;
