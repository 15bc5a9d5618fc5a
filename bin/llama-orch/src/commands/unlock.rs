//! `--force-unlock`: the end of whoever holds an instance's lock, if that is one of us.

use std::time::Duration;

use orch_core::{ExitCode, Failure, HomeLayout};
use orchestratord::daemon_file;

use crate::context::Context;
use crate::targets::Target;

/// A command that is asked to end does so at once, unless it hangs.
const GRACE: Duration = Duration::from_secs(2);

/// Ends the holder of the instance's lock. The start mark inside the lock was written by us, and so it proves that the
/// process is one of ours.
pub(super) fn force(context: &Context, target: &Target) -> Result<(), Failure> {
    let Some(instance) = &target.instance else {
        return Err(Failure::new(ExitCode::Usage, "locks are on the machine where the instances are"));
    };
    let home = context.home()?;
    let Some(holder) = engine_process::holder(&home.instance_lock(&instance.config.name)) else {
        return Ok(());
    };
    if is_daemon(home, holder.pid) {
        let message = format!("the lock of {} is held by the daemon (pid {})", target.name, holder.pid);
        return Err(Failure::new(ExitCode::LockNotAcquired, message)
            .hint("if it hangs: llama-orch daemon restart; engines keep running"));
    }
    let Some(mark) = holder.start_mark else {
        let message = format!("the lock of {} does not tell who holds it", target.name);
        return Err(
            Failure::new(ExitCode::LockNotAcquired, message).hint("find and end that process yourself")
        );
    };
    if engine_process::terminate_daemon(holder.pid, &mark, GRACE)? {
        context.talk.warning(&format!(
            "ended pid {} ({}) for the lock of {}",
            holder.pid, holder.operation, target.name
        ));
    }
    Ok(())
}

fn is_daemon(home: &HomeLayout, pid: u32) -> bool {
    daemon_file::living(home).is_some_and(|file| file.pid == pid)
}
