//! Job objects: all that descends from a process, however it detached itself.
#![expect(unsafe_code, reason = "job objects have no safe wrapper")]

use std::io;
use std::os::windows::io::{AsHandle, AsRawHandle, BorrowedHandle, OwnedHandle};

use windows_sys::Win32::Foundation::{ERROR_ALREADY_EXISTS, ERROR_MORE_DATA, GetLastError};
use windows_sys::Win32::System::JobObjects::{
    AssignProcessToJobObject, CreateJobObjectW, JOB_OBJECT_LIMIT_KILL_ON_JOB_CLOSE,
    JOBOBJECT_EXTENDED_LIMIT_INFORMATION, JobObjectBasicProcessIdList, JobObjectExtendedLimitInformation,
    OpenJobObjectW, QueryInformationJobObject, SetInformationJobObject, TerminateJobObject,
};

use super::handles::{done, give, object_name, owned};
use super::{ENDED_BY_US, ProcessHandle};

/// `JOB_OBJECT_QUERY | JOB_OBJECT_TERMINATE`.
const QUERY_AND_TERMINATE: u32 = 0x4 | 0x8;
/// More members than any engine has.
const MEMBER_LIMIT: usize = 64 * 1024;

/// A process and all that it starts. Nothing leaves a job, and a descendant is in it from its first moment.
#[derive(Debug)]
pub(crate) struct Job {
    handle: OwnedHandle,
}

impl Job {
    /// Puts a process into a job that is named after it, before it has started anything. The job's members are
    /// killed when its last handle closes, until [`Job::outlive_us`].
    pub(crate) fn around(process: &ProcessHandle) -> io::Result<Self> {
        let name = object_name("job", process.pid(), process.created());
        // SAFETY: no attributes, and a name that ends with a NUL.
        let (raw, error) = unsafe {
            let raw = CreateJobObjectW(std::ptr::null(), name.as_ptr());
            (raw, GetLastError())
        };
        let job = Self { handle: owned(raw)? };
        if error == ERROR_ALREADY_EXISTS {
            return Err(io::Error::from_raw_os_error(error.cast_signed()));
        }
        job.limit(JOB_OBJECT_LIMIT_KILL_ON_JOB_CLOSE)?;
        // SAFETY: both handles are open.
        done(unsafe {
            AssignProcessToJobObject(job.handle.as_raw_handle(), process.as_handle().as_raw_handle())
        })?;
        Ok(job)
    }

    /// The job that is named after a process; `None` when there is none, or nobody holds it any more.
    pub(crate) fn of(pid: u32, created: u64) -> Option<Self> {
        let name = object_name("job", pid, created);
        // SAFETY: a name that ends with a NUL.
        let raw = unsafe { OpenJobObjectW(QUERY_AND_TERMINATE, 0, name.as_ptr()) };
        owned(raw).ok().map(|handle| Self { handle })
    }

    /// Gives the process a handle of its own job, so that it can be found by its name when we are gone, and lets
    /// it live on then.
    pub(crate) fn outlive_us(&self, process: &ProcessHandle) -> io::Result<()> {
        give(&self.handle, process)?;
        self.limit(0)
    }

    fn limit(&self, flags: u32) -> io::Result<()> {
        let mut limits = JOBOBJECT_EXTENDED_LIMIT_INFORMATION::default();
        limits.BasicLimitInformation.LimitFlags = flags;
        let size = size_of_val(&limits) as u32;
        let handle = self.handle.as_raw_handle();
        // SAFETY: the structure is the one that this class of information takes, and its size is told.
        done(unsafe {
            SetInformationJobObject(
                handle,
                JobObjectExtendedLimitInformation,
                (&raw const limits).cast(),
                size,
            )
        })
    }

    /// Ends all members at once. None is no error.
    pub(crate) fn kill(&self) -> io::Result<()> {
        // SAFETY: an open handle and a number.
        done(unsafe { TerminateJobObject(self.handle.as_raw_handle(), ENDED_BY_US) })
    }

    /// The pids of the living members.
    pub(crate) fn members(&self) -> Vec<u32> {
        let mut room = 64;
        while room <= MEMBER_LIMIT {
            match self.list(room) {
                Some(pids) => return pids,
                None => room *= 4,
            }
        }
        Vec::new()
    }

    /// `None` when there are more than that.
    fn list(&self, room: usize) -> Option<Vec<u32>> {
        // Two counts of 32 bits each, then the pids, each as wide as a pointer.
        let counts = size_of::<[u32; 2]>() / size_of::<usize>();
        let mut words = vec![0_usize; counts + room];
        let size = size_of_val(words.as_slice()) as u32;
        let (handle, to) = (self.handle.as_raw_handle(), words.as_mut_ptr().cast());
        // SAFETY: the buffer is aligned for a pointer, and its size is told.
        let (ok, error) = unsafe {
            let ok = QueryInformationJobObject(
                handle,
                JobObjectBasicProcessIdList,
                to,
                size,
                std::ptr::null_mut(),
            );
            (ok != 0, GetLastError())
        };
        if !ok {
            return if error == ERROR_MORE_DATA { None } else { Some(Vec::new()) };
        }
        let listed = (words[0] >> u32::BITS) & u32::MAX as usize;
        Some(words[counts..].iter().take(listed).map(|&pid| pid as u32).collect())
    }
}

impl AsHandle for Job {
    fn as_handle(&self) -> BorrowedHandle<'_> {
        self.handle.as_handle()
    }
}
