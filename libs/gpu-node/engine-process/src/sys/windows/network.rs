//! Ports.
#![expect(unsafe_code, reason = "the table of sockets has no safe wrapper")]

use std::ffi::c_void;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs};
use std::time::Duration;

use socket2::{Domain, Socket, Type};
use windows_sys::Win32::Foundation::{ERROR_INSUFFICIENT_BUFFER, NO_ERROR};
use windows_sys::Win32::NetworkManagement::IpHelper::{
    GetExtendedTcpTable, MIB_TCP6ROW_OWNER_PID, MIB_TCPROW_OWNER_PID, TCP_TABLE_OWNER_PID_LISTENER,
};
use windows_sys::Win32::Networking::WinSock::{AF_INET, AF_INET6};

use crate::identity::executable_of;
use crate::ports::PortHolder;
use crate::wait::wait_until;

/// The table may grow between two calls.
const TABLE_TRIES: u32 = 5;

/// Whether an engine could listen here and be reached.
///
/// Here one socket may be bound to all addresses and another to the same port of one address. So both are tried:
/// a listener on either would take the engine's connections, or have its own taken.
pub(crate) fn port_is_free(host: &str, port: u16) -> bool {
    let Ok(addresses) = (host, port).to_socket_addrs() else { return false };
    let mut addresses = addresses.peekable();
    addresses.peek().is_some()
        && addresses.all(|address| binds(address) && binds((rival_of(address.ip()), port).into()))
}

/// A look at a port takes far less.
const OTHER_LOOK: Duration = Duration::from_millis(100);

/// All addresses of the same kind; for all of them, the one that everybody on this machine uses.
fn rival_of(ip: IpAddr) -> IpAddr {
    match ip {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    }
}

/// Without listening, which would make the firewall ask the user. Somebody else who looks in the same way is in the way
/// for a moment: where nobody listens it is tried again.
fn binds(address: SocketAddr) -> bool {
    let once = || {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, None);
        socket.and_then(|socket| socket.bind(&address.into())).is_ok()
    };
    once() || (listening_pid(address.port()).is_none() && wait_until(OTHER_LOOK, once))
}

/// Who listens on a port.
pub(crate) fn listener_on(port: u16) -> Option<PortHolder> {
    let pid = listening_pid(port)?;
    // A system that does not tell, as Wine, names the idle process.
    if pid == 0 {
        return Some(PortHolder::default());
    }
    let program = executable_of(pid).and_then(|path| Some(path.file_name()?.to_string_lossy().into_owned()));
    Some(PortHolder { pid: Some(pid), program })
}

fn listening_pid(port: u16) -> Option<u32> {
    let rows: Vec<MIB_TCPROW_OWNER_PID> = listener_table(u32::from(AF_INET));
    // Ports stand in the table as they are sent, the high byte first.
    let is_it = |field: u32| u16::from_be(field as u16) == port;
    let found = rows.iter().find(|row| is_it(row.dwLocalPort)).map(|row| row.dwOwningPid);
    found.or_else(|| {
        let rows: Vec<MIB_TCP6ROW_OWNER_PID> = listener_table(u32::from(AF_INET6));
        rows.iter().find(|row| is_it(row.dwLocalPort)).map(|row| row.dwOwningPid)
    })
}

/// A count, and so many rows behind it. `Row` is the one of this family, made of numbers alone.
fn listener_table<Row: Copy>(family: u32) -> Vec<Row> {
    let mut words: Vec<u32> = Vec::new();
    for _ in 0..TABLE_TRIES {
        let mut size = size_of_val(words.as_slice()) as u32;
        let table: *mut c_void =
            if words.is_empty() { std::ptr::null_mut() } else { words.as_mut_ptr().cast() };
        // SAFETY: a buffer whose size is told; without one the call only tells how much is needed.
        let status =
            unsafe { GetExtendedTcpTable(table, &raw mut size, 0, family, TCP_TABLE_OWNER_PID_LISTENER, 0) };
        match status {
            NO_ERROR => break,
            // Some more, for what comes meanwhile.
            ERROR_INSUFFICIENT_BUFFER => words = vec![0; size.div_ceil(4) as usize + 256],
            _ => return Vec::new(),
        }
    }
    let Some((&count, rows)) = words.split_first() else { return Vec::new() };
    let room = size_of_val(rows) / size_of::<Row>();
    let rows = rows.as_ptr().cast::<Row>();
    // SAFETY: rows are made of numbers no wider than the words they stand in, and no more are read than there are.
    (0..room.min(count as usize)).map(|index| unsafe { rows.add(index).read_unaligned() }).collect()
}
