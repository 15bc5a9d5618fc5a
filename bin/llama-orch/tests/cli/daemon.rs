//! `daemon`, and the other commands when there is one.

use std::net::TcpListener;

use serde_json::json;
use testkit::{TempHome, free_port, http, wait_for};

use crate::scene::{Attached, add_instance, home_with_engine, is_alive, only_error, row};

/// The daemon on a free port.
fn start(home: &TempHome) -> String {
    let address = format!("127.0.0.1:{}", free_port());
    home.llama_orch(&["daemon", "start", "--addr", &address]).expect_exit(0);
    address
}

#[test]
fn a_daemon_starts_answers_and_stops() {
    let home = TempHome::new();
    home.llama_orch(&["daemon", "stop"]).expect_exit(60);
    home.llama_orch(&["daemon", "status"]).expect_exit(60);
    let off = home.llama_orch(&["daemon", "status", "--json"]).expect_exit(60).json();
    assert_eq!(off["running"], false);

    let address = start(&home);
    assert_eq!(http::get(&address, "/health").unwrap().status, 200);
    let status = home.llama_orch(&["daemon", "status", "--json"]).expect_exit(0).json();
    assert_eq!((&status["running"], &status["address"]), (&json!(true), &json!(address)));
    for field in ["pid", "uptime_seconds", "rss_bytes", "instances_running", "version"] {
        assert!(!status[field].is_null(), "{field} is missing");
    }
    home.llama_orch(&["daemon", "start"]).expect_exit(61);

    home.llama_orch(&["daemon", "stop"]).expect_exit(0);
    assert!(!is_alive(&status["pid"]));
    assert!(!home.layout().daemon_file().exists());
    assert!(http::get(&address, "/health").is_err());
}

#[test]
fn engines_outlive_the_daemon_and_are_found_again() {
    let home = home_with_engine();
    add_instance(&home, "chat", &[]);
    let address = start(&home);
    home.llama_orch(&["up", "chat"]).expect_exit(0);
    let running = row(&home, "chat");
    assert_eq!(running["slots"], json!({"idle": 1, "busy": 0}), "the daemon knows the slots");
    let question = json!({"model": "chat", "messages": [{"role": "user", "content": "hi"}]});
    assert_eq!(http::post_json(&address, "/v1/chat/completions", &question).unwrap().status, 200);

    home.llama_orch(&["daemon", "restart", "--addr", &address]).expect_exit(0);
    assert_eq!(row(&home, "chat")["pid"], running["pid"]);
    assert_eq!(http::post_json(&address, "/v1/chat/completions", &question).unwrap().status, 200);
    home.llama_orch(&["daemon", "stop"]).expect_exit(0);
    assert!(is_alive(&running["pid"]));
    home.llama_orch(&["down", "chat"]).expect_exit(0);
    assert!(!is_alive(&running["pid"]));
}

#[test]
fn a_restart_that_could_not_succeed_leaves_the_daemon_in_its_place() {
    let home = TempHome::new();
    let address = start(&home);
    let settings = home.layout().settings();
    let tls = "[orchestratord]\ntls_cert = \"nowhere.pem\"\ntls_key = \"nowhere.pem\"\n";
    for (text, exit) in [("[orchestratord\n", 12), ("addres = 1\n", 11), (tls, 11)] {
        std::fs::write(&settings, text).unwrap();
        home.llama_orch(&["daemon", "restart"]).expect_exit(exit);
        assert_eq!(http::get(&address, "/health").unwrap().status, 200, "{text}");
    }
    std::fs::remove_file(&settings).unwrap();
    home.llama_orch(&["daemon", "restart"]).expect_exit(0);
}

#[test]
fn steps_through_the_daemon_have_the_same_codes() {
    let home = home_with_engine();
    add_instance(&home, "chat", &[]);
    add_instance(&home, "slow", &[("FAKE_NEVER_READY", "1")]);
    start(&home);
    home.llama_orch(&["up", "nobody"]).expect_exit(13);
    home.llama_orch(&["down", "chat"]).expect_exit(20);
    home.llama_orch(&["up", "chat"]).expect_exit(0);
    home.llama_orch(&["up", "chat"]).expect_exit(21);
    home.llama_orch(&["rm", "chat"]).expect_exit(21);
    home.llama_orch(&["up", "slow", "--timeout", "0.3"]).expect_exit(23);
    home.llama_orch(&["describe", "chat"]).expect_exit(0);
    home.llama_orch(&["health", "chat"]).expect_exit(0);
    let before = row(&home, "chat");
    home.llama_orch(&["restart", "chat"]).expect_exit(0);
    assert_ne!(row(&home, "chat")["pid"], before["pid"]);
    home.llama_orch(&["down", "--all"]).expect_exit(0);
    home.llama_orch(&["rm", "chat", "slow"]).expect_exit(0);
    assert_eq!(home.llama_orch(&["ps", "--json"]).json(), json!([]));
}

#[test]
fn an_address_that_somebody_holds_is_told_before_anything_starts() {
    let home = TempHome::new();
    let holder = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let address = holder.local_addr().unwrap().to_string();
    let run = home.llama_orch(&["daemon", "start", "--addr", &address]);
    let error = only_error(run.expect_exit(40));
    assert!(error.contains(&format!("pid {}", std::process::id())), "{error}");
    assert!(run.stderr.contains("ORCHESTRATORD_ADDR"), "{run}");
}

#[test]
fn a_daemon_that_has_lost_its_file_is_told_and_can_be_ended() {
    let home = TempHome::new();
    start(&home);
    let pid = home.llama_orch(&["daemon", "status", "--json"]).expect_exit(0).json()["pid"].clone();
    std::fs::remove_file(home.layout().daemon_file()).unwrap();
    let run = home.llama_orch(&["daemon", "status"]);
    assert!(only_error(run.expect_exit(64)).contains(&format!("pid {pid}")), "{run}");
    assert!(run.stderr.contains("llama-orch daemon restart"), "{run}");
    home.llama_orch(&["daemon", "status", "--json"]).expect_exit(64);
    // A daemon that has only just begun would be given the time to write its file.
    let lock = home.layout().daemon_lock();
    let mut holder: serde_json::Value = serde_json::from_slice(&std::fs::read(&lock).unwrap()).unwrap();
    holder["started_at"] = json!("2020-01-01T00:00:00Z");
    std::fs::write(&lock, holder.to_string()).unwrap();
    let run = home.llama_orch(&["daemon", "start"]);
    assert!(only_error(run.expect_exit(61)).contains(&format!("pid {pid}")), "{run}");
    home.llama_orch(&["daemon", "stop"]).expect_exit(0);
    assert!(!is_alive(&pid));
    home.llama_orch(&["daemon", "stop"]).expect_exit(60);
}

#[test]
fn of_daemons_that_are_started_at_once_on_one_address_all_but_one_are_told_that_it_runs() {
    let home = TempHome::new();
    let address = format!("127.0.0.1:{}", free_port());
    let mut codes: Vec<_> = std::thread::scope(|scope| {
        let starts: Vec<_> = (0..10)
            .map(|_| scope.spawn(|| home.llama_orch(&["daemon", "start", "--addr", &address]).exit_code))
            .collect();
        starts.into_iter().map(|start| start.join().unwrap()).collect()
    });
    codes.sort_unstable();
    assert_eq!(codes[0], Some(0), "{codes:?}");
    assert!(codes[1..].iter().all(|code| *code == Some(61)), "{codes:?}");
    home.llama_orch(&["daemon", "stop"]).expect_exit(0);
}

#[cfg(unix)]
#[test]
fn a_daemon_that_hangs_is_ended_all_the_same() {
    let home = TempHome::new();
    start(&home);
    let pid = home.llama_orch(&["daemon", "status", "--json"]).expect_exit(0).json()["pid"].clone();
    let mut freeze = std::process::Command::new("kill");
    freeze.args(["-STOP", &pid.to_string()]);
    testkit::run(freeze).expect_exit(0);
    let begun = std::time::Instant::now();
    home.llama_orch(&["daemon", "stop"]).expect_exit(0);
    assert!(begun.elapsed() < std::time::Duration::from_secs(6), "{:?}", begun.elapsed());
    assert!(!is_alive(&pid));
}

#[test]
fn settings_that_cannot_be_used_name_their_key() {
    let home = TempHome::new();
    std::fs::write(home.layout().settings(), "[orchestratord]\ncolour = \"red\"\n").unwrap();
    let run = home.llama_orch(&["daemon", "start"]);
    assert!(only_error(run.expect_exit(11)).contains("colour"), "{run}");
    home.llama_orch(&["ps"]).expect_exit(0);
}

#[test]
fn in_the_foreground_it_stays_until_it_is_asked_to_go() {
    let home = TempHome::new();
    let address = format!("127.0.0.1:{}", free_port());
    let daemon = Attached::start(&home, &["daemon", "start", "--foreground", "--addr", &address]);
    wait_for("the daemon to answer", std::time::Duration::from_secs(30), || {
        http::get(&address, "/health").is_ok_and(|reply| reply.status == 200)
    });
    assert_eq!(daemon.interrupt(), Some(0));
}

#[test]
fn a_daemon_elsewhere_is_asked_by_its_address() {
    let home = home_with_engine();
    add_instance(&home, "chat", &[]);
    let address = start(&home);
    let url = format!("http://{address}");
    let nowhere = home.scratch().join("nowhere").display().to_string();
    let elsewhere =
        |words: &[&str]| home.llama_orch(&[&["--home", &nowhere, "--server", &url], words].concat());
    let rows = elsewhere(&["ps", "--json"]).expect_exit(0).json();
    assert_eq!(rows[0]["name"], "chat");
    elsewhere(&["describe", "chat"]).expect_exit(0);
    elsewhere(&["up", "chat"]).expect_exit(81);
    elsewhere(&["up", "--tag", "x"]).expect_exit(2);
    assert!(!std::path::Path::new(&nowhere).exists());
    home.llama_orch(&["--server", "http://127.0.0.1:9", "ps"]).expect_exit(64);
}
