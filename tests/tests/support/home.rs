//! A home, its instances, its commands and its daemon.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};

use serde_json::{Value, json};
use testkit::{
    ProgramRun, TempHome, TinyModel, fake_engine, free_port, real_llama_server, wait_for_value,
    write_tiny_model,
};

use super::SOON;

/// Room for a stream of a minute: the tiny model writes some hundred tokens a second.
const CONTEXT: u32 = 32_768;

/// A home whose commands find one engine: the real one, or the fake one where faults are needed.
pub(crate) struct Home {
    temp: TempHome,
    engine: PathBuf,
}

/// The living daemon of a home.
pub(crate) struct Daemon {
    pub(crate) pid: u32,
    /// `127.0.0.1:<port>`.
    pub(crate) address: String,
    pub(crate) token: String,
}

impl Home {
    pub(crate) fn real() -> Self {
        Self { temp: TempHome::new(), engine: real_llama_server() }
    }

    pub(crate) fn fake() -> Self {
        Self { temp: TempHome::new(), engine: fake_engine() }
    }

    pub(crate) fn path(&self) -> &Path {
        self.temp.path()
    }

    /// A folder beside the home.
    pub(crate) fn scratch(&self) -> &Path {
        self.temp.scratch()
    }

    pub(crate) fn engine(&self) -> &Path {
        &self.engine
    }

    /// The path of a model with room for long texts.
    pub(crate) fn model(&self) -> PathBuf {
        let path = self.scratch().join("tiny.gguf");
        if !path.exists() {
            let recipe = TinyModel { context: CONTEXT, ..TinyModel::default() };
            write_tiny_model(&path, &recipe).expect("the scratch folder takes a file");
        }
        path
    }

    /// Writes an instance on a free port, one thread, with `changes` merged in; returns the port.
    pub(crate) fn instance(&self, name: &str, changes: &Value) -> u16 {
        let port = free_port();
        let mut config = json!({
            "name": name,
            "model": {"path": self.model(), "context_size": CONTEXT, "threads": 1},
            "server": {"port": port},
        });
        merge(&mut config, changes);
        self.temp.write_instance(name, &config);
        port
    }

    /// Writes `instances/<name>/config.json` as it stands.
    pub(crate) fn write_config(&self, name: &str, text: &str) {
        let folder = self.path().join("instances").join(name);
        std::fs::create_dir_all(&folder).expect("the home is writable");
        std::fs::write(folder.join("config.json"), text).expect("the home is writable");
    }

    /// A command of this home; daemons take any free port.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = self.temp.command("llama-orch");
        command.env("LLAMA_SERVER", &self.engine).env("ORCHESTRATORD_ADDR", "127.0.0.1:0").args(arguments);
        command
    }

    /// Runs a command to its end, whatever its exit code.
    pub(crate) fn run(&self, arguments: &[&str]) -> ProgramRun {
        testkit::run(self.command(arguments))
    }

    /// Runs a command that has to succeed.
    #[track_caller]
    pub(crate) fn ok(&self, arguments: &[&str]) -> ProgramRun {
        let run = self.run(arguments);
        run.expect_exit(0);
        run
    }

    /// The JSON document of a command that has to succeed.
    #[track_caller]
    pub(crate) fn json(&self, arguments: &[&str]) -> Value {
        self.ok(arguments).json()
    }

    /// Starts a command and lets it run, with its output in `<scratch>/<file>`.
    pub(crate) fn spawn(&self, arguments: &[&str], file: &str) -> Background {
        let path = self.scratch().join(file);
        let output = std::fs::File::create(&path).expect("the scratch folder takes a file");
        let mut command = self.command(arguments);
        let errors = output.try_clone().expect("an open file can be cloned");
        command.stdin(Stdio::null()).stdout(output).stderr(errors);
        Background { child: command.spawn().expect("the program starts"), output: path }
    }

    /// Runs the same home's commands side by side; the results are in their order.
    pub(crate) fn run_together(&self, commands: &[Vec<&str>]) -> Vec<ProgramRun> {
        std::thread::scope(|scope| {
            let runs: Vec<_> = commands.iter().map(|arguments| scope.spawn(|| self.run(arguments))).collect();
            runs.into_iter().map(|run| run.join().expect("a run ends within its limit")).collect()
        })
    }

    #[track_caller]
    pub(crate) fn start_daemon(&self) -> Daemon {
        self.ok(&["daemon", "start"]);
        self.daemon()
    }

    /// The daemon as `run/daemon.json` tells of it.
    #[track_caller]
    pub(crate) fn daemon(&self) -> Daemon {
        let file = self.read_json("run/daemon.json").expect("a living daemon has a file");
        Daemon {
            pid: pid_of(&file["pid"]),
            address: file["address"].as_str().expect("the file names the address").to_owned(),
            token: file["token"].as_str().expect("the file holds the local token").to_owned(),
        }
    }

    /// A JSON file of the home, if it is there and whole.
    pub(crate) fn read_json(&self, path: &str) -> Option<Value> {
        serde_json::from_slice(&std::fs::read(self.path().join(path)).ok()?).ok()
    }

    /// The row of one instance in `ps --json`.
    #[track_caller]
    pub(crate) fn ps(&self, name: &str) -> Value {
        let rows = self.json(&["ps", "--all", "--json"]);
        let rows = rows.as_array().expect("ps --json is a list");
        rows.iter().find(|row| row["name"] == name).unwrap_or_else(|| panic!("no {name} in {rows:?}")).clone()
    }

    #[track_caller]
    pub(crate) fn engine_pid(&self, name: &str) -> u32 {
        pid_of(&self.ps(name)["pid"])
    }

    #[track_caller]
    pub(crate) fn describe(&self, name: &str) -> Value {
        self.json(&["describe", name, "--json"])
    }

    /// The shim names itself in the handoff file a moment after the engine is ready.
    #[track_caller]
    pub(crate) fn shim_pid(&self, name: &str) -> u32 {
        wait_for_value("the shim's name", SOON, || {
            let shim = self.describe(name)["process"]["shim_pid"].clone();
            (!shim.is_null()).then(|| pid_of(&shim))
        })
    }

    /// The events of an instance, oldest first.
    #[track_caller]
    pub(crate) fn events(&self, name: &str) -> Vec<Value> {
        let events = self.json(&["events", "--instance", name, "--limit", "500", "--json"]);
        let mut events = events.as_array().expect("events --json is a list").clone();
        events.reverse();
        events
    }

    /// The types of an instance's events, oldest first.
    #[track_caller]
    pub(crate) fn event_types(&self, name: &str) -> Vec<String> {
        let events = self.events(name);
        events.iter().filter_map(|event| event["event_type"].as_str()).map(str::to_owned).collect()
    }
}

#[track_caller]
pub(crate) fn pid_of(value: &Value) -> u32 {
    let pid = value.as_u64().unwrap_or_else(|| panic!("{value} is no pid"));
    u32::try_from(pid).expect("a pid has 32 bits")
}

/// RFC 7396, as far as objects go.
fn merge(target: &mut Value, changes: &Value) {
    match (target, changes) {
        (Value::Object(target), Value::Object(changes)) => {
            for (key, change) in changes {
                merge(target.entry(key.as_str()).or_insert(Value::Null), change);
            }
        }
        (target, changes) => *target = changes.clone(),
    }
}

/// A command that runs beside the test; killed when dropped.
pub(crate) struct Background {
    child: Child,
    output: PathBuf,
}

impl Background {
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What it has written so far.
    pub(crate) fn output(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(&self.output).unwrap_or_default()).into_owned()
    }

    pub(crate) fn has_ended(&mut self) -> bool {
        self.exit_status().is_some()
    }

    /// How it ended, if it has.
    pub(crate) fn exit_status(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().expect("the child is ours")
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        // Ended already is as good.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
