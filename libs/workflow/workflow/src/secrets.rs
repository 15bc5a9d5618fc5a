//! Secrets of a step: known by name everywhere, by value only where the step takes effect.
//!
//! Keys, journal, logs and results hold `«secret:NAME»` where a value would stand. Whatever comes back from a
//! program, a service or a model passes a filter first, because any of them may repeat what it was told.

use std::borrow::Cow;
use std::sync::Arc;

use serde_json::Value;
use workflow_spec::{FailureKind, StepOutput};

use crate::CallFailure;

/// Shorter values would be found everywhere, and protect nothing.
pub(crate) const SHORTEST: usize = 4;

/// The secrets that one step declares. Cheap to clone.
#[derive(Clone, Default)]
pub(crate) struct Secrets(Option<Arc<Held>>);

struct Held {
    /// Names with their values.
    values: Vec<(String, String)>,
    /// What is looked for, the longest first.
    patterns: Vec<Pattern>,
}

/// One form of a secret's value.
struct Pattern {
    bytes: Vec<u8>,
    /// Which secret it is, by its place in `values`.
    secret: usize,
}

/// What stands for a secret wherever it is not used.
pub(crate) fn placeholder(name: &str) -> String {
    format!("«secret:{name}»")
}

impl Secrets {
    /// Asks for the value of each name. One that is missing or too short to be filtered fails the step.
    pub(crate) fn read(names: &[String], find: &dyn Fn(&str) -> Option<String>) -> Result<Self, CallFailure> {
        if names.is_empty() {
            return Ok(Self(None));
        }
        let mut values = Vec::with_capacity(names.len());
        for name in names {
            let value = find(name).filter(|value| !value.is_empty()).ok_or_else(|| missing(name))?;
            if value.chars().count() < SHORTEST {
                return Err(too_short(name));
            }
            values.push((name.clone(), value));
        }
        Ok(Self(Some(Arc::new(Held { patterns: patterns_of(&values), values }))))
    }

    /// The value itself, for the effect alone.
    pub(crate) fn value(&self, name: &str) -> Option<&str> {
        self.held().values.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// The text with no secret in it.
    pub(crate) fn filter<'text>(&self, text: &'text str) -> Cow<'text, str> {
        if self.named_in(text.as_bytes()).is_none() {
            return Cow::Borrowed(text);
        }
        let mut stream = self.stream();
        let mut shown = stream.pass(text.as_bytes());
        shown.extend(stream.finish());
        Cow::Owned(String::from_utf8_lossy(&shown).into_owned())
    }

    pub(crate) fn filter_output(&self, output: StepOutput) -> StepOutput {
        if self.0.is_none() {
            return output;
        }
        let text = self.filter(&output.text).into_owned();
        StepOutput { text, json: output.json.map(|json| self.filter_json(json)) }
    }

    pub(crate) fn filter_failure(&self, mut failure: CallFailure) -> CallFailure {
        failure.message = self.filter(&failure.message).into_owned();
        failure
    }

    /// The name of a secret whose value stands in these bytes.
    pub(crate) fn named_in(&self, bytes: &[u8]) -> Option<&str> {
        let held = self.held();
        let found = (0..bytes.len()).find_map(|at| held.at_beginning_of(&bytes[at..]))?;
        Some(&held.values[found.secret].0)
    }

    /// A filter for bytes that come in pieces.
    pub(crate) fn stream(&self) -> SecretStream {
        SecretStream { secrets: self.clone(), held_back: Vec::new() }
    }

    fn filter_json(&self, value: Value) -> Value {
        match value {
            Value::String(text) => Value::String(self.filter(&text).into_owned()),
            Value::Array(items) => items.into_iter().map(|item| self.filter_json(item)).collect(),
            Value::Object(fields) => {
                let filter = |(name, value): (String, Value)| {
                    (self.filter(&name).into_owned(), self.filter_json(value))
                };
                Value::Object(fields.into_iter().map(filter).collect())
            }
            // A secret that is a number would be told by its digits.
            Value::Number(number) => match self.filter(&number.to_string()) {
                Cow::Borrowed(_) => Value::Number(number),
                Cow::Owned(text) => Value::String(text),
            },
            other => other,
        }
    }

    fn held(&self) -> &Held {
        static NONE: Held = Held { values: Vec::new(), patterns: Vec::new() };
        self.0.as_deref().unwrap_or(&NONE)
    }
}

impl Held {
    /// The longest secret with which these bytes begin.
    fn at_beginning_of(&self, bytes: &[u8]) -> Option<&Pattern> {
        self.patterns.iter().find(|pattern| bytes.starts_with(&pattern.bytes))
    }

    /// Whether these bytes may be the beginning of a secret of which the rest is still to come.
    fn may_become_one(&self, bytes: &[u8]) -> bool {
        let longer = self.patterns.iter().take_while(|pattern| pattern.bytes.len() > bytes.len());
        longer.into_iter().any(|pattern| pattern.bytes.starts_with(bytes))
    }
}

impl std::fmt::Debug for Secrets {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.held().values.iter().map(|(name, _)| name)).finish()
    }
}

/// Filters bytes that come in pieces: a secret that is split over two pieces is found too. What may be the beginning
/// of one is held back until it is known.
pub(crate) struct SecretStream {
    secrets: Secrets,
    held_back: Vec<u8>,
}

impl SecretStream {
    /// What of all that came so far can be shown now.
    pub(crate) fn pass(&mut self, bytes: &[u8]) -> Vec<u8> {
        self.held_back.extend_from_slice(bytes);
        self.show(false)
    }

    /// The rest, after the last piece.
    pub(crate) fn finish(&mut self) -> Vec<u8> {
        self.show(true)
    }

    fn show(&mut self, all: bool) -> Vec<u8> {
        let held = self.secrets.held();
        let mut rest = self.held_back.as_slice();
        let mut shown = Vec::with_capacity(rest.len());
        while let Some(&byte) = rest.first() {
            if !all && held.may_become_one(rest) {
                break;
            }
            if let Some(pattern) = held.at_beginning_of(rest) {
                shown.extend_from_slice(placeholder(&held.values[pattern.secret].0).as_bytes());
                rest = &rest[pattern.bytes.len()..];
            } else {
                shown.push(byte);
                rest = &rest[1..];
            }
        }
        self.held_back = rest.to_vec();
        shown
    }
}

/// Each value as it is, and as it stands in JSON and in a URL.
fn patterns_of(values: &[(String, String)]) -> Vec<Pattern> {
    let mut patterns: Vec<Pattern> = Vec::new();
    for (secret, (_, value)) in values.iter().enumerate() {
        let json = Value::from(value.as_str()).to_string();
        for form in [value.clone(), json[1..json.len() - 1].to_owned(), in_url(value)] {
            if !patterns.iter().any(|known| known.bytes == form.as_bytes()) {
                patterns.push(Pattern { bytes: form.into_bytes(), secret });
            }
        }
    }
    patterns.sort_by_key(|pattern| std::cmp::Reverse(pattern.bytes.len()));
    patterns
}

fn in_url(value: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte);
    let mut text = String::with_capacity(value.len());
    for byte in value.bytes() {
        if plain(byte) {
            text.push(char::from(byte));
        } else {
            text.push('%');
            text.push_str(&hex::encode_upper([byte]));
        }
    }
    text
}

fn missing(name: &str) -> CallFailure {
    let message = format!("the secret {name} is not set; set the environment variable {name}");
    CallFailure::new(FailureKind::Auth, message)
}

fn too_short(name: &str) -> CallFailure {
    let message = format!(
        "the secret {name} has fewer than {SHORTEST} characters and could not be kept out of logs; use a longer one"
    );
    CallFailure::new(FailureKind::Validation, message)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn secrets(values: &[(&str, &str)]) -> Secrets {
        let names: Vec<String> = values.iter().map(|(name, _)| (*name).to_owned()).collect();
        let find = |name: &str| values.iter().find(|(known, _)| *known == name).map(|(_, v)| (*v).to_owned());
        Secrets::read(&names, &find).unwrap()
    }

    #[test]
    fn a_secret_is_shown_by_its_name_in_every_form() {
        let secrets = secrets(&[("TOKEN", "pa\"ss/word")]);
        let text = secrets.filter("plain pa\"ss/word json pa\\\"ss/word url pa%22ss%2Fword").into_owned();
        assert_eq!(text, "plain «secret:TOKEN» json «secret:TOKEN» url «secret:TOKEN»");
        assert_eq!(secrets.value("TOKEN"), Some("pa\"ss/word"));
        assert_eq!(format!("{secrets:?}"), "[\"TOKEN\"]");
    }

    #[test]
    fn of_two_that_begin_alike_the_longer_is_found() {
        let secrets = secrets(&[("SHORT", "abcd"), ("LONG", "abcdef")]);
        assert_eq!(secrets.filter("abcdef abcd"), "«secret:LONG» «secret:SHORT»");
    }

    #[test]
    fn a_secret_in_a_json_output_is_found_in_keys_numbers_and_texts() {
        let secrets = secrets(&[("PIN", "12345678")]);
        let json = serde_json::json!({"12345678": [12_345_678, "x12345678y", 1]});
        let shown = secrets.filter_output(StepOutput::of_json(json));
        assert!(!shown.text.contains("12345678"), "{shown:?}");
        let expected = serde_json::json!({"«secret:PIN»": ["«secret:PIN»", "x«secret:PIN»y", 1]});
        assert_eq!(shown.json, Some(expected));
    }

    #[test]
    fn a_missing_or_short_secret_is_told_by_name_and_never_by_value() {
        let read = |value: Option<&'static str>| {
            let find = move |_: &str| value.map(str::to_owned);
            Secrets::read(&["TOKEN".to_owned()], &find).unwrap_err()
        };
        assert_eq!(read(None).kind, FailureKind::Auth);
        assert_eq!(read(Some("")).kind, FailureKind::Auth);
        let short = read(Some("xyz"));
        assert_eq!(short.kind, FailureKind::Validation);
        assert!(short.message.contains("TOKEN") && !short.message.contains("xyz"), "{short}");
    }

    #[test]
    fn what_cannot_be_a_secret_is_shown_at_once() {
        let mut stream = secrets(&[("TOKEN", "hush-hush")]).stream();
        assert_eq!(stream.pass(b"working\n"), b"working\n");
        assert_eq!(stream.pass(b"a hush-"), b"a ");
        assert_eq!(stream.pass(b"puppies\n"), b"hush-puppies\n");
        assert_eq!(stream.pass(b"hush"), b"");
        assert_eq!(stream.finish(), b"hush");
    }

    proptest! {
        #[test]
        fn a_secret_is_found_however_its_bytes_are_cut(
            text in "[ab]{0,12}", tail in "[ab]{0,12}", cuts in prop::collection::vec(0_usize..64, 0..8),
        ) {
            let secrets = secrets(&[("ONE", "abba"), ("TWO", "abbaab")]);
            let whole = format!("{text}abbaab{tail}");
            let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut % (whole.len() + 1)).collect();
            cuts.extend([0, whole.len()]);
            cuts.sort_unstable();
            let mut stream = secrets.stream();
            let mut shown = Vec::new();
            for pair in cuts.windows(2) {
                shown.extend(stream.pass(&whole.as_bytes()[pair[0]..pair[1]]));
            }
            shown.extend(stream.finish());
            let shown = String::from_utf8(shown).unwrap();
            prop_assert!(!shown.contains("abba"), "{shown}");
            prop_assert_eq!(secrets.filter(&whole).into_owned(), {
                let mut one = secrets.stream();
                let mut all = one.pass(whole.as_bytes());
                all.extend(one.finish());
                String::from_utf8(all).unwrap()
            });
        }
    }
}
