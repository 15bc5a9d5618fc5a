//! What was last known of each replica's process.
//!
//! A method that records something about a replica makes its row if it has none; the instance itself has to be
//! known.

use std::path::{Path, PathBuf};

use orch_core::{EventLevel, EventType, Health, InstanceName, ReplicaId, Status, UnixMillis, redact_args};
use rusqlite::{Connection, OptionalExtension, Row, ToSql, Transaction, named_params};
use serde::Serialize;

use crate::error::Fault;
use crate::events::{NewEvent, insert_event};
use crate::row;
use crate::{StateReader, StateStore, StoreError};

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RuntimeRow {
    pub name: InstanceName,
    pub replica: ReplicaId,
    pub pid: Option<u32>,
    /// The process's start mark, opaque here: with the pid it names one process for ever.
    pub process_started_at: Option<String>,
    pub exe: Option<PathBuf>,
    pub port: Option<u16>,
    /// For people; secrets are masked and arguments joined by blanks.
    pub cmdline: Option<String>,
    pub engine_version: Option<String>,
    pub status: Status,
    pub health: Health,
    pub started_at: Option<UnixMillis>,
    pub last_seen_at: Option<UnixMillis>,
    pub last_health_ok_at: Option<UnixMillis>,
    /// Automatic restarts since the last `up`.
    pub restarts: u32,
    /// Attempts since it last ran stably: decides the next delay.
    pub restart_attempts: u32,
    pub last_restart_at: Option<UnixMillis>,
    pub next_restart_at: Option<UnixMillis>,
    /// A death by signal n is 128 + n.
    pub last_exit_code: Option<i32>,
    pub last_error: Option<String>,
    pub config_hash: Option<String>,
}

/// A process that has just been spawned, or found again.
#[derive(Clone, Copy, Debug)]
pub struct Spawned<'a> {
    pub name: &'a InstanceName,
    pub replica: ReplicaId,
    pub pid: u32,
    pub process_started_at: &'a str,
    pub exe: &'a Path,
    pub port: u16,
    /// As executed; secrets in it are masked before they are stored.
    pub cmdline: &'a [String],
    pub engine_version: Option<&'a str>,
    pub config_hash: &'a str,
    /// True for a user's `up` or `restart`, false for an automatic restart: clears the restart counters, the
    /// last exit code and the last error.
    pub reset_restarts: bool,
}

impl StateReader {
    pub fn runtime(&self, name: &InstanceName, replica: ReplicaId) -> Result<Option<RuntimeRow>, StoreError> {
        self.read(|connection| {
            let mut statement =
                connection.prepare_cached("SELECT * FROM runtime WHERE name = ?1 AND replica = ?2")?;
            Ok(statement.query_row([name.as_str(), &replica.to_string()], runtime_row).optional()?)
        })
    }

    /// Every replica, by instance name and replica number.
    pub fn runtimes(&self) -> Result<Vec<RuntimeRow>, StoreError> {
        self.read(all)
    }
}

impl StateStore {
    /// A process exists: status `starting`, health `loading`.
    pub fn record_spawned(&self, spawned: &Spawned<'_>, now: UnixMillis) -> Result<(), StoreError> {
        let cmdline = redact_args(spawned.cmdline).join(" ");
        self.write(|transaction| {
            update_runtime(
                transaction,
                spawned.name,
                spawned.replica,
                "pid = :pid, process_started_at = :process_started_at, exe = :exe, port = :port,
                 cmdline = :cmdline, engine_version = :engine_version, config_hash = :config_hash,
                 status = 'starting', health = 'loading', started_at = :now, last_seen_at = :now,
                 last_health_ok_at = NULL, next_restart_at = NULL,
                 restarts = iif(:reset, 0, restarts),
                 restart_attempts = iif(:reset, 0, restart_attempts),
                 last_restart_at = iif(:reset, NULL, last_restart_at),
                 last_exit_code = iif(:reset, NULL, last_exit_code),
                 last_error = iif(:reset, NULL, last_error)",
                named_params! {
                    ":pid": spawned.pid,
                    ":process_started_at": spawned.process_started_at,
                    ":exe": spawned.exe.to_string_lossy(),
                    ":port": spawned.port,
                    ":cmdline": cmdline,
                    ":engine_version": spawned.engine_version,
                    ":config_hash": spawned.config_hash,
                    ":reset": spawned.reset_restarts,
                    ":now": now.0,
                },
            )
        })
    }

    /// Sets status, health and error as given; without an error the last one is cleared.
    pub fn record_status(
        &self,
        name: &InstanceName,
        replica: ReplicaId,
        status: Status,
        health: Health,
        last_error: Option<&str>,
        now: UnixMillis,
    ) -> Result<(), StoreError> {
        self.update(
            name,
            replica,
            "status = :status, health = :health, last_error = :error,
             last_seen_at = iif(pid IS NULL, last_seen_at, :now)",
            named_params! {
                ":status": status.label(), ":health": health.label(), ":error": last_error, ":now": now.0,
            },
        )
    }

    /// The engine answered for the first time: `running`, `healthy`.
    pub fn record_ready(
        &self,
        name: &InstanceName,
        replica: ReplicaId,
        now: UnixMillis,
    ) -> Result<(), StoreError> {
        self.update(
            name,
            replica,
            "status = 'running', health = 'healthy', last_seen_at = :now, last_health_ok_at = :now,
             next_restart_at = NULL, last_error = NULL",
            named_params! { ":now": now.0 },
        )
    }

    /// The process is gone. `status` says what follows: `starting` while a restart waits, `crashed` after that.
    pub fn record_exit(
        &self,
        name: &InstanceName,
        replica: ReplicaId,
        exit_code: Option<i32>,
        status: Status,
        last_error: Option<&str>,
        now: UnixMillis,
    ) -> Result<(), StoreError> {
        self.update(
            name,
            replica,
            "pid = NULL, process_started_at = NULL, status = :status, health = 'unknown',
             last_exit_code = :exit_code, last_error = :error, next_restart_at = NULL, last_seen_at = :now",
            named_params! {
                ":status": status.label(), ":exit_code": exit_code, ":error": last_error, ":now": now.0,
            },
        )
    }

    /// A restart will be tried at `at`; `attempt` is how many there will have been then. Without an error the last one
    /// stays.
    pub fn record_restart_scheduled(
        &self,
        name: &InstanceName,
        replica: ReplicaId,
        attempt: u32,
        at: UnixMillis,
        last_error: Option<&str>,
    ) -> Result<(), StoreError> {
        self.update(
            name,
            replica,
            "status = 'starting', health = 'unknown', restart_attempts = :attempt, next_restart_at = :at,
             last_error = coalesce(:error, last_error)",
            named_params! { ":attempt": attempt, ":at": at.0, ":error": last_error },
        )
    }

    /// The restart policy has given up: the row and its event together, so that it is told exactly once.
    pub fn record_gave_up(
        &self,
        name: &InstanceName,
        replica: ReplicaId,
        reason: &str,
        message: &str,
        now: UnixMillis,
    ) -> Result<(), StoreError> {
        self.write(|transaction| {
            update_runtime(
                transaction,
                name,
                replica,
                "status = 'crashed', health = 'unknown', next_restart_at = NULL, last_error = :error",
                named_params! { ":error": reason },
            )?;
            let event = NewEvent {
                instance: Some(name),
                level: EventLevel::Error,
                event_type: EventType::GaveUp,
                message: message.to_owned(),
                meta: None,
            };
            insert_event(transaction, &event, now)?;
            Ok(())
        })
    }

    /// An automatic restart has taken place.
    pub fn record_restarted(
        &self,
        name: &InstanceName,
        replica: ReplicaId,
        now: UnixMillis,
    ) -> Result<(), StoreError> {
        self.update(
            name,
            replica,
            "restarts = restarts + 1, last_restart_at = :now, next_restart_at = NULL",
            named_params! { ":now": now.0 },
        )
    }

    /// It ran stably: the next restart begins with the shortest delay again.
    pub fn reset_restart_attempts(&self, name: &InstanceName, replica: ReplicaId) -> Result<(), StoreError> {
        self.update(name, replica, "restart_attempts = 0", &[])
    }

    /// It was stopped on purpose.
    pub fn record_stopped(
        &self,
        name: &InstanceName,
        replica: ReplicaId,
        now: UnixMillis,
    ) -> Result<(), StoreError> {
        self.update(
            name,
            replica,
            "pid = NULL, process_started_at = NULL, status = 'stopped', health = 'unknown',
             restart_attempts = 0, next_restart_at = NULL, last_error = NULL, last_seen_at = :now",
            named_params! { ":now": now.0 },
        )
    }

    /// The row names a process that is not ours: forgets the process, keeps everything else.
    pub fn clear_process(&self, name: &InstanceName, replica: ReplicaId) -> Result<(), StoreError> {
        self.update(name, replica, "pid = NULL, process_started_at = NULL, health = 'unknown'", &[])
    }

    /// The instance has fewer replicas now: this one is forgotten.
    pub fn forget_replica(&self, name: &InstanceName, replica: ReplicaId) -> Result<(), StoreError> {
        self.write(|transaction| {
            let mut delete =
                transaction.prepare_cached("DELETE FROM runtime WHERE name = ?1 AND replica = ?2")?;
            delete.execute([name.as_str(), &replica.to_string()])?;
            Ok(())
        })
    }

    fn update(
        &self,
        name: &InstanceName,
        replica: ReplicaId,
        assignments: &str,
        values: &[(&str, &dyn ToSql)],
    ) -> Result<(), StoreError> {
        self.write(|transaction| update_runtime(transaction, name, replica, assignments, values))
    }
}

pub(crate) fn all(connection: &Connection) -> Result<Vec<RuntimeRow>, Fault> {
    let mut statement = connection.prepare_cached("SELECT * FROM runtime")?;
    let rows = statement.query_map([], runtime_row)?;
    let mut rows: Vec<RuntimeRow> = rows.collect::<Result<_, _>>()?;
    rows.sort_by(|a, b| (&a.name, a.replica).cmp(&(&b.name, b.replica)));
    Ok(rows)
}

/// Applies `assignments` to the replica's row, which is made first if there is none.
pub(crate) fn update_runtime(
    transaction: &Transaction<'_>,
    name: &InstanceName,
    replica: ReplicaId,
    assignments: &str,
    values: &[(&str, &dyn ToSql)],
) -> Result<(), Fault> {
    let replica = replica.to_string();
    let mut insert = transaction.prepare_cached(
        "INSERT INTO runtime (name, replica) SELECT name, ?2 FROM instances WHERE name = ?1
         ON CONFLICT (name, replica) DO NOTHING",
    )?;
    insert.execute([name.as_str(), &replica])?;
    let sql = format!("UPDATE runtime SET {assignments} WHERE name = :name AND replica = :replica");
    let mut update = transaction.prepare_cached(&sql)?;
    let text_name = name.as_str();
    let mut all: Vec<(&str, &dyn ToSql)> = vec![(":name", &text_name), (":replica", &replica)];
    all.extend_from_slice(values);
    if update.execute(all.as_slice())? == 0 { Err(Fault::UnknownInstance(name.clone())) } else { Ok(()) }
}

/// A command line as it may be shown. What we store is masked already; the older tool's rows are not.
pub(crate) fn masked(line: &str) -> String {
    match serde_json::from_str::<Vec<String>>(line) {
        Ok(args) => redact_args(&args).join(" "),
        Err(_) => redact_args(&line.split(' ').collect::<Vec<_>>()).join(" "),
    }
}

pub(crate) fn runtime_row(row: &Row<'_>) -> rusqlite::Result<RuntimeRow> {
    Ok(RuntimeRow {
        name: row::parsed(row, "name")?,
        replica: row::parsed(row, "replica")?,
        pid: row::optional(row, "pid")?,
        process_started_at: row::optional(row, "process_started_at")?,
        exe: row::optional::<String>(row, "exe")?.map(PathBuf::from),
        port: row::optional(row, "port")?,
        cmdline: row::optional::<String>(row, "cmdline")?.map(|line| masked(&line)),
        engine_version: row::optional(row, "engine_version")?,
        status: row::label(row, "status", Status::from_label)?,
        health: row::label(row, "health", Health::from_label)?,
        started_at: row::optional_moment(row, "started_at")?,
        last_seen_at: row::optional_moment(row, "last_seen_at")?,
        last_health_ok_at: row::optional_moment(row, "last_health_ok_at")?,
        restarts: row.get("restarts")?,
        restart_attempts: row.get("restart_attempts")?,
        last_restart_at: row::optional_moment(row, "last_restart_at")?,
        next_restart_at: row::optional_moment(row, "next_restart_at")?,
        last_exit_code: row::optional(row, "last_exit_code")?,
        last_error: row::optional(row, "last_error")?,
        config_hash: row::optional(row, "config_hash")?,
    })
}
