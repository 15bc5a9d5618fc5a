//! Each intent leaves the row that its readers expect.

use std::path::Path;

use orch_core::{DesiredState, EventLevel, EventType, ExitCode, Health, ReplicaId, Status};
use serde_json::json;
use state_store::{
    EVENT_RETENTION, EventQuery, HEALTH_ROWS_KEPT, NewEvent, RuntimeRow, StateStore, StoreError,
};

use crate::{FIRST, NOW, know, later, name, spawn, store_with_chat, temp_home};

fn chat(store: &StateStore) -> RuntimeRow {
    store.runtime(&name("chat"), FIRST).unwrap().unwrap()
}

fn event(message: &str) -> NewEvent<'static> {
    NewEvent {
        instance: None,
        level: EventLevel::Info,
        event_type: EventType::Reconciled,
        message: message.to_owned(),
        meta: None,
    }
}

#[test]
fn an_instance_keeps_its_desired_state_when_it_is_made_known_again() {
    let (_folder, home) = temp_home();
    let store = store_with_chat(&home);
    assert_eq!(store.desired(&name("chat")).unwrap(), Some(DesiredState::Stopped));
    store.set_desired(&name("chat"), DesiredState::Running, later(1)).unwrap();
    store
        .ensure_instance(&name("chat"), "new-uid", Path::new("/moved"), DesiredState::Stopped, later(2))
        .unwrap();
    let row = store.instance(&name("chat")).unwrap().unwrap();
    assert_eq!(row.desired_state, DesiredState::Running);
    assert_eq!((row.uid.as_str(), row.config_path.as_path()), ("new-uid", Path::new("/moved")));
    assert_eq!((row.created_at, row.updated_at), (NOW, later(2)));
}

#[test]
fn making_known_what_is_known_does_not_touch_the_row() {
    let (_folder, home) = temp_home();
    let store = store_with_chat(&home);
    let path = Path::new("/home/instances/chat/config.json");
    store.ensure_instance(&name("chat"), "uid", path, DesiredState::Running, later(9)).unwrap();
    assert_eq!(store.instance(&name("chat")).unwrap().unwrap().updated_at, NOW);
}

#[test]
fn nothing_can_be_recorded_about_an_unknown_instance() {
    let (_folder, home) = temp_home();
    let store = store_with_chat(&home);
    let stranger = name("stranger");
    let outcomes = [
        store.set_desired(&stranger, DesiredState::Running, NOW),
        store.record_ready(&stranger, FIRST, NOW),
        store.record_health_check(&stranger, FIRST, Health::Healthy, None, None, NOW),
    ];
    for outcome in outcomes {
        let error = outcome.unwrap_err();
        assert!(matches!(&error, StoreError::UnknownInstance { name } if *name == stranger));
        assert_eq!(error.exit_code(), ExitCode::InstanceNotFound);
    }
    assert!(store.runtimes().unwrap().is_empty());
    assert!(store.health_history(&stranger, 10).unwrap().is_empty());
}

#[test]
fn a_spawned_process_is_starting_and_loading_until_it_is_ready() {
    let (_folder, home) = temp_home();
    let store = store_with_chat(&home);
    spawn(&store, true, NOW);
    let row = chat(&store);
    assert_eq!((row.status, row.health), (Status::Starting, Health::Loading));
    assert_eq!((row.pid, row.port), (Some(4711), Some(8001)));
    assert_eq!(row.process_started_at.as_deref(), Some("boot:99"));
    assert_eq!((row.started_at, row.last_health_ok_at), (Some(NOW), None));
    store.record_ready(&name("chat"), FIRST, later(300)).unwrap();
    let row = chat(&store);
    assert_eq!((row.status, row.health), (Status::Running, Health::Healthy));
    assert_eq!(row.last_health_ok_at, Some(later(300)));
}

#[test]
fn a_secret_on_the_command_line_is_masked_in_the_row() {
    let (_folder, home) = temp_home();
    let store = store_with_chat(&home);
    spawn(&store, true, NOW);
    let cmdline = chat(&store).cmdline.unwrap();
    assert_eq!(cmdline, "llama-server --port 8001 --api-key ********");
}

#[test]
fn a_crash_and_its_restart_are_counted_until_the_next_up() {
    let (_folder, home) = temp_home();
    let store = store_with_chat(&home);
    let chat_name = name("chat");
    spawn(&store, true, NOW);
    store.record_exit(&chat_name, FIRST, Some(137), Status::Starting, Some("killed"), later(10)).unwrap();
    store.record_restart_scheduled(&chat_name, FIRST, 1, later(1010), None).unwrap();
    let waiting = chat(&store);
    assert_eq!((waiting.status, waiting.pid), (Status::Starting, None));
    assert_eq!((waiting.restart_attempts, waiting.next_restart_at), (1, Some(later(1010))));
    assert_eq!((waiting.last_exit_code, waiting.last_error.as_deref()), (Some(137), Some("killed")));

    spawn(&store, false, later(1010));
    store.record_restarted(&chat_name, FIRST, later(1010)).unwrap();
    let restarted = chat(&store);
    assert_eq!((restarted.restarts, restarted.restart_attempts), (1, 1));
    assert_eq!((restarted.last_restart_at, restarted.next_restart_at), (Some(later(1010)), None));
    assert_eq!(restarted.last_exit_code, Some(137), "why it was restarted stays visible");

    store.reset_restart_attempts(&chat_name, FIRST).unwrap();
    assert_eq!((chat(&store).restarts, chat(&store).restart_attempts), (1, 0));

    spawn(&store, true, later(2000));
    let up_again = chat(&store);
    assert_eq!((up_again.restarts, up_again.restart_attempts, up_again.last_exit_code), (0, 0, None));
    assert_eq!((up_again.last_restart_at, up_again.last_error), (None, None));
}

#[test]
fn a_stop_leaves_no_process_and_no_pending_restart() {
    let (_folder, home) = temp_home();
    let store = store_with_chat(&home);
    spawn(&store, true, NOW);
    store.record_restart_scheduled(&name("chat"), FIRST, 2, later(5), None).unwrap();
    store.record_stopped(&name("chat"), FIRST, later(6)).unwrap();
    let row = chat(&store);
    assert_eq!((row.status, row.health, row.pid), (Status::Stopped, Health::Unknown, None));
    assert_eq!((row.restart_attempts, row.next_restart_at, row.process_started_at), (0, None, None));
}

#[test]
fn a_foreign_process_is_forgotten_without_losing_the_rest() {
    let (_folder, home) = temp_home();
    let store = store_with_chat(&home);
    spawn(&store, true, NOW);
    store.clear_process(&name("chat"), FIRST).unwrap();
    let row = chat(&store);
    assert_eq!((row.pid, row.process_started_at), (None, None));
    assert_eq!((row.port, row.status), (Some(8001), Status::Starting));
}

#[test]
fn replicas_are_listed_by_number_not_by_text() {
    let (_folder, home) = temp_home();
    let store = store_with_chat(&home);
    know(&store, "a");
    for replica in [10, 2, 0] {
        store.record_ready(&name("chat"), ReplicaId(replica), NOW).unwrap();
    }
    store.record_ready(&name("a"), ReplicaId(1), NOW).unwrap();
    let listed: Vec<_> =
        store.runtimes().unwrap().iter().map(|row| row.replica.display_name(&row.name)).collect();
    assert_eq!(listed, ["a/1", "chat", "chat/2", "chat/10"]);
}

#[test]
fn a_scheduled_restart_keeps_the_last_error_unless_there_is_a_newer_one() {
    let (_folder, home) = temp_home();
    let store = store_with_chat(&home);
    let chat_name = name("chat");
    store.record_exit(&chat_name, FIRST, Some(1), Status::Starting, Some("exited with code 1"), NOW).unwrap();
    store.record_restart_scheduled(&chat_name, FIRST, 1, later(5), None).unwrap();
    assert_eq!(chat(&store).last_error.as_deref(), Some("exited with code 1"));
    store.record_restart_scheduled(&chat_name, FIRST, 2, later(9), Some("port 8001 is taken")).unwrap();
    let row = chat(&store);
    assert_eq!(
        (row.status, row.restart_attempts, row.next_restart_at),
        (Status::Starting, 2, Some(later(9)))
    );
    assert_eq!(row.last_error.as_deref(), Some("port 8001 is taken"));
}

#[test]
fn giving_up_is_a_row_and_an_event_at_once() {
    let (_folder, home) = temp_home();
    let store = store_with_chat(&home);
    let chat_name = name("chat");
    store.record_restart_scheduled(&chat_name, FIRST, 5, later(5), None).unwrap();
    store.record_gave_up(&chat_name, FIRST, "exited with code 1", "no further restart", later(6)).unwrap();
    let row = chat(&store);
    assert_eq!((row.status, row.next_restart_at), (Status::Crashed, None));
    assert_eq!(row.restart_attempts, 5, "until the next `up`");
    let events = store.events(&EventQuery::default()).unwrap();
    assert_eq!((events.len(), events[0].event_type.as_str()), (1, "gave_up"));
}

#[test]
fn a_health_check_is_remembered_and_becomes_the_replicas_health() {
    let (_folder, home) = temp_home();
    let store = store_with_chat(&home);
    let chat_name = name("chat");
    store.record_ready(&chat_name, FIRST, NOW).unwrap();
    store.record_health_check(&chat_name, FIRST, Health::Healthy, Some(3), None, later(1)).unwrap();
    store.record_health_check(&chat_name, FIRST, Health::Unhealthy, None, Some("refused"), later(2)).unwrap();
    let row = chat(&store);
    assert_eq!((row.status, row.health), (Status::Running, Health::Unhealthy));
    assert_eq!((row.last_health_ok_at, row.last_seen_at), (Some(later(1)), Some(later(2))));
    let history = store.health_history(&chat_name, 10).unwrap();
    assert_eq!(history[0].error_message.as_deref(), Some("refused"));
    assert_eq!((history[1].response_time_ms, history[1].checked_at), (Some(3), later(1)));
    assert_eq!(store.health_history(&chat_name, 1).unwrap().len(), 1);
}

#[test]
fn removing_an_instance_takes_its_rows_and_leaves_its_events_without_a_name() {
    let (_folder, home) = temp_home();
    let store = store_with_chat(&home);
    let chat_name = name("chat");
    store.record_health_check(&chat_name, FIRST, Health::Healthy, None, None, NOW).unwrap();
    store.append_event(&NewEvent { instance: Some(&chat_name), ..event("seen") }, NOW).unwrap();
    assert!(store.remove_instance(&chat_name).unwrap());
    assert!(!store.remove_instance(&chat_name).unwrap());
    assert!(store.runtimes().unwrap().is_empty());
    know(&store, "chat");
    assert!(store.health_history(&chat_name, 9).unwrap().is_empty());
    let events = store.events(&EventQuery::default()).unwrap();
    assert_eq!((events[0].message.as_str(), events[0].instance.as_deref()), ("seen", None));
}

#[test]
fn an_event_about_an_unknown_instance_is_kept_without_the_name() {
    let (_folder, home) = temp_home();
    let store = store_with_chat(&home);
    store.append_event(&NewEvent { instance: Some(&name("gone")), ..event("late") }, NOW).unwrap();
    assert_eq!(store.events(&EventQuery::default()).unwrap()[0].instance, None);
}

#[test]
fn events_are_chosen_by_instance_level_type_time_and_position() {
    let (_folder, home) = temp_home();
    let store = store_with_chat(&home);
    let chat_name = name("chat");
    let meta = Some(json!({"exit_code": 137}));
    let crash = NewEvent {
        instance: Some(&chat_name),
        level: EventLevel::Error,
        event_type: EventType::Crashed,
        meta: meta.clone(),
        ..event("crash")
    };
    let warning = NewEvent { level: EventLevel::Warning, ..event("warning") };
    store.append_event(&event("first"), NOW).unwrap();
    let crash_id = store.append_event(&crash, later(1)).unwrap();
    store.append_event(&warning, later(2)).unwrap();

    let messages = |query: EventQuery| -> Vec<String> {
        store.events(&query).unwrap().into_iter().map(|row| row.message).collect()
    };
    let all = EventQuery::default;
    assert_eq!(messages(all()), ["warning", "crash", "first"]);
    assert_eq!(messages(EventQuery { newest_first: false, ..all() }), ["first", "crash", "warning"]);
    assert_eq!(messages(EventQuery { instance: Some(chat_name.clone()), ..all() }), ["crash"]);
    assert_eq!(
        messages(EventQuery { minimum_level: Some(EventLevel::Warning), ..all() }),
        ["warning", "crash"]
    );
    assert_eq!(messages(EventQuery { minimum_level: Some(EventLevel::Error), ..all() }), ["crash"]);
    assert_eq!(messages(EventQuery { event_type: Some(EventType::Crashed), ..all() }), ["crash"]);
    assert_eq!(messages(EventQuery { since: Some(later(2)), ..all() }), ["warning"]);
    assert_eq!(messages(EventQuery { after_id: Some(crash_id), ..all() }), ["warning"]);
    assert_eq!(messages(EventQuery { limit: 1, ..all() }), ["warning"]);
    let read = store.events(&EventQuery { event_type: Some(EventType::Crashed), ..all() }).unwrap();
    assert_eq!(read[0].meta, meta);
}

#[test]
fn pruning_forgets_old_events_and_all_but_the_last_health_checks() {
    let (_folder, home) = temp_home();
    let store = store_with_chat(&home);
    know(&store, "other");
    let extra = 5;
    for check in 0..HEALTH_ROWS_KEPT + extra {
        let at = later(i64::try_from(check).unwrap());
        store.record_health_check(&name("chat"), FIRST, Health::Healthy, None, None, at).unwrap();
    }
    store.record_health_check(&name("other"), FIRST, Health::Healthy, None, None, NOW).unwrap();
    let week = i64::try_from(EVENT_RETENTION.as_millis()).unwrap();
    store.append_event(&event("old"), NOW).unwrap();
    store.append_event(&event("young"), later(1)).unwrap();

    let pruned = store.prune(later(week + 1)).unwrap();
    assert_eq!((pruned.events, pruned.health_checks), (1, extra));
    let history = store.health_history(&name("chat"), usize::MAX).unwrap();
    assert_eq!(history.len(), HEALTH_ROWS_KEPT);
    assert_eq!(history.last().unwrap().checked_at, later(i64::try_from(extra).unwrap()));
    assert_eq!(store.health_history(&name("other"), 9).unwrap().len(), 1);
    assert_eq!(store.events(&EventQuery::default()).unwrap()[0].message, "young");
}
