//! Bytes to a JSON object.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use orch_core::ExitCode;
use serde_json::{Map, Value};

/// A config is a few kilobytes; some hold a chat template of twenty. What is larger is not a config.
const LARGEST: u64 = 4 * 1024 * 1024;

/// Why a file gives no JSON object.
#[derive(Debug)]
pub(crate) struct Unreadable {
    pub exit: ExitCode,
    pub message: String,
}

impl Unreadable {
    fn new(exit: ExitCode, message: impl Into<String>) -> Self {
        Self { exit, message: message.into() }
    }
}

pub(crate) fn read_document(path: &Path) -> Result<Map<String, Value>, Unreadable> {
    parse_document(&read_bytes(path)?)
}

/// As much of a file as a config may have, and one byte more of a larger one.
pub(crate) fn read_bytes(path: &Path) -> Result<Vec<u8>, Unreadable> {
    let io = |error: std::io::Error| {
        let exit = match error.kind() {
            std::io::ErrorKind::NotFound => ExitCode::ConfigNotFound,
            std::io::ErrorKind::PermissionDenied => ExitCode::PermissionDenied,
            _ => ExitCode::ConfigParse,
        };
        Unreadable::new(exit, format!("cannot be read: {error}"))
    };
    // Asked before opening: a named pipe would block the reader for ever.
    if !std::fs::metadata(path).map_err(io)?.is_file() {
        return Err(Unreadable::new(ExitCode::ConfigParse, "is not a file"));
    }
    // Room for nearly every config at once.
    let mut bytes = Vec::with_capacity(8192);
    File::open(path).map_err(io)?.take(LARGEST + 1).read_to_end(&mut bytes).map_err(io)?;
    Ok(bytes)
}

pub(crate) fn parse_document(bytes: &[u8]) -> Result<Map<String, Value>, Unreadable> {
    let parse = |message: String| Unreadable::new(ExitCode::ConfigParse, message);
    if bytes.len() as u64 > LARGEST {
        return Err(parse(format!("is larger than {} MiB", LARGEST / 1024 / 1024)));
    }
    // Editors on Windows begin a file with a byte order mark. A CR is white space to JSON anyway.
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    if bytes.starts_with(b"\xff\xfe") || bytes.starts_with(b"\xfe\xff") {
        return Err(parse("is UTF-16; save it as UTF-8".to_owned()));
    }
    match serde_json::from_slice(bytes) {
        Ok(Value::Object(document)) => Ok(document),
        Ok(_) => Err(parse("is JSON, but not an object".to_owned())),
        Err(error) => Err(parse(format!("is not JSON: {error}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_byte_order_mark_and_windows_line_ends_are_read() {
        let document = parse_document(b"\xef\xbb\xbf{\r\n \"name\": \"a\"\r\n}\r\n").unwrap();
        assert_eq!(document["name"], "a");
    }

    #[test]
    fn what_is_no_json_object_is_a_parse_error() {
        for bad in [&b""[..], b"[]", b"{", b"\xff\xfe{\0}\0", b"\xc3\x28", b"null"] {
            assert_eq!(parse_document(bad).unwrap_err().exit, ExitCode::ConfigParse);
        }
    }

    #[test]
    fn nesting_without_end_is_refused_rather_than_followed() {
        let deep = [b"{\"a\":".repeat(100_000), b"1".to_vec()].concat();
        assert_eq!(parse_document(&deep).unwrap_err().exit, ExitCode::ConfigParse);
    }

    #[test]
    fn a_folder_in_place_of_the_file_is_no_config() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(read_document(folder.path()).unwrap_err().exit, ExitCode::ConfigParse);
        assert_eq!(read_document(&folder.path().join("none")).unwrap_err().exit, ExitCode::ConfigNotFound);
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..512)) {
            let _ = parse_document(&bytes);
        }
    }
}
