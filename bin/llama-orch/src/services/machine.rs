//! The machine that this program runs on.

use std::ffi::OsString;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use atomic_write_file::AtomicWriteFile;
use engine_process::{ToolCommand, run_tool};

use super::install::{Answer, Machine};

/// A service manager that takes longer hangs.
const TOOL_LIMIT: Duration = Duration::from_mins(1);
/// A unit file is a page of text.
const FILE_LIMIT: u64 = 1024 * 1024;

pub(crate) struct ThisMachine;

impl Machine for ThisMachine {
    fn read(&self, file: &Path) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        io::Read::read_to_end(&mut io::Read::take(std::fs::File::open(file)?, FILE_LIMIT), &mut bytes)?;
        Ok(bytes)
    }

    fn write(&self, file: &Path, bytes: &[u8]) -> io::Result<()> {
        if let Some(folder) = file.parent() {
            std::fs::create_dir_all(folder)?;
        }
        let mut output = AtomicWriteFile::open(file)?;
        output.write_all(bytes)?;
        output.commit()
    }

    fn remove(&self, file: &Path) -> io::Result<()> {
        std::fs::remove_file(file)
    }

    fn run(&self, words: &[String]) -> Result<Answer, String> {
        let (program, arguments) = words.split_first().ok_or("an empty command")?;
        let found = on_path(program).ok_or_else(|| format!("{program} is not on this machine"))?;
        let command = ToolCommand {
            program: found,
            args: arguments.iter().map(OsString::from).collect(),
            ..ToolCommand::default()
        };
        let output = run_tool(&command, TOOL_LIMIT, &mut |_| {}).map_err(|error| error.to_string())?;
        let said = [&output.stderr, &output.stdout];
        let last = said.into_iter().find_map(|text| text.lines().rev().find(|line| !line.trim().is_empty()));
        let complaint =
            last.map_or_else(|| output.status.to_string(), |line| line.replace('\0', "").trim().to_owned());
        Ok(Answer { succeeded: output.status.success(), stdout: output.stdout, complaint })
    }

    fn is_administrator(&self) -> bool {
        engine_process::is_administrator()
    }
}

/// The file of a program on the search path.
pub(crate) fn on_path(program: &str) -> Option<PathBuf> {
    let folders = std::env::var_os("PATH")?;
    let names = if cfg!(windows) { vec![format!("{program}.exe")] } else { vec![program.to_owned()] };
    std::env::split_paths(&folders)
        .flat_map(|folder| names.iter().map(move |name| folder.join(name)).collect::<Vec<_>>())
        .find(|path| path.is_file())
}
