//! The journal: one line an event, appended by one process at a time, the truth of a run.

pub(crate) mod fact;
pub(crate) mod file;
pub(crate) mod line;
pub(crate) mod scan;
pub(crate) mod stamp;

pub use file::JournalError;
