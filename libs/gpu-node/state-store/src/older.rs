//! The database of the older tool, seen as if it were ours: its tables are covered by views of the same names, so
//! that every question works on both. The views live in the connection; the file keeps its bytes.
//!
//! Its columns have no types that could be relied on, and each version has others: a column that is missing reads
//! as NULL, and a value that cannot be ours is left out.

use std::collections::BTreeSet;

use orch_core::InstanceName;
use rusqlite::{Connection, OptionalExtension};

use crate::schema::Shape;

/// The newest version of the older tool's database that is understood.
pub(crate) const NEWEST_OLDER: i64 = 3;

/// The tables of the older tool that mean something to us.
pub(crate) const OLDER_TABLES: [&str; 5] =
    ["instances", "runtime", "events", "health_history", "schema_info"];

/// What a database of the older tool has to offer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct OlderTables {
    pub version: u32,
    columns: BTreeSet<(String, String)>,
}

/// Which version of the older tool wrote this. Without a version it is the first.
pub(crate) fn recognise(
    connection: &Connection,
    keyed: bool,
    columns: BTreeSet<(String, String)>,
) -> rusqlite::Result<Shape> {
    let version = if keyed { stored_version(connection)? } else { Some(1) };
    Ok(match version {
        Some(version @ 1..=NEWEST_OLDER) => {
            Shape::Older(OlderTables { version: u32::try_from(version).unwrap_or(1), columns })
        }
        Some(version) if version > NEWEST_OLDER => Shape::NewerOlder(version),
        _ => Shape::Incomplete("its version cannot be read".to_owned()),
    })
}

/// `None` for a version that is not a number.
fn stored_version(connection: &Connection) -> rusqlite::Result<Option<i64>> {
    let found: Option<Option<String>> = connection
        .query_row("SELECT CAST(value AS TEXT) FROM schema_info WHERE key = 'version'", [], |row| row.get(0))
        .optional()?;
    Ok(match found {
        None => Some(1),
        Some(text) => text.and_then(|text| text.trim().trim_matches('"').parse().ok()),
    })
}

impl OlderTables {
    pub(crate) fn has_table(&self, table: &str) -> bool {
        self.columns.iter().any(|(found, _)| found == table)
    }

    /// Covers the tables, which may have been renamed by putting `prefix` before them. Where configs lie is only
    /// known to whoever reads them: `config_path` is empty until then.
    pub(crate) fn cover(&self, connection: &Connection, prefix: &str) -> rusqlite::Result<()> {
        for (name, select) in [
            ("older_rows", self.rows(prefix)),
            ("instances", INSTANCES.to_owned()),
            ("runtime", RUNTIME.to_owned()),
            ("health_history", self.health_history(prefix)),
            ("events", self.events(prefix)),
        ] {
            connection.execute_batch(&format!("CREATE TEMP VIEW {name} AS {select}"))?;
        }
        Ok(())
    }

    /// The names of rows that cannot be instances of ours. The connection must be covered.
    pub(crate) fn misnamed(&self, connection: &Connection, prefix: &str) -> rusqlite::Result<Vec<String>> {
        let sql = format!(
            "SELECT DISTINCT CAST(coalesce(name, '') AS TEXT) FROM ({}) ORDER BY 1",
            self.names(prefix)
        );
        let mut statement = connection.prepare(&sql)?;
        let names = statement.query_map([], |row| row.get::<_, String>(0))?;
        let misnamed = names.filter(|name| !name.as_ref().is_ok_and(|name| InstanceName::new(name).is_ok()));
        misnamed.collect()
    }

    /// Every name in both tables, good or not.
    fn names(&self, prefix: &str) -> String {
        let tables = ["instances", "runtime"].into_iter().filter(|table| self.has(table, "name"));
        let selects: Vec<String> =
            tables.map(|table| format!("SELECT name FROM main.\"{prefix}{table}\"")).collect();
        if selects.is_empty() { "SELECT NULL AS name WHERE 0".to_owned() } else { selects.join(" UNION ") }
    }

    /// One row for each instance. Where `runtime` has one it is the younger truth about the process.
    fn rows(&self, prefix: &str) -> String {
        let i = |column: &str| self.column("instances", "i", column);
        let r = |column: &str| self.column("runtime", "r", column);
        let either = |column: &str| format!("iif({} IS NULL, {}, {})", r("name"), i(column), r(column));
        let any = |first: String, second: String| format!("coalesce({first}, {second})");
        let joins =
            ["instances", "runtime"].into_iter().filter(|table| self.has(table, "name")).map(|table| {
                let short = &table[..1];
                format!(" LEFT JOIN main.\"{prefix}{table}\" AS {short} ON {short}.name = n.name")
            });
        format!(
            "SELECT n.name AS name, {uid} AS uid, {pid} AS pid, {port} AS port, {cmdline} AS cmdline,
                    {version} AS engine_version, {status} AS status, {health} AS health, {started} AS started_at,
                    {seen} AS last_seen_at, {health_ok} AS last_health_ok_at, {restarts} AS restarts,
                    {attempts} AS restart_attempts, {exit} AS last_exit_code, {error} AS last_error,
                    {updated} AS updated_at
             FROM ({names}) AS n{joins}
             WHERE {is_name} GROUP BY n.name",
            uid = text(&any(r("instance_uid"), i("instance_uid"))),
            pid = number(&either("pid"), 1, i64::from(u32::MAX)),
            port = number(&r("port"), 1, i64::from(u16::MAX)),
            cmdline = text(&r("cmdline")),
            version = text(&r("binary_version")),
            status = word(&either("status"), &["stopped", "starting", "running", "stopping", "error"], "unknown"),
            health = word(&either("health"), &["loading", "healthy", "unhealthy", "error"], "unknown"),
            started = any(millis(&r("started_at")), millis(&i("start_time"))),
            seen = any(millis(&r("last_seen_at")), millis(&i("last_health_check"))),
            health_ok = millis(&r("last_health_ok_at")),
            restarts = any(number(&i("restart_count"), 0, i64::from(u32::MAX)), "0".to_owned()),
            attempts = any(number(&r("restart_attempts"), 0, i64::from(u32::MAX)), "0".to_owned()),
            exit = number(&r("last_exit_code"), i64::from(i32::MIN), i64::from(i32::MAX)),
            error = text(&any(r("last_error"), i("error_message"))),
            updated = any(millis(&i("updated_at")), any(millis(&r("last_seen_at")), "0".to_owned())),
            names = self.names(prefix),
            joins = joins.collect::<String>(),
            is_name = is_name("n.name"),
        )
    }

    fn health_history(&self, prefix: &str) -> String {
        let column = |column: &str| self.column("health_history", "h", column);
        if !self.has("health_history", "instance_name") {
            return "SELECT NULL AS id, NULL AS instance_name, NULL AS replica, NULL AS health,
                    NULL AS response_time_ms, NULL AS error_message, NULL AS checked_at WHERE 0"
                .to_owned();
        }
        format!(
            "SELECT {id} AS id, h.instance_name AS instance_name, 'r0' AS replica, {health} AS health,
                    {response} AS response_time_ms, {error} AS error_message, {checked} AS checked_at
             FROM main.\"{prefix}health_history\" AS h WHERE {is_name}",
            id = self.row_id("health_history", "h"),
            health = word(&column("health"), &["loading", "healthy", "unhealthy", "error"], "unknown"),
            response = rounded(&column("response_time_ms"), 1, i64::from(u32::MAX)),
            error = text(&column("error_message")),
            checked = or_zero(&millis(&column("checked_at"))),
            is_name = is_name("h.instance_name"),
        )
    }

    fn events(&self, prefix: &str) -> String {
        let column = |column: &str| self.column("events", "e", column);
        if !self.has_table("events") {
            return "SELECT NULL AS id, NULL AS ts, NULL AS instance_name, NULL AS level, NULL AS event_type,
                    NULL AS message, NULL AS meta_json WHERE 0"
                .to_owned();
        }
        let level = format!("lower({})", column("level"));
        format!(
            "SELECT {id} AS id, {ts} AS ts, {instance} AS instance_name,
                    CASE WHEN {level} IN ('error', 'critical', 'fatal') THEN 'error'
                         WHEN {level} IN ('warning', 'warn') THEN 'warning' ELSE 'info' END AS level,
                    coalesce({kind}, '') AS event_type, coalesce({message}, '') AS message, {meta} AS meta_json
             FROM main.\"{prefix}events\" AS e",
            id = self.row_id("events", "e"),
            ts = or_zero(&millis(&column("ts"))),
            instance = text(&column("instance_name")),
            kind = text(&column("event_type")),
            message = text(&column("message")),
            meta = text(&column("meta_json")),
        )
    }

    fn has(&self, table: &str, column: &str) -> bool {
        self.columns.contains(&(table.to_owned(), column.to_owned()))
    }

    fn column(&self, table: &str, short: &str, column: &str) -> String {
        // Without its key the table is not joined.
        let joined = !matches!(table, "instances" | "runtime") || self.has(table, "name");
        if joined && self.has(table, column) { format!("{short}.\"{column}\"") } else { "NULL".to_owned() }
    }

    fn row_id(&self, table: &str, short: &str) -> String {
        if self.has(table, "id") {
            number(&format!("{short}.id"), 0, i64::MAX)
        } else {
            format!("{short}.rowid")
        }
    }
}

const INSTANCES: &str = "SELECT name, coalesce(uid, '') AS uid, '' AS config_path,
    iif(pid IS NOT NULL AND status IN ('starting', 'running'), 'running', 'stopped') AS desired_state,
    coalesce(started_at, updated_at) AS created_at, updated_at FROM temp.older_rows";

/// The older tool's config hash covers other fields than ours: the two are never compared.
const RUNTIME: &str =
    "SELECT name, 'r0' AS replica, pid, NULL AS process_started_at, NULL AS exe, port, cmdline,
    engine_version, status, health, started_at, last_seen_at, last_health_ok_at, restarts, restart_attempts,
    NULL AS last_restart_at, NULL AS next_restart_at, last_exit_code, last_error, NULL AS config_hash
    FROM temp.older_rows";

/// Seconds as a floating number, since 1970 and before the year 10000, as whole milliseconds.
fn millis(column: &str) -> String {
    format!(
        "CASE WHEN typeof({column}) IN ('real', 'integer') AND {column} BETWEEN 0 AND 253402300799
         THEN CAST(round({column} * 1000) AS INTEGER) END"
    )
}

fn or_zero(expression: &str) -> String {
    format!("coalesce({expression}, 0)")
}

fn number(column: &str, least: i64, most: i64) -> String {
    format!(
        "CASE WHEN typeof({column}) = 'integer' AND {column} BETWEEN {least} AND {most} THEN {column} END"
    )
}

fn rounded(column: &str, least: i64, most: i64) -> String {
    format!(
        "CASE WHEN typeof({column}) IN ('real', 'integer') AND round({column}) BETWEEN {least} AND {most}
         THEN CAST(round({column}) AS INTEGER) END"
    )
}

fn text(column: &str) -> String {
    format!("CASE WHEN typeof({column}) = 'text' THEN {column} END")
}

fn word(column: &str, known: &[&str], otherwise: &str) -> String {
    let known: Vec<String> = known.iter().map(|word| format!("'{word}'")).collect();
    format!("CASE WHEN {column} IN ({}) THEN {column} ELSE '{otherwise}' END", known.join(", "))
}

/// The rule of [`InstanceName`] in SQL; a test holds them together.
fn is_name(column: &str) -> String {
    format!(
        "typeof({column}) = 'text' AND length(CAST({column} AS BLOB)) BETWEEN 1 AND {}
         AND instr({column}, char(0)) = 0 AND {column} NOT GLOB '*[^a-z0-9_-]*'
         AND {column} GLOB '[a-z0-9]*' AND {column} GLOB '*[a-z0-9]' AND {column} NOT IN ('all', 'clean')",
        InstanceName::MAX_LENGTH
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_naming_rule_is_the_same_in_both_languages() {
        let connection = Connection::open_in_memory().unwrap();
        let sql = format!("SELECT {} FROM (SELECT ?1 AS name)", is_name("name"));
        let long = "a".repeat(64);
        let longer = "a".repeat(65);
        let names = [
            "a", "7", "chat", "a_b-c", "-a", "a-", "_a", "a_", "A", "chat 1", "all", "clean", "alles", "",
            "ä", "a\u{0}b", "a]b", "a^b", "a/b", "a.b", "a\nb", &long, &longer,
        ];
        for name in names {
            let accepted: bool = connection.query_row(&sql, [name], |row| row.get(0)).unwrap();
            assert_eq!(accepted, InstanceName::new(name).is_ok(), "{name:?}");
        }
    }

    #[test]
    fn seconds_become_milliseconds_and_nonsense_nothing() {
        let connection = Connection::open_in_memory().unwrap();
        let told = |value: &str| -> Option<i64> {
            let sql = format!("SELECT {} FROM (SELECT {value} AS at)", millis("at"));
            connection.query_row(&sql, [], |row| row.get(0)).unwrap()
        };
        assert_eq!(told("1700000000.123"), Some(1_700_000_000_123));
        assert_eq!(told("1700000000.9996"), Some(1_700_000_001_000));
        assert_eq!(told("1700000000"), Some(1_700_000_000_000));
        for nonsense in ["NULL", "'yesterday'", "-1", "9e999", "-9e999", "1e300", "x'00'"] {
            assert_eq!(told(nonsense), None, "{nonsense}");
        }
    }
}
