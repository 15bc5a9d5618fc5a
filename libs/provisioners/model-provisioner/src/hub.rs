//! Models of the hub: which file of a repository, and bringing it into a home.

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::Duration;

use orch_core::{ByteCount, ExitCode, Failure, HomeLayout};
use reqwest::Url;
use serde::Deserialize;
use tempfile::NamedTempFile;

use crate::download::{Http, Progress};
use crate::faults;
use crate::reference::{HubModel, is_gguf};

const ENDPOINT: &str = "https://huggingface.co";
const MAIN_BRANCH: &str = "main";
/// What most machines run well, best first.
const PREFERRED: [&str; 6] = ["q4_k_m", "q4_k_s", "q5_k_m", "iq4_xs", "q4_0", "q8_0"];
/// The beginning of unfinished files' names.
const UNFINISHED: &str = ".unfinished-";
/// What a download that was killed left behind goes after so long: nothing takes a day.
const FORGOTTEN: Duration = Duration::from_hours(24);

/// Where models are fetched from.
#[derive(Clone)]
pub struct Hub {
    endpoint: String,
    token: Option<String>,
}

impl Hub {
    /// `endpoint` names a mirror (`HF_ENDPOINT`), `token` opens private models (`HF_TOKEN`).
    pub fn new(endpoint: Option<String>, token: Option<String>) -> Self {
        let given = |text: Option<String>| text.filter(|text| !text.trim().is_empty());
        Self { endpoint: given(endpoint).unwrap_or_else(|| ENDPOINT.to_owned()), token: given(token) }
    }

    fn base(&self) -> Result<Url, Failure> {
        let url =
            Url::parse(self.endpoint.trim()).ok().filter(|url| matches!(url.scheme(), "http" | "https"));
        let bad = || {
            Failure::new(ExitCode::Usage, "HF_ENDPOINT is not an http or https address")
                .hint("correct or unset HF_ENDPOINT")
        };
        url.filter(|url| !url.cannot_be_a_base()).ok_or_else(bad)
    }
}

impl std::fmt::Debug for Hub {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Hub").field("endpoint", &self.endpoint).finish_non_exhaustive()
    }
}

/// One entry of a repository's listing.
#[derive(Clone, Debug, Deserialize)]
struct Entry {
    path: String,
    #[serde(default)]
    size: u64,
    #[serde(default)]
    lfs: Option<LargeFile>,
}

#[derive(Clone, Debug, Deserialize)]
struct LargeFile {
    /// SHA-256 of the content.
    oid: String,
    size: u64,
}

impl Entry {
    fn size(&self) -> ByteCount {
        ByteCount(self.lfs.as_ref().map_or(self.size, |lfs| lfs.size))
    }

    fn sha256(&self) -> Option<&str> {
        self.lfs.as_ref().map(|lfs| lfs.oid.as_str()).filter(|oid| oid.len() == 64)
    }
}

/// Brings a model into the home and returns its path. A file that is there already is taken as it is, without a
/// question to the hub when the reference names it.
pub async fn fetch(
    home: &HomeLayout,
    hub: &Hub,
    model: &HubModel,
    progress: &dyn Progress,
) -> Result<PathBuf, Failure> {
    let present = model.file.as_deref().map(|file| model.local_path(home, file));
    if let Some(path) = present.filter(|path| path.is_file()) {
        return Ok(path);
    }
    let base = hub.base()?;
    let http = Http::new(&base, hub.token.as_deref())?;
    progress.step(&format!("asking for {model}"));
    let revision = model.revision.as_deref().unwrap_or(MAIN_BRANCH);
    let listing = address(&base, &["api", "models", &model.owner, &model.repository, "tree", revision]);
    let entries: Vec<Entry> = http.json(&with_query(listing, "recursive", "true")).await?;
    let entry = choose(model, &entries)?;
    let target = model.local_path(home, &entry.path);
    if target.is_file() {
        return Ok(target);
    }
    let mut file = make_room(&target)?;
    progress.step(&format!("downloading {} ({})", entry.path, entry.size()));
    let mut parts = vec![model.owner.as_str(), &model.repository, "resolve", revision];
    parts.extend(entry.path.split('/'));
    let sha256 = http.file(&address(&base, &parts), entry.size(), &mut file, progress).await?;
    verify(entry, &sha256, file.path())?;
    publish(file, &target)?;
    Ok(target)
}

fn address(base: &Url, parts: &[&str]) -> Url {
    let mut url = base.clone();
    if let Ok(mut segments) = url.path_segments_mut() {
        segments.pop_if_empty().extend(parts);
    }
    url
}

fn with_query(mut url: Url, name: &str, value: &str) -> Url {
    url.query_pairs_mut().append_pair(name, value);
    url
}

/// The file that the reference names, or the one that most machines run well.
fn choose<'a>(model: &HubModel, entries: &'a [Entry]) -> Result<&'a Entry, Failure> {
    if let Some(file) = &model.file {
        return entries.iter().find(|entry| entry.path == *file).ok_or_else(|| {
            faults::not_found(format!("there is no {file} in {}/{}", model.owner, model.repository))
        });
    }
    let whole = || entries.iter().filter(|entry| is_whole_model(&entry.path));
    let preferred = PREFERRED
        .iter()
        .find_map(|name| whole().find(|entry| entry.path.to_ascii_lowercase().contains(name)));
    let smallest = || whole().min_by_key(|entry| entry.size());
    preferred.or_else(smallest).ok_or_else(|| {
        faults::not_found(format!(
            "{}/{} holds no GGUF file that is a whole model",
            model.owner, model.repository
        ))
        .hint("name another repository, or a file of it: hf:owner/repository:file.gguf")
    })
}

/// Models in several parts and the vision halves of others do not stand alone.
fn is_whole_model(path: &str) -> bool {
    let name = path.to_ascii_lowercase();
    is_gguf(&name) && !name.contains("-of-0") && !name.contains("mmproj")
}

/// An unfinished file beside the target; it goes when it is dropped.
fn make_room(target: &Path) -> Result<NamedTempFile, Failure> {
    let folder = target.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(folder).map_err(|error| faults::file("create", folder, &error))?;
    sweep(folder);
    let made = tempfile::Builder::new().prefix(UNFINISHED).tempfile_in(folder);
    made.map_err(|error| faults::file("write to", folder, &error))
}

fn sweep(folder: &Path) {
    let is_forgotten = |entry: &fs::DirEntry| {
        let age = entry.metadata().and_then(|file| file.modified()).ok().and_then(|at| at.elapsed().ok());
        entry.file_name().to_string_lossy().starts_with(UNFINISHED) && age.is_some_and(|age| age > FORGOTTEN)
    };
    for entry in fs::read_dir(folder).into_iter().flatten().flatten().filter(is_forgotten) {
        // What cannot be removed costs room, nothing more.
        let _ = fs::remove_file(entry.path());
    }
}

fn verify(entry: &Entry, sha256: &str, path: &Path) -> Result<(), Failure> {
    if entry.sha256().is_some_and(|wanted| !wanted.eq_ignore_ascii_case(sha256)) {
        let message = format!("{} arrived with a wrong checksum", entry.path);
        return Err(faults::invalid(message).hint("try again; if it stays so, choose another mirror"));
    }
    let mut magic = [0; 4];
    let read = fs::File::open(path).and_then(|mut file| file.read_exact(&mut magic));
    if read.is_err() || &magic != b"GGUF" {
        return Err(faults::invalid(format!("{} is not a GGUF file", entry.path)));
    }
    Ok(())
}

fn publish(file: NamedTempFile, target: &Path) -> Result<(), Failure> {
    file.as_file().sync_all().map_err(|error| faults::file("write", target, &error))?;
    file.persist(target).map_err(|error| faults::file("write", target, &error.error))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entries(paths: &[&str]) -> Vec<Entry> {
        paths.iter().map(|path| Entry { path: (*path).to_owned(), size: 9, lfs: None }).collect()
    }

    fn chosen(reference: &str, paths: &[&str]) -> Result<String, Failure> {
        choose(&HubModel::parse(reference).unwrap(), &entries(paths)).map(|entry| entry.path.clone())
    }

    #[test]
    fn the_quantization_that_most_machines_run_well_is_chosen() {
        let paths = ["README.md", "m-f16.gguf", "m-q8_0.gguf", "m-Q4_K_M.gguf", "mmproj-q4_k_m.gguf"];
        assert_eq!(chosen("hf:a/b", &paths).unwrap(), "m-Q4_K_M.gguf");
        assert_eq!(chosen("hf:a/b:m-f16.gguf", &paths).unwrap(), "m-f16.gguf");
        assert_eq!(chosen("hf:a/b:other.gguf", &paths).unwrap_err().exit, ExitCode::ModelNotFound);
    }

    #[test]
    fn a_part_of_a_model_is_no_model() {
        let parts = ["m-q4_k_m-00001-of-00002.gguf", "m-q4_k_m-00002-of-00002.gguf", "config.json"];
        assert_eq!(chosen("hf:a/b", &parts).unwrap_err().exit, ExitCode::ModelNotFound);
    }

    #[test]
    fn names_cannot_leave_their_place_in_an_address() {
        let base = Url::parse("https://mirror.test/hub/").unwrap();
        let url = address(&base, &["api", "models", "a b", "c?d"]);
        assert_eq!(url.as_str(), "https://mirror.test/hub/api/models/a%20b/c%3Fd");
    }

    #[test]
    fn a_mirror_has_to_be_an_address() {
        for bad in ["ftp://x", "nonsense", "file:///etc"] {
            assert_eq!(Hub::new(Some(bad.to_owned()), None).base().unwrap_err().exit, ExitCode::Usage);
        }
        assert_eq!(Hub::new(Some(" ".to_owned()), None).base().unwrap().as_str(), "https://huggingface.co/");
    }
}
