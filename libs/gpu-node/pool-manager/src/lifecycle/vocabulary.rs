//! What the state machine hears, what it says, and the states between: plain data.

use std::time::{Duration, Instant};

use orch_core::{DesiredState, Failure, Health, RestartBackoff};

/// How the machine reacts to failures: the parts of a config that may change while the instance runs.
#[derive(Clone, Debug, PartialEq)]
pub struct Policy {
    /// `None`: never restart by itself.
    pub restart: Option<RestartBackoff>,
    /// Automatic restarts in a row before giving up.
    pub max_retries: u32,
    /// Running so long makes the next crash count as the first again.
    pub stable_after: Duration,
    /// Time between two probes of a ready engine.
    pub probe_interval: Duration,
    /// Time from the first failed probe to the next.
    pub retry_delay: Duration,
    /// Failed probes in a row before a restart.
    pub probe_retries: u32,
    /// Failed probes so soon after the start never count.
    pub start_period: Duration,
    /// A load without any sign of progress for so long has stalled.
    pub load_stall: Duration,
    /// How probing slows down from then on while the engine is unhealthy; `None`: it does not.
    pub probe_backoff: Option<RestartBackoff>,
}

/// What the process of this replica is doing.
#[derive(Clone, Debug, PartialEq)]
pub enum Phase {
    /// No process.
    Stopped,
    /// A launch is being carried out.
    Launching,
    /// The process lives and has never been ready.
    Loading { since: Instant, last_progress: Instant },
    /// The process lives and was ready once.
    Running { since: Instant, failed_probes: u32 },
    /// Waiting for the next automatic restart.
    BackingOff { until: Instant },
    /// A stop is being carried out.
    Stopping { then: AfterStop },
    /// The policy gave up, or is off.
    GaveUp,
    /// Never got as far as a process.
    Failed,
}

/// What follows a stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AfterStop {
    Rest,
    /// Start again because somebody asked.
    Start,
    /// Start again by the restart policy, because the engine was sick.
    Recover,
}

/// What a probe said.
#[derive(Clone, Debug, PartialEq)]
pub enum ProbeOutcome {
    Healthy,
    /// 503, or a refused port of a living process: never a failure. `progressed`: something grew since the last look.
    Loading {
        progressed: bool,
    },
    Failed {
        reason: String,
    },
}

/// Everything that can happen to a replica.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// Somebody wants it to run. `desired` is what is remembered: running, or on demand.
    Up {
        desired: DesiredState,
    },
    Down {
        force: bool,
    },
    Restart {
        desired: DesiredState,
        force: bool,
    },
    /// The instance is to have fewer replicas, without this one. What is wanted of the instance stays as it is.
    Retire,
    /// Requests wait for it: it is loaded, if it is wanted on demand.
    Load,
    /// Its place is needed, or nobody asks for it. What is wanted of it stays as it is.
    Unload,
    /// It should run, nothing of it is there, and nobody waits for it: the reconciler's own start.
    Wanted,
    /// A living engine that belongs to this replica was found; it was started so long ago.
    Adopted {
        ready: bool,
        age: Duration,
    },
    /// The engine that should be running was found gone, for the reason given.
    FoundDead {
        reason: String,
    },
    /// The pid that should be running belongs to somebody else by now.
    FoundForeign {
        reason: String,
    },
    Launched,
    /// `desired`: what is wanted according to the database. A refusal leaves the wish as it was.
    LaunchFailed {
        failure: Failure,
        desired: DesiredState,
    },
    Probed {
        outcome: ProbeOutcome,
    },
    /// It answers its probes, but neither its users nor a request of our own.
    Wedged {
        reason: String,
    },
    /// The process is gone without having been asked, and that is written down. `reason` is one line for people.
    Exited {
        reason: String,
    },
    Terminated {
        result: Result<(), Failure>,
    },
    Tick,
    PolicyChanged {
        policy: Box<Policy>,
    },
}

/// What the supervisor has to do, in order.
#[derive(Clone, Debug, PartialEq)]
pub enum Effect {
    /// `by_policy`: an automatic restart, which is counted and does not touch the desired state.
    Launch {
        by_policy: bool,
        desired: DesiredState,
    },
    /// A launch for requests that wait.
    Load,
    Terminate {
        force: bool,
    },
    /// The stop that is under way is to end at once.
    Hasten,
    /// Remember what is wanted without doing anything about it.
    RecordDesired {
        desired: DesiredState,
    },
    Probe,
    RecordReady,
    /// Health went along one arrow of [`follows`].
    RecordHealth {
        from: Health,
        to: Health,
        reason: Option<String>,
    },
    RecordStopped,
    /// It ran long enough for the restart counter to begin anew.
    RecordStable,
    /// A sick engine is about to be ended.
    RecordSick {
        reason: String,
    },
    RecordRestartScheduled {
        retry: Retry,
    },
    RecordGaveUp {
        reason: String,
    },
    /// With a retry the policy goes on trying.
    RecordStartFailed {
        failure: Failure,
        retry: Option<Retry>,
    },
    /// The row named a process of somebody else.
    RecordForeign {
        reason: String,
        retry: Option<Retry>,
    },
    RecordStopFailed {
        failure: Failure,
    },
    /// Answer those who wait for this replica to be ready, or to be gone.
    Settle {
        outcome: Outcome,
    },
}

/// An automatic restart to come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retry {
    /// How many there will have been in a row then.
    pub attempt: u32,
    pub delay: Duration,
}

/// How a wish ended.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    Ready,
    Stopped,
    Failed(Failure),
}
