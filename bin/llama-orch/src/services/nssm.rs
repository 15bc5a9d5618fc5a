//! NSSM: a Windows service around the daemon, set up by its own command.

use super::{Plan, Presence, Service, Step, windows_command_line, windows_path, words};

/// Asked by Ctrl-C, a daemon takes this long at most for its requests in flight.
const STOP_MILLISECONDS: &str = "15000";

/// The service control manager tells whether there is one of the name, NSSM whether it is ours.
pub(super) fn presence(service: &Service) -> Presence {
    Presence::Answer {
        question: words(&["sc", "query", &service.name]),
        proof: words(&["nssm", "get", &service.name, "AppParameters"]),
        words: "daemon start --foreground",
    }
}

pub(super) fn installation(service: &Service) -> Plan {
    let log = windows_path(&service.home, &["logs", "daemon.log"]);
    let command = service.foreground();
    let (program, arguments) = command.split_first().expect("a command line begins with its program");
    let set = |key: &str, values: &[&str]| {
        let mut all = words(&["nssm", "set", &service.name, key]);
        all.extend(words(values));
        Step::Run(all)
    };
    let variables: Vec<String> = service.variables().map(|(name, value)| format!("{name}={value}")).collect();
    let variables: Vec<&str> = variables.iter().map(String::as_str).collect();
    let mut steps = vec![
        Step::Run(words(&["nssm", "install", &service.name, program])),
        set("AppParameters", &[&windows_command_line(arguments)]),
        set("AppDirectory", &[&service.home]),
        set("AppEnvironmentExtra", &variables),
        set("Description", &["llama-orch: llama.cpp servers and one API in front of them"]),
        set("AppStdout", &[&log]),
        set("AppStderr", &[&log]),
        // Engines belong to their own keepers, and stay when the daemon ends.
        set("AppKillProcessTree", &["0"]),
        set("AppStopMethodConsole", &[STOP_MILLISECONDS]),
        set("AppExit", &["Default", "Restart"]),
    ];
    // Ended on purpose, a usage error, no permission, or beside a daemon that runs already.
    steps.extend(["0", "2", "5", "61"].map(|code| set("AppExit", &[code, "Exit"])));
    steps.push(set("Start", &["SERVICE_AUTO_START"]));
    let start = words(&["nssm", "start", &service.name]);
    let mut notes = vec![format!(
        "it runs as LocalSystem; to have it run as you: nssm set {} ObjectName .\\USER PASSWORD",
        service.name
    )];
    if service.daemon_lives {
        notes.push(format!(
            "a daemon of this home runs already and was left alone; to change over: llama-orch daemon stop, then {}",
            start.join(" ")
        ));
    } else {
        steps.push(Step::Run(start));
    }
    let undo = vec![Step::Try(words(&["nssm", "remove", &service.name, "confirm"]))];
    Plan { steps, undo, notes }
}

pub(super) fn removal(service: &Service) -> Plan {
    Plan {
        steps: vec![
            // It may be stopped already.
            Step::Try(words(&["nssm", "stop", &service.name])),
            Step::Run(words(&["nssm", "remove", &service.name, "confirm"])),
        ],
        ..Plan::default()
    }
}
