//! The model's file.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use orch_core::{ExitCode, Failure, HomeLayout};

use crate::InstanceConfig;
use crate::memory::{companion_files, parts_of};

/// Where the model of the config in `config_file` lies: relative paths start from that file's folder, then from the home. A file that is in neither
/// place is named as the home would hold it. References (`hf:owner/repo:file.gguf`) name a file of the home's models.
pub fn resolve_model_path(config: &InstanceConfig, config_file: &Path, home: &HomeLayout) -> PathBuf {
    let written = config.model.path.as_str();
    if let Some(reference) = strip_scheme(written, "hf:") {
        return referenced_path(reference, home);
    }
    config_file
        .parent()
        .into_iter()
        .chain([home.root()])
        .flat_map(|base| [base.join(written), base.join(native_path(written))])
        .find(|path| path.is_file())
        .unwrap_or_else(|| home.root().join(native_path(written)))
}

/// Every file that an instance's answers come from: the model with all its parts, and what is loaded beside it. They
/// need not be there.
pub fn weight_files(config: &InstanceConfig, config_file: &Path, home: &HomeLayout) -> Vec<PathBuf> {
    let model = resolve_model_path(config, config_file, home);
    let mut files = parts_of(&model).unwrap_or_else(|| vec![model]);
    files.extend(companion_files(config, home));
    files
}

fn strip_scheme<'a>(text: &'a str, scheme: &str) -> Option<&'a str> {
    let (head, rest) = text.split_at_checked(scheme.len())?;
    head.eq_ignore_ascii_case(scheme).then_some(rest)
}

/// `owner/repo[@rev][:file]` in the folder that pulled models of that repository have.
fn referenced_path(reference: &str, home: &HomeLayout) -> PathBuf {
    let (repository, file) = reference.split_once(':').unwrap_or((reference, ""));
    let repository = repository.split('@').next().unwrap_or(repository);
    let plain = |part: &str| part.replace(['/', '\\'], "__").replace("..", "__");
    let folder = home.models().join(plain(repository));
    if file.is_empty() { folder } else { folder.join(plain(file)) }
}

/// A path as this system writes it: configs come from every system.
pub(crate) fn native_path(written: &str) -> PathBuf {
    if cfg!(windows) { PathBuf::from(written) } else { PathBuf::from(written.replace('\\', "/")) }
}

/// Refuses what no engine could load: exit 54 when it is not there, 55 when it is no GGUF file.
pub fn check_model(path: &Path) -> Result<(), Failure> {
    let metadata = std::fs::metadata(path).map_err(|error| io_failure(path, &error))?;
    let invalid =
        |reason: &str| Failure::new(ExitCode::ModelInvalid, format!("model {} {reason}", path.display()));
    if !metadata.is_file() {
        return Err(invalid("is not a file"));
    }
    if metadata.len() == 0 {
        return Err(invalid("is empty"));
    }
    let mut magic = [0; 4];
    match File::open(path).and_then(|mut file| file.read_exact(&mut magic)) {
        Ok(()) if &magic == b"GGUF" => Ok(()),
        Ok(()) => Err(invalid("is not a GGUF file")),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Err(invalid("is not a GGUF file")),
        Err(error) => Err(io_failure(path, &error)),
    }
}

fn io_failure(path: &Path, error: &io::Error) -> Failure {
    match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => {
            Failure::new(ExitCode::ModelNotFound, format!("there is no model {}", path.display()))
                .hint("put the file there, or change model.path")
        }
        io::ErrorKind::PermissionDenied => Failure::new(
            ExitCode::PermissionDenied,
            format!("model {} cannot be read: {error}", path.display()),
        ),
        _ => {
            Failure::new(ExitCode::ModelInvalid, format!("model {} cannot be read: {error}", path.display()))
        }
    }
}
