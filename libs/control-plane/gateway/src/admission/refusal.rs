//! What a request is told that is not let in.

use std::time::Duration;

use llm_adapters::Problem;
use orch_core::ErrorCode;

/// A client is never asked to wait longer: what is measured now says little about later.
const LONGEST: Duration = Duration::from_mins(1);
const SHORTEST: Duration = Duration::from_secs(1);

/// The queue is full; by what is measured, the newcomer would have begun after `wait`.
pub(super) fn queue_full(waiting: usize, wait: Option<Duration>) -> Problem {
    let message = format!("{waiting} requests wait for this model already, and no more may; try again later");
    retriable(ErrorCode::AdmissionReject, message, wait)
}

/// A newer request needed the room.
pub(super) fn dropped(wait: Option<Duration>) -> Problem {
    let message = "the queue for this model is full, and this request had waited in it for longest";
    retriable(ErrorCode::QueueFullDropLru, message.to_owned(), wait)
}

/// It could begin after `wait`, but has only `left`.
pub(super) fn too_late(wait: Duration, left: Duration) -> Problem {
    let message = format!(
        "the deadline is in {} ms, but the requests in front will take about {} ms",
        left.as_millis(),
        wait.as_millis()
    );
    // After so long those in front are as few as the deadline allows.
    retriable(ErrorCode::AdmissionReject, message, Some(wait.saturating_sub(left)))
}

/// The deadline passed before its turn came.
pub(super) fn deadline_passed(waited: Duration) -> Problem {
    let message = format!("the request waited for {} ms, and then its deadline passed", waited.as_millis());
    Problem::new(ErrorCode::DeadlineUnmet, message)
}

fn retriable(code: ErrorCode, message: String, wait: Option<Duration>) -> Problem {
    let problem = Problem::new(code, message);
    match wait {
        Some(wait) => problem.retry_after(wait.clamp(SHORTEST, LONGEST)),
        None => problem,
    }
}
