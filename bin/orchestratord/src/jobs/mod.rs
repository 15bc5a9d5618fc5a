//! Jobs: what a workflow's run is given by this program.

mod programs;

pub use programs::Programs;
