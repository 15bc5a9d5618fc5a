//! The engines' own counters, kept so that they only ever grow: an engine that starts anew counts from zero, and whoever
//! scrapes us must not see that.
//!
//! Counters alone are passed on. The engine's rates are means since the last time somebody asked, whoever that was:
//! each question spoils the next answer, so nothing is derived from them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream;
use orch_core::{InstanceName, ReplicaId};
use orch_runtime::bounded_get;
use tokio::sync::Mutex;
use tokio::time::Instant;

use crate::traffic::ReplicaSnapshot;

/// A busy engine answers between two steps of its work; of one that takes longer the last known counts are told.
const PATIENCE: Duration = Duration::from_millis(700);
const MAX_ANSWER: usize = 256 * 1024;
/// So many engines are asked at a time.
const AT_A_TIME: usize = 64;
/// Questions closer together than this share one answer.
const SHARED: Duration = Duration::from_secs(1);
/// So many series of one engine are kept.
const MAX_SERIES: usize = 64;
/// Longest name, and longest value of a label, that is kept.
const MAX_WORD: usize = 64;

/// One counter of an engine.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Series {
    /// Without `llamacpp:`.
    pub name: String,
    /// Name and value of its one label, if it has any.
    pub label: Option<(String, String)>,
}

/// All counters of one replica, over all engines that have served it since the first look.
#[derive(Clone, Debug, PartialEq)]
pub struct ReplicaCounters {
    pub instance: InstanceName,
    pub replica: ReplicaId,
    pub counts: BTreeMap<Series, f64>,
    /// How full the engine's context memory is, where the engine tells (older ones do).
    pub kv_cache_usage: Option<f64>,
}

/// Asks engines for their counters when somebody wants to know. Clones share what is known.
#[derive(Clone, Debug, Default)]
pub struct EngineCounters {
    state: Arc<Mutex<Known>>,
}

#[derive(Debug, Default)]
struct Known {
    asked: Option<Instant>,
    ledger: Ledger,
}

impl EngineCounters {
    /// The counters of these replicas. `/metrics` wakes no sleeping engine.
    pub async fn read(&self, replicas: &[ReplicaSnapshot]) -> Vec<ReplicaCounters> {
        let mut known = self.state.lock().await;
        known.ledger.keep_only(replicas);
        if known.asked.is_none_or(|at| at.elapsed() >= SHARED) {
            let asked: Vec<_> = replicas.iter().filter(|it| it.routable).cloned().collect();
            let looks: Vec<_> =
                stream::iter(asked.into_iter().map(ask)).buffer_unordered(AT_A_TIME).collect().await;
            for (replica, text) in looks {
                let Some(text) = text else { continue };
                known.ledger.note(&replica, &Told::read(&text));
            }
            known.asked = Some(Instant::now());
        }
        known.ledger.counts()
    }
}

async fn ask(replica: ReplicaSnapshot) -> (ReplicaSnapshot, Option<String>) {
    let Some(address) = replica.address else { return (replica, None) };
    let (host, key) = (address.ip().to_string(), replica.api_key.clone());
    let answer = bounded_get(&host, address.port(), "/metrics", key.as_deref(), PATIENCE, MAX_ANSWER).await;
    let text = answer.ok().filter(|answer| answer.status == 200);
    (replica, text.map(|answer| String::from_utf8_lossy(&answer.body).into_owned()))
}

/// What one engine told at one moment.
#[derive(Clone, Debug, Default, PartialEq)]
struct Told {
    counts: BTreeMap<Series, f64>,
    kv_cache_usage: Option<f64>,
}

impl Told {
    /// Reads the text format of Prometheus: what is declared a counter and named like one. The engine calls its longest
    /// sequence a counter, too (`n_tokens_max`), but maxima cannot be added up.
    fn read(text: &str) -> Self {
        let mut told = Self::default();
        let mut counters = BTreeSet::new();
        for line in text.lines() {
            if let Some(declared) = line.strip_prefix("# TYPE llamacpp:") {
                counters.extend(declared.strip_suffix(" counter").filter(|name| is_counter_name(name)));
                continue;
            }
            let Some((series, value)) = read_sample(line) else { continue };
            if series.name == "kv_cache_usage_ratio" {
                told.kv_cache_usage = Some(value);
            } else if counters.contains(series.name.as_str()) && told.counts.len() < MAX_SERIES {
                told.counts.insert(series, value);
            }
        }
        told
    }
}

fn is_counter_name(name: &str) -> bool {
    is_word(name) && name.ends_with("_total")
}

/// `llamacpp:name{labels} value`.
fn read_sample(line: &str) -> Option<(Series, f64)> {
    let (series, value) = line.strip_prefix("llamacpp:")?.rsplit_once(' ')?;
    let value = value.parse().ok().filter(|value: &f64| value.is_finite() && *value >= 0.0)?;
    let (name, label) = match series.split_once('{') {
        Some((name, labels)) => (name, Some(read_label(labels.strip_suffix('}')?)?)),
        None => (series, None),
    };
    Some((Series { name: name.to_owned(), label }, value))
}

/// `position="1"`: engines have no more than one, and nothing but words in it.
fn read_label(text: &str) -> Option<(String, String)> {
    let (name, value) = text.split_once('=')?;
    let value = value.strip_prefix('"')?.strip_suffix('"')?;
    (is_word(name) && is_word(value)).then(|| (name.to_owned(), value.to_owned()))
}

fn is_word(text: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_';
    !text.is_empty() && text.len() <= MAX_WORD && text.bytes().all(plain)
}

type Key = (InstanceName, ReplicaId);

/// What every replica's engines have counted so far.
#[derive(Debug, Default)]
struct Ledger {
    replicas: BTreeMap<Key, Account>,
}

/// One replica: what earlier engines counted, and what the present one has.
#[derive(Debug, Default)]
struct Account {
    pid: Option<u32>,
    before: BTreeMap<Series, f64>,
    now: BTreeMap<Series, f64>,
    kv_cache_usage: Option<f64>,
}

impl Ledger {
    /// Forgets replicas that are gone for good.
    fn keep_only(&mut self, replicas: &[ReplicaSnapshot]) {
        let there: BTreeSet<Key> =
            replicas.iter().map(|replica| (replica.instance.clone(), replica.replica)).collect();
        self.replicas.retain(|key, _| there.contains(key));
        for replica in replicas.iter().filter(|replica| !replica.routable) {
            if let Some(account) = self.replicas.get_mut(&(replica.instance.clone(), replica.replica)) {
                account.kv_cache_usage = None;
            }
        }
    }

    fn note(&mut self, replica: &ReplicaSnapshot, told: &Told) {
        let account = self.replicas.entry((replica.instance.clone(), replica.replica)).or_default();
        account.note(replica.pid, told);
    }

    fn counts(&self) -> Vec<ReplicaCounters> {
        let counts = |((instance, replica), account): (&Key, &Account)| ReplicaCounters {
            instance: instance.clone(),
            replica: *replica,
            counts: account.totals(),
            kv_cache_usage: account.kv_cache_usage,
        };
        self.replicas.iter().map(counts).collect()
    }
}

impl Account {
    fn note(&mut self, pid: Option<u32>, told: &Told) {
        let fell =
            told.counts.iter().any(|(series, value)| self.now.get(series).is_some_and(|it| value < it));
        if self.pid != pid || fell {
            for (series, value) in std::mem::take(&mut self.now) {
                *self.before.entry(series).or_default() += value;
            }
        }
        self.pid = pid;
        self.now.extend(told.counts.clone());
        self.kv_cache_usage = told.kv_cache_usage;
    }

    fn totals(&self) -> BTreeMap<Series, f64> {
        let mut totals = self.before.clone();
        for (series, value) in &self.now {
            *totals.entry(series.clone()).or_default() += value;
        }
        totals
    }
}

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;

    use proptest::prelude::*;

    use super::*;

    fn series(name: &str) -> Series {
        Series { name: name.to_owned(), label: None }
    }

    fn told(tokens: f64) -> Told {
        Told { counts: BTreeMap::from([(series("tokens_predicted_total"), tokens)]), kv_cache_usage: None }
    }

    #[test]
    fn counters_are_taken_and_gauges_and_maxima_are_not() {
        let text = "# HELP llamacpp:prompt_tokens_total Prompt tokens\n# TYPE llamacpp:prompt_tokens_total counter\n\
            llamacpp:prompt_tokens_total 13\n# TYPE llamacpp:n_tokens_max counter\nllamacpp:n_tokens_max 17\n\
            # TYPE llamacpp:predicted_tokens_seconds gauge\nllamacpp:predicted_tokens_seconds 6430.87\n\
            # TYPE llamacpp:spec_total counter\nllamacpp:spec_total{position=\"1\"} 2\nllamacpp:spec_total{position=\"2\"} 1\n\
            # TYPE llamacpp:kv_cache_usage_ratio gauge\nllamacpp:kv_cache_usage_ratio 0.25\n";
        let told = Told::read(text);
        let spec = |position: &str| Series {
            name: "spec_total".to_owned(),
            label: Some(("position".to_owned(), position.to_owned())),
        };
        let expected =
            BTreeMap::from([(series("prompt_tokens_total"), 13.0), (spec("1"), 2.0), (spec("2"), 1.0)]);
        assert_eq!((told.counts, told.kv_cache_usage), (expected, Some(0.25)));
    }

    #[test]
    fn an_engine_cannot_flood_the_scrape_or_break_its_format() {
        let mut text = "# TYPE llamacpp:a_total counter\n".to_owned();
        for position in 0..1000 {
            writeln!(text, "llamacpp:a_total{{position=\"{position}\"}} 1").unwrap();
        }
        assert_eq!(Told::read(&text).counts.len(), MAX_SERIES);
        let bad = "# TYPE llamacpp:a_total counter\n# TYPE llamacpp:bad name_total counter\n\
            llamacpp:bad name_total 1\nllamacpp:a_total{x=\"a\\nb\"} 1\nllamacpp:a_total{x=\"1} 1\n\
            llamacpp:a_total{x=\"1\",y=\"2\"} 1\nllamacpp:a_total NaN\nllamacpp:a_total -1\n";
        assert_eq!(Told::read(bad), Told::default());
    }

    #[test]
    fn a_new_engine_counts_on_from_where_the_last_one_ended() {
        let mut account = Account::default();
        for (pid, tokens, total) in
            [(1, 5.0, 5.0), (1, 9.0, 9.0), (2, 1.0, 10.0), (2, 4.0, 13.0), (2, 2.0, 15.0)]
        {
            account.note(Some(pid), &told(tokens));
            assert_eq!(account.totals(), BTreeMap::from([(series("tokens_predicted_total"), total)]));
        }
    }

    proptest! {
        #[test]
        fn counters_never_fall_whatever_engines_say(
            looks in prop::collection::vec((0_u32..3, 0.0_f64..100.0), 1..40)
        ) {
            let mut account = Account::default();
            let mut last = 0.0;
            for (pid, tokens) in looks {
                account.note(Some(pid), &told(tokens));
                let total = account.totals()[&series("tokens_predicted_total")];
                prop_assert!(total >= last, "{total} after {last}");
                last = total;
            }
        }

        #[test]
        fn hostile_text_never_panics(text in "(llamacpp:[a-z_{}=\" 0-9.]{0,30}\n|# TYPE llamacpp:[a-z_ ]{0,20}\n){0,20}") {
            Told::read(&text);
        }
    }
}
