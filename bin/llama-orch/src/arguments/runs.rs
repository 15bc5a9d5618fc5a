//! Looks at workflow runs: one, its events, all.

use clap::Args;
use workflow::{EventType, Level};

#[derive(Debug, Args)]
pub struct ShowArguments {
    /// Job: its id, a beginning of it that no other has, or `last`
    pub job_id: String,
    /// Also its events
    #[arg(long)]
    pub events: bool,
    /// Also the files that it wrote
    #[arg(long)]
    pub files: bool,
}

#[derive(Debug, Args)]
pub struct TailArguments {
    /// Job: its id, a beginning of it that no other has, or `last`
    pub job_id: String,
    /// Go on with what comes until the job ends, also when it is resumed meanwhile
    #[arg(short, long)]
    pub follow: bool,
    /// Of this type only
    #[arg(long = "type", value_name = "TYPE", value_parser = run_event)]
    pub event_type: Option<EventType>,
    /// Of this step, and of those that it was expanded to
    #[arg(long, value_name = "STEP")]
    pub step: Option<String>,
    /// This level and above: info, warn, error
    #[arg(long, value_parser = run_level)]
    pub level: Option<Level>,
    /// Only what comes after the event with this number
    #[arg(long, value_name = "SEQ", default_value_t = 0)]
    pub since: u64,
}

#[derive(Debug, Args)]
pub struct WhyArguments {
    /// Job: its id, a beginning of it that no other has, or `last`
    pub job_id: String,
    /// Step; one of a map is `name[0]`, one of a loop `name/1/body`
    pub step: String,
}

fn run_event(text: &str) -> Result<EventType, String> {
    let words = || EventType::ALL.iter().map(|kind| kind.word()).collect::<Vec<_>>().join(", ");
    EventType::from_word(text).ok_or_else(|| format!("is one of {}", words()))
}

fn run_level(text: &str) -> Result<Level, String> {
    match text.to_ascii_lowercase().as_str() {
        "info" => Ok(Level::Info),
        "warn" | "warning" => Ok(Level::Warn),
        "error" => Ok(Level::Error),
        _ => Err("is one of info, warn, error".to_owned()),
    }
}

#[derive(Debug, Args)]
pub struct DecideArguments {
    /// Job: its id, a beginning of it that no other has, or `last`
    pub job_id: String,
    /// Step that asks
    pub step: String,
    /// One of its choices
    pub choice: String,
}

#[derive(Debug, Args)]
pub struct CancelArguments {
    /// Job: its id, a beginning of it that no other has, or `last`
    pub job_id: String,
}
