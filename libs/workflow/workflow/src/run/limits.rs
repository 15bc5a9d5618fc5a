//! How much may happen at once: places of the job, of providers, models and named pools. A place is a value that
//! the running step holds; dropping it is the only release.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use workflow_spec::JobLimits;

/// Steps at once where neither command line nor spec say otherwise.
const DEFAULT_STEPS: u32 = 4;

/// The provider whose models are loaded and unloaded.
const LOCAL: &str = "local";

/// What a step needs a place of, besides the job's own. Steps that need the same share a lane.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Wants {
    pub(crate) provider: Option<String>,
    pub(crate) model: Option<String>,
    pub(crate) pools: Vec<String>,
}

/// All limits of a job, with the lanes that were asked for.
#[derive(Debug)]
pub(crate) struct Limits {
    declared: JobLimits,
    steps: Arc<Limit>,
    named: HashMap<(Family, String), Arc<Limit>>,
    lanes: Vec<Lane>,
    known: HashMap<Wants, usize>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Family {
    Provider,
    Model,
    Pool,
}

/// What all steps of a lane need a place of.
#[derive(Debug)]
struct Lane {
    limits: Vec<Arc<Limit>>,
    /// The model that its steps ask of our own gateway.
    local_model: Option<String>,
}

#[derive(Debug)]
struct Limit {
    most: u32,
    held: AtomicU32,
}

/// One place of each limit of a lane.
#[derive(Debug)]
#[must_use = "the places are given back when this is dropped"]
pub(crate) struct Places(Vec<Arc<Limit>>);

impl Drop for Places {
    fn drop(&mut self) {
        for limit in &self.0 {
            limit.held.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

impl Limit {
    fn of(most: u32) -> Arc<Self> {
        Arc::new(Self { most: most.max(1), held: AtomicU32::new(0) })
    }

    fn has_place(&self) -> bool {
        self.held.load(Ordering::Relaxed) < self.most
    }
}

impl Limits {
    pub(crate) fn new(declared: JobLimits, concurrency: Option<u32>) -> Self {
        let steps = Limit::of(concurrency.or(declared.steps).unwrap_or(DEFAULT_STEPS));
        Self { declared, steps, named: HashMap::new(), lanes: Vec::new(), known: HashMap::new() }
    }

    /// The lane of steps that want this.
    pub(crate) fn lane(&mut self, wants: &Wants) -> usize {
        if let Some(&lane) = self.known.get(wants) {
            return lane;
        }
        let mut limits = vec![self.steps.clone()];
        let named = wants.provider.iter().map(|name| (Family::Provider, name));
        let named = named.chain(wants.model.iter().map(|name| (Family::Model, name)));
        for (family, name) in named.chain(wants.pools.iter().map(|name| (Family::Pool, name))) {
            limits.extend(self.limit(family, name));
        }
        let local_model = wants.model.clone().filter(|_| wants.provider.as_deref() == Some(LOCAL));
        self.lanes.push(Lane { limits, local_model });
        self.known.insert(wants.clone(), self.lanes.len() - 1);
        self.lanes.len() - 1
    }

    pub(crate) fn has_place(&self, lane: usize) -> bool {
        self.lanes[lane].limits.iter().all(|limit| limit.has_place())
    }

    /// The model that steps of the lane ask of our own gateway.
    pub(crate) fn local_model(&self, lane: usize) -> Option<&str> {
        self.lanes[lane].local_model.as_deref()
    }

    /// A place of everything that the lane wants. All or nothing, so two steps cannot wait for each other.
    pub(crate) fn take(&self, lane: usize) -> Option<Places> {
        if !self.has_place(lane) {
            return None;
        }
        let limits = self.lanes[lane].limits.clone();
        for limit in &limits {
            limit.held.fetch_add(1, Ordering::Relaxed);
        }
        Some(Places(limits))
    }

    fn limit(&mut self, family: Family, name: &str) -> Option<Arc<Limit>> {
        let declared = match family {
            Family::Provider => &self.declared.providers,
            Family::Model => &self.declared.models,
            Family::Pool => &self.declared.pools,
        };
        let most = *declared.get(name)?;
        let limit = self.named.entry((family, name.to_owned())).or_insert_with(|| Limit::of(most));
        Some(limit.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits() -> Limits {
        let providers = [("local".to_owned(), 2)].into();
        let pools = [("disk".to_owned(), 1)].into();
        let declared = JobLimits { steps: Some(3), providers, pools, ..JobLimits::default() };
        Limits::new(declared, None)
    }

    fn wants(provider: &str, pools: &[&str]) -> Wants {
        let pools = pools.iter().map(|name| (*name).to_owned()).collect();
        Wants { provider: Some(provider.to_owned()), model: None, pools }
    }

    #[test]
    fn a_full_provider_leaves_room_for_others() {
        let mut limits = limits();
        let local = limits.lane(&wants("local", &[]));
        let far = limits.lane(&wants("far", &[]));
        let _first = limits.take(local).unwrap();
        let second = limits.take(local).unwrap();
        assert!(limits.take(local).is_none());
        let _third = limits.take(far).unwrap();
        assert!(limits.take(far).is_none(), "three steps are under way");
        drop(second);
        assert!(limits.has_place(local) && limits.has_place(far));
    }

    #[test]
    fn places_are_taken_all_or_none() {
        let mut limits = limits();
        let with_disk = limits.lane(&wants("local", &["disk"]));
        let held = limits.take(with_disk).unwrap();
        assert!(limits.take(with_disk).is_none());
        let plain = limits.lane(&wants("local", &[]));
        assert!(limits.has_place(plain), "the refused one has taken nothing");
        drop(held);
        assert!(limits.has_place(with_disk));
    }

    #[test]
    fn equal_wants_share_a_lane_and_the_flag_goes_before_the_spec() {
        let mut limits = Limits::new(JobLimits { steps: Some(9), ..JobLimits::default() }, Some(1));
        let lane = limits.lane(&Wants::default());
        assert_eq!(lane, limits.lane(&Wants::default()));
        let _one = limits.take(lane).unwrap();
        assert!(!limits.has_place(lane));
    }
}
