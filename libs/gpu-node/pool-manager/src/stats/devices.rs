//! What graphics devices do now, as their drivers tell it. Where none tells, nothing is known.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use engine_process::{ToolCommand, run_tool};
use orch_core::ByteCount;
use tokio::sync::Mutex;

/// NVIDIA's own tool takes a tenth of a second and more: looks closer together than this share one.
const SHARED: Duration = Duration::from_secs(2);
const LIMIT: Duration = Duration::from_millis(1500);
const TOOL: &str = "nvidia-smi";
/// Where Linux shows its graphics cards; AMD's driver tells of memory and load there.
const CARDS: &str = "/sys/class/drm";

/// One device, named as its driver numbers it.
#[derive(Clone, Debug, PartialEq)]
pub struct DeviceUsage {
    /// `nvidia0`, `amd-card1`.
    pub device: String,
    pub memory_used: Option<ByteCount>,
    /// Busy share of the last moments, 0 to 1.
    pub utilization: Option<f64>,
}

/// Asks drivers when somebody wants to know. Clones share the last answer.
#[derive(Clone, Debug, Default)]
pub struct Devices {
    last: Arc<Mutex<Look>>,
}

#[derive(Clone, Debug, Default)]
struct Look {
    asked: Option<Instant>,
    /// NVIDIA's tool is not installed: it will not be while this process lives.
    no_nvidia: bool,
    devices: Vec<DeviceUsage>,
}

impl Devices {
    /// What all devices do now.
    pub async fn read(&self) -> Vec<DeviceUsage> {
        let mut last = self.last.lock().await;
        if last.asked.is_none_or(|at| at.elapsed() >= SHARED) {
            let look = last.clone();
            if let Ok(look) = tokio::task::spawn_blocking(move || look.again()).await {
                *last = look;
            }
        }
        last.devices.clone()
    }
}

impl Look {
    fn again(mut self) -> Self {
        self.devices = amd_cards(Path::new(CARDS));
        if !self.no_nvidia {
            let nvidia = self.ask_nvidia();
            self.devices.extend(nvidia);
        }
        self.asked = Some(Instant::now());
        self
    }

    fn ask_nvidia(&mut self) -> Vec<DeviceUsage> {
        let query = ["--query-gpu=index,memory.used,utilization.gpu", "--format=csv,noheader,nounits"];
        let command = ToolCommand {
            program: TOOL.into(),
            args: query.map(Into::into).to_vec(),
            ..ToolCommand::default()
        };
        match run_tool(&command, LIMIT, &mut |_| {}) {
            Ok(output) if output.status.success() => read_nvidia(&output.stdout),
            Err(engine_process::ToolError::Spawn { .. }) => {
                self.no_nvidia = true;
                Vec::new()
            }
            Ok(_) | Err(_) => Vec::new(),
        }
    }
}

/// `index, MiB, percent` a line; what the driver may not tell is `[N/A]`.
fn read_nvidia(text: &str) -> Vec<DeviceUsage> {
    let device = |line: &str| {
        let mut fields = line.split(',').map(str::trim);
        let index: u32 = fields.next()?.parse().ok()?;
        let memory = fields.next()?.parse().ok().map(ByteCount::from_mib);
        let percent: Option<f64> = fields.next()?.parse().ok();
        Some(DeviceUsage {
            device: format!("nvidia{index}"),
            memory_used: memory,
            utilization: percent.map(|percent| percent / 100.0),
        })
    };
    text.lines().filter_map(device).collect()
}

/// The cards whose driver tells how much of their memory is used: AMD's.
fn amd_cards(cards: &Path) -> Vec<DeviceUsage> {
    let Ok(entries) = std::fs::read_dir(cards) else { return Vec::new() };
    let number = |path: &Path, file: &str| -> Option<u64> {
        std::fs::read_to_string(path.join("device").join(file)).ok()?.trim().parse().ok()
    };
    let card = |entry: std::fs::DirEntry| {
        let name = entry.file_name().into_string().ok()?;
        let digits = name.strip_prefix("card")?;
        // `card0-HDMI-A-1` is a connector of it.
        digits.parse::<u32>().ok()?;
        let memory = number(&entry.path(), "mem_info_vram_used")?;
        let percent = number(&entry.path(), "gpu_busy_percent");
        Some(DeviceUsage {
            device: format!("amd-{name}"),
            memory_used: Some(ByteCount(memory)),
            utilization: percent.map(|percent| percent as f64 / 100.0),
        })
    };
    let mut devices: Vec<DeviceUsage> = entries.filter_map(Result::ok).filter_map(card).collect();
    devices.sort_by(|one, other| one.device.cmp(&other.device));
    devices
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_driver_may_not_tell_is_absent() {
        let told = read_nvidia("0, 512, 37\n1, [N/A], [N/A]\nNVIDIA-SMI has failed\n\n");
        let expected = [
            DeviceUsage {
                device: "nvidia0".to_owned(),
                memory_used: Some(ByteCount::from_mib(512)),
                utilization: Some(0.37),
            },
            DeviceUsage { device: "nvidia1".to_owned(), memory_used: None, utilization: None },
        ];
        assert_eq!(told, expected);
    }

    #[test]
    fn cards_that_tell_of_their_memory_are_devices_and_their_connectors_are_not() {
        let folder = tempfile::tempdir().unwrap();
        let write = |path: &str, text: &str| {
            let path = folder.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        write("card1/device/mem_info_vram_used", "1048576\n");
        write("card1/device/gpu_busy_percent", "50\n");
        write("card1-DP-1/device/mem_info_vram_used", "1\n");
        write("card0/device/vendor", "0x8086\n");
        let expected = DeviceUsage {
            device: "amd-card1".to_owned(),
            memory_used: Some(ByteCount(1_048_576)),
            utilization: Some(0.5),
        };
        assert_eq!(amd_cards(folder.path()), [expected]);
        assert_eq!(amd_cards(&folder.path().join("nowhere")), []);
    }
}
