//! The daemon as a service of the operating system: what has to be written and run for it, on each system.
//!
//! Everything but [`install`] and [`machine`] is pure: a [`Service`] and a [`Manager`] go in, a [`Plan`] comes out, the
//! same on every system, so that all of them can be looked at and tested on any.
//!
//! Whatever the manager, two things hold: engines are left alone when the service stops (they belong to their shims),
//! and nothing of the user's environment is kept but what the daemon needs to find engines. Secrets are never written.

pub(crate) mod install;
mod launchd;
pub(crate) mod machine;
mod nssm;
pub(crate) mod plan;
mod systemd;
mod task_scheduler;
#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};

use orch_core::{ExitCode, Failure};

use crate::words::windows_quoted;

pub(crate) use plan::{Plan, Step};

/// The name of the service where none is given.
const USUAL_NAME: &str = "llama-orch";
/// By this a file is known as ours.
const MARK: &str = "Written by: llama-orch daemon install";
const LONGEST_NAME: usize = 64;

/// For whom the service runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scope {
    /// From the start of the machine on.
    System,
    /// While this user is logged in.
    User,
}

impl Scope {
    pub(crate) const fn label(self) -> &'static str {
        match self {
            Scope::System => "system",
            Scope::User => "user",
        }
    }
}

/// Who keeps services on a machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Manager {
    Systemd,
    Launchd,
    /// The Non-Sucking Service Manager, where a Windows machine has it.
    Nssm,
    TaskScheduler,
}

impl Manager {
    pub(crate) const fn label(self) -> &'static str {
        match self {
            Manager::Systemd => "systemd",
            Manager::Launchd => "launchd",
            Manager::Nssm => "NSSM",
            Manager::TaskScheduler => "Task Scheduler",
        }
    }
}

/// The service to be: which daemon, of which home, for whom.
#[derive(Clone, Debug)]
pub(crate) struct Service {
    pub(crate) name: String,
    pub(crate) scope: Scope,
    /// The program, absolute.
    pub(crate) executable: String,
    /// The home of the daemon, absolute.
    pub(crate) home: String,
    /// What the daemon needs of the environment to find engines: `PATH`, and `LLAMA_SERVER` where it is set.
    pub(crate) environment: Vec<(String, String)>,
    /// As whom a service of the system runs: the owner of the home, unless that is the administrator.
    pub(crate) run_as: Option<String>,
    /// Where this user keeps configuration: `~/.config`, `~/Library`; not needed for a service of the system.
    pub(crate) user_folder: PathBuf,
    /// The installing user's number, by which launchd names sessions.
    pub(crate) user_id: u32,
    /// A daemon of this home lives already: the service is set up, and not started beside it.
    pub(crate) daemon_lives: bool,
}

impl Service {
    /// The daemon's command line; it stays in the foreground, because the manager watches it.
    fn foreground(&self) -> Vec<&str> {
        let mut words = self.program_and_home();
        words.extend(["daemon", "start", "--foreground"]);
        words
    }

    /// The same, in the background: for managers that only start programs.
    fn background(&self) -> Vec<&str> {
        let mut words = self.program_and_home();
        words.extend(["daemon", "start"]);
        words
    }

    fn program_and_home(&self) -> Vec<&str> {
        vec![&self.executable, "--home", &self.home, "--color", "never"]
    }

    /// All variables, the home's own first.
    fn variables(&self) -> impl Iterator<Item = (&str, &str)> {
        let home = [("LLAMA_ORCH_HOME", self.home.as_str())];
        home.into_iter().chain(self.environment.iter().map(|(name, value)| (name.as_str(), value.as_str())))
    }
}

/// Letters, digits, `-`, `_` and `.`: what every manager takes, in file names too.
pub(crate) fn check_name(name: &str) -> Result<(), Failure> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    let begins_well = name.bytes().next().is_some_and(|byte| byte.is_ascii_alphanumeric());
    if begins_well && name.len() <= LONGEST_NAME && name.bytes().all(plain) {
        return Ok(());
    }
    let message = format!("{name:?} cannot be the name of a service");
    Err(Failure::new(ExitCode::Usage, message)
        .hint("use up to 64 letters, digits, `-`, `_` and `.`, beginning with a letter or digit"))
}

/// All steps that set the service up, in their order.
pub(crate) fn installation(manager: Manager, service: &Service) -> Plan {
    match manager {
        Manager::Systemd => systemd::installation(service),
        Manager::Launchd => launchd::installation(service),
        Manager::Nssm => nssm::installation(service),
        Manager::TaskScheduler => task_scheduler::installation(service),
    }
}

/// All steps that take the service away. Engines, home and logs stay.
pub(crate) fn removal(manager: Manager, service: &Service) -> Plan {
    match manager {
        Manager::Systemd => systemd::removal(service),
        Manager::Launchd => launchd::removal(service),
        Manager::Nssm => nssm::removal(service),
        Manager::TaskScheduler => task_scheduler::removal(service),
    }
}

/// How it is found out whether the name is taken, and by whom.
pub(crate) fn presence(manager: Manager, service: &Service) -> Presence {
    match manager {
        Manager::Systemd => systemd::presence(service),
        Manager::Launchd => Presence::File(launchd::property_list(service)),
        Manager::Nssm => nssm::presence(service),
        Manager::TaskScheduler => task_scheduler::presence(service),
    }
}

/// What tells that a service of the name is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Presence {
    /// Its file, and the mark in it tells whether it is ours.
    File(PathBuf),
    /// Its file; or else, of a service that came with the system, a command that succeeds.
    FileOrAnswer { file: PathBuf, question: Vec<String> },
    /// A command that succeeds when there is one, and another whose answer holds these words when it is ours.
    Answer { question: Vec<String>, proof: Vec<String>, words: &'static str },
}

/// The file by which a service of the usual name is known; `None` where the manager has to be asked.
pub(crate) fn service_file(manager: Manager, scope: Scope, user_folder: PathBuf) -> Option<PathBuf> {
    let service = Service {
        name: USUAL_NAME.to_owned(),
        scope,
        executable: String::new(),
        home: String::new(),
        environment: Vec::new(),
        run_as: None,
        user_folder,
        user_id: 0,
        daemon_lives: false,
    };
    match presence(manager, &service) {
        Presence::File(file) | Presence::FileOrAnswer { file, .. } => Some(file),
        Presence::Answer { .. } => None,
    }
}

/// The first of the managers of this system that is there; `None` where there is none at all.
pub(crate) fn choose_manager(
    system: &str,
    scope: Scope,
    has_program: impl Fn(&str) -> bool,
) -> Option<Manager> {
    match system {
        "linux" => has_program("systemctl").then_some(Manager::Systemd),
        "macos" => Some(Manager::Launchd),
        // Services of Windows belong to the machine: one user's daemon is a task.
        "windows" if scope == Scope::System && has_program("nssm") => Some(Manager::Nssm),
        "windows" => Some(Manager::TaskScheduler),
        _ => None,
    }
}

/// As whom a service of the system runs, where that should be known.
fn note_on_account(service: &Service) -> Option<String> {
    let as_root = service.scope == Scope::System && service.run_as.is_none();
    as_root.then(|| {
        format!(
            "the daemon of {} will run as root, to whom this home belongs; --home names another",
            service.home
        )
    })
}

fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

/// Text between the tags of an XML file.
fn xml_text(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\r' => escaped.push_str("&#13;"),
            // XML 1.0 has no way to write the others.
            control if control.is_control() && !matches!(control, '\t' | '\n') => escaped.push('\u{fffd}'),
            other => escaped.push(other),
        }
    }
    escaped
}

/// Arguments as one Windows command line.
fn windows_command_line(words: &[&str]) -> String {
    words.iter().map(|word| windows_quoted(word)).collect::<Vec<_>>().join(" ")
}

/// A path below a Windows folder, on whatever system this is rendered.
fn windows_path(folder: &str, parts: &[&str]) -> String {
    let mut path = folder.trim_end_matches(['\\', '/']).to_owned();
    for part in parts {
        path.push('\\');
        path.push_str(part);
    }
    path
}

/// `\\?\C:\x` is how Windows itself writes a path in full, which its service tools do not take.
fn without_marker(path: &str) -> &str {
    let bare = path.strip_prefix(r"\\?\").filter(|bare| bare.as_bytes().get(1) == Some(&b':'));
    bare.unwrap_or(path)
}

/// A path as the text of a file; paths that are no text cannot be written into one.
pub(crate) fn text_of(path: &Path) -> Result<String, Failure> {
    path.to_str().map(|text| without_marker(text).to_owned()).ok_or_else(|| {
        let message =
            format!("the path {} is not valid text, and cannot be given to a service", path.display());
        Failure::new(ExitCode::General, message)
    })
}
