//! What changed in a config, and what of it a running engine has not heard of.

use std::collections::BTreeMap;

use instance_config::LoadedInstance;
use serde::Serialize;
use serde_json::Value;

/// One field that changed; secrets are masked.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Change {
    pub field: &'static str,
    pub from: Value,
    pub to: Value,
    /// Whether a running engine hears of it only with its next start.
    pub needs_restart: bool,
}

/// Every field whose effective value differs. A secret that changed shows as changed, though both are masked.
pub(crate) fn between(old: &LoadedInstance, new: &LoadedInstance) -> Vec<Change> {
    let before: BTreeMap<_, _> =
        old.effective().into_iter().map(|value| (value.field, value.value)).collect();
    let mut changes = Vec::new();
    for value in new.effective() {
        let from = before.get(value.field).cloned().unwrap_or(Value::Null);
        let masked = match value.field {
            "args" => old.config.args != new.config.args,
            "env" => old.config.env != new.config.env,
            _ => false,
        };
        if from != value.value || masked {
            let needs_restart = value.needs_restart;
            changes.push(Change { field: value.field, from, to: value.value, needs_restart });
        }
    }
    changes
}

/// An argument that a running engine was started with otherwise than the config asks for now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct ChangedArgument {
    pub argument: String,
    /// What it runs with; `None` = without this argument.
    pub running: Option<String>,
    /// What its next start would have.
    pub config: Option<String>,
}

/// The differences of two command lines, each as the database keeps it: masked, words joined by blanks.
pub(crate) fn arguments(running: &str, config: &str) -> Vec<ChangedArgument> {
    let (running, config) = (by_flag(running), by_flag(config));
    let mut changed = Vec::new();
    for flag in running.keys().chain(config.keys().filter(|flag| !running.contains_key(*flag))) {
        let (before, after) = (running.get(flag), config.get(flag));
        if before != after {
            let argument = (*flag).to_owned();
            changed.push(ChangedArgument { argument, running: before.cloned(), config: after.cloned() });
        }
    }
    changed
}

/// The values behind each flag, in their order.
fn by_flag(line: &str) -> BTreeMap<&str, String> {
    let mut flags: BTreeMap<&str, String> = BTreeMap::new();
    let mut current = "";
    for word in line.split_whitespace() {
        if word.starts_with('-') && !word[1..].starts_with(|next: char| next.is_ascii_digit()) {
            current = word;
            flags.entry(current).or_default();
        } else {
            let values = flags.entry(current).or_default();
            if !values.is_empty() {
                values.push(' ');
            }
            values.push_str(word);
        }
    }
    flags
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_differs_between_two_command_lines_is_told() {
        let changed = arguments(
            "--ctx-size 4096 --threads 8 --metrics --n-predict -1",
            "--ctx-size 8192 --threads 8 --n-predict -1 --flash-attn on",
        );
        let told: Vec<_> = changed
            .iter()
            .map(|it| (it.argument.as_str(), it.running.as_deref(), it.config.as_deref()))
            .collect();
        assert_eq!(
            told,
            [
                ("--ctx-size", Some("4096"), Some("8192")),
                ("--metrics", Some(""), None),
                ("--flash-attn", None, Some("on")),
            ]
        );
    }
}
