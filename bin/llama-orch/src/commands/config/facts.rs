//! What this machine knows that matters to a config.

use std::collections::BTreeMap;

use instance_config::{Binary, EngineFact, LintFacts, LoadedInstance};
use orch_core::{Failure, HomeLayout};
use orchestratord::compose::{Memory, engine_profile};

use crate::context::Context;

/// Facts for the linter. To begin with none but the number of processors.
pub(in crate::commands) struct Facts<'a> {
    home: &'a HomeLayout,
    engines: BTreeMap<String, EngineFact>,
    /// Instances that ask for the same engine share the answer.
    asked: Vec<(Binary, EngineFact)>,
    port_in_use: Box<dyn Fn(u16) -> bool>,
}

impl<'a> Facts<'a> {
    pub(in crate::commands) fn new(home: &'a HomeLayout) -> Self {
        Self { home, engines: BTreeMap::new(), asked: Vec::new(), port_in_use: Box::new(|_| false) }
    }

    /// Everything: the engine of each instance, and who listens where.
    pub(super) fn of_machine(context: &'a Context, instances: &[&LoadedInstance]) -> Result<Self, Failure> {
        let mut facts = Self::new(context.home()?);
        for instance in instances {
            facts.ask_engine(instance);
        }
        let catalog = context.catalog()?;
        let rows = context.look(|viewer| viewer.instances(&catalog))?;
        // Our own running engines do not count.
        let ours: Vec<u16> = rows.iter().filter(|row| row.pid.is_some()).map(|row| row.port).collect();
        facts.port_in_use =
            Box::new(move |port| !ours.contains(&port) && !engine_process::is_free("0.0.0.0", port));
        Ok(facts)
    }

    /// Finds out about the engine that the instance would get.
    pub(in crate::commands) fn ask_engine(&mut self, instance: &LoadedInstance) {
        let config = &instance.config;
        let known = self.asked.iter().find(|(binary, _)| *binary == config.binary);
        let fact = known.map_or_else(
            || match engine_profile(self.home, config, Memory::ReadOnly) {
                Ok(profile) => EngineFact::Known(profile),
                Err(failure) => EngineFact::Missing(failure),
            },
            |(_, fact)| fact.clone(),
        );
        self.asked.push((config.binary.clone(), fact.clone()));
        self.engines.insert(config.name.to_string(), fact);
    }

    /// What is known of an engine without asking it.
    pub(super) fn set_engine(&mut self, instance: &LoadedInstance, fact: EngineFact) {
        self.engines.insert(instance.config.name.to_string(), fact);
    }

    pub(in crate::commands) fn for_lint(&self) -> LintFacts<'_> {
        let cpus = std::thread::available_parallelism().map_or(1, |count| count.get());
        LintFacts {
            home: self.home,
            engines: &self.engines,
            cpu_count: u32::try_from(cpus).unwrap_or(u32::MAX),
            host_memory: engine_process::host_memory().map(|memory| memory.total),
            port_in_use: &self.port_in_use,
        }
    }
}
