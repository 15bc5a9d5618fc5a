//! A throw-away home on the Windows machine, and the commands that are given in it.

use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use testkit::{ProgramRun, TempHome, free_port};

use super::processes::Process;
use super::wine::{Wine, windows_path};

/// Every home has a blank and an umlaut in its path: many users' folders do.
const HOME_NAME: &str = "Jörgs Modelle";

/// A process that has ended for Windows may still be taken apart by Linux.
const LAST_MOMENTS: Duration = Duration::from_secs(3);

/// One home, one model, one address for its daemon; the engine is the fake one.
pub(super) struct Scene<'a> {
    wine: &'a Wine,
    /// Only the folder beside the home is used: the home of a scene lies in it.
    folder: TempHome,
    home: PathBuf,
    address: String,
}

impl<'a> Scene<'a> {
    pub(super) fn new(wine: &'a Wine) -> Self {
        let folder = TempHome::new();
        let home = folder.scratch().join(HOME_NAME);
        folder.tiny_model();
        Self { wine, folder, home, address: format!("127.0.0.1:{}", free_port()) }
    }

    /// The folder around the home, which is the working folder of commands.
    pub(super) fn folder(&self) -> &Path {
        self.folder.scratch()
    }

    /// A path of the home.
    pub(super) fn path(&self, inside: &str) -> PathBuf {
        if inside.is_empty() { self.home.clone() } else { self.home.join(inside) }
    }

    /// Where the gateway listens.
    pub(super) fn address(&self) -> &str {
        &self.address
    }

    /// `llama-orch.exe` with this home chosen.
    pub(super) fn command(&self, arguments: &[&str]) -> Command {
        self.command_of("llama-orch", arguments)
    }

    fn command_of(&self, program: &str, arguments: &[&str]) -> Command {
        let mut command = self.wine.command(self.wine.programs().path(program));
        command
            .args(arguments)
            .current_dir(self.folder())
            .env("LLAMA_ORCH_HOME", windows_path(&self.home))
            .env("LLAMA_SERVER", windows_path(&self.wine.programs().path("fake-llama-server")))
            .env("ORCHESTRATORD_ADDR", &self.address)
            .env("POOL_MANAGERD_ADDR", "127.0.0.1:0")
            .env("NO_COLOR", "1");
        command
    }

    /// Runs a command to its end, whatever its exit code.
    pub(super) fn run(&self, arguments: &[&str]) -> ProgramRun {
        testkit::run(self.command(arguments))
    }

    /// Runs a command that has to succeed.
    #[track_caller]
    pub(super) fn ok(&self, arguments: &[&str]) -> ProgramRun {
        let run = self.run(arguments);
        run.expect_exit(0);
        run
    }

    /// The JSON document of a command that has to succeed.
    #[track_caller]
    pub(super) fn json(&self, arguments: &[&str]) -> Value {
        self.ok(&[arguments, &["--json"]].concat()).json()
    }

    /// Starts a command and lets it run; [`Wine::end_all_programs`] ends it with the scenario.
    pub(super) fn spawn(&self, arguments: &[&str], output: &Path) -> Child {
        self.spawn_program("llama-orch", arguments, output)
    }

    pub(super) fn spawn_program(&self, program: &str, arguments: &[&str], output: &Path) -> Child {
        let file = std::fs::File::create(output).expect("the scene's folder is writable");
        let mut command = self.command_of(program, arguments);
        command.stderr(file.try_clone().expect("an open file can be cloned")).stdout(file);
        command.spawn().expect("wine starts")
    }

    /// Runs commands side by side; the results are in their order.
    pub(super) fn run_together(&self, commands: &[Vec<&str>]) -> Vec<ProgramRun> {
        std::thread::scope(|scope| {
            let runs: Vec<_> = commands.iter().map(|arguments| scope.spawn(|| self.run(arguments))).collect();
            runs.into_iter().map(|run| run.join().expect("a run ends within its limit")).collect()
        })
    }

    /// Writes an instance with knobs for the fake engine, and returns its port.
    pub(super) fn instance(&self, name: &str, knobs: &[(&str, &str)], changes: &Value) -> u16 {
        let port = free_port();
        let knobs: serde_json::Map<String, Value> =
            knobs.iter().map(|(knob, value)| ((*knob).to_owned(), json!(value))).collect();
        let mut config = json!({
            "name": name,
            "model": {"path": windows_path(&self.folder.tiny_model()), "context_size": 2048, "threads": 1},
            "server": {"port": port},
            "env": knobs,
        });
        for (section, change) in changes.as_object().into_iter().flatten() {
            config[section] = change.clone();
        }
        self.write_config(name, config.to_string().as_bytes());
        port
    }

    /// Writes `instances/<folder>/config.json` as it stands.
    pub(super) fn write_config(&self, folder: &str, content: &[u8]) {
        let folder = self.path("instances").join(folder);
        std::fs::create_dir_all(&folder).expect("the scene's folder is writable");
        std::fs::write(folder.join("config.json"), content).expect("the scene's folder is writable");
    }

    /// A text file of the home; empty when it is not there.
    pub(super) fn text(&self, inside: &str) -> String {
        String::from_utf8_lossy(&std::fs::read(self.path(inside)).unwrap_or_default()).into_owned()
    }

    /// The row of one instance in `ps --json`.
    #[track_caller]
    pub(super) fn row(&self, name: &str) -> Value {
        let rows = self.json(&["ps", "--all"]);
        let found = rows.as_array().and_then(|rows| rows.iter().find(|row| row["name"] == name));
        found.unwrap_or_else(|| panic!("no {name} in {rows}")).clone()
    }

    /// The daemon's pid, as Windows counts, from its file.
    #[track_caller]
    pub(super) fn daemon_pid(&self) -> u64 {
        let file: Value =
            serde_json::from_str(&self.text("run/daemon.json")).expect("the daemon's file is JSON");
        file["pid"].as_u64().expect("the daemon's file has its pid")
    }

    /// Ends a process as the Task Manager does.
    pub(super) fn task_kill(&self, pid: u64) {
        let mut command = self.wine.command("taskkill");
        command.args(["/F", "/PID", &pid.to_string()]);
        testkit::run(command).expect_exit(0);
    }

    /// The living processes whose command line holds all the words.
    pub(super) fn processes(&self, words: &[&str]) -> Vec<Process> {
        let all = self.wine.processes();
        all.into_iter()
            .filter(|process| words.iter().all(|word| process.command_line.contains(word)))
            .collect()
    }

    /// Every file of the home with its content, but for what SQLite puts beside its database.
    pub(super) fn picture(&self) -> Vec<(PathBuf, Vec<u8>)> {
        let mut files = Vec::new();
        let mut open = vec![self.home.clone()];
        while let Some(folder) = open.pop() {
            for entry in std::fs::read_dir(&folder).into_iter().flatten().flatten() {
                let (path, name) = (entry.path(), entry.file_name());
                let name = name.to_string_lossy();
                if path.is_dir() {
                    files.push((path.clone(), Vec::new()));
                    open.push(path);
                } else if !name.ends_with("-wal") && !name.ends_with("-shm") {
                    let content = std::fs::read(&path).expect("a file of the home can be read");
                    files.push((path, content));
                }
            }
        }
        files.sort();
        files
    }

    /// A program as Linux sees its file.
    pub(super) fn program(&self, name: &str) -> PathBuf {
        self.wine.programs().path(name)
    }

    /// The same, as Windows programs know it.
    pub(super) fn program_path(&self, name: &str) -> String {
        windows_path(&self.program(name))
    }

    /// The path of a file beside the home, as Windows programs know it.
    pub(super) fn windows_path(&self, name: &str) -> String {
        windows_path(&self.folder().join(name))
    }

    /// How often an engine was started that writes its start log to `starts`.
    pub(super) fn starts(&self) -> usize {
        let log = std::fs::read_to_string(self.folder().join("starts"));
        log.unwrap_or_default().lines().count()
    }

    /// What is still ending has a moment for it.
    #[track_caller]
    pub(super) fn assert_nothing_runs(&self) {
        let begin = Instant::now();
        while !self.wine.processes().is_empty() && begin.elapsed() < LAST_MOMENTS {
            std::thread::sleep(Duration::from_millis(10));
        }
        let left = self.wine.processes();
        assert!(left.is_empty(), "still running: {left:?}");
    }
}
