//! Linux: `/proc` to look, pid file descriptors to wait and to signal.
#![expect(unsafe_code, reason = "pidfd_open and pidfd_send_signal have no safe wrapper")]

use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{FallocateFlags, fallocate};
use nix::libc;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid, waitpid};
use orch_core::ByteCount;

use super::{End, ProcessEntry, Signal};
use crate::identity::{ProcessSight, ProcessUsage, Sight, StartMark};
use crate::private_files::read_bounded;

/// Larger than any command line the kernel accepts by default for our arguments.
const COMMAND_LINE_LIMIT: u64 = 4 * 1024 * 1024;
const SMALL_FILE_LIMIT: u64 = 64 * 1024;

/// The fields of `/proc/<pid>/stat` that matter here.
struct Stat {
    state: u8,
    entry: ProcessEntry,
    processor_ticks: u64,
}

fn proc_file(pid: u32, name: &str) -> PathBuf {
    PathBuf::from(format!("/proc/{pid}/{name}"))
}

fn read_stat(pid: u32) -> io::Result<Stat> {
    let text = read_bounded(&proc_file(pid, "stat"), SMALL_FILE_LIMIT)?;
    parse_stat(pid, &text).ok_or_else(|| io::Error::other("unreadable process status"))
}

/// The name in parentheses may itself hold spaces and parentheses, so the fields are counted from the last one.
fn parse_stat(pid: u32, text: &[u8]) -> Option<Stat> {
    let end_of_name = text.iter().rposition(|&byte| byte == b')')?;
    let rest = std::str::from_utf8(text.get(end_of_name + 1..)?).ok()?;
    let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
    let number = |index: usize| fields.get(index)?.parse::<u64>().ok();
    let state = *fields.first()?.as_bytes().first()?;
    let entry = ProcessEntry {
        pid,
        parent: number(1)? as u32,
        group: number(2)? as u32,
        started: number(19)?,
        zombie: matches!(state, b'Z' | b'X'),
    };
    Some(Stat { state, entry, processor_ticks: number(11)? + number(12)? })
}

/// The same for as long as this process lives.
fn boot_id() -> &'static str {
    static BOOT_ID: OnceLock<String> = OnceLock::new();
    BOOT_ID.get_or_init(|| {
        let path = Path::new("/proc/sys/kernel/random/boot_id");
        let text = read_bounded(path, SMALL_FILE_LIMIT).unwrap_or_default();
        String::from_utf8_lossy(&text).trim().to_owned()
    })
}

fn mark_of(entry: &ProcessEntry) -> StartMark {
    StartMark(format!("{}:{}", boot_id(), entry.started))
}

pub(crate) fn sight(pid: u32) -> Sight {
    let stat = match read_stat(pid) {
        Ok(stat) => stat,
        Err(error) => return unseen(pid, &error),
    };
    if stat.entry.zombie {
        return Sight::Gone;
    }
    let executable = match fs::read_link(proc_file(pid, "exe")) {
        Ok(path) => Some(path),
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => None,
        // It ended between the two looks, or it is a thread of the kernel.
        Err(_) if process_entry(pid).is_none_or(|now| now.zombie) => return Sight::Gone,
        Err(_) => None,
    };
    Sight::Seen(ProcessSight { started_at: mark_of(&stat.entry), executable, args: args_of(pid) })
}

/// A process without a visible entry is gone, or hidden from us by the mount options of `/proc`.
fn unseen(pid: u32, error: &io::Error) -> Sight {
    let Some(target) = nix_pid(pid) else { return Sight::Gone };
    match nix::sys::signal::kill(target, None) {
        Err(Errno::ESRCH) => Sight::Gone,
        Err(Errno::EPERM) => Sight::Denied(format!("pid {pid} is hidden")),
        _ if process_entry(pid).is_none() && error.kind() == io::ErrorKind::NotFound => Sight::Gone,
        _ => Sight::Denied(format!("pid {pid} cannot be looked at: {error}")),
    }
}

fn nix_pid(pid: u32) -> Option<nix::unistd::Pid> {
    i32::try_from(pid).ok().filter(|&raw| raw > 0).map(nix::unistd::Pid::from_raw)
}

/// The command line; empty where it cannot be seen.
pub(crate) fn args_of(pid: u32) -> Vec<String> {
    let bytes = read_bounded(&proc_file(pid, "cmdline"), COMMAND_LINE_LIMIT).unwrap_or_default();
    let mut args: Vec<String> =
        bytes.split(|&byte| byte == 0).map(|arg| String::from_utf8_lossy(arg).into_owned()).collect();
    args.pop();
    args
}

pub(crate) fn start_mark(pid: u32) -> Option<StartMark> {
    process_entry(pid).filter(|entry| !entry.zombie).map(|entry| mark_of(&entry))
}

/// The start mark of our own child, also when it has ended and waits to be reaped.
pub(crate) fn mark_of_child(pid: u32) -> Option<StartMark> {
    process_entry(pid).map(|entry| mark_of(&entry))
}

/// Where the last read or write of a process through one of its descriptors ended.
pub(crate) fn file_position(pid: u32, descriptor: u32) -> Option<u64> {
    let path = proc_file(pid, "fdinfo").join(descriptor.to_string());
    number_after(&read_bounded(&path, SMALL_FILE_LIMIT).ok()?, "pos:")
}

/// The table's row for one pid, zombies included.
pub(crate) fn process_entry(pid: u32) -> Option<ProcessEntry> {
    read_stat(pid).ok().map(|stat| stat.entry)
}

/// Every process that can be seen.
pub(crate) fn process_table() -> Vec<ProcessEntry> {
    pids().filter_map(process_entry).collect()
}

fn pids() -> impl Iterator<Item = u32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

pub(crate) fn usage(pid: u32) -> Option<ProcessUsage> {
    let stat = read_stat(pid).ok()?;
    if matches!(stat.state, b'Z' | b'X') {
        return None;
    }
    let statm = read_bounded(&proc_file(pid, "statm"), SMALL_FILE_LIMIT).ok()?;
    let pages: u64 = String::from_utf8_lossy(&statm).split_ascii_whitespace().nth(1)?.parse().ok()?;
    let page_size = configured(nix::unistd::SysconfVar::PAGE_SIZE)?;
    let ticks_per_second = configured(nix::unistd::SysconfVar::CLK_TCK)?.max(1);
    Some(ProcessUsage {
        resident: ByteCount(pages * page_size),
        processor_time: Duration::from_millis(stat.processor_ticks * 1000 / ticks_per_second),
    })
}

fn configured(variable: nix::unistd::SysconfVar) -> Option<u64> {
    nix::unistd::sysconf(variable).ok().flatten().and_then(|value| u64::try_from(value).ok())
}

pub(crate) fn bytes_read(pid: u32) -> Option<u64> {
    let text = read_bounded(&proc_file(pid, "io"), SMALL_FILE_LIMIT).ok()?;
    number_after(&text, "rchar: ")
}

/// How many processes the kernel has killed for want of memory since it booted.
pub(crate) fn memory_kills() -> Option<u64> {
    number_after(&read_bounded(Path::new("/proc/vmstat"), SMALL_FILE_LIMIT).ok()?, "oom_kill ")
}

fn number_after(text: &[u8], label: &str) -> Option<u64> {
    let text = std::str::from_utf8(text).ok()?;
    text.lines().find_map(|line| line.strip_prefix(label)?.trim().parse().ok())
}

/// The processes that hold the very lock on this file, by an inherited descriptor. Whoever merely has the file
/// open is not among them: the kernel lists a lock only with the open file it was taken through.
pub(crate) fn lock_sharers(path: &Path) -> Vec<ProcessEntry> {
    let Ok(lock) = fs::metadata(path) else { return Vec::new() };
    let shares = |entry: &ProcessEntry| holds_lock(entry.pid, (lock.dev(), lock.ino())).unwrap_or(false);
    process_table().into_iter().filter(shares).collect()
}

fn holds_lock(pid: u32, file: (u64, u64)) -> io::Result<bool> {
    let locked = locked_descriptors(pid)?;
    // Metadata follows the link to the open file itself.
    Ok(locked.iter().filter_map(|path| fs::metadata(path).ok()).any(|open| (open.dev(), open.ino()) == file))
}

/// The file whose lock an engine inherited from its shim.
pub(crate) fn inherited_lock(pid: u32) -> Option<PathBuf> {
    let files = locked_descriptors(pid).ok()?.into_iter().filter_map(|path| fs::read_link(path).ok());
    files.into_iter().find(|file| file.to_string_lossy().ends_with(".engine.lock"))
}

/// The descriptors of a process that hold a file lock, as paths under `/proc`.
fn locked_descriptors(pid: u32) -> io::Result<Vec<PathBuf>> {
    let holds = |path: &PathBuf| {
        let info = path.file_name().map(|number| proc_file(pid, "fdinfo").join(number));
        let text = info.and_then(|info| read_bounded(&info, SMALL_FILE_LIMIT).ok()).unwrap_or_default();
        String::from_utf8_lossy(&text).lines().any(|line| line.starts_with("lock:"))
    };
    let descriptors = fs::read_dir(proc_file(pid, "fd"))?.flatten().map(|entry| entry.path());
    Ok(descriptors.filter(holds).collect())
}

/// How our own child ended, which it has. It stays unreaped, so that its pid and group remain its own.
pub(crate) fn end_of_child(pid: u32) -> End {
    let Some(target) = nix_pid(pid) else { return End::Unknown };
    loop {
        match waitid(Id::Pid(target), WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT) {
            Ok(WaitStatus::Exited(_, code)) => return End::Code(code),
            Ok(WaitStatus::Signaled(_, signal, _)) => return End::Signal(signal as i32),
            Err(Errno::EINTR) => {}
            _ => return End::Unknown,
        }
    }
}

/// Clears away children that have ended, up to the one that is to be left.
pub(crate) fn reap_all_but(left: u32) {
    let look = WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT;
    while let Ok(status) = waitid(Id::All, look) {
        match status.pid() {
            Some(pid) if Some(pid) != nix_pid(left) => drop(waitpid(pid, Some(WaitPidFlag::WNOHANG))),
            _ => return,
        }
    }
}

/// Takes the first bytes out of a file, so that what follows becomes its beginning; writers that append go on as if
/// nothing had happened. `bytes` are whole blocks and not the whole file. `false` where the file system cannot.
pub(crate) fn take_out_head(file: &fs::File, bytes: u64) -> bool {
    let Ok(length) = libc::off_t::try_from(bytes) else { return false };
    fallocate(file, FallocateFlags::FALLOC_FL_COLLAPSE_RANGE, 0, length).is_ok()
}

/// Lets go of the program's pages of code and constants that were only needed so far. The few that a loop runs through come back
/// by themselves, from the page cache; a shim, which runs in a binary many times its size, shrinks by megabytes.
pub(crate) fn forget_code() {
    let maps = read_bounded(Path::new("/proc/self/maps"), SMALL_FILE_LIMIT).unwrap_or_default();
    let executable = fs::read_link("/proc/self/exe").unwrap_or_default();
    for line in String::from_utf8_lossy(&maps).lines() {
        let Some((start, end)) = unwritten_range(line, &executable) else { continue };
        // SAFETY: the range is a mapping of this program's own file that was never written, so it comes back as
        // it was; nothing but a page fault can tell.
        unsafe { libc::madvise(start as *mut libc::c_void, end - start, libc::MADV_DONTNEED) };
    }
}

/// The range of a line of the memory map, if it is code of this program or the constants at the head of its
/// file. Constants further behind hold addresses that the loader wrote, and must stay.
fn unwritten_range(line: &str, executable: &Path) -> Option<(usize, usize)> {
    let mut fields = line.split_ascii_whitespace();
    let (start, end) = fields.next()?.split_once('-')?;
    let (rights, offset) = (fields.next()?, fields.next()?);
    let file = Path::new(line.get(line.find('/')?..)?);
    let unwritten = rights == "r-xp" || (rights == "r--p" && offset == "00000000");
    let range = (usize::from_str_radix(start, 16).ok()?, usize::from_str_radix(end, 16).ok()?);
    (unwritten && file == executable && range.0 < range.1).then_some(range)
}

/// A process held by a file descriptor: it means this process for ever, even after the pid is reused.
#[derive(Debug)]
pub(crate) struct ProcessHandle {
    pid: u32,
    descriptor: OwnedFd,
}

/// `PIDFD_SIGNAL_PROCESS_GROUP`, since Linux 6.9.
const TO_PROCESS_GROUP: libc::c_uint = 1 << 2;

impl ProcessHandle {
    /// `None` when there is no such process.
    pub(crate) fn open(pid: u32) -> io::Result<Option<Self>> {
        let Some(target) = nix_pid(pid) else { return Ok(None) };
        // SAFETY: the call takes two integers and returns a new descriptor or -1.
        let raw = unsafe { libc::syscall(libc::SYS_pidfd_open, target.as_raw(), 0) };
        match Errno::result(raw) {
            Ok(raw) => {
                // SAFETY: the kernel just gave us this descriptor; nobody else owns it.
                let descriptor = unsafe { OwnedFd::from_raw_fd(raw as i32) };
                Ok(Some(Self { pid, descriptor }))
            }
            Err(Errno::ESRCH) => Ok(None),
            Err(errno) => Err(errno.into()),
        }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.pid
    }

    /// Whether the process ended within the limit. A zombie has ended.
    pub(crate) fn wait(&self, limit: Duration) -> bool {
        let end = Instant::now() + limit;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            let timeout =
                PollTimeout::try_from(left + Duration::from_micros(999)).unwrap_or(PollTimeout::MAX);
            let mut watched = [PollFd::new(self.descriptor.as_fd(), PollFlags::POLLIN)];
            match poll(&mut watched, timeout) {
                Ok(0) | Err(Errno::EINTR) if Instant::now() < end => {}
                Ok(ready) => return ready > 0,
                Err(_) => return false,
            }
        }
    }

    /// Signals this process and no other. One that has ended is no error.
    pub(crate) fn signal(&self, signal: Signal) -> io::Result<()> {
        self.send(signal, 0)
    }

    /// Signals the group this process leads. On kernels without the call for it, its members one by one.
    pub(crate) fn signal_group(&self, signal: Signal) -> io::Result<()> {
        match self.send(signal, TO_PROCESS_GROUP) {
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => self.signal_members(signal),
            other => other,
        }
    }

    fn signal_members(&self, signal: Signal) -> io::Result<()> {
        let group = self.pid;
        for entry in process_table().iter().filter(|entry| entry.group == group && entry.pid != group) {
            let Some(member) = Self::open(entry.pid)? else { continue };
            if process_entry(entry.pid).is_some_and(|now| now.started == entry.started) {
                member.signal(signal)?;
            }
        }
        self.signal(signal)
    }

    fn send(&self, signal: Signal, flags: libc::c_uint) -> io::Result<()> {
        let number = match signal {
            Signal::Terminate => libc::SIGTERM,
            Signal::Kill => libc::SIGKILL,
        };
        let information = std::ptr::null::<libc::siginfo_t>();
        // SAFETY: an owned descriptor, plain integers and a null pointer, which the call allows.
        let raw = unsafe {
            libc::syscall(
                libc::SYS_pidfd_send_signal,
                self.descriptor.as_raw_fd(),
                number,
                information,
                flags,
            )
        };
        match Errno::result(raw) {
            Ok(_) | Err(Errno::ESRCH) => Ok(()),
            Err(errno) => Err(errno.into()),
        }
    }
}

impl AsFd for ProcessHandle {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.descriptor.as_fd()
    }
}

impl AsRawFd for ProcessHandle {
    fn as_raw_fd(&self) -> i32 {
        self.descriptor.as_raw_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_spaces_and_parentheses_does_not_shift_the_fields() {
        let text =
            b"42 (a) R b) S 7 40 39 0 -1 4194560 1 0 0 0 5 6 0 0 20 0 1 0 12345 1000 10 18446744073709551615";
        let stat = parse_stat(42, text).unwrap();
        assert_eq!(stat.entry, ProcessEntry { pid: 42, parent: 7, group: 40, started: 12345, zombie: false });
        assert_eq!(stat.processor_ticks, 11);
    }

    #[test]
    fn a_torn_status_is_no_status() {
        assert!(parse_stat(1, b"42 (a").is_none());
        assert!(parse_stat(1, b"42 (a) S 1").is_none());
    }

    #[test]
    fn only_what_nobody_wrote_to_is_let_go_of() {
        let program = Path::new("/opt/my program");
        let range = |rights: &str, offset: &str, file: &str| {
            unwritten_range(&format!("55d0-55e0 {rights} {offset} fd:00 42      {file}"), program)
        };
        let own = "/opt/my program";
        assert_eq!(range("r-xp", "00052000", own), Some((0x55d0, 0x55e0)));
        assert_eq!(range("r--p", "00000000", own), Some((0x55d0, 0x55e0)));
        assert_eq!(range("r--p", "01103000", own), None, "relocated constants");
        assert_eq!(range("rw-p", "00000000", own), None);
        assert_eq!(range("r-xp", "00000000", "/lib/libc.so.6"), None);
        assert_eq!(unwritten_range("7ff0-7ff1 r-xp 00000000 00:00 0   [vdso]", program), None);
        forget_code();
    }

    #[test]
    fn the_process_table_has_this_process() {
        let pid = std::process::id();
        assert!(process_table().iter().any(|entry| entry.pid == pid));
    }

    #[test]
    fn only_the_open_file_that_holds_the_lock_counts_as_sharing_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.lock");
        let locked = fs::File::create(&path).unwrap();
        let _reader = fs::File::open(&path).unwrap();
        assert!(lock_sharers(&path).is_empty());
        locked.try_lock().unwrap();
        let pids: Vec<u32> = lock_sharers(&path).iter().map(|entry| entry.pid).collect();
        assert_eq!(pids, [std::process::id()]);
    }
}
