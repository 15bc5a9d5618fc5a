use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use gateway::{Caller, Dialect, Outcome, ReplicaKey, Usage};
use orch_api::RequestFilter;
use orch_core::{ErrorCode, HomeLayout, ReplicaId, UnixMillis};
use tempfile::TempDir;

use super::*;

struct Place {
    _folder: TempDir,
    home: HomeLayout,
}

impl Place {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let home = HomeLayout::new(PathBuf::from(folder.path()));
        Self { _folder: folder, home }
    }

    fn start(&self, captures: bool) -> (Arc<LogWriter>, LogKeeper) {
        let store = Arc::new(ControlStore::open(&self.home.control_database()).unwrap());
        start(store, captures, vec!["a-known-secret".to_owned()], |_| ()).unwrap()
    }

    fn reader(&self) -> LogReader {
        LogReader::open(&self.home).unwrap()
    }
}

fn record(id: &str, body: Option<&str>) -> RequestRecord {
    RequestRecord {
        id: id.to_owned(),
        at: UnixMillis::now(),
        endpoint: "/v1/chat/completions".to_owned(),
        dialect: Dialect::OpenAi,
        caller: Caller::default(),
        model: Some("chat".to_owned()),
        streamed: true,
        replica: Some(ReplicaKey {
            node_id: "here".to_owned(),
            pool_id: "chat".to_owned(),
            replica_id: ReplicaId::FIRST,
        }),
        attempts: 2,
        outcome: Outcome::Broken,
        status: 200,
        code: Some(ErrorCode::WorkerReset),
        queued: Some(Duration::from_micros(1500)),
        first_token: None,
        total: Duration::from_millis(20),
        usage: Usage { prompt_tokens: Some(7), ..Usage::default() },
        body: body.map(|body| Bytes::copy_from_slice(body.as_bytes())),
        answer: None,
    }
}

fn all() -> RequestFilter {
    RequestFilter { limit: Some(1000), ..RequestFilter::default() }
}

#[test]
fn what_was_recorded_before_the_end_is_in_the_log_after_it() {
    let place = Place::new();
    let (log, keeper) = place.start(false);
    for number in 0..900 {
        log.record(record(&format!("request-{number}"), None));
    }
    keeper.close();
    let rows = place.reader().requests(&all()).unwrap();
    assert_eq!(rows.len(), 900);
    let newest = &rows[0];
    assert_eq!((newest.id.as_str(), newest.key.as_str(), newest.attempts), ("request-899", "anyone", 2));
    assert_eq!((newest.outcome.as_str(), newest.code.as_deref()), ("broken", Some("WORKER_RESET")));
    assert_eq!((newest.queue_ms, newest.first_token_ms, newest.total_ms), (Some(1.5), None, 20.0));
    assert_eq!(
        (newest.replica_id.as_deref(), newest.prompt_tokens, newest.completion_tokens),
        (Some("r0"), Some(7), None)
    );
    log.record(record("too late", None));
    assert_eq!(log.shared.lost.load(Ordering::Relaxed), 1, "what cannot be kept is counted");
}

#[test]
fn captured_bodies_are_kept_without_secrets_and_not_when_they_are_large_or_no_text() {
    let place = Place::new();
    let (log, keeper) = place.start(true);
    log.record(record("text", Some(r#"{"prompt":"a-known-secret","api_key":"mine"}"#)));
    log.record(record("large", Some(&"x".repeat(LARGEST_BODY + 1))));
    log.record(RequestRecord { body: Some(Bytes::from_static(b"\xff\xfe")), ..record("sound", None) });
    let answer = Some(Bytes::from_static(b"{\"content\":\"hf_abcdefghijklmnopqrst\"}"));
    log.record(RequestRecord { answer, ..record("answered", None) });
    let shared = Arc::clone(&log.shared);
    keeper.close();
    let answered = place.reader().request("answered").unwrap().answer;
    assert_eq!(answered.as_deref(), Some(r#"{"content":"hf_********"}"#));
    let body = |id: &str| place.reader().request(id).unwrap().body;
    assert_eq!(body("text").as_deref(), Some(r#"{"prompt":"********","api_key":"********"}"#));
    assert_eq!((body("large"), body("sound")), (None, None));
    assert_eq!(shared.body_bytes.load(Ordering::Relaxed), 0, "nothing waits any more");
}

#[test]
fn the_way_of_a_request_never_waits_for_the_log() {
    let (notes, inbox) = sync_channel(2);
    let log = LogWriter { notes, shared: Arc::default(), captures: true };
    for number in 0..5 {
        log.record(record(&number.to_string(), Some("{}")));
    }
    assert_eq!(LogHealth(Arc::clone(&log.shared)).lost(), 3);
    assert_eq!(log.shared.body_bytes.load(Ordering::Relaxed), 4, "only bodies that wait take memory");
    drop(inbox);
}

#[test]
fn a_home_without_a_log_has_an_empty_one_and_bad_filters_are_refused_all_the_same() {
    let place = Place::new();
    let reader = place.reader();
    assert_eq!(reader.requests(&all()).unwrap(), []);
    assert_eq!(reader.request("a").unwrap_err().exit, orch_core::ExitCode::InstanceNotFound);
    for filter in [
        RequestFilter { outcome: Some("well".to_owned()), ..all() },
        RequestFilter { since: Some("yesterday".to_owned()), ..all() },
    ] {
        assert_eq!(reader.requests(&filter).unwrap_err().exit, orch_core::ExitCode::Usage);
    }
    assert!(!place.home.control_database().exists(), "a look creates nothing");
}

#[test]
fn bodies_that_the_database_has_not_taken_yet_count_as_waiting() {
    let place = Place::new();
    let store = Arc::new(ControlStore::open(&place.home.control_database()).unwrap());
    let (notes, inbox) = sync_channel(2);
    let log = LogWriter { notes, shared: Arc::default(), captures: true };
    let shared = Arc::clone(&log.shared);
    log.record(record("held", Some("{}")));
    let Ok(Note::Over(waiting)) = inbox.recv() else { panic!("a record was sent") };
    let mut writer =
        writer::Writer::new(store, inbox, Arc::clone(&shared), Vec::new(), watch::channel(0).0, |_| ());
    let mut batch = Vec::new();
    writer.take(&mut batch, *waiting);
    assert_eq!(shared.body_bytes.load(Ordering::Relaxed), 2);
    writer.write(&mut batch);
    assert_eq!(shared.body_bytes.load(Ordering::Relaxed), 0);
}

#[test]
fn bodies_of_a_busy_hour_are_bounded_too() {
    let place = Place::new();
    let (log, keeper) = place.start(true);
    for number in 0..700 {
        log.record(record(&format!("request-{number}"), Some("{}")));
    }
    keeper.close();
    let rows = place.reader().requests(&all()).unwrap();
    assert_eq!((rows.len(), rows.iter().filter(|row| row.has_body).count()), (700, 500));
    assert!(rows[0].has_body, "the newest are kept");
}
