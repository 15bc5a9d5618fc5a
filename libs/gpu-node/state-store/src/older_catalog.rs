//! `state/instance_catalog.sqlite` of the older tool: what it knew of its instances beside their configs. Read, never
//! written.

use std::path::{Path, PathBuf};

use orch_core::HomeLayout;
use rusqlite::types::ValueRef;
use rusqlite::{Connection, OpenFlags, Row};

use crate::error::StoreError;

/// More instances than anybody has.
const MOST_ROWS: usize = 100_000;

/// One instance as the older tool's catalog describes it. Nothing is checked here.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OlderCatalogRow {
    pub uid: Option<String>,
    pub number: Option<String>,
    pub name: String,
    pub display_name: Option<String>,
    pub created_at: Option<String>,
    pub sort_order: Option<i64>,
}

/// Every instance of the older tool's catalog; none where the home has no such file. Columns that a version of it did
/// not have yet are absent.
pub fn read_older_catalog(home: &HomeLayout) -> Result<Vec<OlderCatalogRow>, StoreError> {
    let path = home.state().join("instance_catalog.sqlite");
    if !path.exists() {
        return Ok(Vec::new());
    }
    read(&path).map_err(|error| match error.sqlite_error_code() {
        // The file is there and a database, and no catalog: as useless as a damaged one.
        Some(rusqlite::ErrorCode::Unknown) | None => {
            StoreError::Corrupt { path: path.clone(), detail: error.to_string() }
        }
        Some(_) => StoreError::from_sqlite(&path, error),
    })
}

fn read(path: &Path) -> rusqlite::Result<Vec<OlderCatalogRow>> {
    let connection = open(path)?;
    let mut statement = connection.prepare("SELECT * FROM instances")?;
    let columns: Vec<String> = statement.column_names().map(str::to_owned).collect();
    let rows = statement.query_map([], |row| Ok(row_of(row, &columns)))?;
    rows.take(MOST_ROWS).filter_map(|row| row.transpose()).collect()
}

fn row_of(row: &Row<'_>, columns: &[String]) -> Option<OlderCatalogRow> {
    let text = |column: &str| {
        let at = columns.iter().position(|name| name == column)?;
        let text = match row.get_ref(at).ok()? {
            ValueRef::Text(bytes) => String::from_utf8_lossy(bytes).into_owned(),
            ValueRef::Integer(number) => number.to_string(),
            _ => return None,
        };
        Some(text).filter(|text| !text.trim().is_empty())
    };
    Some(OlderCatalogRow {
        name: text("name")?,
        uid: text("instance_uid"),
        number: text("instance_no"),
        display_name: text("display_name"),
        created_at: text("created_at"),
        sort_order: text("sort_order").and_then(|order| order.parse().ok()),
    })
}

/// A database whose log is merged is opened as a file that nobody changes, so that SQLite puts nothing beside it.
fn open(path: &Path) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let mut log = path.as_os_str().to_owned();
    log.push("-wal");
    match (PathBuf::from(log).exists(), path.to_str()) {
        (false, Some(text)) => {
            let plain = text.replace('%', "%25").replace('?', "%3f").replace('#', "%23");
            let slash = if plain.starts_with('/') { "" } else { "/" };
            let address = format!("file:{slash}{}?immutable=1", plain.replace('\\', "/"));
            Connection::open_with_flags(address, flags | OpenFlags::SQLITE_OPEN_URI)
        }
        _ => Connection::open_with_flags(path, flags),
    }
}
