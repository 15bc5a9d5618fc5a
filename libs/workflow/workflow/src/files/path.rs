//! Which texts are paths below a folder. They come from models: nothing in them is trusted.

use std::fmt;

/// Longer parts are refused by file systems.
const LONGEST_PART: usize = 255;
const LONGEST_PATH: usize = 1000;

/// Enough of a hostile path to recognise it.
const SHOWN: usize = 80;

/// A relative path that means the same file below its folder on every system.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct OutputPath(String);

/// Why a text is no path that may be written to.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PathRefusal {
    #[error("it is empty")]
    Empty,
    #[error("it has {0} bytes, and {LONGEST_PATH} are allowed")]
    TooLong(usize),
    #[error("one of its parts has {0} bytes, and {LONGEST_PART} are allowed")]
    PartTooLong(usize),
    #[error("it is absolute; write it relative to the project's output folder")]
    Absolute,
    #[error("it has an empty part or one that is only dots")]
    Dots,
    #[error("it contains {0:?}, which is not allowed in file names")]
    Character(char),
    #[error("one of its parts ends with a dot or begins or ends with a space")]
    Trimmed,
    #[error("{0} is the name of a device on Windows")]
    Device(String),
    #[error("it differs only in capital letters from {0}, which exists")]
    CaseCollision(String),
    #[error("{0} is a symbolic link, and links are not followed")]
    Link(String),
    #[error("{0} is no folder")]
    NoFolder(String),
    #[error("there is something of this name that is no regular file")]
    NoFile,
}

impl OutputPath {
    /// Parts are separated by `/`.
    pub fn new(text: &str) -> Result<Self, PathRefusal> {
        if text.is_empty() {
            return Err(PathRefusal::Empty);
        }
        if text.len() > LONGEST_PATH {
            return Err(PathRefusal::TooLong(text.len()));
        }
        if text.starts_with(['/', '\\']) || is_drive(text) {
            return Err(PathRefusal::Absolute);
        }
        if let Some(character) = text.chars().find(|character| is_refused(*character)) {
            return Err(PathRefusal::Character(character));
        }
        text.split('/').try_for_each(check_part)?;
        Ok(Self(text.to_owned()))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The folders on the way, and the file's own name.
    pub(crate) fn split(&self) -> (Vec<&str>, &str) {
        let mut parts: Vec<&str> = self.0.split('/').collect();
        let name = parts.pop().unwrap_or_default();
        (parts, name)
    }

    /// The paths of the folders on the way and of the file itself.
    pub(crate) fn prefixes(&self) -> impl Iterator<Item = &str> {
        let ends = self.0.match_indices('/').map(|(at, _)| at).chain([self.0.len()]);
        ends.map(|end| &self.0[..end])
    }
}

impl fmt::Display for OutputPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A hostile text for people to read: short, and without control characters.
pub(crate) fn shown(text: &str) -> String {
    let short: String = text.chars().take(SHOWN).collect();
    let more = if short.len() < text.len() { "…" } else { "" };
    format!("{short:?}{more}")
}

fn is_drive(text: &str) -> bool {
    matches!(text.as_bytes(), [letter, b':', ..] if letter.is_ascii_alphabetic())
}

/// What some system does not allow in names or understands otherwise, and what changes how a name is shown.
fn is_refused(character: char) -> bool {
    character.is_control()
        || matches!(character, '\\' | ':' | '*' | '?' | '"' | '<' | '>' | '|')
        || matches!(character, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

fn check_part(part: &str) -> Result<(), PathRefusal> {
    if part.len() > LONGEST_PART {
        return Err(PathRefusal::PartTooLong(part.len()));
    }
    if part.bytes().all(|byte| byte == b'.') {
        return Err(PathRefusal::Dots);
    }
    if part.ends_with('.') || part.trim() != part {
        return Err(PathRefusal::Trimmed);
    }
    if is_device(part) { Err(PathRefusal::Device(part.to_owned())) } else { Ok(()) }
}

/// Windows opens these in any folder and with any extension.
fn is_device(part: &str) -> bool {
    let stem = part.split('.').next().unwrap_or(part).trim_end().to_ascii_uppercase();
    let numbered = |name: &str| {
        let number = stem.strip_prefix(name);
        number.is_some_and(|number| {
            matches!(number, "¹" | "²" | "³") || matches!(number.as_bytes(), [b'0'..=b'9'])
        })
    };
    matches!(stem.as_str(), "CON" | "PRN" | "AUX" | "NUL" | "CONIN$" | "CONOUT$" | "CLOCK$")
        || numbered("COM")
        || numbered("LPT")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn refusal(text: &str) -> PathRefusal {
        OutputPath::new(text).expect_err(text)
    }

    #[test]
    fn ordinary_names_are_paths() {
        for text in
            ["main.py", "src/app/mod.rs", ".gitignore", "a b.txt", "Grüße/日本.md", "common", "nul1", "com10"]
        {
            assert_eq!(OutputPath::new(text).expect(text).as_str(), text);
        }
    }

    #[test]
    fn ways_out_of_the_folder_are_refused() {
        for text in ["/etc/passwd", "\\\\server\\share", "C:\\x", "c:x", "//x"] {
            assert_eq!(refusal(text), PathRefusal::Absolute, "{text}");
        }
        for text in ["..", "../x", "a/../../x", "a/..", "./x", "a//b", "a/", "...", "a/.../b"] {
            assert_eq!(refusal(text), PathRefusal::Dots, "{text}");
        }
        assert_eq!(refusal("a\\..\\..\\x"), PathRefusal::Character('\\'));
    }

    #[test]
    fn names_that_mean_something_else_elsewhere_are_refused() {
        for text in ["CON", "nul", "NUL.txt", "a/com1.tar.gz", "LPT9", "aux .md", "COM¹", "conin$", "prn/x"]
        {
            assert!(matches!(refusal(text), PathRefusal::Device(_)), "{text}");
        }
        for text in ["a.", "a ", " a", "a./b", "a /b", "a\u{a0}"] {
            assert_eq!(refusal(text), PathRefusal::Trimmed, "{text:?}");
        }
        for (text, character) in [
            ("ab:stream", ':'),
            ("a\0b", '\0'),
            ("a\nb", '\n'),
            ("a\u{7f}", '\u{7f}'),
            ("x\u{202e}fdp.exe", '\u{202e}'),
            ("what?", '?'),
        ] {
            assert_eq!(refusal(text), PathRefusal::Character(character), "{text:?}");
        }
    }

    #[test]
    fn overlong_paths_are_refused() {
        assert_eq!(refusal(""), PathRefusal::Empty);
        assert!(OutputPath::new(&"x".repeat(255)).is_ok());
        assert_eq!(refusal(&"x".repeat(256)), PathRefusal::PartTooLong(256));
        assert_eq!(refusal(&"é".repeat(128)), PathRefusal::PartTooLong(256));
        assert_eq!(refusal(&"x/".repeat(501)), PathRefusal::TooLong(1002));
    }

    #[test]
    fn hostile_text_is_shown_harmlessly() {
        assert_eq!(shown("a\u{1b}[2J"), "\"a\\u{1b}[2J\"");
        assert!(shown(&"x".repeat(5000)).ends_with("\"…"));
    }

    proptest! {
        #[test]
        fn a_path_has_only_named_parts(text in "[a-zA-Z./\\\\ :~ -]{0,24}|.{0,40}") {
            if let Ok(path) = OutputPath::new(&text) {
                let (folders, name) = path.split();
                for part in folders.iter().chain([&name]) {
                    prop_assert!(!part.is_empty() && *part != "." && *part != "..");
                    prop_assert!(!part.contains(['/', '\\', '\0', ':']));
                }
                let components = std::path::Path::new(path.as_str()).components();
                prop_assert!(components.clone().all(|part| matches!(part, std::path::Component::Normal(_))));
                prop_assert_eq!(components.count(), folders.len() + 1);
                prop_assert_eq!(path.prefixes().last(), Some(text.as_str()));
            }
        }
    }
}
