//! What the tests of all commands begin with.

use std::path::Path;

use serde_json::{Value, json};
use testkit::{ProgramRun, TempHome, fake_engine, free_port};

/// A home with the fake engine installed.
pub(crate) fn home_with_engine() -> TempHome {
    let home = TempHome::new();
    let engine = fake_engine().display().to_string();
    home.llama_orch(&["--quiet", "engine", "install", &engine, "--set-default"]).expect_exit(0);
    home
}

/// Writes an instance on a free port, with knobs for the fake engine, and returns the port.
pub(crate) fn add_instance(home: &TempHome, name: &str, knobs: &[(&str, &str)]) -> u16 {
    let port = free_port();
    let env: serde_json::Map<String, Value> =
        knobs.iter().map(|(knob, value)| ((*knob).to_owned(), json!(value))).collect();
    let model = home.tiny_model();
    let config = json!({
        "name": name,
        "model": {"path": model, "context_size": 2048, "threads": 1},
        "server": {"port": port},
        "env": env,
    });
    home.write_instance(name, &config);
    port
}

/// One row of `ps --json`.
pub(crate) fn row(home: &TempHome, name: &str) -> Value {
    let rows = home.llama_orch(&["ps", "--json"]).expect_exit(0).json();
    let found = rows.as_array().unwrap().iter().find(|row| row["name"] == name);
    found.unwrap_or_else(|| panic!("no {name} in {rows}")).clone()
}

/// Whether a process of this pid is there.
pub(crate) fn is_alive(pid: &Value) -> bool {
    let pid = u32::try_from(pid.as_u64().unwrap()).unwrap();
    engine_process::start_mark(pid).is_some()
}

/// The words after `error:`, and that there is exactly one such line.
#[track_caller]
pub(crate) fn only_error(run: &ProgramRun) -> String {
    let errors: Vec<&str> = run.stderr.lines().filter_map(|line| line.strip_prefix("error: ")).collect();
    assert_eq!(errors.len(), 1, "{run}");
    errors[0].to_owned()
}

/// Every file below a folder, with its content and the time of its last change. What SQLite puts beside its database
/// does not count, nor does the time of the folder that it lies in.
pub(crate) fn picture(folder: &Path) -> Vec<(String, Vec<u8>, std::time::SystemTime)> {
    let mut files = Vec::new();
    collect(folder, folder, &mut files);
    files.sort();
    files
}

fn collect(top: &Path, folder: &Path, files: &mut Vec<(String, Vec<u8>, std::time::SystemTime)>) {
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        let name = path.strip_prefix(top).unwrap().display().to_string();
        let modified = entry.metadata().unwrap().modified().unwrap();
        if path.is_dir() {
            files.push((name, Vec::new(), std::time::UNIX_EPOCH));
            collect(top, &path, files);
        } else if !name.ends_with("-wal") && !name.ends_with("-shm") {
            files.push((name, std::fs::read(&path).unwrap(), modified));
        }
    }
}

/// A command that stays until it is interrupted. Killed when dropped.
pub(crate) struct Attached {
    child: std::sync::Mutex<std::process::Child>,
    stdout: std::path::PathBuf,
}

impl Attached {
    pub(crate) fn start(home: &TempHome, arguments: &[&str]) -> Self {
        let stdout = home.scratch().join(format!("attached-{}", free_port()));
        let mut command = home.command("llama-orch");
        command.args(arguments).stdin(std::process::Stdio::null());
        command.stdout(std::fs::File::create(&stdout).unwrap()).stderr(std::process::Stdio::null());
        Self { child: std::sync::Mutex::new(command.spawn().unwrap()), stdout }
    }

    #[track_caller]
    pub(crate) fn wait_for(&self, what: &str, condition: impl Fn(&str) -> bool) {
        testkit::wait_for(what, std::time::Duration::from_secs(30), || condition(&self.output()));
    }

    pub(crate) fn output(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(&self.stdout).unwrap()).into_owned()
    }

    /// As Ctrl-C does it; the exit code.
    pub(crate) fn interrupt(&self) -> Option<i32> {
        let mut child = self.child.lock().unwrap();
        let mut kill = std::process::Command::new("kill");
        kill.args(["-INT", &child.id().to_string()]);
        testkit::run(kill).expect_exit(0);
        testkit::wait_for_value("the command to end", std::time::Duration::from_secs(30), || {
            child.try_wait().unwrap()
        })
        .code()
    }
}

impl Drop for Attached {
    fn drop(&mut self) {
        if let Ok(mut child) = self.child.lock() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
