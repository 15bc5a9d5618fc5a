//! What the documents tell people to type is understood by the program.

use clap::Parser;
use llama_orch::arguments::Arguments;

const DOCUMENTS: &[(&str, &str)] = &[
    ("README.md", include_str!("../../../README.md")),
    ("docs/USER_GUIDE.md", include_str!("../../../docs/USER_GUIDE.md")),
    ("docs/WORKFLOWS.md", include_str!("../../../docs/WORKFLOWS.md")),
    ("docs/MIGRATION.md", include_str!("../../../docs/MIGRATION.md")),
];

/// The command lines of our program in the fenced parts of a document.
fn command_lines(text: &str) -> Vec<&str> {
    let mut fenced = false;
    let mut found = Vec::new();
    for line in text.lines() {
        if line.trim_start().starts_with("```") {
            fenced = !fenced;
            continue;
        }
        let line = line.trim_start().trim_start_matches("$ ").trim_start_matches("sudo ");
        if fenced && line.starts_with("llama-orch ") {
            found.push(line);
        }
    }
    assert!(!fenced, "a fence is not closed");
    found
}

/// The words of a command line as a shell takes them, up to a pipe, a redirection, another command or a remark.
fn words(line: &str) -> Vec<String> {
    let (mut words, mut word, mut quote) = (Vec::new(), None::<String>, None);
    for character in line.chars() {
        match (quote, character) {
            (Some(open), close) if open == close => quote = None,
            (None, '\'' | '"') => {
                quote = Some(character);
                word.get_or_insert_default();
            }
            (None, ' ') => words.extend(word.take()),
            (None, '|' | '>' | '&' | '#') if word.is_none() => break,
            _ => word.get_or_insert_default().push(character),
        }
    }
    words.extend(word);
    words
}

#[test]
fn every_command_line_in_the_documents_is_understood() {
    for (document, text) in DOCUMENTS {
        let lines = command_lines(text);
        assert!(lines.len() > 3, "{document} has no command lines any more");
        for line in lines {
            if let Err(error) = Arguments::try_parse_from(words(line)) {
                assert!(!error.use_stderr(), "{document}: {line}\n{error}");
            }
        }
    }
}

#[test]
fn command_lines_are_taken_apart_as_a_shell_does() {
    assert_eq!(words("a 'b c'd \"\" > x"), ["a", "b cd", ""]);
    assert_eq!(words("a b # c"), ["a", "b"]);
    assert_eq!(
        command_lines("llama-orch no\n```console\n$ sudo llama-orch yes\n$ curl\n```\n"),
        ["llama-orch yes"]
    );
}

#[test]
fn the_guide_knows_every_exit_code_of_this_milestone() {
    let guide = DOCUMENTS[1].1;
    let section = guide.split("## When something is wrong").nth(1).unwrap_or_default();
    let told: Vec<u8> = section
        .lines()
        .filter_map(|line| line.strip_prefix("| ")?.split(" | ").next())
        .flat_map(|codes| codes.split(", ").flat_map(range).collect::<Vec<_>>())
        .collect();
    for code in orch_core::ExitCode::ALL {
        let number = code.number();
        // Success and the general failure have no advice of their own; jobs and nodes are not there yet.
        let expected = !matches!(number, 0 | 1 | 70..=80);
        assert_eq!(told.contains(&number), expected, "{number}: {}", code.meaning());
    }
}

/// `60–64` is all of them.
fn range(codes: &str) -> Vec<u8> {
    let mut ends = codes.split('–').filter_map(|code| code.parse::<u8>().ok());
    let Some(first) = ends.next() else { return Vec::new() };
    (first..=ends.next().unwrap_or(first)).collect()
}
