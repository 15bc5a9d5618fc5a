//! The published JSON Schema agrees with the reader, and the documentation with the schema.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fmt::Write;

use serde_json::Value;
use workflow_spec::{FailureKind, JobSpec, LoadNothing, job_schema};

const GOOD: [&str; 4] = [
    r#"{"project": "p", "steps": {"a": {"pass": null}, "b": {"run": ["x"], "needs": "a", "cache": true}}}"#,
    r#"{"x-note": 1, "project": "p", "models": {"m": [{"provider": "local", "on": ["timeout"]}], "n": "qwen"},
        "limits": {"wall": "1h30m", "providers": {"local": 2, "other": {"in_flight": 1}}}, "budget": 5,
        "steps": {"a": {"llm": {"model": "m", "prompt": "x", "output": {"schema": true}}, "retry": {"base": "250ms"}}}}"#,
    r#"{"project": "p", "inputs": {"a": "json", "b": {"type": "file", "required": false}},
        "steps": {"l": {"loop": {"max": 1, "until": true, "body": {"g": {"gate": "?"}}}},
        "w": {"workflow": {"spec": {"project": "q", "steps": {"h": {"http": {"url": "http://x/"}}}}}}}}"#,
    r#"{"project": "p", "task_description": "x", "provider": "ollama", "concurrency": 4, "timeout_s": 600, "output_dir": "o"}"#,
];

const BAD: [&str; 8] = [
    r#"{"project": "p"}"#,
    r#"{"project": "p", "steps": {"a": {"pas": null}}}"#,
    r#"{"project": "p", "steps": {"a": {"pass": null, "run": ["x"]}}}"#,
    r#"{"project": "p", "steps": {"a": {"run": "echo"}}}"#,
    r#"{"project": "p", "steps": {"a": {"pass": null, "timeout": 5}}}"#,
    r#"{"project": "p", "steps": {"a": {"pass": null, "retry": {"on": ["sometimes"]}}}}"#,
    r#"{"project": "p", "steps": {"a": {"llm": {"model": "m"}}}}"#,
    r#"{"project": "p", "task_description": "x", "steps": {}, "concurrency": 0}"#,
];

#[test]
fn the_schema_is_one() {
    jsonschema::meta::validate(&job_schema()).unwrap();
}

#[test]
fn schema_and_reader_agree() {
    let validator = jsonschema::validator_for(&job_schema()).unwrap();
    for text in GOOD {
        let document: Value = serde_json::from_str(text).unwrap();
        assert!(validator.is_valid(&document), "the schema refuses {text}");
        JobSpec::read(text, &LoadNothing).unwrap_or_else(|errors| panic!("{text}: {errors}"));
    }
    for text in BAD {
        let document: Value = serde_json::from_str(text).unwrap();
        assert!(!validator.is_valid(&document), "the schema accepts {text}");
        assert!(JobSpec::read(text, &LoadNothing).is_err(), "the reader accepts {text}");
    }
}

/// The sections in the order of the reference.
const SECTIONS: [(&str, &str); 21] = [
    ("Workflow", "The document"),
    ("Input", "`inputs.<name>`"),
    ("Candidate", "`models.<name>`: a candidate"),
    ("Limits", "`limits`"),
    ("Limit", "`limits.providers.<name>`, `limits.models.<name>`"),
    ("Budget", "`budget`"),
    ("Step", "`steps.<id>`: a step"),
    ("llm", "`llm`"),
    ("Message", "`messages[…]`"),
    ("Output", "`output`"),
    ("run", "`run`"),
    ("http", "`http`"),
    ("gate", "`gate`"),
    ("workflow", "`workflow`"),
    ("loop", "`loop`"),
    ("pass", "`pass`"),
    ("map", "`map`"),
    ("retry", "`retry`"),
    ("cache", "`cache`"),
    ("File", "`files[…]`"),
    ("SixFields", "The six-field file"),
];

/// What may stand under a key, in words.
fn holds(schema: &Value) -> String {
    if let Some(name) = schema["$ref"].as_str() {
        let title = name.trim_start_matches("#/$defs/");
        let (_, heading) = SECTIONS.iter().find(|(section, _)| *section == title).unwrap();
        return format!("mapping: {}", heading.split(':').next().unwrap());
    }
    if let Some(words) = schema["enum"].as_array() {
        if words.len() == FailureKind::ALL.len() {
            return "kinds of failure".to_owned();
        }
        let words: Vec<_> = words.iter().map(|word| format!("`{}`", word.as_str().unwrap())).collect();
        return words.join(", ");
    }
    if let Some(several) = schema["anyOf"].as_array() {
        return several.iter().map(holds).collect::<Vec<_>>().join("; or ");
    }
    match (schema["type"].as_str(), schema.get("pattern")) {
        (Some("string"), Some(_)) => "duration".to_owned(),
        (Some("string"), None) => "text".to_owned(),
        (Some("boolean"), _) => "true, false".to_owned(),
        (Some("null"), _) => "nothing".to_owned(),
        (Some("integer"), _) => match schema["maximum"].as_u64() {
            Some(most) if most == schema["minimum"] => most.to_string(),
            Some(most) => format!("{} to {most}", schema["minimum"]),
            None => format!("{} or more", schema["minimum"]),
        },
        (Some("array"), _) => format!("list of {}", holds(&schema["items"])),
        (Some("object"), _) => format!("names: {}", holds(&schema["additionalProperties"])),
        _ if schema["type"].as_array().is_some_and(|types| types[0] == "object") => "JSON Schema".to_owned(),
        _ if schema["type"].is_array() => "decision".to_owned(),
        _ => "any value".to_owned(),
    }
}

fn reference() -> String {
    let schema = job_schema();
    let mut text = String::new();
    for (title, heading) in SECTIONS {
        let section = &schema["$defs"][title];
        let _ = writeln!(text, "#### {heading}\n\n{}\n", section["description"].as_str().unwrap());
        text.push_str("| key | holds | |\n|---|---|---|\n");
        for (name, key) in section["properties"].as_object().unwrap() {
            let required = section["required"].as_array();
            let required = required.is_some_and(|required| required.contains(&name.as_str().into()));
            let star = if required { " (required)" } else { "" };
            let about = key["description"].as_str().unwrap().replace('|', "\\|");
            let _ = writeln!(text, "| `{name}`{star} | {} | {about} |", holds(key));
        }
        text.push('\n');
    }
    assert_eq!(schema["$defs"].as_object().unwrap().len(), SECTIONS.len(), "a section has no heading");
    text
}

/// `UPDATE_REFERENCE=1` writes it.
#[test]
fn the_documented_reference_is_the_schemas() {
    const BEGIN: &str = "<!-- Made from the JSON Schema by the tests of workflow-spec. -->\n\n";
    const END: &str = "<!-- Up to here. -->";
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../../docs/WORKFLOWS.md");
    let document = std::fs::read_to_string(path).unwrap();
    let (before, rest) = document.split_once(BEGIN).unwrap();
    let (written, after) = rest.split_once(END).unwrap();
    let wanted = reference();
    if written == wanted {
        return;
    }
    if std::env::var_os("UPDATE_REFERENCE").is_some() {
        std::fs::write(path, format!("{before}{BEGIN}{wanted}{END}{after}")).unwrap();
    } else {
        panic!("docs/WORKFLOWS.md is behind: UPDATE_REFERENCE=1 cargo test -p workflow-spec");
    }
}

#[test]
fn the_schema_accepts_every_example() {
    let validator = jsonschema::validator_for(&job_schema()).unwrap();
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../../examples/workflows");
    let mut seen = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_file() {
            let document: Value = serde_saphyr::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
            let faults: Vec<_> = validator.iter_errors(&document).map(|fault| fault.to_string()).collect();
            assert!(faults.is_empty(), "{}: {faults:?}", path.display());
            seen += 1;
        }
    }
    assert!(seen > 0, "there are examples");
}
