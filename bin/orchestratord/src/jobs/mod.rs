//! Jobs: what a workflow's run is given by this program.

mod inputs;
mod programs;

pub use inputs::{check_inputs, read_inputs};
pub use programs::Programs;
