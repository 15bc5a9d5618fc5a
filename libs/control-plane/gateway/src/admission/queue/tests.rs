use std::collections::HashSet;

use proptest::prelude::*;

use super::*;

/// Who waits: a number of its own, its class, its key and what it costs.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Waiter {
    number: usize,
    class: Class,
    key: usize,
    cost: u32,
}

fn newcomer(waiter: &Waiter) -> Newcomer<Waiter> {
    let key = format!("key-{}", waiter.key).into();
    Newcomer {
        ticket: Ticket(waiter.number as u64),
        class: waiter.class,
        key,
        cost: waiter.cost,
        value: waiter.clone(),
    }
}

fn interactive(number: usize, key: usize) -> Waiter {
    Waiter { number, class: Class::Interactive, key, cost: 1 }
}

fn batch(number: usize, key: usize) -> Waiter {
    Waiter { class: Class::Batch, ..interactive(number, key) }
}

fn filled(capacity: usize, policy: FullPolicy, waiters: &[Waiter]) -> (Queue<Waiter>, Instant) {
    let (mut queue, now) = (Queue::new(capacity, policy), Instant::now());
    for waiter in waiters {
        assert!(matches!(queue.push(newcomer(waiter), now), Pushed::Waits));
    }
    (queue, now)
}

fn serve(queue: &mut Queue<Waiter>, now: Instant) -> Option<Waiter> {
    serve_where(queue, now, |_| true)
}

fn serve_where(queue: &mut Queue<Waiter>, now: Instant, fits: impl Fn(&Waiter) -> bool) -> Option<Waiter> {
    let served = Class::ALL.into_iter().find_map(|class| queue.serve(class, now, &fits, |_| Some(())));
    served.map(|(waiter, ())| waiter)
}

fn all(queue: &mut Queue<Waiter>, now: Instant) -> Vec<usize> {
    std::iter::from_fn(|| serve(queue, now)).map(|waiter| waiter.number).collect()
}

#[test]
fn interactive_requests_go_first_and_keys_take_turns() {
    let waiters = [
        batch(0, 7),
        interactive(1, 1),
        interactive(2, 1),
        interactive(3, 1),
        interactive(4, 2),
        batch(5, 8),
    ];
    let (mut queue, now) = filled(10, FullPolicy::Reject, &waiters);
    assert_eq!(all(&mut queue, now), [1, 4, 2, 3, 0, 5]);
}

#[test]
fn a_key_with_large_requests_gets_fewer_turns() {
    let large = |number| Waiter { cost: 3, ..interactive(number, 1) };
    let waiters =
        [large(0), large(1), interactive(2, 2), interactive(3, 2), interactive(4, 2), interactive(5, 2)];
    let (mut queue, now) = filled(10, FullPolicy::Reject, &waiters);
    assert_eq!(all(&mut queue, now), [2, 3, 0, 4, 5, 1]);
}

#[test]
fn one_that_was_at_an_engine_before_goes_in_front_even_of_a_full_queue() {
    let (mut queue, now) = filled(1, FullPolicy::Reject, &[interactive(0, 1)]);
    queue.push_front(newcomer(&batch(9, 2)), now);
    assert_eq!(queue.position(Ticket(9)), Some(0));
    assert_eq!(all(&mut queue, now), [9, 0]);
}

#[test]
fn who_cannot_be_placed_holds_up_nobody() {
    let (mut queue, now) =
        filled(10, FullPolicy::Reject, &[interactive(0, 1), interactive(1, 1), interactive(2, 2)]);
    let odd = |waiter: &Waiter| waiter.number % 2 == 1;
    assert_eq!(serve_where(&mut queue, now, odd).map(|waiter| waiter.number), Some(1));
    assert!(serve_where(&mut queue, now, odd).is_none());
    let taken = queue.serve(Class::Interactive, now, |_| true, |_| None::<()>);
    assert!(taken.is_none(), "the place went to somebody else");
    assert_eq!(all(&mut queue, now), [2, 0], "and nobody was lost by it");
}

#[test]
fn a_full_queue_drops_the_oldest_batch_request_if_it_may() {
    let (mut queue, now) = filled(3, FullPolicy::DropLru, &[interactive(0, 1), batch(1, 1), batch(2, 2)]);
    let dropped = |pushed: Pushed<Waiter>| match pushed {
        Pushed::Instead(waiter) => Some(waiter.number),
        Pushed::Full(_) | Pushed::Waits => None,
    };
    assert_eq!(dropped(queue.push(newcomer(&batch(3, 3)), now)), Some(1));
    assert_eq!(dropped(queue.push(newcomer(&interactive(4, 3)), now)), Some(2));
    assert_eq!(dropped(queue.push(newcomer(&interactive(5, 3)), now)), Some(3));
    assert_eq!(queue.push(newcomer(&batch(6, 3)), now), Pushed::Full(batch(6, 3)), "no batch request waits");
    assert_eq!(dropped(queue.push(newcomer(&interactive(7, 3)), now)), Some(0));
    let (mut queue, now) = filled(1, FullPolicy::Reject, &[batch(0, 1)]);
    assert_eq!(queue.push(newcomer(&interactive(1, 1)), now), Pushed::Full(interactive(1, 1)));
}

#[test]
fn a_batch_request_is_promoted_after_five_minutes() {
    let (mut queue, start) = filled(10, FullPolicy::Reject, &[batch(0, 1)]);
    let later = start + PROMOTED_AFTER;
    assert!(matches!(queue.push(newcomer(&interactive(1, 1)), start), Pushed::Waits));
    assert!(matches!(queue.push(newcomer(&batch(2, 2)), later), Pushed::Waits));
    assert_eq!(queue.waiting(Class::Batch), 2);
    assert_eq!(all(&mut queue, later), [0, 1, 2], "older than the interactive one of its key");
}

/// What happens to a queue.
#[derive(Clone, Debug)]
enum Step {
    Push(Class, usize, u32),
    PushFront(Class, usize),
    /// Serves the one whose turn it is, if the places of its key are free.
    Serve(usize),
    /// The how-manieth of those who wait leaves.
    Leave(usize),
    Later(u64),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let class = prop_oneof![Just(Class::Interactive), Just(Class::Batch)];
    let step = prop_oneof![
        5 => (class.clone(), 0..4_usize, 1..20_u32).prop_map(|(class, key, cost)| Step::Push(class, key, cost)),
        1 => (class, 0..4_usize).prop_map(|(class, key)| Step::PushFront(class, key)),
        4 => (0..6_usize).prop_map(Step::Serve),
        1 => (0..64_usize).prop_map(Step::Leave),
        1 => (0..200_u64).prop_map(Step::Later),
    ];
    prop::collection::vec(step, 0..200)
}

/// A queue, and those who must be in it.
struct Checked {
    queue: Queue<Waiter>,
    here: Vec<(Waiter, Instant)>,
    in_front: usize,
    now: Instant,
    capacity: usize,
    gone: HashSet<usize>,
    count: usize,
}

impl Checked {
    fn new(capacity: usize, policy: FullPolicy) -> Self {
        let queue = Queue::new(capacity, policy);
        let now = Instant::now();
        Self { queue, here: Vec::new(), in_front: 0, now, capacity, gone: HashSet::new(), count: 0 }
    }

    fn next(&mut self, class: Class, key: usize, cost: u32) -> Waiter {
        self.count += 1;
        Waiter { number: self.count, class, key, cost }
    }

    fn step(&mut self, step: &Step) {
        match *step {
            Step::Push(class, key, cost) => self.push(class, key, cost),
            Step::PushFront(class, key) => {
                let waiter = self.next(class, key, 1);
                self.queue.push_front(newcomer(&waiter), self.now);
                self.here.insert(self.in_front, (waiter, self.now));
                self.in_front += 1;
            }
            Step::Serve(unfit) => self.serve(unfit),
            Step::Leave(which) if !self.here.is_empty() => {
                let (waiter, _) = self.here[which % self.here.len()].clone();
                let ticket = Ticket(waiter.number as u64);
                assert_eq!(self.queue.remove(ticket), Some(waiter.clone()));
                assert_eq!(self.queue.remove(ticket), None, "nobody leaves twice");
                self.went(&waiter);
            }
            Step::Leave(_) => {}
            Step::Later(seconds) => self.now += Duration::from_secs(seconds),
        }
        assert_eq!(self.queue.len(), self.here.len());
        assert_eq!(self.queue.is_empty(), self.here.is_empty());
        assert!(self.here.len() - self.in_front <= self.capacity, "the queue is bounded");
    }

    fn push(&mut self, class: Class, key: usize, cost: u32) {
        let waiter = self.next(class, key, cost);
        let full = self.here.len() - self.in_front == self.capacity;
        let waits = match self.queue.push(newcomer(&waiter), self.now) {
            Pushed::Waits => {
                assert!(!full);
                true
            }
            Pushed::Instead(dropped) => {
                assert!(full);
                self.went(&dropped);
                true
            }
            Pushed::Full(refused) => {
                assert!(full && refused == waiter);
                false
            }
        };
        self.here.extend(waits.then_some((waiter, self.now)));
    }

    /// Serves when the key `unfit` has no place.
    fn serve(&mut self, unfit: usize) {
        let fits = |waiter: &Waiter| waiter.key != unfit;
        let Some(served) = serve_where(&mut self.queue, self.now, fits) else {
            assert!(self.here.iter().all(|(waiter, _)| waiter.key == unfit), "somebody could be served");
            return;
        };
        assert_ne!(served.key, unfit);
        let index = self.here.iter().position(|(waiter, _)| *waiter == served);
        let index = index.expect("served is who waits");
        if index >= self.in_front {
            self.is_next(index, &served, unfit);
        }
        self.went(&served);
    }

    /// Nobody of its class and key came before it, and no class above its own waits.
    fn is_next(&self, index: usize, served: &Waiter, unfit: usize) {
        let effective = |waiter: &Waiter, since: Instant| {
            if self.now - since >= PROMOTED_AFTER { Class::Interactive } else { waiter.class }
        };
        let class = effective(served, self.here[index].1);
        for (other, since) in &self.here[self.in_front..] {
            let theirs = effective(other, *since);
            assert!(
                class == Class::Interactive || theirs == Class::Batch || other.key == unfit,
                "interactive first: {served:?} before {other:?}"
            );
            assert!(
                theirs != class || other.key != served.key || other.number >= served.number,
                "in the order of arrival: {served:?} before {other:?}"
            );
        }
        assert!(self.here[..self.in_front].iter().all(|(waiter, _)| waiter.key == unfit));
    }

    fn went(&mut self, waiter: &Waiter) {
        assert!(self.gone.insert(waiter.number), "nobody goes twice: {waiter:?}");
        let index = self.here.iter().position(|(here, _)| here == waiter).expect("who goes was here");
        self.here.remove(index);
        self.in_front -= usize::from(index < self.in_front);
    }
}

proptest! {
    #[test]
    fn the_queue_is_bounded_nobody_is_lost_or_served_twice_and_order_holds(
        steps in steps(),
        capacity in 1..12_usize,
        drop_lru in any::<bool>(),
    ) {
        let policy = if drop_lru { FullPolicy::DropLru } else { FullPolicy::Reject };
        let mut checked = Checked::new(capacity, policy);
        for step in &steps {
            checked.step(step);
        }
        let left: HashSet<usize> = all(&mut checked.queue, checked.now).into_iter().collect();
        let expected: HashSet<usize> = checked.here.iter().map(|(waiter, _)| waiter.number).collect();
        prop_assert_eq!(&left, &expected, "whoever is left is served at last");
        prop_assert!(left.is_disjoint(&checked.gone));
    }

    /// While two keys wait all the time, what they were served differs by less than one turn and one request each.
    #[test]
    fn keys_that_keep_waiting_are_served_alike(
        costs in prop::collection::vec(prop::collection::vec(1..=MOST_COST, 60), 2..5),
        rounds in 1..60_usize,
    ) {
        let (mut queue, now) = (Queue::new(1000, FullPolicy::Reject), Instant::now());
        for (key, costs) in costs.iter().enumerate() {
            for (number, &cost) in costs.iter().enumerate() {
                let number = key * 100 + number;
                queue.push(newcomer(&Waiter { number, class: Class::Interactive, key, cost }), now);
            }
        }
        let mut served = vec![0_u32; costs.len()];
        for _ in 0..rounds {
            let waiter = serve(&mut queue, now).expect("enough wait");
            served[waiter.key] += waiter.cost;
        }
        let (least, most) = (*served.iter().min().unwrap(), *served.iter().max().unwrap());
        prop_assert!(most - least <= 2 * MOST_COST, "{served:?}");
    }

    #[test]
    fn the_position_is_how_many_are_served_before(
        waiters in prop::collection::vec((any::<bool>(), 0..4_usize), 1..40),
        served_before in 0..10_usize,
    ) {
        let (mut queue, now) = (Queue::new(100, FullPolicy::Reject), Instant::now());
        for (number, &(is_batch, key)) in waiters.iter().enumerate() {
            let waiter = if is_batch { batch(number, key) } else { interactive(number, key) };
            queue.push(newcomer(&waiter), now);
        }
        for _ in 0..served_before {
            serve(&mut queue, now);
        }
        let told: Vec<(usize, usize)> = queue
            .iter()
            .map(|(ticket, waiter)| (queue.position(ticket).expect("it waits"), waiter.number))
            .collect();
        let order = all(&mut queue, now);
        for (position, number) in told {
            prop_assert_eq!(order[position], number);
        }
    }
}

proptest! {
    /// However many interactive requests keep coming, a batch request is served once it is promoted and those that
    /// were there before it have gone.
    #[test]
    fn a_batch_request_does_not_starve(keys in 1..4_usize, arrivals in 2..5_usize) {
        let (mut queue, start) = filled(10_000, FullPolicy::Reject, &[batch(0, 9)]);
        let mut now = start;
        let mut number = 0;
        let served_at = (0..400_u64).find(|_| {
            for _ in 0..arrivals {
                number += 1;
                queue.push(newcomer(&interactive(number, number % keys)), now);
            }
            now += Duration::from_secs(2);
            serve(&mut queue, now).is_some_and(|waiter| waiter.number == 0)
        });
        let turns_to_wait = keys as u64 + 2;
        prop_assert!(served_at.is_some_and(|second| second <= 150 + turns_to_wait), "{served_at:?}");
    }
}
