//! One stored result as the text of a file, and back.
//!
//! The file is one line of JSON that ends with the CRC-32 of all before it, so that no torn or altered file passes.
//! The document's text stands in it as it was hashed, so that a reader can check the key without knowing how
//! documents are made canonical.

use std::borrow::Cow;

use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;
use serde_json::value::RawValue;
use workflow_spec::StepOutput;

use crate::canonical::{write_canonical, write_string};
use crate::key::{Digest, Key, KeyDocument};
use crate::ports::{FinishReason, TokenUse};

/// No entry and no blob is larger.
pub(crate) const LARGEST: u64 = 64 << 20;

/// The form of entries that this version writes and reads.
const VERSION: u32 = 1;

/// `,"crc":"xxxxxxxx"}` and a line feed.
const SEAL_LENGTH: usize = 19;

/// A step's result with the request that led to it.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    pub document: KeyDocument,
    output: StepOutput,
    out: Digest,
    pub usage: TokenUse,
    /// Who answered; `None` where no model did.
    pub provider: Option<String>,
    pub model: Option<String>,
    pub finish_reason: Option<FinishReason>,
    pub duration_s: f64,
    /// Files that the result consists of besides its output.
    pub blobs: Vec<Blob>,
    /// UTC with `Z`.
    pub created_at: String,
}

/// A file's content in the store.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Blob {
    /// Where it lay, as the step names it.
    pub path: String,
    pub sha256: Digest,
    pub size_bytes: u64,
}

impl Entry {
    pub fn new(document: KeyDocument, output: StepOutput, created_at: String) -> Self {
        Self {
            document,
            out: output_digest(&output),
            output,
            usage: TokenUse::default(),
            provider: None,
            model: None,
            finish_reason: None,
            duration_s: 0.0,
            blobs: Vec::new(),
            created_at,
        }
    }

    pub const fn key(&self) -> Key {
        self.document.key()
    }

    pub const fn output(&self) -> &StepOutput {
        &self.output
    }

    pub fn into_output(self) -> StepOutput {
        self.output
    }

    /// The digest of the output: see [`output_digest`].
    pub const fn out(&self) -> Digest {
        self.out
    }
}

/// The digest of an output's canonical JSON.
pub(crate) fn output_digest(output: &StepOutput) -> Digest {
    let mut text = Vec::with_capacity(output.text.len() + 64);
    write_output(&mut text, output);
    Digest::of(&text)
}

fn write_output(text: &mut Vec<u8>, output: &StepOutput) {
    text.push(b'{');
    if let Some(json) = &output.json {
        text.extend_from_slice(b"\"json\":");
        write_canonical(text, json);
        text.push(b',');
    }
    text.extend_from_slice(b"\"text\":");
    write_string(text, &output.text);
    text.push(b'}');
}

/// Why a file is no entry that can be used. The step runs again.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error("the entry is larger than {} MiB", LARGEST >> 20)]
    TooLarge,
    #[error("the entry is no regular file")]
    NoFile,
    #[error("the entry cannot be read: {0}")]
    Unreadable(String),
    #[error("the entry is torn: its end or its checksum is missing")]
    Torn,
    #[error("the entry was changed after it was written: its checksum is wrong")]
    Changed,
    #[error("the entry is in form {0}, which this version does not know")]
    OtherVersion(u32),
    #[error("the entry is not understood: {0}")]
    NotUnderstood(String),
    #[error("the entry belongs to another key, {0}")]
    OtherKey(Key),
    #[error("the entry's request does not have the entry's key")]
    OtherRequest,
    #[error("the entry's output does not have the digest that was stored with it")]
    OtherOutput,
}

/// In the order of the file. `out` is checked against `output`, the rest by the checksum.
#[derive(Serialize, Deserialize)]
struct Written<'a> {
    v: u32,
    key: Key,
    #[serde(borrow)]
    document: &'a RawValue,
    out: Digest,
    output: WrittenOutput<'a>,
    usage: TokenUse,
    #[serde(default, borrow, skip_serializing_if = "Option::is_none")]
    provider: Option<Cow<'a, str>>,
    #[serde(default, borrow, skip_serializing_if = "Option::is_none")]
    model: Option<Cow<'a, str>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    finish_reason: Option<FinishReason>,
    duration_s: f64,
    #[serde(default, skip_serializing_if = "<[Blob]>::is_empty")]
    blobs: Cow<'a, [Blob]>,
    #[serde(borrow)]
    created_at: Cow<'a, str>,
}

#[derive(Serialize, Deserialize)]
struct WrittenOutput<'a> {
    text: Cow<'a, str>,
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    json: Option<Cow<'a, Value>>,
}

/// `null` is a value, not an absence.
fn present<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Cow<'static, Value>>, D::Error> {
    Value::deserialize(deserializer).map(|value| Some(Cow::Owned(value)))
}

/// The file's text.
pub(crate) fn write(entry: &Entry) -> Vec<u8> {
    let document = serde_json::from_str(entry.document.text()).expect("a key document is JSON");
    let written = Written {
        v: VERSION,
        key: entry.key(),
        document,
        out: entry.out,
        output: WrittenOutput {
            text: Cow::Borrowed(&entry.output.text),
            json: entry.output.json.as_ref().map(Cow::Borrowed),
        },
        usage: entry.usage,
        provider: entry.provider.as_deref().map(Cow::Borrowed),
        model: entry.model.as_deref().map(Cow::Borrowed),
        finish_reason: entry.finish_reason,
        duration_s: entry.duration_s,
        blobs: Cow::Borrowed(&entry.blobs),
        created_at: Cow::Borrowed(&entry.created_at),
    };
    let mut text = serde_json::to_vec(&written).expect("an entry can be written to memory");
    seal(&mut text);
    text
}

/// Puts the checksum of everything so far in place of the closing brace.
fn seal(text: &mut Vec<u8>) {
    text.pop();
    let checksum = crc32fast::hash(text);
    text.extend_from_slice(format!(",\"crc\":\"{checksum:08x}\"}}\n").as_bytes());
}

/// The entry that lies under this key.
pub(crate) fn read(text: &[u8], key: &Key) -> Result<Entry, Refusal> {
    check_seal(text)?;
    let written: Written<'_> = serde_json::from_slice(text).map_err(|error| not_understood(text, &error))?;
    if written.v != VERSION {
        return Err(Refusal::OtherVersion(written.v));
    }
    if written.key != *key {
        return Err(Refusal::OtherKey(written.key));
    }
    let document = KeyDocument::stored(written.document.get());
    if document.key() != *key {
        return Err(Refusal::OtherRequest);
    }
    let output =
        StepOutput { text: written.output.text.into_owned(), json: written.output.json.map(Cow::into_owned) };
    if output_digest(&output) != written.out {
        return Err(Refusal::OtherOutput);
    }
    Ok(Entry {
        document,
        out: written.out,
        output,
        usage: written.usage,
        provider: written.provider.map(Cow::into_owned),
        model: written.model.map(Cow::into_owned),
        finish_reason: written.finish_reason,
        duration_s: written.duration_s,
        blobs: written.blobs.into_owned(),
        created_at: written.created_at.into_owned(),
    })
}

fn check_seal(text: &[u8]) -> Result<(), Refusal> {
    let (sealed, seal) = text.split_last_chunk::<SEAL_LENGTH>().ok_or(Refusal::Torn)?;
    let digits = seal.strip_prefix(b",\"crc\":\"").and_then(|rest| rest.strip_suffix(b"\"}\n"));
    let digits = digits.and_then(|digits| std::str::from_utf8(digits).ok()).ok_or(Refusal::Torn)?;
    let checksum = u32::from_str_radix(digits, 16).map_err(|_not_hex| Refusal::Torn)?;
    if checksum == crc32fast::hash(sealed) { Ok(()) } else { Err(Refusal::Changed) }
}

/// A later version's entry may have another shape altogether: then its version is the reason, not the shape.
fn not_understood(text: &[u8], error: &serde_json::Error) -> Refusal {
    #[derive(Deserialize)]
    struct Version {
        v: u32,
    }
    match serde_json::from_slice(text) {
        Ok(Version { v }) if v != VERSION => Refusal::OtherVersion(v),
        _ => Refusal::NotUnderstood(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn entry() -> Entry {
        let document =
            KeyDocument::new(&json!({"v": 1, "kind": "llm", "messages": [{"content": "Grüße\n"}]}));
        let output = StepOutput::of_json(json!({"z": 1.0, "a": [null, "ü"], "big": u64::MAX}));
        Entry {
            usage: TokenUse { prompt: 12, completion: 3, cached: 0 },
            provider: Some("local".to_owned()),
            model: Some("qwen \"tiny\"".to_owned()),
            finish_reason: Some(FinishReason::Stop),
            duration_s: 0.25,
            blobs: vec![Blob { path: "a/b".to_owned(), sha256: Digest::of(b"x"), size_bytes: 1 }],
            ..Entry::new(document, output, "2026-01-02T03:04:05Z".to_owned())
        }
    }

    fn resealed(text: &str) -> Vec<u8> {
        let mut text = text.as_bytes()[..text.len() - SEAL_LENGTH].to_vec();
        text.push(b'}');
        seal(&mut text);
        text
    }

    #[test]
    fn what_was_written_is_read_back_with_members_in_their_order() {
        let text = write(&entry());
        let read = read(&text, &entry().key()).unwrap();
        assert_eq!(read, entry());
        assert_eq!(read.output().json.as_ref().unwrap().to_string(), entry().output().text);
    }

    #[test]
    fn the_file_is_plain_json() {
        let value: Value = serde_json::from_slice(&write(&entry())).unwrap();
        assert_eq!(value["key"], json!(entry().key()));
        assert_eq!(value["document"]["kind"], "llm");
        assert_eq!(value["output"]["json"]["a"][1], "ü");
        assert_eq!(value["out"], json!(output_digest(entry().output())));
    }

    #[test]
    fn a_null_stays_a_null() {
        let output = StepOutput { text: String::new(), json: Some(Value::Null) };
        let entry = Entry::new(KeyDocument::new(&json!(1)), output.clone(), String::new());
        assert_eq!(*read(&write(&entry), &entry.key()).unwrap().output(), output);
    }

    #[test]
    fn an_entry_torn_at_any_byte_is_refused() {
        let text = write(&entry());
        for length in 0..text.len() {
            let refusal = read(&text[..length], &entry().key()).unwrap_err();
            assert_eq!(refusal, Refusal::Torn, "cut to {length} bytes");
        }
    }

    #[test]
    fn an_entry_with_any_changed_byte_is_refused() {
        let text = write(&entry());
        for at in 0..text.len() {
            for flip in [1, 0x20, 0x80] {
                let mut changed = text.clone();
                changed[at] ^= flip;
                let upper_case_checksum =
                    changed.eq_ignore_ascii_case(&text) && at > text.len() - SEAL_LENGTH + 7;
                assert!(upper_case_checksum || read(&changed, &entry().key()).is_err(), "byte {at} ^ {flip}");
            }
        }
    }

    #[test]
    fn another_keys_entry_is_refused() {
        let other = KeyDocument::new(&json!({"v": 2}));
        assert_eq!(read(&write(&entry()), &other.key()), Err(Refusal::OtherKey(entry().key())));
    }

    #[test]
    fn a_poisoned_entry_is_refused_even_with_a_fresh_checksum() {
        let text = String::from_utf8(write(&entry())).unwrap();
        let key = entry().key();
        let poisoned = |from: &str, to: &str| {
            assert!(text.contains(from), "{from}");
            read(&resealed(&text.replacen(from, to, 1)), &key).unwrap_err()
        };
        assert_eq!(poisoned("\"z\":1.0", "\"z\":2.0"), Refusal::OtherOutput);
        assert_eq!(poisoned("Grüße", "Hallo"), Refusal::OtherRequest);
        assert_eq!(poisoned("\"v\":1,", "\"v\":7,"), Refusal::OtherVersion(7));
        assert!(matches!(poisoned("\"usage\":{", "\"usage\":{\"prompt\":1,"), Refusal::NotUnderstood(_)));
    }

    #[test]
    fn a_later_versions_entry_is_named_by_its_version() {
        let mut text = br#"{"v":9,"body":"unknown"}"#.to_vec();
        seal(&mut text);
        assert_eq!(read(&text, &entry().key()), Err(Refusal::OtherVersion(9)));
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_reader_fail_otherwise(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            prop_assert!(read(&bytes, &entry().key()).is_err());
            let mut sealed = bytes;
            sealed.push(b'}');
            seal(&mut sealed);
            prop_assert!(read(&sealed, &entry().key()).is_err());
        }

        #[test]
        fn any_output_comes_back_with_its_digest(text in ".*", number in any::<f64>()) {
            let output = StepOutput { text, json: Some(json!([number])) };
            let entry = Entry::new(KeyDocument::new(&json!(1)), output, String::new());
            prop_assert_eq!(read(&write(&entry), &entry.key()).unwrap(), entry);
        }
    }
}
