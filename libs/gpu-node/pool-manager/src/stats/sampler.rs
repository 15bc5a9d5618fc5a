//! Looks at all engines at once, and remembers the last look: rates need two.

use std::collections::HashMap;
use std::time::Duration;

use engine_process::usage;
use futures_util::StreamExt;
use futures_util::stream;
use instance_config::{Backend, Catalog};
use orch_core::{ByteCount, HomeLayout, ReplicaId};
use orch_runtime::bounded_get;
use tokio::time::Instant;

use super::InstanceStats;
use super::gpu_memory::GpuMemory;
use super::rates::{Rates, Reading, slots_between};
use super::reading::WorkReading;
use crate::engine::running_key;
use crate::view::{InstanceView, Slots};

/// A busy engine answers between two steps of its work; one that takes longer tells nothing this time.
const PATIENCE: Duration = Duration::from_millis(700);
/// `/slots` repeats the parameters of each request, grammars included.
const MAX_ANSWER: usize = 4 * 1024 * 1024;
/// So many engines are asked at a time.
const AT_A_TIME: usize = 64;
/// Looks closer together than this share one: rates over less time are noise.
const SHARED: Duration = Duration::from_millis(200);
/// The pause between the two looks of whoever has looked at nothing lately.
const BASELINE: Duration = Duration::from_millis(500);
/// Rates over more time than this would tell of the past.
const STALE: Duration = Duration::from_secs(5);

/// One replica to look at.
#[derive(Clone, Debug)]
pub struct StatsTarget {
    pub view: InstanceView,
    /// The key that the engine asks for.
    pub api_key: Option<String>,
    /// Whether the engine must not be asked what would wake it.
    pub may_sleep: bool,
    /// Whether it may hold memory on a graphics device.
    pub uses_gpu: bool,
}

/// The rows of `ps` with what it takes to ask each engine.
pub fn targets(catalog: &Catalog, views: Vec<InstanceView>, home: &HomeLayout) -> Vec<StatsTarget> {
    let target = |view: InstanceView| {
        let known = catalog.instances.iter().find(|it| it.config.name.as_str() == view.name);
        let config = known.map(|instance| &instance.config);
        StatsTarget {
            api_key: config.and_then(|config| running_key(home, config, view.replica_id, view.pid)),
            // Of an instance whose config is unknown nothing is asked that could wake it.
            may_sleep: config.is_none_or(instance_config::may_sleep),
            uses_gpu: config.is_some_and(|config| config.gpu.backend != Backend::Cpu),
            view,
        }
    };
    views.into_iter().map(target).collect()
}

/// Whoever watches keeps one.
#[derive(Debug, Default)]
pub struct Sampler {
    last: Option<Look>,
    gpu: GpuMemory,
}

/// One process among all that ever served a replica.
type Key = (String, ReplicaId, u32);

#[derive(Debug)]
struct Look {
    at: Instant,
    /// Each with its own moment: one engine that keeps us waiting must not bend the rates of the others.
    readings: HashMap<Key, (Instant, Reading)>,
    rows: Vec<InstanceStats>,
}

impl Sampler {
    /// What the instances use and do now. Takes as long as the slowest engine's answer, within a limit, and half a
    /// second more when nobody has looked for a while.
    pub async fn sample(&mut self, targets: &[StatsTarget]) -> Vec<InstanceStats> {
        let age = self.last.as_ref().map(|look| look.at.elapsed());
        if let Some(look) =
            self.last.as_ref().filter(|look| look.at.elapsed() < SHARED && look.is_of(targets))
        {
            return look.rows.clone();
        }
        if age.is_none_or(|age| age > STALE) {
            self.last = Some(look(targets).await);
            tokio::time::sleep(BASELINE).await;
        }
        let (mut look, memory) = tokio::join!(look(targets), self.gpu_memory(targets));
        look.rows = targets.iter().map(|target| look.row(target, self.last.as_ref(), &memory)).collect();
        self.last.insert(look).rows.clone()
    }

    async fn gpu_memory(&mut self, targets: &[StatsTarget]) -> HashMap<u32, ByteCount> {
        let on_gpu = targets.iter().filter(|target| target.uses_gpu);
        let pids: Vec<u32> = on_gpu.filter_map(|target| target.view.pid).collect();
        if pids.is_empty() {
            return HashMap::new();
        }
        let gpu = std::mem::take(&mut self.gpu);
        let Ok((gpu, memory)) = tokio::task::spawn_blocking(move || gpu.look(&pids)).await else {
            return HashMap::new();
        };
        self.gpu = gpu;
        memory
    }
}

fn key(target: &StatsTarget) -> Option<Key> {
    Some((target.view.name.clone(), target.view.replica_id, target.view.pid?))
}

async fn look(targets: &[StatsTarget]) -> Look {
    let reading = |target: &StatsTarget| {
        let target = target.clone();
        async move { Some((key(&target)?, read(&target).await)) }
    };
    let readings = stream::iter(targets.iter().map(reading)).buffer_unordered(AT_A_TIME);
    let readings = readings.filter_map(std::future::ready).collect().await;
    Look { at: Instant::now(), readings, rows: Vec::new() }
}

/// Both questions at once: an engine answers both between the same two steps, so that they agree.
async fn read(target: &StatsTarget) -> (Instant, Reading) {
    let slots = async { if target.may_sleep { None } else { ask(target, "/slots").await } };
    let (metrics, slots) = tokio::join!(ask(target, "/metrics"), slots);
    let metrics = metrics.as_deref().map(String::from_utf8_lossy);
    let work = WorkReading::new(metrics.as_deref(), slots.as_deref());
    (Instant::now(), Reading { usage: target.view.pid.and_then(usage), work })
}

async fn ask(target: &StatsTarget, path: &str) -> Option<Vec<u8>> {
    let (view, key) = (&target.view, target.api_key.as_deref());
    let answer = bounded_get(&view.host, view.port, path, key, PATIENCE, MAX_ANSWER).await.ok()?;
    (answer.status == 200).then(|| answer.body.to_vec())
}

impl Look {
    /// Whether this look was at just these processes.
    fn is_of(&self, targets: &[StatsTarget]) -> bool {
        self.rows.len() == targets.len()
            && self.rows.iter().zip(targets).all(|(row, target)| {
                let view = &target.view;
                (&row.name, row.replica_id, row.pid) == (&view.name, view.replica_id, view.pid)
            })
    }

    fn row(
        &self,
        target: &StatsTarget,
        earlier: Option<&Look>,
        memory: &HashMap<u32, ByteCount>,
    ) -> InstanceStats {
        let view = &target.view;
        let key = key(target);
        let now = key.as_ref().and_then(|key| self.readings.get(key));
        // Nothing is known of a process that is seen for the first time but what it is now.
        let before = key.as_ref().zip(earlier).and_then(|(key, earlier)| earlier.readings.get(key)).or(now);
        let (rates, activity) = match (before, now) {
            (Some((began, before)), Some((ended, now))) => {
                let elapsed = ended.saturating_duration_since(*began);
                (Rates::between(before, now, elapsed), slots_between(before, now, elapsed))
            }
            _ => (Rates::default(), Vec::new()),
        };
        let now = now.map(|(_, reading)| reading);
        InstanceStats {
            name: view.name.clone(),
            replica_id: view.replica_id,
            pid: view.pid,
            status: view.status,
            cpu_percent: rates.cpu_percent,
            rss_bytes: now.and_then(|now| now.usage).map(|usage| usage.resident),
            vram_bytes: view.pid.and_then(|pid| memory.get(&pid).copied()),
            slots: now.and_then(|now| slots(now, view.slots)).or(view.slots),
            waiting: now.and_then(|now| now.work.waiting),
            tokens_per_second: rates.tokens,
            prompt_tokens_per_second: rates.prompt_tokens,
            slot_activity: activity,
        }
    }
}

/// Slots as the engine itself sees them, requests that came past the gateway included. One that may sleep tells how
/// many are busy; how many it has is known to the gateway.
fn slots(reading: &Reading, counted: Option<Slots>) -> Option<Slots> {
    let (total, busy) = match &reading.work.slots {
        Some(slots) => {
            let busy = slots.iter().filter(|slot| slot.activity.state != super::SlotState::Idle).count();
            (u32::try_from(slots.len()).ok()?, u32::try_from(busy).ok()?)
        }
        None => (counted.map(|counted| counted.idle + counted.busy)?, reading.work.processing?),
    };
    let busy = busy.min(total);
    Some(Slots { idle: total - busy, busy })
}
