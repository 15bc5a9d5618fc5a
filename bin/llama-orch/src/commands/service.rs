//! `daemon install` and `daemon uninstall`: the daemon as a service of the operating system.

use std::path::PathBuf;

use orch_core::{ExitCode, Failure};
use orch_runtime::{KEYS, environment};
use orchestratord::daemon_file;
use serde_json::json;

use crate::arguments::ServiceArguments;
use crate::context::Context;
use crate::daemon_control::without_file;
use crate::ending::{CommandResult, Ended};
use crate::services::install::{carry_out, check_free, check_ours, check_removal};
use crate::services::machine::{ThisMachine, on_path};
use crate::services::{
    Manager, Plan, Scope, Service, check_name, choose_manager, installation, removal, service_file, text_of,
};
use crate::words::command_line;

pub(super) fn install(context: &Context, arguments: &ServiceArguments) -> CommandResult {
    let (manager, service) = describe(context, arguments)?;
    let plan = installation(manager, &service);
    tell_of_left_out(context);
    if arguments.dry_run {
        return show_plan(context, &plan);
    }
    let done = check_free(&ThisMachine, manager, &service)
        .and_then(|()| make_home(context, &service))
        .and_then(|()| carry_out(&ThisMachine, &plan));
    done.map_err(|failure| by_hand(context, &failure, &plan))?;
    finish(context, manager, &service, &plan, true)
}

pub(super) fn uninstall(context: &Context, arguments: &ServiceArguments) -> CommandResult {
    let (manager, service) = describe(context, arguments)?;
    let plan = removal(manager, &service);
    if arguments.dry_run {
        return show_plan(context, &plan);
    }
    // What is not there, or not ours, is not to be removed by hand either.
    check_ours(&ThisMachine, manager, &service)?;
    let done = check_removal(&ThisMachine, &service).and_then(|()| carry_out(&ThisMachine, &plan));
    done.map_err(|failure| by_hand(context, &failure, &plan))?;
    finish(context, manager, &service, &plan, false)
}

/// The daemon's log has to have a place before the service begins, in folders of the daemon's own user.
fn make_home(context: &Context, service: &Service) -> Result<(), Failure> {
    let home = context.home()?;
    if let (Some(user), false) = (&service.run_as, home.root().exists() || cfg!(windows)) {
        let message = format!("there is no home at {} yet", service.home);
        let command = command_line(&["llama-orch", "--home", &service.home, "config", "init"]);
        return Err(Failure::new(ExitCode::General, message).hint(format!("make it as {user}: {command}")));
    }
    if service.run_as.is_some() && !cfg!(windows) {
        return Ok(());
    }
    instance_config::home::create(home).map_err(|error| {
        let exit = match error.kind() {
            std::io::ErrorKind::PermissionDenied => ExitCode::PermissionDenied,
            _ => ExitCode::General,
        };
        Failure::new(exit, format!("cannot make {}: {error}", home.root().display()))
    })
}

/// What was asked for, on this machine.
fn describe(context: &Context, arguments: &ServiceArguments) -> Result<(Manager, Service), Failure> {
    check_name(&arguments.service_name)?;
    let home = context.home()?;
    let scope = if arguments.user { Scope::User } else { Scope::System };
    let executable = own_program()?;
    let service = Service {
        name: arguments.service_name.clone(),
        scope,
        executable: text_of(&executable)?,
        home: text_of(home.root())?,
        environment: environment_of_engines(),
        run_as: account(scope, home.root()),
        user_folder: user_folder()?,
        user_id: engine_process::user_id(),
        daemon_lives: daemon_file::living(home).is_some() || without_file(home).is_some(),
    };
    let manager = choose_manager(std::env::consts::OS, scope, |program| on_path(program).is_some());
    let manager = manager.ok_or_else(|| {
        let words = [service.executable.as_str(), "--home", &service.home, "daemon", "start", "--foreground"];
        Failure::new(ExitCode::General, "there is no service manager here that llama-orch knows")
            .hint(format!("have your own one run: {}", command_line(&words)))
    })?;
    Ok((manager, service))
}

/// The program as it will be found after the next start of the machine.
fn own_program() -> Result<PathBuf, Failure> {
    let path = std::env::current_exe().ok().filter(|path| path.exists());
    path.ok_or_else(|| {
        Failure::new(ExitCode::General, "this program's own file is gone")
            .hint("run llama-orch from where it is installed")
    })
}

/// The services of the usual name on this machine, found by their files: for whom, by which manager, and where.
pub(super) fn installed_services() -> Vec<(&'static str, &'static str, String)> {
    let mut found = Vec::new();
    for scope in [Scope::System, Scope::User] {
        let Some(manager) = choose_manager(std::env::consts::OS, scope, |program| on_path(program).is_some())
        else {
            continue;
        };
        let Ok(user_folder) = user_folder() else { continue };
        if let Some(file) = service_file(manager, scope, user_folder).filter(|file| file.exists()) {
            found.push((scope.label(), manager.label(), file.display().to_string()));
        }
    }
    found
}

fn environment_of_engines() -> Vec<(String, String)> {
    let kept = ["PATH", environment::ENGINE];
    let value = |name: &&str| std::env::var(name).ok().filter(|value| !value.is_empty());
    kept.iter().filter_map(|name| Some(((*name).to_owned(), value(name)?))).collect()
}

fn account(scope: Scope, home: &std::path::Path) -> Option<String> {
    if cfg!(windows) {
        let variable = |name| std::env::var(name).ok().filter(|value| !value.is_empty());
        let user = variable("USERNAME")?;
        return Some(
            variable("USERDOMAIN").map_or_else(|| user.clone(), |domain| format!("{domain}\\{user}")),
        );
    }
    // The nearest folder that exists belongs to whoever the home will belong to.
    let existing = home.ancestors().find(|folder| folder.exists())?;
    engine_process::owner_of(existing).filter(|owner| scope == Scope::System && owner != "root")
}

fn user_folder() -> Result<PathBuf, Failure> {
    let folder = match std::env::consts::OS {
        "macos" => etcetera::home_dir().ok().map(|home| home.join("Library")),
        "windows" => Some(PathBuf::new()),
        _ => etcetera::base_strategy::Xdg::new().ok().map(|xdg| {
            use etcetera::base_strategy::BaseStrategy;
            xdg.config_dir()
        }),
    };
    folder.ok_or_else(|| Failure::new(ExitCode::General, "this user has no home folder"))
}

/// Settings of the terminal's environment that the service will not have.
fn tell_of_left_out(context: &Context) {
    let settings = KEYS.iter().filter_map(|key| key.variable);
    let set = settings
        .chain([environment::API_TOKEN])
        .filter(|name| std::env::var_os(name).is_some_and(|value| !value.is_empty()));
    let set: Vec<&str> = set.collect();
    if !set.is_empty() {
        context.talk.warning(&format!(
            "the service will not see {} of this terminal: write settings into config.toml of the home",
            set.join(", ")
        ));
    }
}

fn show_plan(context: &Context, plan: &Plan) -> CommandResult {
    for note in &plan.notes {
        context.talk.note(&format!("note: {note}"));
    }
    if context.printer.json() {
        return Ok(context.printer.document(&json!({"steps": plan.as_json(), "notes": plan.notes}))?);
    }
    Ok(context.printer.text(&plan.told())?)
}

/// A failure, and what remains for people to do.
fn by_hand(context: &Context, failure: &Failure, plan: &Plan) -> Ended {
    context.talk.failure(failure);
    context.talk.text(&format!("by hand it goes like this:\n{}", plan.told()));
    Ended::Told(failure.exit)
}

fn finish(
    context: &Context,
    manager: Manager,
    service: &Service,
    plan: &Plan,
    installed: bool,
) -> CommandResult {
    for note in &plan.notes {
        context.talk.note(&format!("note: {note}"));
    }
    if context.printer.json() {
        return Ok(context.printer.document(&json!({
            "service": service.name,
            "scope": service.scope.label(),
            "manager": manager.label(),
            "installed": installed,
            "started": installed && !service.daemon_lives,
            "home": service.home,
            "files": plan.files(),
            "notes": plan.notes,
        }))?);
    }
    let (name, manager, scope) = (&service.name, manager.label(), service.scope.label());
    let what = if installed { "installed" } else { "removed" };
    let home = if installed { format!(" of the home {}", service.home) } else { String::new() };
    Ok(context.printer.line(format_args!("service {name} ({manager}, {scope}){home} is {what}"))?)
}
