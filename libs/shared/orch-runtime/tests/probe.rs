//! The probe against servers that misbehave.

#![expect(clippy::unwrap_used, reason = "helpers of tests")]

use std::time::Duration;

use orch_core::{ExitCode, Failure};
use orch_runtime::{ProbeError, ProbeResponse, probe_get, reachable_host};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

const LIMIT: Duration = Duration::from_secs(20);

/// Serves one connection: reads a head, writes `answer`, then closes or waits. Returns the head it got.
async fn probe_of(
    answer: Vec<u8>,
    then_wait: bool,
    limit: Duration,
) -> (String, Result<ProbeResponse, ProbeError>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let server = async {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            stream.read_buf(&mut head).await.unwrap();
        }
        let _ = stream.write_all(&answer).await;
        if then_wait {
            let _ = stream.read_buf(&mut Vec::new()).await;
        }
        String::from_utf8(head).unwrap()
    };
    tokio::join!(server, probe_get("127.0.0.1", port, "/health", Some("s3cret"), limit))
}

#[tokio::test]
async fn a_healthy_answer_is_returned_with_its_status_and_body() {
    let answer = b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 7\r\n\r\nloading".to_vec();
    let (head, response) = probe_of(answer, true, LIMIT).await;
    let response = response.unwrap();
    assert_eq!((response.status, &response.body[..]), (503, &b"loading"[..]));
    assert!(head.starts_with("GET /health HTTP/1.1\r\n"), "{head}");
    assert!(
        head.contains("authorization: Bearer s3cret\r\n") && head.contains("connection: close\r\n"),
        "{head}"
    );
}

#[tokio::test]
async fn chunked_and_close_delimited_bodies_are_read() {
    let chunked = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n".to_vec();
    assert_eq!(probe_of(chunked, false, LIMIT).await.1.unwrap().body, "ok");
    let until_close = b"HTTP/1.0 200 OK\r\n\r\nok".to_vec();
    assert_eq!(probe_of(until_close, false, LIMIT).await.1.unwrap().body, "ok");
}

#[tokio::test]
async fn a_closed_port_is_refused() {
    let port = {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        listener.local_addr().unwrap().port()
    };
    let error = probe_get("0.0.0.0", port, "/health", None, LIMIT).await.unwrap_err();
    assert!(matches!(error, ProbeError::Refused), "{error:?}");
    assert_eq!(Failure::from(error).exit, ExitCode::ConnectionRefused);
}

#[tokio::test]
async fn a_server_that_never_finishes_runs_into_the_limit() {
    for silent_after in [&b""[..], b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhalf"] {
        let error = probe_of(silent_after.to_vec(), true, Duration::from_millis(100)).await.1.unwrap_err();
        assert!(matches!(error, ProbeError::Timeout), "{error:?}");
    }
}

#[tokio::test]
async fn what_is_no_answer_is_a_protocol_error() {
    let endless_head = [b"HTTP/1.1 200 OK\r\nx: ".to_vec(), vec![b'x'; 200 * 1024]].concat();
    let broken_off = b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhalf".to_vec();
    for answer in [b"SSH-2.0-server\r\n".to_vec(), endless_head, broken_off, Vec::new()] {
        let error = probe_of(answer, false, LIMIT).await.1.unwrap_err();
        assert!(matches!(error, ProbeError::Protocol(_) | ProbeError::Io(_)), "{error:?}");
    }
}

#[tokio::test]
async fn a_key_that_cannot_be_sent_is_not_repeated() {
    let error = probe_get("127.0.0.1", 1, "/", Some("bad\nkey"), LIMIT).await.unwrap_err();
    assert!(!error.to_string().contains("bad"), "{error}");
}

#[tokio::test]
async fn of_an_answer_without_end_the_beginning_is_enough() {
    let endless = [b"HTTP/1.1 200 OK\r\n\r\n".to_vec(), vec![b'x'; 200 * 1024]].concat();
    let response = probe_of(endless, true, LIMIT).await.1.unwrap();
    assert_eq!((response.status, response.body.len()), (200, 64 * 1024));
}

#[test]
fn a_wildcard_is_reached_through_loopback_and_brackets_belong_to_urls() {
    let asked: Vec<&str> = ["0.0.0.0", "::", "[::]", "0:0::0", "", "[::1]", "10.0.0.1", "box"]
        .into_iter()
        .map(reachable_host)
        .collect();
    assert_eq!(asked, ["127.0.0.1", "::1", "::1", "::1", "127.0.0.1", "::1", "10.0.0.1", "box"]);
}
