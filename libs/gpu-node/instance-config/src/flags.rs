//! What engines changed about their flags, and how a user's older arguments are carried over.
//!
//! Knowledge of removed flags lives here alone. It is applied only where the probed engine lists the replacement, so
//! an older engine gets what the user wrote.

use orch_core::EngineProfile;

use crate::arguments::{flag_of, has_flag};
use crate::finding::Finding;
use crate::nearest::nearest;

/// A user's arguments as one engine takes them.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Translation {
    pub args: Vec<String>,
    pub warnings: Vec<String>,
    pub rejected: Vec<Finding>,
}

const LOAD_MODE: &str = "--load-mode";
const NO_MMAP: &str = "--no-mmap";

/// Flags that were renamed and still take the same value. Engines go on listing some of the old names in their help,
/// only to refuse them.
const RENAMED: [(&[&str], &str); 2] = [
    (&["--draft", "--draft-n", "--draft-max"], "--spec-draft-n-max"),
    (&["--draft-min", "--draft-n-min"], "--spec-draft-n-min"),
];

/// Flags without a single heir: what they meant now depends on the kind of speculation.
const SPLIT: [(&str, &str, &str); 3] = [
    (
        "--spec-ngram-size-n",
        "--spec-ngram-simple-size-n",
        "--spec-ngram-simple-size-n, --spec-ngram-map-k-size-n or --spec-ngram-mod-n-match",
    ),
    (
        "--spec-ngram-size-m",
        "--spec-ngram-simple-size-m",
        "--spec-ngram-simple-size-m or --spec-ngram-map-k-size-m",
    ),
    (
        "--spec-ngram-min-hits",
        "--spec-ngram-simple-min-hits",
        "--spec-ngram-simple-min-hits or --spec-ngram-map-k-min-hits",
    ),
];

/// Lists whose elements were once two arguments, `FILE SCALE`, and are one now, `FILE:SCALE`.
const SCALED: [&str; 2] = ["--lora-scaled", "--control-vector-scaled"];

pub(crate) fn translate(args: &[String], profile: &EngineProfile) -> Translation {
    let mut translation = Translation { args: args.to_vec(), ..Translation::default() };
    if profile.flags.is_empty() {
        // Nothing is known of this engine, and a guess must not change what the user wrote.
        return translation;
    }
    translation.merge_load_modes(profile);
    translation.rename(profile);
    if profile.flags.contains(LOAD_MODE) {
        translation.give_flash_attention_its_value();
        translation.join_scaled();
    }
    translation.reject_split(profile);
    translation.reject_unknown(profile);
    translation
}

impl Translation {
    /// `--mmap`, `--no-mmap`, `--mlock` and `--direct-io` became values of one flag.
    fn merge_load_modes(&mut self, profile: &EngineProfile) {
        let switches: Vec<String> =
            self.args.iter().filter_map(|token| old_load_mode(token, profile)).collect();
        if switches.is_empty() || !profile.flags.contains(LOAD_MODE) {
            return;
        }
        let written = switches.join(" ");
        let Ok(mode) = load_mode(&switches) else {
            self.args.retain(|token| old_load_mode(token, profile).is_none());
            self.rejected.push(
                Finding::error("args", format!("{written} has no equivalent in this engine"))
                    .suggest("use --load-mode none or --load-mode mlock"),
            );
            return;
        };
        let position =
            self.args.iter().position(|token| old_load_mode(token, profile).is_some()).unwrap_or(0);
        let already = has_flag(&self.args, &[LOAD_MODE, "-lm"]);
        self.args.retain(|token| old_load_mode(token, profile).is_none());
        let Some(mode) = mode.filter(|_| !already) else {
            self.warnings.push(format!("{written} is left out: engines no longer take it"));
            return;
        };
        self.args.splice(position..position, [LOAD_MODE.to_owned(), mode.to_owned()]);
        self.warnings.push(format!("{written} is given as {LOAD_MODE} {mode}: engines no longer take it"));
    }

    fn rename(&mut self, profile: &EngineProfile) {
        for (old, new) in RENAMED.into_iter().filter(|(_, new)| profile.flags.contains(*new)) {
            for token in &mut self.args {
                let Some(flag) = flag_of(token).filter(|flag| old.contains(&flag.as_str())) else { continue };
                self.warnings.push(format!("{flag} is given as {new}: engines no longer take it"));
                new.clone_into(token);
            }
        }
    }

    /// A bare `-fa` would swallow the next argument.
    fn give_flash_attention_its_value(&mut self) {
        let bare = |args: &[String], at: usize| {
            let flag = flag_of(&args[at]).is_some_and(|flag| flag == "-fa" || flag == "--flash-attn");
            flag && !args.get(at + 1).is_some_and(|next| is_flash_attention_value(next))
        };
        let mut at = 0;
        while at < self.args.len() {
            if bare(&self.args, at) {
                self.warnings.push(format!("{} is given its value, on", self.args[at]));
                self.args.insert(at + 1, "on".to_owned());
            }
            at += 1;
        }
    }

    fn join_scaled(&mut self) {
        let mut at = 0;
        while at + 2 < self.args.len() {
            let scaled = flag_of(&self.args[at]).is_some_and(|flag| SCALED.contains(&flag.as_str()));
            if scaled && !self.args[at + 1].contains(':') && self.args[at + 2].parse::<f64>().is_ok() {
                let scale = self.args.remove(at + 2);
                self.args[at + 1] = format!("{}:{scale}", self.args[at + 1]);
                self.warnings.push(format!("{} is given as FILE:SCALE", self.args[at]));
            }
            at += 1;
        }
    }

    fn reject_split(&mut self, profile: &EngineProfile) {
        for (old, witness, heirs) in SPLIT {
            if profile.flags.contains(witness) && has_flag(&self.args, &[old]) {
                let message = format!("engines no longer take {old}");
                self.rejected.push(Finding::error("args", message).suggest(format!("use {heirs}")));
            }
        }
    }

    fn reject_unknown(&mut self, profile: &EngineProfile) {
        let mut refused: Vec<String> = Vec::new();
        for token in &self.args {
            let Some(flag) = flag_of(token).filter(|flag| !refused.contains(flag)) else { continue };
            if profile.flags.contains(&flag) && token.contains('=') {
                self.rejected.push(
                    Finding::error("args", format!("engines do not take {flag} joined to its value by ="))
                        .suggest(format!("write {flag} and its value as two arguments")),
                );
            } else if !profile.knows_flag(&flag) {
                let finding = Finding::error("args", format!("the engine does not know {flag}"));
                self.rejected.push(match nearest(&flag, profile.flags.iter().map(String::as_str)) {
                    Some(near) => finding.suggest(format!("did you mean {near}?")),
                    None => finding.suggest("see the engine's --help"),
                });
            } else {
                continue;
            }
            refused.push(flag);
        }
    }
}

/// The old load-mode switch that a token is, unless the engine still takes it.
fn old_load_mode(token: &str, profile: &EngineProfile) -> Option<String> {
    const OLD: [&str; 6] = ["--mmap", NO_MMAP, "--mlock", "-dio", "--direct-io", "--no-direct-io"];
    flag_of(token).filter(|flag| OLD.contains(&flag.as_str()) && !profile.knows_flag(flag))
}

/// The one mode that several switches ask for; none when they only ask for the default. Locking without mapping
/// cannot be had any more.
fn load_mode(switches: &[String]) -> Result<Option<&'static str>, ()> {
    let has = |flag: &str| switches.iter().any(|switch| switch == flag);
    match (has("-dio") || has("--direct-io"), has(NO_MMAP), has("--mlock"), has("--mmap")) {
        (_, true, true, _) => Err(()),
        (true, ..) => Ok(Some("dio")),
        (_, true, ..) => Ok(Some("none")),
        (_, _, true, true) => Ok(Some("mmap+mlock")),
        (_, _, true, false) => Ok(Some("mlock")),
        (_, _, _, true) => Ok(Some("mmap")),
        _ => Ok(None),
    }
}

fn is_flash_attention_value(token: &str) -> bool {
    ["on", "off", "auto", "0", "1", "-1", "true", "false", "enabled", "disabled"].contains(&token)
}
