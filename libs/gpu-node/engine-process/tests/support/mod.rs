//! A home with one engine to start in it.
#![allow(dead_code, reason = "each test file uses its own part")]
#![allow(clippy::unwrap_used, reason = "in tests a panic is the answer")]

use std::env::consts::EXE_SUFFIX;
use std::path::{Path, PathBuf};
use std::time::Duration;

use engine_process::{
    EngineHandle, EngineSpec, ExitRecord, Handoff, Records, StopTarget, launch, start_mark,
};
use orch_core::{InstanceName, ReplicaId};
use testkit::{TempHome, wait_for, wait_for_value};

pub(crate) const LIMIT: Duration = Duration::from_secs(20);

/// The example of this crate that is nothing but a shim.
pub(crate) fn shim() -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let path = test.ancestors().nth(2).unwrap().join(format!("examples/engine_shim{EXE_SUFFIX}"));
    assert!(path.exists(), "no {}; build it first: cargo build -p engine-process --examples", path.display());
    path
}

pub(crate) struct Scene {
    pub(crate) home: TempHome,
    pub(crate) spec: EngineSpec,
}

impl Scene {
    /// The fake engine with these faults.
    pub(crate) fn fake(faults: &[(&str, &str)]) -> Self {
        let mut scene = Self::of(&testkit::fake_engine());
        let faults = faults.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        scene.spec.env.extend(faults);
        scene
    }

    /// A script as the engine.
    #[cfg(unix)]
    pub(crate) fn script(interpreter: &str, body: &str) -> Self {
        use std::os::unix::fs::PermissionsExt;
        let mut scene = Self::of(Path::new("/nowhere"));
        let path = scene.home.scratch().join("engine");
        std::fs::write(&path, format!("#!{interpreter}\n{body}")).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        scene.spec.executable = path;
        scene
    }

    pub(crate) fn of(executable: &Path) -> Self {
        let home = TempHome::new();
        let layout = home.layout();
        let name = InstanceName::new("chat").unwrap();
        let replica = ReplicaId::FIRST;
        let logs = layout.instance_logs(&name);
        let port = testkit::free_port();
        let model = home.tiny_model();
        let args = [
            "--model",
            model.to_str().unwrap(),
            "--host",
            "127.0.0.1",
            "--port",
            &port.to_string(),
            "--parallel",
            "2",
        ];
        let spec = EngineSpec {
            instance: name.clone(),
            replica,
            executable: executable.to_owned(),
            args: args.map(String::from).to_vec(),
            env: vec![
                ("PATH".into(), std::env::var("PATH").unwrap()),
                ("HOME".into(), home.scratch().to_str().unwrap().into()),
            ],
            working_dir: home.path().to_owned(),
            host: "127.0.0.1".into(),
            port,
            api_key: None,
            engine_version: Some("b1".into()),
            config_hash: "hash".into(),
            device_mask: None,
            model_path: model,
            stdout_log: logs.join("stdout.log"),
            stderr_log: logs.join("stderr.log"),
            log_max_bytes: 1024 * 1024,
            log_rotation: 3,
            log_retention_days: 7,
            handoff: layout.handoffs().join("chat-r0.json"),
            exit_record: layout.exit_record(&name, replica),
            engine_lock: layout.engine_lock(&name, replica),
        };
        Self { home, spec }
    }

    pub(crate) fn launch(&self) -> EngineHandle {
        launch(&shim(), &self.spec).unwrap()
    }

    pub(crate) fn launch_ready(&self) -> (EngineHandle, Handoff) {
        let engine = self.launch();
        let handoff = self.wait_ready();
        (engine, handoff)
    }

    pub(crate) fn wait_ready(&self) -> Handoff {
        wait_for_value("the handoff file", LIMIT, || Handoff::read(&self.spec.handoff).ok())
    }

    pub(crate) fn target(&self, engine: &EngineHandle) -> StopTarget {
        StopTarget {
            identity: engine.identity.clone(),
            shim_pid: Some(engine.shim_pid),
            records: Records {
                handoff: self.spec.handoff.clone(),
                engine_lock: self.spec.engine_lock.clone(),
            },
            host: self.spec.host.clone(),
        }
    }

    pub(crate) fn exit_record(&self, engine: &EngineHandle) -> ExitRecord {
        ExitRecord::await_for(&self.spec.exit_record, engine.identity.pid, LIMIT).unwrap()
    }

    pub(crate) fn answers(&self) -> bool {
        let address = format!("127.0.0.1:{}", self.spec.port);
        testkit::http::get(&address, "/health").is_ok_and(|reply| reply.status == 200)
    }

    /// Living children of this scene's fake engines: each engine tells theirs in its log.
    pub(crate) fn children(&self) -> Vec<u32> {
        let log = std::fs::read_to_string(&self.spec.stderr_log).unwrap_or_default();
        let told = log.lines().filter_map(|line| line.split("fake: child ").nth(1)?.trim().parse().ok());
        told.filter(|pid| start_mark(*pid).is_some()).collect()
    }
}

pub(crate) fn rotated(log: &Path, number: u32) -> PathBuf {
    PathBuf::from(format!("{}.{number}", log.display()))
}

/// Oldest first, joined.
pub(crate) fn whole_log(log: &Path) -> String {
    let numbers = (1..=9).rev().map(|number| rotated(log, number));
    let files = numbers.chain([log.to_owned()]).filter_map(|path| std::fs::read(path).ok());
    String::from_utf8(files.flatten().collect()).unwrap()
}

/// Whether an engine's end was not its own doing.
pub(crate) fn was_killed(record: &ExitRecord) -> bool {
    if cfg!(unix) { record.signal == Some(9) } else { record.code.is_some_and(|code| code != 0) }
}

#[cfg(unix)]
pub(crate) fn kill_hard(pid: u32) {
    signal(pid, nix::sys::signal::Signal::SIGKILL);
}

#[cfg(unix)]
pub(crate) fn signal(pid: u32, signal: nix::sys::signal::Signal) {
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(i32::try_from(pid).unwrap()), signal).unwrap();
}

/// Nobody listens to what a daemon would be asked first.
#[cfg(windows)]
pub(crate) fn kill_hard(pid: u32) {
    let mark = start_mark(pid).unwrap();
    assert!(engine_process::terminate_daemon(pid, &mark, Duration::ZERO).unwrap());
}

pub(crate) fn wait_gone(what: &str, pid: u32) {
    wait_for(&format!("the end of {what}"), LIMIT, || start_mark(pid).is_none());
}

/// A line such as `Pss:   812 kB` of a file under `/proc/<pid>`.
pub(crate) fn field(pid: u32, file: &str, name: &str) -> String {
    let text = std::fs::read_to_string(format!("/proc/{pid}/{file}")).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).unwrap();
    line.trim().to_owned()
}
