//! The engines of one instance: how many there are, and what each has for itself.

use orch_core::{EngineProfile, ExitCode, Failure, ReplicaId};

use crate::command::{DEVICE_FLAGS, mask_variables};
use crate::finding::Finding;
use crate::memory::belongs;
use crate::{Backend, InstanceConfig, LoadedInstance, Replicas};

/// The field that says how many engines an instance has.
const FIELD: &str = "replicas";

impl InstanceConfig {
    /// The config as one of the replicas has it: those after the first have a free port, and with `per_device` each
    /// has the device of its own number.
    #[must_use]
    pub fn of_replica(&self, replica: ReplicaId) -> Self {
        let mut own = self.clone();
        if replica != ReplicaId::FIRST {
            own.server.port = 0;
        }
        if self.replicas == Replicas::PerDevice && self.gpu.backend != Backend::Cpu {
            own.gpu.device_id = Some(u32::from(replica.0));
        }
        own
    }

    /// How many engines this instance has, told without knowledge of the machine: `None` where its devices decide.
    pub fn fixed_replicas(&self) -> Option<u16> {
        match self.replicas {
            Replicas::Count(count) => Some(count.max(1)),
            Replicas::PerDevice => None,
        }
    }

    /// How many engines this instance has beside the devices of the one it is started with. One for each device needs
    /// a device.
    pub fn replica_count(&self, profile: &EngineProfile) -> Result<u16, Failure> {
        if let Some(count) = self.fixed_replicas() {
            return Ok(count);
        }
        let devices = profile.devices.iter().filter(|device| belongs(device, self.gpu.backend)).count();
        let devices = devices.min(usize::from(MAX));
        if let Some(count) = u16::try_from(devices).ok().filter(|count| *count > 0) {
            return Ok(count);
        }
        let (name, backend) = (&self.name, self.gpu.backend);
        let message = match backend {
            Backend::Cpu => format!("{name}: replicas is per_device, and the cpu backend has no devices"),
            _ => format!(
                "{name}: replicas is per_device, but {} lists no {backend} device",
                profile.executable.display()
            ),
        };
        Err(Failure::new(ExitCode::ConfigInvalid, message).hint(format!(
            "see `llama-orch engine devices`, or set a number: llama-orch config set {name} replicas=1"
        )))
    }
}

/// More engines than this are not one instance's.
pub(crate) const MAX: u16 = 64;

impl LoadedInstance {
    /// This instance as one of its replicas has it: see [`InstanceConfig::of_replica`].
    #[must_use]
    pub fn of_replica(&self, replica: ReplicaId) -> Self {
        Self { config: self.config.of_replica(replica), ..self.clone() }
    }
}

/// What keeps one engine for each device from being that.
pub(crate) fn check(config: &InstanceConfig, findings: &mut Vec<Finding>) {
    if config.replicas != Replicas::PerDevice {
        return;
    }
    if config.gpu.backend == Backend::Cpu {
        let finding = Finding::error(FIELD, "per_device needs a GPU backend, the cpu has no devices");
        return findings.push(finding.suggest("set gpu.backend, or a number of replicas"));
    }
    let masks = mask_variables(config.gpu.backend);
    let chosen = masks.iter().find(|name| config.env.contains_key(**name)).map(|name| format!("env.{name}"));
    let chosen = chosen.or_else(|| {
        let flag = DEVICE_FLAGS.iter().find(|flag| crate::arguments::has_flag(&config.args, &[flag]))?;
        Some(format!("{flag} in args"))
    });
    if let Some(chosen) = chosen {
        let message = format!("{chosen} chooses the devices: all replicas get the same, not one each");
        findings.push(Finding::warning(FIELD, message));
    }
}
