//! Handles with an owner.
#![expect(unsafe_code, reason = "the system's handles become owned ones here")]

use std::ffi::OsStr;
use std::io;
use std::os::windows::ffi::OsStrExt;
use std::os::windows::io::{AsHandle, AsRawHandle, FromRawHandle, OwnedHandle};

use windows_sys::Win32::Foundation::{DUPLICATE_SAME_ACCESS, DuplicateHandle, HANDLE, INVALID_HANDLE_VALUE};
use windows_sys::Win32::System::Threading::GetCurrentProcess;

/// Takes what a call returned: both null and -1 mean that it failed.
pub(super) fn owned(raw: HANDLE) -> io::Result<OwnedHandle> {
    if raw.is_null() || raw == INVALID_HANDLE_VALUE {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: only called with the result of a call that gives its caller a new handle.
    Ok(unsafe { OwnedHandle::from_raw_handle(raw) })
}

/// The result of a call that tells no more than whether it was done.
pub(super) fn done(result: i32) -> io::Result<()> {
    if result == 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// A second handle of the same object that children may inherit.
pub(super) fn inheritable(handle: &impl AsHandle) -> io::Result<OwnedHandle> {
    let mut copy: HANDLE = std::ptr::null_mut();
    let source = handle.as_handle().as_raw_handle();
    // SAFETY: the source is open for as long as it is borrowed; the copy is written before it is read.
    unsafe {
        let own = GetCurrentProcess();
        done(DuplicateHandle(own, source, own, &raw mut copy, 0, 1, DUPLICATE_SAME_ACCESS))?;
    }
    owned(copy)
}

/// The same in another process, which then holds the object itself and passes it on to its children.
pub(super) fn give(handle: &impl AsHandle, to: &impl AsHandle) -> io::Result<()> {
    let mut copy: HANDLE = std::ptr::null_mut();
    let (source, target) = (handle.as_handle().as_raw_handle(), to.as_handle().as_raw_handle());
    // SAFETY: both are open for as long as they are borrowed; the copy is a number of the other process only.
    done(unsafe {
        DuplicateHandle(GetCurrentProcess(), source, target, &raw mut copy, 0, 1, DUPLICATE_SAME_ACCESS)
    })
}

/// Text as the system takes it; text with a NUL inside would be cut short there.
pub(super) fn wide(text: &OsStr) -> io::Result<Vec<u16>> {
    let mut units: Vec<u16> = text.encode_wide().collect();
    if units.contains(&0) {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "a text holds a NUL"));
    }
    units.push(0);
    Ok(units)
}

/// The name of an object that belongs to one process among all that ever ran. `Global`, because a service and a
/// terminal of the same user live in different sessions.
pub(super) fn object_name(kind: &str, pid: u32, created: u64) -> Vec<u16> {
    let name = format!("Global\\llama-orch-{kind}-{pid}-{created}");
    name.encode_utf16().chain([0]).collect()
}
