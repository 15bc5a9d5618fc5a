//! What is written about the older tool's engines.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use orch_core::{ByteCount, HomeLayout, UnixMillis};
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};
use uuid::Uuid;

use super::{EngineRemark, OlderEngine};
use crate::registry::read_bounded;
use crate::{Variant, tree};

/// More than anybody installed.
const MOST_FOLDERS: usize = 10_000;

/// One engine as somebody wrote it down, or as its folder shows it.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) id: Uuid,
    /// Where it should lie; folders of the home besides.
    pub(super) path: Option<String>,
    /// The folder that the tool would have given it.
    pub(super) folder: PathBuf,
    version: Option<String>,
    variant: Option<String>,
    source: &'static str,
    sha256: Option<String>,
    installed_at: Option<String>,
    size_bytes: Option<u64>,
}

/// Everything that the older tool's files say.
#[derive(Debug, Default)]
pub(super) struct Files {
    /// Registered ones first; the first of an id counts.
    pub(super) entries: Vec<Entry>,
    pub(super) default: Option<Uuid>,
}

impl Files {
    pub(super) fn read(home: &HomeLayout, remarks: &mut Vec<EngineRemark>) -> Self {
        let mut files = Self::default();
        let bins = home.root().join("bins");
        files.read_registry(&bins, remarks);
        files.read_folders(&bins);
        files.read_oldest(home);
        files
    }

    fn read_registry(&mut self, bins: &Path, remarks: &mut Vec<EngineRemark>) {
        let path = bins.join("registry.json");
        let mut unreadable = |error: &dyn std::fmt::Display| {
            let message = format!("{} cannot be read: {error}", path.display());
            remarks.push(EngineRemark::new(message).suggest("engines are taken from the folders beside it"));
        };
        let text = match read_bounded(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return,
            Err(error) => return unreadable(&error),
        };
        let document: Value = match serde_json::from_str(text.trim_start_matches('\u{feff}')) {
            Ok(document) => document,
            Err(error) => return unreadable(&error),
        };
        self.default = uuid(&document["default_binary_id"]);
        for entry in document["binaries"].as_array().into_iter().flatten() {
            match (entry.as_object(), uuid(&entry["id"])) {
                (Some(entry), Some(id)) => self.entries.push(Entry::written(id, entry, bins)),
                _ => remarks.push(EngineRemark::new(format!(
                    "{} holds an entry without a usable id; it is left out",
                    path.display()
                ))),
            }
        }
    }

    /// Folders that are named like engines, registered or not: of two entries with one id the first counts.
    fn read_folders(&mut self, bins: &Path) {
        let entries = fs::read_dir(bins).into_iter().flatten().flatten().take(MOST_FOLDERS);
        let mut ids: Vec<(Uuid, PathBuf)> = entries
            .filter_map(|entry| Some((Uuid::parse_str(entry.file_name().to_str()?).ok()?, entry.path())))
            .collect();
        ids.sort();
        for (id, folder) in ids {
            let said = said_beside(&folder);
            self.entries.push(Entry { folder, ..Entry::written(id, &said, bins) });
        }
    }

    /// Before there were several engines there was one, in `bin`.
    fn read_oldest(&mut self, home: &HomeLayout) {
        let folder = home.root().join("bin");
        if super::locate::holds_engine(&folder) {
            let said = said_beside(&folder);
            self.entries.push(Entry { folder, ..Entry::written(stand_in_id(), &said, home.root()) });
        }
    }
}

impl Entry {
    fn written(id: Uuid, entry: &Map<String, Value>, bins: &Path) -> Self {
        let text = |key: &str| {
            let text = entry.get(key).and_then(Value::as_str).map(str::trim);
            text.filter(|text| !text.is_empty()).map(str::to_owned)
        };
        let from_release = text("download_url").is_some_and(|url| url.starts_with("https://github.com/"));
        Self {
            id,
            path: text("path"),
            folder: bins.join(id.to_string()),
            version: text("version"),
            variant: text("variant"),
            source: if from_release { "github" } else { "path" },
            sha256: text("sha256").filter(|sum| sum.len() == 64).map(|sum| sum.to_ascii_lowercase()),
            installed_at: text("installed_at").and_then(moment),
            size_bytes: entry.get("size_bytes").and_then(Value::as_u64),
        }
    }

    pub(super) fn engine(&self, executable: PathBuf) -> OlderEngine {
        let size = || fs::metadata(&executable).map_or(0, |file| file.len());
        OlderEngine {
            id: self.id,
            version: self.version.clone(),
            variant: self.variant.clone().unwrap_or_else(|| Variant::host().to_string()),
            becomes_executable: !tree::is_executable(&executable),
            source: self.source,
            sha256: self.sha256.clone(),
            installed_at: self.installed_at.clone(),
            size_bytes: ByteCount(self.size_bytes.unwrap_or_else(size)),
            executable,
        }
    }

    /// How people know it.
    pub(super) fn label(&self) -> String {
        match &self.version {
            Some(version) => format!("{version} ({})", self.id),
            None => format!("in {}", self.folder.display()),
        }
    }

    pub(super) fn install_hint(&self) -> String {
        let version = self.version.as_deref().unwrap_or("<version>");
        format!(
            "install it for this machine with `llama-orch engine install {version}`, and point configs to it"
        )
    }
}

/// `version.json` in an engine's folder.
fn said_beside(folder: &Path) -> Map<String, Value> {
    let text = read_bounded(&folder.join("version.json")).unwrap_or_default();
    match serde_json::from_str(text.trim_start_matches('\u{feff}')) {
        Ok(Value::Object(said)) => said,
        _ => Map::new(),
    }
}

fn uuid(value: &Value) -> Option<Uuid> {
    Uuid::parse_str(value.as_str()?.trim()).ok()
}

/// The older tool wrote some moments without an offset: those count as UTC.
fn moment(text: String) -> Option<String> {
    let with_offset = format!("{text}Z");
    [text, with_offset].into_iter().find(|text| UnixMillis::from_rfc3339(text).is_some())
}

/// The engine in `bin` never had an id; a second look must give the same.
fn stand_in_id() -> Uuid {
    let digest = Sha256::digest(b"the engine in bin");
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&digest[..16]);
    uuid::Builder::from_custom_bytes(bytes).into_uuid()
}
