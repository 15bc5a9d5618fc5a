//! `up --scale`: how many replicas an instance has, written to its config before it is started.

use std::collections::BTreeMap;

use instance_config::Catalog;
use orch_core::{ExitCode, Failure};

use crate::arguments::Scale;
use crate::commands::config::set;
use crate::context::Context;
use crate::targets::{Chosen, Plane};

const FIELD: &str = "replicas";

/// The wishes of one command, by the names of their instances.
pub(super) struct Scales {
    wishes: BTreeMap<String, String>,
}

impl Scales {
    /// Checks all wishes before any is carried out.
    pub(super) fn read(context: &Context, plane: &Plane, typed: &[Scale]) -> Result<Self, Failure> {
        let mut wishes = BTreeMap::new();
        if typed.is_empty() {
            return Ok(Self { wishes });
        }
        if matches!(plane, Plane::Remote(_)) {
            let message = "replicas are written to configs, and those are on the machine of the instances";
            return Err(Failure::new(ExitCode::Usage, message));
        }
        let catalog = context.catalog()?;
        for scale in typed {
            let mut instance = catalog.select(&scale.name)?.clone();
            instance.set(FIELD, &scale.replicas)?;
            let name = instance.config.name.to_string();
            if wishes.insert(name.clone(), scale.replicas.clone()).is_some() {
                return Err(Failure::new(ExitCode::Usage, format!("{name} is scaled more than once")));
            }
        }
        Ok(Self { wishes })
    }

    /// The instances that are to be scaled.
    pub(super) fn names(&self) -> impl Iterator<Item = &String> {
        self.wishes.keys()
    }

    /// Writes what is not so yet.
    pub(super) fn write(&self, context: &Context) -> Result<(), Failure> {
        let catalog: Catalog = context.catalog()?;
        for (name, replicas) in &self.wishes {
            let known = catalog.select(name)?;
            let mut changed = known.clone();
            changed.set(FIELD, replicas)?;
            if changed.config.replicas != known.config.replicas {
                set::change(context, &catalog, known, &[(FIELD.to_owned(), replicas.clone())])?;
            }
        }
        Ok(())
    }

    /// Shows the instances as they would be.
    pub(super) fn pretend(&self, chosen: &mut [Chosen]) -> Result<(), Failure> {
        for instance in chosen.iter_mut().filter_map(|one| one.target.as_mut().ok()?.instance.as_mut()) {
            if let Some(replicas) = self.wishes.get(instance.config.name.as_str()) {
                instance.set(FIELD, replicas)?;
            }
        }
        Ok(())
    }

    /// Of an instance that is scaled it is enough that it runs already.
    pub(super) fn include(&self, name: &str) -> bool {
        self.wishes.contains_key(name)
    }
}
