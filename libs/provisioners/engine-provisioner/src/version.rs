//! The order of engine versions.
//!
//! Releases are called `b11434`, the packages built from them `11434.0.0`, and executables may say `11434
//! (commit)`: one build number in three dresses. Anything else has no place in that order.

/// The build number in a version, if it has one.
pub(crate) fn build_number(version: &str) -> Option<u64> {
    let version = version.trim();
    let bare = version.strip_prefix('b').unwrap_or(version);
    bare.strip_suffix(".0.0").unwrap_or(bare).parse().ok()
}

/// Whether two versions name the same build.
pub(crate) fn same(a: &str, b: &str) -> bool {
    a.trim().eq_ignore_ascii_case(b.trim())
        || build_number(a).is_some_and(|number| build_number(b) == Some(number))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_build_has_many_names() {
        assert!(same("b11434", "11434.0.0"));
        assert!(same("11434", "b11434"));
        assert!(same("0.6.0-dev", "0.6.0-DEV"));
        assert!(!same("b11434", "b11435"));
        assert!(!same("0.6.0-dev", "0.7.0-dev"));
    }

    #[test]
    fn a_version_without_a_build_number_has_none() {
        for version in ["0.6.0-dev", "", "b", "custom", "1.2.3"] {
            assert_eq!(build_number(version), None, "{version}");
        }
    }
}
