//! Looking at runs, while they go on and after: nothing here takes a run's lock or changes a byte of it.

mod run_view;
mod runs;
mod summary;
mod tail;
#[cfg(test)]
mod tests;

pub use run_view::{RunStatus, RunView};
pub use runs::{Runs, SelectRunError};
pub use summary::RunSummary;
pub use tail::{JournalLine, Tail, TailError};
