//! Values that clap does not know how to read by itself.

use orch_core::{EventLevel, EventType, Priority, ReplicaId, Scope};

pub(super) fn instance_port(text: &str) -> Result<u16, String> {
    match text.parse() {
        Ok(port @ (0 | 1024..)) => Ok(port),
        _ => Err("is 0 (chosen at each start) or 1024 to 65535".to_owned()),
    }
}

pub(super) fn replica(text: &str) -> Result<ReplicaId, String> {
    let digits = text.strip_prefix('r').unwrap_or(text);
    digits.parse().map(ReplicaId).map_err(|_| "is the number of a replica, counted from 0".to_owned())
}

pub(super) fn event_level(text: &str) -> Result<EventLevel, String> {
    EventLevel::from_label(text).ok_or_else(|| format!("is one of {}", labels(EventLevel::ALL)))
}

pub(super) fn event_type(text: &str) -> Result<EventType, String> {
    EventType::from_label(text).ok_or_else(|| format!("is one of {}", labels(EventType::ALL)))
}

pub(super) fn scope(text: &str) -> Result<Scope, String> {
    Scope::from_label(text).ok_or_else(|| format!("is one of {}", labels(Scope::ALL)))
}

pub(super) fn priority(text: &str) -> Result<Priority, String> {
    Priority::from_label(text).ok_or_else(|| format!("is one of {}", labels(Priority::ALL)))
}

fn labels(all: &[impl std::fmt::Display]) -> String {
    all.iter().map(|one| format!("{one}")).collect::<Vec<_>>().join(", ")
}

pub(super) fn assignment(text: &str) -> Result<(String, String), String> {
    let parts = text.split_once('=').filter(|(field, _)| !field.is_empty());
    parts
        .map(|(field, value)| (field.to_owned(), value.to_owned()))
        .ok_or_else(|| "write it as field=value".to_owned())
}
