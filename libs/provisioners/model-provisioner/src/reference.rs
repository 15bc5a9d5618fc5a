//! How a model on the hub is named.

use std::fmt;
use std::path::PathBuf;

use orch_core::{ExitCode, Failure, HomeLayout};

const SCHEME: &str = "hf:";

/// `hf:owner/repository[@revision][:file.gguf]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HubModel {
    pub owner: String,
    pub repository: String,
    /// The main branch when absent.
    pub revision: Option<String>,
    /// Path in the repository; the one that fits most machines when absent.
    pub file: Option<String>,
}

impl HubModel {
    /// Whether a text names a model on the hub, rightly or wrongly.
    pub fn is_reference(text: &str) -> bool {
        text.get(..SCHEME.len()).is_some_and(|scheme| scheme.eq_ignore_ascii_case(SCHEME))
    }

    /// Reads a reference; anything else is a usage error.
    pub fn parse(text: &str) -> Result<Self, Failure> {
        let bad = || {
            Failure::new(ExitCode::Usage, format!("{text:?} does not name a model on the hub")).hint(
                "write hf:owner/repository, hf:owner/repository:file.gguf or hf:owner/repository@revision",
            )
        };
        if !Self::is_reference(text) {
            return Err(bad());
        }
        let (place, file) = split_last(&text[SCHEME.len()..], ':');
        let (place, revision) = split_last(place, '@');
        let (owner, repository) = place.split_once('/').ok_or_else(bad)?;
        let plain = [Some(owner), Some(repository), revision];
        let sound = plain.into_iter().flatten().all(is_plain)
            && file.is_none_or(|file| is_gguf(file) && file.split('/').all(is_plain));
        if !sound {
            return Err(bad());
        }
        Ok(Self {
            owner: owner.to_owned(),
            repository: repository.to_owned(),
            revision: revision.map(str::to_owned),
            file: file.map(str::to_owned),
        })
    }

    /// Where a home keeps a file of this repository.
    pub(crate) fn local_path(&self, home: &HomeLayout, file: &str) -> PathBuf {
        home.models().join(format!("{}__{}", self.owner, self.repository)).join(file.replace('/', "__"))
    }
}

impl fmt::Display for HubModel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.owner, self.repository)?;
        if let Some(revision) = &self.revision {
            write!(f, "@{revision}")?;
        }
        match &self.file {
            Some(file) => write!(f, ":{file}"),
            None => Ok(()),
        }
    }
}

fn split_last(text: &str, mark: char) -> (&str, Option<&str>) {
    match text.rsplit_once(mark) {
        Some((before, after)) => (before, Some(after)),
        None => (text, None),
    }
}

pub(crate) fn is_gguf(path: &str) -> bool {
    path.get(path.len().saturating_sub(5)..).is_some_and(|end| end.eq_ignore_ascii_case(".gguf"))
}

/// A name that stays one segment of an address and of a path.
fn is_plain(name: &str) -> bool {
    let allowed = |character: char| character.is_ascii_alphanumeric() || "._-+ ".contains(character);
    !name.is_empty() && name.len() <= 200 && !name.starts_with('.') && name.chars().all(allowed)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn model(revision: Option<&str>, file: Option<&str>) -> HubModel {
        HubModel {
            owner: "Qwen".to_owned(),
            repository: "Qwen2.5-0.5B".to_owned(),
            revision: revision.map(str::to_owned),
            file: file.map(str::to_owned),
        }
    }

    #[test]
    fn a_reference_is_read_and_shown() {
        for (text, wanted) in [
            ("hf:Qwen/Qwen2.5-0.5B", model(None, None)),
            ("HF:Qwen/Qwen2.5-0.5B@v1", model(Some("v1"), None)),
            ("hf:Qwen/Qwen2.5-0.5B:q4/a.GGUF", model(None, Some("q4/a.GGUF"))),
            ("hf:Qwen/Qwen2.5-0.5B@main:a.gguf", model(Some("main"), Some("a.gguf"))),
        ] {
            let read = HubModel::parse(text).unwrap();
            assert_eq!(read, wanted);
            assert_eq!(read.to_string(), text[3..]);
        }
    }

    #[test]
    fn nothing_else_is_a_reference() {
        for text in [
            "",
            "hf:",
            "hf:a",
            "hf:a/b/c",
            "hf:../b",
            "hf:a/b:x.bin",
            "hf:a/b:../x.gguf",
            "hf:a/b@",
            "/a/b.gguf",
        ] {
            assert_eq!(HubModel::parse(text).unwrap_err().exit, ExitCode::Usage, "{text}");
        }
    }

    #[test]
    fn a_file_lies_in_the_folder_of_its_repository() {
        let path = model(None, None).local_path(&HomeLayout::new("/h"), "q4/a.gguf");
        assert_eq!(path, PathBuf::from("/h/models/Qwen__Qwen2.5-0.5B/q4__a.gguf"));
    }
}
