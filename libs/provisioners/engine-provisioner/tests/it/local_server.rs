//! A small HTTP server on a loopback port.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};

/// What the server says to one path.
#[derive(Clone)]
pub(crate) enum Reply {
    Bytes(Vec<u8>),
    Status(u16),
    /// Promises more than it sends, then closes.
    Cut(Vec<u8>),
    /// Sends nothing and keeps the connection.
    Silence,
}

/// Serves until the test ends; what is not known is 404.
pub(crate) struct LocalServer {
    address: SocketAddr,
    replies: Arc<Mutex<HashMap<String, Reply>>>,
    requests: Arc<Mutex<Vec<String>>>,
}

impl LocalServer {
    pub(crate) fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let server = Self {
            address: listener.local_addr().unwrap(),
            replies: Arc::default(),
            requests: Arc::default(),
        };
        let (replies, requests) = (server.replies.clone(), server.requests.clone());
        std::thread::spawn(move || {
            let mut silent = Vec::new();
            for stream in listener.incoming().flatten() {
                silent.extend(answer(stream, &replies, &requests));
            }
        });
        server
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    pub(crate) fn serve(&self, path: &str, reply: Reply) {
        self.replies.lock().unwrap_or_else(PoisonError::into_inner).insert(path.to_owned(), reply);
    }

    /// Every request so far: request line and headers, as sent.
    pub(crate) fn requests(&self) -> Vec<String> {
        self.requests.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Returns the connection if it is to stay open without an answer.
fn answer(
    mut stream: TcpStream,
    replies: &Mutex<HashMap<String, Reply>>,
    requests: &Mutex<Vec<String>>,
) -> Option<TcpStream> {
    let head: Vec<String> = BufReader::new(stream.try_clone().ok()?)
        .lines()
        .map_while(Result::ok)
        .take_while(|line| !line.is_empty())
        .collect();
    let path = head.first()?.split(' ').nth(1)?.to_owned();
    requests.lock().unwrap_or_else(PoisonError::into_inner).push(head.join("\n"));
    let reply = replies.lock().unwrap_or_else(PoisonError::into_inner).get(&path).cloned();
    let (status, length, body) = match reply.unwrap_or(Reply::Status(404)) {
        Reply::Bytes(body) => (200, body.len(), body),
        Reply::Status(status) => (status, 0, Vec::new()),
        Reply::Cut(body) => (200, body.len() + 1000, body),
        Reply::Silence => return Some(stream),
    };
    let head = format!("HTTP/1.1 {status} x\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n");
    let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(&body));
    None
}
