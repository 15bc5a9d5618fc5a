//! What is loaded when: instances that are loaded on demand share memory that does not hold them all.
//!
//! Read first: [`planner::plan`], which says what has to go for one newcomer, and [`ledger::Ledger`], who holds what.

pub mod decision;
pub mod ledger;
pub mod planner;
