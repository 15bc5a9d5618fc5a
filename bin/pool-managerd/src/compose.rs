//! Wiring: the libraries know each other only through ports; here the ports get their other end.

use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use engine_process::{ToolCommand, ToolError};
use engine_provisioner::{EngineRequest, ToolRun, ToolRunner};
use instance_config::InstanceConfig;
use orch_core::{DeviceInfo, EngineProfile, ExitCode, Failure, HomeLayout, UnixMillis};
use orch_runtime::environment;
use pool_manager::residency::{MemoryBudget, ResidencyPolicy, ResidencySettings};
use pool_manager::{EngineResolver, Node};
use state_store::{LivingProcess, Migration, MigrationStep, OldProcess, StateStore};

/// Runs helper programs for the provisioner, in the environment that engines get.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tools;

impl ToolRunner for Tools {
    fn run(
        &self,
        program: &Path,
        args: &[String],
        env: &[(String, String)],
        limit: Duration,
        on_line: &mut dyn FnMut(&str),
    ) -> io::Result<ToolRun> {
        let inherited = std::env::vars().filter(|(name, _)| instance_config::is_inherited(name));
        let command = ToolCommand {
            program: program.to_path_buf(),
            args: args.iter().map(OsString::from).collect(),
            env: inherited
                .chain(env.iter().cloned())
                .map(|(name, value)| (name.into(), value.into()))
                .collect(),
            clear_env: true,
            cwd: None,
        };
        let output = engine_process::run_tool(&command, limit, on_line).map_err(as_io)?;
        Ok(ToolRun { exit_code: output.status.code(), stdout: output.stdout, stderr: output.stderr })
    }
}

fn as_io(error: ToolError) -> io::Error {
    match error {
        ToolError::Spawn { source, .. } | ToolError::Wait { source, .. } => source,
        error @ ToolError::Timeout { .. } => io::Error::new(io::ErrorKind::TimedOut, error),
    }
}

/// Finds and probes the engine of a config.
struct HomeEngines {
    home: HomeLayout,
    memory: Memory,
}

/// Finds engines for a command that only looks.
pub fn engines_read_only(home: &HomeLayout) -> impl EngineResolver + use<> {
    HomeEngines { home: home.clone(), memory: Memory::ReadOnly }
}

impl EngineResolver for HomeEngines {
    fn resolve(&self, config: &InstanceConfig) -> Result<EngineProfile, Failure> {
        engine_profile(&self.home, config, self.memory)
    }

    fn profile(&self, executable: &Path) -> Result<EngineProfile, Failure> {
        let profile = probed(&self.home, executable, self.memory)?;
        let registry = engine_provisioner::Registry::load(&self.home)?;
        let installed = registry.list().into_iter().find(|engine| engine.executable == executable);
        let recorded = installed.map(|engine| engine.version);
        Ok(EngineProfile { version: recorded.or(profile.version), ..profile })
    }

    fn devices(&self, executable: &Path) -> Vec<DeviceInfo> {
        engine_provisioner::list_devices(executable, &Tools)
    }
}

/// Whether a probe's result may be written down: reading commands change no byte of the home.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Memory {
    Keep,
    ReadOnly,
}

/// The engine that a config asks for and what is known of it.
pub fn engine_profile(
    home: &HomeLayout,
    config: &InstanceConfig,
    memory: Memory,
) -> Result<EngineProfile, Failure> {
    let request = EngineRequest {
        binary_id: config.binary.binary_id,
        version: config.binary.version.clone(),
        variant: config.binary.variant.clone(),
    };
    find_engine(home, &request, memory)
}

/// The engine for a request and what is known of it.
pub fn find_engine(
    home: &HomeLayout,
    request: &EngineRequest,
    memory: Memory,
) -> Result<EngineProfile, Failure> {
    let named = std::env::var_os(environment::ENGINE).filter(|path| !path.is_empty()).map(PathBuf::from);
    let search_path = std::env::var_os("PATH");
    let found = engine_provisioner::resolve(request, home, named.as_deref(), search_path.as_deref())?;
    let mut profile = probed(home, &found.executable, memory)?;
    profile.version = found.version.or(profile.version);
    Ok(profile)
}

fn probed(home: &HomeLayout, executable: &Path, memory: Memory) -> Result<EngineProfile, Failure> {
    match memory {
        Memory::Keep => engine_provisioner::probe_and_remember(home, executable, &Tools),
        Memory::ReadOnly => match engine_provisioner::known_profile(home, executable) {
            Some(profile) => Ok(profile),
            None => engine_provisioner::probe(executable, &Tools),
        },
    }
}

/// Opens a home for work: makes its folders and database where they are missing.
pub fn open_node(home: &HomeLayout) -> Result<Node, Failure> {
    instance_config::home::create(home).map_err(|error| not_made(home, &error))?;
    let shim_executable = engine_process::default_shim_executable().map_err(|error| {
        Failure::new(ExitCode::StartFailed, format!("cannot find this program's own file: {error}"))
    })?;
    Ok(Node {
        home: home.clone(),
        store: open_store(home)?,
        engines: Arc::new(HomeEngines { home: home.clone(), memory: Memory::Keep }),
        shim_executable,
        parent_environment: std::env::vars().collect(),
    })
}

fn not_made(home: &HomeLayout, error: &std::io::Error) -> Failure {
    let exit = match error.kind() {
        std::io::ErrorKind::PermissionDenied => ExitCode::PermissionDenied,
        _ => ExitCode::General,
    };
    Failure::new(exit, format!("cannot make {}: {error}", home.root().display()))
}

/// Opens the state of a home for writing: makes it where there is none, and migrates the older tool's.
pub fn open_store(home: &HomeLayout) -> Result<StateStore, Failure> {
    if let Some(migration) = migrate_state(home, &mut |_| ())? {
        tracing::warn!(from = migration.from, backup = ?migration.backup, "state database of the older tool migrated");
    }
    Ok(StateStore::open(home)?)
}

/// Migrates the state database of a home if it is the older tool's; `None` where there is nothing to migrate. Fails
/// with 34 where it cannot be, and leaves it as it was.
pub fn migrate_state(
    home: &HomeLayout,
    on_step: &mut dyn FnMut(MigrationStep),
) -> Result<Option<Migration>, Failure> {
    Ok(state_store::migrate(home, UnixMillis::now(), &mut still_runs, on_step)?)
}

/// What [`migrate_state`] would do now. Changes nothing.
pub fn preview_state_migration(home: &HomeLayout) -> Result<Option<Migration>, Failure> {
    Ok(state_store::preview(home, &mut still_runs)?)
}

/// The process that the older tool wrote down, if it is still there.
fn still_runs(process: &OldProcess) -> Option<LivingProcess> {
    let identity = engine_process::recognise(process.pid, process.port, process.started_at)?;
    Some(LivingProcess {
        process_started_at: identity.started_at.0,
        exe: identity.executable,
        port: identity.port,
    })
}

/// How memory is shared between the instances of this machine.
pub fn residency(settings: &orch_runtime::Settings) -> ResidencySettings {
    let (limits, node) = (&settings.limits, &settings.pool_managerd);
    ResidencySettings {
        policy: ResidencyPolicy { min_residency: limits.min_residency, starvation: limits.starvation },
        budget: MemoryBudget { host: node.memory, device: node.device_memory },
    }
}

/// The name of this machine in the fleet.
pub fn node_id(settings: &orch_runtime::Settings) -> String {
    settings.pool_managerd.node_id.clone().unwrap_or_else(host_name)
}

/// The name this machine gives itself; every system has one, `localhost` at worst.
pub fn host_name() -> String {
    sysinfo::System::host_name()
        .ok()
        .filter(|name| !name.is_empty())
        .unwrap_or_else(|| "localhost".to_owned())
}

/// How many threads compute best on this machine: one for each physical core that this process may use.
pub fn compute_threads() -> u32 {
    let allowed = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let cores = sysinfo::System::physical_core_count().ok().filter(|cores| *cores > 0).unwrap_or(allowed);
    u32::try_from(cores.min(allowed)).unwrap_or(u32::MAX)
}

/// A blocking step that is still under way when the daemon ends is cut after so long: each is safe to be cut.
pub const LAST_MOMENTS: Duration = Duration::from_millis(200);

/// The threads of a daemon: half the processors, because engines and clients need the rest. Handing work from
/// thread to thread costs more here than it brings.
pub fn runtime() -> Result<tokio::runtime::Runtime, Failure> {
    let processors = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads((processors / 2).max(1))
        .enable_all()
        .build()
        .map_err(|error| Failure::new(ExitCode::DaemonStartFailed, format!("cannot start threads: {error}")))
}

/// How a daemon's program ends: one error, one hint, and the exit code of the error's type.
pub fn report(result: Result<(), Failure>) -> std::process::ExitCode {
    let Err(failure) = result else { return std::process::ExitCode::SUCCESS };
    eprintln!("error: {failure}");
    if let Some(hint) = &failure.hint {
        eprintln!("hint: {hint}");
    }
    std::process::ExitCode::from(failure.exit.number())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_home_of_somebody_else_is_a_matter_of_permission() {
        let home = HomeLayout::new("/srv/theirs");
        let code = |kind: std::io::ErrorKind| not_made(&home, &kind.into()).exit;
        assert_eq!(code(std::io::ErrorKind::PermissionDenied), ExitCode::PermissionDenied);
        assert_eq!(code(std::io::ErrorKind::NotADirectory), ExitCode::General);
    }
}
