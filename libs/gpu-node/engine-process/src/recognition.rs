//! Recognising an engine that somebody wrote down who knew no start marks: the older tool.

use std::time::Duration;

use orch_core::UnixMillis;

use crate::identity::{ProcessIdentity, ProcessSight, Sight, asked_port};
use crate::sys;

/// The program that the older tool starts, with or without an ending.
const PROGRAM: &str = "llama-server";
/// A process cannot have begun after it was written down; clocks that were set since then differ by little.
const TOLERANCE: Duration = Duration::from_mins(2);

/// The living process with this pid, if it is the engine that was written down: a `llama-server` that was told this
/// port, and that began before it was written down. `None` in every doubt.
pub fn recognise(pid: u32, port: Option<u16>, started_at: Option<UnixMillis>) -> Option<ProcessIdentity> {
    let Sight::Seen(process) = sys::sight(pid) else { return None };
    match_up(pid, &process, port, started_at, began(&process))
}

fn match_up(
    pid: u32,
    process: &ProcessSight,
    port: Option<u16>,
    started_at: Option<UnixMillis>,
    began: Option<UnixMillis>,
) -> Option<ProcessIdentity> {
    let executable = process.executable.clone()?;
    let program =
        executable.file_stem()?.to_str()?.trim_end_matches(".exe (deleted)").trim_end_matches(" (deleted)");
    let asked = asked_port(&process.args)?;
    let is_it = program == PROGRAM && port.is_none_or(|port| port == asked) && agree(started_at, began);
    is_it.then(|| ProcessIdentity { pid, started_at: process.started_at.clone(), executable, port: asked })
}

/// What is not known contradicts nothing.
fn agree(written: Option<UnixMillis>, seen: Option<UnixMillis>) -> bool {
    let (Some(written), Some(seen)) = (written, seen) else { return true };
    seen.since(written) <= TOLERANCE
}

/// When a process began by today's clock: its start mark counts from the boot.
#[cfg(target_os = "linux")]
fn began(process: &ProcessSight) -> Option<UnixMillis> {
    const TICKS_PER_SECOND: u64 = 100;
    let ticks: u64 = process.started_at.0.rsplit(':').next()?.parse().ok()?;
    let text = crate::private_files::read_bounded(std::path::Path::new("/proc/uptime"), 1024).ok()?;
    let uptime: f64 = std::str::from_utf8(&text).ok()?.split_ascii_whitespace().next()?.parse().ok()?;
    let age = Duration::try_from_secs_f64(uptime)
        .ok()?
        .saturating_sub(Duration::from_millis(ticks * 1000 / TICKS_PER_SECOND));
    let age = i64::try_from(age.as_millis()).ok()?;
    Some(UnixMillis(UnixMillis::now().0.saturating_sub(age)))
}

/// A start mark counts the units of 100 ns since the year 1601.
#[cfg(windows)]
fn began(process: &ProcessSight) -> Option<UnixMillis> {
    const PER_MILLISECOND: u64 = 10_000;
    const UNTIL_1970: i64 = 11_644_473_600_000;
    let units: u64 = process.started_at.0.parse().ok()?;
    Some(UnixMillis(i64::try_from(units / PER_MILLISECOND).ok()? - UNTIL_1970))
}

/// A start mark holds the clock's seconds.
#[cfg(all(unix, not(target_os = "linux")))]
fn began(process: &ProcessSight) -> Option<UnixMillis> {
    let seconds: i64 = process.started_at.0.rsplit(':').next()?.parse().ok()?;
    Some(UnixMillis(seconds.checked_mul(1000)?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::StartMark;

    const AT: UnixMillis = UnixMillis(1_700_000_000_000);

    fn later(by: Duration) -> UnixMillis {
        UnixMillis(AT.0 + i64::try_from(by.as_millis()).unwrap())
    }

    fn engine(executable: &str) -> ProcessSight {
        ProcessSight {
            started_at: StartMark("boot:100".to_owned()),
            executable: Some(executable.into()),
            args: ["x", "--port", "8001"].map(String::from).to_vec(),
        }
    }

    #[test]
    fn an_engine_is_recognised_by_program_port_and_time() {
        let it = engine("/opt/llama-server");
        let found = match_up(7, &it, Some(8001), Some(AT), Some(later(Duration::from_secs(2)))).unwrap();
        assert_eq!((found.pid, found.port, found.started_at.0.as_str()), (7, 8001, "boot:100"));
        assert!(
            match_up(7, &it, None, None, Some(AT)).is_some(),
            "what nobody wrote down contradicts nothing"
        );
        for program in ["/opt/llama-server (deleted)", "/opt/llama-server.exe"] {
            assert!(match_up(7, &engine(program), Some(8001), Some(AT), Some(AT)).is_some(), "{program}");
        }
    }

    #[test]
    fn another_port_another_program_or_another_time_is_somebody_else() {
        let it = engine("/opt/llama-server");
        assert!(match_up(7, &it, Some(8002), Some(AT), Some(AT)).is_none());
        assert!(match_up(7, &engine("/usr/bin/python3"), Some(8001), Some(AT), Some(AT)).is_none());
        assert!(match_up(7, &ProcessSight { args: vec![], ..it.clone() }, None, None, None).is_none());
        assert!(match_up(7, &ProcessSight { executable: None, ..it.clone() }, None, None, None).is_none());
        let began = later(Duration::from_hours(1));
        assert!(match_up(7, &it, Some(8001), Some(AT), Some(began)).is_none(), "its pid was used again");
    }

    #[test]
    fn this_process_began_before_now_and_not_long_ago() {
        let Sight::Seen(process) = sys::sight(std::process::id()) else { panic!("it cannot see itself") };
        let (began, now) = (began(&process).unwrap(), UnixMillis::now());
        assert!(now.since(began) < Duration::from_hours(1), "{began:?}, {now:?}");
        assert!(agree(Some(now), Some(began)));
    }
}
