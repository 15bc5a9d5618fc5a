//! Workflows through the command line, asking a provider on a real socket that does as it is told.

use std::path::PathBuf;
use std::process::{Child, Stdio};

use serde_json::Value;
use testkit::provider::{FakeProvider, Script};
use testkit::{ProgramRun, wait_for_value};

use super::SOON;
use super::home::Home;

/// A home whose workflows ask a provider that does as it is told.
pub(crate) struct Scene {
    pub(crate) home: Home,
    pub(crate) provider: FakeProvider,
}

impl Scene {
    pub(crate) fn new(script: Script) -> Self {
        let home = Home::fake();
        let provider = FakeProvider::start(script);
        let config = format!(
            "[workflow]\nprovider = \"fake\"\n[providers.fake]\nkind = \"openai_compatible\"\nbase_url = \"{}\"\n",
            provider.url()
        );
        std::fs::write(home.path().join("config.toml"), config).expect("the home is writable");
        Self { home, provider }
    }

    /// Writes a spec beside the home.
    pub(crate) fn spec(&self, text: &str) -> String {
        let path = self.home.scratch().join("job.yaml");
        std::fs::write(&path, text).expect("the scratch folder is writable");
        path.to_str().expect("a path of tests is text").to_owned()
    }

    pub(crate) fn run(&self, arguments: &[&str]) -> ProgramRun {
        self.home.run(&[&["run"], arguments].concat())
    }

    #[track_caller]
    pub(crate) fn ok(&self, arguments: &[&str]) -> ProgramRun {
        let run = self.run(arguments);
        run.expect_exit(0);
        run
    }

    pub(crate) fn job(&self, id: &str) -> PathBuf {
        self.home.path().join("runs").join(id)
    }

    pub(crate) fn journal(&self, id: &str) -> PathBuf {
        self.job(id).join("events.jsonl")
    }

    #[track_caller]
    pub(crate) fn events(&self, id: &str) -> Vec<Value> {
        let text = std::fs::read_to_string(self.journal(id)).unwrap_or_default();
        text.lines().map(|line| serde_json::from_str(line).expect("a line is JSON")).collect()
    }

    /// The steps with an event of this type, in its order.
    #[track_caller]
    pub(crate) fn steps(&self, id: &str, kind: &str) -> Vec<String> {
        let events = self.events(id);
        let of_kind = events.iter().filter(|event| event["type"] == kind);
        of_kind.map(|event| event["step"].as_str().unwrap_or_default().to_owned()).collect()
    }

    /// The last event's data, which has to be of this type.
    #[track_caller]
    pub(crate) fn end(&self, id: &str, kind: &str) -> Value {
        let last = self.events(id).pop().expect("a job has events");
        assert_eq!(last["type"], kind, "{last}");
        last["data"].clone()
    }

    /// Starts a run in the background.
    pub(crate) fn start(&self, arguments: &[&str]) -> Running {
        let mut command = self.home.command(&[&["run"], arguments].concat());
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        Running(command.spawn().expect("the program starts"))
    }

    /// How many requests came whose prompt begins like this.
    pub(crate) fn asked(&self, beginning: &str) -> u64 {
        let prompts = self.provider.stats().prompts;
        prompts.iter().filter(|(prompt, _)| prompt.starts_with(beginning)).map(|(_, count)| count).sum()
    }

    /// The steps that were skipped for this reason.
    #[track_caller]
    pub(crate) fn skipped(&self, id: &str, reason: &str) -> Vec<String> {
        let events = self.events(id);
        let skipped = events.iter().filter(|event| event["type"] == "step.skipped");
        let skipped = skipped.filter(|event| event["data"]["reason"] == reason);
        skipped.map(|event| event["step"].as_str().unwrap_or_default().to_owned()).collect()
    }
}

/// Killed when dropped.
pub(crate) struct Running(pub(crate) Child);

impl Running {
    #[track_caller]
    pub(crate) fn exit_code(&mut self) -> Option<i32> {
        wait_for_value("the end of the run", SOON, || self.0.try_wait().expect("the child is ours")).code()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Ended already is as good.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
