//! Opening the door: which address, and whether it may stand open.

use std::io;
use std::net::SocketAddr;

use orch_core::{ExitCode, Failure};
use tokio::net::{TcpListener, TcpSocket};

use crate::TokenSet;

/// Connections that may wait to be accepted.
const BACKLOG: u32 = 1024;
/// The shortest token that may guard an address outside loopback.
const MIN_EXPOSED_TOKEN: usize = 32;

/// Listens on `address`. Has to be called inside a tokio runtime.
///
/// A port left over from connections of a process that just ended can be taken at once (`SO_REUSEADDR`; not on
/// Windows, where it would let two servers share a port).
pub fn bind(address: SocketAddr) -> Result<TcpListener, Failure> {
    listen(address).map_err(|error| bind_failure(address, &error))
}

fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    if cfg!(not(windows)) {
        socket.set_reuseaddr(true)?;
    }
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

fn bind_failure(address: SocketAddr, error: &io::Error) -> Failure {
    let port = address.port();
    match error.kind() {
        io::ErrorKind::AddrInUse => {
            Failure::new(ExitCode::PortInUse, format!("port {port} of {} is in use", address.ip()))
                .hint("stop what listens there, or choose another address with --addr")
        }
        io::ErrorKind::PermissionDenied => {
            Failure::new(ExitCode::PortUnavailable, format!("not allowed to listen on {address}"))
                .hint("choose a port above 1023 with --addr")
        }
        io::ErrorKind::AddrNotAvailable => Failure::new(
            ExitCode::PortUnavailable,
            format!("{} is not an address of this machine", address.ip()),
        )
        .hint("choose an address of this machine with --addr; 127.0.0.1 always is one"),
        _ => Failure::new(ExitCode::PortUnavailable, format!("cannot listen on {address}: {error}")),
    }
}

/// Refuses to stand open to others without a token that cannot be guessed. `has_keys` tells whether there are made
/// keys besides `tokens`: those are never short.
pub fn check_exposure(address: SocketAddr, tokens: &TokenSet, has_keys: bool) -> Result<(), Failure> {
    const HINT: &str = "make a key with `llama-orch token create`, set LLORCH_API_TOKEN to a random text of 32 characters or more, \
         or listen on 127.0.0.1";
    if address.ip().to_canonical().is_loopback() {
        return Ok(());
    }
    let refused = |why: &str| {
        Err(Failure::new(ExitCode::ConfigInvalid, format!("refusing to listen on {address}: {why}"))
            .hint(HINT))
    };
    match tokens.shortest() {
        None if has_keys => Ok(()),
        None => refused("the address is reachable from outside this machine and there is no key"),
        Some(length) if length < MIN_EXPOSED_TOKEN => refused(&format!(
            "the address is reachable from outside this machine and a token has under {MIN_EXPOSED_TOKEN} characters"
        )),
        Some(_) => Ok(()),
    }
}
