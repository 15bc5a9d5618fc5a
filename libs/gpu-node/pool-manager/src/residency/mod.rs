//! What is loaded when: instances that are loaded on demand share memory that does not hold them all.
//!
//! Read first: [`planner::plan`], which says what has to go for one newcomer, and [`ledger::Ledger`], who holds what.

mod alone;
mod book;
mod decision;
mod ledger;
mod planner;
mod report;
mod scheduler;

pub use alone::memory_alone;
pub use book::MemoryBudget;
pub use orch_api::{EvictionReport, HolderReport, MemoryReport, NeedReport, PlaceReport, PlanReport};
pub use planner::ResidencyPolicy;
pub use scheduler::ResidencySettings;
pub(crate) use scheduler::Scheduler;
