//! Which folder is the home.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use orch_core::HomeLayout;
use serde::Serialize;

use crate::access::{create_private_folders, is_own, make_private};

/// Why a folder is the home: `-v` and `doctor` tell it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum HomeSource {
    Flag,
    Environment,
    /// The working folder or one above it is a home.
    WorkingFolder,
    /// The platform's data folder.
    DataFolder,
}

impl HomeSource {
    /// How it is told to people.
    pub const fn label(self) -> &'static str {
        match self {
            HomeSource::Flag => "--home",
            HomeSource::Environment => "LLAMA_ORCH_HOME",
            HomeSource::WorkingFolder => "the working folder",
            HomeSource::DataFolder => "the data folder",
        }
    }
}

/// The home of this run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HomeChoice {
    pub layout: HomeLayout,
    pub source: HomeSource,
}

/// Chooses the home: `--home`, `LLAMA_ORCH_HOME`, the nearest own ancestor of the working folder that is a home, the
/// platform's data folder. `data_folder` is that of this product, complete. Nothing is created.
pub fn find(
    flag: Option<&Path>,
    environment: Option<&str>,
    working_folder: &Path,
    data_folder: &Path,
) -> HomeChoice {
    let choice =
        |path: &Path, source| HomeChoice { layout: HomeLayout::new(absolute(working_folder, path)), source };
    if let Some(flag) = flag {
        return choice(flag, HomeSource::Flag);
    }
    if let Some(named) = environment.filter(|named| !named.is_empty()) {
        return choice(Path::new(named), HomeSource::Environment);
    }
    match working_folder.ancestors().find(|folder| is_home(folder) && is_own(folder)) {
        Some(folder) => choice(folder, HomeSource::WorkingFolder),
        None => choice(data_folder, HomeSource::DataFolder),
    }
}

/// Joined to the working folder, without `.` and `..` where that needs no look at the disk.
fn absolute(working_folder: &Path, path: &Path) -> PathBuf {
    let joined = working_folder.join(path);
    dunce::canonicalize(&joined).or_else(|_| std::path::absolute(&joined)).unwrap_or(joined)
}

fn is_home(folder: &Path) -> bool {
    let layout = HomeLayout::new(folder);
    layout.database().is_file() || has_instances(&layout)
}

fn has_instances(layout: &HomeLayout) -> bool {
    let entries = fs::read_dir(layout.instances()).into_iter().flatten().flatten();
    entries.into_iter().any(|entry| entry.path().join("config.json").is_file())
}

/// Makes the folders of a home, closed to others: they may hold prompts and keys. Folders of ours that exist are
/// closed too, and so is the home itself, unless it holds other things as well: then it is left as its owner made it.
pub fn create(home: &HomeLayout) -> io::Result<()> {
    create_private_folders(home.root())?;
    if is_ours_alone(home.root()) {
        make_private(home.root())?;
    }
    for folder in [home.instances(), home.state(), home.locks(), home.run(), home.handoffs(), home.logs()] {
        create_private_folders(&folder)?;
        make_private(&folder)?;
    }
    Ok(())
}

/// What a home holds, the older tool's folders included.
const ENTRIES: [&str; 11] =
    ["config.toml", "instances", "state", "run", "logs", "engines", "models", "runs", "cache", "bin", "bins"];

fn is_ours_alone(folder: &Path) -> bool {
    let Ok(entries) = fs::read_dir(folder) else { return false };
    let ours = |name: &std::ffi::OsStr| ENTRIES.iter().any(|entry| name == *entry);
    is_own(folder) && entries.into_iter().all(|entry| entry.is_ok_and(|entry| ours(&entry.file_name())))
}
