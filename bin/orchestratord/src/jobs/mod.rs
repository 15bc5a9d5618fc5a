//! Jobs: what a workflow's run is given by this program.

mod compose;
mod inputs;
mod kept;
mod programs;
mod weights;

pub use compose::{ProviderBook, Variables, environment, local_gateway};
pub use inputs::{check_inputs, read_inputs};
pub use kept::{KeptError, SpecFolder, keep, kept_inputs, kept_spec, read_spec_file, read_spec_text};
pub use programs::Programs;
pub use weights::weights;
