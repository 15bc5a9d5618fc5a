//! Births: processes that inherit exactly what they are meant to.
//!
//! Children inherit every handle that is inheritable at the moment of their birth. A daemon would keep the pipe
//! open through which somebody reads a command's output; so the handles are listed here, and births of this
//! process happen one after the other.
#![expect(unsafe_code, reason = "the list of inherited handles has no safe wrapper")]

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::windows::io::{AsHandle, AsRawHandle, BorrowedHandle, OwnedHandle};
use std::os::windows::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command};
use std::sync::mpsc::sync_channel;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use windows_sys::Win32::Foundation::{ERROR_ACCESS_DENIED, HANDLE};
use windows_sys::Win32::System::Diagnostics::ToolHelp::{
    CreateToolhelp32Snapshot, TH32CS_SNAPTHREAD, THREADENTRY32, Thread32First, Thread32Next,
};
use windows_sys::Win32::System::Threading::{
    CREATE_BREAKAWAY_FROM_JOB, CREATE_NO_WINDOW, CREATE_SUSPENDED, CREATE_UNICODE_ENVIRONMENT,
    CreateProcessW, DeleteProcThreadAttributeList, EXTENDED_STARTUPINFO_PRESENT,
    InitializeProcThreadAttributeList, OpenThread, PROC_THREAD_ATTRIBUTE_HANDLE_LIST, PROCESS_INFORMATION,
    ResumeThread, STARTF_USESTDHANDLES, STARTUPINFOEXW, THREAD_SUSPEND_RESUME, UpdateProcThreadAttribute,
};

use super::handles::{done, inheritable, owned, wide};
use super::{Job, ProcessHandle, command_line};
use crate::detached::DetachedCommand;
use crate::protocol::REPLY_LIMIT;
use crate::spec::EngineSpec;
use crate::sys::Signal;

/// Births one after the other: a child that inherits whatever is inheritable must not be born while another
/// one's handles are.
static BIRTHS: Mutex<()> = Mutex::new(());

fn one_birth_at_a_time() -> MutexGuard<'static, ()> {
    BIRTHS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What a child is to be.
struct Birth<'a> {
    program: &'a Path,
    args: Vec<&'a str>,
    env: &'a [(OsString, OsString)],
    working_dir: Option<&'a Path>,
    /// stdin, stdout, stderr.
    streams: [BorrowedHandle<'a>; 3],
    /// Inherited as well.
    also: Option<BorrowedHandle<'a>>,
    flags: u32,
}

/// A child, and its first thread, which may still be suspended.
struct Newborn {
    process: ProcessHandle,
    thread: OwnedHandle,
}

impl Birth<'_> {
    fn happen(&self) -> io::Result<Newborn> {
        refuse_scripts(self.program)?;
        let program = wide(self.program.as_os_str())?;
        let name = as_text(self.program.as_os_str())?;
        let line = command_line::join([name].into_iter().chain(self.args.iter().copied()));
        let mut line = wide(OsStr::new(&line))?;
        let environment = environment_block(self.env)?;
        let folder = self.working_dir.map(|folder| wide(folder.as_os_str())).transpose()?;
        let _alone = one_birth_at_a_time();
        let copies =
            self.streams.iter().chain(&self.also).map(inheritable).collect::<io::Result<Vec<_>>>()?;
        let mut startup = STARTUPINFOEXW::default();
        startup.StartupInfo.cb = size_of::<STARTUPINFOEXW>() as u32;
        startup.StartupInfo.dwFlags = STARTF_USESTDHANDLES;
        startup.StartupInfo.hStdInput = copies[0].as_raw_handle();
        startup.StartupInfo.hStdOutput = copies[1].as_raw_handle();
        startup.StartupInfo.hStdError = copies[2].as_raw_handle();
        let handles: Vec<HANDLE> = copies.iter().map(AsRawHandle::as_raw_handle).collect();
        let mut list = InheritedHandles::new(&handles)?;
        startup.lpAttributeList = list.as_mut_ptr();
        let folder = folder.as_ref().map_or(std::ptr::null(), |folder| folder.as_ptr());
        let flags = self.flags | CREATE_UNICODE_ENVIRONMENT | EXTENDED_STARTUPINFO_PRESENT;
        let mut born = PROCESS_INFORMATION::default();
        // SAFETY: all texts end with a NUL, the environment with two; the lists live until the call returns.
        done(unsafe {
            CreateProcessW(
                program.as_ptr(),
                line.as_mut_ptr(),
                std::ptr::null(),
                std::ptr::null(),
                1,
                flags,
                environment.as_ptr().cast(),
                folder,
                (&raw const startup).cast(),
                &raw mut born,
            )
        })?;
        Ok(Newborn {
            process: ProcessHandle::from_handle(owned(born.hProcess)?)?,
            thread: owned(born.hThread)?,
        })
    }

    /// Out of the starter's job where that lets it, because it must not end with it.
    fn happen_outside(mut self) -> io::Result<Newborn> {
        self.flags |= CREATE_BREAKAWAY_FROM_JOB;
        match self.happen() {
            Err(error) if error.raw_os_error() == Some(ERROR_ACCESS_DENIED.cast_signed()) => {
                self.flags &= !CREATE_BREAKAWAY_FROM_JOB;
                self.happen()
            }
            other => other,
        }
    }
}

fn as_text(text: &OsStr) -> io::Result<&str> {
    let not_text = || io::Error::new(io::ErrorKind::InvalidInput, "an argument is not Unicode");
    text.to_str().ok_or_else(not_text)
}

/// A script would be run by the command interpreter, which takes its command line apart by rules of its own.
fn refuse_scripts(program: &Path) -> io::Result<()> {
    let is_script =
        |extension: &OsStr| ["bat", "cmd"].iter().any(|kind| extension.eq_ignore_ascii_case(kind));
    if program.extension().is_some_and(is_script) {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "a script cannot be the engine here, only a program",
        ));
    }
    Ok(())
}

/// `name=value` texts in the order of their names, each ended by a NUL, all of them by another.
fn environment_block(variables: &[(OsString, OsString)]) -> io::Result<Vec<u16>> {
    let mut texts = Vec::new();
    for (name, value) in variables {
        let mut text = name.clone();
        text.push("=");
        text.push(value);
        texts.push((name.to_ascii_uppercase(), wide(&text)?));
    }
    texts.sort();
    let mut block: Vec<u16> = texts.into_iter().flat_map(|(_, text)| text).collect();
    if block.is_empty() {
        block.push(0);
    }
    block.push(0);
    Ok(block)
}

/// An attribute list with one attribute: the handles that a child inherits.
struct InheritedHandles {
    /// Of a type that is aligned for pointers.
    memory: Vec<usize>,
}

impl InheritedHandles {
    fn new(handles: &[HANDLE]) -> io::Result<Self> {
        let mut size = 0;
        // SAFETY: without memory the call only tells how much is needed.
        unsafe { InitializeProcThreadAttributeList(std::ptr::null_mut(), 1, 0, &raw mut size) };
        let mut memory = vec![0_usize; size.div_ceil(size_of::<usize>())];
        // SAFETY: there is as much memory as was asked for.
        done(unsafe { InitializeProcThreadAttributeList(memory.as_mut_ptr().cast(), 1, 0, &raw mut size) })?;
        let mut list = Self { memory };
        // SAFETY: the list is initialised, and the handles outlive its use in the same function.
        done(unsafe {
            UpdateProcThreadAttribute(
                list.as_mut_ptr(),
                0,
                PROC_THREAD_ATTRIBUTE_HANDLE_LIST as usize,
                handles.as_ptr().cast(),
                size_of_val(handles),
                std::ptr::null_mut(),
                std::ptr::null(),
            )
        })?;
        Ok(list)
    }

    fn as_mut_ptr(&mut self) -> *mut std::ffi::c_void {
        self.memory.as_mut_ptr().cast()
    }
}

impl Drop for InheritedHandles {
    fn drop(&mut self) {
        // SAFETY: it was initialised.
        unsafe { DeleteProcThreadAttributeList(self.memory.as_mut_ptr().cast()) };
    }
}

impl Newborn {
    fn resume(&self) -> io::Result<()> {
        resume(&self.thread)
    }
}

fn resume(thread: &OwnedHandle) -> io::Result<()> {
    // SAFETY: an open handle.
    match unsafe { ResumeThread(thread.as_raw_handle()) } {
        u32::MAX => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}

fn null() -> io::Result<File> {
    File::options().read(true).write(true).open("NUL")
}

/// Without these no program can open a socket or find the system's libraries. Wine's own tell which system it is.
fn bare_environment() -> Vec<(OsString, OsString)> {
    const NEEDED: [&str; 5] = ["SystemRoot", "SystemDrive", "windir", "TEMP", "TMP"];
    let is_needed = |name: &OsStr| {
        NEEDED.iter().any(|needed| name.eq_ignore_ascii_case(needed))
            || name.to_string_lossy().starts_with("WINE")
    };
    std::env::vars_os().filter(|(name, _)| is_needed(name)).collect()
}

/// Starts a process with a console of its own that has no window, gives it a text on stdin, and reads its answer,
/// one line on stdout. It lives on after the answer; one that does not answer in time is ended.
pub(crate) fn converse(program: &Path, args: &[&str], text: &[u8], limit: Duration) -> io::Result<Vec<u8>> {
    let (their_input, mut input) = io::pipe()?;
    let (output, their_output) = io::pipe()?;
    let null = null()?;
    let born = Birth {
        program,
        args: args.to_vec(),
        env: &bare_environment(),
        working_dir: None,
        streams: [their_input.as_handle(), their_output.as_handle(), null.as_handle()],
        also: None,
        flags: CREATE_NO_WINDOW,
    }
    .happen_outside()?;
    drop((their_input, their_output));
    let (sender, answer) = sync_channel(1);
    let text = text.to_vec();
    // Pipes cannot be waited for here. The thread ends when the process does, at the latest.
    std::thread::spawn(move || {
        let told = input.write_all(&text);
        drop(input);
        let _ = sender.send(told.and_then(|()| read_line(output)));
    });
    let answer = answer
        .recv_timeout(limit)
        .unwrap_or_else(|_| Err(io::Error::new(io::ErrorKind::TimedOut, "no answer in time")));
    if answer.is_err() {
        let _ = born.process.signal(Signal::Kill);
    }
    answer
}

fn read_line(output: impl Read) -> io::Result<Vec<u8>> {
    let mut line = Vec::new();
    BufReader::new(output.take(REPLY_LIMIT as u64 + 1)).read_until(b'\n', &mut line)?;
    if line.len() > REPLY_LIMIT {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "the answer is too long"));
    }
    if line.is_empty() {
        return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "it ended without an answer"));
    }
    Ok(line)
}

/// Starts a daemon: outside the starter's console and, where that is allowed, outside its job. Returns its pid.
pub(crate) fn spawn_detached(command: &DetachedCommand, log: &File) -> io::Result<u32> {
    let removed = |name: &OsStr| {
        let set = command.env.iter().map(|(name, _)| name);
        set.chain(&command.env_remove).any(|other| name.eq_ignore_ascii_case(other))
    };
    let mut env: Vec<_> = std::env::vars_os().filter(|(name, _)| !removed(name)).collect();
    env.extend(command.env.iter().cloned());
    let args = command.args.iter().map(|arg| as_text(arg)).collect::<io::Result<Vec<_>>>()?;
    let null = null()?;
    let born = Birth {
        program: &command.executable,
        args,
        env: &env,
        working_dir: command.working_dir.as_deref(),
        streams: [null.as_handle(), log.as_handle(), log.as_handle()],
        also: None,
        flags: CREATE_NO_WINDOW,
    }
    .happen_outside()?;
    Ok(born.process.pid())
}

/// An engine that is born but does not run yet. Dropped, it never will.
pub(crate) struct Unborn {
    born: Newborn,
    released: bool,
}

/// The engine on the console of this process, with exactly the environment and the handles it is given.
pub(crate) fn spawn_suspended(
    spec: &EngineSpec,
    lock: &File,
    stdout: &File,
    stderr: &File,
) -> io::Result<Unborn> {
    let mut env: Vec<(OsString, OsString)> =
        spec.env.iter().map(|(name, value)| (name.into(), value.into())).collect();
    for (name, value) in bare_environment() {
        if !env.iter().any(|(given, _)| given.eq_ignore_ascii_case(&name)) {
            env.push((name, value));
        }
    }
    let null = null()?;
    let born = Birth {
        program: &spec.executable,
        args: spec.args.iter().map(String::as_str).collect(),
        env: &env,
        working_dir: Some(&spec.working_dir),
        streams: [null.as_handle(), stdout.as_handle(), stderr.as_handle()],
        also: Some(lock.as_handle()),
        flags: CREATE_SUSPENDED,
    }
    .happen()?;
    Ok(Unborn { born, released: false })
}

impl Unborn {
    pub(crate) fn process(&self) -> &ProcessHandle {
        &self.born.process
    }

    pub(crate) fn release(mut self) -> io::Result<ProcessHandle> {
        self.born.resume()?;
        self.released = true;
        let handle = self.born.process.as_handle().try_clone_to_owned()?;
        ProcessHandle::from_handle(handle)
    }
}

impl Drop for Unborn {
    fn drop(&mut self) {
        if !self.released {
            let _ = self.born.process.signal(Signal::Kill);
        }
    }
}

/// A tool with all that it starts.
#[derive(Debug)]
pub(crate) struct ProcessGroup {
    leader: ProcessHandle,
    job: Job,
}

/// Starts a tool without a window. What it starts ends with this process at the latest.
pub(crate) fn spawn_group(command: &mut Command) -> io::Result<(Child, ProcessGroup)> {
    let mut child = {
        let _alone = one_birth_at_a_time();
        command.creation_flags(CREATE_NO_WINDOW | CREATE_SUSPENDED).spawn()?
    };
    match gather(&child) {
        Ok(group) => Ok((child, group)),
        Err(error) => {
            child.kill()?;
            child.wait()?;
            Err(error)
        }
    }
}

/// The job already sees to it.
pub(crate) fn end_with_this_thread(_command: &mut Command) {}

fn gather(child: &Child) -> io::Result<ProcessGroup> {
    let leader = ProcessHandle::from_handle(child.as_handle().try_clone_to_owned()?)?;
    let job = Job::around(&leader)?;
    resume(&only_thread_of(leader.pid())?)?;
    Ok(ProcessGroup { leader, job })
}

/// The thread of a process that has not run yet.
fn only_thread_of(pid: u32) -> io::Result<OwnedHandle> {
    // SAFETY: plain numbers.
    let snapshot = owned(unsafe { CreateToolhelp32Snapshot(TH32CS_SNAPTHREAD, 0) })?;
    let mut row = THREADENTRY32 { dwSize: size_of::<THREADENTRY32>() as u32, ..Default::default() };
    // SAFETY: an open snapshot and a structure that tells its own size.
    let mut more = unsafe { Thread32First(snapshot.as_raw_handle(), &raw mut row) } != 0;
    while more {
        if row.th32OwnerProcessID == pid {
            // SAFETY: plain numbers.
            return owned(unsafe { OpenThread(THREAD_SUSPEND_RESUME, 0, row.th32ThreadID) });
        }
        // SAFETY: as above.
        more = unsafe { Thread32Next(snapshot.as_raw_handle(), &raw mut row) } != 0;
    }
    Err(io::Error::new(io::ErrorKind::NotFound, "it has no thread"))
}

impl ProcessGroup {
    /// Whether the tool itself ended within the limit.
    pub(crate) fn wait(&self, limit: Duration) -> bool {
        self.leader.wait(limit)
    }

    pub(crate) fn kill(&self) -> io::Result<()> {
        self.job.kill()
    }

    /// A program without a console of its own cannot be asked.
    pub(crate) fn ask_to_end(&self) -> bool {
        false
    }
}
