//! Everything that a start needs, decided before anything is spawned.

use std::path::{Path, PathBuf};

use engine_process::EngineSpec;
use instance_config::{Finding, InstanceConfig, LoadedInstance};
use orch_core::{ByteCount, EngineProfile, ExitCode, Failure, HomeLayout, InstanceName, ReplicaId};

use crate::node::Node;

/// Less free space than this for logs refuses a start.
const LOG_SPACE_NEEDED: ByteCount = ByteCount::from_mib(100);

/// The system offers a free port that was given to another engine by bad luck only.
const PORT_TRIES: u32 = 32;

/// A start that nothing stands in the way of.
#[derive(Debug)]
pub struct StartPlan {
    pub spec: EngineSpec,
    /// What the user should know, though it stops nothing.
    pub warnings: Vec<String>,
}

/// Which engine a start uses.
#[derive(Clone, Copy, Debug)]
pub(crate) enum EngineChoice<'a> {
    /// The one that the config asks for now.
    Configured,
    /// The one that was chosen at the last `up`: an automatic restart changes nothing.
    Recorded(&'a Path),
}

/// Checks what would stop a start, in the order in which a user would want to hear it: model, engine, port, disk.
pub(crate) fn plan_start(
    node: &Node,
    instance: &LoadedInstance,
    replica: ReplicaId,
    engine: EngineChoice<'_>,
) -> Result<StartPlan, Failure> {
    let config = &instance.config;
    let model = model_of(&node.home, instance);
    instance_config::check_model(&model)?;
    let profile = match engine {
        EngineChoice::Configured => node.engines.resolve(config)?,
        EngineChoice::Recorded(executable) => node.engines.profile(executable)?,
    };
    refuse_without_device(config, replica, &profile)?;
    let port = choose_port(node, config)?;
    check_log_space(&node.home, instance, replica)?;
    assemble(&node.home, &node.parent_environment, instance, replica, &profile, port)
}

/// With one engine for each device, each needs one: devices may have gone since they were counted.
fn refuse_without_device(
    config: &InstanceConfig,
    replica: ReplicaId,
    profile: &EngineProfile,
) -> Result<(), Failure> {
    let count = config.replica_count(profile)?;
    if config.fixed_replicas().is_some() || replica.0 < count {
        return Ok(());
    }
    let name = replica.display_name(&config.name);
    let message = format!("{name} has no device: the engine lists {count} of {}", config.gpu.backend);
    Err(Failure::new(ExitCode::ConfigInvalid, message).hint("see `llama-orch engine devices`"))
}

/// The plan as `--dry-run` shows it: the port is not probed and the disk not looked at.
pub fn preview_start(
    home: &HomeLayout,
    parent_environment: &[(String, String)],
    instance: &LoadedInstance,
    profile: &EngineProfile,
) -> Result<StartPlan, Failure> {
    let port = instance.config.server.port;
    assemble(home, parent_environment, instance, ReplicaId::FIRST, profile, port)
}

fn model_of(home: &HomeLayout, instance: &LoadedInstance) -> PathBuf {
    instance_config::resolve_model_path(&instance.config, &instance.path, home)
}

fn assemble(
    home: &HomeLayout,
    parent_environment: &[(String, String)],
    instance: &LoadedInstance,
    replica: ReplicaId,
    profile: &EngineProfile,
    port: u16,
) -> Result<StartPlan, Failure> {
    let config = &instance.config;
    let model = model_of(home, instance);
    let command = instance_config::engine_command(config, home, profile, &model, port);
    refuse_rejected(&config.name, &command.rejected)?;
    let parent = parent_environment.iter().cloned();
    let spec = EngineSpec {
        env: instance_config::engine_environment(parent, config, &command.env_overrides),
        args: command.args,
        engine_version: profile.version.clone(),
        device_mask: command.device_mask,
        ..watching_spec(home, instance, replica, profile.executable.clone(), port)
    };
    Ok(StartPlan { spec, warnings: command.warnings })
}

/// What a shim needs to watch an engine that runs already: everything but how to start it.
pub(crate) fn watching_spec(
    home: &HomeLayout,
    instance: &LoadedInstance,
    replica: ReplicaId,
    executable: PathBuf,
    port: u16,
) -> EngineSpec {
    let config = &instance.config;
    EngineSpec {
        instance: config.name.clone(),
        replica,
        executable,
        args: Vec::new(),
        env: Vec::new(),
        working_dir: home.root().to_path_buf(),
        host: config.server.host.clone(),
        port,
        api_key: instance_config::api_key(config, home),
        engine_version: None,
        config_hash: instance_config::config_hash(config),
        device_mask: None,
        model_path: model_of(home, instance),
        stdout_log: instance_config::log_path(&config.logs.stdout, config, home, replica),
        stderr_log: instance_config::log_path(&config.logs.stderr, config, home, replica),
        log_max_bytes: config.logs.max_bytes(),
        log_rotation: config.logs.rotation,
        log_retention_days: config.logs.retention_days,
        handoff: home.handoff(&config.name, replica),
        exit_record: home.exit_record(&config.name, replica),
        engine_lock: home.engine_lock(&config.name, replica),
    }
}

/// A flag that the engine is known to refuse would end it at once, again and again.
fn refuse_rejected(name: &InstanceName, rejected: &[Finding]) -> Result<(), Failure> {
    let Some(first) = rejected.first() else { return Ok(()) };
    let field = first.field.as_deref().unwrap_or("args");
    let failure = Failure::new(ExitCode::ConfigInvalid, format!("{name}: {field}: {}", first.message));
    Err(match &first.suggestion {
        Some(suggestion) => failure.hint(suggestion.clone()),
        None => failure,
    })
}

fn choose_port(node: &Node, config: &InstanceConfig) -> Result<u16, Failure> {
    let host = &config.server.host;
    if config.server.port == 0 {
        return pick_port(node, host);
    }
    if engine_process::is_free(host, config.server.port) {
        return Ok(config.server.port);
    }
    Err(port_taken(&config.name, config.server.port))
}

/// Any free port but those of engines that were started just now and do not listen yet.
fn pick_port(node: &Node, host: &str) -> Result<u16, Failure> {
    let rows = node.store.runtimes()?;
    let given = |port: u16| rows.iter().any(|row| row.pid.is_some() && row.port == Some(port));
    let unavailable =
        |why: &str| Failure::new(ExitCode::PortUnavailable, format!("no free port on {host}: {why}"));
    for _ in 0..PORT_TRIES {
        let port = engine_process::pick_free(host).map_err(|error| unavailable(&error.to_string()))?;
        if !given(port) {
            return Ok(port);
        }
    }
    Err(unavailable("all that the system offers are given to other engines"))
}

fn port_taken(name: &InstanceName, port: u16) -> Failure {
    let holder = engine_process::holder_of(port);
    let pid = holder.as_ref().and_then(|holder| holder.pid);
    let program = holder.as_ref().and_then(|holder| holder.program.clone());
    let who = match (pid, program) {
        (Some(pid), Some(program)) => format!("held by {program} (pid {pid})"),
        (Some(pid), None) => format!("held by pid {pid}"),
        _ => "held by another process".to_owned(),
    };
    Failure::new(ExitCode::PortInUse, format!("port {port} of {name} is {who}")).hint(format!(
        "stop that process, or choose another port: llama-orch config set {name} server.port=0"
    ))
}

/// Logs may lie elsewhere than the home.
fn check_log_space(home: &HomeLayout, instance: &LoadedInstance, replica: ReplicaId) -> Result<(), Failure> {
    let config = &instance.config;
    for template in [&config.logs.stdout, &config.logs.stderr] {
        let log = instance_config::log_path(template, config, home, replica);
        let Some(folder) = log.ancestors().skip(1).find(|folder| folder.is_dir()) else { continue };
        enough_for_logs(folder, engine_process::free_space(folder))?;
    }
    Ok(())
}

/// Where the system does not tell, nothing is refused.
fn enough_for_logs(folder: &Path, free: Option<ByteCount>) -> Result<(), Failure> {
    match free.filter(|free| *free < LOG_SPACE_NEEDED) {
        None => Ok(()),
        Some(free) => {
            let message = format!(
                "only {free} are free for logs below {}, a start needs {LOG_SPACE_NEEDED}",
                folder.display()
            );
            Err(Failure::new(ExitCode::StartFailed, message)
                .hint("free some disk space; `llama-orch logs clean` removes old logs"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn under_a_hundred_megabytes_for_logs_nothing_is_started() {
        let judge = |free| enough_for_logs(Path::new("/h/logs"), free);
        let refused = judge(Some(ByteCount(LOG_SPACE_NEEDED.0 - 1))).unwrap_err();
        assert_eq!(refused.exit, ExitCode::StartFailed);
        assert!(refused.message.contains("/h/logs") && refused.hint.unwrap().contains("logs clean"));
        assert!(judge(Some(LOG_SPACE_NEEDED)).is_ok());
        assert!(judge(None).is_ok(), "where the system does not tell, nothing is refused");
    }
}
