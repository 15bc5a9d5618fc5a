//! Jobs of a control plane elsewhere: the same words, asked over the network.

use std::time::Duration;

use orch_api::{JobDecision, SentEvent, StreamEnd};
use orch_core::{ExitCode, Failure};
use orchestratord::client::DaemonClient;
use serde_json::{Value, json};
use workflow::{Event, JournalLine};

use crate::arguments::ShowArguments;
use crate::context::Context;
use crate::ending::{CommandResult, Ended};
use crate::runtime::block_on;
use crate::words::{or_dash, show_seconds};

/// Names the newest job.
const LAST: &str = "last";
/// So long a stream may stay broken: a daemon that restarts is back by then.
const PATIENCE: Duration = Duration::from_secs(60);
/// Between two tries to connect again.
const AGAIN: Duration = Duration::from_millis(500);

const STEP_HEADINGS: [&str; 5] = ["STEP", "STATUS", "ATTEMPTS", "TOKENS", "DURATION"];

pub(super) fn show(context: &Context, client: &DaemonClient, arguments: &ShowArguments) -> CommandResult {
    let id = named(client, &arguments.job_id)?;
    let mut document = block_on(client.job(&id))?;
    if arguments.events {
        let mut events = Vec::new();
        follow(client, &id, 0, false, &mut |line| {
            events.push(serde_json::from_str::<Value>(&line.text).unwrap_or_default());
            Ok(true)
        })?;
        document["events"] = events.into();
    }
    if context.printer.json() {
        return Ok(context.printer.document(&document)?);
    }
    let steps = document["steps"].as_object().into_iter().flatten();
    let cells = |(id, step): (&String, &Value)| {
        vec![
            id.clone(),
            word(&step["status"]),
            word(&step["attempts"]),
            word(&step["tokens"]),
            or_dash(step["duration_s"].as_f64().map(show_seconds)),
        ]
    };
    context.printer.table(&STEP_HEADINGS, &steps.map(cells).collect::<Vec<_>>())?;
    context.printer.line("")?;
    context.printer.pairs(&totals(&document, usize::MAX))?;
    for event in document["events"].as_array().into_iter().flatten() {
        context.printer.line(event)?;
    }
    Ok(())
}

/// What is told of a job as a whole, with so many of its failures.
pub(super) fn totals(document: &Value, most_failures: usize) -> Vec<(&'static str, String)> {
    let progress = &document["progress"];
    let mut totals = vec![
        ("job", word(&document["job_id"])),
        ("status", word(&document["status"])),
        ("steps", format!("{} of {} done", progress["done"], progress["all"])),
        ("tokens", word(&document["usage"]["total_tokens"])),
        ("duration", or_dash(document["duration_s"].as_f64().map(show_seconds))),
    ];
    if let Some(error) = document["error"].as_str() {
        totals.push(("error", plain(error)));
    }
    let failures = document["failures"].as_array().map_or(&[][..], Vec::as_slice);
    for failure in failures.iter().take(most_failures) {
        totals.push(("failed", plain(&format!("{}: {}", word(&failure["step"]), word(&failure["message"])))));
    }
    if failures.len() > most_failures {
        totals.push(("failed", format!("… and {} more", failures.len() - most_failures)));
    }
    for (step, choices) in gates(document, ", ") {
        let message = word(&document["steps"][step]["question"]["message"]);
        totals.push(("asks", plain(&format!("{step}: {message} ({choices})"))));
    }
    totals
}

/// Steps that wait for a decision, with the words that decide.
pub(super) fn gates<'a>(document: &'a Value, between: &str) -> impl Iterator<Item = (&'a str, String)> {
    let steps = document["steps"].as_object().into_iter().flatten();
    steps.filter_map(move |(step, it)| {
        let choices = it["question"]["choices"].as_array()?;
        let words: Vec<&str> = choices.iter().filter_map(Value::as_str).collect();
        Some((step.as_str(), words.join(between)))
    })
}

pub(super) fn decide(
    context: &Context,
    client: &DaemonClient,
    job: &str,
    step: &str,
    choice: &str,
) -> CommandResult {
    let id = named(client, job)?;
    let decision = JobDecision { step: step.to_owned(), choice: choice.to_owned() };
    block_on(client.decide_job(&id, &decision))?;
    if context.printer.json() {
        let answer = json!({"job_id": id, "step": step, "choice": choice, "taken": true});
        return Ok(context.printer.document(&answer)?);
    }
    Ok(context.printer.line(format_args!("{step} of {id}: {choice}"))?)
}

pub(super) fn cancel(context: &Context, client: &DaemonClient, job: &str) -> CommandResult {
    let id = named(client, job)?;
    block_on(client.cancel_job(&id))?;
    if context.printer.json() {
        return Ok(context.printer.document(&json!({"job_id": id}))?);
    }
    Ok(context.printer.line(format_args!("{id} is told to end"))?)
}

/// A job's name; `last` is the newest that can be seen.
pub(super) fn named(client: &DaemonClient, name: &str) -> Result<String, Failure> {
    if name != LAST {
        return Ok(name.to_owned());
    }
    let newest = block_on(client.jobs(1))?.into_iter().next();
    newest.map(|row| row.job_id).ok_or_else(|| Failure::new(ExitCode::JobNotFound, "there is no job yet"))
}

/// Hands over a job's journal line by line. With `on`, until the job has ended, or `each` has seen enough; without,
/// what is there now: the stream of a job that has not ended stays open, so that its own events say where that is.
pub(super) fn follow(
    client: &DaemonClient,
    id: &str,
    after: u64,
    on: bool,
    each: &mut (dyn FnMut(JournalLine) -> Result<bool, Ended> + Send),
) -> CommandResult {
    let last = if on { u64::MAX } else { journal_end(&block_on(client.job(id))?) };
    if after >= last {
        return Ok(());
    }
    block_on(Follower { after, last, each, failed: None }.run(client, id))
}

/// How a job stands when it has been followed to its end; the daemon may be on its way back just then.
pub(super) fn end_of(client: &DaemonClient, id: &str) -> Result<Value, Failure> {
    block_on(async {
        let mut client = client.clone();
        let since = tokio::time::Instant::now();
        loop {
            let failure = match client.job(id).await {
                Ok(document) => return Ok(document),
                Err(failure) => may_pass(&client, failure)?,
            };
            if since.elapsed() >= PATIENCE {
                return Err(failure);
            }
            tokio::time::sleep(AGAIN).await;
            client = client.renewed().unwrap_or(client);
        }
    })
}

/// How many events a job has now.
fn journal_end(document: &Value) -> u64 {
    document["journal"]["seq"].as_u64().unwrap_or_default()
}

/// Follows a journal through broken connections.
struct Follower<'e> {
    after: u64,
    last: u64,
    each: &'e mut (dyn FnMut(JournalLine) -> Result<bool, Ended> + Send),
    failed: Option<Ended>,
}

impl Follower<'_> {
    async fn run(mut self, client: &DaemonClient, id: &str) -> CommandResult {
        let mut client = client.clone();
        let mut heard = tokio::time::Instant::now();
        loop {
            let before = self.after;
            let end = client.job_events(id, before, &mut |event| self.take(&event)).await;
            if let Some(failure) = self.failed.take() {
                return Err(failure);
            }
            if self.after > before {
                heard = tokio::time::Instant::now();
            }
            let broken = match end {
                Ok(StreamEnd::Enough) => return Ok(()),
                // The job has ended, or the server is about to.
                Ok(StreamEnd::Closed) => match client.job(id).await {
                    Ok(document) if self.has_all(&document) => return Ok(()),
                    Ok(_) => {
                        Failure::new(ExitCode::DaemonUnreachable, "the server ends the stream of events")
                    }
                    Err(failure) => may_pass(&client, failure)?,
                },
                Ok(StreamEnd::Broken(failure)) => failure,
                Err(failure) => may_pass(&client, failure)?,
            };
            if heard.elapsed() >= PATIENCE {
                return Err(broken.into());
            }
            tokio::time::sleep(AGAIN).await;
            client = client.renewed().unwrap_or(client);
        }
    }

    /// Whether nothing is to be expected beyond what was heard.
    fn has_all(&self, document: &Value) -> bool {
        let goes_on = matches!(document["status"].as_str(), Some("queued" | "running" | "interrupted"));
        !goes_on && journal_end(document) <= self.after
    }

    /// Whether more is wanted.
    fn take(&mut self, event: &SentEvent) -> bool {
        let Ok(told) = serde_json::from_str::<Event>(&event.data) else { return true };
        self.after = told.seq;
        let line = JournalLine {
            seq: told.seq,
            level: told.level,
            kind: Some(told.kind),
            step: told.step,
            text: event.data.clone(),
        };
        match (self.each)(line) {
            Ok(more) => more && self.after < self.last,
            Err(failure) => {
                self.failed = Some(failure);
                false
            }
        }
    }
}

/// A failure that may be over at the next try: nobody answers, or a daemon that has come back with another token.
fn may_pass(client: &DaemonClient, failure: Failure) -> Result<Failure, Failure> {
    let token_is_old = || failure.exit == ExitCode::Unauthorized && client.is_of_home();
    if failure.exit == ExitCode::DaemonUnreachable || token_is_old() { Ok(failure) } else { Err(failure) }
}

fn word(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => or_dash(None::<&str>),
        other => other.to_string(),
    }
}

/// On its line, whatever a model put into it.
fn plain(text: &str) -> String {
    text.replace(char::is_control, " ")
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn of_many_failures_some_are_told_and_the_rest_is_counted() {
        let failures: Vec<Value> =
            (0..30).map(|at| json!({"step": format!("s{at}"), "message": "no"})).collect();
        let told = |most| {
            let totals = totals(&json!({"failures": failures.clone()}), most);
            totals.into_iter().filter(|(name, _)| *name == "failed").map(|(_, text)| text).collect::<Vec<_>>()
        };
        assert_eq!(told(2), ["s0: no", "s1: no", "… and 28 more"]);
        assert_eq!(told(30).len(), 30);
    }

    #[test]
    fn a_gate_is_told_with_the_words_that_decide() {
        let question = json!({"message": "Publish?", "choices": ["yes", "no"]});
        let document = json!({"steps": {"draft": {}, "review": {"question": question}}});
        let told: Vec<(&str, String)> = gates(&document, "|").collect();
        assert_eq!(told, [("review", "yes|no".to_owned())]);
        let asks = ("asks", "review: Publish? (yes, no)".to_owned());
        assert!(totals(&document, 1).contains(&asks));
    }

    #[test]
    fn a_server_that_goes_and_comes_back_still_tells_how_a_job_ended() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let server = std::thread::spawn(move || {
            drop(listener.accept().unwrap());
            let (mut back, _) = listener.accept().unwrap();
            assert!(back.read(&mut [0; 4096]).unwrap() > 0);
            let body = r#"{"status":"succeeded"}"#;
            let head = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nconnection: close";
            write!(back, "{head}\r\ncontent-length: {}\r\n\r\n{body}", body.len()).unwrap();
        });
        let client = DaemonClient::remote(&url, None).unwrap();
        assert_eq!(end_of(&client, "j1").unwrap()["status"], "succeeded");
        server.join().unwrap();
    }
}
