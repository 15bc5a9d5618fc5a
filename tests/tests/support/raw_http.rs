//! Requests with nothing added: a web page's `Host` and `Origin` are the point.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

/// Status line and headers of an answer, names in lower case.
pub(crate) struct Head {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
}

impl Head {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }
}

/// One request with exactly these headers (and a length); only the head of the answer is looked at.
pub(crate) fn send(address: &str, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> Head {
    let mut socket = TcpStream::connect(address).expect("somebody listens");
    socket.set_read_timeout(Some(Duration::from_secs(30))).expect("a limit can be set");
    let mut text = format!("{method} {path} HTTP/1.1\r\nConnection: close\r\n");
    for (name, value) in headers {
        text.extend([name, ": ", value, "\r\n"]);
    }
    text.extend(["Content-Length: ", &body.len().to_string(), "\r\n\r\n", body]);
    socket.write_all(text.as_bytes()).expect("the request is taken");
    let mut answer = Vec::new();
    let mut piece = [0; 4096];
    while !answer.windows(4).any(|part| part == b"\r\n\r\n") {
        let count = socket.read(&mut piece).expect("an answer comes");
        assert!(count > 0, "{method} {path}: the answer broke off");
        answer.extend_from_slice(&piece[..count]);
    }
    parse(&String::from_utf8_lossy(&answer))
}

fn parse(answer: &str) -> Head {
    let head = answer.split("\r\n\r\n").next().unwrap_or_default();
    let mut lines = head.split("\r\n");
    let status = lines.next().and_then(|line| line.split(' ').nth(1)).and_then(|status| status.parse().ok());
    let headers = lines.filter_map(|line| line.split_once(':'));
    Head {
        status: status.unwrap_or_else(|| panic!("no status in {head:?}")),
        headers: headers.map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned())).collect(),
    }
}
