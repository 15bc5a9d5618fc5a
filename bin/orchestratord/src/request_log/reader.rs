//! Reading the log: for `/v2`, and for commands of a home without a daemon.

use std::sync::Arc;

use control_store::{ControlReader, RequestQuery, UsageQuery};
use orch_api::{CapturedRequest, RequestFilter, RequestView, UsageView};
use orch_core::{ExitCode, Failure, HomeLayout, UnixMillis};
use serde::Deserialize;

use super::entry::{usage_view, view_of};

/// So many entries come when nothing is said, and at most.
const USUAL: usize = 50;
const MOST: usize = 1000;

/// Reads the log of one home, over a connection of its own: a long look holds up no writer.
#[derive(Clone, Debug)]
pub struct LogReader {
    /// None where nothing has been written yet.
    store: Option<Arc<ControlReader>>,
}

/// Which sums are wanted, as `/v2/usage` is asked.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct UsageFilter {
    key: Option<String>,
    model: Option<String>,
    instance: Option<String>,
    since: Option<String>,
    until: Option<String>,
}

impl LogReader {
    /// Changes no byte; a home without a log has an empty one.
    pub fn open(home: &HomeLayout) -> Result<Self, Failure> {
        Ok(Self { store: ControlReader::open(&home.control_database())?.map(Arc::new) })
    }

    /// Newest first; with `after` those that ended later, oldest first.
    pub fn requests(&self, filter: &RequestFilter) -> Result<Vec<RequestView>, Failure> {
        let query = query_of(filter)?;
        let Some(store) = &self.store else { return Ok(Vec::new()) };
        Ok(store.requests(&query)?.into_iter().map(view_of).collect())
    }

    /// One request, by its id or the beginning of it.
    pub fn request(&self, id: &str) -> Result<CapturedRequest, Failure> {
        let found = match &self.store {
            Some(store) => store.request(id)?,
            None => None,
        };
        match found {
            Some(Ok(mut row)) => {
                let text = |kept: Vec<u8>| String::from_utf8_lossy(&kept).into_owned();
                let (body, answer) = (row.entry.body.take().map(text), row.entry.answer.take().map(text));
                Ok(CapturedRequest { request: view_of(row), body, answer })
            }
            Some(Err(_)) => Err(Failure::new(
                ExitCode::Usage,
                format!("several requests begin with {id:?}; give more of the id"),
            )),
            None => Err(Failure::new(ExitCode::InstanceNotFound, format!("the log holds no request {id:?}"))
                .hint("see `llama-orch requests`; entries are kept for 30 days")),
        }
    }

    pub(crate) fn usage(&self, filter: &UsageFilter) -> Result<Vec<UsageView>, Failure> {
        let query = UsageQuery {
            key: filter.key.clone(),
            model: filter.model.clone(),
            instance: filter.instance.clone(),
            since: moment("since", filter.since.as_deref())?,
            until: moment("until", filter.until.as_deref())?,
        };
        let Some(store) = &self.store else { return Ok(Vec::new()) };
        Ok(store.usage(&query)?.into_iter().map(usage_view).collect())
    }
}

fn query_of(filter: &RequestFilter) -> Result<RequestQuery, Failure> {
    let outcome = filter.outcome.as_deref().map(str::parse).transpose();
    Ok(RequestQuery {
        model: filter.model.clone(),
        key: filter.key.clone(),
        instance: filter.instance.clone(),
        outcome: outcome.map_err(|error| Failure::new(ExitCode::Usage, format!("outcome {error}")))?,
        since: moment("since", filter.since.as_deref())?,
        after: filter.after,
        limit: filter.limit.unwrap_or(USUAL).min(MOST),
    })
}

fn moment(field: &str, text: Option<&str>) -> Result<Option<UnixMillis>, Failure> {
    let read = |text: &str| {
        let bad = || Failure::new(ExitCode::Usage, format!("{field} cannot be {text:?}: RFC 3339 is wanted"));
        UnixMillis::from_rfc3339(text).ok_or_else(bad)
    };
    text.map(read).transpose()
}
