//! The daemon is killed at any moment while instances start, stop and crash; in the end all is as it is wanted.
//!
//! `CHAOS_KILLS` says how often it is killed, `CHAOS_SEED` repeats the choices of a run.

#![cfg(target_os = "linux")]
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use support::database::{assert_intact, sql};
use support::home::{Background, Home};
use support::processes::{Role, engines_in, is_alive, parent, processes_in, try_to_kill};
use testkit::{real_llama_server, wait_for};

const SETTLED: Duration = Duration::from_secs(90);
/// Few enough for every day.
const KILLS: u64 = 25;
/// A daemon lives at most so long: it answers after some 100 ms.
const LONGEST_LIFE_MS: u64 = 700;
/// So many kills lie between two looks at the database.
const LOOK_EVERY: u64 = 10;
const REAL: &str = "real";
/// The fake engines, and what goes wrong with them: nothing, a crash early and late, one that hardly lets itself be
/// stopped, and one whose children would stay behind.
const FAKES: [(&str, &[(&str, &str)]); 5] = [
    ("well", &[("FAKE_LOAD_MS", "20")]),
    ("crashing", &[("FAKE_EXIT_AFTER_MS", "150"), ("FAKE_LAST_WORDS", "error: chaos")]),
    ("slow", &[("FAKE_LOAD_MS", "120"), ("FAKE_EXIT_AFTER_MS", "400")]),
    ("deaf", &[("FAKE_IGNORE_SIGTERM", "9")]),
    ("family", &[("FAKE_CHILDREN", "2"), ("FAKE_CHILDREN_NEW_SESSION", "1"), ("FAKE_EXIT_AFTER_MS", "300")]),
];

fn names() -> impl Iterator<Item = &'static str> {
    FAKES.iter().map(|(name, _)| *name).chain([REAL])
}

fn from_environment(variable: &str) -> Option<u64> {
    std::env::var(variable).ok().map(|text| text.parse().unwrap())
}

/// A small generator of our own, so that a printed seed repeats the choices.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % limit
    }
}

/// What is done to an instance.
#[derive(Clone, Copy, Debug)]
enum Deed {
    Command(&'static [&'static str], Option<Wish>),
    KillEngine,
    KillShim,
}

/// What has to be written down once the command has succeeded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wish {
    Running,
    Stopped,
}

const DEEDS: [Deed; 10] = [
    Deed::Command(&["up", "--no-wait"], None),
    Deed::Command(&["up", "--no-wait"], None),
    Deed::Command(&["up", "--timeout", "20"], Some(Wish::Running)),
    Deed::Command(&["up", "--timeout", "20"], Some(Wish::Running)),
    Deed::Command(&["restart", "--no-wait"], None),
    Deed::Command(&["restart", "--timeout", "20"], Some(Wish::Running)),
    Deed::Command(&["down", "--timeout", "0"], Some(Wish::Stopped)),
    Deed::Command(&["down", "--force"], Some(Wish::Stopped)),
    Deed::KillEngine,
    Deed::KillShim,
];

/// What happens in the life of one daemon, and how long it lives.
struct Plan {
    deeds: Vec<(Duration, &'static str, Deed)>,
    life: Duration,
}

impl Plan {
    fn make(random: &mut Random) -> Self {
        // Each fourth is killed while it begins.
        let life = if random.below(4) == 0 { 150 } else { LONGEST_LIFE_MS };
        let life = random.below(life);
        let names: Vec<&str> = names().collect();
        let count = 1 + random.below(5);
        let mut deeds: Vec<_> = (0..count)
            .map(|_| {
                let at = Duration::from_millis(random.below(life + 1));
                let name = names[usize::try_from(random.below(names.len() as u64)).unwrap()];
                let deed = DEEDS[usize::try_from(random.below(DEEDS.len() as u64)).unwrap()];
                (at, name, deed)
            })
            .collect();
        deeds.sort_by_key(|(at, ..)| *at);
        Self { deeds, life: Duration::from_millis(life) }
    }
}

/// Commands under way, and what is known to be wanted.
#[derive(Default)]
struct Wishes {
    under_way: BTreeMap<&'static str, (Background, Option<Wish>)>,
    /// Told with success, and nothing else was asked of the instance since.
    granted: BTreeMap<&'static str, Wish>,
    succeeded: usize,
}

impl Wishes {
    fn begin(&mut self, home: &Home, name: &'static str, words: &[&str], wish: Option<Wish>) {
        self.look();
        // One at a time, so that it is known which was the last.
        if self.under_way.contains_key(name) {
            return;
        }
        let arguments = [&words[..1], &[name], &words[1..]].concat();
        self.granted.remove(name);
        let command = home.spawn(&arguments, &format!("wish-{name}.txt"));
        self.under_way.insert(name, (command, wish));
    }

    /// Takes note of the commands that have ended.
    fn look(&mut self) {
        let (granted, succeeded) = (&mut self.granted, &mut self.succeeded);
        self.under_way.retain(|name, (command, wish)| {
            let Some(status) = command.exit_status() else { return true };
            if status.success() {
                *succeeded += 1;
                granted.extend(wish.map(|wish| (*name, wish)));
            }
            false
        });
    }

    /// Whoever was promised something got it in writing.
    #[track_caller]
    fn assert_kept(&mut self, home: &Home) {
        let written = sql(home.path(), "SELECT name, desired_state FROM instances");
        self.look();
        for (name, wish) in &self.granted {
            let expected = if *wish == Wish::Running { "running" } else { "stopped" };
            let line = format!("{name}|{expected}");
            assert!(written.lines().any(|it| it == line), "{line} was promised: {written}");
        }
    }
}

/// It hardly gives up while the test lasts.
fn policy() -> Value {
    json!({"initial_delay": 0.05, "max_delay": 0.2, "max_retries": 100})
}

fn make_instances(home: &Home) -> BTreeMap<&'static str, u16> {
    let policy = policy();
    let fakes = FAKES.iter().map(|(name, knobs)| {
        let knobs: BTreeMap<_, _> = knobs.iter().copied().collect();
        (*name, home.instance(name, &json!({"env": knobs, "restart_policy": policy})))
    });
    let mut ports: BTreeMap<_, _> = fakes.collect();
    let server = real_llama_server();
    let path = server.to_str().unwrap();
    let version = home.json(&["engine", "install", "--source", "path", path, "--json"]);
    let config = json!({"binary": {"binary_id": version["id"]}, "restart_policy": policy});
    ports.insert(REAL, home.instance(REAL, &config));
    ports
}

#[test]
fn after_a_daemon_was_killed_at_any_moment_again_and_again_all_is_as_it_is_wanted() {
    let kills = from_environment("CHAOS_KILLS").unwrap_or(KILLS);
    let drawn = u64::from(std::process::id()) * 2_654_435_761;
    let seed = from_environment("CHAOS_SEED").unwrap_or(drawn).max(1);
    eprintln!("CHAOS_KILLS={kills} CHAOS_SEED={seed}");
    let begun = Instant::now();
    let home = Home::fake();
    let ports = make_instances(&home);
    let mut random = Random(seed);
    let mut wishes = Wishes::default();
    for number in 1..=kills {
        live_and_die(&home, &Plan::make(&mut random), &mut wishes);
        if number % LOOK_EVERY == 0 {
            assert_intact(home.path());
            wishes.assert_kept(&home);
        }
    }
    // What is still under way may take its time: the next daemon answers it or it fails.
    settle(&home, &ports, &mut wishes);
    let count =
        |kind: &str| sql(home.path(), &format!("SELECT count(*) FROM events WHERE event_type = '{kind}'"));
    eprintln!("{kills} kills in {:?}, {} commands succeeded", begun.elapsed(), wishes.succeeded);
    for kind in ["instance_started", "restarted", "crashed", "orphan_adopted", "instance_stopped", "gave_up"]
    {
        eprintln!("{kind}: {}", count(kind));
    }
}

/// One daemon from its beginning to its violent end.
fn live_and_die(home: &Home, plan: &Plan, wishes: &mut Wishes) {
    let daemon = home.spawn(&["daemon", "start", "--foreground"], "daemon.txt");
    let begun = Instant::now();
    let mut deeds = plan.deeds.iter().peekable();
    wait_for("the moment to kill", SETTLED, || {
        while let Some((_, name, deed)) = deeds.next_if(|(at, ..)| begun.elapsed() >= *at) {
            act(home, name, *deed, wishes);
        }
        assert_no_double(home);
        begun.elapsed() >= plan.life
    });
    let told = daemon.output();
    drop(daemon);
    assert!(!told.contains("panicked"), "{told}");
    assert_no_double(home);
}

fn act(home: &Home, name: &'static str, deed: Deed, wishes: &mut Wishes) {
    let role = match deed {
        Deed::Command(words, wish) => return wishes.begin(home, name, words, wish),
        Deed::KillEngine => Role::Engine(name.to_owned()),
        Deed::KillShim => Role::Shim(name.to_owned()),
    };
    for (pid, _) in processes_in(home.path()).iter().filter(|(_, it)| *it == role) {
        // It may have ended by itself at this moment.
        try_to_kill(*pid);
    }
}

#[track_caller]
fn assert_no_double(home: &Home) {
    let engines = engines_in(home.path());
    for name in names() {
        let pids: Vec<u32> = engines.iter().filter(|(_, alias)| alias == name).map(|(pid, _)| *pid).collect();
        // An engine that starts a child looks for a moment as if there were two of it. One may have ended while the
        // other was found: both have to live now.
        let engines = pids.iter().filter(|pid| parent(**pid).is_some_and(|it| !pids.contains(&it)));
        assert!(engines.filter(|pid| is_alive(**pid)).count() <= 1, "{name} has {pids:?}");
    }
}

/// The last daemon brings everything to where it is wanted, once the engines have no faults any more.
fn settle(home: &Home, ports: &BTreeMap<&str, u16>, wishes: &mut Wishes) {
    for (name, port) in ports.iter().filter(|(name, _)| **name != REAL) {
        // With the same policy: by another one, what crashed so often already could be given up.
        home.instance(name, &json!({"server": {"port": port}, "restart_policy": policy()}));
    }
    home.start_daemon();
    wait_for("the last commands", SETTLED, || {
        wishes.look();
        wishes.under_way.is_empty()
    });
    wishes.assert_kept(home);
    wait_until_as_wanted(home);
    home.ok(&["down", "--all", "--force"]);
    home.ok(&["daemon", "stop"]);
    wait_until_empty("what is left", || {
        let left = processes_in(home.path());
        if left.is_empty() { String::new() } else { format!("{left:?}") }
    });
    assert!(ports.values().all(|port| support::processes::is_port_free(*port)));
    assert_intact(home.path());
}

fn wait_until_as_wanted(home: &Home) {
    wait_until_empty("what is not as it is wanted", || {
        let rows = home.json(&["ps", "--all", "--json"]);
        differences(home, rows.as_array().unwrap())
    });
}

/// Tells what it sees whenever that changes: a wait in vain ends with the reason.
#[track_caller]
fn wait_until_empty(what: &str, look: impl Fn() -> String) {
    let mut last = String::new();
    wait_for(&format!("the end of {what}"), SETTLED, || {
        let found = look();
        if found != last {
            eprintln!("{what}: {found}");
            last.clone_from(&found);
        }
        found.is_empty()
    });
}

/// What keeps rows and processes from being as they are wanted: a line each.
fn differences(home: &Home, rows: &[Value]) -> String {
    let (mut expected, mut found) = (BTreeSet::new(), Vec::new());
    for row in rows {
        let name = row["name"].as_str().unwrap();
        let (desired, status, health) = (&row["desired_state"], &row["status"], &row["health"]);
        let right = if desired == "running" {
            expected.extend([Role::Engine(name.to_owned()), Role::Shim(name.to_owned())]);
            status == "running" && health == "healthy"
        } else {
            status == "stopped"
        };
        if !right {
            found.push(format!("{name} is {status} and {health}, wanted {desired}"));
        }
    }
    let mut living: Vec<Role> = processes_in(home.path()).into_iter().map(|(_, role)| role).collect();
    living.retain(|role| *role != Role::Daemon);
    living.sort();
    if !living.iter().eq(&expected) {
        found.push(format!("{living:?} live, {expected:?} should"));
    }
    if rows.len() != names().count() {
        found.push(format!("{} instances are shown", rows.len()));
    }
    found.join("\n")
}
