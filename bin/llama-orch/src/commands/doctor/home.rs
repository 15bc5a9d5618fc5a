//! The home: which, why, whose, how full, and whether what is written in it makes sense.

use std::path::Path;

use instance_config::{Catalog, Severity as Weight, lint};
use orch_core::{ByteCount, HomeLayout};
use orchestratord::daemon::load_settings;

use super::Diagnosis;
use crate::commands::config::facts::Facts;
use crate::context::Context;
use crate::daemon_control::options;
use crate::words::command_line;

/// A start is refused below this.
const LEAST_SPACE: ByteCount = ByteCount::from_mib(100);
/// Logs and a small model fill this soon.
const LITTLE_SPACE: ByteCount = ByteCount::from_mib(2048);

pub(super) fn check(context: &Context) -> Vec<Diagnosis> {
    let Ok(home) = context.home() else { return Vec::new() };
    let root = home.root().display();
    let mut found = Vec::new();
    if home.root().is_dir() {
        found.push(Diagnosis::ok("home", format!("{root}, chosen by {}", context.home_source())));
        found.extend(permissions(home));
    } else if home.root().exists() {
        found.push(
            Diagnosis::error("home", format!("{root} is not a folder")).mend("choose another with --home"),
        );
        return found;
    } else {
        let message = format!("there is nothing at {root} yet (chosen by {})", context.home_source());
        found.push(
            Diagnosis::info("home", message)
                .mend("begin with: llama-orch quickstart, or llama-orch init NAME --model FILE"),
        );
    }
    found.push(disk(home));
    found.push(match load_settings(&options(home, None)) {
        Ok(_) if home.settings().exists() => {
            Diagnosis::ok("settings", format!("{} can be read", home.settings().display()))
        }
        Ok(_) => Diagnosis::ok("settings", "no config.toml: all settings have their defaults"),
        Err(failure) => Diagnosis::of("settings", &failure),
    });
    found.extend(configs(context, home));
    found
}

/// Folders that may hold prompts or keys.
fn private_folders(home: &HomeLayout) -> [std::path::PathBuf; 6] {
    let root = home.root();
    [root.to_owned(), home.state(), home.run(), home.logs(), root.join("runs"), root.join("cache")]
}

fn permissions(home: &HomeLayout) -> Vec<Diagnosis> {
    let mut found = Vec::new();
    let folders = private_folders(home).into_iter().chain([home.instances()]);
    for folder in folders.filter(|folder| folder.is_dir()) {
        if !engine_process::may_write(&folder) {
            let owner = engine_process::owner_of(&folder)
                .map_or(String::new(), |owner| format!(", it belongs to {owner}"));
            let message = format!("{} cannot be written to{owner}", folder.display());
            found.push(
                Diagnosis::error("home", message)
                    .mend("take it over (chown), run this as its owner, or choose another home with --home"),
            );
        }
    }
    for folder in private_folders(home).iter().filter(|folder| is_open_to_others(folder)) {
        let message = format!("{} is open to other users and may hold prompts or keys", folder.display());
        let close = command_line(&["chmod", "go-rwx", &folder.display().to_string()]);
        found.push(Diagnosis::warning("home", message).mend(close));
    }
    found
}

#[cfg(unix)]
fn is_open_to_others(folder: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    folder.metadata().is_ok_and(|metadata| metadata.permissions().mode() & 0o077 != 0)
}

/// Folders inherit their access from the profile folder there.
#[cfg(not(unix))]
fn is_open_to_others(_: &Path) -> bool {
    false
}

fn disk(home: &HomeLayout) -> Diagnosis {
    let existing = home.root().ancestors().find(|folder| folder.is_dir());
    let Some(free) = existing.and_then(engine_process::free_space) else {
        return Diagnosis::info("disk", "the system does not tell how much space is free");
    };
    let message = format!("{free} are free");
    let mend = "make room; llama-orch logs clean removes old logs, llama-orch engine remove old engines";
    match free {
        free if free < LEAST_SPACE => {
            Diagnosis::error("disk", format!("only {message}: nothing is started below {LEAST_SPACE}"))
                .mend(mend)
        }
        free if free < LITTLE_SPACE => Diagnosis::warning("disk", format!("only {message}")).mend(mend),
        _ => Diagnosis::ok("disk", message),
    }
}

fn configs(context: &Context, home: &HomeLayout) -> Vec<Diagnosis> {
    let catalog = match context.catalog() {
        Ok(catalog) => catalog,
        Err(failure) => return vec![Diagnosis::of("configs", &failure)],
    };
    let mut found = vec![summary(&catalog, home)];
    found.extend(ports(context, &catalog));
    found
}

fn summary(catalog: &Catalog, home: &HomeLayout) -> Diagnosis {
    let report = lint(catalog, &Facts::new(home).for_lint());
    let count = |weight| report.findings.iter().filter(|finding| finding.severity == weight).count();
    let (errors, warnings) = (count(Weight::Error), count(Weight::Warning));
    let instances = catalog.instances.len() + catalog.broken.len();
    let message = format!("instances: {instances}, errors: {errors}, warnings: {warnings}");
    match (errors, warnings) {
        (0, 0) => Diagnosis::ok("configs", message),
        (0, _) => Diagnosis::warning("configs", message).mend("see llama-orch config lint"),
        _ => Diagnosis::error("configs", message).mend("see llama-orch config lint"),
    }
}

/// Ports of stopped instances that somebody else has.
fn ports(context: &Context, catalog: &Catalog) -> Vec<Diagnosis> {
    // What cannot be looked up here is told by the check of the database.
    let rows = context.look(|viewer| viewer.instances(catalog)).unwrap_or_default();
    let stopped = rows.iter().filter(|row| row.pid.is_none() && row.port != 0);
    let taken: Vec<Diagnosis> = stopped
        .filter(|row| !engine_process::is_free(&row.host, row.port))
        .map(|row| {
            let who = super::daemon::holder_words(row.port);
            let message = format!("port {} of {} is {who}", row.port, row.name);
            let change = format!("llama-orch config set {} server.port=0", row.name);
            Diagnosis::warning("ports", message).mend(format!("end that program, or: {change}"))
        })
        .collect();
    if taken.is_empty() && !rows.is_empty() {
        return vec![Diagnosis::ok("ports", "no port of an instance is taken by somebody else")];
    }
    taken
}
