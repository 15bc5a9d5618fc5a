//! Routes that a user has written down: a name leads to a chain of places, of which the first that can serves.

use std::collections::BTreeMap;
use std::sync::Arc;

use orch_core::ErrorCode;

use crate::caller::Caller;
use crate::live::{Snapshot, Target};
use crate::provider::{Provider, ProviderSettings};
use crate::rewrite::Rewrite;
use crate::route::find_route;
use crate::table::RoutedInstance;

/// One route.
#[derive(Clone, Debug, Default)]
pub struct RouteRule {
    /// Names of instances and aliases, or `provider/model`; tried in this order.
    pub to: Vec<String>,
    pub rewrite: Rewrite,
}

/// All routes of a gateway, and the remote providers that they may lead to.
#[derive(Default)]
pub struct Routes {
    rules: BTreeMap<String, Rule>,
}

struct Rule {
    chain: Vec<Destination>,
    rewrite: Rewrite,
}

/// One place in a chain.
#[derive(Clone)]
pub(crate) enum Destination {
    /// What this node's table knows under a name; `None` = the only instance there is.
    Local(Option<String>),
    /// A model of somebody else's server.
    Remote { target: Arc<Target>, model: String },
}

impl Destination {
    /// Whether a caller who asks for a name may be led here.
    pub(crate) fn is_open_to(&self, caller: &Caller, asked: &str, snapshot: &Snapshot) -> bool {
        match self {
            Destination::Local(_) => {
                self.instances(snapshot).all(|instance| caller.may_ask(asked, instance.name.as_str()))
            }
            Destination::Remote { .. } => caller.may_ask(asked, asked),
        }
    }

    /// The largest context of a slot there, as far as it is known.
    pub(crate) fn context(&self, snapshot: &Snapshot) -> Option<u64> {
        let replicas = self.instances(snapshot).flat_map(|instance| &instance.replicas);
        replicas.filter_map(|replica| replica.slot_context).max()
    }

    fn instances<'s>(&self, snapshot: &'s Snapshot) -> impl Iterator<Item = &'s RoutedInstance> {
        let found = match self {
            Destination::Local(model) => find_route(snapshot, model.as_deref()).ok(),
            Destination::Remote { .. } => None,
        };
        found.into_iter().flat_map(|route| route.instances().collect::<Vec<_>>())
    }
}

/// What is to be tried for one request.
pub(crate) struct Chain<'r> {
    pub(crate) destinations: Vec<Destination>,
    pub(crate) rewrite: Option<&'r Rewrite>,
}

impl Chain<'_> {
    /// What this node's table knows under a name, and nothing else.
    pub(crate) fn local(model: Option<&str>) -> Self {
        Self { destinations: vec![Destination::Local(model.map(str::to_owned))], rewrite: None }
    }
}

impl Routes {
    /// Routes by their names. A word before a slash that is no provider's name is part of an instance's alias.
    pub fn new(rules: BTreeMap<String, RouteRule>, providers: Vec<ProviderSettings>) -> Self {
        let providers: BTreeMap<String, Arc<Target>> = providers
            .into_iter()
            .map(|settings| (settings.name.to_string(), Arc::new(Provider::target(settings))))
            .collect();
        let destination = |word: &String| match word.split_once('/') {
            Some((provider, model)) if providers.contains_key(provider) => {
                Destination::Remote { target: Arc::clone(&providers[provider]), model: model.to_owned() }
            }
            _ => Destination::Local(Some(word.clone())),
        };
        let rules = rules.into_iter().map(|(name, rule)| {
            (name, Rule { chain: rule.to.iter().map(destination).collect(), rewrite: rule.rewrite })
        });
        Self { rules: rules.collect() }
    }

    /// What to try for a model: its route, or else what the table knows under its name.
    pub(crate) fn chain(&self, model: Option<&str>) -> Chain<'_> {
        match model.and_then(|model| self.rules.get(model)) {
            Some(rule) => Chain { destinations: rule.chain.clone(), rewrite: Some(&rule.rewrite) },
            None => Chain::local(model),
        }
    }

    /// Whether there is a route of this name.
    pub(crate) fn knows(&self, name: &str) -> bool {
        self.rules.contains_key(name)
    }

    /// The routes' names with their chains, in the order of the names.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&str, &[Destination])> {
        self.rules.iter().map(|(name, rule)| (name.as_str(), rule.chain.as_slice()))
    }
}

/// Whether the next place of a chain may do better than one that failed with this.
pub(crate) const fn may_try_next(code: ErrorCode) -> bool {
    matches!(
        code,
        ErrorCode::ModelNotFound
            | ErrorCode::ModelNotAvailable
            | ErrorCode::ContextExceeded
            | ErrorCode::AdmissionReject
            | ErrorCode::QueueFullDropLru
            | ErrorCode::PoolUnready
            | ErrorCode::PoolUnavailable
            | ErrorCode::NodeUnavailable
            | ErrorCode::WorkerReset
            | ErrorCode::DecodeTimeout
    )
}
