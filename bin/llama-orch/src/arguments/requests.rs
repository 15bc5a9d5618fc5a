//! The request log, and asking again.

use clap::Args;

use crate::words::Since;

#[derive(Debug, Args)]
pub struct RequestsArguments {
    /// Asked for by this name only
    #[arg(long, value_name = "NAME")]
    pub model: Option<String>,
    /// With this key only, by id or name; `anyone` and `local` stand for those without
    #[arg(long, value_name = "KEY")]
    pub key: Option<String>,
    /// Served by this instance only
    #[arg(long, value_name = "NAME")]
    pub instance: Option<String>,
    /// Ended like this only
    #[arg(long, value_parser = ["done", "refused", "broken", "canceled"])]
    pub outcome: Option<String>,
    /// Nothing older: 10m, 2h, 7d or 2026-01-31T12:00:00Z
    #[arg(long, value_name = "T", value_parser = Since::parse)]
    pub(crate) since: Option<Since>,
    /// Go on with what comes, oldest first
    #[arg(short, long)]
    pub follow: bool,
    /// How many of the newest requests are shown
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u16).range(1..=1000))]
    pub limit: u16,
}

#[derive(Debug, Args)]
pub struct ReplayArguments {
    /// The request: its id, or the beginning of it, as `requests` shows it
    pub id: String,
    /// The instance that gets it now: uid, number, name or display name
    #[arg(long, value_name = "INSTANCE")]
    pub on: String,
}
