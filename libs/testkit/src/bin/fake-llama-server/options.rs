//! What the command line asks for.

use std::collections::BTreeMap;
use std::path::PathBuf;

use crate::faults::Faults;
use crate::flags::{Flag, help, known_flags, removal};

/// What to do: serve, or print something and end.
pub(crate) enum Action {
    Serve(Options),
    PrintOut(String),
    PrintErr(String),
}

/// The options that change what a fake engine does; the others are checked and forgotten.
pub(crate) struct Options {
    pub(crate) model: PathBuf,
    pub(crate) host: String,
    pub(crate) port: u16,
    pub(crate) alias: String,
    pub(crate) slots: usize,
    /// Of all slots together.
    pub(crate) context: u64,
    pub(crate) api_keys: Vec<String>,
    pub(crate) metrics: bool,
    pub(crate) slots_endpoint: bool,
    pub(crate) embeddings: bool,
}

impl Options {
    /// Reads the arguments as the real one does: the last of a repeated flag wins, an unknown one is refused.
    pub(crate) fn parse(arguments: &[String], faults: &Faults) -> Result<Action, String> {
        let flags = known_flags(faults.text("FAKE_UNKNOWN_FLAGS").unwrap_or(""));
        let given = collect(arguments, &flags)?;
        if given.contains_key("--help") {
            return Ok(Action::PrintOut(help(&flags) + &Faults::help()));
        }
        if given.contains_key("--version") {
            let version =
                faults.text("FAKE_VERSION").unwrap_or("version: 0.6.0-fake (build 11434, commit unknown)");
            return Ok(Action::PrintErr(format!("{version}\nbuilt with rustc\n")));
        }
        if given.contains_key("--list-devices") {
            return Ok(Action::PrintOut(devices(faults.text("FAKE_DEVICES").unwrap_or(""))));
        }
        from_given(&given).map(Action::Serve)
    }
}

/// Flags by their first long name, with their value, or with the name they were given by when they have none.
type Given = BTreeMap<&'static str, String>;

fn collect(arguments: &[String], flags: &[Flag]) -> Result<Given, String> {
    let mut given = Given::new();
    let mut rest = arguments.iter();
    while let Some(argument) = rest.next() {
        let found = flags.iter().find(|flag| flag.names.iter().any(|name| name == argument));
        let flag = found.ok_or_else(|| format!("error: invalid argument: {argument}"))?;
        let wrong = |what: &str| format!("error while handling argument \"{argument}\": {what}");
        if let Some(advice) = flag.removed {
            return Err(wrong(&removal(advice)));
        }
        let mut value = argument.clone();
        for _ in 0..flag.value_count() {
            value.clone_from(rest.next().ok_or_else(|| wrong("expected value for argument"))?);
        }
        given.insert(flag.key(), value);
    }
    Ok(given)
}

fn from_given(given: &Given) -> Result<Options, String> {
    let model = given.get("--model").ok_or("error: this engine is no router: it needs --model")?;
    let model = PathBuf::from(model);
    let file_name = || model.file_name().map(|name| name.to_string_lossy().into_owned());
    let alias = given.get("--alias").and_then(|list| list.split(',').next().map(str::to_owned));
    let slots: i32 = number(given, "--parallel", -1)?;
    Ok(Options {
        host: given.get("--host").map_or("127.0.0.1", String::as_str).to_owned(),
        port: number(given, "--port", 8080)?,
        alias: alias.or_else(file_name).unwrap_or_default(),
        // −1 is its own choice, which is four.
        slots: if slots < 1 { 4 } else { slots.unsigned_abs() as usize },
        context: match number(given, "--ctx-size", 0)? {
            0 => 4096,
            asked => asked,
        },
        api_keys: api_keys(given)?,
        metrics: given.contains_key("--metrics"),
        slots_endpoint: given.get("--slots").is_none_or(|name| name != "--no-slots"),
        embeddings: given.contains_key("--embedding"),
        model,
    })
}

fn number<T: std::str::FromStr>(given: &Given, flag: &str, default: T) -> Result<T, String> {
    given.get(flag).map_or(Ok(default), |value| {
        value.parse().map_err(|_| format!("error while handling argument \"{flag}\": stoi: {value:?}"))
    })
}

fn api_keys(given: &Given) -> Result<Vec<String>, String> {
    let mut keys = Vec::new();
    let mut add = |list: &str| keys.extend(list.split(',').filter(|key| !key.is_empty()).map(str::to_owned));
    match (given.get("--api-key"), std::env::var("LLAMA_API_KEY")) {
        (Some(list), _) => add(list),
        (None, Ok(list)) => add(&list),
        (None, Err(_)) => {}
    }
    if let Some(path) = given.get("--api-key-file") {
        let text =
            std::fs::read_to_string(path).map_err(|_| format!("error: failed to open file '{path}'"))?;
        text.lines().filter(|line| !line.starts_with('#')).for_each(add);
    }
    Ok(keys)
}

fn devices(list: &str) -> String {
    let mut text = String::from("Available devices:\n");
    if list.is_empty() {
        text.push_str("  (none)\n");
    }
    for device in list.split(';').filter(|device| !device.is_empty()) {
        text.extend(["  ", device.trim(), "\n"]);
    }
    text
}
