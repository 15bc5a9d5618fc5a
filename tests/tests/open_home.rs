//! A home without keys serves everybody on the machine, and no web page.

#![cfg(target_os = "linux")]

mod support;

use std::os::unix::fs::PermissionsExt;

use serde_json::json;
use support::SOON;
use support::home::{Daemon, Home};
use support::raw_http::send;
use testkit::wait_for;

const EVIL: &str = "https://evil.example";
const JSON: (&str, &str) = ("Content-Type", "application/json");

/// Every path that something answers, and some that nothing does.
const PATHS: &[(&str, &str)] = &[
    ("GET", "/"),
    ("GET", "/health"),
    ("GET", "/ready"),
    ("GET", "/metrics"),
    ("GET", "/v1/models"),
    ("GET", "/v1/models/a"),
    ("POST", "/v1/chat/completions"),
    ("OPTIONS", "/v1/chat/completions"),
    ("POST", "/v1/completions"),
    ("POST", "/v1/messages"),
    ("POST", "/v1/embeddings"),
    ("POST", "/tokenize"),
    ("GET", "/props"),
    ("GET", "/api/tags"),
    ("POST", "/api/chat"),
    ("GET", "/upstream/a/props"),
    ("GET", "/v2/instances"),
    ("GET", "/v2/instances/a"),
    ("POST", "/v2/instances/a/stop"),
    ("OPTIONS", "/v2/instances/a/stop"),
    ("DELETE", "/v2/instances/a"),
    ("GET", "/v2/events"),
    ("GET", "/v2/daemon"),
    ("GET", "/nowhere"),
];

fn home_with_one_engine() -> (Home, Daemon, u16) {
    let home = Home::real();
    let port = home.instance("a", &json!({}));
    let daemon = home.start_daemon();
    home.ok(&["up", "a"]);
    (home, daemon, port)
}

#[test]
fn a_web_page_is_refused_on_every_path_even_with_the_token() {
    let (home, daemon, _) = home_with_one_engine();
    let bearer = format!("Bearer {}", daemon.token);
    let body = json!({"model": "a", "messages": [], "prompt": "x"}).to_string();
    for (method, path) in PATHS {
        for (what, host, origin) in [
            ("a foreign origin", daemon.address.as_str(), Some(EVIL)),
            ("an origin that is no address", &daemon.address, Some("null")),
            ("a foreign host", "evil.example", None),
            ("a foreign host with our port", "evil.example:8080", None),
            ("a host that begins like ours", "localhost.evil.example", None),
        ] {
            for authorization in [None, Some(bearer.as_str())] {
                let mut headers = vec![("Host", host), JSON];
                headers.extend(origin.map(|origin| ("Origin", origin)));
                headers.extend(authorization.map(|bearer| ("Authorization", bearer)));
                let answer = send(&daemon.address, method, path, &headers, &body);
                assert_eq!(answer.status, 403, "{method} {path} from {what}");
                let allowed = answer.header("access-control-allow-origin");
                assert_eq!(allowed, None, "{method} {path} from {what}");
            }
        }
    }
    assert_eq!(home.ps("a")["status"], "running");
}

#[test]
fn programs_on_the_machine_are_let_in_by_any_name_of_it() {
    let (_home, daemon, _) = home_with_one_engine();
    let port = daemon.address.rsplit(':').next().unwrap();
    for host in
        [daemon.address.clone(), format!("localhost:{port}"), format!("[::1]:{port}"), "localhost".to_owned()]
    {
        let answer = send(&daemon.address, "GET", "/v1/models", &[("Host", &host)], "");
        assert_eq!(answer.status, 200, "{host}");
    }
    let own_page = format!("http://{}", daemon.address);
    let headers = [("Host", daemon.address.as_str()), ("Origin", own_page.as_str())];
    assert_eq!(send(&daemon.address, "GET", "/v1/models", &headers, "").status, 200);
}

#[test]
fn changes_need_the_token_that_only_the_user_can_read() {
    let (home, daemon, _) = home_with_one_engine();
    let host = ("Host", daemon.address.as_str());
    let pid = home.engine_pid("a");
    for (method, path) in [
        ("POST", "/v2/instances/a/stop"),
        ("POST", "/v2/instances/a/start"),
        ("POST", "/v2/instances/a/restart"),
        ("DELETE", "/v2/instances/a?force=true"),
        ("POST", "/v2/instances"),
        ("PATCH", "/v2/instances/a"),
        ("POST", "/v2/nowhere"),
        ("GET", "/upstream/a/props"),
    ] {
        for wrong in [None, Some("Bearer "), Some("Bearer wrong"), Some("Basic YTpi")] {
            let mut headers = vec![host, JSON];
            headers.extend(wrong.map(|wrong| ("Authorization", wrong)));
            let status = send(&daemon.address, method, path, &headers, "{}").status;
            assert!(matches!(status, 401 | 403), "{method} {path} with {wrong:?}: {status}");
        }
    }
    assert_eq!((home.engine_pid("a"), &home.ps("a")["status"]), (pid, &json!("running")));

    let bearer = format!("Bearer {}", daemon.token);
    let headers = [host, JSON, ("Authorization", bearer.as_str())];
    assert_eq!(send(&daemon.address, "POST", "/v2/instances/a/stop", &headers, "{}").status, 202);
    // A form that a page could send is refused whatever it knows.
    let form = [host, ("Content-Type", "text/plain"), ("Authorization", bearer.as_str())];
    assert_eq!(send(&daemon.address, "POST", "/v2/instances/a/start", &form, "{}").status, 400);
}

#[test]
fn secrets_and_prompts_lie_where_only_their_owner_looks() {
    let (home, _daemon, _) = home_with_one_engine();
    wait_for("the handoff file", SOON, || home.path().join("run/engines/a-r0.json").exists());
    let mode = |path: &str| std::fs::metadata(home.path().join(path)).unwrap().permissions().mode() & 0o777;
    for folder in ["", "state", "run", "logs"] {
        assert_eq!(mode(folder), 0o700, "{folder:?}");
    }
    for file in ["run/daemon.json", "run/engines/a-r0.json", "logs/a/stderr.log"] {
        assert_eq!(mode(file), 0o600, "{file}");
    }
}

#[test]
fn the_engine_itself_lets_no_web_page_in() {
    let (home, _daemon, port) = home_with_one_engine();
    let address = format!("127.0.0.1:{port}");
    let headers = [("Host", address.as_str()), ("Origin", EVIL), JSON];
    let chat = json!({"messages": [{"role": "user", "content": "x"}], "max_tokens": 1}).to_string();
    for (method, path, body) in [
        ("GET", "/health", ""),
        ("GET", "/props", ""),
        ("GET", "/slots", ""),
        ("GET", "/v1/models", ""),
        ("OPTIONS", "/v1/chat/completions", ""),
        ("POST", "/v1/chat/completions", chat.as_str()),
    ] {
        let answer = send(&address, method, path, &headers, body);
        assert_eq!(answer.header("access-control-allow-origin"), None, "{method} {path}");
    }
    // A page of the user's own machine may still use it.
    let own = [("Host", address.as_str()), ("Origin", "http://localhost:3000")];
    let answer = send(&address, "GET", "/v1/models", &own, "");
    assert_eq!(answer.header("access-control-allow-origin"), Some("http://localhost:3000"));
    assert_eq!(home.ps("a")["status"], "running");
}
