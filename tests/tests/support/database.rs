//! The home's database, looked at with a tool that is not ours: Python's own SQLite.

use std::path::Path;

use testkit::run_python;

const SCRIPT: &str = "
import os, sqlite3
database = sqlite3.connect(os.environ['DATABASE'], timeout=10)
with database:
    for row in database.execute(os.environ['SQL']):
        print(*row, sep='|')
";

/// Runs one statement and returns its rows, `|` between the columns.
pub(crate) fn sql(home: &Path, statement: &str) -> String {
    let database = home.join("state").join("state.sqlite");
    let database = database.to_str().expect("a temporary path is text");
    run_python(SCRIPT, &[("DATABASE", database), ("SQL", statement)])
        .expect_exit(0)
        .stdout
        .trim_end()
        .to_owned()
}

#[track_caller]
pub(crate) fn assert_intact(home: &Path) {
    assert_eq!(sql(home, "PRAGMA integrity_check"), "ok");
    assert_eq!(sql(home, "PRAGMA foreign_key_check"), "");
}
