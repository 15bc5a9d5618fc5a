//! The look at the machine that fills the ledger: devices and what is free, estimates, and what engines really take.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use instance_config::{Backend, LoadedInstance, MemoryEstimate, Place};
use orch_core::{ByteCount, DeviceInfo, HomeLayout, InstanceName};

use super::ledger::{Capacity, Holding, Ledger, expected, measured};
use crate::node::{EngineResolver, Node};
use crate::stats::gpu_memory::GpuMemory;

/// Asking an engine for its devices wakes drivers: not at every look.
const DEVICES_PACE: Duration = Duration::from_secs(1);

/// Limits that the user sets to what engines may take together; `None` = all there is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MemoryBudget {
    pub host: Option<ByteCount>,
    /// On each device.
    pub device: Option<ByteCount>,
}

/// An instance and its engines' processes, as the board shows them.
#[derive(Clone, Debug)]
pub(super) struct Booked {
    pub(super) name: InstanceName,
    /// As each of its replicas has it.
    pub(super) replicas: Vec<LoadedInstance>,
    /// Of those that run.
    pub(super) pids: Vec<u32>,
    /// All of them are ready: what they take can be measured.
    pub(super) settled: bool,
    /// It is loaded, or on its way in or out. Others are only estimated.
    pub(super) present: bool,
}

/// What a look told.
#[derive(Clone, Debug, Default)]
pub(super) struct Book {
    pub(super) ledger: Ledger,
    /// Of every instance whose model is there.
    pub(super) estimates: BTreeMap<InstanceName, MemoryEstimate>,
}

/// Remembers what is costly to ask.
#[derive(Debug, Default)]
pub(super) struct Bookkeeper {
    gpu: GpuMemory,
    devices: Vec<DeviceInfo>,
    asked: Option<Instant>,
}

impl Bookkeeper {
    /// Looks. Blocks for as long as drivers take to answer, within their limits.
    pub(super) fn look(&mut self, node: &Node, budget: &MemoryBudget, booked: &[Booked]) -> Book {
        let firsts = booked.iter().filter_map(|it| it.replicas.first());
        let on_gpu = firsts.filter(|it| it.config.gpu.backend != Backend::Cpu);
        self.ask_for_devices(&*node.engines, on_gpu);
        self.fill(&node.home, budget, booked)
    }

    /// The same, with the devices of every engine, whether any instance computes on one or not.
    pub(super) fn look_at_all(
        &mut self,
        home: &HomeLayout,
        engines: &dyn EngineResolver,
        budget: &MemoryBudget,
        booked: &[Booked],
    ) -> Book {
        self.ask_for_devices(engines, booked.iter().filter_map(|it| it.replicas.first()));
        self.fill(home, budget, booked)
    }

    fn fill(&mut self, home: &HomeLayout, budget: &MemoryBudget, booked: &[Booked]) -> Book {
        let mut book = Book::default();
        book.ledger.places = self.places(budget);
        for it in booked {
            let estimate = |replica: &LoadedInstance| {
                let config = &replica.config;
                let model = instance_config::resolve_model_path(config, &replica.path, home);
                instance_config::estimate_memory(config, home, &model, &self.devices)
            };
            let known = together(it.replicas.iter().map(estimate));
            book.estimates.extend(known.map(|known| (it.name.clone(), known)));
        }
        for it in booked.iter().filter(|it| it.present) {
            let estimate = book.estimates.get(&it.name).cloned().unwrap_or_default();
            book.ledger.holdings.insert(it.name.clone(), self.holding(it, &estimate));
        }
        book
    }

    /// The devices of every engine in use; several engines number the same devices the same way.
    fn ask_for_devices<'a>(
        &mut self,
        engines: &dyn EngineResolver,
        instances: impl Iterator<Item = &'a LoadedInstance>,
    ) {
        let mut executables = Vec::new();
        for it in instances {
            if let Ok(profile) = engines.resolve(&it.config)
                && !executables.contains(&profile.executable)
            {
                executables.push(profile.executable);
            }
        }
        if executables.is_empty() || self.asked.is_some_and(|asked| asked.elapsed() < DEVICES_PACE) {
            return;
        }
        let mut devices: Vec<DeviceInfo> = Vec::new();
        for executable in executables {
            let listed = engines.devices(&executable).into_iter();
            let news = listed.filter(|it| !devices.iter().any(|known| known.id == it.id));
            devices.extend(news.collect::<Vec<_>>());
        }
        self.devices = devices;
        self.asked = Some(Instant::now());
    }

    fn places(&self, budget: &MemoryBudget) -> BTreeMap<Place, Capacity> {
        let within = |total: ByteCount, budget: Option<ByteCount>| budget.map_or(total, |it| it.min(total));
        let of_device = |device: &DeviceInfo| {
            let capacity = Capacity {
                name: Some(device.name.clone()),
                usable: within(device.memory_total, budget.device),
                free: Some(device.memory_free),
            };
            (Place::Device(device.id.clone()), capacity)
        };
        let mut places: BTreeMap<Place, Capacity> = self.devices.iter().map(of_device).collect();
        if let Some(memory) = engine_process::host_memory() {
            let usable = within(memory.total, budget.host);
            places.insert(Place::Host, Capacity { name: None, usable, free: Some(memory.available) });
        }
        places
    }

    fn holding(&mut self, it: &Booked, estimate: &MemoryEstimate) -> Holding {
        let mut taken = BTreeMap::new();
        let resident = it.pids.iter().filter_map(|pid| engine_process::rss_bytes(*pid));
        taken.insert(Place::Host, resident.fold(ByteCount(0), plus));
        let devices: Vec<_> = estimate.places.iter().filter(|(place, _)| **place != Place::Host).collect();
        if !devices.is_empty() {
            let (gpu, told) = std::mem::take(&mut self.gpu).look(&it.pids);
            self.gpu = gpu;
            let together = told.into_values().fold(ByteCount(0), plus);
            let whole: u64 = devices.iter().map(|(_, share)| share.total().0).sum();
            // Drivers tell what a process holds, not where: over several devices it lies as estimated.
            for (place, share) in devices.into_iter().filter(|_| together.0 > 0) {
                let part = u128::from(together.0) * u128::from(share.total().0) / u128::from(whole.max(1));
                taken.insert(place.clone(), ByteCount(u64::try_from(part).unwrap_or(together.0)));
            }
        }
        if it.settled { measured(estimate, &taken) } else { expected(estimate, &taken) }
    }
}

fn plus(sum: ByteCount, more: ByteCount) -> ByteCount {
    ByteCount(sum.0.saturating_add(more.0))
}

/// What the engines of one instance take together; `None` where the model of one is not there.
fn together(estimates: impl Iterator<Item = Option<MemoryEstimate>>) -> Option<MemoryEstimate> {
    let mut all = MemoryEstimate::default();
    for estimate in estimates {
        let estimate = estimate?;
        all.at_most |= estimate.at_most;
        for (place, share) in estimate.places {
            let sum = all.places.entry(place).or_default();
            sum.weights = plus(sum.weights, share.weights);
            sum.cache = plus(sum.cache, share.cache);
            sum.working = plus(sum.working, share.working);
        }
    }
    Some(all)
}
