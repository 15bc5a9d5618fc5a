//! Asking an executable what it is and what it can do.

use std::collections::BTreeSet;
use std::io;
use std::path::Path;
use std::time::Duration;

use orch_core::{ByteCount, DeviceInfo, EngineProfile, Failure};

use crate::faults;
use crate::ports::{ToolRun, ToolRunner};

/// A first start may read a cold disk; none of these loads a model.
const ANSWER_LIMIT: Duration = Duration::from_secs(15);
/// GPU drivers may take their time to wake.
const DEVICES_LIMIT: Duration = Duration::from_secs(30);
/// A file that was just written counts as busy while a child that another thread is spawning still holds its
/// copy of the writer's handle: a moment.
const BUSY_ATTEMPTS: usize = 50;
const BUSY_PAUSE: Duration = Duration::from_millis(20);
const HELP_LINES: usize = 5000;
const DEVICES: usize = 256;

/// Runs `--version`, `--help` and `--list-devices`. Blocking.
///
/// An executable that cannot even say its version is no engine (51). One that does not explain itself is taken
/// with an empty flag list, which refuses nothing.
pub fn probe(executable: &Path, runner: &dyn ToolRunner) -> Result<EngineProfile, Failure> {
    let version = ask(runner, executable, "--version", ANSWER_LIMIT)
        .map_err(|error| does_not_start(executable, &error.to_string()))?;
    if !version.succeeded() {
        return Err(does_not_start(executable, &describe_end(&version)));
    }
    let successful = |run: io::Result<ToolRun>| run.ok().filter(ToolRun::succeeded);
    let help = successful(ask(runner, executable, "--help", ANSWER_LIMIT));
    let devices = successful(ask(runner, executable, "--list-devices", DEVICES_LIMIT));
    Ok(EngineProfile {
        executable: std::path::absolute(executable).unwrap_or_else(|_| executable.to_owned()),
        version: parse_version(&version.stderr).or_else(|| parse_version(&version.stdout)),
        flags: help.map(|run| parse_flags(&run.stdout)).unwrap_or_default(),
        devices: devices.map(|run| parse_devices(&run.stdout)).unwrap_or_default(),
    })
}

/// The devices that an executable lists, with what is free on them now. Blocking; empty where it does not answer.
pub fn list_devices(executable: &Path, runner: &dyn ToolRunner) -> Vec<DeviceInfo> {
    let run = ask(runner, executable, "--list-devices", DEVICES_LIMIT).ok().filter(ToolRun::succeeded);
    run.map(|run| parse_devices(&run.stdout)).unwrap_or_default()
}

fn ask(runner: &dyn ToolRunner, executable: &Path, flag: &str, limit: Duration) -> io::Result<ToolRun> {
    for _ in 0..BUSY_ATTEMPTS {
        match runner.run(executable, &[flag.to_owned()], &[], limit, &mut |_| {}) {
            Err(error) if error.kind() == io::ErrorKind::ExecutableFileBusy => {
                std::thread::park_timeout(BUSY_PAUSE);
            }
            outcome => return outcome,
        }
    }
    Err(io::ErrorKind::ExecutableFileBusy.into())
}

fn does_not_start(executable: &Path, why: &str) -> Failure {
    faults::invalid(format!("{} does not start: {why}", executable.display()))
        .hint("check that it is a llama-server for this machine and that its libraries are there")
}

fn describe_end(run: &ToolRun) -> String {
    let end = run.exit_code.map_or("killed by a signal".to_owned(), |code| format!("exit code {code}"));
    let words = run.last_words();
    if words.is_empty() { end } else { format!("{end}: {words}") }
}

/// `version: 5123 (commit)` of old, `version: 0.6.0-dev (build 11434, commit …)` of today. A build number of 0
/// means that the builder did not know it.
fn parse_version(output: &str) -> Option<String> {
    let line = output.lines().find_map(|line| line.trim().strip_prefix("version:"))?.trim();
    let name = line.split_whitespace().next()?;
    let build = line.split_once("(build ").and_then(|(_, rest)| rest.split([',', ')']).next());
    match (name.parse::<u64>(), build.and_then(|number| number.trim().parse::<u64>().ok())) {
        (Ok(number), _) | (Err(_), Some(number)) if number > 0 => Some(format!("b{number}")),
        _ => Some(name.to_owned()),
    }
}

/// Every flag that a help text offers. Flags it lists only to say that they are gone do not count.
fn parse_flags(help: &str) -> BTreeSet<String> {
    let mut flags = BTreeSet::new();
    let lines =
        help.lines().take(HELP_LINES).filter(|line| line.starts_with('-') && !line.starts_with("-----"));
    for line in lines.filter(|line| !line.contains("argument has been removed")) {
        for word in line.split_whitespace() {
            let flag = word.trim_end_matches(',');
            if flag.len() < 2 || !flag.starts_with('-') {
                break;
            }
            flags.insert(flag.to_owned());
            // The last name of a flag has no comma; what follows is its value and its description.
            if flag.len() == word.len() {
                break;
            }
        }
    }
    flags
}

/// `  CUDA0: NVIDIA GeForce RTX 4060 Ti (16379 MiB, 14900 MiB free)`.
fn parse_devices(output: &str) -> Vec<DeviceInfo> {
    output.lines().filter_map(parse_device).take(DEVICES).collect()
}

fn parse_device(line: &str) -> Option<DeviceInfo> {
    let (id, rest) = line.trim().split_once(": ")?;
    let (name, memory) = rest.strip_suffix(')')?.rsplit_once('(')?;
    let (total, free) = memory.split_once(',')?;
    let mebibytes = |text: &str| text.split_whitespace().next()?.parse().ok().map(ByteCount::from_mib);
    Some(DeviceInfo {
        id: id.to_owned(),
        name: name.trim().to_owned(),
        memory_total: mebibytes(total)?,
        memory_free: mebibytes(free)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_old_and_new_are_understood() {
        let cases = [
            ("version: 5123 (abc1234)\nbuilt with cc", Some("b5123")),
            ("version: 0.6.0-dev (build 11434, commit abc)", Some("b11434")),
            ("version: 0.6.0-dev (build 0, commit unknown)\nbuilt", Some("0.6.0-dev")),
            ("ggml: loading\n version: 7 (x)", Some("b7")),
            ("hello", None),
            ("version:", None),
        ];
        for (output, expected) in cases {
            assert_eq!(parse_version(output).as_deref(), expected, "{output}");
        }
    }

    #[test]
    fn flags_are_read_with_all_their_names_and_nothing_else() {
        let help = "\
----- common params -----

-h,    --help, --usage                  print usage and exit
-kvo,  --kv-offload, -nkvo, --no-kv-offload
                                        whether to enable KV offloading
-c,    --ctx-size N                     size of the prompt context, -1 = auto
--cpu-strict <0|1>                      use strict CPU placement
--draft, --draft-n N                    the argument has been removed. use --spec-draft-n-max
                                        - none: no special mode";
        let flags: Vec<String> = parse_flags(help).into_iter().collect();
        let expected = [
            "--cpu-strict",
            "--ctx-size",
            "--help",
            "--kv-offload",
            "--no-kv-offload",
            "--usage",
            "-c",
            "-h",
            "-kvo",
            "-nkvo",
        ];
        assert_eq!(flags, expected);
    }

    #[test]
    fn devices_are_read_with_their_memory() {
        let output = "Available devices:\n  CUDA0: NVIDIA GeForce RTX 4060 Ti (16379 MiB, 14900 MiB free)\n  \
                      Vulkan0: AMD Radeon (TM) Graphics (RADV) (512 MiB, 256 MiB free)\n";
        let devices = parse_devices(output);
        assert_eq!(devices[0].name, "NVIDIA GeForce RTX 4060 Ti");
        assert_eq!((devices[0].id.as_str(), devices[0].memory_free), ("CUDA0", ByteCount::from_mib(14900)));
        assert_eq!(devices[1].name, "AMD Radeon (TM) Graphics (RADV)");
        assert!(parse_devices("Available devices:\n  (none)\n").is_empty());
    }
}
