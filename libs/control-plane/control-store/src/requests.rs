//! The request log: every request of the data plane with how it ended and what it took, and for longer than that the
//! sums of each hour.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use orch_core::UnixMillis;
use rusqlite::types::{FromSql, FromSqlError, FromSqlResult, ToSql, ToSqlOutput, ValueRef};
use rusqlite::{Connection, OptionalExtension, Row, Transaction, named_params};

use crate::access::{ControlReader, ControlStore};
use crate::error::{ControlError, Fault};
use crate::keys::{counted, stored};

/// The version of the database that brought these tables.
pub(crate) const SINCE: i64 = 2;

/// `seq` never comes again, so that whoever follows the log can say what it has seen.
pub(crate) const TABLES: &str = "
CREATE TABLE requests (
    seq               INTEGER PRIMARY KEY AUTOINCREMENT,
    id                TEXT NOT NULL,
    at                INTEGER NOT NULL,
    endpoint          TEXT NOT NULL,
    dialect           TEXT NOT NULL,
    caller            TEXT NOT NULL,
    caller_name       TEXT,
    model             TEXT,
    instance          TEXT,
    node              TEXT,
    replica           TEXT,
    attempts          INTEGER NOT NULL,
    outcome           TEXT NOT NULL,
    status            INTEGER NOT NULL,
    code              TEXT,
    streamed          INTEGER NOT NULL,
    queue_ms          REAL,
    first_token_ms    REAL,
    total_ms          REAL NOT NULL,
    prompt_tokens     INTEGER,
    completion_tokens INTEGER,
    cached_tokens     INTEGER,
    prompt_ms         REAL,
    decode_ms         REAL,
    body              BLOB,
    answer            BLOB
);
CREATE INDEX requests_by_time ON requests (at);
CREATE INDEX requests_by_id ON requests (id);
CREATE TABLE usage (
    hour              INTEGER NOT NULL,
    caller            TEXT NOT NULL,
    caller_name       TEXT,
    model             TEXT NOT NULL,
    instance          TEXT NOT NULL,
    requests          INTEGER NOT NULL,
    done              INTEGER NOT NULL,
    refused           INTEGER NOT NULL,
    broken            INTEGER NOT NULL,
    canceled          INTEGER NOT NULL,
    prompt_tokens     INTEGER NOT NULL,
    completion_tokens INTEGER NOT NULL,
    cached_tokens     INTEGER NOT NULL,
    queue_ms          REAL NOT NULL,
    total_ms          REAL NOT NULL,
    PRIMARY KEY (hour, caller, model, instance)
) WITHOUT ROWID;
";

/// Requests are kept one by one so long, and so many of them.
const REQUESTS_KEPT: Duration = Duration::from_hours(30 * 24);
const MOST_REQUESTS: i64 = 100_000;
/// Bodies are kept of so many of the latest requests.
const MOST_BODIES: i64 = 500;
/// The sums of an hour are kept so long.
const USAGE_KEPT: Duration = Duration::from_hours(400 * 24);
const HOUR_MS: i64 = 3_600_000;

/// How a request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RequestOutcome {
    Done,
    Refused,
    Broken,
    Canceled,
}

impl RequestOutcome {
    pub const ALL: [RequestOutcome; 4] =
        [RequestOutcome::Done, RequestOutcome::Refused, RequestOutcome::Broken, RequestOutcome::Canceled];

    pub const fn label(self) -> &'static str {
        match self {
            RequestOutcome::Done => "done",
            RequestOutcome::Refused => "refused",
            RequestOutcome::Broken => "broken",
            RequestOutcome::Canceled => "canceled",
        }
    }
}

/// One request that is over. Times are in milliseconds; what is not known is absent, never zero.
#[derive(Clone, Debug, PartialEq)]
pub struct RequestEntry {
    /// Not unique: clients may name their requests.
    pub id: String,
    /// When it arrived.
    pub at: UnixMillis,
    /// The path that it asked for.
    pub endpoint: String,
    /// Whose protocol it spoke.
    pub dialect: String,
    /// The id of its key, or a word for those without.
    pub caller: String,
    pub caller_name: Option<String>,
    /// The name that it asked for.
    pub model: Option<String>,
    /// Who had it last.
    pub instance: Option<String>,
    pub node: Option<String>,
    pub replica: Option<String>,
    pub attempts: u32,
    pub outcome: RequestOutcome,
    pub status: u16,
    pub code: Option<String>,
    pub streamed: bool,
    pub queue_ms: Option<f64>,
    pub first_token_ms: Option<f64>,
    pub total_ms: f64,
    pub prompt_tokens: Option<u64>,
    pub completion_tokens: Option<u64>,
    pub cached_tokens: Option<u64>,
    pub prompt_ms: Option<f64>,
    pub decode_ms: Option<f64>,
    /// Only where bodies are captured, and never in a list.
    pub body: Option<Vec<u8>>,
    /// As the body.
    pub answer: Option<Vec<u8>>,
}

/// An entry as it is kept.
#[derive(Clone, Debug, PartialEq)]
pub struct RequestRow {
    /// Grows with every entry.
    pub seq: i64,
    pub entry: RequestEntry,
    pub has_body: bool,
}

/// Which entries are wanted; an absent bound lets everything through.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RequestQuery {
    pub model: Option<String>,
    /// A key's id or name.
    pub key: Option<String>,
    pub instance: Option<String>,
    pub outcome: Option<RequestOutcome>,
    pub since: Option<UnixMillis>,
    /// Entries behind this one, oldest first; without it the newest come first.
    pub after: Option<i64>,
    pub limit: usize,
}

/// Which sums are wanted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UsageQuery {
    pub key: Option<String>,
    pub model: Option<String>,
    pub instance: Option<String>,
    /// From the hour on that holds this moment.
    pub since: Option<UnixMillis>,
    /// Up to the end of the hour that holds this moment.
    pub until: Option<UnixMillis>,
}

/// What one key has used of one model on one instance.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct UsageRow {
    pub caller: String,
    pub caller_name: Option<String>,
    /// Absent where no engine ever had the requests.
    pub model: Option<String>,
    pub instance: Option<String>,
    pub requests: u64,
    pub done: u64,
    pub refused: u64,
    pub broken: u64,
    pub canceled: u64,
    pub prompt_tokens: u64,
    pub completion_tokens: u64,
    pub cached_tokens: u64,
    /// Time spent waiting for a slot, summed.
    pub queue_ms: f64,
    /// Time from arrival to end, summed.
    pub total_ms: f64,
}

/// What [`ControlStore::prune_requests`] took away.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PrunedRequests {
    pub requests: usize,
    pub bodies: usize,
    pub hours: usize,
}

const COLUMNS: &str = "seq, id, at, endpoint, dialect, caller, caller_name, model, instance, node, replica, attempts, \
                       outcome, status, code, streamed, queue_ms, first_token_ms, total_ms, prompt_tokens, \
                       completion_tokens, cached_tokens, prompt_ms, decode_ms, body IS NOT NULL";

impl ControlReader {
    /// Entries of the log, without their bodies.
    pub fn requests(&self, query: &RequestQuery) -> Result<Vec<RequestRow>, ControlError> {
        let order = if query.after.is_some() { "ASC" } else { "DESC" };
        let sql = format!(
            "SELECT {COLUMNS} FROM requests
             WHERE (:model IS NULL OR model = :model)
               AND (:key IS NULL OR caller = :key OR caller_name = :key)
               AND (:instance IS NULL OR instance = :instance)
               AND (:outcome IS NULL OR outcome = :outcome)
               AND (:since IS NULL OR at >= :since)
               AND (:after IS NULL OR seq > :after)
             ORDER BY seq {order} LIMIT :limit"
        );
        let read = self.read(SINCE, |connection| {
            let mut statement = connection.prepare_cached(&sql)?;
            let values = named_params! {
                ":model": query.model,
                ":key": query.key,
                ":instance": query.instance,
                ":outcome": query.outcome,
                ":since": query.since.map(|since| since.0),
                ":after": query.after,
                ":limit": i64::try_from(query.limit).unwrap_or(i64::MAX),
            };
            let rows = statement.query_map(values, request_row)?;
            Ok(rows.collect::<Result<_, _>>()?)
        })?;
        Ok(read.unwrap_or_default())
    }

    /// The newest entry with this id, with its body; the beginning of an id that is nobody else's will do. Gives
    /// nothing where there is none, and `Err` of how many where several ids begin so.
    pub fn request(&self, id: &str) -> Result<Option<Result<RequestRow, usize>>, ControlError> {
        let read = self.read(SINCE, |connection| {
            let exact = newest(connection, id)?;
            if exact.is_some() {
                return Ok(exact.map(Ok));
            }
            let sql = "SELECT DISTINCT id FROM requests WHERE substr(id, 1, length(?1)) = ?1 LIMIT 10";
            let mut statement = connection.prepare(sql)?;
            let ids: Vec<String> = statement.query_map([id], |row| row.get(0))?.collect::<Result<_, _>>()?;
            match ids.as_slice() {
                [only] => Ok(newest(connection, only)?.map(Ok)),
                [] => Ok(None),
                several => Ok(Some(Err(several.len()))),
            }
        })?;
        Ok(read.flatten())
    }

    /// What was used, by key, model and instance; the greatest first.
    pub fn usage(&self, query: &UsageQuery) -> Result<Vec<UsageRow>, ControlError> {
        let sql = "SELECT caller, max(caller_name), model, instance, sum(requests), sum(done), sum(refused), \
                   sum(broken), sum(canceled), sum(prompt_tokens), sum(completion_tokens), sum(cached_tokens), \
                   sum(queue_ms), sum(total_ms) FROM usage
                   WHERE (:model IS NULL OR model = :model)
                     AND (:key IS NULL OR caller = :key OR caller_name = :key)
                     AND (:instance IS NULL OR instance = :instance)
                     AND (:since IS NULL OR hour >= :since)
                     AND (:until IS NULL OR hour <= :until)
                   GROUP BY caller, model, instance
                   ORDER BY sum(prompt_tokens) + sum(completion_tokens) DESC, sum(requests) DESC, \
                     caller, model, instance";
        let read = self.read(SINCE, |connection| {
            let mut statement = connection.prepare_cached(sql)?;
            let values = named_params! {
                ":model": query.model,
                ":key": query.key,
                ":instance": query.instance,
                ":since": query.since.map(hour_of),
                ":until": query.until.map(hour_of),
            };
            let rows = statement.query_map(values, usage_row)?;
            Ok(rows.collect::<Result<_, _>>()?)
        })?;
        Ok(read.unwrap_or_default())
    }
}

impl ControlStore {
    /// Appends entries, and adds them to the sums of their hours; all of them or none.
    pub fn add_requests(&self, entries: &[RequestEntry]) -> Result<(), ControlError> {
        self.write(|transaction| {
            for entry in entries {
                insert(transaction, entry)?;
            }
            for (key, sums) in summed(entries) {
                add_usage(transaction, &key, &sums)?;
            }
            Ok(())
        })
    }

    /// Takes away what is older or more than is kept.
    pub fn prune_requests(&self, now: UnixMillis) -> Result<PrunedRequests, ControlError> {
        self.write(|transaction| {
            let newest: Option<i64> =
                transaction.query_row("SELECT max(seq) FROM requests", [], |row| row.get(0))?;
            let newest = newest.unwrap_or_default();
            let sql = "DELETE FROM requests WHERE at < ?1 OR seq <= ?2";
            let requests = transaction.execute(sql, (before(now, REQUESTS_KEPT), newest - MOST_REQUESTS))?;
            let sql = "UPDATE requests SET body = NULL, answer = NULL WHERE body IS NOT NULL AND seq NOT IN \
                       (SELECT seq FROM requests WHERE body IS NOT NULL ORDER BY seq DESC LIMIT ?1)";
            let bodies = transaction.execute(sql, [MOST_BODIES])?;
            let hours =
                transaction.execute("DELETE FROM usage WHERE hour < ?1", [before(now, USAGE_KEPT)])?;
            Ok(PrunedRequests { requests, bodies, hours })
        })
    }
}

fn before(now: UnixMillis, kept: Duration) -> i64 {
    now.0.saturating_sub(i64::try_from(kept.as_millis()).unwrap_or(i64::MAX))
}

/// The beginning of the hour that holds a moment.
fn hour_of(at: UnixMillis) -> i64 {
    at.0 - at.0.rem_euclid(HOUR_MS)
}

fn newest(connection: &Connection, id: &str) -> Result<Option<RequestRow>, Fault> {
    let sql = format!("SELECT {COLUMNS}, body, answer FROM requests WHERE id = ?1 ORDER BY seq DESC LIMIT 1");
    let with_body = |row: &Row<'_>| {
        let mut found = request_row(row)?;
        found.entry.body = row.get(25)?;
        found.entry.answer = row.get(26)?;
        Ok(found)
    };
    Ok(connection.query_row(&sql, [id], with_body).optional()?)
}

fn insert(transaction: &Transaction<'_>, entry: &RequestEntry) -> Result<(), Fault> {
    let sql = "INSERT INTO requests (id, at, endpoint, dialect, caller, caller_name, model, instance, node, replica, \
               attempts, outcome, status, code, streamed, queue_ms, first_token_ms, total_ms, prompt_tokens, \
               completion_tokens, cached_tokens, prompt_ms, decode_ms, body, answer) VALUES (:id, :at, :endpoint, :dialect, \
               :caller, :caller_name, :model, :instance, :node, :replica, :attempts, :outcome, :status, :code, \
               :streamed, :queue_ms, :first_token_ms, :total_ms, :prompt_tokens, :completion_tokens, \
               :cached_tokens, :prompt_ms, :decode_ms, :body, :answer)";
    transaction.prepare_cached(sql)?.execute(named_params! {
        ":id": entry.id,
        ":at": entry.at.0,
        ":endpoint": entry.endpoint,
        ":dialect": entry.dialect,
        ":caller": entry.caller,
        ":caller_name": entry.caller_name,
        ":model": entry.model,
        ":instance": entry.instance,
        ":node": entry.node,
        ":replica": entry.replica,
        ":attempts": entry.attempts,
        ":outcome": entry.outcome,
        ":status": entry.status,
        ":code": entry.code,
        ":streamed": entry.streamed,
        ":queue_ms": entry.queue_ms,
        ":first_token_ms": entry.first_token_ms,
        ":total_ms": entry.total_ms,
        ":prompt_tokens": entry.prompt_tokens.map(stored),
        ":completion_tokens": entry.completion_tokens.map(stored),
        ":cached_tokens": entry.cached_tokens.map(stored),
        ":prompt_ms": entry.prompt_ms,
        ":decode_ms": entry.decode_ms,
        ":body": entry.body,
        ":answer": entry.answer,
    })?;
    Ok(())
}

/// Hour, caller, model, instance.
type UsageKey = (i64, String, String, String);

/// The sums of some entries, so that each hour's row is written once. A name that no engine ever answered to is not
/// kept: anybody can make up names.
fn summed(entries: &[RequestEntry]) -> BTreeMap<UsageKey, UsageRow> {
    let mut sums: BTreeMap<UsageKey, UsageRow> = BTreeMap::new();
    for entry in entries {
        let instance = entry.instance.clone().unwrap_or_default();
        let model = entry.model.clone().filter(|_| entry.instance.is_some()).unwrap_or_default();
        let row = sums.entry((hour_of(entry.at), entry.caller.clone(), model, instance)).or_default();
        row.caller_name.clone_from(&entry.caller_name);
        row.requests += 1;
        let ended = match entry.outcome {
            RequestOutcome::Done => &mut row.done,
            RequestOutcome::Refused => &mut row.refused,
            RequestOutcome::Broken => &mut row.broken,
            RequestOutcome::Canceled => &mut row.canceled,
        };
        *ended += 1;
        // Engines of others may tell any number.
        let add = |sum: &mut u64, count: Option<u64>| *sum = sum.saturating_add(count.unwrap_or_default());
        add(&mut row.prompt_tokens, entry.prompt_tokens);
        add(&mut row.completion_tokens, entry.completion_tokens);
        add(&mut row.cached_tokens, entry.cached_tokens);
        row.queue_ms += entry.queue_ms.unwrap_or_default();
        row.total_ms += entry.total_ms;
    }
    sums
}

fn add_usage(transaction: &Transaction<'_>, key: &UsageKey, sums: &UsageRow) -> Result<(), Fault> {
    let sql = "INSERT INTO usage (hour, caller, caller_name, model, instance, requests, done, refused, broken, \
               canceled, prompt_tokens, completion_tokens, cached_tokens, queue_ms, total_ms)
               VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15)
               ON CONFLICT (hour, caller, model, instance) DO UPDATE SET caller_name = excluded.caller_name, \
               requests = requests + excluded.requests, done = done + excluded.done, \
               refused = refused + excluded.refused, broken = broken + excluded.broken, \
               canceled = canceled + excluded.canceled, prompt_tokens = prompt_tokens + excluded.prompt_tokens, \
               completion_tokens = completion_tokens + excluded.completion_tokens, \
               cached_tokens = cached_tokens + excluded.cached_tokens, queue_ms = queue_ms + excluded.queue_ms, \
               total_ms = total_ms + excluded.total_ms";
    let (hour, caller, model, instance) = key;
    transaction.prepare_cached(sql)?.execute((
        hour,
        caller,
        &sums.caller_name,
        model,
        instance,
        stored(sums.requests),
        stored(sums.done),
        stored(sums.refused),
        stored(sums.broken),
        stored(sums.canceled),
        stored(sums.prompt_tokens),
        stored(sums.completion_tokens),
        stored(sums.cached_tokens),
        sums.queue_ms,
        sums.total_ms,
    ))?;
    Ok(())
}

fn request_row(row: &Row<'_>) -> rusqlite::Result<RequestRow> {
    let count = |column: usize| Ok::<_, rusqlite::Error>(row.get::<_, Option<i64>>(column)?.map(counted));
    let entry = RequestEntry {
        id: row.get(1)?,
        at: UnixMillis(row.get(2)?),
        endpoint: row.get(3)?,
        dialect: row.get(4)?,
        caller: row.get(5)?,
        caller_name: row.get(6)?,
        model: row.get(7)?,
        instance: row.get(8)?,
        node: row.get(9)?,
        replica: row.get(10)?,
        attempts: row.get(11)?,
        outcome: row.get(12)?,
        status: row.get(13)?,
        code: row.get(14)?,
        streamed: row.get(15)?,
        queue_ms: row.get(16)?,
        first_token_ms: row.get(17)?,
        total_ms: row.get(18)?,
        prompt_tokens: count(19)?,
        completion_tokens: count(20)?,
        cached_tokens: count(21)?,
        prompt_ms: row.get(22)?,
        decode_ms: row.get(23)?,
        body: None,
        answer: None,
    };
    Ok(RequestRow { seq: row.get(0)?, entry, has_body: row.get(24)? })
}

fn usage_row(row: &Row<'_>) -> rusqlite::Result<UsageRow> {
    let name = |column: usize| {
        Ok::<_, rusqlite::Error>(Some(row.get::<_, String>(column)?).filter(|it| !it.is_empty()))
    };
    let count = |column: usize| row.get(column).map(counted);
    Ok(UsageRow {
        caller: row.get(0)?,
        caller_name: row.get(1)?,
        model: name(2)?,
        instance: name(3)?,
        requests: count(4)?,
        done: count(5)?,
        refused: count(6)?,
        broken: count(7)?,
        canceled: count(8)?,
        prompt_tokens: count(9)?,
        completion_tokens: count(10)?,
        cached_tokens: count(11)?,
        queue_ms: row.get(12)?,
        total_ms: row.get(13)?,
    })
}

/// A word that says no outcome.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is none of done, refused, broken, canceled")]
pub struct UnknownOutcome(String);

impl FromStr for RequestOutcome {
    type Err = UnknownOutcome;

    fn from_str(text: &str) -> Result<Self, UnknownOutcome> {
        let found = Self::ALL.into_iter().find(|outcome| outcome.label() == text);
        found.ok_or_else(|| UnknownOutcome(text.to_owned()))
    }
}

impl fmt::Display for RequestOutcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.label())
    }
}

impl ToSql for RequestOutcome {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(ToSqlOutput::from(self.label()))
    }
}

impl FromSql for RequestOutcome {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        value.as_str()?.parse().map_err(FromSqlError::other)
    }
}
