//! systemd: one unit file, for the system or for a user.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use super::plan::Encoding;
use super::{MARK, Plan, Presence, Scope, Service, Step, note_on_account, words};

const SYSTEM_FOLDER: &str = "/etc/systemd/system";
/// Folders that `ProtectSystem=full` closes to writing.
const PROTECTED: [&str; 4] = ["/usr", "/boot", "/efi", "/etc"];

fn file(service: &Service) -> PathBuf {
    let folder = match service.scope {
        Scope::System => PathBuf::from(SYSTEM_FOLDER),
        Scope::User => service.user_folder.join("systemd/user"),
    };
    folder.join(unit_name(service))
}

fn unit_name(service: &Service) -> String {
    format!("{}.service", service.name)
}

fn systemctl(service: &Service, arguments: &[&str]) -> Vec<String> {
    let mut all = vec!["systemctl"];
    if service.scope == Scope::User {
        all.push("--user");
    }
    all.extend(arguments);
    words(&all)
}

pub(super) fn presence(service: &Service) -> Presence {
    Presence::FileOrAnswer {
        file: file(service),
        question: systemctl(service, &["cat", &unit_name(service)]),
    }
}

pub(super) fn installation(service: &Service) -> Plan {
    let (file, unit) = (file(service), unit_name(service));
    let mut steps = vec![
        Step::Write { path: file.clone(), text: unit_text(service), encoding: Encoding::Utf8 },
        Step::Run(systemctl(service, &["daemon-reload"])),
        Step::Run(systemctl(service, &["enable", &unit])),
    ];
    if !service.daemon_lives {
        steps.push(Step::Run(systemctl(service, &["start", &unit])));
    }
    let undo = vec![
        Step::Try(systemctl(service, &["disable", &unit])),
        Step::Remove { path: file },
        Step::Try(systemctl(service, &["daemon-reload"])),
    ];
    Plan { steps, undo, notes: notes(service) }
}

fn notes(service: &Service) -> Vec<String> {
    let mut notes: Vec<String> = note_on_account(service).into_iter().collect();
    if service.scope == Scope::User {
        notes.push("it ends when you log out, unless you keep it: loginctl enable-linger".to_owned());
    }
    if service.daemon_lives {
        let start = systemctl(service, &["start", &unit_name(service)]).join(" ");
        notes.push(format!(
            "a daemon of this home runs already and was left alone; to change over: llama-orch daemon stop, then {start}"
        ));
    }
    notes
}

pub(super) fn removal(service: &Service) -> Plan {
    let unit = unit_name(service);
    Plan {
        steps: vec![
            Step::Run(systemctl(service, &["disable", &unit])),
            Step::Run(systemctl(service, &["stop", &unit])),
            Step::Remove { path: file(service) },
            Step::Run(systemctl(service, &["daemon-reload"])),
            Step::Try(systemctl(service, &["reset-failed", &unit])),
        ],
        ..Plan::default()
    }
}

/// The unit file. Options that filter system calls are left out on purpose: each of them implies `NoNewPrivileges`, with
/// which NVIDIA's library can no longer make its device files; `PrivateTmp`, `DeviceAllow` and the like hide sockets and
/// devices of graphics cards.
pub(super) fn unit_text(service: &Service) -> String {
    let mut text =
        format!("# {MARK}\n[Unit]\nDescription=llama-orch: llama.cpp servers and one API in front of them\n");
    if service.scope == Scope::System {
        text.push_str("Wants=network-online.target\nAfter=network-online.target\n");
    }
    let _ = writeln!(text, "\n[Service]\nType=exec\nExecStart={}", command(&service.foreground()));
    for (name, value) in service.variables() {
        let _ = writeln!(text, "Environment={}", quoted(&format!("{name}={value}"), Dollar::Plain));
    }
    if let (Scope::System, Some(user)) = (service.scope, &service.run_as) {
        let _ = writeln!(text, "User={user}");
    }
    text.push_str(
        "\n# Engines belong to their own keepers: a stop, a restart or an upgrade of the daemon leaves them running,\n\
         # and so does one engine that runs out of memory.\n\
         KillMode=process\nOOMPolicy=continue\nTimeoutStopSec=15\n\
         \n# Not again after a usage error (2), without permission (5), or beside a daemon that runs already (61).\n\
         Restart=on-failure\nRestartSec=2\nRestartPreventExitStatus=2 5 61\n\
         \nUMask=0077\nLimitNOFILE=65536\nTasksMax=infinity\n",
    );
    if service.scope == Scope::System {
        text.push_str("LimitMEMLOCK=infinity\nProtectControlGroups=yes\n");
        if !PROTECTED.iter().any(|folder| Path::new(&service.home).starts_with(folder)) {
            text.push_str("ProtectSystem=full\n");
        }
    }
    let wanted_by = match service.scope {
        Scope::System => "multi-user.target",
        Scope::User => "default.target",
    };
    let _ = writeln!(text, "\n[Install]\nWantedBy={wanted_by}");
    text
}

/// A command line. systemd takes no program whose path has quotes or backslashes in it; a shell starts such a one.
fn command(all: &[&str]) -> String {
    let Some((program, arguments)) = all.split_first() else { return String::new() };
    let difficult = program.chars().any(|character| character.is_control() || "\"'\\".contains(character));
    let mut line = if difficult {
        let shell = ["/bin/sh", "-c", r#"exec "$0" "$@""#, program];
        shell.map(|word| quoted(word, Dollar::Doubled)).join(" ")
    } else {
        // Variables are not looked for in the program's own path.
        quoted(program, Dollar::Plain)
    };
    for argument in arguments {
        line.push(' ');
        line.push_str(&quoted(argument, Dollar::Doubled));
    }
    line
}

/// Whether a dollar begins a variable in this place, and has to be doubled to stand for itself.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Dollar {
    Plain,
    Doubled,
}

/// One word of a unit file, with what systemd would take for an escape, a specifier or a variable written out.
fn quoted(word: &str, dollar: Dollar) -> String {
    let plain = |character: char| character.is_ascii_alphanumeric() || "-_./:=,@+".contains(character);
    if !word.is_empty() && word.chars().all(plain) {
        return word.to_owned();
    }
    let mut text = String::from("\"");
    for character in word.chars() {
        match character {
            '\\' => text.push_str("\\\\"),
            '"' => text.push_str("\\\""),
            '%' => text.push_str("%%"),
            '$' if dollar == Dollar::Doubled => text.push_str("$$"),
            '\n' => text.push_str("\\n"),
            '\t' => text.push_str("\\t"),
            control if control.is_ascii_control() => {
                let _ = write!(text, "\\x{:02x}", u32::from(control));
            }
            other => text.push(other),
        }
    }
    text.push('"');
    text
}
