//! Windows: looking, ports, tools and daemons. Engines are refused for now, see [`crate::shim_main`].
#![expect(unsafe_code, reason = "ending a process has no safe wrapper")]

use std::io;
use std::net::TcpListener;
use std::os::windows::process::CommandExt;
use std::process::Command;
use std::time::Duration;

use windows_sys::Win32::Foundation::CloseHandle;
use windows_sys::Win32::System::Threading::{
    CREATE_NEW_PROCESS_GROUP, DETACHED_PROCESS, OpenProcess, PROCESS_TERMINATE, TerminateProcess,
};

use super::Signal;

/// The exit code of a process that was ended from outside, as a killed one has elsewhere.
const ENDED_BY_US: u32 = 137;

pub(crate) fn own_group(command: &mut Command) {
    command.creation_flags(CREATE_NEW_PROCESS_GROUP);
}

pub(crate) fn detach(command: &mut Command) {
    command.creation_flags(CREATE_NEW_PROCESS_GROUP | DETACHED_PROCESS);
}

pub(crate) fn port_is_free(host: &str, port: u16) -> bool {
    TcpListener::bind((host, port)).is_ok()
}

/// Shims do not exist here yet; saying so is better than half an engine.
pub(crate) fn converse(_command: Command, _text: &[u8], _limit: Duration) -> io::Result<Vec<u8>> {
    Err(io::Error::new(io::ErrorKind::Unsupported, "engines cannot be started on Windows yet"))
}

/// There is only one way to end a process from outside, whatever is asked.
pub(crate) fn native_signal(pid: u32, _signal: Signal) -> io::Result<()> {
    // SAFETY: plain integers; the handle is checked and closed.
    unsafe {
        let process = OpenProcess(PROCESS_TERMINATE, 0, pid);
        if process.is_null() {
            return Err(io::Error::last_os_error());
        }
        let ended = TerminateProcess(process, ENDED_BY_US);
        CloseHandle(process);
        if ended == 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }
}

pub(crate) fn native_signal_group(pid: u32, signal: Signal) -> io::Result<()> {
    native_signal(pid, signal)
}
