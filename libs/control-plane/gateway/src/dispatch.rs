//! Bringing a request to a replica, and to another one if the first fails before its first byte.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::uri::PathAndQuery;
use http::{HeaderMap, Method, Uri, response};
use llm_adapters::Problem;
use orch_core::ErrorCode;
use tokio::time::Instant;

use crate::admission::{Admitted, Ask, Need, Progress, SlotGuard, Wish, enter};
use crate::facts::Facts;
use crate::flight::Flight;
use crate::gateway::Shared;
use crate::limits::Limits;
use crate::live::Target;
use crate::table::ReplicaKey;
use crate::upstream::{Answer, Connection, RequestHead, SendError};
use crate::verdict::{self, EngineRefusal};

/// A reused connection that breaks within this time was most likely already going when the request was
/// written on it; later the engine had begun to work.
const STALE_WITHIN: Duration = Duration::from_secs(1);

/// A body of so many bytes takes its key one turn in the queue; a larger one takes more.
const BODY_OF_A_TURN: usize = 16 * 1024;

/// A request, whole and cleaned, ready to be sent as often as need be.
pub(crate) struct Outgoing {
    pub(crate) method: Method,
    /// Path and query only.
    pub(crate) uri: Uri,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
    /// Whether the client wants what the engine says, whatever that is.
    pub(crate) as_is: bool,
    /// When its last byte had come in.
    pub(crate) ready_at: Instant,
}

/// The head of an answer, and who gives it.
pub(crate) struct Dispatched {
    pub(crate) head: response::Parts,
    pub(crate) answer: Answer,
    pub(crate) target: Arc<Target>,
    pub(crate) attempt: u32,
}

/// Why one replica gave no answer.
#[derive(Debug)]
pub(crate) enum Failed {
    /// It takes no connections.
    Refused,
    /// It died, or was stopped, with the request in hand.
    Reset,
    /// It sent no answer within the limit.
    TimedOut,
    /// The caller has no more use for an answer.
    TooLate,
    /// It answered, with an error.
    Answered(Box<EngineRefusal>),
}

/// Sends the request to one replica after another until one begins to answer; before each it waits for a place.
pub(crate) async fn dispatch(
    shared: &Shared,
    facts: &mut Facts,
    request: &Outgoing,
    flight: &mut Flight,
    progress: &Progress,
) -> Result<Dispatched, Problem> {
    let mut tried: Vec<ReplicaKey> = Vec::new();
    let mut problem = None;
    for attempt_number in 1..=shared.limits.retries.saturating_add(1) {
        let wish = Wish { facts, need: need(request, flight), tried: &tried, again: attempt_number > 1 };
        let entered = enter(shared, &ask(wish, request, flight, &shared.limits, progress)).await;
        let Admitted { slot, waited } = match entered {
            Ok(admitted) => admitted,
            Err(refusal) => return Err(problem.unwrap_or(refusal)),
        };
        flight.has_waited(waited);
        let target = Arc::clone(slot.target());
        flight.dispatch(slot, &facts.ties);
        let failed = match attempt(&target, request, flight, &shared.limits).await {
            Ok((head, answer)) => {
                let attempt = flight.attempts();
                return Ok(Dispatched { head, answer, target, attempt });
            }
            Err(failed) => failed,
        };
        flight.failed(&failed);
        let again = failed.may_try_another(request, flight);
        // One that takes nothing now is out until it is good again; then it may have this request too.
        if !failed.is_not_now() {
            tried.push(target.replica.key.clone());
        }
        let told = failed.problem(&target);
        if let Some(numbers) = &told.context {
            // Only a replica with more room can do better.
            facts.prompt_tokens = Some(numbers.prompt_tokens);
        }
        problem = Some(told);
        if !again {
            break;
        }
    }
    Err(problem.unwrap_or_else(|| Problem::new(ErrorCode::Internal, "the request was sent to nobody")))
}

fn need(request: &Outgoing, flight: &Flight) -> Need {
    if flight.takes_slot() {
        Need::Slot
    } else if request.method.is_safe() {
        Need::Now
    } else {
        Need::Replica
    }
}

fn ask<'a>(
    wish: Wish<'a>,
    request: &Outgoing,
    flight: &'a Flight,
    limits: &Limits,
    progress: &'a Progress,
) -> Ask<'a> {
    let caller = &flight.arrival.caller;
    let turns = 1 + request.body.len() / BODY_OF_A_TURN;
    Ask {
        wish,
        class: wish.facts.class,
        key: &caller.id,
        cost: u32::try_from(turns).unwrap_or(u32::MAX),
        deadline: wish.facts.deadline.unwrap_or(flight.arrived + limits.queue_deadline),
        progress,
    }
}

/// Asks somebody else's server.
pub(crate) async fn dispatch_remote(
    shared: &Shared,
    target: &Arc<Target>,
    request: &Outgoing,
    flight: &mut Flight,
) -> Result<Dispatched, Problem> {
    let key = &target.replica.key;
    let busy = || Problem::new(ErrorCode::PoolUnavailable, "the provider is not used any more");
    let Some(provider) = &target.provider else { return Err(busy()) };
    // How many it takes at a time is its own affair.
    let slot = SlotGuard::reserve(&shared.table, target, Need::Replica).ok_or_else(busy)?;
    flight.dispatch(slot, &Arc::default());
    flight.handed_over(request.ready_at);
    // Boxed: most requests stay on the machine.
    let sent = Box::pin(tokio::time::timeout(shared.limits.answer, provider.send(request)));
    let sent = tokio::select! {
        sent = sent => sent,
        () = flight.too_late() => return Err(too_late()),
    };
    let Ok(answered) = sent else {
        let message = "the provider gave no answer within the limit";
        return Err(Problem::new(ErrorCode::DecodeTimeout, message).at(&key.node_id, &key.pool_id));
    };
    let (head, answer) = answered?;
    Ok(Dispatched {
        head,
        answer: Answer::Remote(answer),
        target: Arc::clone(target),
        attempt: flight.attempts(),
    })
}

impl Failed {
    fn problem(self, target: &Target) -> Problem {
        let key = &target.replica.key;
        let (code, message) = match self {
            Failed::Refused => (ErrorCode::ModelNotAvailable, "the engine takes no connections"),
            Failed::Reset => (ErrorCode::WorkerReset, "the engine died before it answered"),
            Failed::TimedOut => (ErrorCode::DecodeTimeout, "the engine gave no answer within the limit"),
            Failed::TooLate => return too_late(),
            Failed::Answered(refusal) => return refusal.problem,
        };
        Problem::new(code, message).at(&key.node_id, &key.pool_id)
    }

    /// Whether the engine has not begun anything, and may be good again soon.
    fn is_not_now(&self) -> bool {
        match self {
            Failed::Refused => true,
            Failed::Answered(refusal) => refusal.problem.code == ErrorCode::ModelNotAvailable,
            Failed::Reset | Failed::TimedOut | Failed::TooLate => false,
        }
    }

    /// Generating again is harmless. Anything else that an engine may have begun is not done twice.
    fn may_try_another(&self, request: &Outgoing, flight: &Flight) -> bool {
        match self {
            Failed::Refused => true,
            Failed::Reset => flight.takes_slot() || request.method.is_safe(),
            Failed::TimedOut | Failed::TooLate => false,
            Failed::Answered(refusal) => refusal.elsewhere,
        }
    }
}

/// The deadline of a request passed while it was worked on.
pub(crate) fn too_late() -> Problem {
    Problem::new(ErrorCode::DeadlineUnmet, "the deadline passed before the answer was complete")
}

async fn attempt(
    target: &Arc<Target>,
    request: &Outgoing,
    flight: &Flight,
    limits: &Limits,
) -> Result<(response::Parts, Answer), Failed> {
    let exchange = tokio::time::timeout(limits.answer, exchange(target, request, flight, limits));
    let (head, answer) = tokio::select! {
        biased;
        answered = exchange => answered.map_err(|_| Failed::TimedOut)??,
        () = target.live.closed.cancelled() => return Err(Failed::Reset),
        () = flight.too_late() => return Err(Failed::TooLate),
    };
    if request.as_is || !verdict::is_suspect(&head, request) {
        return Ok((head, answer));
    }
    // Boxed: it is rare.
    Box::pin(verdict::judge(head, answer, target, request, flight)).await.map_err(Failed::Answered)
}

/// Sends the request on an idle connection if there is one. If that one turns out to be stale, a new
/// connection is made: the engine has restarted or had closed it, and the client need not know.
async fn exchange(
    target: &Arc<Target>,
    request: &Outgoing,
    flight: &Flight,
    limits: &Limits,
) -> Result<(response::Parts, Answer), Failed> {
    let mut was_reset = false;
    if let Some(connection) = target.live.idle.take() {
        let sent = Instant::now();
        match send(connection, target, request, flight).await {
            Ok(answer) => return Ok(answer),
            Err(SendError::Unanswered) if sent.elapsed() < STALE_WITHIN => was_reset = true,
            Err(_) => return Err(Failed::Reset),
        }
        target.live.idle.clear();
    }
    // Boxed: it is rare, and would make every request's future as large as itself.
    let open = Box::pin(Connection::open(target.replica.address));
    let opened = tokio::time::timeout(limits.connect, open).await;
    let Ok(Ok(connection)) = opened else {
        target.mark_refused();
        return Err(if was_reset { Failed::Reset } else { Failed::Refused });
    };
    send(connection, target, request, flight).await.map_err(|_| Failed::Reset)
}

async fn send(
    connection: Connection,
    target: &Arc<Target>,
    request: &Outgoing,
    flight: &Flight,
) -> Result<(response::Parts, Answer), SendError> {
    let request_id = flight.request_id().header_value();
    let head = RequestHead {
        method: &request.method,
        target: request.uri.path_and_query().map_or("/", PathAndQuery::as_str),
        headers: &request.headers,
        own: &target.headers.own(&request_id),
    };
    flight.handed_over(request.ready_at);
    let (head, answer) = connection.send(&head, &request.body).await?;
    Ok((head, Answer::Engine(answer)))
}
