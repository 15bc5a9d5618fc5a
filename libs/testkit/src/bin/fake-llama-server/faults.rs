//! What can go wrong, as a table of knobs.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

/// How the value of a knob reads.
#[derive(Clone, Copy)]
enum Kind {
    Number,
    Text,
}

struct Knob {
    name: &'static str,
    kind: Kind,
    about: &'static str,
}

const fn number(name: &'static str, about: &'static str) -> Knob {
    Knob { name, kind: Kind::Number, about }
}

const fn text(name: &'static str, about: &'static str) -> Knob {
    Knob { name, kind: Kind::Text, about }
}

/// Every knob; switches are numbers (1 = on). A knob that is not set does nothing.
#[rustfmt::skip]
const KNOBS: &[Knob] = &[
    // Start and load.
    number("FAKE_BIND_MS", "connections are refused for so long"),
    number("FAKE_NEVER_BIND", "connections are refused for ever"),
    number("FAKE_LOAD_MS", "answers 503 for so long"),
    number("FAKE_NEVER_READY", "answers 503 for ever"),
    text("FAKE_LOAD_GROWS", "what grows while it loads: stderr, memory or reads; nothing when not set"),
    text("FAKE_START_LOG", "file that gets a line `pid port` at each start"),
    // Ends.
    text("FAKE_EXIT_AT", "ends at: start (before it binds), loaded (instead of getting ready)"),
    number("FAKE_EXIT_AFTER_MS", "ends so long after its start, or after the knob was set"),
    number("FAKE_EXIT_AFTER_TOKENS", "ends instead of making one token more than so many in all"),
    number("FAKE_EXIT_CODE", "the code it ends with then (1)"),
    number("FAKE_EXIT_SIGNAL", "the signal it ends itself with then, instead of a code"),
    text("FAKE_LAST_WORDS", "what it writes to stderr before it ends"),
    number("FAKE_CRASHES", "only the first so many starts (lines of FAKE_START_LOG) end that way"),
    number("FAKE_IGNORE_SIGTERM", "so many SIGTERMs do nothing at all"),
    // Probes.
    number("FAKE_HEALTH_STATUS", "what /health answers"),
    text("FAKE_HEALTH_BODY", "what /health says"),
    number("FAKE_HEALTH_MS", "how long /health takes"),
    number("FAKE_TOTAL_SLOTS", "what /props says of the slots (as many as there are)"),
    text("FAKE_HANG", "never answers: all, health or inference"),
    // Generation.
    text("FAKE_TEXT", "what it says, again and again; one token a word"),
    number("FAKE_TOKENS", "tokens of an answer when the request sets no limit (8)"),
    number("FAKE_FIRST_TOKEN_MS", "before the first token"),
    number("FAKE_WORKS", "uses the processor before the first token, as a real one does"),
    number("FAKE_TOKEN_MS", "before every other token"),
    number("FAKE_STATUS", "inference answers with this status"),
    number("FAKE_STATUS_TIMES", "only the next so many do"),
    // Streams.
    number("FAKE_CLOSE_AFTER_TOKENS", "closes the connection, without an end; 0 = before the first byte"),
    number("FAKE_HANG_AFTER_TOKENS", "falls silent; 0 = before the first byte"),
    number("FAKE_ERROR_AFTER_TOKENS", "ends the stream with an error event"),
    number("FAKE_MALFORMED_AFTER_TOKENS", "puts a broken frame in between"),
    number("FAKE_SPLIT_BYTES", "writes in pieces of so many bytes"),
    number("FAKE_PING_TOKENS", "a comment line before every so many tokens"),
    number("FAKE_NO_DONE", "ends a stream without its last frame"),
    number("FAKE_NO_MESSAGE_START", "leaves message_start out, as the real one does at times"),
    // Logs.
    number("FAKE_FLOOD_BYTES", "writes so much to stdout and to stderr, as fast as it can"),
    number("FAKE_LOG_EVERY_MS", "writes a numbered line to both that often"),
    // Children.
    number("FAKE_CHILDREN", "starts so many children, which live until they are killed"),
    number("FAKE_CHILDREN_NEW_SESSION", "they leave session and process group"),
    number("FAKE_CHILDREN_DEAF", "they are deaf to SIGTERM"),
    // Processes that cannot be looked at or signalled; Linux only.
    number("FAKE_HIDDEN", "nobody but an administrator may look at it"),
    number("FAKE_USER", "it becomes the user of this number when it is ready; needs root"),
    // What kind of engine.
    text("FAKE_VERSION", "what --version says"),
    text("FAKE_DEVICES", "what --list-devices lists, separated by ';'"),
    text("FAKE_UNKNOWN_FLAGS", "flags it does not know, separated by ','"),
];

/// The knobs that are set.
#[derive(Clone, Default)]
pub(crate) struct Faults(BTreeMap<&'static str, String>);

impl Faults {
    /// Takes every `FAKE_*` variable. A name nobody knows is an error: a fault that does not strike makes a test
    /// that cannot fail.
    pub(crate) fn from_environment(
        variables: impl Iterator<Item = (String, String)>,
    ) -> Result<Self, String> {
        let mut faults = Self::default();
        for (name, value) in variables.filter(|(name, _)| name.starts_with("FAKE_")) {
            faults.set(&name, &value)?;
        }
        Ok(faults)
    }

    /// Sets one knob; an empty value takes it back.
    pub(crate) fn set(&mut self, name: &str, value: &str) -> Result<(), String> {
        let knob = KNOBS.iter().find(|knob| knob.name == name).ok_or_else(|| format!("no knob {name}"))?;
        if value.is_empty() {
            self.0.remove(knob.name);
            return Ok(());
        }
        if matches!(knob.kind, Kind::Number) && value.parse::<u64>().is_err() {
            return Err(format!("{name} is a number, not {value:?}"));
        }
        self.0.insert(knob.name, value.to_owned());
        Ok(())
    }

    pub(crate) fn text(&self, name: &str) -> Option<&str> {
        debug_assert!(KNOBS.iter().any(|knob| knob.name == name), "no knob {name}");
        self.0.get(name).map(String::as_str)
    }

    pub(crate) fn number(&self, name: &str) -> Option<u64> {
        self.text(name).and_then(|value| value.parse().ok())
    }

    pub(crate) fn is_on(&self, name: &str) -> bool {
        self.number(name).is_some_and(|value| value > 0)
    }

    pub(crate) fn millis(&self, name: &str) -> Duration {
        Duration::from_millis(self.number(name).unwrap_or(0))
    }

    /// The text of `--help` about knobs.
    pub(crate) fn help() -> String {
        let mut help = String::from("\nfaults, as environment variables:\n");
        for knob in KNOBS {
            let _ = writeln!(help, "    {:28} {}", knob.name, knob.about);
        }
        help
    }
}
