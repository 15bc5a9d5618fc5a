//! `docs/REFERENCE.md` and `docs/openapi.json` are made from the tables in the code, so that none can be out of date.

use std::fmt::Write as _;
use std::path::Path;

use instance_config::{FIELDS, Field, Preset, Reach};
use orch_core::{ErrorCode, EventType, ExitCode};
use orch_runtime::{KEYS, environment};

const UPDATE: &str = "UPDATE_REFERENCE";

#[test]
fn the_reference_is_current() {
    assert_current("REFERENCE.md", &reference());
}

#[test]
fn the_description_of_our_interface_is_current() {
    let document = serde_json::to_string_pretty(&orch_api::openapi()).unwrap();
    assert_current("openapi.json", &(document + "\n"));
}

fn assert_current(file: &str, wanted: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs").join(file);
    if std::env::var_os(UPDATE).is_some() {
        std::fs::write(&path, wanted).expect("the docs folder takes a file");
    }
    let found = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        found == wanted,
        "docs/{file} differs from the code: {UPDATE}=1 cargo test -p end-to-end --test reference"
    );
}

fn reference() -> String {
    let mut text = String::from(
        "# Reference\n\nMade from the tables in the code; a test keeps it current. `llama-orch COMMAND --help` describes \
         the commands.\n",
    );
    exit_codes(&mut text);
    error_codes(&mut text);
    event_types(&mut text);
    journal_events(&mut text);
    settings(&mut text);
    variables(&mut text);
    fields(&mut text);
    text
}

fn exit_codes(text: &mut String) {
    text.push_str("\n## Exit codes\n\n| code | meaning |\n|---|---|\n");
    for code in ExitCode::ALL {
        let _ = writeln!(text, "| {} | {} |", code.number(), code.meaning());
    }
}

fn error_codes(text: &mut String) {
    text.push_str("\n## HTTP error codes\n\n| code | HTTP | retry helps | OpenAI type | Anthropic type | when |\n|---|---|---|---|---|---|\n");
    for code in ErrorCode::ALL {
        let retry = if code.retriable() { "yes" } else { "no" };
        let _ = writeln!(
            text,
            "| {} | {} | {retry} | {} | {} | {} |",
            code.label(),
            code.http_status(),
            code.openai_type(),
            code.anthropic_type(),
            code.meaning()
        );
    }
}

fn event_types(text: &mut String) {
    text.push_str("\n## Events\n\n");
    let names: Vec<String> = EventType::ALL.iter().map(|event| format!("`{event}`")).collect();
    let _ = writeln!(text, "{}", names.join(", "));
}

fn journal_events(text: &mut String) {
    text.push_str(
        "\n## Events of a workflow run: `runs/<job>/events.jsonl`\n\n| type | meaning |\n|---|---|\n",
    );
    for kind in workflow::EventType::ALL {
        let _ = writeln!(text, "| `{kind}` | {} |", kind.meaning());
    }
}

fn settings(text: &mut String) {
    text.push_str(
        "\n## Settings: `config.toml` of the home\n\nA flag goes before the environment, the environment before the \
         file, the file before the default.\n\n| key | default | environment | meaning |\n|---|---|---|---|\n",
    );
    for key in KEYS {
        let default = key.default.map_or("–".to_owned(), |default| format!("`{default}`"));
        let variable = key.variable.map_or("–".to_owned(), |name| format!("`{name}`"));
        let _ = writeln!(text, "| `{}` | {default} | {variable} | {} |", key.path, cell(key.meaning));
    }
}

fn variables(text: &mut String) {
    text.push_str("\n## Environment\n\n| variable | meaning |\n|---|---|\n");
    for variable in environment::ALL {
        let _ = writeln!(text, "| `{}` | {} |", variable.name, cell(variable.meaning));
    }
}

fn fields(text: &mut String) {
    text.push_str(
        "\n## Instance config: `instances/<name>/config.json`\n\nA change of a field marked with * reaches a running \
         engine at its next start; all others apply at once.\n\n| field | default | meaning |\n|---|---|---|\n",
    );
    for field in FIELDS {
        let mark = if field.reach == Reach::Engine { " *" } else { "" };
        let _ =
            writeln!(text, "| `{}`{mark} | {} | {} |", field.path, default_of(field), cell(field.meaning));
    }
}

fn default_of(field: &Field) -> String {
    match field.preset {
        Preset::Required => "required".to_owned(),
        Preset::Absent => "–".to_owned(),
        Preset::Value(value) => format!("`{}`", cell(value)),
    }
}

fn cell(text: &str) -> String {
    text.replace('|', "\\|")
}
