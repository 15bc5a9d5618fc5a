//! As whom this process runs, and to whom files belong.
#![cfg_attr(windows, expect(unsafe_code, reason = "the question has no safe wrapper"))]

use std::path::Path;

/// Whether this process may change the system: root, or an elevated administrator.
#[cfg(unix)]
pub fn is_administrator() -> bool {
    nix::unistd::geteuid().is_root()
}

/// See above.
#[cfg(windows)]
pub fn is_administrator() -> bool {
    // SAFETY: takes nothing and only looks.
    unsafe { windows_sys::Win32::UI::Shell::IsUserAnAdmin() != 0 }
}

/// The number of this user; 0 where users have none.
#[cfg(unix)]
pub fn user_id() -> u32 {
    nix::unistd::geteuid().as_raw()
}

/// See above.
#[cfg(windows)]
pub fn user_id() -> u32 {
    0
}

/// The user to whom a file belongs: the name, or the number where the system knows no name. `None` where the file
/// cannot be seen, and where owners are no plain users.
#[cfg(unix)]
pub fn owner_of(path: &Path) -> Option<String> {
    use std::os::unix::fs::MetadataExt;
    let uid = path.metadata().ok()?.uid();
    let user = nix::unistd::User::from_uid(nix::unistd::Uid::from_raw(uid)).ok().flatten();
    Some(user.map_or_else(|| uid.to_string(), |user| user.name))
}

/// See above.
#[cfg(windows)]
pub fn owner_of(_: &Path) -> Option<String> {
    None
}

/// Whether this user may make files in a folder: asked, not tried.
#[cfg(unix)]
pub fn may_write(folder: &Path) -> bool {
    use nix::unistd::{AccessFlags, access};
    access(folder, AccessFlags::W_OK | AccessFlags::X_OK).is_ok()
}

/// See above.
#[cfg(windows)]
pub fn may_write(folder: &Path) -> bool {
    folder.metadata().is_ok_and(|metadata| !metadata.permissions().readonly())
}

/// Whether this user may read and write a file or a device: asked, not tried.
#[cfg(unix)]
pub fn may_open(file: &Path) -> bool {
    use nix::unistd::{AccessFlags, access};
    access(file, AccessFlags::R_OK | AccessFlags::W_OK).is_ok()
}

/// See above.
#[cfg(windows)]
pub fn may_open(file: &Path) -> bool {
    may_write(file)
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    #[test]
    fn a_file_belongs_to_whoever_made_it() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let owner = owner_of(file.path()).unwrap();
        assert_eq!(owner == "root", is_administrator());
        assert_eq!(user_id() == 0, is_administrator());
        assert_eq!(owner_of(Path::new("/nowhere/at/all")), None);
    }
}
