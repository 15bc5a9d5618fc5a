//! A run that is killed at any byte of its journal, and resumed: the same results, nothing outside done twice, no
//! model asked again for a step that had finished.
//!
//! The kernel kills: with a limit on the size of files, the process dies by a signal at exactly that byte, in the
//! middle of the write if need be.

#![cfg(target_os = "linux")]
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;
use testkit::provider::{FakeProvider, Script};
use testkit::{ProgramRun, TempHome, bin_path, run};

const JOB: &str = "fifty";

/// Fifty steps: a chain of questions and a crowd of them, files in every mode, a map, and commands with an effect
/// that must not happen twice.
fn spec(effects: &Path) -> String {
    let mut text = String::from(
        "version: 1\nproject: fifty\nlimits: { steps: 3 }\nsteps:\n  seeds: { pass: { value: [1, 2, 3, 4, 5] } }\n",
    );
    for at in 0..20 {
        let before = match at {
            0 => String::new(),
            _ => format!(" after {{{{ steps.chain{}.output.text | length }}}}", at - 1),
        };
        let files = format!("[ {{ path: chain/{at}.txt, from: output.text, mode: overwrite }} ]");
        writeln!(
            text,
            "  chain{at}: {{ llm: {{ model: m, prompt: \"chain {at}.{before}\" }}, files: {files} }}"
        )
        .unwrap();
    }
    for at in 0..15 {
        writeln!(text, "  crowd{at}: {{ llm: {{ model: m, prompt: \"crowd {at}.\" }} }}").unwrap();
    }
    for at in 0..4 {
        let script = format!("echo effect-{at} $LLAMA_ORCH_IDEMPOTENCY_KEY >> {}", effects.display());
        writeln!(
            text,
            "  effect{at}: {{ run: {{ argv: [sh, -c, \"{script}\"] }}, effect: external, needs: [chain{at}] }}"
        )
        .unwrap();
    }
    text.push_str("  mapped: { llm: { model: m, prompt: \"mapped {{ item }}.\" }, map: { over: steps.seeds.output.json } }\n");
    for at in 0..4 {
        let needs = if at == 0 { "crowd0".to_owned() } else { format!("log{}", at - 1) };
        writeln!(
            text,
            "  log{at}: {{ pass: {{ value: \"line {at}\\n\" }}, needs: [{needs}], \
             files: [ {{ path: log.txt, from: output.text, mode: append }} ] }}"
        )
        .unwrap();
    }
    text
}

/// One home with a provider of its own, so that what is counted is this job's.
struct Scene {
    home: TempHome,
    provider: FakeProvider,
    effects: PathBuf,
    spec: PathBuf,
}

impl Scene {
    fn new() -> Self {
        let home = TempHome::new();
        let effects = home.scratch().join("effects");
        let spec_path = home.scratch().join("job.yaml");
        fs::write(&spec_path, spec(&effects)).unwrap();
        Self { home, provider: FakeProvider::start(Script::default()), effects, spec: spec_path }
    }

    fn command(&self, program: &str) -> Command {
        let mut command = self.home.command(program);
        command.env("PROVIDER", "openai").env("OPENAI_API_KEY", "none");
        command.env("OPENAI_BASE_URL", format!("{}/v1", self.provider.url()));
        command
    }

    /// Runs the job; files may grow to `limit` bytes, then the kernel kills.
    #[expect(clippy::disallowed_methods, reason = "the limit is set by a program that then becomes ours")]
    fn run_until(&self, limit: u64) -> ProgramRun {
        let mut command = self.command("llama-orch");
        let program = bin_path("llama-orch");
        let mut limited = Command::new("prlimit");
        limited.arg(format!("--fsize={limit}")).arg("--core=0").arg(program);
        limited.args(["-q", "run", "--job-id", JOB, "--spec"]).arg(&self.spec);
        limited.env_clear();
        for (name, value) in command.get_envs() {
            if let Some(value) = value {
                limited.env(name, value);
            }
        }
        limited.env("PATH", std::env::var_os("PATH").unwrap_or_default());
        limited.current_dir(self.home.scratch());
        command.arg("--version");
        run(limited)
    }

    fn resume(&self) -> ProgramRun {
        let mut command = self.command("llama-orch");
        command.args(["-q", "run", "--job-id", JOB, "--resume", "--spec"]).arg(&self.spec);
        run(command)
    }

    fn folder(&self) -> PathBuf {
        self.home.layout().runs().join(JOB)
    }

    /// The whole lines of the journal, as far as they can be read.
    fn journal(&self) -> Vec<Value> {
        let text = fs::read(self.folder().join("events.jsonl")).unwrap_or_default();
        let lines = text.split(|byte| *byte == b'\n');
        lines.map_while(|line| serde_json::from_slice(line).ok()).collect()
    }

    /// The effects that happened, and how often.
    fn effects(&self) -> BTreeMap<String, usize> {
        let text = fs::read_to_string(&self.effects).unwrap_or_default();
        let mut seen = BTreeMap::new();
        for line in text.lines() {
            let (name, key) = line.split_once(' ').unwrap();
            assert!(!key.is_empty(), "an external step is told its idempotency key");
            *seen.entry(name.to_owned()).or_insert(0) += 1;
        }
        seen
    }

    /// Answers every question about an effect whose outcome is unknown, by looking whether it happened.
    fn settle_unknown_effects(&self) {
        let mut open = BTreeSet::new();
        for event in self.journal() {
            let step = event["step"].as_str().unwrap_or_default().to_owned();
            match event["type"].as_str().unwrap() {
                "gate.waiting" => open.insert(step),
                "gate.decided" => open.remove(&step),
                _ => continue,
            };
        }
        assert!(!open.is_empty(), "a job that waits says at which gate");
        for step in open {
            let name = step.replace("effect", "effect-");
            let choice = if self.effects().contains_key(&name) { "done" } else { "repeat" };
            self.home.llama_orch(&["decide", JOB, &step, choice]).expect_exit(0);
        }
    }

    /// Resumes until the job has ended.
    fn resume_to_the_end(&self) {
        for _ in 0..6 {
            let run = self.resume();
            if run.exit_code == Some(0) {
                return;
            }
            run.expect_exit(73);
            self.settle_unknown_effects();
        }
        panic!("the job does not end");
    }

    /// Every file below `outputs`, with its content.
    fn outputs(&self) -> BTreeMap<PathBuf, Vec<u8>> {
        let mut files = BTreeMap::new();
        let top = self.folder().join("outputs");
        let mut folders = vec![top.clone()];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder).into_iter().flatten().map(Result::unwrap) {
                let (path, name) = (entry.path(), entry.file_name());
                if entry.file_type().unwrap().is_dir() {
                    folders.push(path);
                } else if !name.to_string_lossy().starts_with('.') {
                    files.insert(path.strip_prefix(&top).unwrap().to_owned(), fs::read(&path).unwrap());
                }
            }
        }
        files
    }

    /// The prompts of steps that the journal calls finished.
    fn finished(&self) -> BTreeSet<String> {
        let done = self.journal().into_iter().filter(|event| event["type"] == "step.succeeded");
        done.map(|event| event["step"].as_str().unwrap().to_owned()).collect()
    }

    /// How often the model was asked for each step.
    fn asked(&self) -> BTreeMap<String, u64> {
        let prompts = self.provider.stats().prompts;
        let step = |prompt: &str| {
            let (head, _) = prompt.split_once('.').unwrap();
            let (name, at) = head.split_once(' ').unwrap();
            if name == "mapped" {
                format!("mapped[{}]", at.parse::<u32>().unwrap() - 1)
            } else {
                format!("{name}{at}")
            }
        };
        prompts.iter().map(|(prompt, count)| (step(prompt), *count)).collect()
    }
}

/// What an uninterrupted run leaves, and the length of its journal by record.
fn reference() -> (BTreeMap<PathBuf, Vec<u8>>, Vec<u64>) {
    let scene = Scene::new();
    scene.run_until(u64::MAX / 2).expect_exit(0);
    let journal = fs::read(scene.folder().join("events.jsonl")).unwrap();
    let ends = journal.iter().enumerate().filter(|(_, byte)| **byte == b'\n');
    assert!(scene.asked().values().all(|count| *count == 1), "{:?}", scene.asked());
    assert_eq!(scene.effects().values().sum::<usize>(), 4);
    (scene.outputs(), ends.map(|(at, _)| at as u64 + 1).collect())
}

fn killed_at(limit: u64, outputs: &BTreeMap<PathBuf, Vec<u8>>) {
    let scene = Scene::new();
    let run = scene.run_until(limit);
    assert!(run.exit_code != Some(0), "killed at byte {limit}:\n{run}");
    let (finished, before) = (scene.finished(), scene.asked());
    scene.resume_to_the_end();
    assert_eq!(&scene.outputs(), outputs, "killed at byte {limit}");
    let effects = scene.effects();
    assert!(effects.len() == 4 && effects.values().all(|count| *count == 1), "byte {limit}: {effects:?}");
    let after = scene.asked();
    for step in finished {
        assert_eq!(before.get(&step), after.get(&step), "{step} was finished when killed at byte {limit}");
    }
    scene.resume().expect_exit(0);
    assert_eq!(scene.asked(), after, "a finished job asks nobody");
}

/// One in how many records is tried; `WORKFLOW_CRASH_EVERY=1` tries all.
fn every() -> usize {
    std::env::var("WORKFLOW_CRASH_EVERY").ok().and_then(|text| text.parse().ok()).unwrap_or(7)
}

#[test]
fn a_run_killed_after_any_record_ends_as_if_it_had_not_been() {
    let (outputs, records) = reference();
    let (every, last) = (every(), records.len() - 1);
    let chosen: Vec<u64> = records.iter().take(last).step_by(every).copied().collect();
    let next = std::sync::atomic::AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                loop {
                    let at = next.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                    let Some(&limit) = chosen.get(at) else { return };
                    killed_at(limit, &outputs);
                }
            });
        }
    });
}

#[test]
fn a_line_cut_at_any_byte_is_cut_off_and_the_run_goes_on() {
    let (outputs, records) = reference();
    let middle = records.len() / 2;
    let (begin, end) = (records[middle - 1], records[middle]);
    for limit in (begin..=end).step_by(every().pow(2)) {
        killed_at(limit, &outputs);
    }
}
