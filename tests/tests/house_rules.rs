//! Rules of the house that no compiler knows.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::{Path, PathBuf};

/// Lines of a source file before its tests. One idea rarely takes 500; over that, look again.
const MOST_LINES: usize = 600;
const MOST_LINES_OF_MAIN: usize = 60;

/// Crates whose only users are developers.
const FOR_DEVELOPERS: &[&str] = &["libs/testkit/", "xtask/", "tests/", "fuzz/"];

/// What fuzzing leaves behind.
const LEFT_BY_FUZZING: &[&str] = &["target", "corpus", "artifacts", "coverage", "Cargo.lock"];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_path_buf()
}

/// Every text of the repository with its path, `/` between the parts on every system.
fn texts() -> Vec<(String, String)> {
    let mut texts = Vec::new();
    collect(&root(), &root(), &mut texts);
    assert!(texts.len() > 50, "the walk has missed the sources");
    texts
}

fn collect(root: &Path, folder: &Path, texts: &mut Vec<(String, String)>) {
    for entry in std::fs::read_dir(folder).unwrap().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let not_ours = folder == root && matches!(name.as_str(), ".git" | "target" | "shared");
        let left_by_fuzzing = folder == root.join("fuzz") && LEFT_BY_FUZZING.contains(&name.as_str());
        if not_ours || left_by_fuzzing || matches!(name.as_str(), "node_modules" | "__pycache__") {
            continue;
        }
        let path = entry.path();
        if path.is_dir() {
            collect(root, &path, texts);
        } else if let Ok(text) = std::fs::read_to_string(&path) {
            let relative = path.strip_prefix(root).unwrap().to_string_lossy().replace('\\', "/");
            texts.push((relative, text));
        }
    }
}

fn sources() -> Vec<(String, String)> {
    texts().into_iter().filter(|(path, _)| is_rust(path)).collect()
}

fn is_rust(path: &str) -> bool {
    Path::new(path).extension().is_some_and(|extension| extension == "rs")
}

fn is_for_developers(path: &str) -> bool {
    FOR_DEVELOPERS.iter().any(|folder| path.starts_with(folder)) || path.contains("/tests/")
}

/// The part of a file that ships.
fn before_tests(text: &str) -> &str {
    text.split("#[cfg(test)]").next().unwrap_or(text)
}

/// Fails with every finding at once: nobody likes to be told of them one by one.
#[track_caller]
fn assert_none(findings: &[String]) {
    assert!(findings.is_empty(), "\n{}\n", findings.join("\n"));
}

/// Where a file holds one of these words.
fn find_words(files: &[(String, String)], words: &[&str]) -> Vec<String> {
    let mut findings = Vec::new();
    for (path, text) in files {
        for (number, line) in text.lines().enumerate() {
            for word in words.iter().filter(|word| line.contains(**word)) {
                findings.push(format!("{path}:{}: {word}", number + 1));
            }
        }
    }
    findings
}

#[test]
fn a_file_is_one_idea() {
    let lines = |text: &str| before_tests(text).lines().count();
    let long = sources().into_iter().filter(|(_, text)| lines(text) > MOST_LINES);
    let findings: Vec<String> = long.map(|(path, text)| format!("{path}: {} lines", lines(&text))).collect();
    assert_none(&findings);
}

#[test]
fn a_program_begins_with_a_short_story() {
    let mains =
        sources().into_iter().filter(|(path, _)| path.starts_with("bin/") && path.ends_with("/src/main.rs"));
    let long = mains.filter(|(_, text)| text.lines().count() > MOST_LINES_OF_MAIN);
    assert_none(&long.map(|(path, _)| path).collect::<Vec<_>>());
}

#[test]
fn a_library_opens_with_what_it_is_and_what_to_read_first() {
    let libraries = sources().into_iter().filter(|(path, _)| path.ends_with("/src/lib.rs"));
    let silent = libraries.filter(|(_, text)| !(text.starts_with("//! ") && text.contains("Read first:")));
    assert_none(&silent.map(|(path, _)| path).collect::<Vec<_>>());
}

#[test]
fn nothing_is_left_for_later() {
    let words = [
        concat!("to", "do!("),
        concat!("TO", "DO"),
        concat!("FIX", "ME"),
        concat!("XX", "X:"),
        concat!("unimpl", "emented!("),
        concat!("d", "bg!("),
        concat!("#[ig", "nore]"),
    ];
    assert_none(&find_words(&sources(), &words));
}

#[test]
fn no_path_of_somebodys_machine_and_no_package_registry_is_named() {
    let words = [
        concat!("/wo", "rk/"),
        concat!("/ro", "ot/"),
        concat!("/Us", "ers/"),
        concat!("py", "pi.org"),
        concat!("python", "hosted.org"),
        concat!("crates", ".io"),
        concat!("registry.", "npmjs"),
        concat!("deb.", "debian.org"),
    ];
    let files: Vec<(String, String)> = texts().into_iter().filter(|(path, _)| path != "Cargo.lock").collect();
    assert_none(&find_words(&files, &words));
}

#[test]
fn children_are_born_in_engine_process_only() {
    let shipped = sources()
        .into_iter()
        .filter(|(path, _)| !is_for_developers(path) && !path.starts_with("libs/gpu-node/engine-process/"));
    let shipped: Vec<(String, String)> =
        shipped.map(|(path, text)| (path, before_tests(&text).to_owned())).collect();
    assert_none(&find_words(
        &shipped,
        &["process::Command", "process::{Command", "nix::unistd::fork", "fork("],
    ));
}

#[test]
fn the_compilers_guarantees_are_waived_in_engine_process_only() {
    let others: Vec<_> = sources()
        .into_iter()
        .filter(|(path, _)| !path.starts_with("libs/gpu-node/engine-process/src/"))
        .collect();
    let words = [
        concat!("unsafe", "_code"),
        concat!("unsafe", " {"),
        concat!("unsafe", " fn"),
        concat!("unsafe", " impl"),
    ];
    assert_none(&find_words(&others, &words));
}

#[test]
fn every_lint_that_is_silenced_says_why() {
    let mut findings = Vec::new();
    for (path, text) in sources() {
        for opening in ["[allow(", "[expect("] {
            for (at, _) in text.match_indices(opening).filter(|(at, _)| text[..*at].ends_with(['#', '!'])) {
                let attribute = text[at..].split(")]").next().unwrap_or_default();
                if !attribute.contains("reason") {
                    findings.push(format!("{path}: {attribute}"));
                }
            }
        }
    }
    assert_none(&findings);
}
