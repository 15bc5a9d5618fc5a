//! Being asked to end: what a signal is elsewhere is a named event here.
#![expect(unsafe_code, reason = "named events have no safe wrapper")]

use std::io;
use std::os::windows::io::{AsHandle, AsRawHandle, BorrowedHandle, OwnedHandle};

use windows_sys::Win32::Foundation::{ERROR_FILE_NOT_FOUND, ERROR_INVALID_NAME};
use windows_sys::Win32::System::Threading::{CreateEventW, EVENT_MODIFY_STATE, OpenEventW, SetEvent};

use super::handles::{done, object_name, owned};

const KIND: &str = "end";

/// Hears the requests to end that are made to one process: by that process, or by whoever can pass them on.
#[derive(Debug)]
pub(crate) struct EndRequests {
    event: OwnedHandle,
}

impl EndRequests {
    /// Every request wakes one wait for it; several that nobody waited for are one.
    pub(crate) fn to(pid: u32, created: u64) -> io::Result<Self> {
        let name = object_name(KIND, pid, created);
        // SAFETY: no attributes, and a name that ends with a NUL.
        let raw = unsafe { CreateEventW(std::ptr::null(), 0, 0, name.as_ptr()) };
        Ok(Self { event: owned(raw)? })
    }

    /// Makes a request. `Unsupported` when nobody hears those to this process.
    pub(crate) fn make(pid: u32, created: u64) -> io::Result<()> {
        let name = object_name(KIND, pid, created);
        // SAFETY: a name that ends with a NUL.
        let raw = unsafe { OpenEventW(EVENT_MODIFY_STATE, 0, name.as_ptr()) };
        let event = owned(raw).map_err(|error| match error.raw_os_error().map(i32::cast_unsigned) {
            Some(ERROR_FILE_NOT_FOUND | ERROR_INVALID_NAME) => {
                io::Error::new(io::ErrorKind::Unsupported, "nobody passes the request on")
            }
            _ => error,
        })?;
        // SAFETY: an open handle.
        done(unsafe { SetEvent(event.as_raw_handle()) })
    }
}

impl AsHandle for EndRequests {
    fn as_handle(&self) -> BorrowedHandle<'_> {
        self.event.as_handle()
    }
}
