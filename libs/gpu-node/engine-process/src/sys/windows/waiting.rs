//! Waiting for handles: for one of two, and without a thread of one's own.
#![expect(unsafe_code, reason = "the system's wait threads take a raw pointer")]

use std::ffi::c_void;
use std::io;
use std::os::windows::io::{AsHandle, AsRawHandle};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;
use windows_sys::Win32::Foundation::{HANDLE, INVALID_HANDLE_VALUE, WAIT_OBJECT_0};
use windows_sys::Win32::System::Threading::{
    INFINITE, RegisterWaitForSingleObject, UnregisterWaitEx, WT_EXECUTEINWAITTHREAD, WT_EXECUTEONLYONCE,
    WaitForMultipleObjects,
};

use super::handles::done;

/// Which of two objects was signalled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Either {
    First,
    Second,
    None,
}

/// Waits until one of two objects is signalled; of both, the first counts.
pub(crate) fn wait_for_either(first: &impl AsHandle, second: &impl AsHandle, limit: Duration) -> Either {
    let handles = [first.as_handle().as_raw_handle(), second.as_handle().as_raw_handle()];
    let milliseconds = u32::try_from(limit.as_millis()).unwrap_or(INFINITE - 1);
    // SAFETY: two handles that are open for as long as they are borrowed.
    let which = unsafe { WaitForMultipleObjects(2, handles.as_ptr(), 0, milliseconds) };
    match which.wrapping_sub(WAIT_OBJECT_0) {
        0 => Either::First,
        1 => Either::Second,
        _ => Either::None,
    }
}

/// Resolves when the object is signalled: a process that has ended, an event that was set.
pub(crate) async fn signalled(object: &impl AsHandle) -> io::Result<()> {
    let wait = Wait::register(object)?;
    wait.told.notified().await;
    Ok(())
}

struct Wait {
    /// A handle, kept as a number: it means the same on every thread.
    registration: usize,
    told: Arc<Notify>,
}

impl Wait {
    fn register(object: &impl AsHandle) -> io::Result<Self> {
        let told = Arc::new(Notify::new());
        let mut registration: HANDLE = std::ptr::null_mut();
        let context = Arc::as_ptr(&told).cast::<c_void>();
        // SAFETY: the object is borrowed for longer than the future lives that holds the registration, and the
        // context lives until the registration is taken back.
        done(unsafe {
            RegisterWaitForSingleObject(
                &raw mut registration,
                object.as_handle().as_raw_handle(),
                Some(tell),
                context,
                INFINITE,
                WT_EXECUTEINWAITTHREAD | WT_EXECUTEONLYONCE,
            )
        })?;
        Ok(Self { registration: registration.addr(), told })
    }
}

unsafe extern "system" fn tell(context: *mut c_void, _timed_out: bool) {
    // SAFETY: the context is the one given above, which outlives the registration.
    unsafe { &*context.cast::<Notify>() }.notify_one();
}

impl Drop for Wait {
    fn drop(&mut self) {
        let registration = std::ptr::without_provenance_mut(self.registration);
        // SAFETY: registered once and taken back once; the call returns when no callback runs any more.
        unsafe { UnregisterWaitEx(registration, INVALID_HANDLE_VALUE) };
    }
}
