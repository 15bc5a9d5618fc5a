use super::*;
use proptest::prelude::*;

const PATIENCE: Patience = Patience {
    silence: Duration::from_secs(60),
    canary: Duration::from_secs(30),
    calm: Duration::from_secs(60),
};

fn look(in_flight: u32, progress: u64, failures: u32, worked_ms: u64) -> Look {
    Look {
        signs: RequestSigns { in_flight, progress, failures, last_status: 500 },
        slots_total: 1,
        processor_time: Some(Duration::from_millis(worked_ms)),
    }
}

/// A judge with its own clock, which looks once a second.
struct Story {
    judge: Suspicion,
    now: Instant,
}

impl Story {
    fn new() -> Self {
        Self { judge: Suspicion::default(), now: Instant::now() }
    }

    fn see(&mut self, look: Look) -> Option<Ground> {
        self.now += Duration::from_secs(1);
        self.judge.look(look, &PATIENCE, self.now)
    }

    fn judge(&mut self, completion: Completion, after: Look) -> Option<String> {
        let inquiry = inquiry(completion, look(0, 0, 0, 0), after, false);
        self.judge.judge(&inquiry, &PATIENCE, self.now)
    }
}

fn inquiry(completion: Completion, before: Look, after: Look, slots_moved: bool) -> Inquiry {
    let ground = Ground::Silence { so_long: Duration::from_secs(60) };
    Inquiry { ground, completion, before, after, took: Duration::from_secs(30), slots_moved }
}

#[test]
fn failures_in_a_row_are_suspicious_and_a_canary_that_fails_too_is_the_proof() {
    let mut story = Story::new();
    assert_eq!(story.see(look(0, 0, 0, 0)), None);
    assert_eq!(story.see(look(0, 0, 2, 0)), None);
    let ground = story.see(look(0, 0, 3, 0)).expect("three are enough");
    assert_eq!(ground, Ground::Failures { count: 3, last_status: 500 });
    let verdict = story.judge(Completion::Failed("HTTP 500".to_owned()), look(0, 0, 3, 0));
    assert!(verdict.is_some_and(|reason| reason.contains("HTTP 500")));
}

#[test]
fn after_a_canary_that_was_answered_only_new_failures_are_suspicious_and_not_at_once() {
    let mut story = Story::new();
    story.see(look(0, 0, 0, 0));
    assert!(story.see(look(0, 0, 5, 0)).is_some());
    assert_eq!(story.judge(Completion::Done, look(0, 0, 5, 0)), None);
    for _ in 0..300 {
        assert_eq!(story.see(look(0, 0, 7, 0)), None, "a client's own fault, looked into already");
    }
    assert_eq!(story.see(look(0, 0, 8, 0)), Some(Ground::Failures { count: 3, last_status: 500 }));
    assert_eq!(story.judge(Completion::Done, look(0, 0, 8, 0)), None);
    assert_eq!(story.see(look(0, 0, 100, 0)), None, "calm");
}

#[test]
fn requests_that_nothing_comes_of_are_suspicious_after_a_while_and_only_then() {
    let mut story = Story::new();
    for second in 0..60 {
        assert_eq!(story.see(look(1, 7, 0, 100)), None, "second {second}");
    }
    assert!(matches!(story.see(look(1, 7, 0, 100)), Some(Ground::Silence { .. })));
}

#[test]
fn clients_that_give_up_and_come_again_do_not_hide_that_nothing_comes() {
    let mut story = Story::new();
    let mut grounds = 0;
    for second in 0..120_u32 {
        grounds += u32::from(story.see(look(u32::from(second % 4 != 0), 7, 0, 100)).is_some());
    }
    assert!(grounds > 0);
}

#[test]
fn a_machine_that_slept_is_no_reason_for_suspicion() {
    let mut story = Story::new();
    story.see(look(1, 7, 0, 100));
    story.now += Duration::from_secs(8 * 3600);
    assert_eq!(story.see(look(1, 7, 0, 100)), None);
}

#[test]
fn a_system_that_does_not_tell_what_a_process_does_gives_no_ground() {
    let mut story = Story::new();
    for _ in 0..500 {
        let unseen = Look { processor_time: None, ..look(1, 7, 0, 0) };
        assert_eq!(story.see(unseen), None);
    }
}

#[test]
fn failures_beside_an_answer_that_flows_in_the_only_slot_are_no_ground() {
    let mut story = Story::new();
    for second in 0..100_u32 {
        assert_eq!(story.see(look(1, u64::from(second), second, 0)), None);
    }
}

#[test]
fn a_canary_without_an_answer_proves_nothing_while_anything_moves() {
    let still = look(1, 7, 0, 100);
    let silent = |after, slots_moved| {
        let inquiry = inquiry(Completion::Silent, still, after, slots_moved);
        Suspicion::default().judge(&inquiry, &PATIENCE, Instant::now())
    };
    assert!(silent(still, false).is_some(), "nothing moves at all");
    assert_eq!(silent(still, true), None, "the slots do");
    assert_eq!(silent(look(1, 8, 0, 100), false), None, "an answer does");
    assert_eq!(silent(look(1, 7, 0, 20_000), false), None, "the processor does");
}

#[test]
fn what_the_engine_says_of_the_canary_itself_is_an_answer() {
    for completion in [Completion::Done, Completion::Declined("HTTP 400".to_owned()), Completion::Refused] {
        assert_eq!(Story::new().judge(completion, look(0, 0, 3, 0)), None);
    }
}

proptest! {
    #[test]
    fn an_idle_engine_is_never_asked(worked in prop::collection::vec(0u64..2000, 1..300)) {
        let mut story = Story::new();
        let mut processor = 0;
        for milliseconds in worked {
            processor += milliseconds;
            prop_assert_eq!(story.see(look(0, 7, 0, processor)), None);
        }
    }

    #[test]
    fn an_engine_that_works_or_answers_now_and_then_is_never_suspected(
        // Once in a while: a piece of an answer, or a second of work.
        steps in prop::collection::vec((1usize..59, any::<bool>()), 1..40),
        in_flight in 1u32..9,
    ) {
        let mut story = Story::new();
        let (mut progress, mut processor) = (0, 0);
        for (quiet, by_work) in steps {
            for _ in 0..quiet {
                prop_assert_eq!(story.see(look(in_flight, progress, 0, processor)), None);
            }
            if by_work { processor += 1000 } else { progress += 1 }
        }
    }

    #[test]
    fn failures_and_silence_without_end_are_found_in_bounded_time(
        failures in 0u32..2,
        in_flight in 1u32..9,
    ) {
        let mut story = Story::new();
        let found = (0..62).find(|_| story.see(look(in_flight, 3, failures, 50)).is_some());
        prop_assert!(found.is_some());
    }

    #[test]
    fn between_two_canaries_that_are_answered_there_is_calm(
        looks in prop::collection::vec((0u32..9, 0u32..50), 1..400),
    ) {
        let mut story = Story::new();
        let mut last: Option<Instant> = None;
        for (in_flight, failures) in looks {
            if story.see(look(in_flight, 0, failures, 0)).is_some() {
                if let Some(last) = last {
                    prop_assert!(story.now.duration_since(last) >= PATIENCE.calm);
                }
                last = Some(story.now);
                let verdict = story.judge(Completion::Done, look(in_flight, 0, failures, 0));
                prop_assert_eq!(verdict, None);
            }
        }
    }
}
