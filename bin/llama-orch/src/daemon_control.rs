//! The daemon of a home: started so that it outlives the command, and ended.

use std::ffi::OsString;
use std::fs;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;
use std::time::{Duration, Instant};

use engine_process::{DetachedCommand, LockHolder};
use orch_core::{ExitCode, Failure, HomeLayout, UnixMillis};
use orch_runtime::environment;
use orchestratord::client::DaemonClient;
use orchestratord::daemon::{ADDR, DaemonOptions, load_settings, usable_settings};
use orchestratord::daemon_file::{self, DaemonFile};

use crate::runtime::block_on;

/// A daemon answers within a fraction of a second; a machine that swaps takes longer.
const START_LIMIT: Duration = Duration::from_secs(15);
const LOOK_PACE: Duration = Duration::from_millis(20);
/// What the daemon gives its requests to finish, where its settings cannot be read.
const USUAL_DRAIN: Duration = Duration::from_secs(4);
/// What the daemon takes for its end beyond that.
const GOODBYE: Duration = Duration::from_millis(800);
/// More of its last words than anybody reads.
const LAST_WORDS: u64 = 16 * 1024;
const LAST_LINES: usize = 5;

/// What a daemon of this home is started with.
pub(crate) fn options(home: &HomeLayout, addr: Option<&str>) -> DaemonOptions {
    let flags = addr.map(|addr| (ADDR, addr.to_owned())).into_iter().collect();
    DaemonOptions { home: home.clone(), flags }
}

/// Starts the daemon and waits until it answers. What can be known to stop it is told before anything is started.
pub(crate) fn start(home: &HomeLayout, addr: Option<&str>) -> Result<DaemonFile, Failure> {
    if let Some(living) = daemon_file::living(home) {
        return Err(already_running(&living));
    }
    match check_address(home, addr) {
        // Most likely by the daemon that another command is starting.
        Err(failure) if failure.exit == ExitCode::PortInUse && holder(home).is_some() => {
            block_on(await_other(home))?;
            check_address(home, addr)?;
        }
        checked => checked?,
    }
    if holder(home).is_some() {
        block_on(await_other(home))?;
    }
    instance_config::home::create(home).map_err(|error| not_done("cannot make the home", &error))?;
    let log = home.daemon_log();
    let before = fs::metadata(&log).map_or(0, |file| file.len());
    let executable = engine_process::default_shim_executable()
        .map_err(|error| failed(&format!("cannot find this program's own file: {error}")))?;
    let command = DetachedCommand {
        executable,
        args: arguments(home, addr),
        working_dir: Some(home.root().to_path_buf()),
        ..DetachedCommand::default()
    };
    let pid = engine_process::spawn_detached(&command, &log)
        .map_err(|error| not_done("cannot be started", &error))?;
    block_on(wait_until_it_answers(home, pid, before))
}

fn arguments(home: &HomeLayout, addr: Option<&str>) -> Vec<OsString> {
    let mut arguments: Vec<OsString> = vec!["--home".into(), home.root().into()];
    arguments.extend(["--color", "never", "daemon", "start", "--foreground"].map(OsString::from));
    arguments.extend(addr.into_iter().flat_map(|addr| [OsString::from("--addr"), addr.into()]));
    arguments
}

/// Refuses settings that cannot be used, and an address that somebody has already.
fn check_address(home: &HomeLayout, addr: Option<&str>) -> Result<(), Failure> {
    let address = usable_settings(&options(home, addr))?.orchestratord.addr;
    let port = address.port();
    if port == 0 || engine_process::is_free(&address.ip().to_string(), port) {
        return Ok(());
    }
    let holder = engine_process::holder_of(port).unwrap_or_default();
    let who = match (holder.pid, holder.program) {
        (Some(pid), Some(program)) => format!("held by {program} (pid {pid})"),
        (Some(pid), None) => format!("held by pid {pid}"),
        (None, _) => "held by another process, or not an address of this machine".to_owned(),
    };
    Err(Failure::new(ExitCode::PortInUse, format!("{address}, where the gateway is to listen, is {who}"))
        .hint(format!(
            "stop that process, or choose another address: {}=127.0.0.1:8090, or orchestratord.addr in {}",
            environment::ORCHESTRATORD_ADDR,
            home.settings().display()
        )))
}

/// Who has the place of this home's daemon, whatever its file says.
fn holder(home: &HomeLayout) -> Option<LockHolder> {
    engine_process::holder(&home.daemon_lock())
}

/// Another daemon has the place: waits until it is known, which is a refusal, or is gone. One that should be known
/// by now has lost its file, and is refused for at once.
async fn await_other(home: &HomeLayout) -> Result<(), Failure> {
    let begun = Instant::now();
    loop {
        if let Some(file) = daemon_file::living(home) {
            return Err(already_running(&file));
        }
        let Some(other) = holder(home) else { return Ok(()) };
        if begun.elapsed() >= START_LIMIT || has_held_for(&other, START_LIMIT) {
            return Err(running_unknown(ExitCode::DaemonAlreadyRunning, &other));
        }
        tokio::time::sleep(LOOK_PACE).await;
    }
}

fn has_held_for(holder: &LockHolder, limit: Duration) -> bool {
    UnixMillis::from_rfc3339(&holder.started_at).is_some_and(|taken| UnixMillis::now().since(taken) >= limit)
}

/// A daemon lives, but `run/daemon.json`, by which commands find it, is lost.
pub(crate) fn running_unknown(exit: ExitCode, holder: &LockHolder) -> Failure {
    let message = format!(
        "the daemon is running (pid {}), but its file run/daemon.json is lost or not yet written",
        holder.pid
    );
    Failure::new(exit, message).hint("mend it with: llama-orch daemon restart; engines keep running")
}

/// The daemon that lives without its file.
pub(crate) fn without_file(home: &HomeLayout) -> Option<LockHolder> {
    if daemon_file::living(home).is_some() { None } else { holder(home) }
}

async fn wait_until_it_answers(home: &HomeLayout, pid: u32, log_begin: u64) -> Result<DaemonFile, Failure> {
    let begun = Instant::now();
    loop {
        let ours_lives = engine_process::start_mark(pid).is_some();
        match daemon_file::living(home) {
            Some(file) if file.pid == pid => {
                if let Some(client) = DaemonClient::living(home)
                    && client.is_healthy().await
                {
                    return Ok(file);
                }
            }
            // Another one was quicker; ours has noticed, and nothing of this start is left behind.
            Some(file) if !ours_lives => return Err(already_running(&file)),
            // Another one may have been quicker and not yet be known: its file will tell who it is.
            None if !ours_lives && holder(home).is_none() => {
                return Err(start_failed(home, "it ended at once", log_begin));
            }
            _ => {}
        }
        if begun.elapsed() >= START_LIMIT {
            if let Some(other) = holder(home).filter(|other| !ours_lives && other.pid != pid) {
                return Err(running_unknown(ExitCode::DaemonAlreadyRunning, &other));
            }
            let why = format!("it does not answer after {} s", START_LIMIT.as_secs());
            return Err(start_failed(home, &why, log_begin));
        }
        tokio::time::sleep(LOOK_PACE).await;
    }
}

fn already_running(file: &DaemonFile) -> Failure {
    let message =
        format!("the daemon is already running: http://{} (pid {})", file.connect_address(), file.pid);
    Failure::new(ExitCode::DaemonAlreadyRunning, message)
}

fn failed(why: &str) -> Failure {
    Failure::new(ExitCode::DaemonStartFailed, format!("the daemon {why}"))
}

/// A home that may not be written to is told as such.
fn not_done(what: &str, error: &std::io::Error) -> Failure {
    let failure = failed(&format!("{what}: {error}"));
    match error.kind() {
        std::io::ErrorKind::PermissionDenied => Failure { exit: ExitCode::PermissionDenied, ..failure },
        _ => failure,
    }
}

fn start_failed(home: &HomeLayout, why: &str, log_begin: u64) -> Failure {
    let log = home.daemon_log();
    let lines = last_lines(&log, log_begin).unwrap_or_default();
    let said = if lines.is_empty() { String::new() } else { format!(": {}", lines.join(" / ")) };
    failed(&format!("did not start: {why}{said}")).hint(format!("see {}", log.display()))
}

/// What this start has written to the log, at its end.
fn last_lines(log: &Path, begin: u64) -> std::io::Result<Vec<String>> {
    let mut file = fs::File::open(log)?;
    let end = file.metadata()?.len();
    file.seek(SeekFrom::Start(begin.max(end.saturating_sub(LAST_WORDS))))?;
    let mut bytes = Vec::new();
    file.take(LAST_WORDS).read_to_end(&mut bytes)?;
    let text = String::from_utf8_lossy(&bytes);
    let lines: Vec<String> =
        text.lines().map(str::trim).filter(|line| !line.is_empty()).map(str::to_owned).collect();
    Ok(lines[lines.len().saturating_sub(LAST_LINES)..].to_vec())
}

/// The daemon that was ended.
pub(crate) struct Stopped {
    pub(crate) pid: u32,
    /// The address as it was given with `--addr`.
    pub(crate) addr_flag: Option<String>,
}

/// Ends the daemon and starts another, which gets the address that was given to the first with `--addr`. What would keep
/// the second from starting leaves the first in its place.
pub(crate) fn restart(home: &HomeLayout, addr: Option<&str>) -> Result<DaemonFile, Failure> {
    usable_settings(&options(home, addr))?;
    let kept = match stop(home) {
        Ok(stopped) => stopped.addr_flag,
        // Nothing to stop is nothing in the way.
        Err(failure) if failure.exit == ExitCode::DaemonNotRunning => None,
        Err(failure) => return Err(failure),
    };
    start(home, addr.or(kept.as_deref()))
}

/// Ends the daemon, also one that has lost its file; engines keep running. Fails with 60 when there is none.
pub(crate) fn stop(home: &HomeLayout) -> Result<Stopped, Failure> {
    let Some(file) = daemon_file::living(home) else {
        return stop_holder(home, &holder(home).ok_or_else(not_running)?);
    };
    engine_process::terminate_daemon(file.pid, &file.process_started_at, stop_grace(home))?;
    // One that had to be killed could not take its file with it.
    if daemon_file::read(&home.daemon_file()).is_some_and(|left| left.pid == file.pid) {
        let _ = fs::remove_file(home.daemon_file());
    }
    Ok(Stopped { pid: file.pid, addr_flag: file.addr_flag })
}

/// The lock's text says who holds it; the start mark in it proves that this process is the one.
fn stop_holder(home: &HomeLayout, holder: &LockHolder) -> Result<Stopped, Failure> {
    let Some(started_at) = &holder.start_mark else {
        let message = "a daemon is running, but nothing tells which process it is";
        return Err(Failure::new(ExitCode::DaemonStopFailed, message)
            .hint(format!("see who holds {}", home.daemon_lock().display())));
    };
    engine_process::terminate_daemon(holder.pid, started_at, stop_grace(home))?;
    Ok(Stopped { pid: holder.pid, addr_flag: None })
}

/// Just longer than a daemon that is well takes for its end.
fn stop_grace(home: &HomeLayout) -> Duration {
    let drain = load_settings(&options(home, None)).map_or(USUAL_DRAIN, |settings| settings.limits.drain);
    drain.saturating_add(GOODBYE)
}

pub(crate) fn not_running() -> Failure {
    Failure::new(ExitCode::DaemonNotRunning, "the daemon is not running")
        .hint("start it with: llama-orch daemon start")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_home_that_may_not_be_written_to_has_its_own_code() {
        use std::io::ErrorKind;
        let exit = |kind: ErrorKind| not_done("cannot make the home", &kind.into()).exit;
        assert_eq!(exit(ErrorKind::PermissionDenied), ExitCode::PermissionDenied);
        assert_eq!(exit(ErrorKind::StorageFull), ExitCode::DaemonStartFailed);
    }

    #[test]
    fn the_last_words_are_those_of_this_start() {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("daemon.log");
        fs::write(&log, "old\nnew 1\n\nnew 2\n").unwrap();
        assert_eq!(last_lines(&log, 4).unwrap(), ["new 1", "new 2"]);
        fs::write(&log, "x\n".repeat(20_000)).unwrap();
        assert_eq!(last_lines(&log, 0).unwrap().len(), LAST_LINES);
    }
}
