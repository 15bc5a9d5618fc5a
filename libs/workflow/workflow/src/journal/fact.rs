//! What a line means to those who follow a job: the fields that manifest and resume are made of, borrowed from
//! the line wherever it can be.

use std::borrow::Cow;
use std::ops::Deref;

use orch_core::UnixMicros;
use serde::{Deserialize, Serialize};
use workflow_spec::FailureKind;

use super::stamp::read_stamp;
use crate::EventType;

/// Text that is borrowed unless something in it is escaped.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Deserialize, Serialize)]
#[serde(transparent)]
pub(crate) struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

impl Deref for Text<'_> {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

impl<'a> From<&'a str> for Text<'a> {
    fn from(text: &'a str) -> Self {
        Self(Cow::Borrowed(text))
    }
}

/// One event, as far as it changes what is known of the job.
#[derive(Debug)]
pub(crate) struct Fact<'a> {
    pub(crate) at: UnixMicros,
    pub(crate) seq: u64,
    /// `None` for a type of a later version.
    pub(crate) kind: Option<EventType>,
    pub(crate) step: Option<Text<'a>>,
    pub(crate) attempt: Option<u32>,
    pub(crate) data: FactData<'a>,
}

/// The data of all types of events in one: each has its own few of these fields.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct FactData<'a> {
    #[serde(borrow)]
    pub(crate) project: Option<Text<'a>>,
    pub(crate) provider: Option<Text<'a>>,
    pub(crate) spec_sha256: Option<Text<'a>>,
    pub(crate) steps: Vec<Text<'a>>,
    pub(crate) key: Option<Text<'a>>,
    pub(crate) out: Option<Text<'a>>,
    pub(crate) files: Vec<FileFact<'a>>,
    pub(crate) duration_s: Option<f64>,
    pub(crate) reason: Option<Text<'a>>,
    pub(crate) kind: Option<FailureKind>,
    pub(crate) message: Option<Text<'a>>,
    pub(crate) error: Option<Text<'a>>,
    pub(crate) choice: Option<Text<'a>>,
    pub(crate) choices: Vec<Text<'a>>,
    pub(crate) finish_reason: Option<Text<'a>>,
    pub(crate) tokens_in: Option<u64>,
    pub(crate) tokens_out: Option<u64>,
    pub(crate) tokens_cached: Option<u64>,
    pub(crate) path: Option<Text<'a>>,
    pub(crate) sha256: Option<Text<'a>>,
    pub(crate) size_bytes: Option<u64>,
    pub(crate) media_type: Option<Text<'a>>,
}

/// A file among a step's results.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub(crate) struct FileFact<'a> {
    #[serde(borrow)]
    pub(crate) path: Text<'a>,
    pub(crate) sha256: Text<'a>,
}

impl<'a> FileFact<'a> {
    pub(crate) fn new(path: &'a str, sha256: &'a str) -> Self {
        Self { path: path.into(), sha256: sha256.into() }
    }
}

/// The line as it stands.
#[derive(Deserialize)]
struct RawFact<'a> {
    #[serde(borrow)]
    ts: Text<'a>,
    seq: u64,
    #[serde(rename = "type")]
    kind: Text<'a>,
    #[serde(default)]
    step: Option<Text<'a>>,
    #[serde(default)]
    attempt: Option<u32>,
    data: FactData<'a>,
}

impl<'a> Fact<'a> {
    /// Reads a line whose checksum has been found to fit.
    pub(crate) fn read(line: &'a [u8]) -> Option<Self> {
        let raw: RawFact<'a> = serde_json::from_slice(line).ok()?;
        Some(Self {
            at: read_stamp(&raw.ts)?,
            seq: raw.seq,
            kind: EventType::from_word(&raw.kind),
            step: raw.step,
            attempt: raw.attempt,
            data: raw.data,
        })
    }
}
