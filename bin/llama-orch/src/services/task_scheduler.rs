//! The Windows Task Scheduler: a task that starts the daemon, where NSSM is not at hand or one user is meant.
//!
//! The scheduler does not watch what it starts. At system scope it therefore tries again every few minutes (a daemon that
//! runs already refuses, which changes nothing); in a user's session that would flash a window each time.

use std::fmt::Write as _;
use std::path::PathBuf;

use super::plan::Encoding;
use super::{
    MARK, Plan, Presence, Scope, Service, Step, windows_command_line, windows_path, words, xml_text,
};

/// The account of the system itself.
const LOCAL_SYSTEM: &str = "S-1-5-18";
const TRY_AGAIN: &str = "PT5M";

fn description_file(service: &Service) -> PathBuf {
    PathBuf::from(windows_path(&service.home, &["run", &format!("{}.task.xml", service.name)]))
}

pub(super) fn presence(service: &Service) -> Presence {
    let question = words(&["schtasks", "/query", "/tn", &service.name, "/xml"]);
    Presence::Answer { proof: question.clone(), question, words: MARK }
}

pub(super) fn installation(service: &Service) -> Plan {
    let file = description_file(service);
    let mut steps = vec![
        Step::Write { path: file.clone(), text: task_text(service), encoding: Encoding::Utf16 },
        Step::Run(words(&["schtasks", "/create", "/tn", &service.name, "/xml", &file.display().to_string()])),
        Step::Remove { path: file.clone() },
    ];
    let mut notes = Vec::new();
    if service.scope == Scope::User {
        notes.push(
            "it starts the daemon when you log in; one that crashes later waits for the next login"
                .to_owned(),
        );
    }
    if service.daemon_lives {
        notes.push("a daemon of this home runs already and was left alone".to_owned());
    } else {
        steps.push(Step::Run(words(&["schtasks", "/run", "/tn", &service.name])));
    }
    let undo = vec![
        Step::Try(words(&["schtasks", "/delete", "/tn", &service.name, "/f"])),
        Step::Remove { path: file },
    ];
    Plan { steps, undo, notes }
}

pub(super) fn removal(service: &Service) -> Plan {
    Plan {
        steps: vec![Step::Run(words(&["schtasks", "/delete", "/tn", &service.name, "/f"]))],
        notes: vec!["a daemon that runs is left alone; to stop it: llama-orch daemon stop".to_owned()],
        ..Plan::default()
    }
}

/// The description of the task, in the order that the scheduler's schema asks for.
pub(super) fn task_text(service: &Service) -> String {
    let command = service.background();
    let (program, arguments) = command.split_first().expect("a command line begins with its program");
    let mut text = format!(
        "<?xml version=\"1.0\" encoding=\"UTF-16\"?>\n\
         <Task version=\"1.2\" xmlns=\"http://schemas.microsoft.com/windows/2004/02/mit/task\">\n\
         \x20 <RegistrationInfo>\n    <Description>{MARK}</Description>\n  </RegistrationInfo>\n"
    );
    text.push_str(&triggers(service));
    text.push_str(&principal(service));
    let _ = write!(
        text,
        "  <Settings>\n    \
         <MultipleInstancesPolicy>IgnoreNew</MultipleInstancesPolicy>\n    \
         <DisallowStartIfOnBatteries>false</DisallowStartIfOnBatteries>\n    \
         <StopIfGoingOnBatteries>false</StopIfGoingOnBatteries>\n    \
         <StartWhenAvailable>true</StartWhenAvailable>\n    \
         <ExecutionTimeLimit>PT0S</ExecutionTimeLimit>\n    \
         <Priority>5</Priority>\n  \
         </Settings>\n  <Actions Context=\"Daemon\">\n    <Exec>\n      \
         <Command>{}</Command>\n      <Arguments>{}</Arguments>\n      \
         <WorkingDirectory>{}</WorkingDirectory>\n    </Exec>\n  </Actions>\n</Task>\n",
        xml_text(program),
        xml_text(&windows_command_line(arguments)),
        xml_text(&service.home),
    );
    text
}

fn triggers(service: &Service) -> String {
    let trigger = match (service.scope, &service.run_as) {
        (Scope::System, _) => format!(
            "    <BootTrigger>\n      <Repetition>\n        <Interval>{TRY_AGAIN}</Interval>\n      \
             </Repetition>\n    </BootTrigger>\n"
        ),
        (Scope::User, Some(user)) => {
            format!("    <LogonTrigger>\n      <UserId>{}</UserId>\n    </LogonTrigger>\n", xml_text(user))
        }
        (Scope::User, None) => "    <LogonTrigger />\n".to_owned(),
    };
    format!("  <Triggers>\n{trigger}  </Triggers>\n")
}

fn principal(service: &Service) -> String {
    let who = match (service.scope, &service.run_as) {
        (Scope::System, _) => {
            format!("      <UserId>{LOCAL_SYSTEM}</UserId>\n      <RunLevel>HighestAvailable</RunLevel>\n")
        }
        (Scope::User, user) => {
            let user = user
                .as_ref()
                .map_or(String::new(), |user| format!("      <UserId>{}</UserId>\n", xml_text(user)));
            format!(
                "{user}      <LogonType>InteractiveToken</LogonType>\n      \
                 <RunLevel>LeastPrivilege</RunLevel>\n"
            )
        }
    };
    format!("  <Principals>\n    <Principal id=\"Daemon\">\n{who}    </Principal>\n  </Principals>\n")
}
