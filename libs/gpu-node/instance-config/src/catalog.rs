//! All instances of a home, good and broken, and how one of them is named.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use orch_core::{ExitCode, Failure, HomeLayout};
use serde_json::{Map, Value};
use uuid::Uuid;

use crate::document::read_document;
use crate::finding::Finding;
use crate::kind::Kind;
use crate::loaded::{LoadedInstance, load_document, of_instance};
use crate::nearest::nearest;

/// A config that cannot be used. It never disables the others.
#[derive(Clone, Debug)]
pub struct BrokenInstance {
    /// The name in the file, or else the folder's.
    pub name: String,
    pub path: PathBuf,
    pub findings: Vec<Finding>,
    /// Why: invalid, not to be parsed, or not to be read.
    pub exit: ExitCode,
    /// The port that it claims all the same, as far as that can be read.
    pub port: Option<u16>,
}

/// One config's claim to a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Claim<'a> {
    pub name: &'a str,
    pub path: &'a Path,
}

impl BrokenInstance {
    pub(crate) fn invalid(path: &Path, document: &Map<String, Value>, findings: Vec<Finding>) -> Self {
        let written = document.get("name").and_then(Value::as_str).filter(|name| !name.trim().is_empty());
        let name = written.map_or_else(|| folder_name(path), str::to_owned);
        let findings = of_instance(findings, &name);
        Self {
            name,
            path: path.to_owned(),
            findings,
            exit: ExitCode::ConfigInvalid,
            port: claimed_port(document),
        }
    }

    pub(crate) fn unreadable(path: &Path, exit: ExitCode, message: String) -> Self {
        let name = folder_name(path);
        let findings = vec![Finding::error("", message).of(&name)];
        Self { name, path: path.to_owned(), findings, exit, port: None }
    }

    /// The failure of a command that needs this instance: path, field and reason.
    pub fn failure(&self) -> Failure {
        Failure { exit: self.exit, ..crate::loaded::refusal(&self.path, &self.findings) }
    }
}

/// Every config of a home, sorted by name.
#[derive(Clone, Debug, Default)]
pub struct Catalog {
    pub instances: Vec<LoadedInstance>,
    pub broken: Vec<BrokenInstance>,
}

/// Finds every config of a home, in the folders of today's layout (`<name>`) and of older ones
/// (`<8 digits>_<uuid>`). A home without instances is an empty catalog.
pub fn discover(home: &HomeLayout) -> io::Result<Catalog> {
    Ok(Catalog::gather(config_paths(home)?.iter().map(|path| load_file(path))))
}

/// Where the configs of a home lie, in the order in which they claim names.
pub(crate) fn config_paths(home: &HomeLayout) -> io::Result<Vec<PathBuf>> {
    let entries = match fs::read_dir(home.instances()) {
        Ok(entries) => entries,
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound) => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut paths = Vec::new();
    for entry in entries {
        let path = entry?.path().join("config.json");
        // A link that leads nowhere is worth telling, so the link itself is asked.
        if fs::symlink_metadata(&path).is_ok() {
            paths.push(path);
        }
    }
    // The folder that bears the instance's name goes first: it wins where two configs claim one name.
    paths.sort_by_key(|path| (is_older_folder(path), path.clone()));
    Ok(paths)
}

/// Reads one config file.
pub fn load_file(path: &Path) -> Result<LoadedInstance, BrokenInstance> {
    let absolute = std::path::absolute(path);
    let path = absolute.as_deref().unwrap_or(path);
    match read_document(path) {
        Ok(document) => load_document(path, document),
        Err(unreadable) => Err(BrokenInstance::unreadable(path, unreadable.exit, unreadable.message)),
    }
}

impl Catalog {
    pub(crate) fn gather(readings: impl IntoIterator<Item = Result<LoadedInstance, BrokenInstance>>) -> Self {
        let mut catalog = Self::default();
        for reading in readings {
            match reading {
                Ok(instance) => catalog.add(instance),
                Err(broken) => catalog.broken.push(broken),
            }
        }
        catalog.instances.sort_by(|a, b| a.config.name.cmp(&b.config.name));
        catalog.broken.sort_by(|a, b| (&a.name, &a.path).cmp(&(&b.name, &b.path)));
        catalog
    }

    fn add(&mut self, instance: LoadedInstance) {
        let name = instance.config.name.as_str();
        let folder_says_so = folder_name(&instance.path) == name;
        let Some(rival) = self.instances.iter().position(|known| known.config.name.as_str() == name) else {
            self.instances.push(instance);
            return;
        };
        let rival_says_so = folder_name(&self.instances[rival].path) == name;
        let loser = if folder_says_so && !rival_says_so {
            std::mem::replace(&mut self.instances[rival], instance)
        } else {
            instance
        };
        let winner = self.instances[rival].path.clone();
        self.broken.push(duplicate(loser, &winner));
    }

    /// The instance that a selector names: uid, number, name or display name, in that order. The failure is the one
    /// of the contract: 13 unknown, 2 ambiguous, or what is wrong with the config that it names.
    pub fn select(&self, selector: &str) -> Result<&LoadedInstance, Failure> {
        let uid = Uuid::parse_str(selector).ok();
        let identities: [&dyn Fn(&LoadedInstance) -> bool; 3] = [
            &|instance| uid == Some(instance.config.instance_uid),
            &|instance| instance.config.instance_no.as_deref() == Some(selector),
            &|instance| instance.config.name.as_str() == selector,
        ];
        for matches in identities {
            if let Some(found) = self.only(selector, matches)? {
                return Ok(found);
            }
        }
        let named =
            |broken: &&BrokenInstance| broken.name == selector || folder_name(&broken.path) == selector;
        if let Some(broken) = self.broken.iter().find(named) {
            return Err(broken.failure());
        }
        match self.only(selector, &|instance| instance.config.display_name == selector)? {
            Some(found) => Ok(found),
            None => Err(self.unknown(selector)),
        }
    }

    fn only(
        &self,
        selector: &str,
        matches: &dyn Fn(&LoadedInstance) -> bool,
    ) -> Result<Option<&LoadedInstance>, Failure> {
        let mut hits = self.instances.iter().filter(|instance| matches(instance));
        let (first, second) = (hits.next(), hits.next());
        let (Some(one), Some(other)) = (first, second) else { return Ok(first) };
        let names = [one, other].into_iter().chain(hits).map(|instance| instance.config.name.as_str());
        let names = names.collect::<Vec<_>>().join(", ");
        Err(Failure::new(ExitCode::Usage, format!("{selector:?} may mean {names}")).hint("use the name"))
    }

    fn unknown(&self, selector: &str) -> Failure {
        let failure = Failure::new(ExitCode::InstanceNotFound, format!("there is no instance {selector:?}"));
        let names = self.instances.iter().map(|instance| instance.config.name.as_str());
        match nearest(selector, names.clone()) {
            Some(near) => failure.hint(format!("did you mean {near}?")),
            None if self.instances.is_empty() => failure.hint("make one with `llama-orch init`"),
            None => failure.hint(format!("there is {}", names.take(10).collect::<Vec<_>>().join(", "))),
        }
    }

    /// Every config that claims a port, broken ones included. Port 0 is claimed by nobody.
    pub fn claiming(&self, port: u16) -> impl Iterator<Item = Claim<'_>> {
        let good = self.instances.iter().filter(move |instance| instance.config.server.port == port);
        let broken = self.broken.iter().filter(move |broken| broken.port == Some(port));
        let good = good.map(|instance| Claim { name: instance.config.name.as_str(), path: &instance.path });
        let broken = broken.map(|broken| Claim { name: &broken.name, path: &broken.path });
        good.chain(broken).filter(move |_| port != 0)
    }
}

fn duplicate(instance: LoadedInstance, winner: &Path) -> BrokenInstance {
    let name = instance.config.name.to_string();
    let message = format!("{:?} is already the name of {}", name, winner.display());
    let mut findings = vec![Finding::error("name", message).of(&name).suggest("rename one of them")];
    findings.extend(instance.findings);
    let port = Some(instance.config.server.port);
    BrokenInstance { name, path: instance.path, findings, exit: ExitCode::ConfigInvalid, port }
}

fn claimed_port(document: &Map<String, Value>) -> Option<u16> {
    let read = Kind::Port.read(document.get("server")?.get("port")?).ok()?;
    u16::try_from(read.value.as_u64()?).ok()
}

fn folder_name(path: &Path) -> String {
    let folder = path.parent().and_then(Path::file_name).or(path.file_name());
    folder.map_or_else(|| path.display().to_string(), |name| name.to_string_lossy().into_owned())
}

/// Whether a config lies in a folder of the older layout, `<8 digits>_<uuid>`.
pub(crate) fn is_older_folder(path: &Path) -> bool {
    older_folder(path).is_some()
}

/// What a folder of the older layout says about the config in it: number and uid.
pub(crate) fn older_folder(path: &Path) -> Option<(String, Uuid)> {
    let folder = folder_name(path);
    let (number, uid) = folder.split_once('_')?;
    let is_number = number.len() == 8 && number.bytes().all(|byte| byte.is_ascii_digit());
    Uuid::parse_str(uid).ok().filter(|_| is_number).map(|uid| (number.to_owned(), uid))
}
