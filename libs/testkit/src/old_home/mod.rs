//! A home as the older Python tool leaves it behind: configs in all their shapes, engines, both databases, models,
//! logs.
//!
//! Nothing in it is tidy, because nothing in real ones is. What the shapes are good for is said where they are made;
//! which instance has which follows from its number alone, so that tests can name them.

mod catalog;
mod configs;
mod engines;
mod state;

use std::fs;
use std::path::{Path, PathBuf};

pub use configs::Shape;
pub use engines::OldEngine;

use crate::{TinyModel, write_tiny_model};

/// What to write.
#[derive(Clone, Debug)]
pub struct OldHome {
    /// How many instances; 16 make every shape occur once.
    pub instances: usize,
    /// The port of the first; the others follow.
    pub first_port: u16,
    /// An engine that really runs, linked to where the home's own engines lie. Without one they are files that are
    /// executable and nothing else.
    pub engine: Option<PathBuf>,
}

impl Default for OldHome {
    fn default() -> Self {
        Self { instances: 64, first_port: 8101, engine: None }
    }
}

/// One of the instances written.
#[derive(Clone, Debug)]
pub struct OldInstance {
    pub name: String,
    pub shape: Shape,
    pub config: PathBuf,
    pub port: u16,
}

impl OldHome {
    /// Writes the home into a folder, which may exist.
    pub fn write(&self, root: &Path) -> Vec<OldInstance> {
        write_models(root);
        engines::write(root, self.engine.as_deref());
        let written: Vec<OldInstance> =
            (0..self.instances).map(|index| configs::write(root, index, self.first_port)).collect();
        catalog::write(root, &written);
        state::write(root, &written);
        for instance in &written {
            write_logs(root, &instance.name);
        }
        put(root, "state/gui_settings.json", "{\"theme\": \"dark\"}");
        put(root, "state/gpu_aliases.json", "{\"0\": \"left card\"}");
        put(root, "state/daemon.log", "2025-10-22 10:00:00 daemon stopped\n");
        written
    }
}

/// Four models that the instances share; each has what the tool put beside it.
fn write_models(root: &Path) {
    let folder = root.join("models/acme__tiny-GGUF");
    fs::create_dir_all(&folder).expect("the home is writable");
    for number in 0..configs::MODELS {
        let file = configs::model_file(number);
        write_tiny_model(&folder.join(&file), &TinyModel::default()).expect("the home is writable");
        let sidecar = serde_json::json!({"repo_id": "acme/tiny-GGUF", "filename": file, "etag": null});
        put(&folder, &format!("{file}.metadata.json"), sidecar.to_string());
    }
    put(&folder, ".half.gguf.x7f3.part", "GGUF");
}

fn write_logs(root: &Path, name: &str) {
    for file in ["stdout.log", "stderr.log", "stdout.20251021_101500.log"] {
        put(root, &format!("logs/{name}/{file}"), "main: server is listening\n");
    }
}

/// Writes a file with the folders above it.
pub(crate) fn put(root: &Path, path: &str, content: impl AsRef<[u8]>) {
    let path = root.join(path);
    let folder = path.parent().expect("the path has a folder");
    fs::create_dir_all(folder).expect("the home is writable");
    fs::write(&path, content).expect("the home is writable");
}
