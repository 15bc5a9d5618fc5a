//! Processes: looked at, listed, waited for and ended through handles.
#![expect(unsafe_code, reason = "processes of others have no safe wrapper")]

use std::ffi::{OsString, c_void};
use std::io;
use std::os::windows::ffi::OsStringExt;
use std::os::windows::io::{AsHandle, AsRawHandle, BorrowedHandle, OwnedHandle};
use std::path::{Path, PathBuf};
use std::time::Duration;

use orch_core::ByteCount;
use windows_sys::Wdk::System::Threading::{
    NtQueryInformationProcess, ProcessBasicInformation, ProcessCommandLineInformation,
};
use windows_sys::Win32::Foundation::{
    ERROR_ACCESS_DENIED, ERROR_INVALID_PARAMETER, FILETIME, UNICODE_STRING, WAIT_OBJECT_0,
};
use windows_sys::Win32::System::Diagnostics::Debug::ReadProcessMemory;
use windows_sys::Win32::System::Diagnostics::ToolHelp::{
    CreateToolhelp32Snapshot, PROCESSENTRY32W, Process32FirstW, Process32NextW, TH32CS_SNAPPROCESS,
};
use windows_sys::Win32::System::ProcessStatus::{K32GetProcessMemoryInfo, PROCESS_MEMORY_COUNTERS};
use windows_sys::Win32::System::Threading::{
    GetCurrentProcess, GetExitCodeProcess, GetProcessId, GetProcessIoCounters, GetProcessTimes, IO_COUNTERS,
    OpenProcess, PEB, PROCESS_BASIC_INFORMATION, PROCESS_QUERY_INFORMATION,
    PROCESS_QUERY_LIMITED_INFORMATION, PROCESS_SYNCHRONIZE, PROCESS_TERMINATE, PROCESS_VM_READ,
    QueryFullProcessImageNameW, RTL_USER_PROCESS_PARAMETERS, SetProcessWorkingSetSize, TerminateProcess,
    WaitForSingleObject,
};

use super::handles::{done, owned};
use super::{ENDED_BY_US, EndRequests, Job, command_line};
use crate::identity::{ProcessSight, ProcessUsage, Sight, StartMark};
use crate::locks;
use crate::sys::{End, ProcessEntry, Signal};

/// The longest path the system knows, in UTF-16 units.
const PATH_LIMIT: usize = 32 * 1024;
/// A `UNICODE_STRING` and the longest text that it can hold.
const COMMAND_LINE_LIMIT: usize = size_of::<UNICODE_STRING>() + 64 * 1024;
const LOOK: u32 = PROCESS_QUERY_LIMITED_INFORMATION | PROCESS_SYNCHRONIZE;
const HUNDRED_NANOSECONDS_PER_MILLISECOND: u64 = 10_000;

/// `None` when there is no such process.
fn open(pid: u32, rights: u32) -> io::Result<Option<OwnedHandle>> {
    // SAFETY: plain numbers.
    let opened = owned(unsafe { OpenProcess(rights, 0, pid) });
    let handle = match opened {
        Ok(handle) => handle,
        Err(error) if error.raw_os_error() == Some(ERROR_INVALID_PARAMETER.cast_signed()) => return Ok(None),
        Err(error) => return Err(error),
    };
    // The system leaves out the last two bits when it looks a number up.
    // SAFETY: an open handle.
    Ok((unsafe { GetProcessId(handle.as_raw_handle()) } == pid).then_some(handle))
}

/// A process that can be looked at and has not ended. One that has ended is still there while anybody holds it.
fn look(pid: u32) -> Option<OwnedHandle> {
    open(pid, LOOK).ok().flatten().filter(|handle| !has_ended(handle, Duration::ZERO))
}

fn has_ended(handle: &OwnedHandle, limit: Duration) -> bool {
    let milliseconds = u32::try_from(limit.as_millis()).unwrap_or(u32::MAX - 1);
    // SAFETY: an open handle.
    unsafe { WaitForSingleObject(handle.as_raw_handle(), milliseconds) == WAIT_OBJECT_0 }
}

/// When it began and how long it computed, in units of 100 ns.
fn times(handle: &OwnedHandle) -> Option<(u64, u64)> {
    let mut times = [FILETIME::default(); 4];
    let [created, ended, kernel, user] = &mut times;
    // SAFETY: an open handle and four structures to be written.
    done(unsafe { GetProcessTimes(handle.as_raw_handle(), created, ended, kernel, user) }).ok()?;
    let number = |time: FILETIME| u64::from(time.dwHighDateTime) << 32 | u64::from(time.dwLowDateTime);
    Some((number(times[0]), number(times[2]) + number(times[3])))
}

fn created(handle: &OwnedHandle) -> Option<u64> {
    times(handle).map(|(created, _)| created)
}

/// The system notes the moment once, when the process begins: later steps of the clock do not change it.
fn mark_of(created: u64) -> StartMark {
    StartMark(created.to_string())
}

pub(crate) fn start_mark(pid: u32) -> Option<StartMark> {
    created(&look(pid)?).map(mark_of)
}

pub(crate) fn sight(pid: u32) -> Sight {
    let handle = match open(pid, LOOK) {
        Ok(Some(handle)) if !has_ended(&handle, Duration::ZERO) => handle,
        Ok(_) => return Sight::Gone,
        Err(error) => return Sight::Denied(format!("pid {pid} cannot be looked at: {error}")),
    };
    let Some(created) = created(&handle) else {
        return Sight::Denied(format!("the start time of pid {pid} cannot be seen"));
    };
    Sight::Seen(ProcessSight {
        started_at: mark_of(created),
        executable: executable_of(&handle),
        args: args_behind(pid, &handle),
    })
}

fn executable_of(handle: &OwnedHandle) -> Option<PathBuf> {
    let mut path = vec![0; PATH_LIMIT];
    let mut length = path.len() as u32;
    // SAFETY: an open handle and a buffer whose length is told.
    let told =
        unsafe { QueryFullProcessImageNameW(handle.as_raw_handle(), 0, path.as_mut_ptr(), &raw mut length) };
    done(told).ok()?;
    Some(OsString::from_wide(path.get(..length as usize)?).into())
}

/// The command line; empty where it cannot be seen.
pub(crate) fn args_of(pid: u32) -> Vec<String> {
    look(pid).map(|handle| args_behind(pid, &handle)).unwrap_or_default()
}

fn args_behind(pid: u32, handle: &OwnedHandle) -> Vec<String> {
    let line = told_command_line(handle).or_else(|| command_line_in_memory(pid));
    line.map(|units| command_line::split(&String::from_utf16_lossy(&units))).unwrap_or_default()
}

fn told_command_line(handle: &OwnedHandle) -> Option<Vec<u16>> {
    // Of a type that is aligned as the structure at its beginning.
    let mut buffer = vec![0_usize; COMMAND_LINE_LIMIT / size_of::<usize>()];
    let size = size_of_val(buffer.as_slice()) as u32;
    let mut used = 0;
    // SAFETY: an open handle and a buffer whose size is told.
    let status = unsafe {
        let to = buffer.as_mut_ptr().cast();
        NtQueryInformationProcess(
            handle.as_raw_handle(),
            ProcessCommandLineInformation,
            to,
            size,
            &raw mut used,
        )
    };
    if status < 0 {
        return None;
    }
    // SAFETY: the call has put the structure there, and its text behind it in the same buffer.
    unsafe {
        let text = &*buffer.as_ptr().cast::<UNICODE_STRING>();
        Some(std::slice::from_raw_parts(text.Buffer, usize::from(text.Length) / 2).to_vec())
    }
}

/// Where the system does not know the question, as Wine: the process's own copy.
fn command_line_in_memory(pid: u32) -> Option<Vec<u16>> {
    let handle = open(pid, PROCESS_QUERY_INFORMATION | PROCESS_VM_READ).ok()??;
    let mut basic = PROCESS_BASIC_INFORMATION::default();
    let mut used = 0;
    // SAFETY: an open handle and a structure whose size is told.
    let status = unsafe {
        let size = size_of_val(&basic) as u32;
        let to = (&raw mut basic).cast();
        NtQueryInformationProcess(handle.as_raw_handle(), ProcessBasicInformation, to, size, &raw mut used)
    };
    if status < 0 {
        return None;
    }
    let block: PEB = copy_from(&handle, basic.PebBaseAddress)?;
    let parameters: RTL_USER_PROCESS_PARAMETERS = copy_from(&handle, block.ProcessParameters)?;
    let text = parameters.CommandLine;
    let mut units = vec![0_u16; usize::from(text.Length) / 2];
    copy_bytes(&handle, text.Buffer.cast(), units.as_mut_ptr().cast(), size_of_val(units.as_slice()))?;
    Some(units)
}

/// A plain structure of the system's from another process's memory.
fn copy_from<T>(handle: &OwnedHandle, address: *const T) -> Option<T> {
    let mut value = std::mem::MaybeUninit::<T>::uninit();
    copy_bytes(handle, address.cast(), value.as_mut_ptr().cast(), size_of::<T>())?;
    // SAFETY: all its bytes were written, and any bytes are a value of the structures that this is used for.
    Some(unsafe { value.assume_init() })
}

fn copy_bytes(handle: &OwnedHandle, from: *const c_void, to: *mut c_void, size: usize) -> Option<()> {
    // SAFETY: the system checks the address in the other process; there is room for so many bytes here.
    done(unsafe { ReadProcessMemory(handle.as_raw_handle(), from, to, size, std::ptr::null_mut()) }).ok()
}

/// The table's row for one pid.
pub(crate) fn process_entry(pid: u32) -> Option<ProcessEntry> {
    let entry = snapshot().into_iter().find(|entry| entry.pid == pid)?;
    let started = created(&look(pid)?)?;
    Some(ProcessEntry { started, ..entry })
}

/// Every process that can be looked at.
pub(crate) fn process_table() -> Vec<ProcessEntry> {
    let with_start = |entry: ProcessEntry| {
        let started = created(&look(entry.pid)?)?;
        Some(ProcessEntry { started, ..entry })
    };
    snapshot().into_iter().filter_map(with_start).collect()
}

/// Pids and parents. A parent is only a number, which may mean another process by now.
fn snapshot() -> Vec<ProcessEntry> {
    // SAFETY: plain numbers.
    let Ok(snapshot) = owned(unsafe { CreateToolhelp32Snapshot(TH32CS_SNAPPROCESS, 0) }) else {
        return Vec::new();
    };
    let mut row = PROCESSENTRY32W { dwSize: size_of::<PROCESSENTRY32W>() as u32, ..Default::default() };
    let mut found = Vec::new();
    // SAFETY: an open snapshot and a structure that tells its own size.
    let mut more = unsafe { Process32FirstW(snapshot.as_raw_handle(), &raw mut row) } != 0;
    while more {
        let (pid, parent) = (row.th32ProcessID, row.th32ParentProcessID);
        found.push(ProcessEntry { pid, parent, group: 0, started: 0, zombie: false });
        // SAFETY: as above.
        more = unsafe { Process32NextW(snapshot.as_raw_handle(), &raw mut row) } != 0;
    }
    found
}

pub(crate) fn usage(pid: u32) -> Option<ProcessUsage> {
    let handle = look(pid)?;
    let mut memory = PROCESS_MEMORY_COUNTERS::default();
    let size = size_of_val(&memory) as u32;
    // SAFETY: an open handle and a structure whose size is told.
    done(unsafe { K32GetProcessMemoryInfo(handle.as_raw_handle(), &raw mut memory, size) }).ok()?;
    let (_, computed) = times(&handle)?;
    Some(ProcessUsage {
        resident: ByteCount(memory.WorkingSetSize as u64),
        processor_time: Duration::from_millis(computed / HUNDRED_NANOSECONDS_PER_MILLISECOND),
    })
}

pub(crate) fn bytes_read(pid: u32) -> Option<u64> {
    let handle = look(pid)?;
    let mut counters = IO_COUNTERS::default();
    // SAFETY: an open handle and a structure to be written.
    done(unsafe { GetProcessIoCounters(handle.as_raw_handle(), &raw mut counters) }).ok()?;
    Some(counters.ReadTransferCount)
}

/// Not counted by this system.
pub(crate) fn memory_kills() -> Option<u64> {
    None
}

/// Lets go of the pages that were only needed so far; those that are needed again come back by themselves.
pub(crate) fn forget_code() {
    // SAFETY: this process itself, and the two numbers that ask for just that.
    unsafe { SetProcessWorkingSetSize(GetCurrentProcess(), usize::MAX, usize::MAX) };
}

/// The job of a process is its group.
pub(crate) fn group_members(table: &[ProcessEntry], leader: u32) -> Vec<ProcessEntry> {
    let job = table.iter().find(|entry| entry.pid == leader).and_then(|entry| Job::of(leader, entry.started));
    let pids = job.map(|job| job.members()).unwrap_or_default();
    table.iter().filter(|entry| pids.contains(&entry.pid)).copied().collect()
}

/// Who shares the lock of an engine: the members of the engine's job, which the text inside leads to. Only what
/// inherited the engine's handles can still hold the lock after its end, and that holds the job's name as well.
pub(crate) fn lock_sharers(path: &Path) -> Vec<ProcessEntry> {
    let engine = locks::read_text(path).and_then(|holder| holder.engine);
    let job = engine.and_then(|engine| Job::of(engine.pid, engine.started_at.0.parse().ok()?));
    let pids = job.map(|job| job.members()).unwrap_or_default();
    process_table().into_iter().filter(|entry| pids.contains(&entry.pid)).collect()
}

/// Not told by this system.
pub(crate) fn inherited_lock(_pid: u32) -> Option<PathBuf> {
    None
}

/// A process held by a handle: it means this process for ever, and its pid is not reused meanwhile.
#[derive(Debug)]
pub(crate) struct ProcessHandle {
    pid: u32,
    created: u64,
    handle: OwnedHandle,
}

impl ProcessHandle {
    /// `None` when there is no such process.
    pub(crate) fn open(pid: u32) -> io::Result<Option<Self>> {
        let handle = match open(pid, LOOK | PROCESS_TERMINATE) {
            // One that may not be ended can still be waited for.
            Err(error) if error.raw_os_error() == Some(ERROR_ACCESS_DENIED.cast_signed()) => open(pid, LOOK)?,
            other => other?,
        };
        handle.filter(|handle| !has_ended(handle, Duration::ZERO)).map(Self::from_handle).transpose()
    }

    pub(super) fn from_handle(handle: OwnedHandle) -> io::Result<Self> {
        let created = created(&handle).ok_or_else(io::Error::last_os_error)?;
        // SAFETY: an open handle.
        let pid = unsafe { GetProcessId(handle.as_raw_handle()) };
        Ok(Self { pid, created, handle })
    }

    pub(crate) fn pid(&self) -> u32 {
        self.pid
    }

    pub(crate) fn created(&self) -> u64 {
        self.created
    }

    pub(crate) fn start_mark(&self) -> StartMark {
        mark_of(self.created)
    }

    /// Whether the process ended within the limit.
    pub(crate) fn wait(&self, limit: Duration) -> bool {
        has_ended(&self.handle, limit)
    }

    /// How it ended, which it has. Whoever holds a handle is told, not only a parent.
    pub(crate) fn end(&self) -> End {
        let mut code = 0;
        // SAFETY: an open handle and a number to be written.
        match done(unsafe { GetExitCodeProcess(self.handle.as_raw_handle(), &raw mut code) }) {
            Ok(()) => End::Code(code.cast_signed()),
            Err(_) => End::Unknown,
        }
    }

    /// Asks or ends this process and no other. One that has ended is no error; `Unsupported` when it cannot be
    /// asked.
    pub(crate) fn signal(&self, signal: Signal) -> io::Result<()> {
        if self.wait(Duration::ZERO) {
            return Ok(());
        }
        match signal {
            Signal::Terminate => EndRequests::make(self.pid, self.created),
            Signal::Kill => self.terminate(),
        }
    }

    fn terminate(&self) -> io::Result<()> {
        // SAFETY: an open handle.
        let ended = done(unsafe { TerminateProcess(self.handle.as_raw_handle(), ENDED_BY_US) });
        // One that is ending already is refused.
        if ended.is_err() && self.wait(Duration::from_millis(100)) { Ok(()) } else { ended }
    }

    /// The same for it and all that it started.
    pub(crate) fn signal_group(&self, signal: Signal) -> io::Result<()> {
        match (signal, Job::of(self.pid, self.created)) {
            (Signal::Kill, Some(job)) => job.kill(),
            (signal, _) => self.signal(signal),
        }
    }
}

impl AsHandle for ProcessHandle {
    fn as_handle(&self) -> BorrowedHandle<'_> {
        self.handle.as_handle()
    }
}
