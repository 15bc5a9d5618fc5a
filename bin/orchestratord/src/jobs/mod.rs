//! Jobs: what a workflow's run is given by this program, and the jobs that the daemon works on itself.

mod attend;
mod book;
mod compose;
mod follow;
mod inputs;
mod kept;
mod kit;
mod manager;
mod metrics;
mod owner;
mod permissions;
mod programs;
mod serving;
mod shelf;
mod weights;

pub use compose::{LOCAL, ProviderBook, Variables, environment, local_gateway};
pub use inputs::{check_inputs, read_inputs};
pub use kept::{
    KeptError, SpecFolder, check_project, keep, kept_inputs, kept_spec, read_spec_file, read_spec_text,
};
pub(crate) use kit::Kit;
pub(crate) use manager::JobManager;
pub(crate) use metrics::JobCounts;
pub use programs::Programs;
pub(crate) use serving::EnginesHere;
pub use weights::weights;
