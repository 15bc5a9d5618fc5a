//! The machine's memory.
#![expect(unsafe_code, reason = "the status has no safe wrapper")]

use orch_core::ByteCount;
use windows_sys::Win32::System::SystemInformation::{GlobalMemoryStatusEx, MEMORYSTATUSEX};

use crate::HostMemory;

pub(crate) fn host_memory() -> Option<HostMemory> {
    let length = u32::try_from(size_of::<MEMORYSTATUSEX>()).ok()?;
    let mut status = MEMORYSTATUSEX { dwLength: length, ..MEMORYSTATUSEX::default() };
    // SAFETY: a structure of the length that it names, to be written.
    let told = unsafe { GlobalMemoryStatusEx(&raw mut status) };
    let memory =
        HostMemory { total: ByteCount(status.ullTotalPhys), available: ByteCount(status.ullAvailPhys) };
    (told != 0).then_some(memory)
}
