//! `--force-unlock`: the end of whoever holds an instance's lock, if that is one of us.

use std::time::Duration;

use engine_process::LockHolder;
use orch_core::{ExitCode, Failure, HomeLayout, InstanceName};
use orchestratord::client::DaemonClient;
use orchestratord::daemon_file;

use crate::context::Context;
use crate::runtime::block_on;
use crate::targets::Target;

/// A command that is asked to end does so at once, unless it hangs.
const GRACE: Duration = Duration::from_secs(2);

/// Before a step: says who has the instance's lock, or ends that process when it is forced. Returns whether the daemon
/// was ended, which the step then has to do without.
pub(super) fn before_step(context: &Context, target: &Target, force: bool) -> Result<bool, Failure> {
    let Some(name) = local_name(target) else {
        let refusal = "locks are on the machine where the instances are";
        return if force { Err(Failure::new(ExitCode::Usage, refusal)) } else { Ok(false) };
    };
    let home = context.home()?;
    let Some(holder) = engine_process::holder(&home.instance_lock(&name)) else { return Ok(false) };
    if force {
        return end(context, home, &name, &holder);
    }
    if !is_daemon(home, holder.pid) {
        context.talk.note(&format!("waiting for {name}: locked{holder}"));
    }
    Ok(false)
}

/// The name on this machine: of an instance, or of what is left of one.
fn local_name(target: &Target) -> Option<InstanceName> {
    match &target.instance {
        Some(instance) => Some(instance.config.name.clone()),
        None if target.remnant => InstanceName::new(&target.name).ok(),
        None => None,
    }
}

/// Ends the holder of a lock. The start mark inside the lock was written by us, and so it proves that the process is
/// one of ours. A daemon that answers does not hang: it lets go by itself.
fn end(
    context: &Context,
    home: &HomeLayout,
    name: &InstanceName,
    holder: &LockHolder,
) -> Result<bool, Failure> {
    let is_daemon = is_daemon(home, holder.pid);
    if is_daemon && answers(home) {
        context.talk.note(&format!("waiting for {name}: the daemon (pid {}) is busy with it", holder.pid));
        return Ok(false);
    }
    let Some(mark) = &holder.start_mark else {
        let message = format!("the lock of {name} does not tell who holds it");
        return Err(
            Failure::new(ExitCode::LockNotAcquired, message).hint("find and end that process yourself")
        );
    };
    if engine_process::terminate_daemon(holder.pid, mark, GRACE)? {
        context.talk.warning(&format!(
            "ended pid {} ({}) for the lock of {name}; engines keep running",
            holder.pid, holder.operation
        ));
    }
    Ok(is_daemon)
}

fn answers(home: &HomeLayout) -> bool {
    let Some(client) = DaemonClient::living(home) else { return false };
    block_on(async { Ok::<_, Failure>(client.is_healthy().await) }).unwrap_or(false)
}

fn is_daemon(home: &HomeLayout, pid: u32) -> bool {
    daemon_file::living(home).is_some_and(|file| file.pid == pid)
}
