//! Any graph of steps: its order, its limits, its time, and what a life that was cut short leaves to the next.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::sync::atomic::Ordering;
use std::time::Duration;

use proptest::prelude::*;
use tokio::time::Instant;
use workflow::{Event, EventType, JobOutcome};
use workflow_spec::FailureKind;

use crate::support::{Act, Home, Model, prompt};

/// A graph by what each step needs, how long it takes in milliseconds, and how often it fails before it succeeds.
#[derive(Clone, Debug)]
struct Plan {
    needs: Vec<Vec<usize>>,
    takes: Vec<u64>,
    fails: Vec<usize>,
}

fn plans(most_failures: usize) -> impl Strategy<Value = Plan> {
    (1usize..10).prop_flat_map(move |count| {
        let needs = (0..count).map(|step| prop::collection::btree_set(0..step.max(1), 0..3.min(step + 1)));
        let takes = prop::collection::vec(1u64..100, count);
        let fails = prop::collection::vec(0..=most_failures, count);
        (needs.collect::<Vec<_>>(), takes, fails).prop_map(|(needs, takes, fails)| {
            let needs = needs.into_iter().enumerate();
            let needs = needs.map(|(step, needs)| needs.into_iter().filter(|need| *need < step).collect());
            Plan { needs: needs.collect(), takes, fails }
        })
    })
}

fn template(step: usize) -> String {
    format!(" {{{{ steps.s{step}.output.text }}}}")
}

impl Plan {
    fn spec(&self, slots: usize) -> String {
        let mut text = format!("version: 1\nproject: p\nlimits: {{ steps: {slots} }}\nsteps:\n");
        for (step, needs) in self.needs.iter().enumerate() {
            let seen = needs.iter().fold(String::new(), |seen, need| seen + &template(*need));
            let _to_a_string = write!(
                text,
                "  s{step}:\n    llm: {{ model: m, prompt: \"s{step}{seen}\" }}\n    retry: {{ base: 1ms, cap: 1ms }}\n    files: [ {{ path: s{step}, from: output.text, mode: overwrite }} ]\n"
            );
        }
        text
    }

    fn model(&self) -> std::sync::Arc<Model> {
        let plan = self.clone();
        Model::new(move |request, before| {
            let name = prompt(request).split(' ').next().unwrap();
            let step: usize = name[1..].parse().unwrap();
            let act =
                if before < plan.fails[step] { Act::fail(FailureKind::Connect) } else { Act::say(name) };
            act.after(plan.takes[step])
        })
    }

    /// The longest path, in milliseconds.
    fn critical_path(&self) -> u64 {
        let mut ends = Vec::new();
        for (step, needs) in self.needs.iter().enumerate() {
            let begins = needs.iter().map(|need| ends[*need]).max().unwrap_or(0);
            ends.push(begins + self.takes[step]);
        }
        ends.into_iter().max().unwrap_or(0)
    }

    fn outputs(&self, home: &Home) -> Vec<Option<String>> {
        (0..self.needs.len()).map(|step| home.output("one", &format!("s{step}"))).collect()
    }
}

/// Time stands still while anything is done, and jumps while all wait.
fn in_paused_time<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .start_paused(true)
        .build()
        .unwrap()
        .block_on(work)
}

fn ends_by_step(events: &[Event]) -> HashMap<&str, Vec<(EventType, u64)>> {
    let mut ends: HashMap<&str, Vec<(EventType, u64)>> = HashMap::new();
    for event in events.iter().filter(|event| event.kind.ends_step()) {
        ends.entry(event.step.as_deref().unwrap()).or_default().push((event.kind, event.seq));
    }
    ends
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn steps_keep_their_order_and_the_limit_and_end_once(plan in plans(2), slots in 1usize..5) {
        in_paused_time(async {
            let (home, model) = (Home::new(), plan.model());
            let end = home.run("one", &plan.spec(slots), &model).await;
            assert_eq!(end.outcome, JobOutcome::Succeeded, "{:?}", end.error);
            assert!(model.most_at_once.load(Ordering::SeqCst) <= slots);
            let events = home.events("one");
            let ends = ends_by_step(&events);
            for (step, needs) in plan.needs.iter().enumerate() {
                let name = format!("s{step}");
                let [(EventType::StepSucceeded, _)] = ends[name.as_str()][..] else { panic!("{ends:?}") };
                let is_start = |event: &&Event| event.kind == EventType::StepStarted && event.step.as_ref() == Some(&name);
                let begun = events.iter().find(is_start).unwrap().seq;
                assert!(needs.iter().all(|need| ends[format!("s{need}").as_str()][0].1 < begun));
            }
            assert_eq!(model.calls(), plan.fails.iter().sum::<usize>() + plan.needs.len());
        });
    }

    #[test]
    fn with_room_for_all_the_job_takes_as_long_as_its_longest_path(plan in plans(0)) {
        in_paused_time(async {
            let (home, model) = (Home::new(), plan.model());
            let began = Instant::now();
            home.run("one", &plan.spec(plan.needs.len()), &model).await;
            // Time does not pass while the driver works: nothing but waiting for each other is measured.
            let longest = Duration::from_millis(plan.critical_path());
            assert!(began.elapsed() <= longest.mul_f64(1.05) + Duration::from_millis(2), "{:?} {longest:?}", began.elapsed());
        });
    }

    #[test]
    fn a_life_that_was_cut_short_anywhere_is_made_whole_and_nothing_is_asked_twice(
        plan in plans(0),
        slots in 1usize..4,
        stop in 0u64..400,
        cut in 0.0f64..=1.0,
    ) {
        in_paused_time(async {
            let whole = Home::new();
            whole.run("one", &plan.spec(slots), &plan.model()).await;

            let (mut home, model) = (Home::new(), plan.model());
            let cancel = home.cancel.clone();
            let stopping = async {
                // Between two milliseconds: no answer comes at that very moment.
                tokio::time::sleep(Duration::from_micros(stop * 1000 + 500)).await;
                cancel.cancel();
            };
            let spec = plan.spec(slots);
            tokio::join!(home.run("one", &spec, &model), stopping);
            // As after a kill: what was journalled last is lost, what was stored is not.
            let journal = home.run_folder("one").join("events.jsonl");
            let text = std::fs::read_to_string(&journal).unwrap();
            let lines: Vec<&str> = text.split_inclusive('\n').collect();
            let kept = lines[..(lines.len() as f64 * cut) as usize].concat();
            std::fs::write(&journal, kept).unwrap();
            let answered = *model.answered.lock().unwrap();
            home.cancel = tokio_util::sync::CancellationToken::new();
            let end = home.run("one", &spec, &model).await;
            assert_eq!(end.outcome, JobOutcome::Succeeded, "{:?}", end.error);
            assert_eq!(plan.outputs(&home), plan.outputs(&whole));
            let more = *model.answered.lock().unwrap() - answered;
            assert_eq!(answered + more, plan.needs.len(), "every step was answered once");
        });
    }
}
