//! Whole runs in a folder of their own, with a model that answers as it is told.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod budget;
mod effects;
mod failing;
mod files;
mod graphs;
mod made_of_others;
mod pausing;
mod plain;
mod support;
