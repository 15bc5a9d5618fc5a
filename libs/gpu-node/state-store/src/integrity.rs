//! Whether every page of a database is sound.

use crate::{StateReader, StoreError};

impl StateReader {
    /// Looks at every page, and changes none.
    pub fn check(&self) -> Result<(), StoreError> {
        let finding: String =
            self.read(|connection| Ok(connection.query_row("PRAGMA quick_check(1)", [], |row| row.get(0))?))?;
        if finding == "ok" { Ok(()) } else { Err(self.damaged(finding)) }
    }
}
