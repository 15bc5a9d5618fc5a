//! A node played through in steps of time: models that do not fit together, requests that come as they please.

use std::collections::VecDeque;

use orch_core::ByteCount;
use proptest::prelude::*;

use super::super::ledger::Capacity;
use super::*;

const STEP: Duration = Duration::from_millis(500);
const POLICY: ResidencyPolicy =
    ResidencyPolicy { min_residency: Duration::from_secs(5), starvation: Duration::from_secs(30) };
const LOAD: Duration = Duration::from_secs(2);
const SERVICE: Duration = Duration::from_secs(3);

fn name(number: usize) -> InstanceName {
    InstanceName::new(format!("m{number}")).unwrap()
}

/// A model that is loaded on demand, with one slot.
#[derive(Clone, Debug, Default)]
struct Model {
    size: u64,
    /// When those who wait came.
    queue: VecDeque<Duration>,
    serving_until: Option<Duration>,
    /// When it is, or was, ready; `None` while it is not loaded.
    ready: Option<Duration>,
    last_used: Duration,
}

struct World {
    now: Duration,
    capacity: u64,
    models: Vec<Model>,
    yielding: BTreeSet<InstanceName>,
    loads: usize,
    served: usize,
    longest_wait: Duration,
}

impl World {
    fn new(capacity: u64, sizes: &[u64]) -> Self {
        let models = sizes.iter().map(|size| Model { size: *size, ..Model::default() }).collect();
        Self {
            now: Duration::ZERO,
            capacity,
            models,
            yielding: BTreeSet::new(),
            loads: 0,
            served: 0,
            longest_wait: Duration::ZERO,
        }
    }

    fn picture(&self) -> Picture {
        let mut picture = Picture::default();
        let capacity = Capacity { name: None, usable: ByteCount::from_mib(self.capacity), free: None };
        picture.ledger.places.insert(Place::Host, capacity);
        for (number, model) in self.models.iter().enumerate() {
            let bytes = ByteCount::from_mib(model.size);
            let Some(ready) = model.ready else {
                let Some(oldest) = model.queue.front() else { continue };
                let urgency =
                    Urgency::Requests { oldest_wait: self.now.saturating_sub(*oldest), load_time: LOAD };
                let need = BTreeMap::from([(Place::Host, bytes)]);
                picture.wants.push(Want {
                    instance: name(number),
                    group: None,
                    need,
                    at_most: false,
                    urgency,
                });
                continue;
            };
            let held = Held { reserved: bytes, taken: bytes, basis: Basis::Measured };
            picture.ledger.holdings.insert(name(number), BTreeMap::from([(Place::Host, held)]));
            picture.residents.push(Resident {
                instance: name(number),
                group: None,
                protection: None,
                settled: ready <= self.now,
                in_flight: usize::from(model.serving_until.is_some()),
                waiting: model.queue.len(),
                idle_for: self.now.saturating_sub(model.last_used.max(ready)),
                loaded_for: self.now.saturating_sub(ready),
                yielding: self.yielding.contains(&name(number)),
            });
        }
        picture
    }

    /// One step of time: requests end and begin, then the scheduler decides and its decision is carried out.
    fn step(&mut self) {
        self.now += STEP;
        for (number, model) in self.models.iter_mut().enumerate() {
            if model.serving_until.is_some_and(|until| until <= self.now) {
                model.serving_until = None;
                model.last_used = self.now;
                self.served += 1;
            }
            let takes =
                model.ready.is_some_and(|ready| ready <= self.now) && !self.yielding.contains(&name(number));
            if takes
                && model.serving_until.is_none()
                && let Some(came) = model.queue.pop_front()
            {
                model.serving_until = Some(self.now + SERVICE);
                self.longest_wait = self.longest_wait.max(self.now.saturating_sub(came));
            }
        }
        let decision = decide(&self.picture(), &POLICY);
        assert!(decision.refused.is_empty(), "each fits alone: {:?}", decision.refused);
        self.yielding = decision.yielding.keys().cloned().collect();
        for action in decision.actions {
            let Action::Swap { load, evict } = action else { panic!("nothing has a time to live") };
            for eviction in evict {
                let victim = self.model(&eviction.instance);
                assert!(victim.serving_until.is_none(), "{} is busy", eviction.instance);
                victim.ready = None;
            }
            let ready = self.now + LOAD;
            self.model(&load).ready = Some(ready);
            self.loads += 1;
        }
        let held: u64 = self.models.iter().filter(|it| it.ready.is_some()).map(|it| it.size).sum();
        assert!(held <= self.capacity, "{held} of {} MiB", self.capacity);
    }

    fn model(&mut self, wanted: &InstanceName) -> &mut Model {
        let number = (0..self.models.len()).find(|number| name(*number) == *wanted).unwrap();
        &mut self.models[number]
    }

    fn is_done(&self) -> bool {
        self.models.iter().all(|it| it.queue.is_empty() && it.serving_until.is_none())
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, max_shrink_iters: 200, ..ProptestConfig::default() })]

    #[test]
    fn everybody_is_served_and_models_are_swapped_only_so_often(
        sizes in proptest::collection::vec(30u64..100, 2..5),
        // At each step: which model is asked, if any.
        asked in proptest::collection::vec(proptest::option::weighted(0.12, 0usize..5), 100..500),
    ) {
        let mut world = World::new(100, &sizes);
        let total = asked.iter().flatten().count();
        for model in &asked {
            if let Some(model) = model {
                let now = world.now;
                world.models[model % sizes.len()].queue.push_back(now);
            }
            world.step();
        }
        for _ in 0..4_000 {
            if world.is_done() {
                break;
            }
            world.step();
        }
        prop_assert!(world.is_done(), "somebody waits for ever");
        prop_assert_eq!(world.served, total);
        // Between two loads of one model it stayed for the minimum: no more than so many fit into the time, each
        // model for itself.
        let most = (world.now.as_secs_f64() / POLICY.min_residency.as_secs_f64()).ceil() as usize + 1;
        prop_assert!(world.loads <= most * sizes.len(), "{} loads in {:?}", world.loads, world.now);
        prop_assert!(world.loads <= total);
    }

    /// Two models that are asked without a pause: none of them ever has an idle moment.
    #[test]
    fn under_full_load_nobody_waits_longer_for_the_other_model_than_the_bound(other in 50u64..100) {
        let mut world = World::new(100, &[60, other]);
        let mut oldest_since_load: Duration = Duration::ZERO;
        for step in 0..2400u32 {
            let now = world.now;
            // One request at a time that can be served, and one that waits for its model.
            for model in &mut world.models {
                if model.queue.is_empty() {
                    model.queue.push_back(now);
                }
            }
            world.step();
            let unloaded = world.models.iter().filter(|it| it.ready.is_none_or(|ready| ready > now));
            let waited = unloaded.filter_map(|it| it.queue.front()).map(|came| world.now.saturating_sub(*came));
            oldest_since_load = waited.fold(oldest_since_load, Duration::max);
            prop_assert!(step < 200 || world.served > 0);
        }
        prop_assert!(oldest_since_load <= POLICY.starvation + SERVICE + STEP, "{oldest_since_load:?}");
        let seconds = world.now.as_secs_f64();
        // One waits a little already while it is still served.
            let most = (seconds / POLICY.starvation.saturating_sub(LOAD + SERVICE).as_secs_f64()) as usize + 2;
        prop_assert!(world.loads <= most, "{} loads in {seconds} s", world.loads);
    }
}

#[test]
fn an_idle_one_is_unloaded_after_its_time_to_live_and_the_next_look_is_due_just_then() {
    let mut world = World::new(100, &[50]);
    world.models[0].ready = Some(Duration::ZERO);
    world.now = Duration::from_secs(7);
    let mut picture = world.picture();
    picture.idle_ttl.insert(name(0), Duration::from_secs(10));
    assert_eq!(
        decide(&picture, &POLICY),
        Decision { again: Some(Duration::from_secs(3)), ..Decision::default() }
    );
    world.now = Duration::from_secs(10);
    picture.residents = world.picture().residents;
    let idle_for = Duration::from_secs(10);
    assert_eq!(decide(&picture, &POLICY).actions, [Action::UnloadIdle { instance: name(0), idle_for }]);
    picture.residents[0].in_flight = 1;
    assert!(decide(&picture, &POLICY).actions.is_empty());
    picture.idle_ttl.insert(name(0), Duration::ZERO);
    picture.residents[0].in_flight = 0;
    assert!(decide(&picture, &POLICY).actions.is_empty(), "zero is never");
}

#[test]
fn of_two_wants_the_older_comes_first_and_the_other_does_not_take_its_room() {
    let mut world = World::new(100, &[60, 60]);
    world.now = Duration::from_secs(9);
    world.models[0].queue.push_back(Duration::from_secs(5));
    world.models[1].queue.push_back(Duration::from_secs(1));
    let decision = decide(&world.picture(), &POLICY);
    assert_eq!(decision.actions, [Action::Swap { load: name(1), evict: Vec::new() }]);
}
