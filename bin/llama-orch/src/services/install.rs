//! A service set up or taken away: looked for first, then step by step, and back again when a step fails.

use std::io;
use std::path::Path;

use orch_core::{ExitCode, Failure};

use super::{MARK, Manager, Plan, Presence, Scope, Service, Step, presence};

/// What setting up a service touches of a machine.
pub(crate) trait Machine {
    fn read(&self, file: &Path) -> io::Result<Vec<u8>>;
    /// Makes the folder too, and the file in one step.
    fn write(&self, file: &Path, bytes: &[u8]) -> io::Result<()>;
    fn remove(&self, file: &Path) -> io::Result<()>;
    /// Runs a command to its end; an error says in one line why it could not be run.
    fn run(&self, words: &[String]) -> Result<Answer, String>;
    fn is_administrator(&self) -> bool;
}

/// How a command ended.
#[derive(Clone, Debug, Default)]
pub(crate) struct Answer {
    pub(crate) succeeded: bool,
    pub(crate) stdout: String,
    /// The last thing that it complained of.
    pub(crate) complaint: String,
}

/// Refuses what cannot be set up: without the rights for it (5), or under a name that is taken (14).
pub(crate) fn check_free(machine: &dyn Machine, manager: Manager, service: &Service) -> Result<(), Failure> {
    may_change(machine, service, "installing")?;
    match find(machine, &presence(manager, service))? {
        Found::Nothing => Ok(()),
        Found::Ours => Err(taken(service).hint(format!(
            "take it away first: llama-orch daemon uninstall{} --service-name {}; or choose another name",
            scope_flag(service),
            service.name
        ))),
        Found::SomebodyElses => Err(taken(service).hint("choose another name: --service-name NAME")),
    }
}

/// Refuses what is not there, or was made by somebody else.
pub(crate) fn check_ours(machine: &dyn Machine, manager: Manager, service: &Service) -> Result<(), Failure> {
    match find(machine, &presence(manager, service))? {
        Found::Nothing => Err(not_there(service)),
        Found::SomebodyElses => {
            let message =
                format!("the service {} was not made by llama-orch, and is left alone", service.name);
            Err(Failure::new(ExitCode::General, message))
        }
        Found::Ours => Ok(()),
    }
}

/// Refuses to take away what only an administrator may.
pub(crate) fn check_removal(machine: &dyn Machine, service: &Service) -> Result<(), Failure> {
    may_change(machine, service, "removing")
}

/// Takes each step; when one fails, what was done is taken back.
pub(crate) fn carry_out(machine: &dyn Machine, plan: &Plan) -> Result<(), Failure> {
    for step in &plan.steps {
        if let Err(failure) = take(machine, step) {
            for step in &plan.undo {
                // Whatever is not there to be taken back is as good as taken back.
                let _ = take(machine, step);
            }
            return Err(failure);
        }
    }
    Ok(())
}

fn may_change(machine: &dyn Machine, service: &Service, doing: &str) -> Result<(), Failure> {
    if service.scope == Scope::User || machine.is_administrator() {
        return Ok(());
    }
    let message = format!("{doing} a service of the system needs an administrator");
    Err(Failure::new(ExitCode::PermissionDenied, message)
        .hint("run it as one (sudo, or an elevated prompt), or take a service of your own: --user"))
}

fn taken(service: &Service) -> Failure {
    let message = format!("there is a service called {} already", service.name);
    Failure::new(ExitCode::AlreadyExists, message)
}

fn not_there(service: &Service) -> Failure {
    let other = match service.scope {
        Scope::System => "one of your own is removed with --user",
        Scope::User => "one of the system is removed without --user",
    };
    let message = format!("there is no {} service called {}", service.scope.label(), service.name);
    Failure::new(ExitCode::General, message).hint(other)
}

fn scope_flag(service: &Service) -> &'static str {
    match service.scope {
        Scope::System => "",
        Scope::User => " --user",
    }
}

enum Found {
    Nothing,
    Ours,
    SomebodyElses,
}

impl Found {
    fn judge(is_ours: bool) -> Self {
        if is_ours { Found::Ours } else { Found::SomebodyElses }
    }
}

fn find(machine: &dyn Machine, presence: &Presence) -> Result<Found, Failure> {
    match presence {
        Presence::File(file) => find_file(machine, file),
        Presence::FileOrAnswer { file, question } => match find_file(machine, file)? {
            Found::Nothing if ask(machine, question)?.succeeded => Ok(Found::SomebodyElses),
            found => Ok(found),
        },
        Presence::Answer { question, proof, words } => {
            if !ask(machine, question)?.succeeded {
                return Ok(Found::Nothing);
            }
            // Some tools of Windows answer in wide letters, with a zero behind each.
            let answer = ask(machine, proof)?.stdout.replace('\0', "");
            Ok(Found::judge(answer.contains(words)))
        }
    }
}

fn find_file(machine: &dyn Machine, file: &Path) -> Result<Found, Failure> {
    match machine.read(file) {
        Ok(bytes) => Ok(Found::judge(String::from_utf8_lossy(&bytes).contains(MARK))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Found::Nothing),
        Err(error) => Err(not_done("read", file, &error)),
    }
}

fn ask(machine: &dyn Machine, question: &[String]) -> Result<Answer, Failure> {
    machine.run(question).map_err(|why| Failure::new(ExitCode::General, why))
}

fn take(machine: &dyn Machine, step: &Step) -> Result<(), Failure> {
    match step {
        Step::Write { path, text, encoding } => machine
            .write(path, &Step::bytes(text, *encoding))
            .map_err(|error| not_done("write", path, &error)),
        Step::Remove { path } => match machine.remove(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(not_done("remove", path, &error)),
            _ => Ok(()),
        },
        Step::Try(words) => {
            let _ = machine.run(words);
            Ok(())
        }
        Step::Run(words) => {
            let answer = ask(machine, words)?;
            if answer.succeeded {
                return Ok(());
            }
            let message = format!("`{}` failed: {}", words.join(" "), answer.complaint);
            Err(Failure::new(ExitCode::General, message))
        }
    }
}

fn not_done(what: &str, file: &Path, error: &io::Error) -> Failure {
    let exit = match error.kind() {
        io::ErrorKind::PermissionDenied => ExitCode::PermissionDenied,
        _ => ExitCode::General,
    };
    Failure::new(exit, format!("cannot {what} {}: {error}", file.display()))
}
