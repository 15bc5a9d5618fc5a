//! Wine: a prefix of our own in the cache, one run at a time, everything ended afterwards.

use std::fs::{self, File, TryLockError};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use testkit::cache_folder;

use super::build::Programs;
use super::processes::{self, Process};
use crate::command::run_within;
use crate::setup::publish;

/// The last one is the engine, under either of its names.
const OURS: [&str; 4] = ["llama-orch.exe", "orchestratord.exe", "pool-managerd.exe", "llama-server.exe"];
/// Making a prefix takes seconds; ending one as well.
const BOOT_LIMIT: Duration = Duration::from_mins(3);
const END_LIMIT: Duration = Duration::from_secs(20);
const KILL_LIMIT: Duration = Duration::from_secs(5);

/// A Windows to run programs in. Nobody else uses its prefix at the same time.
pub(super) struct Wine {
    prefix: PathBuf,
    programs: Programs,
    _lock: File,
}

impl Wine {
    /// Makes the prefix where there is none yet, and waits while another run uses it.
    pub(super) fn start(programs: Programs) -> Result<Self> {
        let cache = cache_folder();
        fs::create_dir_all(&cache).with_context(|| format!("cannot make {}", cache.display()))?;
        let lock = File::create(cache.join("wine.lock")).context("the cache is not writable")?;
        if let Err(TryLockError::WouldBlock) = lock.try_lock() {
            eprintln!("another run uses Wine: waiting for its end");
            lock.lock().context("the cache cannot be locked")?;
        }
        let prefix = cache.join(format!("prefix-{}", version()?));
        if !prefix.exists() {
            publish(&prefix, make_prefix)?;
        }
        let wine = Self { prefix, programs, _lock: lock };
        // What a run that was killed has left.
        wine.end_all_programs();
        wine.keep_server()?;
        Ok(wine)
    }

    /// Wine's own server ends a while after its last client, and resets whoever connects at that moment: it stays
    /// until the run is over. Its services start with the first program and would hold that one's pipes open, so the
    /// first program has none.
    fn keep_server(&self) -> Result<()> {
        end_server(&self.prefix);
        for (program, arguments) in [("wineserver", &["--persistent"][..]), ("wine", &["cmd", "/c", "exit"])]
        {
            let mut command = command(program, &self.prefix);
            run_within(command.args(arguments).stdout(Stdio::null()).stderr(Stdio::null()), BOOT_LIMIT)?;
        }
        Ok(())
    }

    pub(super) fn programs(&self) -> &Programs {
        &self.programs
    }

    /// A command that starts a Windows program, with nothing inherited but what Wine needs.
    pub(super) fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = command("wine", &self.prefix);
        command.arg(program);
        command
    }

    /// The living processes of our programs, wherever their files lie.
    pub(super) fn processes(&self) -> Vec<Process> {
        let mut all = processes::of_prefix(&self.prefix);
        all.retain(|process| OURS.iter().any(|program| process.command_line.contains(program)));
        all
    }

    /// Kills them all; those that have just been started by one of them, too.
    pub(super) fn end_all_programs(&self) {
        let begin = Instant::now();
        loop {
            let living = self.processes();
            if living.is_empty() || begin.elapsed() > KILL_LIMIT {
                return;
            }
            living.iter().for_each(Process::kill);
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Wine {
    fn drop(&mut self) {
        self.end_all_programs();
        end_server(&self.prefix);
    }
}

/// A path as Windows programs know it: Wine shows the whole machine as drive Z.
pub(super) fn windows_path(path: &Path) -> String {
    format!("Z:{}", path.display()).replace('/', "\\")
}

fn version() -> Result<String> {
    let output = Command::new("wine").arg("--version").output().context("wine does not start")?;
    let text = String::from_utf8_lossy(&output.stdout);
    Ok(text.split_whitespace().next().context("wine tells no version")?.to_owned())
}

fn make_prefix(prefix: &Path) -> Result<()> {
    fs::create_dir_all(prefix).with_context(|| format!("cannot make {}", prefix.display()))?;
    run_within(command("wine", prefix).args(["wineboot", "--init"]), BOOT_LIMIT)?;
    end_server(prefix);
    Ok(())
}

/// Whatever is left ends with the server.
fn end_server(prefix: &Path) {
    for argument in ["--kill", "--wait"] {
        let _ = run_within(command("wineserver", prefix).arg(argument), END_LIMIT);
    }
}

fn command(program: &str, prefix: &Path) -> Command {
    let mut command = Command::new(program);
    command.env_clear().stdin(Stdio::null());
    for name in ["PATH", "USER", "TMPDIR"] {
        command.envs(std::env::var_os(name).map(|value| (name, value)));
    }
    command
        .env("WINEPREFIX", prefix)
        .env("WINEDEBUG", "-all")
        // No helper that asks for a desktop, a browser engine or .NET.
        .env("WINEDLLOVERRIDES", "mscoree=;mshtml=;winemenubuilder.exe=")
        .env("HOME", prefix)
        .env("LC_ALL", "C.UTF-8");
    command
}
