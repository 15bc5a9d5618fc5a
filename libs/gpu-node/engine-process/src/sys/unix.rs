//! What Linux and macOS share.
#![expect(unsafe_code, reason = "code between fork and exec, and a question without a safe wrapper")]

use std::fs::{File, TryLockError};
use std::io::{self, Read, Write};
use std::net::{SocketAddr, ToSocketAddrs};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{
    AddressFamily, SockFlag, SockType, SockaddrIn, SockaddrIn6, bind, setsockopt, socket, sockopt,
};
use orch_core::ByteCount;

use super::{ProcessEntry, ProcessHandle, Signal};
use crate::detached::DetachedCommand;
use crate::ports::PortHolder;
use crate::private_files;
use crate::protocol::REPLY_LIMIT;
use crate::wait::wait_until;

/// Whether SIGHUP is ignored, as whoever started this program has asked for (`nohup`).
pub(crate) fn outlives_terminal() -> bool {
    use nix::libc;
    // SAFETY: all zero is a valid value of this plain structure; no action is set, and the call writes the present
    // one to it.
    let (result, action) = unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        (libc::sigaction(libc::SIGHUP, std::ptr::null(), &raw mut action), action)
    };
    result == 0 && action.sa_sigaction == libc::SIG_IGN
}

/// A tool with all that it started in its process group.
#[derive(Debug)]
pub(crate) struct ProcessGroup {
    /// `None` where the system has no such process; it would not be the one that was just started.
    leader: Option<ProcessHandle>,
}

/// Starts a tool in a process group of its own, so that all it starts can be signalled together.
pub(crate) fn spawn_group(command: &mut Command) -> io::Result<(Child, ProcessGroup)> {
    let mut child = command.process_group(0).spawn()?;
    match ProcessHandle::open(child.id()) {
        Ok(leader) => Ok((child, ProcessGroup { leader })),
        Err(error) => {
            // Nobody could end it later.
            let _ = child.kill();
            let _ = child.wait();
            Err(error)
        }
    }
}

impl ProcessGroup {
    /// Whether the tool itself ended within the limit.
    pub(crate) fn wait(&self, limit: Duration) -> bool {
        self.leader.as_ref().is_none_or(|leader| leader.wait(limit))
    }

    pub(crate) fn kill(&self) -> io::Result<()> {
        self.signal(Signal::Kill)
    }

    /// Asks all of it to end. `false` where the system has no polite way.
    pub(crate) fn ask_to_end(&self) -> bool {
        self.signal(Signal::Terminate).is_ok()
    }

    fn signal(&self, signal: Signal) -> io::Result<()> {
        self.leader.as_ref().map_or(Ok(()), |leader| leader.signal_group(signal))
    }
}

/// Lets the kernel kill the child when the thread that starts it ends, which it does with this process at the
/// latest. Only Linux can, and only for the child itself.
pub(crate) fn end_with_this_thread(command: &mut Command) {
    #[cfg(target_os = "linux")]
    {
        let parent = nix::unistd::getpid();
        // SAFETY: both calls are async-signal-safe and touch no memory of this process.
        unsafe {
            command.pre_exec(move || {
                nix::sys::prctl::set_pdeathsig(nix::sys::signal::Signal::SIGKILL)?;
                // Asked for too late where the parent is gone already.
                if nix::unistd::getppid() == parent { Ok(()) } else { Err(Errno::ESRCH.into()) }
            });
        }
    }
    #[cfg(not(target_os = "linux"))]
    let _ = command;
}

/// Starts a daemon in a session of its own: no terminal, no hang-up when the caller's terminal closes. Returns
/// its pid.
pub(crate) fn spawn_detached(command: &DetachedCommand, log: &File) -> io::Result<u32> {
    let mut child = Command::new(&command.executable);
    child.args(&command.args).envs(command.env.iter().map(|(name, value)| (name, value)));
    for name in &command.env_remove {
        child.env_remove(name);
    }
    if let Some(folder) = &command.working_dir {
        child.current_dir(folder);
    }
    child.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log.try_clone()?);
    // SAFETY: setsid is async-signal-safe and touches no memory of this process.
    unsafe {
        child.pre_exec(|| nix::unistd::setsid().map(drop).map_err(io::Error::from));
    }
    Ok(child.spawn()?.id())
}

/// Takes a lock if it is free this moment.
pub(crate) fn try_lock(path: &Path) -> io::Result<Option<File>> {
    let file = private_files::options().read(true).write(true).create(true).truncate(false).open(path)?;
    match file.try_lock() {
        Ok(()) => Ok(Some(file)),
        Err(TryLockError::WouldBlock) => Ok(None),
        Err(TryLockError::Error(error)) => Err(error),
    }
}

/// A shared lock is asked for and dropped at once. Takers of the real lock look more than once, so this look
/// cannot turn them away.
pub(crate) fn is_locked(path: &Path) -> bool {
    let Ok(file) = File::open(path) else { return false };
    matches!(file.try_lock_shared(), Err(TryLockError::WouldBlock))
}

/// Does something to a file. Nobody who has it open stands in the way here.
pub(crate) fn patiently(mut act: impl FnMut() -> io::Result<()>) -> io::Result<()> {
    act()
}

pub(crate) fn read_at(file: &File, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
    file.read_at(buffer, offset)
}

pub(crate) fn write_all_at(file: &File, bytes: &[u8], offset: u64) -> io::Result<()> {
    file.write_all_at(bytes, offset)
}

/// The unit in which the file's disk has its room.
pub(crate) fn block_size(file: &File) -> u64 {
    file.metadata().map_or(0, |metadata| metadata.blksize())
}

/// The processes of a group other than its leader.
pub(crate) fn group_members(table: &[ProcessEntry], leader: u32) -> Vec<ProcessEntry> {
    table.iter().filter(|entry| entry.group == leader).copied().collect()
}

/// What an unprivileged process may still write below a folder.
pub(crate) fn free_space(folder: &Path) -> Option<ByteCount> {
    let stats = nix::sys::statvfs::statvfs(folder).ok()?;
    // The types of both counts differ between systems.
    #[allow(clippy::useless_conversion, reason = "needed where the fields are 32 bits wide")]
    let bytes = u64::from(stats.blocks_available()).saturating_mul(u64::from(stats.fragment_size()));
    Some(ByteCount(bytes))
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

/// Who listens on a port, as far as that can be seen.
pub(crate) fn listener_on(port: u16) -> Option<PortHolder> {
    let listens = |socket: &listeners::Listener| {
        let tcp = socket.protocol == listeners::Protocol::TCP;
        tcp && socket.state == listeners::SocketState::Listen && socket.socket.port() == port
    };
    let socket = listeners::get_all().unwrap_or_default().into_iter().find(listens)?;
    Some(PortHolder { pid: Some(socket.process.pid), program: Some(program_name(socket.process)) })
}

/// The name of the program's file: the kernel's own name of a process ends after 15 letters. A file that cannot be
/// seen leaves that name.
fn program_name(process: listeners::Process) -> String {
    let path = process.path.trim_end_matches(" (deleted)");
    let file = Path::new(path).file_name().map(|name| name.to_string_lossy().into_owned());
    file.unwrap_or(process.name)
}

/// Starts a process, gives it a text on stdin, and reads its answer, one line on stdout. Every step is bounded
/// by the one limit. The process itself is expected to end soon (a shim leaves a grandchild behind).
pub(crate) fn converse(program: &Path, args: &[&str], text: &[u8], limit: Duration) -> io::Result<Vec<u8>> {
    let end = Instant::now() + limit;
    let mut command = Command::new(program);
    command.args(args).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
    // A daemon's environment may hold tokens; a process that lives for weeks has no use for them.
    let mut child = command.env_clear().spawn()?;
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

#[cfg(test)]
mod tests {
    use super::*;

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
}
