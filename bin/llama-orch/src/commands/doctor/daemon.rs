//! The daemon: whether it lives and answers, its address, its service, and who holds locks.

use std::time::Duration;

use orch_core::{ExitCode, HomeLayout, InstanceName, UnixMillis};
use orchestratord::client::DaemonClient;
use orchestratord::daemon::load_settings;
use orchestratord::daemon_file::{self, DaemonFile};

use super::Diagnosis;
use crate::commands::service::installed_services;
use crate::daemon_control::{options, running_unknown, without_file};
use crate::runtime::block_on;
use crate::words::show_duration;

/// Steps under a lock take seconds; a lock that was held this long is held by something that hangs.
const LONG_HELD: Duration = Duration::from_mins(1);

pub(super) fn check(home: &HomeLayout) -> Vec<Diagnosis> {
    let mut found = match daemon_file::living(home) {
        Some(file) => living(home, &file),
        None => match without_file(home) {
            Some(holder) => {
                vec![Diagnosis::of("daemon", &running_unknown(ExitCode::DaemonUnreachable, &holder))]
            }
            None => vec![
                Diagnosis::info("daemon", "it does not run: nothing is restarted, and there is no gateway")
                    .mend("llama-orch daemon start"),
                address(home),
            ],
        },
    };
    for (scope, manager, place) in installed_services() {
        found.push(Diagnosis::ok("service", format!("{manager}, {scope}: {place}")));
    }
    found.extend(locks(home));
    found
}

fn living(home: &HomeLayout, file: &DaemonFile) -> Vec<Diagnosis> {
    let address = file.connect_address();
    let healthy = DaemonClient::living(home).is_some_and(|client| {
        block_on(async { Ok::<_, orch_core::Failure>(client.is_healthy().await) }).unwrap_or(false)
    });
    if !healthy {
        let message = format!("it lives (pid {}), but http://{address} does not answer", file.pid);
        return vec![
            Diagnosis::error("daemon", message).mend("llama-orch daemon restart; engines keep running"),
        ];
    }
    let own = env!("CARGO_PKG_VERSION");
    if file.version == own {
        return vec![Diagnosis::ok("daemon", format!("http://{address} (pid {}, version {own})", file.pid))];
    }
    let message = format!("it has version {}, this program {own}", file.version);
    vec![Diagnosis::warning("daemon", message).mend("llama-orch daemon restart; engines keep running")]
}

/// Where the gateway would listen.
fn address(home: &HomeLayout) -> Diagnosis {
    // Settings that cannot be used have their own finding.
    let Ok(settings) = load_settings(&options(home, None)) else {
        return Diagnosis::info("gateway", "its address is not known, see settings");
    };
    let address = settings.orchestratord.addr;
    if address.port() == 0 || engine_process::is_free(&address.ip().to_string(), address.port()) {
        return Diagnosis::ok("gateway", format!("{address} is free"));
    }
    let message = format!("{address}, where the gateway is to listen, is {}", holder_words(address.port()));
    Diagnosis::error("gateway", message)
        .mend(format!("end that program, or set orchestratord.addr in {}", home.settings().display()))
}

/// Who listens on a port, as far as the system tells.
pub(super) fn holder_words(port: u16) -> String {
    let holder = engine_process::holder_of(port).unwrap_or_default();
    match (holder.pid, holder.program) {
        (Some(pid), Some(program)) => format!("held by {program} (pid {pid})"),
        (Some(pid), None) => format!("held by pid {pid}"),
        _ => "held by another process, or not of an address of this machine".to_owned(),
    }
}

/// Locks of steps; those of engines are held as long as they live.
fn locks(home: &HomeLayout) -> Vec<Diagnosis> {
    let entries = std::fs::read_dir(home.locks()).into_iter().flatten().flatten();
    let mut found = Vec::new();
    for entry in entries {
        let Some(name) = entry.file_name().to_str().and_then(instance_of) else { continue };
        let Some(holder) = engine_process::holder(&entry.path()) else { continue };
        let since = UnixMillis::from_rfc3339(&holder.started_at);
        let held = since.map(|since| UnixMillis::now().since(since)).unwrap_or_default();
        if held < LONG_HELD {
            continue;
        }
        let message = format!("the lock of {name} is held{holder} for {}", show_duration(held.as_secs()));
        let mend = format!("if it hangs: llama-orch up {name} --force-unlock (or down, restart)");
        found.push(Diagnosis::warning("locks", message).mend(mend));
    }
    found
}

/// The instance whose steps a lock file is for.
fn instance_of(file: &str) -> Option<InstanceName> {
    InstanceName::new(file.strip_suffix(".lock")?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn locks_that_are_held_as_long_as_an_engine_lives_are_no_locks_of_steps() {
        let (name, home) = (InstanceName::new("chat").unwrap(), HomeLayout::new("/h"));
        let file = |path: std::path::PathBuf| path.file_name().unwrap().to_str().unwrap().to_owned();
        assert_eq!(instance_of(&file(home.instance_lock(&name))), Some(name.clone()));
        let engine = home.engine_lock(&name, orch_core::ReplicaId::FIRST);
        for other in [file(engine.with_extension("shim.lock")), file(engine), ".migrate.lock".to_owned()] {
            assert_eq!(instance_of(&other), None, "{other}");
        }
    }
}
