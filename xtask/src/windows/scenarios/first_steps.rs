//! The first steps: an engine from the network, the first chat.

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::process::Command;

use serde_json::json;
use testkit::wait_for;

use super::{Named, SOON, Scene};

pub(super) const SCENARIOS: &[Named] = &[
    ("an engine is installed from an archive as releases have it, and runs", install),
    ("quickstart chats with a tiny model, and takes itself away again", quickstart),
];

/// A release for Windows is a zip with the server and its libraries at its root; here the one library that Wine lacks.
const PACK: &str = "
import sys, zipfile
with zipfile.ZipFile(sys.argv[2], 'w', zipfile.ZIP_DEFLATED) as archive:
    archive.write(sys.argv[1], 'llama-server.exe')
    archive.write(sys.argv[3], 'bcryptprimitives.dll')
";
const ARCHIVE: &str = "llama-b11434-bin-win-cpu-x64.zip";

fn install(scene: &Scene<'_>) {
    let archive = scene.folder().join(ARCHIVE);
    let mut pack = Command::new("python3");
    let server = scene.program("fake-llama-server");
    let library = server.with_file_name("bcryptprimitives.dll");
    pack.args(["-c", PACK]).args([&server, &archive, &library]);
    testkit::run(pack).expect_exit(0);
    let url = serve(std::fs::read(&archive).expect("the archive was packed"));
    scene.ok(&["engine", "install", &url, "--set-default"]);
    let list = scene.json(&["engine", "list"]).to_string();
    assert!(list.contains("llama-server.exe") && !list.contains(r"\\\\?\\"), "{list}");
    scene.instance("a", &[], &json!({}));
    let mut up = scene.command(&["up", "a"]);
    up.env_remove("LLAMA_SERVER");
    testkit::run(up).expect_exit(0);
    let mut info = scene.command(&["engine", "info"]);
    info.env_remove("LLAMA_SERVER");
    let info = testkit::run(info);
    assert!(info.stdout.contains(r"\engines\"), "{info}");
    scene.ok(&["down", "a"]);
}

/// Answers every request with these bytes, for as long as the run lasts; returns the archive's address.
fn serve(bytes: Vec<u8>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("loopback has a free port");
    let address = listener.local_addr().expect("a bound listener has an address");
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            // Who hangs up early does not want the rest.
            let _ = answer(stream, &bytes);
        }
    });
    format!("http://{address}/{ARCHIVE}")
}

fn answer(mut stream: TcpStream, bytes: &[u8]) -> std::io::Result<()> {
    let mut lines = BufReader::new(stream.try_clone()?).lines();
    while lines.next().is_some_and(|line| line.is_ok_and(|line| !line.is_empty())) {}
    let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close\r\n\r\n", bytes.len());
    stream.write_all(head.as_bytes())?;
    stream.write_all(bytes)
}

fn quickstart(scene: &Scene<'_>) {
    let port = testkit::free_port().to_string();
    let mut command = scene.command(&["quickstart", "--port", &port]);
    // A model from the network is not to be had here: it makes one.
    command.env("HF_ENDPOINT", "http://127.0.0.1:9");
    let run = testkit::run(command);
    run.expect_exit(0);
    assert!(run.stdout.contains("next:"), "{run}");
    scene.ok(&["quickstart", "--stop"]);
    wait_for("the end of all it started", SOON, || scene.processes(&[".exe"]).is_empty());
}
