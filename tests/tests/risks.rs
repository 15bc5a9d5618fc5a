//! The register of risks names the test behind every mitigation, and only tests that exist.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::{Path, PathBuf};

const RISKS: usize = 8;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_path_buf()
}

/// Every `` `path/to/file.rs::name_of_the_test` `` of a line.
fn named_tests(line: &str) -> impl Iterator<Item = (&str, &str)> {
    line.split('`').filter_map(|span| span.split_once("::").filter(|(path, _)| is_rust(path)))
}

fn is_rust(path: &str) -> bool {
    Path::new(path).extension().is_some_and(|extension| extension == "rs")
}

fn stands(path: &str, test: &str) -> bool {
    std::fs::read_to_string(root().join(path)).is_ok_and(|text| text.contains(&format!("fn {test}(")))
}

fn register() -> String {
    std::fs::read_to_string(root().join("docs/risks.md")).unwrap()
}

#[test]
fn every_test_that_the_register_names_stands_where_it_says() {
    let register = register();
    let missing: Vec<String> = register
        .lines()
        .flat_map(named_tests)
        .filter(|(path, test)| !stands(path, test))
        .map(|(path, test)| format!("{path}::{test}"))
        .collect();
    assert!(missing.is_empty(), "\n{}\n", missing.join("\n"));
}

#[test]
fn every_risk_has_a_mitigation_that_a_test_shows() {
    let register = register();
    for number in 1..=RISKS {
        let section = register.split(&format!("\n## R{number} ")).nth(1);
        let section = section.unwrap_or_else(|| panic!("R{number} is not in the register"));
        let section = section.split("\n## ").next().unwrap();
        assert!(section.lines().flat_map(named_tests).next().is_some(), "R{number} names no test");
    }
}
