//! Engines that the older Python tool installed: `bins/registry.json`, the folders beside it, and `bin/`.
//!
//! They stay where they are and are entered into this home's registry under their own ids, so that configs which name
//! one go on finding it. What cannot be used is told and left.

mod entries;
mod locate;

use std::collections::BTreeSet;
use std::path::PathBuf;

use orch_core::{ByteCount, Failure, HomeLayout, UnixMillis};
use serde::Serialize;
use uuid::Uuid;

use crate::registry::{self, Record, Registry};
use crate::{ToolRunner, faults, probe, tree};
use entries::{Entry, Files};
use locate::Located;

pub(crate) use locate::lexical;

/// What the older tool left: engines to take over, and what is wrong with the others.
#[derive(Clone, Debug, Default, Serialize)]
pub struct OlderEngines {
    pub engines: Vec<OlderEngine>,
    /// What becomes the home's default, if it has none yet.
    pub default: Option<Uuid>,
    #[serde(skip)]
    pub remarks: Vec<EngineRemark>,
}

/// An engine that would be entered into the registry.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct OlderEngine {
    pub id: Uuid,
    /// None where nobody wrote it down: the executable is asked when it is taken over.
    pub version: Option<String>,
    pub variant: String,
    pub executable: PathBuf,
    /// The archive it came from was unpacked by a program that lost the right to execute it.
    pub becomes_executable: bool,
    pub source: &'static str,
    pub sha256: Option<String>,
    pub installed_at: Option<String>,
    pub size_bytes: ByteCount,
}

/// Something about an engine, or the registry, that its owner should know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EngineRemark {
    pub message: String,
    pub suggestion: Option<String>,
}

impl EngineRemark {
    fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), suggestion: None }
    }

    fn suggest(self, suggestion: impl Into<String>) -> Self {
        Self { suggestion: Some(suggestion.into()), ..self }
    }
}

/// Looks through the older tool's folders. Reads only; engines that the registry has already are passed over.
pub fn older_engines(home: &HomeLayout) -> Result<OlderEngines, Failure> {
    let registry = Registry::load(home)?;
    let known: BTreeSet<Uuid> = registry.list().iter().map(|engine| engine.id).collect();
    let mut found = OlderEngines::default();
    let files = Files::read(home, &mut found.remarks);
    let mut seen = BTreeSet::new();
    for entry in &files.entries {
        if seen.insert(entry.id) && !known.contains(&entry.id) {
            found.consider(entry, home);
        }
    }
    let usable = |id: &Uuid| known.contains(id) || found.engines.iter().any(|engine| engine.id == *id);
    if registry.default().is_none() {
        found.default = files.default.filter(usable);
    }
    Ok(found)
}

impl OlderEngines {
    pub fn is_empty(&self) -> bool {
        self.engines.is_empty() && self.default.is_none()
    }

    fn consider(&mut self, entry: &Entry, home: &HomeLayout) {
        match locate::executable(entry, home) {
            Located::Here(executable) => self.engines.push(entry.engine(executable)),
            Located::ForAnotherSystem(file) => {
                let name = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
                let message = format!("engine {} is built for another system ({name})", entry.label());
                self.remarks.push(EngineRemark::new(message).suggest(entry.install_hint()));
            }
            Located::Nowhere => {
                let message = format!("engine {} is registered, its files are gone", entry.label());
                self.remarks.push(EngineRemark::new(message).suggest(entry.install_hint()));
            }
        }
    }

    /// Enters the engines into the registry, all at once. Their files stay where they are.
    pub fn take_over(
        &self,
        home: &HomeLayout,
        runner: &dyn ToolRunner,
        now: UnixMillis,
    ) -> Result<(), Failure> {
        if self.is_empty() {
            return Ok(());
        }
        let mut records = Vec::new();
        for engine in &self.engines {
            if engine.becomes_executable {
                tree::make_executable(&engine.executable)
                    .map_err(|error| faults::install("change", &engine.executable, &error))?;
            }
            records.push(engine.record(home, runner, now));
        }
        registry::edit(home, |registry| {
            // Another process may have done the same since.
            let known: BTreeSet<Uuid> = registry.list().iter().map(|engine| engine.id).collect();
            for record in records.iter().filter(|record| !known.contains(&record.id)) {
                registry.put(record, false)?;
            }
            if registry.default().is_none() {
                registry.make_default(self.default);
            }
            Ok(())
        })
    }
}

impl OlderEngine {
    fn record(&self, home: &HomeLayout, runner: &dyn ToolRunner, now: UnixMillis) -> Record {
        // One that does not even start here keeps its place: a config may name it.
        let asked = || probe(&self.executable, runner).ok().and_then(|profile| profile.version);
        Record {
            id: self.id,
            version: self.version.clone().or_else(asked).unwrap_or_else(|| "unknown".to_owned()),
            variant: self.variant.clone(),
            executable: locate::as_stored(&self.executable, home),
            source: self.source.to_owned(),
            sha256: self.sha256.clone(),
            installed_at: self.installed_at.clone().unwrap_or_else(|| now.to_rfc3339()),
            size_bytes: self.size_bytes,
        }
    }
}
