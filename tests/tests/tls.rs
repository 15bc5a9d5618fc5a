//! TLS for those who are elsewhere: certificate files, their renewal, and clients that check them.

#![cfg(target_os = "linux")]

mod support;

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;

use serde_json::json;
use support::SOON;
use support::home::{Daemon, Home};
use testkit::{run_python, wait_for};

/// A certificate of its own for `localhost`, in `<home>/cert.pem` and `<home>/key.pem`; gives it as PEM.
fn write_certificate(home: &Home) -> String {
    let made =
        rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate can be made");
    let put = |name: &str, text: &str| {
        // Whole at once: the daemon may be looking.
        let aside = home.path().join(format!("{name}.new"));
        fs::write(&aside, text).expect("the home is writable");
        fs::rename(aside, home.path().join(name)).expect("the home is writable");
    };
    put("key.pem", &made.signing_key.serialize_pem());
    put("cert.pem", &made.cert.pem());
    made.cert.pem()
}

fn start(home: &Home) -> Daemon {
    let settings = "[orchestratord]\ntls_cert = \"cert.pem\"\ntls_key = \"key.pem\"\n";
    fs::write(home.path().join("config.toml"), settings).expect("the home is writable");
    home.start_daemon()
}

fn url(daemon: &Daemon) -> String {
    format!("https://localhost:{}", daemon.address.rsplit(':').next().expect("an address has a port"))
}

fn trust(home: &Home, certificate: &str) -> std::path::PathBuf {
    let path = home.scratch().join("trusted.pem");
    fs::write(&path, certificate).expect("the scratch folder takes a file");
    path
}

/// Whether `ps` through TLS works for somebody who trusts what is in a file.
fn reaches(home: &Home, daemon: &Daemon, trusted: &Path, key: &str) -> bool {
    let mut command = home.command(&["--server", &url(daemon), "ps"]);
    command.env("SSL_CERT_FILE", trusted).env("LLAMA_ORCH_TOKEN", key);
    let run = testkit::run(command);
    assert!(matches!(run.exit_code, Some(0 | 64)), "{run}");
    run.exit_code == Some(0)
}

const CLIENT: &str = r#"
import os, ssl, http.client, openai, httpx
base, key, ca = os.environ["BASE"], os.environ["KEY"], os.environ["CA"]
context = ssl.create_default_context(cafile=ca)
client = openai.OpenAI(base_url=base + "/v1", api_key=key, max_retries=0, http_client=httpx.Client(verify=context))
message = [{"role": "user", "content": "Say something."}]
words = [chunk for chunk in client.chat.completions.create(model="a", messages=message, max_tokens=4, stream=True)]
assert words
port = int(base.rsplit(":", 1)[1])
for version, works in [(ssl.TLSVersion.TLSv1_2, True), (ssl.TLSVersion.TLSv1_3, True), (ssl.TLSVersion.TLSv1_1, False)]:
    context = ssl.create_default_context(cafile=ca)
    try:
        context.minimum_version = context.maximum_version = version
        connection = http.client.HTTPSConnection("localhost", port, context=context, timeout=20)
        connection.request("GET", "/health")
        assert connection.getresponse().status == 200 and works, version
    except (ssl.SSLError, ValueError):
        assert not works, version
"#;

#[test]
fn clients_that_trust_the_certificate_are_served_and_others_turn_away() {
    let home = Home::real();
    let certificate = write_certificate(&home);
    home.instance("a", &json!({}));
    let daemon = start(&home);
    home.ok(&["up", "a"]);
    let key = home.json(&["token", "create", "--json", "--scope", "infer,read"])["token"].clone();
    let key = key.as_str().expect("the key is shown");
    let trusted = trust(&home, &certificate);
    let path = trusted.display().to_string();
    run_python(CLIENT, &[("BASE", &url(&daemon)), ("KEY", key), ("CA", &path)]).expect_exit(0);
    assert!(reaches(&home, &daemon, &trusted, key));

    let stranger = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("one can be made");
    assert!(!reaches(&home, &daemon, &trust(&home, &stranger.cert.pem()), key));
    // Programs of this machine need no TLS.
    assert_eq!(home.ps("a")["status"], "running");
}

#[test]
fn a_renewed_certificate_is_taken_over_without_a_restart() {
    let home = Home::fake();
    let first = write_certificate(&home);
    let daemon = start(&home);
    let key = home.json(&["token", "create", "--json", "--scope", "read"])["token"].clone();
    let key = key.as_str().expect("the key is shown");
    assert!(reaches(&home, &daemon, &trust(&home, &first), key));
    let renewed = write_certificate(&home);
    let trusted = trust(&home, &renewed);
    wait_for("the renewed certificate", SOON, || reaches(&home, &daemon, &trusted, key));
    assert!(!reaches(&home, &daemon, &trust(&home, &first), key));
    assert_eq!(home.daemon().pid, daemon.pid);
}

#[test]
fn certificates_that_cannot_be_used_are_told_before_anybody_is_served() {
    let home = Home::fake();
    write_certificate(&home);
    fs::write(home.path().join("key.pem"), "no key").expect("the home is writable");
    let settings = "[orchestratord]\ntls_cert = \"cert.pem\"\ntls_key = \"key.pem\"\n";
    fs::write(home.path().join("config.toml"), settings).expect("the home is writable");
    let refused = home.run(&["daemon", "start", "--foreground"]);
    refused.expect_exit(11);
    assert!(refused.stderr.contains("orchestratord.tls_key cannot be used"), "{refused}");
}

#[test]
fn a_client_that_begins_a_handshake_and_says_no_more_is_cut_off() {
    let home = Home::fake();
    write_certificate(&home);
    let daemon = start(&home);
    let mut socket = TcpStream::connect(&daemon.address).expect("somebody listens");
    socket.set_read_timeout(Some(SOON)).expect("a limit can be set");
    socket.write_all(&[0x16, 3, 1]).expect("the first bytes are taken");
    let mut answer = Vec::new();
    // However it is closed, it is closed within the limit.
    let closed = socket.read_to_end(&mut answer);
    let timed_out = closed.is_err_and(|error| error.kind() == std::io::ErrorKind::WouldBlock);
    assert!(!timed_out, "the handshake is waited for without a limit");
}
