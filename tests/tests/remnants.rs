//! An engine whose config broke, went away or was renamed by hand stays within reach of its name.

#![cfg(target_os = "linux")]
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use serde_json::json;
use support::SOON;
use support::database::sql;
use support::home::{Home, pid_of};
use support::processes::{engines_in, is_alive};
use testkit::wait_for;

#[derive(Clone, Copy, Debug)]
enum Harm {
    Broken,
    Removed,
    Renamed,
}

fn harm(home: &Home, how: Harm) {
    let folder = home.path().join("instances/a");
    match how {
        Harm::Broken => home.write_config("a", "{\"name\": \"a\", oops"),
        Harm::Removed => std::fs::remove_dir_all(folder).unwrap(),
        Harm::Renamed => {
            let text = std::fs::read_to_string(folder.join("config.json")).unwrap();
            std::fs::remove_dir_all(&folder).unwrap();
            home.write_config("b", &text.replace("\"a\"", "\"b\""));
        }
    }
}

const HARMS: [Harm; 3] = [Harm::Broken, Harm::Removed, Harm::Renamed];

#[test]
fn an_engine_without_a_usable_config_is_shown_described_read_and_stopped_by_its_name() {
    for with_daemon in [false, true] {
        for how in HARMS {
            let home = Home::fake();
            home.instance("a", &json!({}));
            if with_daemon {
                home.start_daemon();
            }
            home.ok(&["up", "a"]);
            home.shim_pid("a");
            let pid = home.engine_pid("a");
            harm(&home, how);

            let row = home.ps("a");
            assert_eq!((pid_of(&row["pid"]), &row["status"]), (pid, &json!("running")), "{how:?}: {row}");
            assert!(row["last_error"].is_string(), "{how:?}: {row}");
            let about = home.describe("a");
            assert_eq!((&about["process"]["ours"], &about["process"]["pid"]), (&json!(true), &json!(pid)));
            assert!(home.ok(&["describe", "a"]).stdout.contains("findings"), "{how:?}");
            let log = home.ok(&["logs", "a"]).stdout;
            assert!(log.contains("model loaded"), "{how:?}: {log}");
            home.run(&["rm", "a"]).expect_exit(21);

            home.ok(&["down", "a"]);
            assert_eq!((is_alive(pid), engines_in(home.path()).len()), (false, 0), "{how:?}");
            home.ok(&["rm", "a"]);
            assert_eq!(sql(home.path(), "SELECT count(*) FROM instances WHERE name = 'a'"), "0");
            assert!(!home.path().join("logs/a").exists());
            assert!(!home.path().join("instances/a").exists(), "{how:?}");
            home.run(&["describe", "a"]).expect_exit(13);
        }
    }
}

#[test]
fn what_is_left_can_be_removed_while_it_runs_when_that_is_forced() {
    for with_daemon in [false, true] {
        let home = Home::fake();
        home.instance("a", &json!({}));
        if with_daemon {
            home.start_daemon();
        }
        home.ok(&["up", "a"]);
        let pid = home.engine_pid("a");
        harm(&home, Harm::Removed);
        home.ok(&["rm", "a", "--force"]);
        assert!(!is_alive(pid));
        let rows = home.json(&["ps", "--all", "--json"]);
        assert_eq!(rows, json!([]));
    }
}

#[test]
fn an_engine_without_a_usable_config_is_listed_while_it_runs_and_stopped_with_all_others() {
    for with_daemon in [false, true] {
        for how in [Harm::Broken, Harm::Removed] {
            let home = Home::fake();
            home.instance("a", &json!({}));
            if with_daemon {
                home.start_daemon();
            }
            home.ok(&["up", "a"]);
            let pid = home.engine_pid("a");
            harm(&home, how);
            let rows = home.json(&["ps", "--json"]);
            assert_eq!(
                (pid_of(&rows[0]["pid"]), &rows[0]["status"]),
                (pid, &json!("running")),
                "{how:?}: {rows}"
            );
            home.ok(&["down", "--all"]);
            assert!(!is_alive(pid), "{how:?}");
            assert_eq!(home.json(&["ps", "--json"]), json!([]), "{how:?}");
            home.ok(&["down", "--all"]);
        }
    }
}

#[test]
fn an_engine_that_loses_its_config_under_a_living_daemon_is_told_once_and_serves_on() {
    let home = Home::fake();
    home.instance("a", &json!({}));
    home.start_daemon();
    home.ok(&["up", "a"]);
    let pid = home.engine_pid("a");
    harm(&home, Harm::Renamed);
    let told = || home.event_types("a").iter().filter(|it| *it == "orphan_found").count();
    wait_for("the orphan to be told", SOON, || told() > 0);
    // The new name is an instance of its own, and finds its port taken by what is left of the old one.
    let up = home.run(&["up", "b"]);
    up.expect_exit(40);
    assert!(up.stderr.contains(&pid.to_string()), "{up}");
    assert_eq!((told(), is_alive(pid)), (1, true));
    home.ok(&["down", "a"]);
    home.ok(&["up", "b"]);
}
