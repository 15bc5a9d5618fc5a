//! Names of instances and replicas.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Why a text is not an instance name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    #[error("a name has 1 to 64 characters")]
    Length,
    #[error("a name uses only a-z, 0-9, '_' and '-', and starts and ends with a letter or digit")]
    Characters,
    #[error("{0:?} is a reserved word")]
    Reserved(String),
}

/// The name of one instance: 1–64 characters of `a-z 0-9 _ -`, starting and ending with a letter or digit,
/// and not one of the words that commands use themselves (`all`, `clean`).
///
/// Because of this alphabet a name is safe as a file name, a URL segment and a log field.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(transparent)]
pub struct InstanceName(String);

impl InstanceName {
    pub const MAX_LENGTH: usize = 64;

    /// Checks and wraps a name.
    pub fn new(text: impl Into<String>) -> Result<Self, NameError> {
        let text = text.into();
        if text.is_empty() || text.len() > Self::MAX_LENGTH {
            return Err(NameError::Length);
        }
        let edge = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
        let bytes = text.as_bytes();
        let inside = bytes.iter().all(|&byte| edge(byte) || byte == b'_' || byte == b'-');
        if !inside || !edge(bytes[0]) || !edge(bytes[bytes.len() - 1]) {
            return Err(NameError::Characters);
        }
        if text == "all" || text == "clean" {
            return Err(NameError::Reserved(text));
        }
        Ok(Self(text))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for InstanceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl AsRef<str> for InstanceName {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl FromStr for InstanceName {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        Self::new(text)
    }
}

impl<'de> Deserialize<'de> for InstanceName {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::new(String::deserialize(deserializer)?).map_err(serde::de::Error::custom)
    }
}

/// One engine of a pool: `r0`, `r1`, …
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ReplicaId(pub u16);

impl ReplicaId {
    /// The first replica: it has the configured port and the plain log file names.
    pub const FIRST: ReplicaId = ReplicaId(0);

    /// How people see a replica: `name` for the first, `name/1` for the next.
    pub fn display_name(self, instance: &InstanceName) -> String {
        if self == Self::FIRST { instance.to_string() } else { format!("{instance}/{}", self.0) }
    }
}

impl fmt::Display for ReplicaId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "r{}", self.0)
    }
}

impl FromStr for ReplicaId {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let digits = text.strip_prefix('r').ok_or(NameError::Characters)?;
        digits.parse().map(ReplicaId).map_err(|_| NameError::Characters)
    }
}

impl Serialize for ReplicaId {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for ReplicaId {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_keep_to_their_alphabet() {
        for good in ["a", "a-b_c", "0", "qwen3-4b", &"x".repeat(64)] {
            assert!(InstanceName::new(good).is_ok(), "{good}");
        }
        for bad in ["", "-a", "a-", "A", "a b", "a/b", "..", "all", "clean", "é", &"x".repeat(65)] {
            assert!(InstanceName::new(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn replicas_after_the_first_show_their_number() {
        let name = InstanceName::new("chat").unwrap();
        assert_eq!(ReplicaId(0).display_name(&name), "chat");
        assert_eq!(ReplicaId(2).display_name(&name), "chat/2");
        assert_eq!("r2".parse::<ReplicaId>().unwrap(), ReplicaId(2));
        assert!("2".parse::<ReplicaId>().is_err());
    }
}
