//! Every system's files and steps, on every system; and what is told when something is in the way.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use orch_core::{ExitCode, Failure};

use super::install::{Answer, Machine, carry_out, check_free, check_ours, check_removal};
use super::*;

const MANAGERS: [Manager; 4] = [Manager::Systemd, Manager::Launchd, Manager::Nssm, Manager::TaskScheduler];

fn service(manager: Manager, scope: Scope) -> Service {
    let on_windows = matches!(manager, Manager::Nssm | Manager::TaskScheduler);
    let (executable, home, path) = if on_windows {
        (
            r"C:\Program Files\llama-orch\llama-orch.exe",
            r"C:\Users\ada\AppData\Local\llama-orch",
            r"C:\Windows",
        )
    } else {
        ("/usr/local/bin/llama-orch", "/home/ada/.local/share/llama-orch", "/usr/local/bin:/usr/bin")
    };
    Service {
        name: "llama-orch".to_owned(),
        scope,
        executable: executable.to_owned(),
        home: home.to_owned(),
        environment: vec![("PATH".to_owned(), path.to_owned())],
        run_as: Some(if on_windows { r"DESK\ada" } else { "ada" }.to_owned()),
        user_folder: PathBuf::from(if manager == Manager::Launchd {
            "/home/ada/Library"
        } else {
            "/home/ada/.config"
        }),
        user_id: 501,
        daemon_lives: false,
    }
}

/// Names that break whoever forgets to quote.
fn hostile(manager: Manager, scope: Scope) -> Service {
    let usual = service(manager, scope);
    let nasty = "a b%h $HOME ${X} 'q' \"d\" ü &amp; <x> ; #é\\n";
    let (home, executable) = match manager {
        Manager::Systemd | Manager::Launchd => (format!("/srv/{nasty}"), format!("/opt/{nasty}/llama-orch")),
        Manager::Nssm | Manager::TaskScheduler => {
            (r"D:\Größe & <co> 100%\it's\".to_owned(), r"D:\a b\llama-orch.exe".to_owned())
        }
    };
    Service {
        executable,
        home,
        environment: vec![("PATH".to_owned(), "/a b:/%i:/$x:/\"y\"".to_owned())],
        ..usual
    }
}

fn rendered(manager: Manager, service: &Service) -> String {
    let (up, down) = (installation(manager, service), removal(manager, service));
    format!("--- install\n{}--- uninstall\n{}--- notes\n{}\n", up.told(), down.told(), up.notes.join("\n"))
}

#[test]
fn every_manager_has_its_files_and_steps() {
    for manager in MANAGERS {
        for scope in [Scope::System, Scope::User] {
            if (manager, scope) == (Manager::Nssm, Scope::User) {
                continue;
            }
            let name = format!("{}_{}", manager.label().replace(' ', "_"), scope.label());
            insta::assert_snapshot!(name.as_str(), rendered(manager, &service(manager, scope)));
            let name = format!("{name}_hostile");
            insta::assert_snapshot!(name.as_str(), rendered(manager, &hostile(manager, scope)));
        }
    }
}

#[test]
fn a_daemon_that_runs_already_is_never_started_twice() {
    for manager in MANAGERS {
        let service = Service { daemon_lives: true, ..service(manager, Scope::System) };
        let told = installation(manager, &service).told();
        for start in ["start llama-orch", "bootstrap", "/run"] {
            assert!(!told.contains(start), "{told}");
        }
        assert!(installation(manager, &service).notes.iter().any(|note| note.contains("was left alone")));
    }
}

#[test]
fn engines_survive_whatever_stops_the_daemon() {
    let told = |manager| installation(manager, &service(manager, Scope::System)).told();
    assert!(told(Manager::Systemd).contains("\n    KillMode=process\n"));
    assert!(told(Manager::Systemd).contains("\n    OOMPolicy=continue\n"));
    assert!(told(Manager::Launchd).contains("<key>AbandonProcessGroup</key>\n      <true/>"));
    assert!(told(Manager::Nssm).contains("AppKillProcessTree 0"));
}

#[test]
fn nothing_in_a_unit_hides_graphics_cards_from_engines() {
    let told = installation(Manager::Systemd, &service(Manager::Systemd, Scope::System)).told();
    for option in [
        "NoNewPrivileges",
        "PrivateDevices",
        "DeviceAllow",
        "PrivateTmp",
        "SystemCallFilter",
        "MemoryDenyWriteExecute",
    ] {
        assert!(!told.contains(option), "{option} in {told}");
    }
}

#[test]
fn a_home_where_the_system_lies_can_still_be_written_to() {
    let unit = |home: &str| {
        let usual = service(Manager::Systemd, Scope::System);
        systemd::unit_text(&Service { home: home.to_owned(), ..usual })
    };
    assert!(unit("/srv/llama").contains("ProtectSystem=full"));
    assert!(unit("/usrlocal").contains("ProtectSystem=full"));
    for home in ["/usr/local/llama", "/etc/llama", "/boot"] {
        assert!(!unit(home).contains("ProtectSystem"), "{home}");
    }
}

#[test]
fn property_lists_and_tasks_are_well_formed_whatever_the_paths_hold() {
    for (manager, text) in [
        (Manager::Launchd, launchd::property_list_text as fn(&Service) -> String),
        (Manager::TaskScheduler, task_scheduler::task_text),
    ] {
        let service = hostile(manager, Scope::System);
        let text = text(&service);
        let home: Vec<String> = contents(&text);
        assert!(
            home.iter().any(|it| it.contains(&service.home) || it.contains(&windows_quoted(&service.home))),
            "{home:?}"
        );
    }
}

/// The texts between tags, with every reference resolved; panics where the tags do not pair.
fn contents(xml: &str) -> Vec<String> {
    let (mut open, mut texts) = (Vec::new(), Vec::new());
    let mut rest = xml;
    while let Some(at) = rest.find('<') {
        let resolved = ["&lt;<", "&gt;>", "&quot;\"", "&#13;\r", "&amp;&"].iter().fold(
            rest[..at].to_owned(),
            |text, pair| {
                let (reference, character) = pair.split_at(pair.find(';').unwrap() + 1);
                text.replace(reference, character)
            },
        );
        texts.push(resolved);
        let end = at + rest[at..].find('>').expect("a tag ends");
        let tag = &rest[at + 1..end];
        rest = &rest[end + 1..];
        if tag.starts_with(['?', '!']) || tag.ends_with('/') {
            continue;
        }
        match tag.strip_prefix('/') {
            Some(name) => assert_eq!(open.pop(), Some(name.to_owned())),
            None => open.push(tag.split(' ').next().unwrap_or_default().to_owned()),
        }
    }
    assert!(open.is_empty(), "{open:?}");
    texts
}

/// Asks systemd itself; it tells of a program that is not there by the path that it has understood.
#[cfg(target_os = "linux")]
#[test]
fn systemd_understands_the_unit_and_the_paths_in_it() {
    if machine::on_path("systemd-analyze").is_none() {
        eprintln!("SKIPPED: systemd-analyze is not installed, nobody has verified the unit");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let program = folder.path().join("a b%h $HOME ${X} ü &amp; <x> ;/llama-orch");
    std::fs::create_dir(program.parent().unwrap()).unwrap();
    std::fs::copy("/bin/true", &program).unwrap();
    let missing = folder.path().join("%n $$ ü missing");
    let quotes = hostile(Manager::Systemd, Scope::System).executable;
    for scope in [Scope::System, Scope::User] {
        for (executable, complaint) in [
            (program.display().to_string(), None),
            (quotes.clone(), None),
            (missing.display().to_string(), Some(missing.display().to_string())),
        ] {
            let service = Service { executable, run_as: None, ..hostile(Manager::Systemd, scope) };
            let unit = folder.path().join("llama-orch.service");
            std::fs::write(&unit, systemd::unit_text(&service)).unwrap();
            let words = ["systemd-analyze", "verify", "--recursive-errors=no", unit.to_str().unwrap()];
            let words: Vec<&str> =
                words.into_iter().chain((scope == Scope::User).then_some("--user")).collect();
            let said = ask(&words, folder.path());
            match complaint {
                None => assert_eq!(said, "", "{}", systemd::unit_text(&service)),
                Some(path) => assert!(said.contains(&path), "{said}"),
            }
        }
    }
}

#[cfg(target_os = "linux")]
fn ask(words: &[&str], runtime_folder: &Path) -> String {
    let command = engine_process::ToolCommand {
        program: machine::on_path(words[0]).unwrap(),
        args: words[1..].iter().map(Into::into).collect(),
        // A user's manager wants one, and not every test run is a login.
        env: vec![("XDG_RUNTIME_DIR".into(), runtime_folder.into())],
        ..engine_process::ToolCommand::default()
    };
    let output = engine_process::run_tool(&command, std::time::Duration::from_mins(1), &mut |_| {}).unwrap();
    // Only what concerns the unit itself: systems differ in what else they have to say.
    output.stderr.lines().filter(|line| line.contains("llama-orch.service")).collect::<Vec<_>>().join("\n")
}

/// A machine that writes down what is done to it.
#[derive(Default)]
struct Rehearsal {
    files: RefCell<BTreeMap<PathBuf, Vec<u8>>>,
    ran: RefCell<Vec<String>>,
    /// Commands that hold one of these fail.
    failing: Vec<&'static str>,
    administrator: bool,
    denied: bool,
    answer: String,
}

impl Machine for Rehearsal {
    fn read(&self, file: &Path) -> io::Result<Vec<u8>> {
        self.files.borrow().get(file).cloned().ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn write(&self, file: &Path, bytes: &[u8]) -> io::Result<()> {
        if self.denied {
            return Err(io::ErrorKind::PermissionDenied.into());
        }
        self.files.borrow_mut().insert(file.to_owned(), bytes.to_owned());
        Ok(())
    }

    fn remove(&self, file: &Path) -> io::Result<()> {
        self.files.borrow_mut().remove(file).map(drop).ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn run(&self, words: &[String]) -> Result<Answer, String> {
        let line = words.join(" ");
        let succeeded = !self.failing.iter().any(|failing| line.contains(failing));
        self.ran.borrow_mut().push(line);
        let complaint = if succeeded { String::new() } else { "no such thing".to_owned() };
        Ok(Answer { succeeded, stdout: self.answer.clone(), complaint })
    }

    fn is_administrator(&self) -> bool {
        self.administrator
    }
}

/// The words with which each manager is asked whether the name is taken.
const QUESTIONS: [&str; 3] = ["systemctl cat", "sc query", "/query"];

fn install(machine: &Rehearsal, manager: Manager, service: &Service) -> Result<(), Failure> {
    check_free(machine, manager, service)?;
    carry_out(machine, &installation(manager, service))
}

fn uninstall(machine: &Rehearsal, manager: Manager, service: &Service) -> Result<(), Failure> {
    check_ours(machine, manager, service)?;
    check_removal(machine, service)?;
    carry_out(machine, &removal(manager, service))
}

#[test]
fn only_an_administrator_installs_for_the_system() {
    for manager in MANAGERS {
        let machine = Rehearsal { failing: QUESTIONS.to_vec(), ..Rehearsal::default() };
        let refused = install(&machine, manager, &service(manager, Scope::System)).unwrap_err();
        assert_eq!(refused.exit, ExitCode::PermissionDenied);
        assert!(refused.hint.unwrap().contains("--user"));
        assert!(machine.files.borrow().is_empty() && machine.ran.borrow().is_empty());
    }
    let machine = Rehearsal { failing: vec!["cat"], ..Rehearsal::default() };
    install(&machine, Manager::Systemd, &service(Manager::Systemd, Scope::User)).unwrap();
}

#[test]
fn what_is_installed_can_be_found_refused_and_removed() {
    for manager in MANAGERS {
        let service = service(manager, Scope::System);
        let absent = Rehearsal { failing: QUESTIONS.to_vec(), administrator: true, ..Rehearsal::default() };
        let refused = uninstall(&absent, manager, &service).unwrap_err();
        assert_eq!(refused.exit, ExitCode::General);
        assert!(refused.message.contains("there is no system service called llama-orch"), "{refused}");
        install(&absent, manager, &service).unwrap();

        // NSSM and the task scheduler answer; the others have the file.
        let answer = format!("<Description>{MARK}</Description> --home x daemon start --foreground");
        let present = Rehearsal { administrator: true, answer, ..Rehearsal::default() };
        present.files.replace(absent.files.take());
        let refused = install(&present, manager, &service).unwrap_err();
        assert_eq!(refused.exit, ExitCode::AlreadyExists);
        assert!(refused.hint.unwrap().contains("daemon uninstall --service-name llama-orch"));
        uninstall(&present, manager, &service).unwrap();
        assert!(present.files.borrow().is_empty(), "{manager:?}");
    }
}

#[test]
fn somebody_elses_service_is_never_removed() {
    for manager in MANAGERS {
        let service = service(manager, Scope::System);
        let machine = Rehearsal { administrator: true, answer: "theirs".to_owned(), ..Rehearsal::default() };
        if let Presence::File(file) | Presence::FileOrAnswer { file, .. } = presence(manager, &service) {
            machine.files.borrow_mut().insert(file, b"[Unit]".to_vec());
        }
        let refused = uninstall(&machine, manager, &service).unwrap_err();
        assert!(refused.message.contains("was not made by llama-orch"), "{refused}");
        let taken = install(&machine, manager, &service).unwrap_err();
        assert_eq!(taken.exit, ExitCode::AlreadyExists);
        assert!(!machine.ran.borrow().iter().any(|line| line.contains("delete") || line.contains("remove")));
    }
}

#[test]
fn an_installation_that_fails_leaves_nothing() {
    for (manager, failing) in [
        (Manager::Systemd, "systemctl start"),
        (Manager::Launchd, "bootstrap"),
        (Manager::Nssm, "nssm start"),
        (Manager::TaskScheduler, "/create"),
    ] {
        let failing = QUESTIONS.into_iter().chain([failing]).collect();
        let machine = Rehearsal { failing, administrator: true, ..Rehearsal::default() };
        let failure = install(&machine, manager, &service(manager, Scope::System)).unwrap_err();
        assert!(failure.message.contains("no such thing"), "{failure}");
        assert!(machine.files.borrow().is_empty(), "{manager:?}");
        let ran = machine.ran.borrow();
        let undone = ["disable", "remove llama-orch confirm", "/delete"];
        assert!(
            manager == Manager::Launchd || ran.iter().any(|line| undone.iter().any(|it| line.contains(it))),
            "{ran:?}"
        );
    }
    let machine = Rehearsal { failing: vec!["cat"], denied: true, ..Rehearsal::default() };
    let failure = install(&machine, Manager::Systemd, &service(Manager::Systemd, Scope::User)).unwrap_err();
    assert_eq!(failure.exit, ExitCode::PermissionDenied);
}

#[test]
fn a_name_is_one_that_every_manager_takes() {
    for good in ["llama-orch", "a", "Llama_2.0"] {
        assert!(check_name(good).is_ok(), "{good}");
    }
    let long = "x".repeat(65);
    for bad in ["", "-x", "../x", "a b", "a/b", "a@b", "ü", "x\n", long.as_str()] {
        assert_eq!(check_name(bad).unwrap_err().exit, ExitCode::Usage, "{bad}");
    }
}

#[test]
fn each_system_has_its_manager() {
    let has = |program: &'static str| move |asked: &str| asked == program;
    assert_eq!(choose_manager("linux", Scope::User, has("systemctl")), Some(Manager::Systemd));
    assert_eq!(choose_manager("linux", Scope::User, has("none")), None);
    assert_eq!(choose_manager("macos", Scope::System, has("none")), Some(Manager::Launchd));
    assert_eq!(choose_manager("windows", Scope::System, has("nssm")), Some(Manager::Nssm));
    assert_eq!(choose_manager("windows", Scope::User, has("nssm")), Some(Manager::TaskScheduler));
    assert_eq!(choose_manager("windows", Scope::System, has("none")), Some(Manager::TaskScheduler));
    assert_eq!(choose_manager("plan9", Scope::System, has("rc")), None);
}

#[test]
fn paths_are_written_as_service_tools_take_them() {
    for (path, text) in [
        (r"\\?\C:\Users\ada", r"C:\Users\ada"),
        (r"\\?\UNC\host\share", r"\\?\UNC\host\share"),
        ("/home/ada", "/home/ada"),
    ] {
        assert_eq!(text_of(Path::new(path)).unwrap(), text);
    }
}

#[test]
fn text_for_the_task_scheduler_is_marked_as_utf_16() {
    assert_eq!(Step::bytes("<ü", plan::Encoding::Utf16), [0xff, 0xfe, 0x3c, 0, 0xfc, 0]);
}
