//! `replay`: sends a captured request again, to an instance of one's choice, and compares the two answers.

use std::time::{Duration, Instant};

use bytes::Bytes;
use orch_api::{CapturedRequest, RequestView};
use orch_core::{ExitCode, Failure};
use orchestratord::client::DaemonClient;
use serde::Serialize;
use serde_json::{Value, json};

use super::requests::{show_count, show_millis};
use crate::answer_text::answer_text;
use crate::arguments::ReplayArguments;
use crate::context::Context;
use crate::ending::CommandResult;
use crate::runtime::block_on;

/// The longest answer that is waited for: a long text on a slow machine.
const ANSWER_LIMIT: Duration = Duration::from_secs(600);
/// A request is in the log a moment after its end.
const LOG_LIMIT: Duration = Duration::from_secs(5);
const LOG_PACE: Duration = Duration::from_millis(100);

/// Both answers side by side.
#[derive(Debug, Serialize)]
struct Comparison {
    /// Null where the first answer was not captured.
    same_text: Option<bool>,
    original: Side,
    replay: Side,
}

#[derive(Debug, Serialize)]
struct Side {
    request: RequestView,
    /// Null where the answer was not captured.
    text_length: Option<usize>,
}

pub(super) fn run(context: &Context, arguments: &ReplayArguments) -> CommandResult {
    let client = match context.remote()? {
        Some(client) => client,
        None => DaemonClient::living(context.home()?).ok_or_else(no_daemon)?,
    };
    let comparison = block_on(compare(&client, arguments))?;
    show(context, &comparison)?;
    let RequestView { status, code, .. } = &comparison.replay.request;
    if *status >= 400 {
        let code = code.as_ref().map(|code| format!(" {code}")).unwrap_or_default();
        let message = format!("{} answered the replay with {status}{code}", arguments.on);
        return Err(Failure::new(ExitCode::General, message).into());
    }
    Ok(())
}

fn no_daemon() -> Failure {
    Failure::new(
        ExitCode::DaemonNotRunning,
        "a request is sent again through the daemon, and none is running",
    )
    .hint("start it: llama-orch daemon start")
}

async fn compare(client: &DaemonClient, arguments: &ReplayArguments) -> Result<Comparison, Failure> {
    let original = client.captured(&arguments.id).await?;
    let instance = client.describe(&arguments.on).await?;
    let name = instance["name"].as_str().unwrap_or(&arguments.on);
    let body = body_for(&original, name)?;
    let id = format!("replay-{}", uuid::Uuid::now_v7().simple());
    let (_, answer) = client.forward(&original.request.endpoint, body, &id, ANSWER_LIMIT).await?;
    let request = recorded(client, &id).await?;
    let first = original.answer.as_deref().map(answer_text);
    let second = answer_text(&String::from_utf8_lossy(&answer));
    Ok(Comparison {
        same_text: first.as_ref().map(|first| *first == second),
        original: Side { request: original.request, text_length: first.map(|text| text.chars().count()) },
        replay: Side { request, text_length: Some(second.chars().count()) },
    })
}

/// The request as it was, for another instance.
fn body_for(original: &CapturedRequest, instance: &str) -> Result<Bytes, Failure> {
    let id = &original.request.id;
    let Some(body) = &original.body else {
        return Err(Failure::new(ExitCode::General, format!("the body of request {id} was not kept"))
            .hint("set `bodies = true` under [capture] in config.toml and restart the daemon: later requests are kept"));
    };
    let mut body: Value = serde_json::from_str(body).map_err(|error| {
        Failure::new(ExitCode::General, format!("the body of request {id} cannot be sent again: {error}"))
    })?;
    if let Some(members) = body.as_object_mut() {
        members.insert("model".to_owned(), json!(instance));
    }
    Ok(Bytes::from(body.to_string()))
}

/// The replay as the log tells it: measured as the original was.
async fn recorded(client: &DaemonClient, id: &str) -> Result<RequestView, Failure> {
    let begun = Instant::now();
    loop {
        match client.captured(id).await {
            Ok(found) => return Ok(found.request),
            Err(failure) if failure.exit == ExitCode::InstanceNotFound && begun.elapsed() < LOG_LIMIT => {
                tokio::time::sleep(LOG_PACE).await;
            }
            Err(failure) => return Err(failure),
        }
    }
}

fn show(context: &Context, comparison: &Comparison) -> CommandResult {
    if context.printer.json() {
        return Ok(context.printer.document(comparison)?);
    }
    let headings =
        ["", "ID", "INSTANCE", "STATUS", "FIRST", "TOTAL", "PROMPT", "CACHED", "OUT", "CHARACTERS"];
    let rows = [("original", &comparison.original), ("replay", &comparison.replay)].map(|(name, side)| {
        let request = &side.request;
        vec![
            name.to_owned(),
            request.id.clone(),
            request.instance.clone().unwrap_or_else(|| "-".to_owned()),
            request.status.to_string(),
            show_millis(request.first_token_ms),
            show_millis(Some(request.total_ms)),
            show_count(request.prompt_tokens),
            show_count(request.cached_tokens),
            show_count(request.completion_tokens),
            show_count(side.text_length.map(|length| length as u64)),
        ]
    });
    context.printer.table(&headings, &rows)?;
    let verdict = match comparison.same_text {
        Some(true) => "the texts are equal",
        Some(false) => "the texts differ",
        None => "the first answer was not kept: the texts cannot be compared",
    };
    Ok(context.printer.line(verdict)?)
}
