use orch_core::ReplicaId;
use proptest::prelude::*;
use proptest::strategy::Strategy;

use super::*;

fn key(node: u8, pool: u8, replica: u16) -> ReplicaKey {
    ReplicaKey { node_id: format!("n{node}"), pool_id: format!("p{pool}"), replica_id: ReplicaId(replica) }
}

fn wanted<'w>(placement: &'w Placement, tried: &'w [ReplicaKey]) -> Wanted<'w> {
    Wanted { node: None, placement, tried, needs_slot: true, context: None }
}

/// A replica that could take anything.
fn good(key: &ReplicaKey) -> Candidate<'_> {
    Candidate {
        key,
        ready: true,
        standing: Standing::Good,
        device_mask: None,
        free_slots: 2,
        slots_total: 2,
        free_vram: None,
        context: Some(4096),
        bond: Bond::default(),
    }
}

fn pin(words: &[&str]) -> Placement {
    Placement { pin: words.iter().map(|&word| word.to_owned()).collect(), ..Placement::default() }
}

#[track_caller]
fn assert_chosen(choice: &Choice, expected: usize, why: Reason) {
    match choice {
        Choice::Chosen { index, reason, .. } => assert_eq!((*index, *reason), (expected, why)),
        other => panic!("{other:?}"),
    }
}

#[test]
fn session_goes_before_prefix_before_free_slots_before_free_memory_before_the_name() {
    let keys = [key(1, 1, 0), key(1, 1, 1), key(1, 1, 2)];
    let anywhere = Placement::default();
    let wanted = wanted(&anywhere, &[]);
    let mut all: Vec<_> = keys.iter().map(good).collect();
    assert_chosen(&choose(&wanted, &all, Rule::Affinity), 0, Reason::Order);
    all[1].free_vram = Some(1);
    assert_chosen(&choose(&wanted, &all, Rule::Affinity), 1, Reason::FreeVram);
    all[2].free_slots = 3;
    assert_chosen(&choose(&wanted, &all, Rule::Affinity), 2, Reason::FreeSlots);
    all[0].bond.prefix = 300;
    all[1].bond.prefix = 400;
    assert_chosen(&choose(&wanted, &all, Rule::Affinity), 1, Reason::Prefix);
    let now = Instant::now();
    all[0].bond.session = Some(now);
    assert_chosen(&choose(&wanted, &all, Rule::Affinity), 0, Reason::Session);
    all[2].bond.session = Some(now + std::time::Duration::from_secs(1));
    assert_chosen(&choose(&wanted, &all, Rule::Affinity), 2, Reason::Session);
    all[2].free_slots = 0;
    assert_chosen(&choose(&wanted, &all, Rule::Affinity), 0, Reason::Session);
}

#[test]
fn a_pin_is_never_replaced_silently() {
    let keys = [key(1, 1, 0), key(2, 2, 0)];
    let mut all: Vec<_> = keys.iter().map(good).collect();
    let there = pin(&["p2"]);
    let wanted = wanted(&there, &[]);
    assert_chosen(&choose(&wanted, &all, Rule::Affinity), 1, Reason::Only);
    all[1].free_slots = 0;
    assert_eq!(choose(&wanted, &all, Rule::Affinity), Choice::Busy);
    all[1].ready = false;
    let Choice::Refused(problem) = choose(&wanted, &all, Rule::Affinity) else { panic!() };
    assert_eq!(problem.code, ErrorCode::PoolUnready);
    for word in ["n2", "p2@n2"] {
        assert!(is_meant(&pin(&[word]).pin, all[1].key), "{word}");
    }
}

#[test]
fn preferred_ones_are_taken_if_any_of_them_can_be_and_the_rest_otherwise() {
    let keys = [key(1, 1, 0), key(2, 2, 0)];
    let mut all: Vec<_> = keys.iter().map(good).collect();
    all[1].free_slots = 1;
    let placement = Placement { prefer: vec!["n2".to_owned(), "nowhere".to_owned()], ..Placement::default() };
    let wanted = wanted(&placement, &[]);
    assert_eq!(
        choose(&wanted, &all, Rule::Affinity),
        Choice::Chosen { index: 1, reason: Reason::Only, fallback: false }
    );
    all[1].free_slots = 0;
    assert_eq!(
        choose(&wanted, &all, Rule::Affinity),
        Choice::Chosen { index: 0, reason: Reason::Only, fallback: true }
    );
}

#[test]
fn devices_have_to_match_exactly_and_what_is_avoided_is_out() {
    let keys = [key(1, 1, 0), key(2, 2, 0)];
    let mut all: Vec<_> = keys.iter().map(good).collect();
    all[1].device_mask = Some("CUDA1");
    let on = |mask: &str| Placement { device_mask: Some(mask.to_owned()), ..Placement::default() };
    assert_chosen(&choose(&wanted(&on("CUDA1"), &[]), &all, Rule::Affinity), 1, Reason::Only);
    let nowhere = Placement { avoid: vec!["n1".to_owned(), "p2".to_owned()], ..Placement::default() };
    for placement in [on("CUDA"), nowhere] {
        let Choice::Refused(problem) = choose(&wanted(&placement, &[]), &all, Rule::Affinity) else {
            panic!()
        };
        assert_eq!(problem.code, ErrorCode::PoolUnavailable);
    }
}

#[test]
fn what_failed_or_is_too_small_is_not_tried_again() {
    let keys = [key(1, 1, 0), key(1, 1, 1)];
    let mut all: Vec<_> = keys.iter().map(good).collect();
    let anywhere = Placement::default();
    assert_chosen(&choose(&wanted(&anywhere, &keys[..1]), &all, Rule::Affinity), 1, Reason::Only);
    assert_eq!(choose(&wanted(&anywhere, &keys), &all, Rule::Affinity), Choice::Exhausted);
    let large = Wanted { context: Some(5000), ..wanted(&anywhere, &[]) };
    assert_eq!(choose(&large, &all, Rule::Affinity), Choice::Exhausted);
    all[1].context = Some(8192);
    assert_chosen(&choose(&large, &all, Rule::Affinity), 1, Reason::Only);
    assert_eq!(choose(&wanted(&anywhere, &[]), &[], Rule::Affinity), Choice::Unready);
}

#[test]
fn a_replica_that_keeps_failing_is_the_last_resort() {
    let keys = [key(1, 1, 0), key(1, 1, 1)];
    let mut all: Vec<_> = keys.iter().map(good).collect();
    let anywhere = Placement::default();
    all[0].standing = Standing::Resting;
    all[1].free_slots = 0;
    assert_eq!(
        choose(&wanted(&anywhere, &[]), &all, Rule::Affinity),
        Choice::Busy,
        "it waits for the good one"
    );
    assert_chosen(&choose(&wanted(&anywhere, &keys[1..]), &all, Rule::Affinity), 0, Reason::Only);
    all[0].standing = Standing::Trial;
    assert_chosen(&choose(&wanted(&anywhere, &[]), &all, Rule::Affinity), 0, Reason::Only);
}

#[test]
fn turns_go_round_and_chance_is_spread() {
    let keys = [key(1, 1, 1), key(1, 1, 0), key(1, 1, 2)];
    let all: Vec<_> = keys.iter().map(good).collect();
    let anywhere = Placement::default();
    let wanted = wanted(&anywhere, &[]);
    let turns: Vec<_> = (0..6)
        .map(|turn| match choose(&wanted, &all, Rule::RoundRobin(turn)) {
            Choice::Chosen { index, .. } => all[index].key.replica_id.0,
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(turns, [0, 1, 2, 0, 1, 2]);
    assert_chosen(&choose(&wanted, &all, Rule::Random(7)), 0, Reason::Chance);
    assert_eq!(choose(&wanted, &all, Rule::Random(7)), choose(&wanted, &all, Rule::Random(7)));
}

#[test]
fn least_loaded_goes_by_the_share_that_is_free() {
    let keys = [key(1, 1, 0), key(1, 1, 1)];
    let mut all: Vec<_> = keys.iter().map(good).collect();
    (all[0].free_slots, all[0].slots_total) = (4, 16);
    (all[1].free_slots, all[1].slots_total) = (2, 2);
    let anywhere = Placement::default();
    assert_chosen(&choose(&wanted(&anywhere, &[]), &all, Rule::LeastLoaded), 1, Reason::LeastLoaded);
    assert_chosen(&choose(&wanted(&anywhere, &[]), &all, Rule::Affinity), 0, Reason::FreeSlots);
}

/// A candidate without its key, which has to be unique.
#[derive(Clone, Debug)]
struct Sketch {
    ready: bool,
    standing: Standing,
    mask: Option<&'static str>,
    free_slots: i64,
    context: Option<u64>,
    free_vram: Option<u64>,
    prefix: u32,
}

fn sketch() -> impl Strategy<Value = Sketch> {
    let standing = prop_oneof![Just(Standing::Good), Just(Standing::Resting), Just(Standing::Trial)];
    let mask = prop::option::of(prop_oneof![Just("a"), Just("b")]);
    (
        any::<bool>(),
        standing,
        mask,
        -1_i64..4,
        prop::option::of(0_u64..3),
        prop::option::of(0_u64..3),
        0_u32..3,
    )
        .prop_map(|(ready, standing, mask, free_slots, context, free_vram, prefix)| Sketch {
            ready,
            standing,
            mask,
            free_slots,
            context,
            free_vram,
            prefix,
        })
}

fn words() -> impl Strategy<Value = Vec<String>> {
    let word = prop_oneof![Just("n0"), Just("n1"), Just("p0"), Just("p1"), Just("p1@n1"), Just("p9")];
    prop::collection::vec(word.prop_map(str::to_owned), 0..3)
}

fn placement() -> impl Strategy<Value = Placement> {
    let mask = prop::option::of(prop_oneof![Just("a".to_owned()), Just("c".to_owned())]);
    (words(), words(), words(), mask).prop_map(|(pin, prefer, avoid, device_mask)| Placement {
        pin,
        prefer,
        avoid,
        device_mask,
    })
}

fn rule() -> impl Strategy<Value = Rule> {
    prop_oneof![
        Just(Rule::Affinity),
        Just(Rule::LeastLoaded),
        any::<u64>().prop_map(Rule::RoundRobin),
        any::<u64>().prop_map(Rule::Random),
    ]
}

fn candidates<'c>(sketches: &[Sketch], keys: &'c [ReplicaKey]) -> Vec<Candidate<'c>> {
    let one = |(sketch, key): (&Sketch, &'c ReplicaKey)| Candidate {
        key,
        ready: sketch.ready,
        standing: sketch.standing,
        device_mask: sketch.mask,
        free_slots: sketch.free_slots,
        slots_total: 4,
        free_vram: sketch.free_vram,
        context: sketch.context,
        bond: Bond { session: None, prefix: sketch.prefix },
    };
    sketches.iter().zip(keys).map(one).collect()
}

fn keys(count: usize) -> Vec<ReplicaKey> {
    (0..count).map(|number| key((number % 2) as u8, (number / 2 % 2) as u8, number as u16)).collect()
}

proptest! {
    #[test]
    fn whoever_is_chosen_is_allowed_ready_free_and_new(
        sketches in prop::collection::vec(sketch(), 0..7), placement in placement(), rule in rule(),
        tried in prop::collection::vec(any::<bool>(), 7), needs_slot: bool, context in prop::option::of(0_u64..4),
    ) {
        let keys = keys(sketches.len());
        let tried: Vec<_> = keys.iter().zip(&tried).filter(|(_, tried)| **tried).map(|(key, _)| key.clone()).collect();
        let all = candidates(&sketches, &keys);
        let wanted = Wanted { node: None, placement: &placement, tried: &tried, needs_slot, context };
        let possible = |candidate: &Candidate<'_>| {
            candidate.ready
                && (placement.pin.is_empty() || is_meant(&placement.pin, candidate.key))
                && !is_meant(&placement.avoid, candidate.key)
                && (placement.device_mask.is_none() || placement.device_mask.as_deref() == candidate.device_mask)
                && !tried.contains(candidate.key)
                && (!needs_slot || candidate.free_slots > 0)
                && context.is_none_or(|tokens| candidate.context.is_none_or(|room| room > tokens))
        };
        match choose(&wanted, &all, rule) {
            Choice::Chosen { index, fallback, .. } => {
                prop_assert!(possible(&all[index]));
                let preferred = is_meant(&placement.prefer, all[index].key);
                prop_assert!(placement.prefer.is_empty() || preferred != fallback);
            }
            Choice::Refused(problem) => {
                prop_assert!(!all.iter().any(possible));
                let expected = if placement.pin.is_empty() { ErrorCode::PoolUnavailable } else { ErrorCode::PoolUnready };
                prop_assert_eq!(problem.code, expected);
            }
            // Those that rest may be possible and yet have to wait for a better one.
            Choice::Busy => prop_assert!(
                !all.iter().any(|one| possible(one) && one.standing != Standing::Resting)
            ),
            Choice::Unready | Choice::Exhausted => prop_assert!(!all.iter().any(possible)),
        }
    }

    #[test]
    fn the_order_of_the_candidates_does_not_matter(
        sketches in prop::collection::vec(sketch(), 1..7), placement in placement(), rule in rule(), turn in 0_usize..7,
    ) {
        let keys = keys(sketches.len());
        let all = candidates(&sketches, &keys);
        let mut turned = all.clone();
        turned.rotate_left(turn % all.len());
        turned.reverse();
        let name = |choice, of: &[Candidate<'_>]| match choice {
            Choice::Chosen { index, reason, fallback } => Ok((of[index].key.clone(), reason, fallback)),
            other => Err(other),
        };
        let wanted = wanted(&placement, &[]);
        prop_assert_eq!(name(choose(&wanted, &all, rule), &all), name(choose(&wanted, &turned, rule), &turned));
    }
}
