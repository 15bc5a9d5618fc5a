//! The replicas of one instance, each with its supervisor, and how one answer is made of theirs.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures_util::future::join_all;
use instance_config::LoadedInstance;
use orch_core::{ExitCode, Failure, InstanceName, ReplicaId};
use tokio::sync::watch;

use crate::instance_lock::SharedLock;
use crate::record::named;
use crate::supervisor::{Answer, Command, SupervisorHandle};

/// What is looked after for one instance.
pub(crate) struct Pool {
    pub instance: LoadedInstance,
    pub lock: Arc<SharedLock>,
    pub members: BTreeMap<ReplicaId, Member>,
    /// How many it is to have.
    pub count: u16,
    /// Its config is gone while its engines run.
    pub gone: bool,
}

/// One replica.
pub(crate) struct Member {
    pub handle: SupervisorHandle,
    /// The instance has fewer replicas now; closes when this one is gone.
    pub leaving: Option<watch::Receiver<()>>,
}

impl Pool {
    pub(crate) fn new(instance: LoadedInstance) -> Self {
        Self { instance, lock: Arc::default(), members: BTreeMap::new(), count: 1, gone: false }
    }

    /// Those that stay, to be asked for something; `leaving` asks those too that are about to go.
    pub(crate) fn group(&self, leaving: bool) -> Group {
        let members = self.members.iter().filter(|(_, member)| leaving || member.leaving.is_none());
        Group {
            name: self.instance.config.name.clone(),
            members: members.map(|(replica, member)| (*replica, member.handle.clone())).collect(),
            leaving: self.members.values().filter_map(|member| member.leaving.clone()).collect(),
        }
    }

    pub(crate) async fn tell(&self, command: impl Fn() -> Command) {
        for member in self.members.values() {
            member.handle.tell(command()).await;
        }
    }
}

/// Replicas of one instance that are asked together.
pub(crate) struct Group {
    name: InstanceName,
    members: Vec<(ReplicaId, SupervisorHandle)>,
    leaving: Vec<watch::Receiver<()>>,
}

impl Group {
    pub(crate) fn name(&self) -> &InstanceName {
        &self.name
    }

    /// Whether there is more to it than one engine.
    pub(crate) fn is_several(&self) -> bool {
        self.members.len() > 1 || !self.leaving.is_empty()
    }

    /// Asks all at once and waits for all. `idle` is how one refuses that has nothing to do: it counts only when nobody
    /// had.
    pub(crate) async fn ask(
        &self,
        idle: ExitCode,
        command: impl Fn(Answer) -> Command,
    ) -> Result<(), Failure> {
        let asked = self.members.iter().map(|(replica, handle)| {
            let command = &command;
            async move { (*replica, handle.ask(command).await) }
        });
        together(&self.name, idle, join_all(asked).await)
    }

    /// Waits until those that are about to go are gone.
    pub(crate) async fn left(self) {
        for mut leaving in self.leaving {
            while leaving.changed().await.is_ok() {}
        }
    }
}

/// One answer for an instance: the first failure, with the name of its replica where there are several.
pub(crate) fn together<T>(
    name: &InstanceName,
    idle: ExitCode,
    results: Vec<(ReplicaId, Result<T, Failure>)>,
) -> Result<(), Failure> {
    let several = results.len() > 1;
    let somebody_did = results.iter().any(|(_, result)| result.is_ok());
    let mut failures: Vec<_> =
        results.into_iter().filter_map(|(replica, result)| Some((replica, result.err()?))).collect();
    let serious = failures.iter().position(|(_, failure)| failure.exit != idle);
    let (replica, failure) = match serious {
        Some(first) => failures.swap_remove(first),
        None if somebody_did || failures.is_empty() => return Ok(()),
        None => failures.swap_remove(0),
    };
    if !several {
        return Err(failure);
    }
    let message = named(&replica.display_name(name), &failure.message);
    Err(Failure { message, ..failure })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(results: &[Result<(), (ExitCode, &str)>]) -> Result<(), Failure> {
        let failure = |(exit, message): (ExitCode, &str)| Failure::new(exit, message);
        let results = results.iter().map(|result| result.map_err(failure));
        let numbered = (0..).map(ReplicaId).zip(results).collect();
        together(&InstanceName::new("chat").unwrap(), ExitCode::AlreadyRunning, numbered)
    }

    const IDLE: Result<(), (ExitCode, &str)> = Err((ExitCode::AlreadyRunning, "chat is already running"));
    const SICK: Result<(), (ExitCode, &str)> = Err((ExitCode::StartFailed, "it ended with code 1"));

    #[test]
    fn who_had_nothing_to_do_counts_only_when_nobody_had() {
        assert!(answer(&[IDLE, Ok(()), IDLE]).is_ok());
        assert_eq!(answer(&[IDLE, IDLE]).unwrap_err().exit, ExitCode::AlreadyRunning);
        assert_eq!(answer(&[IDLE, SICK]).unwrap_err().exit, ExitCode::StartFailed);
    }

    #[test]
    fn the_first_failure_is_told_with_the_name_of_its_replica() {
        assert_eq!(answer(&[Ok(()), SICK, SICK]).unwrap_err().message, "chat/1: it ended with code 1");
        assert_eq!(answer(&[SICK]).unwrap_err().message, "it ended with code 1");
    }
}
