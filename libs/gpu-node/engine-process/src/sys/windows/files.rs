//! Files: exclusive opening as a lock, reading and writing at an offset, patience with other readers.
#![expect(unsafe_code, reason = "the free space of a disk has no safe wrapper")]

use std::fs::{File, OpenOptions};
use std::io;
use std::os::windows::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::time::Duration;

use orch_core::ByteCount;
use windows_sys::Win32::Foundation::{
    ERROR_ACCESS_DENIED, ERROR_SHARING_VIOLATION, GENERIC_READ, GENERIC_WRITE,
};
use windows_sys::Win32::Storage::FileSystem::{
    DELETE, FILE_SHARE_READ, FILE_SHARE_WRITE, GetDiskFreeSpaceExW,
};

use super::handles::{done, wide};
use crate::wait::wait_until;

/// All but the right to delete the file.
const SHARED: u32 = FILE_SHARE_READ | FILE_SHARE_WRITE;
/// Virus scanners and readers let go of a file within this time.
const PATIENCE: Duration = Duration::from_secs(2);

/// Takes a lock if it is free this moment.
///
/// The lock is the right to delete the file, which an open file can keep to itself: everybody may read the text
/// inside and replace it, and what inherits the handle shares the lock. A lock on a range of the file would end
/// with the process that took it, and would keep others from reading who that is.
pub(crate) fn try_lock(path: &Path) -> io::Result<Option<File>> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false);
    options.access_mode(GENERIC_READ | GENERIC_WRITE | DELETE).share_mode(SHARED);
    match options.open(path) {
        Ok(file) => Ok(Some(file)),
        Err(error) if is(&error, ERROR_SHARING_VIOLATION) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Whether somebody has the lock. Takers look more than once, so this look cannot turn them away.
pub(crate) fn is_locked(path: &Path) -> bool {
    let opened = OpenOptions::new().read(true).share_mode(SHARED).open(path);
    opened.is_err_and(|error| is(&error, ERROR_SHARING_VIOLATION))
}

fn is(error: &io::Error, code: u32) -> bool {
    error.raw_os_error().map(i32::cast_unsigned) == Some(code)
}

/// Does something to a file that others may have open for a moment.
pub(crate) fn patiently(mut act: impl FnMut() -> io::Result<()>) -> io::Result<()> {
    let mut outcome = Ok(());
    wait_until(PATIENCE, || {
        outcome = act();
        let busy = |error: &io::Error| is(error, ERROR_SHARING_VIOLATION) || is(error, ERROR_ACCESS_DENIED);
        !outcome.as_ref().is_err_and(busy)
    });
    outcome
}

pub(crate) fn read_at(file: &File, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
    file.seek_read(buffer, offset)
}

pub(crate) fn write_all_at(file: &File, mut bytes: &[u8], mut offset: u64) -> io::Result<()> {
    while !bytes.is_empty() {
        let written = file.seek_write(bytes, offset)?;
        if written == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
        bytes = &bytes[written..];
        offset += written as u64;
    }
    Ok(())
}

/// No file system here can take blocks out of a file.
pub(crate) fn block_size(_file: &File) -> u64 {
    0
}

/// Not told by this system.
pub(crate) fn file_position(_pid: u32, _descriptor: u32) -> Option<u64> {
    None
}

pub(crate) fn take_out_head(_file: &File, _bytes: u64) -> bool {
    false
}

pub(crate) fn free_space(folder: &Path) -> Option<ByteCount> {
    let folder = wide(folder.as_os_str()).ok()?;
    let mut free = 0;
    // SAFETY: a path that ends with a NUL and one number to be written; the others are not asked for.
    let told = unsafe {
        GetDiskFreeSpaceExW(folder.as_ptr(), &raw mut free, std::ptr::null_mut(), std::ptr::null_mut())
    };
    done(told).ok().map(|()| ByteCount(free))
}
