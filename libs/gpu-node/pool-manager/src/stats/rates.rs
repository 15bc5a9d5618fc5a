//! Two readings of the same process make rates.

use std::time::Duration;

use engine_process::ProcessUsage;

use super::reading::{SlotReading, WorkReading};
use super::{SlotActivity, SlotState};

/// Everything read of one process at one moment.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Reading {
    pub(super) usage: Option<ProcessUsage>,
    pub(super) work: WorkReading,
}

/// What happened between two readings, a second.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Rates {
    pub(super) cpu_percent: Option<f64>,
    pub(super) tokens: Option<f64>,
    pub(super) prompt_tokens: Option<f64>,
}

impl Rates {
    pub(super) fn between(earlier: &Reading, later: &Reading, elapsed: Duration) -> Self {
        let seconds = elapsed.as_secs_f64();
        let cpu = earlier.usage.zip(later.usage).map(|(earlier, later)| {
            later.processor_time.saturating_sub(earlier.processor_time).as_secs_f64() * 100.0
        });
        Self {
            cpu_percent: cpu.and_then(|spent| per(spent, seconds)),
            tokens: growth(earlier.work.generated(), later.work.generated(), seconds),
            prompt_tokens: growth(earlier.work.prompts(), later.work.prompts(), seconds),
        }
    }
}

/// The slots as they are now, each with the pace of its request where the earlier reading saw the same request.
pub(super) fn slots_between(earlier: &Reading, later: &Reading, elapsed: Duration) -> Vec<SlotActivity> {
    let before = |slot: &SlotReading| {
        let known = earlier.work.slots.iter().flatten();
        known.copied().find(|it| it.activity.id == slot.activity.id && it.task == slot.task)
    };
    let paced = |slot: &SlotReading| {
        let mut activity = slot.activity;
        if activity.state == SlotState::Writing {
            let began = before(slot).map(|earlier| earlier.activity.generated as f64);
            activity.tokens_per_second =
                growth(began, Some(activity.generated as f64), elapsed.as_secs_f64());
        }
        activity
    };
    later.work.slots.iter().flatten().map(paced).collect()
}

/// A request that ends between two questions may be missed once or counted twice; a count never runs backwards.
fn growth(earlier: Option<f64>, later: Option<f64>, seconds: f64) -> Option<f64> {
    earlier.zip(later).and_then(|(earlier, later)| per((later - earlier).max(0.0), seconds))
}

/// One decimal: more would be noise.
fn per(amount: f64, seconds: f64) -> Option<f64> {
    (seconds > 0.0).then(|| (amount / seconds * 10.0).round() / 10.0)
}

#[cfg(test)]
mod tests {
    use orch_core::ByteCount;
    use proptest::prelude::*;

    use super::*;

    fn reading(processor: u64, ended: u64, task: u64, decoded: u64) -> Reading {
        let metrics = format!("llamacpp:tokens_predicted_total {ended}\nllamacpp:prompt_tokens_total 5\n");
        let slots = format!(
            r#"[{{"id":0,"n_ctx":64,"is_processing":true,"id_task":{task},"next_token":[{{"n_decoded":{decoded}}}]}}]"#
        );
        Reading {
            usage: Some(ProcessUsage {
                resident: ByteCount(1),
                processor_time: Duration::from_millis(processor),
            }),
            work: WorkReading::new(Some(&metrics), Some(slots.as_bytes())),
        }
    }

    #[test]
    fn half_a_core_and_forty_tokens_a_second() {
        let (earlier, later) = (reading(1000, 100, 1, 10), reading(2000, 100, 1, 90));
        let rates = Rates::between(&earlier, &later, Duration::from_secs(2));
        assert_eq!(rates.cpu_percent, Some(50.0));
        assert_eq!(rates.tokens, Some(40.0));
        assert_eq!(rates.prompt_tokens, Some(0.0));
        assert_eq!(slots_between(&earlier, &later, Duration::from_secs(2))[0].tokens_per_second, Some(40.0));
    }

    #[test]
    fn a_request_that_ended_in_between_is_counted_whole_and_the_next_one_has_no_pace_yet() {
        let (earlier, later) = (reading(0, 100, 1, 10), reading(0, 200, 2, 5));
        let rates = Rates::between(&earlier, &later, Duration::from_secs(1));
        assert_eq!(rates.tokens, Some(95.0));
        assert_eq!(slots_between(&earlier, &later, Duration::from_secs(1))[0].tokens_per_second, None);
    }

    #[test]
    fn what_was_never_read_has_no_rate() {
        let rates = Rates::between(&Reading::default(), &reading(1, 1, 1, 1), Duration::from_secs(1));
        assert_eq!(rates, Rates::default());
    }

    proptest! {
        #[test]
        fn a_rate_is_never_negative_nor_endless(
            earlier in (0u64..9_000, 0u64..9_000, 0u64..3, 0u64..9_000),
            later in (0u64..9_000, 0u64..9_000, 0u64..3, 0u64..9_000),
            elapsed in 0u64..10_000,
        ) {
            let (earlier, later) =
                (reading(earlier.0, earlier.1, earlier.2, earlier.3), reading(later.0, later.1, later.2, later.3));
            let elapsed = Duration::from_millis(elapsed);
            let rates = Rates::between(&earlier, &later, elapsed);
            let slots = slots_between(&earlier, &later, elapsed);
            let all = [rates.cpu_percent, rates.tokens, rates.prompt_tokens];
            let all = all.into_iter().chain(slots.iter().map(|slot| slot.tokens_per_second));
            for rate in all.flatten() {
                prop_assert!(rate.is_finite() && rate >= 0.0, "{rate}");
            }
        }
    }
}
