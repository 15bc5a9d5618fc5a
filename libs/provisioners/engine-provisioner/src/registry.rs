//! `engines/registry.json`: the engines of a home. What it does not name is not installed.

use std::fs;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use orch_core::{ByteCount, ExitCode, Failure, HomeLayout, UnixMillis};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use uuid::Uuid;

use crate::{faults, lock, older, staging, version};

const SCHEMA_VERSION: &str = "2";
const FILE_LIMIT: u64 = 4 * 1024 * 1024;

/// An engine that instances can run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct InstalledEngine {
    pub id: Uuid,
    pub version: String,
    pub variant: String,
    /// Absolute.
    pub executable: PathBuf,
    /// Where it came from: `github`, `pypi`, `path`, `url`.
    pub source: String,
    /// Of the file that was downloaded.
    pub sha256: Option<String>,
    /// RFC 3339.
    pub installed_at: String,
    pub size_bytes: ByteCount,
    pub is_default: bool,
}

impl InstalledEngine {
    /// Newer engines compare greater: by build number, then by the time of installation.
    pub(crate) fn age_key(&self) -> (Option<u64>, UnixMillis) {
        let installed = UnixMillis::from_rfc3339(&self.installed_at).unwrap_or_default();
        (version::build_number(&self.version), installed)
    }
}

/// One entry as it is stored. The executable is relative to the engines folder when the engine lies in it, so
/// that a home can be moved.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Record {
    pub(crate) id: Uuid,
    pub(crate) version: String,
    pub(crate) variant: String,
    pub(crate) executable: PathBuf,
    pub(crate) source: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) sha256: Option<String>,
    pub(crate) installed_at: String,
    pub(crate) size_bytes: ByteCount,
}

/// The file. Entries stay raw until they are asked for: one that cannot be read hides no other, and everything
/// unknown is written back.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Document {
    #[serde(default)]
    schema_version: String,
    #[serde(default)]
    default_engine_id: Option<Uuid>,
    #[serde(default)]
    engines: Vec<Value>,
    #[serde(flatten)]
    unknown: Map<String, Value>,
}

/// The installed engines as they were when the file was read.
#[derive(Clone, Debug)]
pub struct Registry {
    folder: PathBuf,
    document: Document,
}

impl Registry {
    /// Reads the registry; a home without one has no engines. Creates nothing.
    pub fn load(home: &HomeLayout) -> Result<Self, Failure> {
        let path = home.engine_registry();
        let folder = std::path::absolute(home.engines()).unwrap_or_else(|_| home.engines());
        let document = match read_bounded(&path) {
            Ok(text) => serde_json::from_str(text.trim_start_matches('\u{feff}')).map_err(|error| {
                faults::invalid(format!("{} cannot be read: {error}", path.display()))
                    .hint("mend the file, or move it away and install the engines again")
            })?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Document::default(),
            Err(error) => return Err(faults::file(ExitCode::General, "read", &path, &error)),
        };
        Ok(Self { folder, document })
    }

    /// Every engine, newest first.
    pub fn list(&self) -> Vec<InstalledEngine> {
        let mut engines: Vec<_> = self.records().map(|record| self.engine(record)).collect();
        engines.sort_by_key(|engine| std::cmp::Reverse(engine.age_key()));
        engines
    }

    /// The engine that was made the default, if one was.
    pub fn default(&self) -> Option<InstalledEngine> {
        self.list().into_iter().find(|engine| engine.is_default)
    }

    pub fn get(&self, id: Uuid) -> Option<InstalledEngine> {
        self.list().into_iter().find(|engine| engine.id == id)
    }

    /// The engine a user means: by id, the beginning of an id (4 characters or more), or version; the newest
    /// where several have the version.
    pub fn select(&self, selector: &str) -> Result<InstalledEngine, Failure> {
        let engines = self.list();
        if let Some(engine) = engines.iter().find(|engine| version::same(&engine.version, selector)) {
            return Ok(engine.clone());
        }
        let lower = selector.to_ascii_lowercase();
        let mut hits = engines
            .iter()
            .filter(|engine| lower.len() >= 4 && engine.id.as_hyphenated().to_string().starts_with(&lower));
        match (hits.next(), hits.next()) {
            (Some(engine), None) => Ok(engine.clone()),
            (Some(_), Some(_)) => {
                Err(Failure::new(ExitCode::Usage, format!("several engines begin with {selector}")))
            }
            (None, _) => Err(faults::not_found(format!("no installed engine is called {selector}"))
                .hint("list them with: llama-orch engine list")),
        }
    }

    fn records(&self) -> impl Iterator<Item = Record> {
        self.document.engines.iter().filter_map(|value| Record::deserialize(value).ok())
    }

    fn engine(&self, record: Record) -> InstalledEngine {
        InstalledEngine {
            is_default: self.document.default_engine_id == Some(record.id),
            executable: older::lexical(&self.folder.join(&record.executable)),
            id: record.id,
            version: record.version,
            variant: record.variant,
            source: record.source,
            sha256: record.sha256,
            installed_at: record.installed_at,
            size_bytes: record.size_bytes,
        }
    }

    /// Adds an engine, or brings the one with the same id up to date.
    pub(crate) fn put(&mut self, record: &Record, make_default: bool) -> Result<(), Failure> {
        let new = serde_json::to_value(record).map_err(|error| faults::invalid(error.to_string()))?;
        let engines = &mut self.document.engines;
        match engines.iter_mut().find(|value| has_id(value, record.id)) {
            Some(Value::Object(old)) => old.extend(new.as_object().cloned().unwrap_or_default()),
            _ => engines.push(new),
        }
        if make_default {
            self.document.default_engine_id = Some(record.id);
        }
        Ok(())
    }

    pub(crate) fn make_default(&mut self, id: Option<Uuid>) {
        self.document.default_engine_id = id;
    }

    fn take_out(&mut self, id: Uuid) {
        self.document.engines.retain(|value| !has_id(value, id));
        if self.document.default_engine_id == Some(id) {
            self.document.default_engine_id = None;
        }
    }

    fn save(&mut self) -> io::Result<()> {
        SCHEMA_VERSION.clone_into(&mut self.document.schema_version);
        let mut text = serde_json::to_vec_pretty(&self.document)?;
        text.push(b'\n');
        let mut output = atomic_write_file::AtomicWriteFile::open(self.folder.join("registry.json"))?;
        output.write_all(&text)?;
        output.commit()
    }
}

/// Changes the registry under its lock. `change` sees the newest state; nothing is written when it fails.
pub(crate) fn edit<T>(
    home: &HomeLayout,
    change: impl FnOnce(&mut Registry) -> Result<T, Failure>,
) -> Result<T, Failure> {
    let engines = home.engines();
    crate::tree::create_private(&engines).map_err(|error| faults::install("create", &engines, &error))?;
    let _lock = lock::acquire(&engines.join("registry.lock"))?;
    let mut registry = Registry::load(home)?;
    let value = change(&mut registry)?;
    registry.save().map_err(|error| faults::install("write", &home.engine_registry(), &error))?;
    Ok(value)
}

/// Makes an engine the one that instances without a wish of their own run.
pub fn set_default(home: &HomeLayout, selector: &str) -> Result<InstalledEngine, Failure> {
    // Before the lock, so that a wrong name creates nothing.
    Registry::load(home)?.select(selector)?;
    edit(home, |registry| {
        let engine = registry.select(selector)?;
        registry.document.default_engine_id = Some(engine.id);
        Ok(InstalledEngine { is_default: true, ..engine })
    })
}

/// Forgets an engine and deletes its files. One that was registered in place keeps them.
pub fn remove(home: &HomeLayout, selector: &str) -> Result<InstalledEngine, Failure> {
    Registry::load(home)?.select(selector)?;
    let engine = edit(home, |registry| {
        let engine = registry.select(selector)?;
        registry.take_out(engine.id);
        Ok(engine)
    })?;
    staging::discard_engine(&home.engines(), engine.id);
    Ok(engine)
}

fn has_id(value: &Value, id: Uuid) -> bool {
    value.get("id").and_then(Value::as_str).and_then(|text| Uuid::parse_str(text).ok()) == Some(id)
}

pub(crate) fn read_bounded(path: &Path) -> io::Result<String> {
    let file = fs::File::open(path)?;
    let mut text = String::new();
    let read = file.take(FILE_LIMIT + 1).read_to_string(&mut text)?;
    if read as u64 > FILE_LIMIT { Err(io::Error::other("the file is too large")) } else { Ok(text) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn temp_home() -> (tempfile::TempDir, HomeLayout) {
        let folder = tempfile::tempdir().unwrap();
        let home = HomeLayout::new(folder.path());
        (folder, home)
    }

    fn record(id: u128, version: &str, installed_at: &str) -> Record {
        Record {
            id: Uuid::from_u128(id),
            version: version.to_owned(),
            variant: "ubuntu-x64".to_owned(),
            executable: format!("{}/llama-server", Uuid::from_u128(id)).into(),
            source: "github".to_owned(),
            sha256: None,
            installed_at: installed_at.to_owned(),
            size_bytes: ByteCount(1),
        }
    }

    fn put(home: &HomeLayout, record: &Record) {
        edit(home, |registry| registry.put(record, false)).unwrap();
    }

    #[test]
    fn a_home_without_a_registry_has_no_engines_and_stays_without_one() {
        let (folder, home) = temp_home();
        assert!(Registry::load(&home).unwrap().list().is_empty());
        assert_eq!(set_default(&home, "b1").unwrap_err().exit, ExitCode::EngineNotFound);
        assert_eq!(remove(&home, "b1").unwrap_err().exit, ExitCode::EngineNotFound);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    }

    #[test]
    fn the_newest_build_comes_first_and_then_the_last_installed() {
        let (_folder, home) = temp_home();
        put(&home, &record(1, "b900", "2026-01-03T00:00:00Z"));
        put(&home, &record(2, "b11434", "2026-01-01T00:00:00Z"));
        put(&home, &record(3, "b11434", "2026-01-01T03:00:00+01:00"));
        put(&home, &record(4, "custom", "2026-01-09T00:00:00Z"));
        let order: Vec<u128> =
            Registry::load(&home).unwrap().list().iter().map(|engine| engine.id.as_u128()).collect();
        assert_eq!(order, [3, 2, 1, 4]);
    }

    #[test]
    fn engines_are_found_by_version_id_and_the_beginning_of_an_id() {
        let (_folder, home) = temp_home();
        let id = Uuid::new_v4();
        put(&home, &Record { id, ..record(1, "b11434", "2026-01-01T00:00:00Z") });
        let registry = Registry::load(&home).unwrap();
        for selector in ["b11434", "11434.0.0", &id.to_string(), &id.to_string()[..6].to_uppercase()] {
            assert_eq!(registry.select(selector).unwrap().id, id, "{selector}");
        }
        for selector in ["b1", "", &id.to_string()[..3]] {
            assert_eq!(registry.select(selector).unwrap_err().exit, ExitCode::EngineNotFound, "{selector}");
        }
    }

    #[test]
    fn unknown_keys_and_unreadable_entries_survive_a_change() {
        let (_folder, home) = temp_home();
        fs::create_dir_all(home.engines()).unwrap();
        let known = serde_json::to_value(record(7, "b7", "2026-01-01T00:00:00Z")).unwrap();
        let mut known = known.as_object().unwrap().clone();
        known.insert("note".to_owned(), "mine".into());
        let text = serde_json::json!({"engines": ["broken", known], "colour": "red"}).to_string();
        fs::write(home.engine_registry(), format!("\u{feff}{text}")).unwrap();
        set_default(&home, "b7").unwrap();
        put(&home, &record(7, "b8", "2026-01-01T00:00:00Z"));
        let after: Value =
            serde_json::from_str(&fs::read_to_string(home.engine_registry()).unwrap()).unwrap();
        assert_eq!((&after["colour"], &after["engines"][0]), (&"red".into(), &"broken".into()));
        assert_eq!(
            (&after["engines"][1]["note"], &after["engines"][1]["version"]),
            (&"mine".into(), &"b8".into())
        );
        assert_eq!(Registry::load(&home).unwrap().default().unwrap().version, "b8");
    }

    #[test]
    fn a_removed_engine_is_gone_with_its_files_and_its_default() {
        let (_folder, home) = temp_home();
        let record = record(5, "b5", "2026-01-01T00:00:00Z");
        put(&home, &record);
        let files = home.engines().join(record.id.to_string());
        fs::create_dir_all(&files).unwrap();
        set_default(&home, "b5").unwrap();
        remove(&home, "b5").unwrap();
        assert!(!files.exists());
        let registry = Registry::load(&home).unwrap();
        assert!(registry.list().is_empty() && registry.default().is_none());
    }

    #[test]
    fn a_damaged_registry_is_an_error_that_names_the_file_and_leaves_it() {
        let (_folder, home) = temp_home();
        fs::create_dir_all(home.engines()).unwrap();
        fs::write(home.engine_registry(), "{").unwrap();
        let failure = Registry::load(&home).unwrap_err();
        assert_eq!(failure.exit, ExitCode::EngineInvalid);
        assert!(failure.message.contains("registry.json"));
        assert!(edit(&home, |_| Ok(())).is_err());
        assert_eq!(fs::read_to_string(home.engine_registry()).unwrap(), "{");
    }

    #[test]
    fn writers_at_the_same_time_lose_nothing() {
        let (_folder, home) = temp_home();
        std::thread::scope(|scope| {
            for id in 0..16 {
                let home = &home;
                scope.spawn(move || put(home, &record(id, "b1", "2026-01-01T00:00:00Z")));
            }
        });
        assert_eq!(Registry::load(&home).unwrap().list().len(), 16);
    }
}
