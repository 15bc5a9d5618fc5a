//! Graphics devices, as their drivers tell of them.

use std::fmt;

use pool_manager::stats::DeviceUsage;
use prometheus_client::encoding::DescriptorEncoder;

use super::gauges;

pub(super) fn memory(encoder: &mut DescriptorEncoder<'_>, devices: &[DeviceUsage]) -> Result<(), fmt::Error> {
    let values = devices.iter().filter_map(|device| Some((labels(device), device.memory_used?.0 as f64)));
    gauges(encoder, "vram_used_bytes", "Memory in use on a graphics device, whoever holds it", values)
}

pub(super) fn utilization(
    encoder: &mut DescriptorEncoder<'_>,
    devices: &[DeviceUsage],
) -> Result<(), fmt::Error> {
    let values = devices.iter().filter_map(|device| Some((labels(device), device.utilization?)));
    gauges(encoder, "gpu_utilization", "Busy share of a graphics device, 0 to 1", values)
}

fn labels(device: &DeviceUsage) -> Vec<(&'static str, String)> {
    vec![("device", device.device.clone())]
}
