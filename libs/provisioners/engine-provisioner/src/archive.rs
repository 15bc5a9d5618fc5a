//! Unpacking what was downloaded, without trusting it.
//!
//! Nothing is written outside the target folder, nothing twice, and no more than the limits. Links are made
//! after all files, and only where they point downwards, so that no entry can be written through one.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Component, Path, PathBuf};

use flate2::read::GzDecoder;
use orch_core::{ByteCount, Failure};
use tar::EntryType;

use crate::faults;
use crate::links::link_or_copy;

/// How much an archive may hold.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    pub(crate) entries: usize,
    pub(crate) bytes: ByteCount,
}

/// The largest builds (all GPU kernels) take about 2 GiB.
pub(crate) const LIMITS: Limits = Limits { entries: 20_000, bytes: ByteCount::from_mib(8 * 1024) };

const DEPTH: usize = 32;
const NAME_BYTES: usize = 1024;

/// Unpacks a zip or a gzipped tar, told apart by its first bytes, into an existing folder. Blocking.
pub(crate) fn unpack(archive: &Path, target: &Path, limits: Limits) -> Result<(), Failure> {
    let mut file = File::open(archive).map_err(|error| faults::install("read", archive, &error))?;
    let mut magic = [0; 4];
    let read = file.read(&mut magic).and_then(|read| file.seek(SeekFrom::Start(0)).map(|_| read));
    read.map_err(|error| faults::install("read", archive, &error))?;
    let mut unpacking = Unpacking { target, limits, entries: 0, bytes: 0, links: Vec::new() };
    match magic {
        [b'P', b'K', 3, 4] => unpacking.zip(file)?,
        [0x1f, 0x8b, ..] => unpacking.tar(GzDecoder::new(file))?,
        _ => return Err(faults::invalid("the download is neither a zip nor a tar.gz")),
    }
    unpacking.make_links()
}

struct Unpacking<'a> {
    target: &'a Path,
    limits: Limits,
    entries: usize,
    bytes: u64,
    links: Vec<(PathBuf, String)>,
}

impl Unpacking<'_> {
    fn zip(&mut self, file: File) -> Result<(), Failure> {
        let mut archive = zip::ZipArchive::new(file).map_err(|error| damaged(&error))?;
        for index in 0..archive.len() {
            let mut entry = archive.by_index(index).map_err(|error| damaged(&error))?;
            let name = entry.name().to_owned();
            let mode = entry.unix_mode();
            if entry.is_dir() {
                self.folder(&name)?;
            } else if entry.is_symlink() {
                let target = read_link_target(&mut entry).map_err(|error| damaged(&error))?;
                self.link(&name, target)?;
            } else {
                self.file(&name, mode, &mut entry)?;
            }
        }
        Ok(())
    }

    fn tar(&mut self, stream: impl Read) -> Result<(), Failure> {
        let mut archive = tar::Archive::new(stream);
        for entry in archive.entries().map_err(|error| damaged(&error))? {
            let mut entry = entry.map_err(|error| damaged(&error))?;
            let name = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
            let mode = entry.header().mode().ok();
            match entry.header().entry_type() {
                EntryType::Directory => self.folder(&name)?,
                EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => {
                    self.file(&name, mode, &mut entry)?;
                }
                EntryType::Symlink => {
                    let target =
                        entry.link_name_bytes().map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
                    self.link(&name, target.unwrap_or_default())?;
                }
                EntryType::XGlobalHeader => self.count()?,
                other => {
                    return Err(faults::invalid(format!("the archive holds {name} of the kind {other:?}")));
                }
            }
        }
        Ok(())
    }

    fn count(&mut self) -> Result<(), Failure> {
        self.entries += 1;
        if self.entries > self.limits.entries {
            return Err(faults::invalid(format!("the archive holds over {} files", self.limits.entries)));
        }
        Ok(())
    }

    /// Where an entry goes, its parents made.
    fn place(&mut self, name: &str) -> Result<PathBuf, Failure> {
        self.count()?;
        let place = self.target.join(contained(name)?);
        let parent = place.parent().unwrap_or(self.target);
        fs::create_dir_all(parent).map_err(|error| faults::install("create", parent, &error))?;
        Ok(place)
    }

    fn folder(&mut self, name: &str) -> Result<(), Failure> {
        self.count()?;
        let place = self.target.join(contained(name)?);
        fs::create_dir_all(&place).map_err(|error| faults::install("create", &place, &error))
    }

    fn file(&mut self, name: &str, mode: Option<u32>, content: &mut impl Read) -> Result<(), Failure> {
        let place = self.place(name)?;
        let mut options = OpenOptions::new();
        options.write(true).create_new(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, mode.unwrap_or(0o644) & 0o755 | 0o600);
        #[cfg(not(unix))]
        let _ = mode;
        let mut file = match options.open(&place) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                return Err(faults::invalid(format!("the archive holds {name} twice")));
            }
            Err(error) => return Err(faults::install("create", &place, &error)),
        };
        self.copy(content, &mut file, &place)
    }

    /// The limit is on what comes out, whatever the archive's headers claim.
    fn copy(&mut self, content: &mut impl Read, file: &mut File, place: &Path) -> Result<(), Failure> {
        let left = self.limits.bytes.0.saturating_sub(self.bytes);
        let mut limited = content.take(left + 1);
        let mut buffer = vec![0; 64 * 1024];
        loop {
            let read = limited.read(&mut buffer).map_err(|error| damaged(&error))?;
            if read == 0 {
                return Ok(());
            }
            self.bytes += read as u64;
            if self.bytes > self.limits.bytes.0 {
                return Err(faults::invalid(format!("the archive unpacks to over {}", self.limits.bytes)));
            }
            io::Write::write_all(file, &buffer[..read])
                .map_err(|error| faults::install("write", place, &error))?;
        }
    }

    fn link(&mut self, name: &str, target: String) -> Result<(), Failure> {
        let place = self.place(name)?;
        contained(&target)
            .map_err(|_| faults::invalid(format!("the archive's link {name} leads out of its folder")))?;
        self.links.push((place, target));
        Ok(())
    }

    fn make_links(self) -> Result<(), Failure> {
        for (place, target) in self.links {
            link_or_copy(&target, &place).map_err(|error| faults::install("create", &place, &error))?;
        }
        Ok(())
    }
}

/// The relative path of an entry, if it stays below where it starts on every system.
fn contained(name: &str) -> Result<PathBuf, Failure> {
    let refuse = || faults::invalid(format!("the archive's entry {name:?} leads out of its folder"));
    if name.len() > NAME_BYTES || name.contains(['\\', ':', '\0']) {
        return Err(refuse());
    }
    let mut path = PathBuf::new();
    for component in Path::new(name).components() {
        match component {
            Component::Normal(part) => path.push(part),
            Component::CurDir => {}
            _ => return Err(refuse()),
        }
    }
    if path.components().count() > DEPTH { Err(refuse()) } else { Ok(path) }
}

fn read_link_target(entry: &mut impl Read) -> io::Result<String> {
    let mut target = String::new();
    entry.take(NAME_BYTES as u64 + 1).read_to_string(&mut target)?;
    Ok(target)
}

fn damaged(error: &dyn std::fmt::Display) -> Failure {
    faults::invalid(format!("the archive is damaged: {error}")).hint("download it again")
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    const SMALL: Limits = Limits { entries: 5, bytes: ByteCount(1000) };

    /// Unpacks into a fresh folder below the returned one, so that an escape would be seen.
    fn unpack_bytes(bytes: &[u8]) -> (tempfile::TempDir, Result<(), Failure>) {
        let folder = tempfile::tempdir().unwrap();
        let archive = folder.path().join("archive");
        fs::write(&archive, bytes).unwrap();
        let target = folder.path().join("target");
        fs::create_dir(&target).unwrap();
        let outcome = unpack(&archive, &target, SMALL);
        let outside: Vec<_> = fs::read_dir(folder.path()).unwrap().flatten().collect();
        assert_eq!(outside.len(), 2, "something was written outside: {outside:?}");
        (folder, outcome)
    }

    fn zip_of(entries: &[(&str, &[u8])]) -> Vec<u8> {
        let mut writer = zip::ZipWriter::new(io::Cursor::new(Vec::new()));
        for (name, content) in entries {
            writer
                .start_file(*name, zip::write::SimpleFileOptions::default().unix_permissions(0o755))
                .unwrap();
            writer.write_all(content).unwrap();
        }
        writer.finish().unwrap().into_inner()
    }

    fn tar_of(entries: &[(&str, EntryType, &str)]) -> Vec<u8> {
        let encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        let mut builder = tar::Builder::new(encoder);
        for (name, kind, content) in entries {
            let mut header = tar::Header::new_old();
            header.set_entry_type(*kind);
            header.set_mode(0o755);
            // Past the builder's own checks: a hostile archive was not made with it.
            header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
            let is_file = *kind == EntryType::Regular;
            if !is_file {
                header.as_old_mut().linkname[..content.len()].copy_from_slice(content.as_bytes());
            }
            header.set_size(if is_file { content.len() as u64 } else { 0 });
            header.set_cksum();
            builder.append(&header, if is_file { content.as_bytes() } else { b"" }).unwrap();
        }
        builder.into_inner().unwrap().finish().unwrap()
    }

    fn refused(bytes: &[u8]) -> String {
        let failure = unpack_bytes(bytes).1.unwrap_err();
        assert_eq!(failure.exit.number(), 51, "{failure}");
        failure.message
    }

    #[test]
    fn files_of_a_zip_arrive_with_content_and_mode() {
        let (folder, outcome) =
            unpack_bytes(&zip_of(&[("build/bin/llama-server", b"hello"), ("LICENSE", b"x")]));
        outcome.unwrap();
        let server = folder.path().join("target/build/bin/llama-server");
        assert_eq!(fs::read_to_string(&server).unwrap(), "hello");
        assert!(crate::tree::is_executable(&server));
    }

    #[cfg(unix)]
    #[test]
    fn files_and_links_of_a_tar_arrive() {
        let bytes = tar_of(&[
            ("./llama/", EntryType::Directory, ""),
            ("llama/lib.so", EntryType::Symlink, "lib.so.1"),
            ("llama/lib.so.1", EntryType::Regular, "library"),
        ]);
        let (folder, outcome) = unpack_bytes(&bytes);
        outcome.unwrap();
        assert_eq!(fs::read_to_string(folder.path().join("target/llama/lib.so")).unwrap(), "library");
    }

    #[test]
    fn no_entry_leaves_the_folder() {
        for name in ["../evil", "/evil", "a/../../evil", "..\\evil", "C:evil"] {
            let message = refused(&tar_of(&[(name, EntryType::Regular, "x")]));
            assert!(message.contains("leads out"), "{message}");
            refused(&zip_of(&[(name, b"x")]));
        }
    }

    #[test]
    fn no_link_leads_out_of_its_folder() {
        for target in ["../target2", "/etc/passwd", "a/../../b"] {
            let message = refused(&tar_of(&[("link", EntryType::Symlink, target)]));
            assert!(message.contains("leads out"), "{message}");
        }
    }

    #[test]
    fn an_entry_cannot_be_written_through_a_link() {
        let through = [("d", EntryType::Symlink, "e"), ("d/x", EntryType::Regular, "x")];
        let (_folder, outcome) = unpack_bytes(&tar_of(&through));
        assert!(outcome.is_err());
    }

    #[test]
    fn devices_and_hard_links_are_refused() {
        refused(&tar_of(&[("hard", EntryType::Link, "/etc/passwd")]));
        refused(&tar_of(&[("fifo", EntryType::Fifo, "")]));
    }

    #[test]
    fn an_archive_that_unpacks_to_too_much_is_refused_whatever_its_headers_say() {
        let bomb = vec![0; 100_000];
        let zipped = zip_of(&[("bomb", &bomb)]);
        assert!(zipped.len() < 1000);
        assert!(refused(&zipped).contains("over 1000 B"));
        let text = "0".repeat(600);
        refused(&tar_of(&[("a", EntryType::Regular, &text), ("b", EntryType::Regular, &text)]));
    }

    #[test]
    fn an_archive_of_too_many_files_is_refused() {
        let names: Vec<String> = (0..6).map(|number| format!("f{number}")).collect();
        let entries: Vec<(&str, &[u8])> = names.iter().map(|name| (name.as_str(), &b""[..])).collect();
        assert!(refused(&zip_of(&entries)).contains("over 5 files"));
    }

    #[test]
    fn a_file_that_comes_twice_is_refused() {
        refused(&tar_of(&[("a", EntryType::Regular, "1"), ("./a", EntryType::Regular, "2")]));
    }

    #[test]
    fn damaged_archives_and_other_files_are_refused() {
        refused(b"");
        refused(b"#!/bin/sh");
        let mut bytes = zip_of(&[("a", b"content")]);
        bytes.truncate(bytes.len() - 10);
        refused(&bytes);
        let mut bytes = tar_of(&[("a", EntryType::Regular, &"content".repeat(50))]);
        bytes.truncate(bytes.len() / 2);
        refused(&bytes);
    }
}
