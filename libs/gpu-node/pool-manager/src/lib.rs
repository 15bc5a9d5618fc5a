//! WIP
pub mod lifecycle;
