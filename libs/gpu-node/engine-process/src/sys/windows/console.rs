//! Consoles. Each engine has one without a window, which it shares with its shim alone: Ctrl-C, the one request
//! to end that engines understand here, goes to all processes of a console.
#![expect(unsafe_code, reason = "consoles and standard handles have no safe wrapper")]

use std::fs::File;
use std::io;
use std::os::windows::io::{FromRawHandle, IntoRawHandle, OwnedHandle};

use windows_sys::Win32::Foundation::INVALID_HANDLE_VALUE;
use windows_sys::Win32::System::Console::{
    AttachConsole, CTRL_C_EVENT, FreeConsole, GenerateConsoleCtrlEvent, GetStdHandle, STD_ERROR_HANDLE,
    STD_INPUT_HANDLE, STD_OUTPUT_HANDLE, SetConsoleCtrlHandler, SetStdHandle,
};

use super::handles::done;

/// Makes this process deaf to its console, and sees to it that its children are not: a starter that ignores
/// Ctrl-C passes that on to all its descendants.
pub(crate) fn leave_starter() {
    // SAFETY: no handler means the flag that children inherit; it is taken back here.
    unsafe { SetConsoleCtrlHandler(None, 0) };
    ignore_console();
}

fn ignore_console() {
    // SAFETY: the handler lives as long as the program and touches nothing.
    unsafe { SetConsoleCtrlHandler(Some(hear_nothing), 1) };
}

unsafe extern "system" fn hear_nothing(_event: u32) -> i32 {
    1
}

/// Leaves this process's console for that of another one.
pub(crate) fn join_console_of(pid: u32) -> io::Result<()> {
    // SAFETY: plain calls; without a console the first one does nothing.
    unsafe {
        FreeConsole();
        done(AttachConsole(pid))?;
    }
    // Leaving a console forgets the handlers.
    ignore_console();
    Ok(())
}

/// Ctrl-C for all processes of this process's console, which is deaf to it itself.
pub(crate) fn interrupt_console() -> io::Result<()> {
    // SAFETY: plain numbers.
    done(unsafe { GenerateConsoleCtrlEvent(CTRL_C_EVENT, 0) })
}

/// Closes the three standard streams and leaves nothing in their places that could be written to.
pub(crate) fn release_standard_streams() {
    for number in [STD_INPUT_HANDLE, STD_OUTPUT_HANDLE, STD_ERROR_HANDLE] {
        let Ok(null) = File::options().read(true).write(true).open("NUL") else { return };
        // SAFETY: the new handle is given away for good; the old one was this process's standard stream, which
        // nobody uses any more.
        unsafe {
            let old = GetStdHandle(number);
            if SetStdHandle(number, null.into_raw_handle()) != 0
                && !old.is_null()
                && old != INVALID_HANDLE_VALUE
            {
                drop(OwnedHandle::from_raw_handle(old));
            }
        }
    }
}
