//! Who has a TCP port, and which one is free.

use std::io;
use std::net::TcpListener;

use crate::sys;

/// The process behind a port, as far as the system tells.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PortHolder {
    pub pid: Option<u32>,
    pub program: Option<String>,
}

/// Whether an engine could listen on this host and port now.
pub fn is_free(host: &str, port: u16) -> bool {
    sys::port_is_free(host, port)
}

/// Who listens on the port; `None` when nobody does. Processes of other users may stay nameless.
pub fn holder_of(port: u16) -> Option<PortHolder> {
    match sys::listener_on(port) {
        Some(holder) => Some(holder),
        None if is_free("0.0.0.0", port) => None,
        None => Some(PortHolder::default()),
    }
}

/// A port that is free on this host at the moment of asking.
pub fn pick_free(host: &str) -> io::Result<u16> {
    Ok(TcpListener::bind((host, 0))?.local_addr()?.port())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_somebody_listens_on_is_taken_and_its_holder_named() {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        assert!(!is_free("127.0.0.1", port));
        assert!(!is_free("0.0.0.0", port));
        let holder = holder_of(port).unwrap();
        let untold = cfg!(windows) && holder == PortHolder::default();
        assert!(untold || holder.pid == Some(std::process::id()), "{holder:?}");
        drop(listener);
        assert!(is_free("127.0.0.1", port));
        assert_eq!(holder_of(port), None);
    }

    #[test]
    fn looking_at_a_port_does_not_take_it() {
        let port = pick_free("127.0.0.1").unwrap();
        assert!(is_free("127.0.0.1", port));
        let _listener = TcpListener::bind(("127.0.0.1", port)).unwrap();
    }

    #[test]
    fn a_host_that_is_not_ours_has_no_free_port() {
        assert!(!is_free("192.0.2.1", 8001));
    }
}
