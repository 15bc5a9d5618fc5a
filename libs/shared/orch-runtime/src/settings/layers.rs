//! Four layers, one value: flag over environment over file over default.

use std::net::SocketAddr;

use serde::Serialize;
use toml::{Table, Value};

use super::keys::{KEYS, STORE, SettingKey};

/// Sections that hold tables with names of the user's own.
const NAMED: [&str; 2] = ["providers", "routes"];

/// Where a value came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Origin {
    Default,
    File,
    Environment,
    Flag,
}

/// What a key's value looks like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SettingKind {
    /// `ip:port`, or `localhost:port`.
    Address,
    /// Free text, not empty.
    Text,
    Flag,
    /// A whole number from 1 to `max`.
    Number {
        max: u64,
    },
    Choice(&'static [&'static str]),
    /// A list of texts; separated by commas outside the file.
    List,
}

/// A value with its origin, as it may be shown.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SettingValue {
    pub key: &'static str,
    /// Absent where nothing is set.
    pub value: Option<String>,
    pub origin: Origin,
}

/// As found, before it is known to be valid.
#[derive(Clone, Debug)]
enum Raw {
    /// From the file, with the type it has there.
    Typed(Value),
    /// From a default, the environment or a flag.
    Written(String),
}

/// Collects values, and every problem instead of only the first.
pub(super) struct Layers<'a> {
    file: &'a Table,
    environment: &'a dyn Fn(&str) -> Option<String>,
    flags: &'a [(&'a str, String)],
    pub(super) values: Vec<SettingValue>,
    pub(super) problems: Vec<String>,
}

impl<'a> Layers<'a> {
    pub(super) fn new(
        file: &'a Table,
        environment: &'a dyn Fn(&str) -> Option<String>,
        flags: &'a [(&'a str, String)],
    ) -> Self {
        Self { file, environment, flags, values: Vec::new(), problems: Vec::new() }
    }

    pub(super) fn text(&mut self, path: &'static str) -> Option<String> {
        self.read(path, text)
    }

    pub(super) fn address(&mut self, path: &'static str) -> SocketAddr {
        self.read_or_default(path, |raw| text(raw).and_then(|text| address(&text)))
    }

    pub(super) fn flag(&mut self, path: &'static str) -> bool {
        self.read_or_default(path, flag)
    }

    pub(super) fn number(&mut self, path: &'static str) -> u64 {
        let SettingKind::Number { max } = find(path).kind else {
            unreachable!("{path} is a number in the table")
        };
        self.read_or_default(path, |raw| number(raw, max))
    }

    /// A number that need not be set.
    pub(super) fn optional_number(&mut self, path: &'static str) -> Option<u64> {
        let SettingKind::Number { max } = find(path).kind else {
            unreachable!("{path} is a number in the table")
        };
        self.read(path, |raw| number(raw, max))
    }

    pub(super) fn choice(&mut self, path: &'static str) -> &'static str {
        let SettingKind::Choice(choices) = find(path).kind else {
            unreachable!("{path} is a choice in the table")
        };
        self.read_or_default(path, |raw| text(raw).and_then(|text| choice(&text, choices)))
    }

    pub(super) fn list(&mut self, path: &'static str) -> Vec<String> {
        self.read_or_default(path, list)
    }

    pub(super) fn problem(&mut self, path: &str, what: impl std::fmt::Display) {
        self.problems.push(format!("{path} {what}"));
    }

    /// Keys the table does not know, in the file or among the flags.
    pub(super) fn reject_unknown(&mut self) {
        for (section, content) in self.file.iter().filter(|(section, _)| !NAMED.contains(&section.as_str())) {
            let known: Vec<_> =
                KEYS.iter().filter(|key| key.section() == section).map(SettingKey::name).collect();
            match content {
                _ if known.is_empty() => {
                    let sections = KEYS.iter().map(SettingKey::section).chain(NAMED);
                    self.problems.push(unknown(section, "", sections));
                }
                Value::Table(entries) => {
                    for name in entries.keys().filter(|name| !known.contains(&name.as_str())) {
                        self.problems.push(unknown(name, &format!("{section}."), known.iter().copied()));
                    }
                }
                _ => self.problems.push(format!("{section} has to be a table, written [{section}]")),
            }
        }
        for (path, _) in self.flags.iter().filter(|(path, _)| !KEYS.iter().any(|key| key.path == *path)) {
            self.problems.push(unknown(path, "", KEYS.iter().map(|key| key.path)));
        }
    }

    /// A valid value, or nothing and a problem noted.
    fn read<T>(&mut self, path: &'static str, parse: impl Fn(&Raw) -> Result<T, String>) -> Option<T> {
        let key = find(path);
        let (raw, origin) = self.raw(key);
        self.values.push(SettingValue { key: path, value: raw.as_ref().map(|raw| shown(path, raw)), origin });
        match parse(&raw?) {
            Ok(value) => Some(value),
            Err(what) => {
                let source = match origin {
                    Origin::Environment => format!(" (from {})", key.variable.unwrap_or_default()),
                    Origin::Flag => format!(" (from {})", key.flag().unwrap_or_default()),
                    Origin::File | Origin::Default => String::new(),
                };
                self.problems.push(format!("{path} {what}{source}"));
                None
            }
        }
    }

    fn read_or_default<T>(&mut self, path: &'static str, parse: impl Fn(&Raw) -> Result<T, String>) -> T {
        self.read(path, &parse).unwrap_or_else(|| {
            let default = find(path).default.expect("the table gives this key a default");
            parse(&Raw::Written(default.to_owned())).expect("the table's defaults are valid")
        })
    }

    fn raw(&self, key: &SettingKey) -> (Option<Raw>, Origin) {
        if let Some((_, value)) = self.flags.iter().rev().find(|(path, _)| *path == key.path) {
            return (Some(Raw::Written(value.clone())), Origin::Flag);
        }
        let variable =
            key.variable.and_then(|name| (self.environment)(name)).filter(|value| !value.trim().is_empty());
        if let Some(value) = variable {
            return (Some(Raw::Written(value)), Origin::Environment);
        }
        if let Some(value) = self.file.get(key.section()).and_then(|section| section.get(key.name())) {
            return (Some(Raw::Typed(value.clone())), Origin::File);
        }
        (key.default.map(|default| Raw::Written(default.to_owned())), Origin::Default)
    }
}

fn find(path: &str) -> &'static SettingKey {
    KEYS.iter().find(|key| key.path == path).expect("only keys of the table are read")
}

fn shown(path: &str, raw: &Raw) -> String {
    let text = match raw {
        Raw::Written(text) | Raw::Typed(Value::String(text)) => text.clone(),
        Raw::Typed(value) => value.to_string(),
    };
    if path == STORE && text != "embedded" { orch_core::MASK.to_owned() } else { text }
}

/// "key x.y is unknown", with the nearest known one.
pub(super) fn unknown<'k>(name: &str, prefix: &str, known: impl Iterator<Item = &'k str>) -> String {
    let shown: String = name.chars().take(64).collect::<String>().escape_debug().collect();
    let nearest = known
        .map(|candidate| (strsim::jaro_winkler(&shown, candidate), candidate))
        .filter(|(likeness, _)| *likeness > 0.8)
        .max_by(|left, right| left.0.total_cmp(&right.0));
    match nearest {
        Some((_, candidate)) => format!("{prefix}{shown} is no setting; did you mean {prefix}{candidate}?"),
        None => format!("{prefix}{shown} is no setting"),
    }
}

fn text(raw: &Raw) -> Result<String, String> {
    match raw {
        Raw::Written(text) | Raw::Typed(Value::String(text)) if text.trim().is_empty() => {
            Err("must not be empty".to_owned())
        }
        Raw::Written(text) | Raw::Typed(Value::String(text)) => Ok(text.trim().to_owned()),
        Raw::Typed(_) => Err("has to be a text in quotes".to_owned()),
    }
}

fn address(text: &str) -> Result<SocketAddr, String> {
    let literal = match text.strip_prefix("localhost:") {
        Some(port) => format!("127.0.0.1:{port}"),
        None => text.to_owned(),
    };
    literal.parse().map_err(|_| "has to be an address and a port, as 127.0.0.1:8080".to_owned())
}

fn flag(raw: &Raw) -> Result<bool, String> {
    match raw {
        Raw::Typed(Value::Boolean(value)) => Ok(*value),
        Raw::Written(text) => match text.trim().to_ascii_lowercase().as_str() {
            "true" | "1" | "yes" | "on" => Ok(true),
            "false" | "0" | "no" | "off" => Ok(false),
            _ => Err("has to be true or false".to_owned()),
        },
        Raw::Typed(_) => Err("has to be true or false".to_owned()),
    }
}

fn number(raw: &Raw, max: u64) -> Result<u64, String> {
    let found = match raw {
        Raw::Typed(Value::Integer(value)) => u64::try_from(*value).ok(),
        Raw::Written(text) => text.trim().parse().ok(),
        Raw::Typed(_) => None,
    };
    match found {
        Some(0) => Err("must not be zero".to_owned()),
        Some(value) if value <= max => Ok(value),
        _ => Err(format!("has to be a whole number from 1 to {max}")),
    }
}

fn choice(text: &str, choices: &'static [&'static str]) -> Result<&'static str, String> {
    let found = choices.iter().find(|choice| **choice == text);
    found.copied().ok_or_else(|| format!("has to be one of {}", choices.join(", ")))
}

fn list(raw: &Raw) -> Result<Vec<String>, String> {
    match raw {
        Raw::Written(text) => {
            Ok(text.split(',').map(str::trim).filter(|entry| !entry.is_empty()).map(str::to_owned).collect())
        }
        Raw::Typed(Value::Array(entries)) => {
            entries.iter().map(|entry| text(&Raw::Typed(entry.clone()))).collect()
        }
        Raw::Typed(_) => Err("has to be a list, as [\"one\", \"two\"]".to_owned()),
    }
}
