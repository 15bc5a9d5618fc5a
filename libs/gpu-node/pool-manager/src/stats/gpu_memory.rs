//! Memory that processes hold on graphics devices, as drivers tell it. Where none tells, nothing is known.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use engine_process::{ToolCommand, run_tool};
use orch_core::ByteCount;

/// NVIDIA's own tool takes a tenth of a second and more: it is not asked at every look.
const PACE: Duration = Duration::from_secs(2);
const LIMIT: Duration = Duration::from_millis(1500);
const TOOL: &str = "nvidia-smi";

/// Remembers what NVIDIA's driver said last, and whether there is one.
#[derive(Clone, Debug, Default)]
pub(crate) struct GpuMemory {
    asked: Option<Instant>,
    absent: bool,
    known: HashMap<u32, ByteCount>,
}

impl GpuMemory {
    /// The memory of these processes. Blocks for as long as the driver's tool takes, within a limit.
    pub(crate) fn look(mut self, pids: &[u32]) -> (Self, HashMap<u32, ByteCount>) {
        if pids.is_empty() {
            return (self, HashMap::new());
        }
        let told: HashMap<u32, ByteCount> =
            pids.iter().filter_map(|pid| Some((*pid, engine_process::video_memory(*pid)?))).collect();
        if told.len() == pids.len() {
            return (self, told);
        }
        if !self.absent && self.asked.is_none_or(|at| at.elapsed() >= PACE) {
            self.ask_nvidia();
        }
        let mut memory = self.known.clone();
        memory.extend(told);
        (self, memory)
    }

    fn ask_nvidia(&mut self) {
        let query = ["--query-compute-apps=pid,used_memory", "--format=csv,noheader,nounits"];
        let command = ToolCommand {
            program: TOOL.into(),
            args: query.map(Into::into).to_vec(),
            ..ToolCommand::default()
        };
        match run_tool(&command, LIMIT, &mut |_| {}) {
            Ok(output) if output.status.success() => self.known = read_processes(&output.stdout),
            // Not installed: it will not be while this process lives.
            Err(engine_process::ToolError::Spawn { .. }) => self.absent = true,
            Ok(_) | Err(_) => self.known.clear(),
        }
        self.asked = Some(Instant::now());
    }
}

/// `pid, MiB` a line; a process on several devices has several. A driver that may not tell writes `[N/A]`.
fn read_processes(text: &str) -> HashMap<u32, ByteCount> {
    let mut memory: HashMap<u32, ByteCount> = HashMap::new();
    for line in text.lines() {
        let Some((pid, mebibytes)) = line.split_once(',') else { continue };
        let (Ok(pid), Ok(mebibytes)) = (pid.trim().parse(), mebibytes.trim().parse::<u64>()) else {
            continue;
        };
        let bytes = mebibytes.saturating_mul(1024 * 1024);
        let held = memory.entry(pid).or_insert(ByteCount(0));
        held.0 = held.0.saturating_add(bytes);
    }
    memory
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_on_two_devices_holds_the_sum_and_an_untold_one_nothing_known() {
        let told = read_processes("1234, 512\n1234, 1024\n77, [N/A]\nNo running processes found\n, \n");
        assert_eq!(told.get(&1234), Some(&ByteCount(1536 << 20)));
        assert_eq!(told.len(), 1);
    }

    #[test]
    fn no_process_means_no_question() {
        let (memory, told) = GpuMemory::default().look(&[]);
        assert!(memory.asked.is_none() && told.is_empty());
    }
}
