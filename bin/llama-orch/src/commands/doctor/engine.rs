//! The engine and what it can compute on.

use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

use engine_provisioner::{ToolRun, ToolRunner, known_profile, probe};
use orch_core::{EngineProfile, ExitCode, HomeLayout};
use orchestratord::compose::Tools;

use super::Diagnosis;
use crate::commands::engine::{chosen_engine, origin_words};

/// All questions to the engine together.
const PATIENCE: Duration = Duration::from_secs(4);

/// Asks tools only as long as there is patience left.
struct Hasty {
    until: Instant,
}

impl ToolRunner for Hasty {
    fn run(
        &self,
        program: &Path,
        args: &[String],
        env: &[(String, String)],
        limit: Duration,
        on_line: &mut dyn FnMut(&str),
    ) -> io::Result<ToolRun> {
        let left = self.until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::Error::new(io::ErrorKind::TimedOut, "no time left"));
        }
        Tools.run(program, args, env, limit.min(left), on_line)
    }
}

pub(super) fn check(home: &HomeLayout) -> Vec<Diagnosis> {
    let engine = match chosen_engine(home) {
        Ok(engine) => engine,
        Err(failure) if failure.exit == ExitCode::EngineNotFound => {
            return vec![Diagnosis::of("engine", &failure).mend(
                "llama-orch engine install, or have LLAMA_SERVER or PATH lead to one; quickstart does it too",
            )];
        }
        Err(failure) => return vec![Diagnosis::of("engine", &failure)],
    };
    let shown = engine.executable.display();
    let hasty = Hasty { until: Instant::now() + PATIENCE };
    match probe(&engine.executable, &hasty) {
        Ok(profile) => {
            let version = engine.version.clone().or_else(|| profile.version.clone());
            let version = version.map_or(String::new(), |version| format!(" {version}"));
            let message = format!("{shown}{version} ({})", origin_words(engine.origin));
            let mut found = vec![Diagnosis::ok("engine", message)];
            found.push(devices(home, &engine.executable, &profile));
            found.extend(device_files());
            found
        }
        Err(failure) => {
            let mend = failure.hint.clone().unwrap_or_default();
            let install = "or install another: llama-orch engine install --set-default";
            vec![Diagnosis::of("engine", &failure).mend(format!("{mend}, {install}"))]
        }
    }
}

fn devices(home: &HomeLayout, executable: &Path, profile: &EngineProfile) -> Diagnosis {
    if !profile.devices.is_empty() {
        let named = profile.devices.iter().map(|device| {
            format!("{} {} ({} of {} free)", device.id, device.name, device.memory_free, device.memory_total)
        });
        return Diagnosis::ok("gpu", named.collect::<Vec<_>>().join(", "));
    }
    let before = known_profile(home, executable).map_or(0, |known| known.devices.len());
    if before > 0 {
        return Diagnosis::warning("gpu", "the engine saw a GPU before, and sees none now")
            .mend("look at the driver (nvidia-smi, vulkaninfo), then: llama-orch engine devices");
    }
    Diagnosis::info("gpu", "this engine sees none: models run on the processor")
        .mend("for a GPU: llama-orch engine install --variant vulkan (or cuda, hip) and its driver")
}

/// Graphics cards that are there, but closed to this user.
#[cfg(target_os = "linux")]
fn device_files() -> Vec<Diagnosis> {
    let cards = std::fs::read_dir("/dev/dri").into_iter().flatten().flatten().map(|entry| entry.path());
    let renderers = cards
        .filter(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("renderD")));
    let closed: Vec<String> = renderers
        .chain(["/dev/kfd".into(), "/dev/nvidiactl".into()])
        .filter(|path| path.exists() && !engine_process::may_open(path))
        .map(|path| path.display().to_string())
        .collect();
    if closed.is_empty() {
        return Vec::new();
    }
    let message = format!("this user may not use {}", closed.join(", "));
    vec![
        Diagnosis::warning("gpu", message).mend("sudo usermod -aG render,video \"$USER\", then log in again"),
    ]
}

#[cfg(not(target_os = "linux"))]
fn device_files() -> Vec<Diagnosis> {
    Vec::new()
}
