//! What a job is given by its home and its environment.

use llm_providers::Reach;
use orch_core::Failure;
use orchestratord::daemon::{DaemonOptions, load_settings};
use orchestratord::jobs::{ProviderBook, environment, local_gateway};
use workflow::Ports;
use workflow_spec::JobSpec;

use crate::context::Context;

/// What the job is given, and whom it asks where its steps name nobody.
pub(super) fn surroundings(
    context: &Context,
    provider: Option<&str>,
    spec: &JobSpec,
) -> Result<(Ports, String), Failure> {
    let home = context.home()?;
    let settings = load_settings(&DaemonOptions { home: home.clone(), flags: Vec::new() })?;
    let variables = environment();
    let book = ProviderBook::new(&settings, &variables, local_gateway(home, context.server_access()))?;
    let provider = book.default_for(provider, spec, &settings, &variables)?;
    book.check_steps(spec)?;
    Ok((book.into_ports(variables, Reach::Everywhere, None), provider))
}
