//! `state/instance_catalog.sqlite`: what the tool knows of its instances beside their configs.

use std::fs;
use std::path::Path;

use rusqlite::{Connection, params};

use super::OldInstance;
use super::configs::{number, uid};

const TABLES: &str = "
CREATE TABLE instances (
    instance_uid   TEXT PRIMARY KEY,
    instance_no    TEXT NOT NULL UNIQUE,
    name           TEXT NOT NULL UNIQUE,
    display_name   TEXT,
    dir_path       TEXT,
    created_at     TEXT,
    updated_at     TEXT,
    schema_version TEXT,
    sort_order     INTEGER
);
CREATE TABLE instance_no_sequence (next_val INTEGER NOT NULL);
";

pub(super) fn write(root: &Path, instances: &[OldInstance]) {
    fs::create_dir_all(root.join("state")).expect("the home is writable");
    fill(&root.join("state/instance_catalog.sqlite"), instances).expect("a new database takes its rows");
}

fn fill(path: &Path, instances: &[OldInstance]) -> rusqlite::Result<()> {
    let mut connection = Connection::open(path)?;
    let transaction = connection.transaction()?;
    transaction.execute_batch(TABLES)?;
    for (index, instance) in instances.iter().enumerate() {
        let folder = instance.config.parent().and_then(Path::file_name).unwrap_or_default().to_string_lossy();
        transaction.execute(
            "INSERT INTO instances VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?6, '2', ?7)",
            params![
                uid(index, instance.shape),
                number(index),
                instance.name,
                format!("Model {index}"),
                format!("instances\\{folder}"),
                "2025-10-21T08:00:00Z",
                i64::try_from(index).unwrap_or(i64::MAX),
            ],
        )?;
    }
    let next = i64::try_from(instances.len() + 1).unwrap_or(i64::MAX);
    transaction.execute("INSERT INTO instance_no_sequence VALUES (?1)", [next])?;
    transaction.commit()
}
