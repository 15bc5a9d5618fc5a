//! What is kept: the database, the times in it, and logs.

use engine_process::{LARGE_LOGS, total_size};
use orch_core::{Failure, HomeLayout, UnixMillis};
use state_store::{DatabaseKind, EventQuery, StateReader};

use super::Diagnosis;
use crate::context::Context;

/// Nothing of ours is older: a clock before this was never set.
const EARLIEST: UnixMillis = UnixMillis(1_735_689_600_000);
/// Clocks are adjusted by moments all the time.
const TOLERANCE_MS: i64 = 60_000;

pub(super) fn check(context: &Context) -> Vec<Diagnosis> {
    let Ok(home) = context.home() else { return Vec::new() };
    let mut found = Vec::new();
    let reader = match context.reader() {
        Ok(None) => {
            found.push(Diagnosis::ok("database", "there is none yet"));
            None
        }
        Ok(Some(reader)) => {
            found.push(database(&reader));
            found.extend(older(home));
            Some(reader)
        }
        Err(failure) => {
            found.push(Diagnosis::of("database", &failure));
            None
        }
    };
    found.push(clock(UnixMillis::now(), reader.as_ref().and_then(newest_event)));
    if home.logs().is_dir() {
        found.push(logs(total_size(&home.logs())));
    }
    found
}

fn database(reader: &StateReader) -> Diagnosis {
    match reader.check() {
        Ok(()) => Diagnosis::ok("database", "every page of it is sound"),
        Err(error) => Diagnosis::of("database", &Failure::from(error)),
    }
}

fn older(home: &HomeLayout) -> Option<Diagnosis> {
    match state_store::inspect(home) {
        Ok(DatabaseKind::Older { version }) => {
            let message = format!("it is of the older tool (version {version}); it is read as it is");
            Some(
                Diagnosis::info("database", message)
                    .mend("llama-orch config migrate shows what would change"),
            )
        }
        _ => None,
    }
}

fn newest_event(reader: &StateReader) -> Option<UnixMillis> {
    let query = EventQuery {
        instance: None,
        minimum_level: None,
        event_type: None,
        since: None,
        after_id: None,
        limit: 1,
        newest_first: true,
    };
    reader.events(&query).ok()?.first().map(|event| event.ts)
}

fn clock(now: UnixMillis, newest_event: Option<UnixMillis>) -> Diagnosis {
    if now < EARLIEST {
        return Diagnosis::error("clock", format!("it says {}", now.to_rfc3339()))
            .mend("set the clock (timedatectl set-ntp true): logs, events and certificates need it");
    }
    match newest_event.filter(|event| event.0 > now.0.saturating_add(TOLERANCE_MS)) {
        Some(event) => {
            let message =
                format!("it says {}, but the newest event is of {}", now.to_rfc3339(), event.to_rfc3339());
            Diagnosis::warning("clock", message).mend("it was set back, or was wrong before: check it")
        }
        None => Diagnosis::ok("clock", now.to_rfc3339()),
    }
}

fn logs(size: orch_core::ByteCount) -> Diagnosis {
    if size > LARGE_LOGS {
        return Diagnosis::warning("logs", format!("they take {size}"))
            .mend("llama-orch logs clean, or smaller logs.max_size_mb and logs.rotation");
    }
    Diagnosis::ok("logs", format!("they take {size}"))
}

#[cfg(test)]
mod tests {
    use super::super::Severity;
    use super::*;

    #[test]
    fn a_clock_that_was_set_back_or_never_is_noticed() {
        let now = UnixMillis(EARLIEST.0 + 1_000_000);
        let later = |milliseconds| Some(UnixMillis(now.0 + milliseconds));
        assert_eq!(clock(now, None).severity, Severity::Ok);
        assert_eq!(clock(now, later(1000)).severity, Severity::Ok);
        assert_eq!(clock(now, later(TOLERANCE_MS + 1)).severity, Severity::Warning);
        assert_eq!(clock(UnixMillis(1000), None).severity, Severity::Error);
    }

    #[test]
    fn logs_over_a_gigabyte_are_told() {
        assert_eq!(logs(LARGE_LOGS).severity, Severity::Ok);
        assert_eq!(logs(orch_core::ByteCount(LARGE_LOGS.0 + 1)).severity, Severity::Warning);
    }
}
