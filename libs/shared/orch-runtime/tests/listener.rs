//! Opening and refusing to open an address.

use orch_core::ExitCode;
use orch_runtime::{TokenSet, bind, check_exposure};

#[tokio::test]
async fn a_taken_port_is_told_with_its_own_exit_code_and_a_hint() {
    let first = bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let address = first.local_addr().unwrap();
    let failure = bind(address).unwrap_err();
    assert_eq!(failure.exit, ExitCode::PortInUse);
    assert!(failure.message.contains(&address.port().to_string()), "{failure}");
    assert!(failure.hint.is_some());
}

#[tokio::test]
async fn a_port_can_be_taken_again_right_after_its_connections_were_cut() {
    let listener = bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let address = listener.local_addr().unwrap();
    let client = tokio::net::TcpStream::connect(address).await.unwrap();
    let (served, _) = listener.accept().await.unwrap();
    drop((served, listener));
    bind(address).unwrap();
    drop(client);
}

#[tokio::test]
async fn an_address_of_another_machine_is_unavailable() {
    let failure = bind("192.0.2.1:0".parse().unwrap()).unwrap_err();
    assert_eq!(failure.exit, ExitCode::PortUnavailable);
}

#[test]
fn an_address_outside_loopback_needs_a_token_that_cannot_be_guessed() {
    let (none, short) = (TokenSet::default(), TokenSet::parse("short").unwrap());
    let long = TokenSet::parse(&"a".repeat(32)).unwrap();
    let mixed = TokenSet::parse(&format!("{},short", "a".repeat(32))).unwrap();
    for open in ["0.0.0.0:8080", "[::]:8080", "192.168.1.5:8080", "[2001:db8::1]:8080"] {
        let open = open.parse().unwrap();
        for refused in [&none, &short, &mixed] {
            let failure = check_exposure(open, refused, false).unwrap_err();
            assert_eq!(failure.exit, ExitCode::ConfigInvalid, "{open}");
            assert!(!failure.message.contains("short"), "{failure}");
        }
        check_exposure(open, &long, false).unwrap();
    }
    for loopback in ["127.0.0.1:8080", "127.8.8.8:1", "[::1]:8080", "[::ffff:127.0.0.1]:8080"] {
        check_exposure(loopback.parse().unwrap(), &none, false).unwrap();
    }
}
