//! Tools, real and scripted.

#![expect(clippy::disallowed_methods, reason = "the port that is tested here runs programs")]

use std::io;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use engine_provisioner::{ToolRun, ToolRunner};

/// Runs real programs, without the limit that the product's runner keeps: the programs here end by themselves.
pub(crate) struct Programs;

impl ToolRunner for Programs {
    fn run(
        &self,
        program: &Path,
        args: &[String],
        env: &[(String, String)],
        _limit: Duration,
        on_line: &mut dyn FnMut(&str),
    ) -> io::Result<ToolRun> {
        let environment = env.iter().map(|(name, value)| (name, value));
        let output = Command::new(program).args(args).envs(environment).stdin(Stdio::null()).output()?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let run = ToolRun {
            exit_code: output.status.code(),
            stdout: text(&output.stdout),
            stderr: text(&output.stderr),
        };
        run.stdout.lines().for_each(on_line);
        Ok(run)
    }
}

/// What a scripted tool was asked.
#[derive(Clone, Debug)]
pub(crate) struct Call {
    pub(crate) program: String,
    pub(crate) args: Vec<String>,
    pub(crate) env: Vec<(String, String)>,
}

type Answer = dyn Fn(&Call) -> io::Result<ToolRun> + Send + Sync;

/// Answers as a test says and remembers the calls. What it does not answer for runs for real.
pub(crate) struct Scripted {
    answer: Box<Answer>,
    calls: Mutex<Vec<Call>>,
}

impl Scripted {
    pub(crate) fn new(answer: impl Fn(&Call) -> io::Result<ToolRun> + Send + Sync + 'static) -> Self {
        Self { answer: Box::new(answer), calls: Mutex::default() }
    }

    pub(crate) fn calls(&self) -> Vec<Call> {
        self.calls.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl ToolRunner for Scripted {
    fn run(
        &self,
        program: &Path,
        args: &[String],
        env: &[(String, String)],
        limit: Duration,
        on_line: &mut dyn FnMut(&str),
    ) -> io::Result<ToolRun> {
        if program.is_absolute() && program.ends_with("llama-server") {
            return Programs.run(program, args, env, limit, on_line);
        }
        let program = program.to_string_lossy().into_owned();
        let call = Call { program, args: args.to_vec(), env: env.to_vec() };
        self.calls.lock().unwrap_or_else(PoisonError::into_inner).push(call.clone());
        let run = (self.answer)(&call)?;
        run.stdout.lines().for_each(on_line);
        Ok(run)
    }
}

/// A tool that ended with this code and these last words.
pub(crate) fn ended(exit_code: i32, stderr: &str) -> ToolRun {
    ToolRun { exit_code: Some(exit_code), stdout: String::new(), stderr: stderr.to_owned() }
}
