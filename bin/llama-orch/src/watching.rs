//! Instances looked at again and again, by whoever can see them best at that moment: a control plane elsewhere, the
//! daemon of the home, or this process itself. Says nothing to anybody: what is wrong is part of what was seen.

use std::time::Duration;

use instance_config::BrokenInstance;
use orch_core::{ExitCode, Failure};
use orchestratord::client::DaemonClient;
use pool_manager::stats::{InstanceStats, Sampler, targets};
use pool_manager::view::{InstanceView, broken_line, denied_line};

use crate::context::Context;
use crate::runtime::block_on;

/// A close look comes each second: one that takes longer than this is given up, and the next one tried.
const CLOSE_LOOK: Duration = Duration::from_secs(5);

/// Who told what was seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Keeper {
    /// A control plane elsewhere.
    Elsewhere,
    /// The living daemon of this home.
    Daemon,
    /// Nobody keeps the instances: this process has looked itself.
    Nobody,
}

/// One look.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    pub(crate) keeper: Keeper,
    pub(crate) rows: Vec<InstanceView>,
    /// Empty unless asked for.
    pub(crate) stats: Vec<InstanceStats>,
    /// Instances of this home whose configs cannot be used.
    pub(crate) broken: Vec<BrokenInstance>,
    /// Why the daemon of the home, which lives, was not the one who told.
    pub(crate) trouble: Option<String>,
}

impl Seen {
    /// What stops nothing but should be known.
    pub(crate) fn warnings(&self) -> Vec<String> {
        let denied = self.rows.iter().filter_map(denied_line);
        self.broken.iter().map(broken_line).chain(self.trouble.clone()).chain(denied).collect()
    }
}

/// The instances, as their keeper sees them.
pub(crate) fn look(context: &Context) -> Result<Seen, Failure> {
    take_look(context, None)
}

/// The instances of this home, whatever control plane was chosen.
pub(crate) fn look_at_home(context: &Context) -> Result<Seen, Failure> {
    look_here(context, None)
}

/// The instances, and what they use and do.
pub(crate) fn look_closely(context: &Context, sampler: &mut Sampler) -> Result<Seen, Failure> {
    take_look(context, Some(sampler))
}

fn take_look(context: &Context, sampler: Option<&mut Sampler>) -> Result<Seen, Failure> {
    if let Some(client) = context.remote()? {
        let (rows, stats) = block_on(ask(&client, sampler.is_some()))?;
        return Ok(Seen { keeper: Keeper::Elsewhere, rows, stats, broken: Vec::new(), trouble: None });
    }
    look_here(context, sampler)
}

fn look_here(context: &Context, sampler: Option<&mut Sampler>) -> Result<Seen, Failure> {
    let catalog = context.catalog()?;
    let mut trouble = None;
    if let Some(client) = DaemonClient::living(context.home()?) {
        match block_on(ask(&client, sampler.is_some())) {
            Ok((rows, stats)) => {
                return Ok(Seen { keeper: Keeper::Daemon, rows, stats, broken: catalog.broken, trouble });
            }
            Err(failure) => trouble = Some(failure.message),
        }
    }
    let rows = context.look(|viewer| viewer.instances(&catalog))?;
    let stats = match sampler {
        None => Vec::new(),
        Some(sampler) => {
            let targets = targets(&catalog, rows.clone(), context.home()?);
            block_on(async { Ok::<_, Failure>(sampler.sample(&targets).await) })?
        }
    };
    Ok(Seen { keeper: Keeper::Nobody, rows, stats, broken: catalog.broken, trouble })
}

async fn ask(
    client: &DaemonClient,
    closely: bool,
) -> Result<(Vec<InstanceView>, Vec<InstanceStats>), Failure> {
    if !closely {
        return Ok((client.instances().await?, Vec::new()));
    }
    let both = async { tokio::try_join!(client.instances(), client.stats()) };
    let late = |_| {
        let message = format!("{} does not answer within {} s", client.address(), CLOSE_LOOK.as_secs());
        Failure::new(ExitCode::DaemonUnreachable, message)
    };
    tokio::time::timeout(CLOSE_LOOK, both).await.map_err(late)?
}
