//! What Linux and macOS share.
#![expect(unsafe_code, reason = "code between fork and exec")]

use std::io::{self, Read, Write};
use std::net::{SocketAddr, ToSocketAddrs};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStdin, ChildStdout, Command};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{
    AddressFamily, SockFlag, SockType, SockaddrIn, SockaddrIn6, bind, setsockopt, socket, sockopt,
};

use crate::protocol::REPLY_LIMIT;
use crate::wait::wait_until;

/// A child in a process group of its own, so that all it starts can be signalled together.
pub(crate) fn own_group(command: &mut Command) {
    command.process_group(0);
}

/// A child in a session of its own: no terminal, no hang-up when the caller's terminal closes.
pub(crate) fn detach(command: &mut Command) {
    // SAFETY: setsid is async-signal-safe and touches no memory of this process.
    unsafe {
        command.pre_exec(|| nix::unistd::setsid().map(drop).map_err(io::Error::from));
    }
}

/// Whether an engine could bind here. The socket is bound but never listens: two bound sockets tolerate each
/// other, so looking does not get in the way of an engine that binds at the same moment.
pub(crate) fn port_is_free(host: &str, port: u16) -> bool {
    let Ok(addresses) = (host, port).to_socket_addrs() else { return false };
    let mut any = false;
    for address in addresses {
        any = true;
        if bind_quietly(address).is_err() {
            return false;
        }
    }
    any
}

fn bind_quietly(address: SocketAddr) -> nix::Result<()> {
    let family = if address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    let descriptor = socket(family, SockType::Stream, SockFlag::empty(), None)?;
    setsockopt(&descriptor, sockopt::ReuseAddr, &true)?;
    match address {
        SocketAddr::V4(address) => bind(descriptor.as_raw_fd(), &SockaddrIn::from(address)),
        SocketAddr::V6(address) => bind(descriptor.as_raw_fd(), &SockaddrIn6::from(address)),
    }
}

/// Starts a process, gives it a text on stdin, and reads its answer, one line on stdout. Every step is bounded
/// by the one limit. The process itself is expected to end soon (a shim leaves a grandchild behind).
pub(crate) fn converse(mut command: Command, text: &[u8], limit: Duration) -> io::Result<Vec<u8>> {
    let end = Instant::now() + limit;
    let mut child = command.spawn()?;
    let answer = exchange(&mut child, text, end);
    // Both pipe ends are closed now; whatever the outcome, no zombie is left behind.
    let ended = wait_until(end.saturating_duration_since(Instant::now()), || {
        matches!(child.try_wait(), Ok(Some(_)) | Err(_))
    });
    if !ended {
        child.kill()?;
        child.wait()?;
    }
    answer
}

fn exchange(child: &mut Child, text: &[u8], end: Instant) -> io::Result<Vec<u8>> {
    if let Some(stdin) = child.stdin.take() {
        write_within(stdin, text, end)?;
    }
    match child.stdout.take() {
        Some(stdout) => read_line_within(stdout, end),
        None => Ok(Vec::new()),
    }
}

fn write_within(mut stdin: ChildStdin, mut text: &[u8], end: Instant) -> io::Result<()> {
    do_not_block(&stdin)?;
    while !text.is_empty() {
        match stdin.write(text) {
            Ok(written) => text = &text[written..],
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                wait_ready(stdin.as_fd(), PollFlags::POLLOUT, end)?;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn read_line_within(mut stdout: ChildStdout, end: Instant) -> io::Result<Vec<u8>> {
    do_not_block(&stdout)?;
    let mut line = Vec::new();
    let mut block = [0; 4096];
    loop {
        match stdout.read(&mut block) {
            Ok(0) => break,
            Ok(read) => line.extend_from_slice(&block[..read]),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                wait_ready(stdout.as_fd(), PollFlags::POLLIN, end)?;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
        if line.last() == Some(&b'\n') {
            break;
        }
        if line.len() > REPLY_LIMIT {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "the answer is too long"));
        }
    }
    if line.is_empty() {
        return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "it ended without an answer"));
    }
    Ok(line)
}

fn do_not_block(pipe: &impl AsFd) -> io::Result<()> {
    let flags = OFlag::from_bits_retain(fcntl(pipe.as_fd(), FcntlArg::F_GETFL)?);
    fcntl(pipe.as_fd(), FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK))?;
    Ok(())
}

fn wait_ready(pipe: BorrowedFd<'_>, events: PollFlags, end: Instant) -> io::Result<()> {
    let left = end.saturating_duration_since(Instant::now());
    let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
    match poll(&mut [PollFd::new(pipe, events)], timeout) {
        Ok(0) => Err(io::Error::new(io::ErrorKind::TimedOut, "no answer in time")),
        Ok(_) | Err(Errno::EINTR) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}

#[cfg(not(target_os = "linux"))]
mod by_pid {
    use std::io;

    use nix::errno::Errno;
    use nix::libc;
    use nix::sys::signal;
    use nix::unistd::Pid;

    use crate::sys::{End, Signal};

    /// How our own child ended, which it has. It stays unreaped, so that its pid and group remain its own.
    pub(crate) fn end_of_child(pid: u32) -> End {
        let options = libc::WEXITED | libc::WNOWAIT;
        // SAFETY: all zero is a valid value of this plain structure, and the call fills it.
        let (result, information) = unsafe {
            let mut information: libc::siginfo_t = std::mem::zeroed();
            (libc::waitid(libc::P_PID, pid, &raw mut information, options), information)
        };
        match (result, information.si_code) {
            (0, libc::CLD_EXITED) => End::Code(information.si_status),
            (0, libc::CLD_KILLED | libc::CLD_DUMPED) => End::Signal(information.si_status),
            _ => End::Unknown,
        }
    }

    /// Orphans go to the first process of this system, never to a shim: there is nothing to clear away.
    pub(crate) fn reap_all_but(_left: u32) {}

    fn native(signal: Signal) -> signal::Signal {
        match signal {
            Signal::Terminate => signal::Signal::SIGTERM,
            Signal::Kill => signal::Signal::SIGKILL,
        }
    }

    fn done(result: nix::Result<()>) -> io::Result<()> {
        match result {
            Ok(()) | Err(Errno::ESRCH) => Ok(()),
            Err(errno) => Err(errno.into()),
        }
    }

    fn raw(pid: u32) -> io::Result<Pid> {
        i32::try_from(pid).map(Pid::from_raw).map_err(|_| io::ErrorKind::InvalidInput.into())
    }

    pub(crate) fn native_signal(pid: u32, signal: Signal) -> io::Result<()> {
        done(signal::kill(raw(pid)?, native(signal)))
    }

    pub(crate) fn native_signal_group(pid: u32, signal: Signal) -> io::Result<()> {
        done(signal::killpg(raw(pid)?, native(signal)))
    }
}
#[cfg(not(target_os = "linux"))]
pub(crate) use by_pid::{end_of_child, native_signal, native_signal_group, reap_all_but};
