//! Where log lines go: to stderr, filtered by one variable.

use std::io::{self, IsTerminal};

use orch_core::{ExitCode, Failure};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::ParseError;

use crate::environment;

/// How a process logs.
#[derive(Clone, Debug)]
pub struct TelemetryOptions {
    /// The value of `LLAMA_ORCH_LOG`, which decides alone when it is there.
    pub filter: Option<String>,
    /// What counts without it: `warn` for a command, `info` for a daemon.
    pub default_filter: &'static str,
    /// Colour on a terminal; never elsewhere.
    pub color: bool,
}

/// Installs the process's log. To be called once, first thing in `main`.
pub fn init(options: &TelemetryOptions) -> Result<(), Failure> {
    let filter = filter(options).map_err(|error| {
        Failure::new(ExitCode::Usage, format!("{} cannot be read: {error}", environment::LOG))
            .hint("write a level (error, warn, info, debug, trace) or target=level pairs separated by commas")
    })?;
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(options.color && io::stderr().is_terminal())
        .with_writer(io::stderr)
        .try_init()
        .map_err(|error| Failure::new(ExitCode::General, format!("cannot start logging: {error}")))
}

fn filter(options: &TelemetryOptions) -> Result<EnvFilter, ParseError> {
    let chosen = options.filter.as_deref().map(str::trim).filter(|filter| !filter.is_empty());
    EnvFilter::try_new(chosen.unwrap_or(options.default_filter))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(filter: Option<&str>) -> TelemetryOptions {
        TelemetryOptions { filter: filter.map(str::to_owned), default_filter: "info", color: false }
    }

    #[test]
    fn the_variable_decides_and_an_empty_one_does_not_count() {
        assert_eq!(filter(&options(None)).unwrap().to_string(), "info");
        assert_eq!(filter(&options(Some(" "))).unwrap().to_string(), "info");
        assert_eq!(filter(&options(Some("debug"))).unwrap().to_string(), "debug");
    }

    #[test]
    fn a_filter_that_cannot_be_read_is_a_usage_error_that_names_the_variable() {
        let failure = init(&options(Some("gateway=loud"))).unwrap_err();
        assert_eq!(failure.exit, ExitCode::Usage);
        assert!(failure.message.contains("LLAMA_ORCH_LOG"), "{failure}");
    }
}
