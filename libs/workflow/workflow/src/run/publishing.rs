//! The files of a step that has succeeded: rendered, staged, and put in place, on a thread that may wait.

use std::sync::Arc;

use serde_json::Value;
use workflow_spec::{FailureKind, FileRule, FileSource, Names, Step, StepOutput, WriteMode};

use crate::CallFailure;
use crate::files::{FileError, OutputFiles, WriteReason, Written};
use crate::past::PastFile;
use crate::recorder::FileEvent;
use crate::store::{Blob, Store};

/// Puts files in place, one run's.
pub(super) struct Publisher {
    files: OutputFiles,
}

/// What is to be put in place.
pub(super) struct Publishing {
    pub(super) step: Arc<str>,
    /// Whose files they are.
    pub(super) rules: Arc<Step>,
    pub(super) names: Arc<dyn Names>,
    pub(super) output: Arc<StepOutput>,
    pub(super) blobs: Vec<Blob>,
    /// As an earlier life of the job has left them.
    pub(super) past: Vec<PastFile>,
    /// Files of this very step in earlier lives, whatever it was asked there.
    pub(super) own: Vec<PastFile>,
    /// Where the blobs may lie.
    pub(super) stores: [Arc<Store>; 2],
}

/// What became of it.
pub(super) struct Published {
    pub(super) written: Vec<Written>,
    /// Paths of files that an earlier life has left as they are.
    pub(super) kept: Vec<String>,
    pub(super) failure: Option<NotPublished>,
}

pub(super) struct NotPublished {
    pub(super) failure: CallFailure,
    /// The path, where it is the path that was refused.
    pub(super) refused: Option<String>,
}

impl Publisher {
    pub(super) const fn new(files: OutputFiles) -> Self {
        Self { files }
    }

    /// The text of a file that was published.
    pub(super) fn text(&self, path: &str) -> Option<String> {
        let content = self.files.read(path).ok().flatten()?;
        String::from_utf8(content).ok()
    }

    pub(super) fn publish(&self, publishing: &Publishing) -> Published {
        let mut staged = self.files.stage(&publishing.step);
        let mut kept = Vec::new();
        let mut stage_all = || {
            for rule in &publishing.rules.files {
                let path = publishing.path(rule)?;
                if self.was_appended(rule, &path, &publishing.past) {
                    kept.push(path);
                } else {
                    let mode = self.mode(rule, &path, &publishing.own);
                    staged.add(&path, mode, &publishing.content(&rule.from, &path)?)?;
                }
            }
            Ok(())
        };
        let published = stage_all().and_then(|()| staged.publish().map_err(NotPublished::from));
        match published {
            Ok(written) => Published { written, kept, failure: None },
            Err(failure) => Published { written: Vec::new(), kept, failure: Some(failure) },
        }
    }

    /// A file that is to be new may take the place of the one that the same step has left in an earlier life, as long as
    /// nobody else has touched it: an edited step has another answer.
    fn mode(&self, rule: &FileRule, path: &str, own: &[PastFile]) -> WriteMode {
        let is_own = |file: &PastFile| {
            file.path == path && self.files.holds(path, rule.mode, &file.sha256, file.size_bytes)
        };
        match rule.mode {
            WriteMode::CreateNew if own.iter().any(is_own) => WriteMode::Overwrite,
            mode => mode,
        }
    }

    /// What an earlier life has appended is there once. All else can be written again and again.
    fn was_appended(&self, rule: &FileRule, path: &str, past: &[PastFile]) -> bool {
        let holds = |file: &PastFile| {
            file.path == path && self.files.holds(path, rule.mode, &file.sha256, file.size_bytes)
        };
        rule.mode == WriteMode::Append && past.iter().any(holds)
    }
}

impl Publishing {
    fn path(&self, rule: &FileRule) -> Result<String, NotPublished> {
        rule.path.render(&self.names).map_err(|error| unusable(format!("files: {error}")))
    }

    fn content(&self, from: &FileSource, path: &str) -> Result<Vec<u8>, NotPublished> {
        match from {
            FileSource::Text => Ok(self.output.text.clone().into_bytes()),
            FileSource::Code => Ok(self.output.code().as_bytes().to_vec()),
            FileSource::Json(fields) => self.field(fields).map(json_text).ok_or_else(|| {
                let name = if fields.is_empty() { "json".to_owned() } else { fields.join(".") };
                unusable(format!("{path} is to hold output.{name}, which the output does not have"))
            }),
            FileSource::Working(name) => self.collected(name),
        }
    }

    fn field(&self, fields: &[String]) -> Option<&Value> {
        fields.iter().try_fold(self.output.json.as_ref()?, |value, field| value.get(field))
    }

    /// What a program left, as it was stored with its result.
    fn collected(&self, name: &str) -> Result<Vec<u8>, NotPublished> {
        let blob = self.blobs.iter().find(|blob| blob.path == name);
        let content =
            blob.and_then(|blob| self.stores.iter().find_map(|store| store.blob(blob).ok().flatten()));
        content.ok_or_else(|| {
            let message = format!("{name} was left by the program and is not in the store any more");
            NotPublished { failure: CallFailure::new(FailureKind::Internal, message), refused: None }
        })
    }
}

/// A string as its text, anything else as JSON that people can read.
fn json_text(value: &Value) -> Vec<u8> {
    match value {
        Value::String(text) => text.clone().into_bytes(),
        other => {
            let mut text = serde_json::to_vec_pretty(other).expect("a JSON value always becomes text");
            text.push(b'\n');
            text
        }
    }
}

fn unusable(message: String) -> NotPublished {
    NotPublished { failure: CallFailure::new(FailureKind::Validation, message), refused: None }
}

impl From<FileError> for NotPublished {
    fn from(error: FileError) -> Self {
        let source = std::error::Error::source(&error).map(|source| format!(": {source}"));
        let message = format!("{error}{}", source.unwrap_or_default());
        let refused = match &error {
            FileError::Refused { path, .. } => Some(path.clone()),
            _ => None,
        };
        Self { failure: CallFailure::new(error.kind(), message), refused }
    }
}

impl<'a> From<&'a Written> for FileEvent<'a> {
    fn from(written: &'a Written) -> Self {
        Self {
            path: &written.path,
            sha256: written.sha256.as_str(),
            size_bytes: written.size_bytes,
            wrote: written.wrote,
            reason: match written.reason {
                WriteReason::Created => "created",
                WriteReason::NoChange => "nochange",
                WriteReason::Overwritten => "overwritten",
                WriteReason::Appended => "appended",
            },
            media_type: &written.media_type,
        }
    }
}
