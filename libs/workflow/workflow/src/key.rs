//! Digests, and the keys under which results are stored.

use std::fmt;
use std::path::Path;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::{Map, Value, json};
use sha2::{Digest as _, Sha256};

use crate::canonical::{canonical, write_python};

/// A SHA-256 digest as 64 lower-case hex digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest([u8; 64]);

impl Digest {
    pub fn of(bytes: &[u8]) -> Self {
        Self::finish(Sha256::new_with_prefix(bytes))
    }

    /// The digest of everything that the hasher was given.
    pub(crate) fn finish(hasher: Sha256) -> Self {
        let mut text = [0; 64];
        hex::encode_to_slice(hasher.finalize(), &mut text).expect("32 bytes are 64 hex digits");
        Self(text)
    }

    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).expect("hex digits are text")
    }
}

/// Not 64 lower-case hex digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a SHA-256 digest is 64 lower-case hex digits")]
pub struct NotADigest;

impl FromStr for Digest {
    type Err = NotADigest;

    fn from_str(text: &str) -> Result<Self, NotADigest> {
        let digits: [u8; 64] = text.as_bytes().try_into().map_err(|_wrong_length| NotADigest)?;
        let is_hex = digits.iter().all(|digit| matches!(digit, b'0'..=b'9' | b'a'..=b'f'));
        if is_hex { Ok(Self(digits)) } else { Err(NotADigest) }
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Serialize for Digest {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Text;
        impl serde::de::Visitor<'_> for Text {
            type Value = Digest;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("64 lower-case hex digits")
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Digest, E> {
                text.parse().map_err(E::custom)
            }
        }
        deserializer.deserialize_str(Text)
    }
}

/// Says what was asked for: the same key, the same question. The digest of a [`KeyDocument`]'s text.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Key(Digest);

impl Key {
    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }
}

impl FromStr for Key {
    type Err = NotADigest;

    fn from_str(text: &str) -> Result<Self, NotADigest> {
        text.parse().map(Self)
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Everything that a step's result depends on, as the text whose digest is the key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyDocument {
    text: String,
    key: Key,
}

impl KeyDocument {
    /// The canonical JSON of a document.
    pub fn new(document: &Value) -> Self {
        Self::of_text(canonical(document))
    }

    /// The document and the key of Unified Orchestrator v2.1: what Python's `json.dumps(…, sort_keys=True)` makes
    /// of the request.
    pub(crate) fn seed_v21(request: &SeedRequest<'_>) -> Self {
        let document = json!({
            "provider": {"name": request.provider, "model": request.model, "opts": request.options},
            "step": request.step,
            "inputs": request.inputs,
            "code_version": request.code_version,
        });
        let mut text = Vec::with_capacity(256);
        write_python(&mut text, &document);
        Self::of_text(text)
    }

    fn of_text(text: Vec<u8>) -> Self {
        let key = Key(Digest::of(&text));
        Self { text: String::from_utf8(text).expect("JSON of text is text"), key }
    }

    /// A text that was stored; its key is computed anew.
    pub(crate) fn stored(text: &str) -> Self {
        Self { text: text.to_owned(), key: Key(Digest::of(text.as_bytes())) }
    }

    pub const fn key(&self) -> Key {
        self.key
    }

    /// The JSON whose digest is the key.
    pub fn text(&self) -> &str {
        &self.text
    }
}

/// The key of a document.
pub(crate) fn key_of(document: &Value) -> Key {
    Key(Digest::of(&canonical(document)))
}

/// What the key of Unified Orchestrator v2.1 covers.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SeedRequest<'a> {
    pub provider: &'a str,
    pub model: &'a str,
    pub options: &'a Map<String, Value>,
    pub step: &'a str,
    pub inputs: &'a Map<String, Value>,
    /// See [`code_version`].
    pub code_version: &'a str,
}

/// No `HEAD`, reference or list of packed references is longer.
const LONGEST_GIT_FILE: u64 = 16 << 20;

/// The commit that is checked out where `folder` lies, read from git's own files; without one the digest of the
/// source texts, one after the other.
pub(crate) fn code_version(folder: &Path, sources: &[&str]) -> String {
    folder.ancestors().find_map(git_folder).and_then(|git| git_head(&git)).unwrap_or_else(|| {
        let mut hasher = Sha256::new();
        for source in sources {
            hasher.update(source);
        }
        Digest::finish(hasher).to_string()
    })
}

/// `.git` below `folder`; work trees have a file there that names the true folder.
fn git_folder(folder: &Path) -> Option<std::path::PathBuf> {
    let git = folder.join(".git");
    if git.is_dir() {
        return Some(git);
    }
    let text = small_text(&git)?;
    Some(folder.join(text.trim().strip_prefix("gitdir:")?.trim()))
}

fn git_head(git: &Path) -> Option<String> {
    let head = small_text(&git.join("HEAD"))?;
    let Some(reference) = head.trim().strip_prefix("ref:").map(str::trim) else {
        return commit(&head);
    };
    let of_all_trees = small_text(&git.join("commondir")).map(|common| git.join(common.trim()));
    let folders = [Some(git.to_path_buf()), of_all_trees];
    let mut folders = folders.iter().flatten();
    folders.clone().find_map(|folder| commit(&small_text(&folder.join(reference))?)).or_else(|| {
        folders.find_map(|folder| {
            let packed = small_text(&folder.join("packed-refs"))?;
            packed.lines().find_map(|line| commit(line.strip_suffix(reference)?.strip_suffix(' ')?))
        })
    })
}

fn commit(text: &str) -> Option<String> {
    let text = text.trim();
    let is_hash = matches!(text.len(), 40 | 64) && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    is_hash.then(|| text.to_owned())
}

fn small_text(path: &Path) -> Option<String> {
    use std::io::Read as _;
    let mut text = String::new();
    std::fs::File::open(path).ok()?.take(LONGEST_GIT_FILE).read_to_string(&mut text).ok()?;
    Some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_key_is_the_digest_of_the_canonical_document() {
        let document = KeyDocument::new(&json!({"v": 1, "kind": "llm"}));
        assert_eq!(document.text(), r#"{"kind":"llm","v":1}"#);
        // printf '{"kind":"llm","v":1}' | sha256sum
        let expected = "189926954e01eae95a4aacb7114e3312e860597bfcb23f300fe1b4ce7ca9ea5a";
        assert_eq!(document.key().as_str(), expected);
        assert_eq!(key_of(&json!({"kind": "llm", "v": 1})), document.key());
    }

    #[test]
    fn the_seeds_key_is_the_one_that_its_python_computes() {
        let options = json!({"temperature": 0.1, "seed": 7, "top_p": 1.0});
        let inputs = json!({"task": "Build todo app – für Grüße"});
        let document = KeyDocument::seed_v21(&SeedRequest {
            provider: "ollama",
            model: "llama3",
            options: options.as_object().unwrap(),
            step: "architect",
            inputs: inputs.as_object().unwrap(),
            code_version: "abc123def",
        });
        // hashlib.sha256(json.dumps({…}, sort_keys=True).encode()).hexdigest() with Python 3.
        assert_eq!(
            document.key().as_str(),
            "dce585b896b61b5306ee8ed4f1e95af691cbd2c1e0a6876734cb4ec5e7902966"
        );
    }

    #[test]
    fn only_lower_case_hex_of_the_right_length_is_a_digest() {
        let digest = Digest::of(b"");
        assert_eq!(digest.as_str(), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
        assert_eq!(digest.to_string().parse(), Ok(digest));
        for wrong in ["", "e3", &"E".repeat(64), &"g".repeat(64), &"é".repeat(32)] {
            assert_eq!(wrong.parse::<Digest>(), Err(NotADigest), "{wrong}");
        }
    }

    const ONE: &str = "1111111111111111111111111111111111111111";
    const TWO: &str = "2222222222222222222222222222222222222222";

    fn put(folder: &Path, path: &str, text: &str) {
        let path = folder.join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }

    #[test]
    fn the_code_version_is_gits_head_wherever_git_keeps_it() {
        let folder = tempfile::tempdir().unwrap();
        let version = || code_version(&folder.path().join("deep/down"), &["source"]);
        put(folder.path(), ".git/HEAD", "ref: refs/heads/main\n");
        put(
            folder.path(),
            ".git/packed-refs",
            &format!("# pack-refs\n{TWO} refs/heads/other-main\n{ONE} refs/heads/main\n"),
        );
        assert_eq!(version(), ONE, "packed");
        put(folder.path(), ".git/refs/heads/main", &format!("{TWO}\n"));
        assert_eq!(version(), TWO, "loose");
        put(folder.path(), ".git/HEAD", &format!("{ONE}\n"));
        assert_eq!(version(), ONE, "detached");
    }

    #[test]
    fn a_work_tree_of_git_has_a_version_too() {
        let folder = tempfile::tempdir().unwrap();
        put(folder.path(), "main/.git/refs/heads/side", ONE);
        put(folder.path(), "main/.git/worktrees/side/HEAD", "ref: refs/heads/side");
        put(folder.path(), "main/.git/worktrees/side/commondir", "../..");
        put(folder.path(), "side/.git", "gitdir: ../main/.git/worktrees/side\n");
        assert_eq!(code_version(&folder.path().join("side"), &[]), ONE);
    }

    #[test]
    fn without_git_the_version_is_the_digest_of_the_sources() {
        let folder = tempfile::tempdir().unwrap();
        put(folder.path(), ".git/HEAD", "ref: refs/heads/unborn");
        let version = code_version(folder.path(), &["a", "b"]);
        assert_eq!(version, Digest::of(b"ab").as_str());
    }
}
