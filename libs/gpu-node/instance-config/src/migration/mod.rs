//! Bringing the configs of an older home up to date: first what would change and why, then the change.
//!
//! A config is changed where it lacks what this version writes (identity, number, version of the format) or where it
//! is understood only by liberality (an address in `args`, numbers written as text). What is a matter of choice, such
//! as two configs with one port, is told and left. Planning reads and never writes.

mod apply;
mod change;
mod identity;
mod remarks;

use std::io;
use std::path::PathBuf;

use orch_core::HomeLayout;
use serde::Serialize;
use serde_json::{Map, Value};
use uuid::Uuid;

pub use change::Change;

use crate::catalog::{config_paths, is_older_folder};
use crate::document::{Unreadable, parse_document, read_bytes};
use crate::finding::Finding;
use crate::loaded::load_document;
use crate::{BrokenInstance, Catalog, LoadedInstance};
use change::Changing;
use identity::Identities;

/// What the older tool's catalog database knows of an instance beside its config.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KnownInstance {
    pub uid: Option<Uuid>,
    /// Eight digits.
    pub number: Option<String>,
    pub name: String,
    pub display_name: Option<String>,
    pub created_at: Option<String>,
    pub sort_order: Option<i64>,
}

/// One config that would change.
#[derive(Clone, Serialize)]
pub struct ConfigPlan {
    pub name: String,
    pub path: PathBuf,
    pub changes: Vec<Change>,
    /// The file as it was read: what has changed since is not overwritten.
    #[serde(skip)]
    source: Vec<u8>,
    #[serde(skip)]
    document: Map<String, Value>,
    #[serde(skip)]
    from_version: u32,
}

/// Not the documents: they may hold secrets.
impl std::fmt::Debug for ConfigPlan {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ConfigPlan")
            .field("name", &self.name)
            .field("path", &self.path)
            .field("changes", &self.changes)
            .finish_non_exhaustive()
    }
}

/// What an upgrade of a home's configs comes to.
#[derive(Clone, Debug)]
pub struct MigrationPlan {
    /// Only those that would change, in the order of their paths.
    pub configs: Vec<ConfigPlan>,
    /// All configs as they would be afterwards, for the linter.
    pub catalog: Catalog,
    /// What only somebody coming from the older tool needs to know; the linter tells the rest.
    pub findings: Vec<Finding>,
}

/// A config file as it was found.
struct Found {
    path: PathBuf,
    source: Vec<u8>,
    document: Map<String, Value>,
}

/// Plans the upgrade of every config of a home. Configs that cannot be read stay as they are, as findings.
pub fn plan_migration(home: &HomeLayout, known: &[KnownInstance]) -> io::Result<MigrationPlan> {
    let (mut found, mut unreadable) = (Vec::new(), Vec::new());
    for path in config_paths(home)? {
        match find(path.clone()) {
            Ok(one) => found.push(one),
            Err(error) => {
                unreadable.push(Err(BrokenInstance::unreadable(&path, error.exit, error.message)));
            }
        }
    }
    let mut identities = Identities::new(known, found.iter().map(|one| (one.path.as_path(), &one.document)));
    let (mut configs, mut findings, mut readings) = (Vec::new(), Vec::new(), unreadable);
    for one in found {
        let reading = load_document(&one.path, one.document.clone());
        readings.push(reading.map(|before| {
            let (plan, after) = plan(one, before, &mut identities, &mut findings);
            configs.extend(plan);
            after
        }));
    }
    let catalog = Catalog::gather(readings);
    // A second config of one name is somebody's to sort out first.
    configs.retain(|plan: &ConfigPlan| catalog.broken.iter().all(|broken| broken.path != plan.path));
    Ok(MigrationPlan { configs, catalog, findings })
}

fn find(path: PathBuf) -> Result<Found, Unreadable> {
    let source = read_bytes(&path)?;
    let document = parse_document(&source)?;
    Ok(Found { path, source, document })
}

/// The plan for one valid config, if anything would change, and the config as it would be.
fn plan(
    found: Found,
    before: LoadedInstance,
    identities: &mut Identities<'_>,
    findings: &mut Vec<Finding>,
) -> (Option<ConfigPlan>, LoadedInstance) {
    let Found { path, source, document } = found;
    let name = before.config.name.to_string();
    findings.extend(remarks::on(&before).into_iter().map(|finding| finding.of(&name)));
    let from_version = change::format_version(&document);
    let mut changing = Changing::new(document);
    changing.move_address(is_older_folder(&path));
    changing.make_strict();
    identities.complete(&mut changing, &before);
    changing.raise_version();
    let (document, changes) = changing.done();
    if changes.is_empty() {
        return (None, before);
    }
    // Only what would be valid is planned for.
    match load_document(&path, document.clone()) {
        Ok(after) => (Some(ConfigPlan { name, path, changes, source, document, from_version }), after),
        Err(_) => (None, before),
    }
}
