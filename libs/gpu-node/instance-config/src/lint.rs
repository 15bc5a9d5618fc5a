//! Everything that may be wrong with the configs of a home, as far as the known facts tell.

use std::collections::BTreeMap;
use std::path::Path;

use orch_core::{ByteCount, DeviceInfo, EngineProfile, Failure, HomeLayout, ReplicaId};

use crate::access::is_writable;
use crate::arguments::{has_flag, last_value};
use crate::command::mask_variables;
use crate::finding::{Finding, Report};
use crate::flags::translate;
use crate::gguf::ModelShape;
use crate::log_files::log_path;
use crate::memory::{Place, belongs, estimate_memory};
use crate::{
    Backend, Catalog, InstanceConfig, LoadMode, LoadedInstance, Replicas, check_model, resolve_model_path,
};

/// What is known of the engine that an instance would get.
#[derive(Clone, Debug)]
pub enum EngineFact {
    Known(EngineProfile),
    /// The engine that the config asks for cannot be had.
    Missing(Failure),
}

/// What the caller knows of this machine.
pub struct LintFacts<'a> {
    pub home: &'a HomeLayout,
    /// By instance name; an instance that is not in it is not checked against an engine.
    pub engines: &'a BTreeMap<String, EngineFact>,
    pub cpu_count: u32,
    /// The machine's own memory; `None` where that is not known.
    pub host_memory: Option<ByteCount>,
    /// Whether somebody listens there now; our own running engines do not count.
    pub port_in_use: &'a dyn Fn(u16) -> bool,
}

/// Checks a whole home.
pub fn lint(catalog: &Catalog, facts: &LintFacts<'_>) -> Report {
    let mut findings: Vec<Finding> = Vec::new();
    findings.extend(catalog.broken.iter().flat_map(|broken| broken.findings.clone()));
    for instance in &catalog.instances {
        findings.extend(lint_instance(instance, catalog, facts));
    }
    if catalog.instances.is_empty() && catalog.broken.is_empty() {
        findings.push(Finding::info("", "there are no instances").suggest("make one with `llama-orch init`"));
    }
    Report::new(findings)
}

/// Checks one instance; the catalog tells who else claims what it claims.
pub fn lint_instance(instance: &LoadedInstance, catalog: &Catalog, facts: &LintFacts<'_>) -> Vec<Finding> {
    let config = &instance.config;
    let mut findings = Vec::new();
    check_model_file(instance, facts, &mut findings);
    check_logs(config, facts, &mut findings);
    check_claims(instance, catalog, &mut findings);
    check_server(config, facts, &mut findings);
    check_gpu(config, &mut findings);
    check_sizes(config, facts, &mut findings);
    check_dangerous_flags(config, &mut findings);
    check_silent_cut(config, &mut findings);
    check_engine(config, facts, &mut findings);
    check_memory(instance, facts, &mut findings);
    crate::replicas::check(config, &mut findings);
    check_lifecycle(config, &mut findings);
    let said = findings.into_iter().map(|finding| finding.of(config.name.as_str()));
    instance.findings.iter().cloned().chain(said).collect()
}

fn check_model_file(instance: &LoadedInstance, facts: &LintFacts<'_>, findings: &mut Vec<Finding>) {
    let config = &instance.config;
    let path = resolve_model_path(config, &instance.path, facts.home);
    if let Err(failure) = check_model(&path) {
        let finding = Finding::error("model.path", failure.message);
        findings.push(match failure.hint {
            Some(hint) => finding.suggest(hint),
            None => finding,
        });
        return;
    }
    let context = effective_number(config, &["--ctx-size", "-c"], config.model.context_size);
    if let Some(trained) = ModelShape::read(&path).context.filter(|&trained| u64::from(context) > trained) {
        let message = format!("{context} tokens are more than the model was trained for ({trained})");
        findings
            .push(Finding::warning("model.context_size", message).suggest(format!("use {trained} or less")));
    }
}

fn check_logs(config: &InstanceConfig, facts: &LintFacts<'_>, findings: &mut Vec<Finding>) {
    for (field, template) in [("logs.stdout", &config.logs.stdout), ("logs.stderr", &config.logs.stderr)] {
        let path = log_path(template, config, facts.home, ReplicaId::FIRST);
        let folder = path.parent().unwrap_or(facts.home.root());
        if !can_hold_files(folder) {
            findings.push(Finding::error(field, format!("{} cannot be written to", folder.display())));
        }
    }
}

/// Whether files can be made in a folder, which itself may still have to be made.
fn can_hold_files(folder: &Path) -> bool {
    let existing = folder.ancestors().find(|ancestor| ancestor.exists());
    existing.is_some_and(|ancestor| ancestor.is_dir() && is_writable(ancestor))
}

fn check_claims(instance: &LoadedInstance, catalog: &Catalog, findings: &mut Vec<Finding>) {
    let config = &instance.config;
    let others = || catalog.instances.iter().filter(|other| !is_same_file(&other.path, &instance.path));
    for other in
        catalog.claiming(config.server.port).filter(|claim| !is_same_file(claim.path, &instance.path))
    {
        let message = format!("port {} is also claimed by {}", config.server.port, other.name);
        findings
            .push(Finding::error("server.port", message).suggest("give each instance its own port, or 0"));
    }
    for other in others().filter(|other| other.config.instance_uid == config.instance_uid) {
        let message = format!("is also the uid of {}", other.config.name);
        findings.push(Finding::warning("instance_uid", message).suggest("remove it from the copy"));
    }
    let number = config.instance_no.as_deref();
    for other in others().filter(|other| number.is_some() && other.config.instance_no.as_deref() == number) {
        let message = format!("is also the number of {}", other.config.name);
        findings.push(Finding::warning("instance_no", message).suggest("remove it from the copy"));
    }
}

/// A config may be named by another path than the one it was discovered under.
fn is_same_file(one: &Path, other: &Path) -> bool {
    let real = |path: &Path| std::fs::canonicalize(path).ok();
    one == other || real(one).is_some_and(|one| Some(one) == real(other))
}

fn check_server(config: &InstanceConfig, facts: &LintFacts<'_>, findings: &mut Vec<Finding>) {
    let server = &config.server;
    if server.port != 0 && (facts.port_in_use)(server.port) {
        findings.push(Finding::warning("server.port", format!("port {} is in use now", server.port)));
    }
    if !is_loopback(&server.host) {
        let message = format!("{} is not a loopback address: others can reach the engine", server.host);
        findings
            .push(Finding::warning("server.host", message).suggest("let clients use the gateway instead"));
    }
    if config.healthcheck.interval.as_secs_f64() < 1.0 {
        findings.push(Finding::warning(
            "healthcheck.interval",
            "probing more than once a second costs throughput",
        ));
    }
}

fn is_loopback(host: &str) -> bool {
    match host.parse::<std::net::IpAddr>() {
        Ok(address) => address.is_loopback(),
        Err(_) => host.eq_ignore_ascii_case("localhost"),
    }
}

fn check_gpu(config: &InstanceConfig, findings: &mut Vec<Finding>) {
    let layers = effective_layers(config);
    if config.gpu.backend == Backend::Cpu && config.gpu.layers > 0 {
        let message = format!("{} layers are ignored: the backend is cpu", config.gpu.layers);
        findings.push(Finding::warning("gpu.layers", message).suggest("choose a GPU backend, or 0 layers"));
    }
    if config.gpu.backend != Backend::Cpu && layers == Some(0) {
        let message = format!("no layer is computed on {}", config.gpu.backend);
        findings.push(Finding::warning("gpu.layers", message).suggest("use 999 for all layers"));
    }
    check_device_variables(config, findings);
}

/// None when `args` name it in words (`all`, `auto`).
fn effective_layers(config: &InstanceConfig) -> Option<u32> {
    match last_value(&config.args, &["--n-gpu-layers", "--gpu-layers", "-ngl"]) {
        Some(written) => written.parse().ok(),
        None => Some(config.gpu.layers),
    }
}

fn check_device_variables(config: &InstanceConfig, findings: &mut Vec<Finding>) {
    let Some(device) = config.gpu.device_id else { return };
    for &name in mask_variables(config.gpu.backend) {
        if let Some(written) = config.env.get(name).filter(|written| **written != device.to_string()) {
            let message =
                format!("{name} is {written} in env and wins over gpu.device_id, which is {device}");
            findings.push(Finding::info("env", message));
        }
    }
}

const SMALLEST_SLOT: u32 = 1024;

fn check_sizes(config: &InstanceConfig, facts: &LintFacts<'_>, findings: &mut Vec<Finding>) {
    let threads = config.model.threads;
    if threads > facts.cpu_count {
        let message = format!("{threads} threads are more than the {} CPUs", facts.cpu_count);
        findings.push(Finding::warning("model.threads", message).suggest(format!("use {}", facts.cpu_count)));
    }
    let context = effective_number(config, &["--ctx-size", "-c"], config.model.context_size);
    let slots = effective_number(config, &["--parallel", "-np"], u32::from(config.server.parallel)).max(1);
    // 0 lets the engine take the model's own.
    if context != 0 && context / slots < SMALLEST_SLOT {
        let message = format!("{slots} slots share {context} tokens: {} for each", context / slots);
        findings.push(
            Finding::warning("model.context_size", message)
                .suggest(format!("use at least {}", u64::from(slots) * u64::from(SMALLEST_SLOT))),
        );
    }
}

/// What the engine will use: arguments overrule fields.
fn effective_number(config: &InstanceConfig, flags: &[&str], field: u32) -> u32 {
    last_value(&config.args, flags).and_then(|written| written.parse().ok()).unwrap_or(field)
}

/// Flags that give whoever reaches the engine more than answers.
const DANGEROUS: [&str; 7] = [
    "--tools",
    "--mcp-servers-config",
    "--mcp-servers-json",
    "--ui-mcp-proxy",
    "--webui-mcp-proxy",
    "--agent",
    "-ag",
];

fn check_dangerous_flags(config: &InstanceConfig, findings: &mut Vec<Finding>) {
    for flag in DANGEROUS.into_iter().filter(|flag| has_flag(&config.args, &[flag])) {
        let message = format!("{flag} lets whoever reaches the engine act on this machine");
        findings.push(Finding::warning("args", message));
    }
}

/// With this flag the engine forgets the middle of a long conversation and says nothing about it.
fn check_silent_cut(config: &InstanceConfig, findings: &mut Vec<Finding>) {
    let last =
        config.args.iter().rfind(|arg| matches!(arg.as_str(), "--context-shift" | "--no-context-shift"));
    if last.is_some_and(|arg| arg == "--context-shift") {
        let message = "--context-shift cuts long conversations silently instead of refusing them";
        findings
            .push(Finding::warning("args", message).suggest("leave it out, and raise model.context_size"));
    }
}

fn check_lifecycle(config: &InstanceConfig, findings: &mut Vec<Finding>) {
    let lifecycle = &config.lifecycle;
    if !lifecycle.idle_ttl.is_zero() && lifecycle.load != LoadMode::OnDemand {
        let message = "has no effect: only what is loaded on_demand is unloaded";
        findings.push(
            Finding::warning("lifecycle.idle_ttl", message)
                .suggest("set lifecycle.load to on_demand as well"),
        );
    }
}

fn check_engine(config: &InstanceConfig, facts: &LintFacts<'_>, findings: &mut Vec<Finding>) {
    match facts.engines.get(config.name.as_str()) {
        None => {}
        Some(EngineFact::Missing(failure)) => {
            let field = if config.binary.binary_id.is_some() { "binary.binary_id" } else { "binary.version" };
            let finding = if config.binary.is_pinned() {
                Finding::error(field, failure.message.clone())
            } else {
                Finding::warning("", failure.message.clone())
            };
            findings.push(match &failure.hint {
                Some(hint) => finding.suggest(hint),
                None => finding,
            });
        }
        Some(EngineFact::Known(profile)) => {
            let translation = translate(&config.args, profile);
            findings.extend(translation.rejected);
            findings
                .extend(translation.warnings.into_iter().map(|warning| Finding::warning("args", warning)));
            check_device(config, profile, findings);
        }
    }
}

/// A start is never refused for it: the estimate rather says too much.
fn check_memory(instance: &LoadedInstance, facts: &LintFacts<'_>, findings: &mut Vec<Finding>) {
    let config = &instance.config;
    let devices: &[DeviceInfo] = match facts.engines.get(config.name.as_str()) {
        Some(EngineFact::Known(profile)) => &profile.devices,
        _ => &[],
    };
    let model = resolve_model_path(config, &instance.path, facts.home);
    let Some(estimate) = estimate_memory(config, facts.home, &model, devices) else { return };
    for (place, share) in estimate.places.iter().filter(|_| !estimate.at_most) {
        let there = match place {
            Place::Host => facts.host_memory,
            Place::Device(id) => devices.iter().find(|device| device.id == *id).map(|it| it.memory_total),
        };
        let needed = share.total();
        let Some(there) = there.filter(|there| *there < needed) else { continue };
        let (field, whose) = match place {
            Place::Host => ("model.path", "this machine".to_owned()),
            Place::Device(id) => ("gpu.layers", id.clone()),
        };
        let message = format!("takes about {needed} of the memory of {whose}, which has {there}");
        findings.push(
            Finding::warning(field, message)
                .suggest("use a smaller context or model, or fewer layers on the device"),
        );
    }
}

fn check_device(config: &InstanceConfig, profile: &EngineProfile, findings: &mut Vec<Finding>) {
    // An engine without any flags was not really probed.
    if config.gpu.backend == Backend::Cpu || profile.flags.is_empty() {
        return;
    }
    let count = profile.devices.iter().filter(|device| belongs(device, config.gpu.backend)).count();
    // With one engine for each device no other device is asked for.
    let per_device = config.replicas == Replicas::PerDevice;
    let exists = per_device || config.gpu.device_id.is_none_or(|device| (device as usize) < count);
    if exists && count > 0 {
        return;
    }
    let message = match count {
        0 => format!("the engine lists no {} device", config.gpu.backend),
        _ => format!("the engine lists {count} {} devices, counted from 0", config.gpu.backend),
    };
    let field = if per_device { "replicas" } else { "gpu.device_id" };
    findings.push(Finding::warning(field, message).suggest("see `llama-orch engine devices`"));
}
