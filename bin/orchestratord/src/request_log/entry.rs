//! From the gateway's record to the database's entry, and from there to what is shown.

use std::time::Duration;

use control_store::{RequestEntry, RequestOutcome, RequestRow, UsageRow};
use gateway::{Dialect, Outcome, RequestRecord};
use orch_api::{RequestView, UsageView};
use orch_core::redact_body;

/// A longer name is a mistake, or malice.
const LONGEST_NAME: usize = 256;

pub(super) fn entry_of(record: RequestRecord, secrets: &[String]) -> RequestEntry {
    let replica = record.replica;
    RequestEntry {
        id: record.id,
        at: record.at,
        endpoint: shortened(record.endpoint),
        dialect: dialect_label(record.dialect).to_owned(),
        caller: record.caller.id.clone(),
        caller_name: record.caller.name.clone(),
        model: record.model.map(shortened),
        node: replica.as_ref().map(|key| key.node_id.clone()),
        replica: replica.as_ref().map(|key| key.replica_id.to_string()),
        instance: replica.map(|key| key.pool_id),
        attempts: record.attempts,
        outcome: outcome(record.outcome),
        status: record.status,
        code: record.code.map(|code| code.label().to_owned()),
        streamed: record.streamed,
        queue_ms: record.queued.map(millis),
        first_token_ms: record.first_token.map(millis),
        total_ms: millis(record.total),
        prompt_tokens: record.usage.prompt_tokens,
        completion_tokens: record.usage.completion_tokens,
        cached_tokens: record.usage.cached_tokens,
        prompt_ms: record.usage.prompt_ms,
        decode_ms: record.usage.decode_ms,
        // Only text can be searched for secrets; sound and pictures are not kept.
        body: record.body.and_then(|body| kept_text(&body, secrets)),
        answer: record.answer.and_then(|answer| kept_text(&answer, secrets)),
    }
}

fn kept_text(bytes: &[u8], secrets: &[String]) -> Option<Vec<u8>> {
    std::str::from_utf8(bytes).ok().map(|text| redact_body(text, secrets).into_bytes())
}

pub(super) fn view_of(row: RequestRow) -> RequestView {
    let entry = row.entry;
    RequestView {
        seq: row.seq,
        id: entry.id,
        ts: entry.at.to_rfc3339(),
        endpoint: entry.endpoint,
        dialect: entry.dialect,
        key: entry.caller,
        key_name: entry.caller_name,
        model: entry.model,
        instance: entry.instance,
        node_id: entry.node,
        replica_id: entry.replica,
        attempts: entry.attempts,
        outcome: entry.outcome.label().to_owned(),
        status: entry.status,
        code: entry.code,
        streamed: entry.streamed,
        queue_ms: entry.queue_ms,
        first_token_ms: entry.first_token_ms,
        total_ms: entry.total_ms,
        prompt_tokens: entry.prompt_tokens,
        completion_tokens: entry.completion_tokens,
        cached_tokens: entry.cached_tokens,
        prompt_ms: entry.prompt_ms,
        decode_ms: entry.decode_ms,
        has_body: row.has_body,
    }
}

pub(super) fn usage_view(row: UsageRow) -> UsageView {
    UsageView {
        key: row.caller,
        key_name: row.caller_name,
        model: row.model,
        instance: row.instance,
        requests: row.requests,
        done: row.done,
        refused: row.refused,
        broken: row.broken,
        canceled: row.canceled,
        prompt_tokens: row.prompt_tokens,
        completion_tokens: row.completion_tokens,
        cached_tokens: row.cached_tokens,
        queue_ms: row.queue_ms,
        total_ms: row.total_ms,
    }
}

fn outcome(outcome: Outcome) -> RequestOutcome {
    match outcome {
        Outcome::Done => RequestOutcome::Done,
        Outcome::Refused => RequestOutcome::Refused,
        Outcome::Broken => RequestOutcome::Broken,
        Outcome::Canceled => RequestOutcome::Canceled,
    }
}

fn dialect_label(dialect: Dialect) -> &'static str {
    match dialect {
        Dialect::OpenAi | Dialect::OpenAiResponses => "openai",
        Dialect::Anthropic => "anthropic",
        Dialect::Ollama => "ollama",
        Dialect::LlamaCpp => "llama.cpp",
        Dialect::Native => "native",
    }
}

/// To a microsecond.
fn millis(duration: Duration) -> f64 {
    duration.as_micros() as f64 / 1e3
}

fn shortened(name: String) -> String {
    if name.len() <= LONGEST_NAME { name } else { name.chars().take(LONGEST_NAME).collect() }
}
