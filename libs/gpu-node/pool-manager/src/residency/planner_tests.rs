use proptest::prelude::*;

use super::super::ledger::{Basis, Capacity, Held, Holding};
use super::*;

const POLICY: ResidencyPolicy =
    ResidencyPolicy { min_residency: Duration::from_secs(10), starvation: Duration::from_secs(60) };

fn name(text: &str) -> InstanceName {
    InstanceName::new(text).unwrap()
}

fn card(number: usize) -> Place {
    Place::Device(format!("CUDA{number}"))
}

fn gib(gib: u64) -> ByteCount {
    ByteCount::from_mib(gib * 1024)
}

/// Loaded long ago, idle for so many seconds.
fn idle(instance: &str, seconds: u64) -> Resident {
    Resident {
        instance: name(instance),
        group: None,
        protection: None,
        settled: true,
        in_flight: 0,
        waiting: 0,
        idle_for: Duration::from_secs(seconds),
        loaded_for: Duration::from_secs(1000),
        yielding: false,
    }
}

fn want(instance: &str, need: u64, waited: u64) -> Want {
    let urgency =
        Urgency::Requests { oldest_wait: Duration::from_secs(waited), load_time: Duration::from_secs(2) };
    let need = BTreeMap::from([(card(0), gib(need))]);
    Want { instance: name(instance), group: None, need, at_most: false, urgency }
}

/// One card of 24 GiB and who holds how much of it.
fn ledger(holders: &[(&str, u64)]) -> Ledger {
    let capacity = Capacity { name: None, usable: gib(24), free: None };
    let holding = |bytes| -> Holding {
        BTreeMap::from([(card(0), Held { reserved: bytes, taken: bytes, basis: Basis::Measured })])
    };
    Ledger {
        places: BTreeMap::from([(card(0), capacity)]),
        holdings: holders.iter().map(|(it, held)| (name(it), holding(gib(*held)))).collect(),
    }
}

fn evicted(plan: &Plan) -> Vec<String> {
    let Plan::Load { evict } = plan else { panic!("{plan:?} is no load") };
    evict.iter().map(|it| it.instance.to_string()).collect()
}

#[test]
fn who_fits_beside_the_others_evicts_nobody() {
    let plan = plan(&want("new", 8, 0), &[idle("old", 5)], &ledger(&[("old", 16)]), &POLICY);
    assert_eq!(plan, Plan::Load { evict: Vec::new() });
}

#[test]
fn the_least_recently_used_goes_first_and_no_more_than_needed() {
    let residents = [idle("young", 5), idle("old", 50), idle("older", 70)];
    let book = ledger(&[("young", 8), ("old", 8), ("older", 8)]);
    assert_eq!(evicted(&plan(&want("new", 8, 0), &residents, &book, &POLICY)), ["older"]);
    assert_eq!(evicted(&plan(&want("new", 12, 0), &residents, &book, &POLICY)), ["older", "old"]);
}

#[test]
fn a_small_one_that_would_not_help_stays_although_it_is_older() {
    let residents = [idle("large", 5), idle("small", 50)];
    let book = ledger(&[("large", 20), ("small", 2)]);
    assert_eq!(evicted(&plan(&want("new", 20, 0), &residents, &book, &POLICY)), ["large"]);
}

#[test]
fn who_serves_or_has_requests_keeps_its_place_until_somebody_starves() {
    let busy = Resident { in_flight: 1, ..idle("busy", 0) };
    let queued = Resident { waiting: 3, ..idle("busy", 0) };
    let book = ledger(&[("busy", 20)]);
    for resident in [busy, queued] {
        let residents = [resident];
        let early = plan(&want("new", 20, 5), &residents, &book, &POLICY);
        let Plan::Wait { obstacles, again } = &early else { panic!("{early:?}") };
        assert_eq!(obstacles, &[Obstacle::Busy(name("busy"))]);
        assert_eq!(*again, Some(Duration::from_secs(53)), "the bound, less waiting and loading");
        let late = plan(&want("new", 20, 58), &residents, &book, &POLICY);
        assert!(matches!(late, Plan::Drain { .. }), "{late:?}");
    }
}

#[test]
fn who_yields_goes_when_its_last_request_is_done_whatever_waits() {
    let residents = [Resident { waiting: 9, yielding: true, ..idle("old", 0) }];
    let plan = plan(&want("new", 20, 58), &residents, &ledger(&[("old", 20)]), &POLICY);
    assert_eq!(evicted(&plan), ["old"]);
}

#[test]
fn who_was_loaded_just_now_stays_for_a_minimum_but_not_against_a_user() {
    let residents = [Resident { loaded_for: Duration::from_secs(4), ..idle("fresh", 4) }];
    let book = ledger(&[("fresh", 20)]);
    let waits = plan(&want("new", 20, 59), &residents, &book, &POLICY);
    let Plan::Wait { obstacles, again } = waits else { panic!("{waits:?}") };
    assert_eq!(obstacles, [Obstacle::Fresh(name("fresh"))]);
    assert_eq!(again, Some(Duration::from_secs(6)));
    let user = Want { urgency: Urgency::User, ..want("new", 20, 0) };
    assert_eq!(evicted(&plan(&user, &residents, &book, &POLICY)), ["fresh"]);
}

#[test]
fn what_is_protected_is_never_a_victim_and_the_answer_tells_what_could_be_had() {
    for protection in [Protection::Pinned, Protection::Always, Protection::Manual] {
        let residents = [Resident { protection: Some(protection), ..idle("kept", 999) }];
        let plan = plan(&want("new", 20, 999), &residents, &ledger(&[("kept", 10)]), &POLICY);
        let obstacle = Obstacle::Memory { place: card(0), needed: gib(20), available: gib(14) };
        assert_eq!(plan, Plan::Impossible { obstacle });
    }
}

#[test]
fn a_group_has_one_loaded_member_even_where_there_is_room_for_two() {
    let group = Some("chat".to_owned());
    let wanted = Want { group: group.clone(), ..want("new", 1, 0) };
    let mate = Resident { group: group.clone(), ..idle("mate", 50) };
    let book = ledger(&[("mate", 1)]);
    let plan_ = plan(&wanted, std::slice::from_ref(&mate), &book, &POLICY);
    let why = Why::Group("chat".to_owned());
    assert_eq!(plan_, Plan::Load { evict: vec![Eviction { instance: name("mate"), why }] });
    let pinned = Resident { protection: Some(Protection::Pinned), ..mate.clone() };
    assert!(matches!(
        plan(&wanted, &[pinned], &book, &POLICY),
        Plan::Impossible { obstacle: Obstacle::Group { .. } }
    ));
    let busy = Resident { in_flight: 1, ..mate };
    assert!(matches!(plan(&wanted, &[busy], &book, &POLICY), Plan::Wait { .. }));
}

#[test]
fn a_bound_that_is_larger_than_the_device_takes_what_there_can_be() {
    let bound = Want { at_most: true, ..want("moe", 60, 0) };
    let plan = plan(&bound, &[idle("old", 5)], &ledger(&[("old", 4)]), &POLICY);
    assert_eq!(evicted(&plan), ["old"]);
}

fn a_resident(number: usize) -> impl Strategy<Value = (Resident, Holding)> {
    let protection = prop_oneof![
        4 => Just(None),
        1 => Just(Some(Protection::Pinned)),
        1 => Just(Some(Protection::Always)),
        1 => Just(Some(Protection::Manual)),
    ];
    let group = prop_oneof![4 => Just(None), 1 => Just(Some("g".to_owned()))];
    let work = (0usize..2, 0usize..2, 0u64..200, 0u64..40);
    let flags = (any::<bool>(), proptest::bool::weighted(0.9));
    (protection, group, work, flags, 0u64..12, 0u64..12).prop_map(
        move |(protection, group, (in_flight, waiting, idle_for, loaded_for), flags, first, second)| {
            let resident = Resident {
                protection,
                group,
                in_flight,
                waiting,
                idle_for: Duration::from_secs(idle_for),
                loaded_for: Duration::from_secs(loaded_for),
                yielding: flags.0,
                settled: flags.1,
                ..idle(&format!("r{number}"), 0)
            };
            let held = |bytes| Held { reserved: gib(bytes), taken: gib(bytes), basis: Basis::Measured };
            (resident, BTreeMap::from([(card(0), held(first)), (card(1), held(second))]))
        },
    )
}

fn a_node() -> impl Strategy<Value = (Vec<Resident>, Ledger)> {
    let some = (0usize..7).prop_flat_map(|count| (0..count).map(a_resident).collect::<Vec<_>>());
    some.prop_map(|all| {
        let mut book = ledger(&[]);
        book.places.insert(card(1), Capacity { name: None, usable: gib(24), free: None });
        let mut residents = Vec::new();
        for (resident, holding) in all {
            book.holdings.insert(resident.instance.clone(), holding);
            residents.push(resident);
        }
        (residents, book)
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn plans_keep_their_promises(
        (residents, book) in a_node(),
        need in (0u64..30, 0u64..30),
        waited in 0u64..90,
        grouped in any::<bool>(),
        user in any::<bool>(),
    ) {
        let mut wanted = want("new", need.0, waited);
        wanted.need.insert(card(1), gib(need.1));
        wanted.group = grouped.then(|| "g".to_owned());
        if user {
            wanted.urgency = Urgency::User;
        }
        let find = |eviction: &Eviction| residents.iter().find(|it| it.instance == eviction.instance).unwrap();
        match plan(&wanted, &residents, &book, &POLICY) {
            Plan::Load { evict } => {
                let victims: Vec<&InstanceName> = evict.iter().map(|it| &it.instance).collect();
                prop_assert!(book.shortages(&wanted.need, &victims).is_empty(), "it must fit");
                for eviction in &evict {
                    let victim = find(eviction);
                    prop_assert!(victim.protection.is_none() && victim.in_flight == 0 && victim.settled);
                    prop_assert!(victim.yielding || victim.waiting == 0);
                    let stayed = victim.loaded_for >= POLICY.min_residency;
                    prop_assert!(user || stayed);
                    let without: Vec<_> = victims.iter().copied().filter(|it| **it != victim.instance).collect();
                    let needed = !book.shortages(&wanted.need, &without).is_empty();
                    prop_assert!(needed || (grouped && victim.group.is_some()), "{} could stay", victim.instance);
                }
                let mates = residents.iter().filter(|it| grouped && it.group.is_some());
                prop_assert!(mates.into_iter().all(|it| victims.contains(&&it.instance)));
            }
            Plan::Drain { victims, .. } => {
                prop_assert!(waited >= 58 && !user);
                prop_assert!(victims.iter().all(|it| find(it).protection.is_none()));
            }
            Plan::Wait { obstacles, .. } => prop_assert!(!obstacles.is_empty()),
            Plan::Impossible { obstacle } => {
                let free: Vec<_> =
                    residents.iter().filter(|it| it.protection.is_none()).map(|it| &it.instance).collect();
                let taken = matches!(obstacle, Obstacle::Group { .. });
                prop_assert!(taken || !book.shortages(&wanted.need, &free).is_empty());
            }
        }
    }
}
