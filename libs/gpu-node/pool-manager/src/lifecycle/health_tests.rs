//! Health alone: its arrows, the pace of probes, and engines that are of no use.

use orch_core::RestartBackoff;

use super::*;

/// Time to the next probe, in seconds.
fn next_probe_in(story: &Story) -> f64 {
    story.machine.next_tick().expect("a living engine is probed").duration_since(story.now).as_secs_f64()
}

#[test]
fn a_bad_probe_is_followed_by_the_retry_delay_then_by_the_back_off_and_a_good_one_by_the_interval() {
    let mut story = Story::new();
    let probe_backoff = RestartBackoff {
        initial: Duration::from_secs(2),
        max: Duration::from_secs(7),
        multiplier: 2.0,
        jitter: 0.0,
    };
    story.machine.policy.probe_backoff = Some(probe_backoff);
    story.running();
    assert!((next_probe_in(&story) - 10.0).abs() < 0.01);
    // All inside the start period: failures that never count slow the probing down just as well.
    let mut delays = Vec::new();
    for _ in 0..5 {
        story.then(failed_probe());
        delays.push(next_probe_in(&story));
    }
    assert_eq!(delays, [1.0, 2.0, 4.0, 7.0, 7.0]);
    story.then(healthy());
    assert!((next_probe_in(&story) - 10.0).abs() < 0.01);
    story.then(failed_probe());
    assert!((next_probe_in(&story) - 1.0).abs() < 0.01, "the back-off begins anew");
}

#[test]
fn without_back_off_an_unhealthy_engine_is_probed_at_the_retry_delay() {
    let mut story = Story::new();
    story.running();
    for _ in 0..4 {
        story.then(failed_probe());
        assert!((next_probe_in(&story) - 1.0).abs() < 0.01);
    }
}

#[test]
fn a_thousand_delays_of_the_back_off_lie_in_its_band_and_are_not_all_equal() {
    let mut policy = policy();
    let jitter = 0.1;
    policy.probe_backoff = Some(RestartBackoff {
        initial: Duration::from_secs(1),
        max: Duration::from_secs(60),
        multiplier: 2.0,
        jitter,
    });
    let mut random = fastrand::Rng::with_seed(11);
    let mut different = std::collections::BTreeSet::new();
    for _ in 0..1000 {
        let mut machine = Lifecycle::new(policy.clone(), DesiredState::Running, 0);
        let now = Instant::now();
        machine.step(Event::Adopted { ready: true, age: Duration::ZERO }, now, 0.5);
        for centre in [1.0, 1.0, 2.0, 4.0, 8.0] {
            machine.step(failed_probe(), now, random.f64());
            let delay = machine.next_tick().unwrap().duration_since(now).as_secs_f64();
            let (low, high) = (centre * (1.0 - jitter), centre * (1.0 + jitter));
            assert!((low..=high).contains(&delay), "{delay} is not in {low}..={high}");
            different.insert(machine.next_tick().unwrap().duration_since(now));
        }
    }
    assert!(different.len() > 1000, "only {} different delays", different.len());
}

#[test]
fn an_interval_is_taken_from_the_moment_of_the_last_answer_and_changes_with_the_config() {
    let mut story = Story::new();
    story.machine.policy.probe_interval = Duration::from_millis(100);
    story.running();
    assert!((next_probe_in(&story) - 0.1).abs() < 0.001);
    let slow = Policy { probe_interval: Duration::from_secs(3600), ..policy() };
    story.then(Event::PolicyChanged { policy: Box::new(slow) }).then(healthy());
    assert!((next_probe_in(&story) - 3600.0).abs() < 0.001);
}

#[test]
fn a_ready_engine_that_says_it_loads_is_unhealthy_and_never_restarted_for_that_alone() {
    let mut story = Story::new();
    story.running().after(61);
    for _ in 0..10 {
        story.after(20).then(loading(false)).then(loading(true));
    }
    assert_eq!((story.machine.health, story.machine.status()), (Health::Unhealthy, Status::Running));
    story.then(healthy());
    assert_eq!(story.machine.health, Health::Healthy);
}

#[test]
fn a_wedged_engine_is_ended_and_restarted_by_policy_and_its_events_say_why() {
    let mut story = Story::new();
    story.running().after(60).then(wedged());
    let reason = "3 requests in a row failed".to_owned();
    let because = Some(reason.clone());
    assert_eq!(
        story.effects,
        [
            Effect::RecordHealth { from: Health::Healthy, to: Health::Unhealthy, reason: because.clone() },
            Effect::RecordHealth { from: Health::Unhealthy, to: Health::Error, reason: because },
            Effect::RecordSick { reason },
            Effect::Terminate { force: false },
        ]
    );
    assert!(!story.machine.is_routable());
    story.then(Event::Terminated { result: Ok(()) });
    assert_eq!(story.scheduled_delay(), Some(1));
}

#[test]
fn an_engine_is_not_called_wedged_inside_its_start_period_or_while_it_loads() {
    let mut story = Story::new();
    story.up().then(Event::Launched).then(wedged());
    assert!(story.effects.is_empty());
    story.then(healthy()).after(59).then(wedged());
    assert!(story.effects.is_empty());
    assert_eq!(story.machine.health, Health::Healthy);
}

#[test]
fn a_sick_engine_that_cannot_be_stopped_has_to_show_that_it_is_well() {
    let mut story = Story::new();
    story.running().after(60).then(wedged());
    story.then(Event::Terminated { result: Err(Failure::new(ExitCode::StopFailed, "not ours")) });
    assert!(!story.machine.is_routable());
    story.then(healthy());
    assert!(story.machine.is_routable());
}

proptest! {
    #[test]
    fn health_goes_along_its_arrows_and_no_other_way(
        events in prop::collection::vec((any_event(), 0u64..400, any::<bool>()), 1..200),
    ) {
        let mut machine = Lifecycle::new(policy(), DesiredState::Stopped, 0);
        let mut now = Instant::now();
        for (event, seconds, stop_fails) in events {
            now += Duration::from_secs(seconds);
            if !is_possible(&machine.phase, &event) {
                continue;
            }
            let event = match event {
                Event::Terminated { .. } if stop_fails => {
                    Event::Terminated { result: Err(Failure::new(ExitCode::StopFailed, "it stays")) }
                }
                event => event,
            };
            let begins = matches!(
                event,
                Event::Adopted { .. } | Event::Terminated { result: Err(_) }
            );
            let mut health = machine.health;
            for effect in machine.step(event, now, 0.5) {
                match effect {
                    Effect::RecordHealth { from, to, .. } => {
                        prop_assert_eq!(from, health);
                        prop_assert!(follows(from, to), "{from} -> {to}");
                        health = to;
                    }
                    // A new process: unknown, then loading.
                    Effect::Launch { .. } => health = Health::Loading,
                    _ => {}
                }
            }
            let is_alive = matches!(
                machine.phase,
                Phase::Launching | Phase::Loading { .. } | Phase::Running { .. } | Phase::Stopping { .. }
            );
            if !is_alive {
                prop_assert_eq!(machine.health, Health::Unknown);
            } else if !begins {
                prop_assert_eq!(machine.health, health, "it changed without a word");
            }
            let is_ready = matches!(machine.phase, Phase::Running { .. });
            prop_assert_eq!(
                is_ready,
                is_ready && matches!(machine.health, Health::Healthy | Health::Unhealthy)
            );
        }
    }

    #[test]
    fn failures_inside_the_start_period_never_end_an_engine(
        probes in prop::collection::vec((any::<bool>(), 0u64..3), 1..19),
    ) {
        let mut story = Story::new();
        story.running();
        for (is_wedged, seconds) in probes {
            story.after(seconds).then(if is_wedged { wedged() } else { failed_probe() });
            prop_assert_eq!(story.machine.status(), Status::Running);
        }
    }
}
