//! The request log, through its public face.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::PathBuf;

use control_store::{
    ControlReader, ControlStore, PrunedRequests, RequestEntry, RequestOutcome, RequestQuery, UsageQuery,
};
use orch_core::UnixMillis;
use tempfile::TempDir;

/// The beginning of an hour.
const NOW: UnixMillis = UnixMillis(1_700_000_000_000 - 1_700_000_000_000 % 3_600_000);
const DAY_MS: i64 = 24 * 3_600_000;

fn place() -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("state/control.sqlite");
    (folder, path)
}

fn entry(id: &str) -> RequestEntry {
    RequestEntry {
        id: id.to_owned(),
        at: NOW,
        endpoint: "/v1/chat/completions".to_owned(),
        dialect: "openai".to_owned(),
        caller: "key-1".to_owned(),
        caller_name: Some("ci".to_owned()),
        model: Some("gpt".to_owned()),
        instance: Some("chat".to_owned()),
        node: Some("here".to_owned()),
        replica: Some("r0".to_owned()),
        attempts: 1,
        outcome: RequestOutcome::Done,
        status: 200,
        code: None,
        streamed: true,
        queue_ms: Some(1.5),
        first_token_ms: Some(20.0),
        total_ms: 100.0,
        prompt_tokens: Some(10),
        completion_tokens: Some(5),
        cached_tokens: Some(2),
        prompt_ms: Some(8.0),
        decode_ms: Some(70.0),
        body: None,
        answer: None,
    }
}

fn refused(id: &str, model: &str) -> RequestEntry {
    RequestEntry {
        model: Some(model.to_owned()),
        instance: None,
        node: None,
        replica: None,
        attempts: 0,
        outcome: RequestOutcome::Refused,
        status: 404,
        code: Some("MODEL_NOT_FOUND".to_owned()),
        prompt_tokens: None,
        completion_tokens: None,
        cached_tokens: None,
        queue_ms: None,
        first_token_ms: None,
        prompt_ms: None,
        decode_ms: None,
        ..entry(id)
    }
}

fn all() -> RequestQuery {
    RequestQuery { limit: 100, ..RequestQuery::default() }
}

fn ids(store: &ControlReader, query: &RequestQuery) -> Vec<String> {
    store.requests(query).unwrap().into_iter().map(|row| row.entry.id).collect()
}

#[test]
fn an_entry_comes_back_as_it_was_kept_and_lists_hold_no_bodies() {
    let (_folder, path) = place();
    let store = ControlStore::open(&path).unwrap();
    let with_body = RequestEntry {
        body: Some(b"{\"model\":\"gpt\"}".to_vec()),
        answer: Some(b"{}".to_vec()),
        ..entry("one")
    };
    store.add_requests(&[with_body.clone(), refused("two", "nobody")]).unwrap();
    let rows = store.requests(&all()).unwrap();
    assert_eq!(rows[0].entry, refused("two", "nobody"));
    assert_eq!((&rows[1].entry, rows[1].has_body), (&entry("one"), true));
    assert_eq!(store.request("one").unwrap().unwrap().unwrap().entry, with_body);
}

#[test]
fn entries_are_found_by_what_they_hold_and_in_the_order_of_their_end() {
    let (_folder, path) = place();
    let store = ControlStore::open(&path).unwrap();
    let other_key = RequestEntry { caller: "anyone".to_owned(), caller_name: None, ..entry("b") };
    let late = RequestEntry { at: UnixMillis(NOW.0 + 5000), ..entry("c") };
    store.add_requests(&[entry("a"), other_key, late, refused("d", "nobody")]).unwrap();
    assert_eq!(ids(&store, &all()), ["d", "c", "b", "a"]);
    assert_eq!(ids(&store, &RequestQuery { limit: 2, ..all() }), ["d", "c"]);
    let by = |change: fn(&mut RequestQuery)| {
        let mut query = all();
        change(&mut query);
        ids(&store, &query)
    };
    assert_eq!(by(|query| query.key = Some("key-1".to_owned())), ["d", "c", "a"]);
    assert_eq!(by(|query| query.key = Some("ci".to_owned())), ["d", "c", "a"]);
    assert_eq!(by(|query| query.model = Some("nobody".to_owned())), ["d"]);
    assert_eq!(by(|query| query.instance = Some("chat".to_owned())), ["c", "b", "a"]);
    assert_eq!(by(|query| query.outcome = Some(RequestOutcome::Refused)), ["d"]);
    assert_eq!(by(|query| query.since = Some(UnixMillis(NOW.0 + 1))), ["c"]);
    let seen = store.requests(&all()).unwrap()[2].seq;
    assert_eq!(ids(&store, &RequestQuery { after: Some(seen), ..all() }), ["c", "d"]);
}

#[test]
fn the_beginning_of_an_id_will_do_while_it_is_only_ones() {
    let (_folder, path) = place();
    let store = ControlStore::open(&path).unwrap();
    store.add_requests(&[entry("abc1"), entry("abd2"), entry("ab"), entry("abc1")]).unwrap();
    let found = |id: &str| store.request(id).unwrap().map(|found| found.map(|row| (row.entry.id, row.seq)));
    assert_eq!(found("abc"), Some(Ok(("abc1".to_owned(), 4))), "of several with one id the newest");
    assert_eq!(found("ab"), Some(Ok(("ab".to_owned(), 3))), "a whole id goes before beginnings");
    assert_eq!(found("a"), Some(Err(3)));
    assert_eq!((found("x"), found("%")), (None, None));
}

#[test]
fn usage_is_summed_by_key_model_and_instance_and_made_up_names_are_not_kept() {
    let (_folder, path) = place();
    let store = ControlStore::open(&path).unwrap();
    let later = RequestEntry { at: UnixMillis(NOW.0 + 2 * 3_600_000), ..entry("b") };
    store.add_requests(&[entry("a"), refused("x", "made-up-1"), refused("y", "made-up-2")]).unwrap();
    store.add_requests(&[later]).unwrap();
    let rows = store.usage(&UsageQuery::default()).unwrap();
    assert_eq!(rows.len(), 2, "{rows:?}");
    let used = &rows[0];
    assert_eq!((used.model.as_deref(), used.instance.as_deref()), (Some("gpt"), Some("chat")));
    assert_eq!((used.caller.as_str(), used.caller_name.as_deref()), ("key-1", Some("ci")));
    assert_eq!((used.requests, used.done, used.prompt_tokens, used.completion_tokens), (2, 2, 20, 10));
    assert_eq!((used.cached_tokens, used.total_ms, used.queue_ms), (4, 200.0, 3.0));
    assert_eq!((rows[1].model.as_deref(), rows[1].requests, rows[1].refused), (None, 2, 2));
    let within = |since: i64, until: i64| {
        let bound = |offset: i64| Some(UnixMillis(NOW.0 + offset));
        let query = UsageQuery { since: bound(since), until: bound(until), ..UsageQuery::default() };
        store.usage(&query).unwrap().iter().map(|row| row.requests).sum::<u64>()
    };
    assert_eq!((within(10, 20), within(3_600_000, 3 * 3_600_000), within(0, 9_000_000)), (3, 1, 4));
}

#[test]
fn what_is_too_old_or_too_much_goes_and_the_sums_stay() {
    let (_folder, path) = place();
    let store = ControlStore::open(&path).unwrap();
    let old = RequestEntry { at: UnixMillis(NOW.0 - 31 * DAY_MS), ..entry("old") };
    let ancient = RequestEntry { at: UnixMillis(NOW.0 - 401 * DAY_MS), ..entry("ancient") };
    let bodies = (0..502).map(|_| RequestEntry { body: Some(vec![b'{']), ..entry("new") });
    let entries: Vec<_> = [old, ancient].into_iter().chain(bodies).collect();
    store.add_requests(&entries).unwrap();
    let pruned = store.prune_requests(NOW).unwrap();
    assert_eq!(pruned, PrunedRequests { requests: 2, bodies: 2, hours: 1 });
    let many = RequestQuery { limit: 1000, ..all() };
    let rows = store.requests(&many).unwrap();
    assert_eq!((rows.len(), rows.iter().filter(|row| row.has_body).count()), (502, 500));
    let usage = store.usage(&UsageQuery::default()).unwrap();
    assert_eq!(usage.iter().map(|row| row.requests).sum::<u64>(), 503);
    assert_eq!(store.prune_requests(NOW).unwrap(), PrunedRequests::default());
    store.add_requests(&[entry("next")]).unwrap();
    assert_eq!(store.requests(&all()).unwrap()[0].seq, 505, "numbers do not come again");
}

#[test]
fn a_database_from_before_the_log_has_an_empty_one() {
    let (_folder, path) = place();
    drop(ControlStore::open(&path).unwrap());
    let tamper = "DROP TABLE requests; DROP TABLE usage; DROP TABLE cordoned_nodes; PRAGMA user_version = 1";
    rusqlite::Connection::open(&path).unwrap().execute_batch(tamper).unwrap();
    let reader = ControlReader::open(&path).unwrap().unwrap();
    assert_eq!(reader.requests(&all()).unwrap(), []);
    assert_eq!((reader.request("a").unwrap(), reader.usage(&UsageQuery::default()).unwrap()), (None, vec![]));
    let store = ControlStore::open(&path).unwrap();
    store.add_requests(&[entry("a")]).unwrap();
    assert_eq!(ids(&store, &all()), ["a"]);
}

#[test]
fn sums_of_one_batch_never_overflow() {
    let (_folder, path) = place();
    let store = ControlStore::open(&path).unwrap();
    let huge = |id| RequestEntry { prompt_tokens: Some(u64::MAX), ..entry(id) };
    store.add_requests(&[huge("a"), huge("b")]).unwrap();
    let usage = store.usage(&UsageQuery::default()).unwrap();
    assert_eq!((usage[0].requests, usage[0].prompt_tokens), (2, i64::MAX as u64));
}
