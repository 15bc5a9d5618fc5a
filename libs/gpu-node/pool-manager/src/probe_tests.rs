//! The probe matrix: what each kind of probe makes of each way in which a server behaves.

use std::fmt::Write as _;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::*;

/// Tests share two busy cores: only what is meant to run into the limit may do so.
const AMPLE: Duration = Duration::from_secs(30);
const SHORT: Duration = Duration::from_millis(300);

/// How a server behaves.
#[derive(Clone, Copy, Debug)]
enum Server {
    /// Answers every path like this.
    Says(u16, &'static str),
    /// Answers 404 on every path but `/v1/health`.
    OnlySecondPath(u16),
    AnswersAfter(Duration),
    /// Nobody listens.
    Refuses,
    /// Takes the connection and says nothing.
    Hangs,
    /// Sends the head of a good answer, and never the body.
    HangsInBody,
    ClosesEarly,
    BreaksOffInBody,
    Garbage,
    EndlessBody,
    EndlessHead,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Outcome {
    Healthy,
    Loading,
    Failed(&'static str),
}

use Outcome::{Failed, Healthy, Loading};
use Server::{
    AnswersAfter, BreaksOffInBody, ClosesEarly, EndlessBody, EndlessHead, Garbage, Hangs, HangsInBody,
    OnlySecondPath, Refuses, Says,
};

fn check(kind: HealthCheckType) -> HealthCheck {
    HealthCheck {
        kind,
        path: "/health".to_owned(),
        expected_status: vec![200],
        expected_body: None,
        custom_script: None,
        interval: Duration::from_secs(10),
        timeout: AMPLE,
        retries: 3,
        retry_delay: Duration::from_secs(1),
        start_period: Duration::ZERO,
        load_stall: Duration::from_secs(300),
        backoff_enabled: true,
        backoff_base: Duration::from_secs(1),
        backoff_max: Duration::from_secs(60),
        backoff_jitter: 0.1,
        warmup_enabled: false,
        warmup_prompt: "Hello".to_owned(),
    }
}

fn prober(host: &str, port: u16, check: HealthCheck) -> Prober {
    Prober { host: host.to_owned(), port, api_key: None, check, home: std::env::temp_dir() }
}

/// Serves connections until dropped.
async fn serve(listener: TcpListener, server: Server) {
    let mut open = tokio::task::JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        open.spawn(converse(stream, server));
    }
}

async fn converse(mut stream: TcpStream, server: Server) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        match stream.read_buf(&mut head).await {
            Ok(read) if read > 0 => {}
            _ => return,
        }
    }
    let second_path = head.starts_with(b"GET /v1/health ");
    let answer = match server {
        Says(status, body) => answer(status, body),
        OnlySecondPath(status) if second_path => answer(status, "second"),
        OnlySecondPath(_) => answer(404, "nothing here"),
        AnswersAfter(pause) => {
            tokio::time::sleep(pause).await;
            answer(200, "ok")
        }
        HangsInBody | BreaksOffInBody => b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhalf".to_vec(),
        Garbage => b"SSH-2.0-OpenSSH_9.6\r\n\x00\xff\xfe".to_vec(),
        EndlessBody => [b"HTTP/1.1 200 OK\r\n\r\n".to_vec(), vec![b'x'; 300 * 1024]].concat(),
        EndlessHead => [b"HTTP/1.1 200 OK\r\nx: ".to_vec(), vec![b'x'; 300 * 1024]].concat(),
        Hangs | ClosesEarly | Refuses => Vec::new(),
    };
    let _ = stream.write_all(&answer).await;
    if matches!(server, Hangs | HangsInBody | EndlessBody) {
        std::future::pending::<()>().await;
    }
}

fn answer(status: u16, body: &str) -> Vec<u8> {
    format!("HTTP/1.1 {status} Some\r\ncontent-length: {}\r\n\r\n{body}", body.len()).into_bytes()
}

/// What the probe said of a server that behaves like this.
async fn outcome_of(host: &str, server: Server, check: HealthCheck) -> ProbeOutcome {
    let listener = TcpListener::bind((host, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let prober = prober(host, port, check);
    if matches!(server, Refuses) {
        drop(listener);
        return prober.probe().await.outcome;
    }
    tokio::select! {
        () = serve(listener, server) => unreachable!("the listener lives as long as the test"),
        report = prober.probe() => report.outcome,
    }
}

fn agrees(outcome: &ProbeOutcome, expected: Outcome) -> bool {
    match (outcome, expected) {
        (ProbeOutcome::Healthy, Healthy) | (ProbeOutcome::Loading { .. }, Loading) => true,
        (ProbeOutcome::Failed { reason }, Failed(part)) => reason.contains(part),
        _ => false,
    }
}

type Row = (&'static str, Server, fn(&mut HealthCheck), Outcome);

async fn assert_rows(kind: HealthCheckType, rows: &[Row]) {
    let mut wrong = String::new();
    for (sentence, server, change, expected) in rows {
        let mut check = check(kind);
        change(&mut check);
        let outcome = outcome_of("127.0.0.1", *server, check).await;
        if !agrees(&outcome, *expected) {
            let _ = writeln!(wrong, "{sentence}: expected {expected:?}, got {outcome:?}");
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
}

fn as_it_is(_: &mut HealthCheck) {}

fn short(check: &mut HealthCheck) {
    check.timeout = SHORT;
}

#[tokio::test]
async fn http_probe_matrix() {
    let wants_body: fn(&mut HealthCheck) = |check| check.expected_body = Some("\"ok\"".to_owned());
    let several: fn(&mut HealthCheck) = |check| check.expected_status = vec![204, 401, 404, 503];
    let second: fn(&mut HealthCheck) = |check| check.path = "/v1/health".to_owned();
    let no_slash: fn(&mut HealthCheck) = |check| check.path = "health?deep=1".to_owned();
    let slow = AnswersAfter(Duration::from_millis(100));
    assert_rows(
        HealthCheckType::Http,
        &[
            ("a 200 is healthy", Says(200, "{\"status\":\"ok\"}"), as_it_is, Healthy),
            ("a 200 with the wanted text is healthy", Says(200, "{\"status\":\"ok\"}"), wants_body, Healthy),
            ("a 200 without it is a failure", Says(200, "{}"), wants_body, Failed("does not contain")),
            ("any status of the list is healthy", Says(401, ""), several, Healthy),
            ("also a 503 that is listed", Says(503, ""), several, Healthy),
            ("a 404 that is listed is no reason to look elsewhere", OnlySecondPath(500), several, Healthy),
            ("a 200 that is not listed is a failure", Says(200, ""), several, Failed("HTTP 200")),
            ("a 404 leads to the second path", OnlySecondPath(200), as_it_is, Healthy),
            ("whose answer counts", OnlySecondPath(500), as_it_is, Failed("HTTP 500")),
            ("also when it is loading", OnlySecondPath(503), as_it_is, Loading),
            ("a 404 on both is a failure", Says(404, ""), as_it_is, Failed("HTTP 404")),
            ("the second path has no second path", Says(404, ""), second, Failed("HTTP 404")),
            ("a path without its slash is meant with it", Says(200, "ok"), no_slash, Healthy),
            ("a 500 is a failure", Says(500, "oops"), as_it_is, Failed("HTTP 500")),
            ("a redirect is a failure", Says(302, ""), as_it_is, Failed("HTTP 302")),
            ("a 503 is loading", Says(503, "Loading model"), as_it_is, Loading),
            ("a refused port is loading", Refuses, as_it_is, Loading),
            ("no answer in time is a failure", Hangs, short, Failed("no answer in time")),
            ("half an answer in time is a failure", HangsInBody, short, Failed("no answer in time")),
            ("a slow answer in time is healthy", slow, as_it_is, Healthy),
            ("a connection closed before the answer is a failure", ClosesEarly, as_it_is, Failed("")),
            ("one closed within it is a failure", BreaksOffInBody, as_it_is, Failed("")),
            ("what is no HTTP is a failure", Garbage, as_it_is, Failed("not an HTTP answer")),
            ("a 200 with an endless body is healthy", EndlessBody, as_it_is, Healthy),
            ("of which only the beginning is searched", EndlessBody, wants_body, Failed("does not contain")),
            ("an endless head is a failure", EndlessHead, as_it_is, Failed("not an HTTP answer")),
        ],
    )
    .await;
}

#[tokio::test]
async fn tcp_probe_matrix() {
    assert_rows(
        HealthCheckType::Tcp,
        &[
            ("a port that takes connections is healthy", Says(200, "ok"), as_it_is, Healthy),
            ("whatever it would answer", Says(500, "oops"), as_it_is, Healthy),
            ("even that it loads", Says(503, ""), as_it_is, Healthy),
            ("or nothing", Hangs, short, Healthy),
            ("or no HTTP", Garbage, as_it_is, Healthy),
            ("or nothing and the end", ClosesEarly, as_it_is, Healthy),
            ("a refused port is loading", Refuses, as_it_is, Loading),
        ],
    )
    .await;
}

#[cfg(unix)]
#[tokio::test]
async fn custom_probe_matrix() {
    fn script(check: &mut HealthCheck, text: &str) {
        check.custom_script = Some(text.to_owned());
    }
    let failing: fn(&mut HealthCheck) = |check| script(check, "echo it hurts >&2; exit 3");
    let endless: fn(&mut HealthCheck) = |check| {
        script(check, "sleep 1000");
        check.timeout = SHORT;
    };
    assert_rows(
        HealthCheckType::Custom,
        &[
            ("exit 0 is healthy, whatever the port says", Says(500, ""), |it| script(it, "exit 0"), Healthy),
            ("even a port that refuses", Refuses, |it| script(it, "exit 0"), Healthy),
            ("any other end is a failure with its code", Says(200, ""), failing, Failed("exit status: 3")),
            ("and with its last words", Says(200, ""), failing, Failed("it hurts")),
            ("a signal is a failure", Says(200, ""), |it| script(it, "kill -9 $$"), Failed("signal")),
            ("a missing program is a failure", Says(200, ""), |it| script(it, "no-such-tool"), Failed("127")),
            ("a script over its time is a failure", Says(200, ""), endless, Failed("took longer than")),
            ("no script at all is a failure", Says(200, ""), as_it_is, Failed("custom_script")),
        ],
    )
    .await;
}

#[cfg(unix)]
#[tokio::test]
async fn a_script_is_told_host_and_port_and_runs_in_the_home() {
    let home = tempfile::tempdir().unwrap();
    let check = HealthCheck {
        custom_script: Some("echo {host} {port} > asked; pwd >> asked".to_owned()),
        ..check(HealthCheckType::Custom)
    };
    let prober = Prober { home: home.path().to_path_buf(), ..prober("::1", 8123, check) };
    assert_eq!(prober.probe().await.outcome, ProbeOutcome::Healthy);
    let asked = std::fs::read_to_string(home.path().join("asked")).unwrap();
    let folder = home.path().canonicalize().unwrap();
    assert_eq!(asked, format!("::1 8123\n{}\n", folder.display()));
}

#[cfg(unix)]
#[tokio::test]
async fn a_script_over_its_time_is_killed_with_everything_it_started() {
    let home = tempfile::tempdir().unwrap();
    let script = "setsid sh -c 'echo $$ > stray; exec sleep 1000' & sleep 1000 & echo $! > child; wait";
    let check = HealthCheck {
        custom_script: Some(script.to_owned()),
        timeout: Duration::from_secs(2),
        ..check(HealthCheckType::Custom)
    };
    let prober = Prober { home: home.path().to_path_buf(), ..prober("127.0.0.1", 1, check) };
    let outcome = prober.probe().await.outcome;
    assert!(matches!(outcome, ProbeOutcome::Failed { .. }), "{outcome:?}");
    for file in ["child", "stray"] {
        let pid = std::fs::read_to_string(home.path().join(file)).unwrap().trim().parse().unwrap();
        testkit::wait_for(file, AMPLE, || engine_process::start_mark(pid).is_none());
    }
}

#[tokio::test]
async fn an_engine_on_ipv6_is_probed_in_each_way_its_host_may_be_written() {
    let Ok(listener) = TcpListener::bind(("::1", 0)).await else {
        eprintln!("this machine has no IPv6");
        return;
    };
    let port = listener.local_addr().unwrap().port();
    let probes = async {
        for host in ["::1", "[::1]", "::", "0:0:0:0:0:0:0:0"] {
            for kind in [HealthCheckType::Http, HealthCheckType::Tcp] {
                let prober = prober(orch_runtime::reachable_host(host), port, check(kind));
                assert_eq!(prober.probe().await.outcome, ProbeOutcome::Healthy, "{host} {kind:?}");
            }
        }
    };
    tokio::select! {
        () = serve(listener, Says(200, "ok")) => unreachable!("the listener lives as long as the test"),
        () = probes => {}
    }
}
