//! Who has a TCP port, and which one is free.

use std::io;
use std::net::TcpListener;
use std::path::Path;

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
    let listens = |socket: &listeners::Listener| {
        let tcp = socket.protocol == listeners::Protocol::TCP;
        tcp && socket.state == listeners::SocketState::Listen && socket.socket.port() == port
    };
    let sockets = listeners::get_all().unwrap_or_default();
    match sockets.into_iter().find(listens) {
        Some(socket) => {
            Some(PortHolder { pid: Some(socket.process.pid), program: Some(program_name(socket.process)) })
        }
        None if is_free("0.0.0.0", port) => None,
        None => Some(PortHolder::default()),
    }
}

/// The name of the program's file: the kernel's own name of a process ends after 15 letters. A file that cannot be
/// seen leaves that name.
fn program_name(process: listeners::Process) -> String {
    let path = process.path.trim_end_matches(" (deleted)");
    let file = Path::new(path).file_name().map(|name| name.to_string_lossy().into_owned());
    file.unwrap_or(process.name)
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
        assert_eq!(holder_of(port).unwrap().pid, Some(std::process::id()));
        drop(listener);
        assert!(is_free("127.0.0.1", port));
        assert_eq!(holder_of(port), None);
    }

    #[test]
    fn a_program_is_named_in_full() {
        let process = |name: &str, path: &str| listeners::Process {
            pid: 1,
            name: name.to_owned(),
            path: path.to_owned(),
        };
        for (name, path, shown) in [
            ("a-program-with-a", "/usr/bin/a-program-with-a-name", "a-program-with-a-name"),
            ("replaced", "/usr/bin/replaced (deleted)", "replaced"),
            ("hidden", "", "hidden"),
        ] {
            assert_eq!(program_name(process(name, path)), shown);
        }
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
