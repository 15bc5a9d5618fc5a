//! The documentation's table of failures is the one in the code. `UPDATE_REFERENCE=1` writes it.

use std::fmt::Write as _;
use std::path::Path;

use llm_providers::{FAILURE_TABLE, FailureRow, Said};

const BEGIN: &str = "<!-- Made from the table in llm-providers by its tests. -->\n";
const END: &str = "<!-- The end of what was made. -->\n";

#[test]
fn the_documentation_holds_the_table_of_failures() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../docs/WORKFLOWS.md");
    let page = std::fs::read_to_string(&path).unwrap();
    let (head, rest) = page.split_once(BEGIN).unwrap();
    let (_, tail) = rest.split_once(END).unwrap();
    let made = format!("{head}{BEGIN}\n{}\n{END}{tail}", table());
    if std::env::var_os("UPDATE_REFERENCE").is_some() {
        std::fs::write(&path, made).unwrap();
    } else {
        assert!(page == made, "docs/WORKFLOWS.md is out of date: run this test with UPDATE_REFERENCE=1");
    }
}

fn table() -> String {
    let mut table = "| answer | kind | meaning |\n|---|---|---|\n".to_owned();
    table.push_str("| no connection, or one that breaks before the answer is whole | `connect` | |\n");
    for FailureRow { said, kind, meaning } in FAILURE_TABLE {
        writeln!(table, "| {} | `{kind}` | {meaning} |", words(said)).unwrap();
    }
    table
}

fn words(said: Said) -> String {
    let list = |words: &[&str]| words.iter().map(|word| format!("`{word}`")).collect::<Vec<_>>().join(", ");
    match said {
        Said::Code(codes) => format!("error {}", list(codes)),
        Said::Status(from, to) if from == to => from.to_string(),
        Said::Status(from, to) => format!("{from}–{to}"),
        Said::Message(part) => format!("error with the words “{part}”"),
        Said::Word([]) => "anything else".to_owned(),
        Said::Word(words) => format!("error {} without a status", list(words)),
    }
}
