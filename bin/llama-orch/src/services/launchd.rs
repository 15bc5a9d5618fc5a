//! launchd: one property list, for the system (a daemon) or for a user (an agent).

use std::fmt::Write as _;
use std::path::PathBuf;

use super::plan::Encoding;
use super::{MARK, Plan, Scope, Service, Step, note_on_account, words, xml_text};

const SYSTEM_FOLDER: &str = "/Library/LaunchDaemons";

pub(super) fn property_list(service: &Service) -> PathBuf {
    let folder = match service.scope {
        Scope::System => PathBuf::from(SYSTEM_FOLDER),
        Scope::User => service.user_folder.join("LaunchAgents"),
    };
    folder.join(format!("{}.plist", service.name))
}

/// Where launchd keeps it: the system, or the session of a user.
fn domain(service: &Service) -> String {
    match service.scope {
        Scope::System => "system".to_owned(),
        Scope::User => format!("gui/{}", service.user_id),
    }
}

pub(super) fn installation(service: &Service) -> Plan {
    let path = property_list(service);
    let shown = path.display().to_string();
    let mut steps =
        vec![Step::Write { path: path.clone(), text: property_list_text(service), encoding: Encoding::Utf8 }];
    let mut notes: Vec<String> = note_on_account(service).into_iter().collect();
    let bootstrap = words(&["launchctl", "bootstrap", &domain(service), &shown]);
    if service.daemon_lives {
        notes.push(format!(
            "a daemon of this home runs already and was left alone; the service begins with the next login or start of \
             the machine, or now with: llama-orch daemon stop, then {}",
            bootstrap.join(" ")
        ));
    } else {
        steps.push(Step::Run(bootstrap));
    }
    Plan { steps, undo: vec![Step::Remove { path }], notes }
}

pub(super) fn removal(service: &Service) -> Plan {
    let target = format!("{}/{}", domain(service), service.name);
    Plan {
        steps: vec![
            // It may have been written, and never begun.
            Step::Try(words(&["launchctl", "bootout", &target])),
            Step::Remove { path: property_list(service) },
        ],
        ..Plan::default()
    }
}

/// The property list.
pub(super) fn property_list_text(service: &Service) -> String {
    let mut text = format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n\
         <!DOCTYPE plist PUBLIC \"-//Apple//DTD PLIST 1.0//EN\" \
         \"http://www.apple.com/DTDs/PropertyList-1.0.dtd\">\n\
         <!-- {MARK} -->\n<plist version=\"1.0\">\n<dict>\n"
    );
    string(&mut text, "Label", &service.name);
    text.push_str("  <key>ProgramArguments</key>\n  <array>\n");
    for word in service.foreground() {
        let _ = writeln!(text, "    <string>{}</string>", xml_text(word));
    }
    text.push_str("  </array>\n  <key>EnvironmentVariables</key>\n  <dict>\n");
    for (name, value) in service.variables() {
        let _ = writeln!(text, "    <key>{}</key>\n    <string>{}</string>", xml_text(name), xml_text(value));
    }
    text.push_str("  </dict>\n");
    if let (Scope::System, Some(user)) = (service.scope, &service.run_as) {
        string(&mut text, "UserName", user);
    }
    let log = format!("{}/logs/daemon.log", service.home.trim_end_matches('/'));
    string(&mut text, "StandardOutPath", &log);
    string(&mut text, "StandardErrorPath", &log);
    text.push_str(
        "  <key>RunAtLoad</key>\n  <true/>\n  \
         <key>KeepAlive</key>\n  <dict>\n    <key>SuccessfulExit</key>\n    <false/>\n  </dict>\n  \
         <!-- Engines belong to their own keepers, and stay when the daemon ends. -->\n  \
         <key>AbandonProcessGroup</key>\n  <true/>\n  \
         <key>ExitTimeOut</key>\n  <integer>15</integer>\n  \
         <!-- 0077: files of the daemon are for its user alone. -->\n  \
         <key>Umask</key>\n  <integer>63</integer>\n  \
         <!-- Models are waited for: no throttling. -->\n  \
         <key>ProcessType</key>\n  <string>Interactive</string>\n</dict>\n</plist>\n",
    );
    text
}

fn string(text: &mut String, key: &str, value: &str) {
    let _ = writeln!(text, "  <key>{key}</key>\n  <string>{}</string>", xml_text(value));
}
