//! Fetching from a hub that is a small server of the test's own.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::{Arc, Mutex};

use model_provisioner::{Hub, HubModel, SilentProgress, fetch};
use orch_core::{ExitCode, Failure, HomeLayout};
use serde_json::json;
use sha2::{Digest, Sha256};

const MODEL: &[u8] = b"GGUF and then the weights";
const LISTING: &str = "/api/models/a/b/tree/main?recursive=true";
const FILE: &str = "/a/b/resolve/main/m-q4_k_m.gguf";

/// Answers each known path with its bytes, everything else with 404, and remembers what it was asked.
struct LocalHub {
    address: String,
    asked: Arc<Mutex<Vec<String>>>,
}

impl LocalHub {
    fn new(answers: Vec<(&'static str, Vec<u8>)>) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let asked = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&asked);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let Ok(stream) = stream else { return };
                answer(stream, &answers, &seen);
            }
        });
        Self { address, asked }
    }

    fn with_model(sha256: &str, size: usize, content: &[u8]) -> Self {
        let listing = json!([
            {"type": "file", "path": "README.md", "size": 3, "oid": "x"},
            {"type": "file", "path": "m-q4_k_m.gguf", "size": 120, "oid": "x", "lfs": {"oid": sha256, "size": size}},
        ]);
        Self::new(vec![(LISTING, listing.to_string().into_bytes()), (FILE, content.to_vec())])
    }

    fn fetch(&self, home: &HomeLayout, reference: &str) -> Result<std::path::PathBuf, Failure> {
        let hub = Hub::new(Some(self.address.clone()), Some("secret-token".to_owned()));
        let model = HubModel::parse(reference).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(fetch(home, &hub, &model, &SilentProgress))
    }

    fn requests(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }
}

fn answer(stream: TcpStream, answers: &[(&'static str, Vec<u8>)], seen: &Mutex<Vec<String>>) {
    let mut reader = BufReader::new(stream);
    let mut head = String::new();
    while reader.read_line(&mut head).is_ok_and(|read| read > 2) {}
    let path = head.split(' ').nth(1).unwrap_or("").to_owned();
    let known = answers.iter().find(|(known, _)| *known == path);
    let keyed = head.to_ascii_lowercase().contains("authorization: bearer secret-token");
    seen.lock().unwrap().push(format!("{path} {}", if keyed { "with key" } else { "without key" }));
    let (status, body) = known.map_or(("404 Not Found", b"".as_slice()), |(_, body)| ("200 OK", body));
    let mut stream = reader.into_inner();
    // A client that went away needs no answer.
    let _ =
        write!(stream, "HTTP/1.1 {status}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n", body.len());
    let _ = stream.write_all(body);
}

fn checksum() -> String {
    hex::encode(Sha256::digest(MODEL))
}

fn home() -> (tempfile::TempDir, HomeLayout) {
    let folder = tempfile::tempdir().unwrap();
    let home = HomeLayout::new(folder.path());
    (folder, home)
}

fn files_below(folder: &Path) -> usize {
    std::fs::read_dir(folder).map_or(0, |entries| entries.count())
}

#[test]
fn a_model_is_fetched_once_and_then_there() {
    let (_folder, home) = home();
    let hub = LocalHub::with_model(&checksum(), MODEL.len(), MODEL);
    let path = hub.fetch(&home, "hf:a/b").unwrap();
    assert_eq!(path, home.models().join("a__b/m-q4_k_m.gguf"));
    assert_eq!(std::fs::read(&path).unwrap(), MODEL);
    assert_eq!(hub.requests(), [format!("{LISTING} with key"), format!("{FILE} with key")]);
    assert_eq!(hub.fetch(&home, "hf:a/b:m-q4_k_m.gguf").unwrap(), path);
    assert_eq!(hub.requests().len(), 2, "a file that is there needs no question");
}

#[test]
fn what_is_not_the_model_never_appears_under_its_name() {
    let wrong_sum = "0".repeat(64);
    let page = b"<html>please log in</html>";
    let page_sum = hex::encode(Sha256::digest(page));
    for (hub, exit) in [
        (LocalHub::with_model(&wrong_sum, MODEL.len(), MODEL), ExitCode::ModelInvalid),
        (LocalHub::with_model(&page_sum, page.len(), page), ExitCode::ModelInvalid),
        (LocalHub::with_model(&checksum(), MODEL.len() + 1, MODEL), ExitCode::DownloadFailed),
        (LocalHub::with_model(&checksum(), 4, MODEL), ExitCode::DownloadFailed),
    ] {
        let (_folder, home) = home();
        assert_eq!(hub.fetch(&home, "hf:a/b").unwrap_err().exit, exit);
        assert_eq!(files_below(&home.models().join("a__b")), 0);
    }
}

#[test]
fn a_repository_that_does_not_exist_is_a_model_that_does_not_exist() {
    let (_folder, home) = home();
    let hub = LocalHub::new(Vec::new());
    let failure = hub.fetch(&home, "hf:a/b").unwrap_err();
    assert_eq!(failure.exit, ExitCode::ModelNotFound);
    assert!(!home.models().exists());
}

#[test]
fn a_hub_that_cannot_be_reached_is_told_at_once() {
    let (_folder, home) = home();
    let begun = std::time::Instant::now();
    let gone = LocalHub { address: "http://127.0.0.1:9".to_owned(), asked: Arc::default() };
    let failure = gone.fetch(&home, "hf:a/b").unwrap_err();
    assert_eq!(failure.exit, ExitCode::DownloadFailed);
    assert!(failure.hint.unwrap().contains("HF_ENDPOINT"));
    assert!(begun.elapsed().as_secs() < 5);
}
