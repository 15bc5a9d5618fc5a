//! The state database of one home: what is wanted of each instance, what was last known of its processes,
//! and what happened.
//!
//! Methods are named after intents (`record_spawned`, `set_desired`), each is one transaction, and each is
//! safe against a kill at any moment and against other processes doing the same. This crate deliberately
//! knows no process, no engine, no config file and no clock: it writes down what it is told, with the time it
//! is told.
//!
//! Read first: [`StateReader`], which changes no byte of a home and creates nothing, and [`StateStore`], which
//! derefs to it and adds the writing methods.

mod access;
mod backup;
mod error;
mod events;
mod health;
mod instances;
mod integrity;
mod keeper;
mod migration;
mod older;
mod older_catalog;
mod retention;
mod row;
mod runtime;
mod schema;

pub use access::{StateReader, StateStore};
pub use error::StoreError;
pub use events::{EventQuery, EventRow, NewEvent};
pub use health::HealthRow;
pub use instances::InstanceRow;
pub use keeper::StoreCondition;
pub use migration::{
    DatabaseKind, LivingProcess, Migration, MigrationStep, OldProcess, StillOurs, inspect, migrate, preview,
};
pub use older_catalog::{OlderCatalogRow, read_older_catalog};
pub use retention::{EVENT_RETENTION, HEALTH_ROWS_KEPT, Pruned};
pub use runtime::{RuntimeRow, Spawned};
pub use schema::SCHEMA_VERSION;
