use orch_core::RestartBackoff;
use proptest::prelude::*;

use super::*;

#[path = "lifecycle/health_tests.rs"]
mod health;

fn policy() -> Policy {
    Policy {
        restart: Some(RestartBackoff {
            initial: Duration::from_secs(1),
            max: Duration::from_secs(300),
            multiplier: 2.0,
            jitter: 0.0,
        }),
        max_retries: 3,
        stable_after: Duration::from_secs(300),
        probe_interval: Duration::from_secs(10),
        retry_delay: Duration::from_secs(1),
        probe_retries: 3,
        start_period: Duration::from_secs(60),
        load_stall: Duration::from_secs(300),
        probe_backoff: None,
    }
}

/// A machine with its own clock, so that tests read as stories.
struct Story {
    machine: Lifecycle,
    now: Instant,
    effects: Vec<Effect>,
}

impl Story {
    fn new() -> Self {
        Self {
            machine: Lifecycle::new(policy(), DesiredState::Stopped, 0),
            now: Instant::now(),
            effects: Vec::new(),
        }
    }

    fn then(&mut self, event: Event) -> &mut Self {
        self.effects = self.machine.step(event, self.now, 0.5);
        self
    }

    fn after(&mut self, seconds: u64) -> &mut Self {
        self.now += Duration::from_secs(seconds);
        self
    }

    fn up(&mut self) -> &mut Self {
        self.then(Event::Up { desired: DesiredState::Running })
    }

    fn running(&mut self) -> &mut Self {
        self.up().then(Event::Launched).then(healthy())
    }

    fn crash(&mut self) -> &mut Self {
        self.then(Event::Exited { reason: "exit code 1".to_owned() })
    }

    fn scheduled_delay(&self) -> Option<u64> {
        self.effects.iter().find_map(|effect| match effect {
            Effect::RecordRestartScheduled { retry }
            | Effect::RecordStartFailed { retry: Some(retry), .. }
            | Effect::RecordForeign { retry: Some(retry), .. } => Some(retry.delay.as_secs()),
            _ => None,
        })
    }

    fn has(&self, wanted: fn(&Effect) -> bool) -> bool {
        self.effects.iter().any(wanted)
    }
}

fn healthy() -> Event {
    Event::Probed { outcome: ProbeOutcome::Healthy }
}

fn failed_probe() -> Event {
    Event::Probed { outcome: ProbeOutcome::Failed { reason: "HTTP 500".to_owned() } }
}

fn loading(progressed: bool) -> Event {
    Event::Probed { outcome: ProbeOutcome::Loading { progressed } }
}

#[test]
fn up_launches_loads_and_settles_when_the_first_probe_is_good() {
    let mut story = Story::new();
    story.up();
    assert_eq!(story.effects, [Effect::Launch { by_policy: false, desired: DesiredState::Running }]);
    assert_eq!(story.machine.status(), Status::Starting);
    story.then(Event::Launched).then(loading(true));
    assert!(!story.machine.is_routable());
    story.then(healthy());
    assert!(story.effects.contains(&Effect::Settle { outcome: Outcome::Ready }));
    assert!(story.machine.is_routable());
}

#[test]
fn a_crash_is_restarted_with_growing_delays_until_the_policy_gives_up() {
    let mut story = Story::new();
    story.running();
    let mut delays = Vec::new();
    for _ in 0..3 {
        story.crash();
        delays.push(story.scheduled_delay());
        story.after(400).then(Event::Tick).then(Event::Launched);
    }
    assert_eq!(delays, [Some(1), Some(2), Some(4)]);
    story.crash();
    assert!(story.has(|effect| matches!(effect, Effect::RecordGaveUp { .. })));
    assert_eq!(story.machine.status(), Status::Crashed);
}

#[test]
fn a_restart_waits_for_its_delay() {
    let mut story = Story::new();
    story.running().crash();
    story.then(Event::Tick);
    assert!(story.effects.is_empty());
    story.after(1).then(Event::Tick);
    assert_eq!(story.effects, [Effect::Launch { by_policy: true, desired: DesiredState::Running }]);
}

#[test]
fn running_long_enough_makes_the_next_crash_count_as_the_first() {
    let mut story = Story::new();
    story.running().crash().after(1).then(Event::Tick).then(Event::Launched).then(healthy());
    story.after(300).crash();
    assert_eq!(story.scheduled_delay(), Some(1));
}

#[test]
fn a_user_s_down_is_not_a_crash() {
    let mut story = Story::new();
    story.running().then(Event::Down { force: false });
    assert!(story.has(|effect| matches!(effect, Effect::Terminate { .. })));
    story.crash();
    assert!(story.effects.is_empty(), "the exit belongs to the stop");
    story.then(Event::Terminated { result: Ok(()) });
    assert_eq!(story.machine.status(), Status::Stopped);
    assert_eq!(story.machine.next_tick(), None);
}

#[test]
fn the_wish_of_a_down_is_written_before_anything_is_stopped() {
    let mut story = Story::new();
    story.running().then(Event::Down { force: false });
    let wish = Effect::RecordDesired { desired: DesiredState::Stopped };
    assert_eq!(story.effects, [wish, Effect::Terminate { force: false }]);
}

#[test]
fn a_forced_down_hastens_the_stop_that_is_under_way() {
    let mut story = Story::new();
    story.running().then(Event::Down { force: false }).then(Event::Down { force: false });
    assert!(!story.has(|effect| *effect == Effect::Hasten));
    story.then(Event::Down { force: true });
    assert!(story.has(|effect| *effect == Effect::Hasten));
}

#[test]
fn the_restart_counter_begins_anew_once_and_says_so() {
    let mut story = Story::new();
    story.running().crash().after(1).then(Event::Tick).then(Event::Launched).then(healthy());
    story.after(300).then(healthy());
    assert!(story.has(|effect| *effect == Effect::RecordStable));
    story.then(healthy());
    assert!(!story.has(|effect| *effect == Effect::RecordStable));
}

#[test]
fn down_cancels_a_waiting_restart() {
    let mut story = Story::new();
    story.running().crash().then(Event::Down { force: false });
    story.after(1000).then(Event::Tick);
    assert!(story.effects.is_empty());
    story.then(Event::Terminated { result: Ok(()) });
    assert_eq!(story.machine.status(), Status::Stopped);
    story.after(1000).then(Event::Tick);
    assert!(story.effects.is_empty());
}

#[test]
fn down_looks_for_an_engine_even_where_none_is_known_of() {
    for crashed in [false, true] {
        let mut story = Story::new();
        if crashed {
            story.running().crash();
        }
        story.then(Event::Down { force: true });
        let wish = Effect::RecordDesired { desired: DesiredState::Stopped };
        assert_eq!(story.effects, [wish, Effect::Terminate { force: true }]);
    }
}

#[test]
fn down_during_a_launch_stops_the_engine_as_soon_as_it_exists() {
    let mut story = Story::new();
    story.up().then(Event::Down { force: false }).then(Event::Launched);
    assert!(story.has(|effect| matches!(effect, Effect::Terminate { .. })));
    story.then(Event::Terminated { result: Ok(()) });
    assert_eq!(story.machine.status(), Status::Stopped);
}

#[test]
fn up_during_a_stop_starts_again_afterwards() {
    let mut story = Story::new();
    story.running().then(Event::Down { force: false }).up().then(Event::Terminated { result: Ok(()) });
    assert!(story.has(|effect| matches!(effect, Effect::Launch { by_policy: false, .. })));
}

#[test]
fn a_load_that_makes_progress_is_never_stalled() {
    let mut story = Story::new();
    story.up().then(Event::Launched);
    for _ in 0..100 {
        story.after(100).then(loading(true));
        assert_eq!(story.machine.status(), Status::Starting);
    }
}

#[test]
fn a_load_without_progress_is_ended_and_restarted_by_policy() {
    let mut story = Story::new();
    story.up().then(Event::Launched).after(299).then(loading(false));
    assert_eq!(story.machine.status(), Status::Starting);
    story.after(1).then(loading(false));
    assert!(story.has(|effect| matches!(effect, Effect::Terminate { .. })));
    story.then(Event::Terminated { result: Ok(()) });
    assert_eq!(story.scheduled_delay(), Some(1));
}

#[test]
fn failed_probes_restart_only_after_the_start_period_and_in_a_row() {
    let mut story = Story::new();
    story.running();
    for _ in 0..10 {
        story.then(failed_probe());
    }
    assert_eq!(story.machine.health, Health::Unhealthy, "inside the start period nothing counts");
    story.after(60).then(failed_probe()).then(failed_probe()).then(healthy());
    story.then(failed_probe()).then(failed_probe());
    assert_eq!(story.machine.status(), Status::Running);
    story.then(failed_probe());
    assert_eq!(story.machine.status(), Status::Stopping);
    assert!(story.has(|effect| matches!(effect, Effect::RecordHealth { to: Health::Error, .. })));
}

#[test]
fn an_engine_that_was_ready_and_refuses_for_long_is_recovered() {
    let mut story = Story::new();
    story.running().then(loading(false)).after(299).then(loading(false));
    assert_eq!(story.machine.status(), Status::Running, "a refused port alone is never a failure");
    story.then(healthy()).then(loading(false)).after(299).then(loading(false));
    assert_eq!(story.machine.status(), Status::Running, "a good answer in between begins anew");
    story.after(1).then(loading(false));
    assert!(story.has(|effect| matches!(effect, Effect::Terminate { .. })));
}

#[test]
fn an_on_demand_instance_that_crashes_waits_for_its_next_request() {
    let mut story = Story::new();
    story.then(Event::Up { desired: DesiredState::OnDemand }).then(Event::Launched).then(healthy()).crash();
    assert_eq!(story.scheduled_delay(), None);
    assert_eq!(story.machine.status(), Status::Crashed);
}

#[test]
fn a_refused_first_start_settles_as_an_error_and_is_not_retried() {
    let mut story = Story::new();
    let failure = Failure::new(ExitCode::PortInUse, "port 8001 is taken");
    let desired = DesiredState::Stopped;
    story.up().then(Event::LaunchFailed { failure: failure.clone(), desired });
    assert!(story.effects.contains(&Effect::Settle { outcome: Outcome::Failed(failure) }));
    assert_eq!(story.machine.status(), Status::Error);
    assert_eq!(story.machine.next_tick(), None);
    assert_eq!(story.machine.desired, DesiredState::Stopped, "a refusal leaves the wish as it was");
}

#[test]
fn a_restart_by_policy_that_cannot_spawn_is_tried_again() {
    let mut story = Story::new();
    story.running().crash().after(1).then(Event::Tick);
    story.then(refused(ExitCode::EngineNotFound));
    assert_eq!(story.scheduled_delay(), Some(2));
}

fn refused(exit: ExitCode) -> Event {
    Event::LaunchFailed { failure: Failure::new(exit, "refused"), desired: DesiredState::Running }
}

#[test]
fn a_taken_port_of_a_wanted_instance_is_waited_for_by_policy_whoever_asked() {
    for asked in [true, false] {
        let mut story = Story::new();
        story.machine.desired = DesiredState::Running;
        if asked {
            story.up()
        } else {
            story.then(Event::Wanted)
        };
        for delay in [1, 2, 4] {
            story.then(refused(ExitCode::PortInUse));
            assert_eq!((story.scheduled_delay(), story.machine.status()), (Some(delay), Status::Starting));
            story.after(delay).then(Event::Tick);
        }
        story.then(refused(ExitCode::PortInUse));
        let gave_up = story.effects.iter().filter(|it| matches!(it, Effect::RecordGaveUp { .. })).count();
        assert_eq!((gave_up, story.machine.status()), (1, Status::Crashed));
        assert_eq!(story.machine.next_tick(), None);
    }
}

#[test]
fn what_only_the_user_can_mend_is_not_tried_again_for_a_user_and_is_for_the_reconciler() {
    let mut story = Story::new();
    story.machine.desired = DesiredState::Running;
    story.up().then(refused(ExitCode::ModelNotFound));
    assert_eq!((story.scheduled_delay(), story.machine.status()), (None, Status::Error));
    story.then(Event::Wanted).then(refused(ExitCode::ModelNotFound));
    assert_eq!((story.scheduled_delay(), story.machine.status()), (Some(1), Status::Starting));
}

#[test]
fn somebody_else_s_pid_is_told_once_and_followed_by_a_restart_by_policy() {
    let mut story = Story::new();
    story.machine.desired = DesiredState::Running;
    story.then(Event::FoundForeign { reason: "reused".to_owned() });
    let retry = Retry { attempt: 1, delay: Duration::from_secs(1) };
    assert_eq!(story.effects, [Effect::RecordForeign { reason: "reused".to_owned(), retry: Some(retry) }]);
    story.after(1).then(Event::Tick);
    assert_eq!(story.effects, [Effect::Launch { by_policy: true, desired: DesiredState::Running }]);
}

#[test]
fn an_adopted_engine_is_as_stable_as_it_is_old() {
    let mut story = Story::new();
    story.after(1000);
    story.machine.desired = DesiredState::Running;
    story.machine.attempts = 2;
    story.then(Event::Adopted { ready: true, age: Duration::from_secs(301) }).crash();
    assert_eq!(story.scheduled_delay(), Some(1));
}

#[test]
fn a_stop_that_fails_leaves_the_engine_watched() {
    let mut story = Story::new();
    story.running().then(Event::Down { force: false });
    let failure = Failure::new(ExitCode::StopFailed, "not ours");
    story.then(Event::Terminated { result: Err(failure) });
    assert_eq!(story.machine.status(), Status::Running);
    assert!(story.machine.next_tick().is_some());
}

fn remembers(story: &Story) -> bool {
    story.effects.iter().any(|effect| matches!(effect, Effect::RecordDesired { .. }))
}

#[test]
fn a_replica_that_is_retired_ends_and_says_nothing_about_what_is_wanted() {
    let mut story = Story::new();
    story.running().then(Event::Retire);
    assert_eq!(story.effects, [Effect::Terminate { force: false }]);
    story.then(Event::Terminated { result: Ok(()) });
    assert_eq!((story.machine.status(), story.machine.next_tick()), (Status::Stopped, None));

    let mut story = Story::new();
    story.up().then(Event::Retire).then(Event::Launched);
    assert_eq!(story.effects, [Effect::Terminate { force: false }], "the launch is not interrupted");
}

#[test]
fn a_replica_that_is_wanted_again_while_it_retires_starts_anew() {
    let mut story = Story::new();
    story.running().then(Event::Retire).then(Event::Up { desired: DesiredState::Running });
    story.then(Event::Terminated { result: Ok(()) });
    assert!(story.effects.contains(&Effect::Launch { by_policy: false, desired: DesiredState::Running }));
    story.then(Event::Launched).then(healthy()).then(Event::Down { force: false });
    assert!(remembers(&story), "it is the instance's again");
}

#[test]
fn a_stop_during_a_launch_is_remembered_after_it_too() {
    let mut story = Story::new();
    story.up().then(Event::Down { force: false }).then(Event::Launched);
    assert!(remembers(&story), "the launch may have written the older wish down in between");
}

fn wedged() -> Event {
    Event::Wedged { reason: "3 requests in a row failed".to_owned() }
}

fn any_event() -> impl Strategy<Value = Event> {
    prop_oneof![
        Just(Event::Up { desired: DesiredState::Running }),
        Just(Event::Up { desired: DesiredState::OnDemand }),
        any::<bool>().prop_map(|force| Event::Down { force }),
        Just(Event::Retire),
        Just(Event::Restart { desired: DesiredState::Running, force: false }),
        any::<bool>().prop_map(|ready| Event::Adopted { ready, age: Duration::ZERO }),
        Just(Event::Launched),
        Just(refused(ExitCode::EngineNotFound)),
        Just(refused(ExitCode::PortInUse)),
        Just(Event::Wanted),
        Just(healthy()),
        Just(failed_probe()),
        any::<bool>().prop_map(loading),
        Just(wedged()),
        Just(Event::Exited { reason: "exit".to_owned() }),
        Just(Event::Terminated { result: Ok(()) }),
        Just(Event::Tick),
    ]
}

/// What the outside world would really do: jobs answer what was asked, and only while they run.
fn is_possible(phase: &Phase, event: &Event) -> bool {
    match event {
        Event::Launched | Event::LaunchFailed { .. } => *phase == Phase::Launching,
        Event::Terminated { .. } => matches!(phase, Phase::Stopping { .. }),
        Event::Adopted { .. } => *phase == Phase::Stopped,
        _ => true,
    }
}

proptest! {
    #[test]
    fn a_process_is_launched_only_when_none_exists_and_terminated_only_when_one_does_or_somebody_asks(
        events in prop::collection::vec((any_event(), 0u64..400), 1..200),
    ) {
        let mut machine = Lifecycle::new(policy(), DesiredState::Stopped, 0);
        let mut now = Instant::now();
        let mut alive = false;
        for (event, seconds) in events {
            now += Duration::from_secs(seconds);
            if !is_possible(&machine.phase, &event) {
                continue;
            }
            match &event {
                Event::Launched | Event::Adopted { .. } => alive = true,
                Event::Exited { .. } if !alive => continue,
                Event::Exited { .. } | Event::Terminated { .. } => alive = false,
                _ => {}
            }
            let was_stopping = matches!(machine.phase, Phase::Stopping { .. });
            let asked = matches!(event, Event::Down { .. } | Event::Retire);
            for effect in machine.step(event, now, 0.5) {
                match effect {
                    Effect::Launch { .. } => prop_assert!(!alive, "launched over a living process"),
                    Effect::Terminate { .. } => prop_assert!((alive || asked) && !was_stopping),
                    _ => {}
                }
            }
            prop_assert!(machine.attempts <= machine.policy.max_retries);
        }
    }

    #[test]
    fn after_down_and_the_end_of_jobs_nothing_is_running_or_waiting(
        events in prop::collection::vec(any_event(), 0..60),
    ) {
        let mut machine = Lifecycle::new(policy(), DesiredState::Stopped, 0);
        let now = Instant::now();
        for event in events {
            if is_possible(&machine.phase, &event) {
                machine.step(event, now, 0.5);
            }
        }
        machine.step(Event::Down { force: false }, now, 0.5);
        if machine.phase == Phase::Launching {
            machine.step(Event::Launched, now, 0.5);
        }
        if matches!(machine.phase, Phase::Stopping { .. }) {
            machine.step(Event::Terminated { result: Ok(()) }, now, 0.5);
        }
        prop_assert_eq!(&machine.phase, &Phase::Stopped);
        prop_assert_eq!(machine.next_tick(), None);
    }
}
