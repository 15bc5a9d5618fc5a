//! The values that a workflow's inputs get: as words of a command line or as JSON, always by the declaration.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::Path;

use orch_core::{ByteCount, ExitCode, Failure};
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};
use workflow_spec::{InputDeclaration, InputType};

/// Of one input file: far above any text that fits a model.
const LARGEST_FILE: ByteCount = ByteCount::from_mib(16);
/// Of all files of one input.
const LARGEST_LIST: ByteCount = ByteCount::from_mib(64);
const MOST_FILES: usize = 10_000;
/// Of what is wrong with inputs; the rest is counted.
const MOST_TOLD: usize = 20;
/// Of a name, where it is told: no workflow declares a longer one.
const LONGEST_NAME: usize = 200;

type Declarations = BTreeMap<String, InputDeclaration>;

/// Reads `name=value` pairs as a person types them: text by the declared type, files from this machine's disk,
/// paths relative to `folder`. What is not typed is as in the job's `earlier` life, where it had one. All problems at
/// once.
pub fn read_inputs(
    declared: &Declarations,
    typed: &[(String, String)],
    folder: &Path,
    earlier: Map<String, Value>,
) -> Result<Map<String, Value>, Vec<Failure>> {
    let mut given = Map::new();
    let mut problems = Vec::new();
    for (name, text) in typed {
        let Some(declaration) = declared.get(name) else {
            problems.push(unknown(declared, name));
            continue;
        };
        if given.contains_key(name) {
            problems.push(problem(name, "is given twice").hint("give each input once"));
            continue;
        }
        match read_value(declaration.kind, text, folder) {
            Ok(value) => drop(given.insert(name.clone(), value)),
            Err(why) => problems.push(problem(name, &why)),
        }
    }
    // Those that could not be read are there, and not missing.
    let is_tried = |name: &str| typed.iter().any(|(tried, _)| tried == name);
    take_earlier(declared, &mut given, &mut problems, is_tried, earlier);
    complete(declared, &mut given, &mut problems, is_tried);
    if problems.is_empty() { Ok(given) } else { Err(problems) }
}

/// Checks values that come as JSON: files as `{path, text}`, for nothing of this machine's disk is read. What is not
/// given is as in the job's `earlier` life, where it had one. All problems at once.
pub fn check_inputs(
    declared: &Declarations,
    given: Map<String, Value>,
    earlier: Map<String, Value>,
) -> Result<Map<String, Value>, Vec<Failure>> {
    let mut checked = Map::new();
    let mut problems = Vec::new();
    for (name, value) in given {
        let Some(declaration) = declared.get(&name) else {
            problems.push(unknown(declared, &name));
            continue;
        };
        match check_value(declaration.kind, value) {
            Ok(value) => drop(checked.insert(name, value)),
            Err(why) => {
                problems.push(problem(&name, &why));
                checked.insert(name, Value::Null);
            }
        }
    }
    take_earlier(declared, &mut checked, &mut problems, |_| false, earlier);
    complete(declared, &mut checked, &mut problems, |_| false);
    if problems.is_empty() { Ok(checked) } else { Err(problems) }
}

/// Several problems as one.
pub(super) fn all_of(problems: &[Failure]) -> Failure {
    let told = problems.iter().take(MOST_TOLD);
    let mut messages: Vec<&str> = told.map(|problem| problem.message.as_str()).collect();
    let more = format!("and {} more", problems.len().saturating_sub(MOST_TOLD));
    if problems.len() > MOST_TOLD {
        messages.push(&more);
    }
    Failure::new(ExitCode::JobSpecInvalid, messages.join("\n"))
}

fn problem(name: &str, why: &str) -> Failure {
    let shown: String = name.chars().take(LONGEST_NAME).collect();
    Failure::new(ExitCode::Usage, format!("input {}: {why}", shown.escape_debug()))
}

fn unknown(declared: &Declarations, name: &str) -> Failure {
    let known = declared.keys().map(String::as_str).collect::<Vec<_>>().join(", ");
    let hint = if known.is_empty() {
        "this workflow declares no inputs".to_owned()
    } else {
        format!("it declares: {known}")
    };
    problem(name, "the workflow declares no such input").hint(hint)
}

/// Adds what the job had before, as far as an edited workflow still declares it.
fn take_earlier(
    declared: &Declarations,
    given: &mut Map<String, Value>,
    problems: &mut Vec<Failure>,
    is_tried: impl Fn(&str) -> bool,
    earlier: Map<String, Value>,
) {
    for (name, value) in earlier {
        let Some(declaration) = declared.get(&name) else { continue };
        if given.contains_key(&name) || is_tried(&name) {
            continue;
        }
        let value = check_value(declaration.kind, value).unwrap_or_else(|why| {
            let why = format!("{why} by now, and the job's own value is not");
            problems.push(problem(&name, &why).hint(format!("give it: --var {name}=VALUE")));
            Value::Null
        });
        given.insert(name, value);
    }
}

/// Adds defaults; what is required has to be there.
fn complete(
    declared: &Declarations,
    given: &mut Map<String, Value>,
    problems: &mut Vec<Failure>,
    is_tried: impl Fn(&str) -> bool,
) {
    for (name, declaration) in declared {
        if given.contains_key(name) || is_tried(name) {
            continue;
        }
        match &declaration.default {
            Some(default) => drop(given.insert(name.clone(), default.clone())),
            None if declaration.required => {
                let missing = problem(name, "is required and not given");
                problems.push(missing.hint(format!("give it: --var {name}=VALUE")));
            }
            None => {}
        }
    }
}

fn read_value(kind: InputType, text: &str, folder: &Path) -> Result<Value, String> {
    match kind {
        InputType::String => Ok(text.into()),
        InputType::Integer => text
            .parse::<i64>()
            .map(Value::from)
            .map_err(|_| format!("has to be a whole number, not {text:?}")),
        InputType::Number => match text.parse::<f64>() {
            Ok(number) if number.is_finite() => Ok(number.into()),
            _ => Err(format!("has to be a number, not {text:?}")),
        },
        InputType::Boolean => text
            .parse::<bool>()
            .map(Value::from)
            .map_err(|_| format!("has to be true or false, not {text:?}")),
        InputType::Json => serde_json::from_str(text).map_err(|error| format!("is not JSON: {error}")),
        InputType::File => read_file(&folder.join(text), text),
        InputType::Files => read_files(folder, text),
    }
}

fn check_value(kind: InputType, value: Value) -> Result<Value, String> {
    let wanted = match kind {
        InputType::String if value.is_string() => return Ok(value),
        InputType::Integer if value.is_i64() || value.is_u64() => return Ok(value),
        InputType::Number if value.is_number() => return Ok(value),
        InputType::Boolean if value.is_boolean() => return Ok(value),
        InputType::Json => return Ok(value),
        InputType::File => return check_file(&value),
        InputType::Files => match value {
            Value::Array(files) => return files.iter().map(check_file).collect(),
            _ => "a list of {path, text}",
        },
        InputType::String => "text",
        InputType::Integer => "a whole number",
        InputType::Number => "a number",
        InputType::Boolean => "true or false",
    };
    Err(format!("has to be {wanted}"))
}

fn check_file(value: &Value) -> Result<Value, String> {
    match (value["path"].as_str(), value["text"].as_str()) {
        (Some(path), Some(text)) => Ok(file_value(path, text)),
        _ => Err("a file has to be given as {path, text}".to_owned()),
    }
}

fn file_value(path: &str, text: &str) -> Value {
    json!({"path": path, "text": text, "sha256": hex::encode(Sha256::digest(text))})
}

/// `name` is how the file was called: the same on every machine.
fn read_file(path: &Path, name: &str) -> Result<Value, String> {
    let fault = |error: &dyn std::fmt::Display| format!("cannot read {}: {error}", path.display());
    let file = File::open(path).map_err(|error| fault(&error))?;
    let mut bytes = Vec::new();
    file.take(LARGEST_FILE.0 + 1).read_to_end(&mut bytes).map_err(|error| fault(&error))?;
    if bytes.len() as u64 > LARGEST_FILE.0 {
        return Err(fault(&format_args!("it is larger than {LARGEST_FILE}")));
    }
    let text = String::from_utf8(bytes).map_err(|_| fault(&"it is no UTF-8 text"))?;
    Ok(file_value(&name.replace('\\', "/"), &text))
}

/// Sorted by path, so that the same files are the same value everywhere.
fn read_files(folder: &Path, pattern: &str) -> Result<Value, String> {
    let whole = Path::new(&glob::Pattern::escape(&folder.to_string_lossy())).join(pattern);
    let found = glob::glob(&whole.to_string_lossy())
        .map_err(|error| format!("{pattern:?} is no pattern: {error}"))?;
    let (mut files, mut bytes) = (Vec::new(), 0);
    for path in found {
        let path =
            path.map_err(|error| format!("cannot read {}: {}", error.path().display(), error.error()))?;
        if path.is_dir() {
            continue;
        }
        if files.len() == MOST_FILES {
            return Err(format!("{pattern:?} names more than {MOST_FILES} files"));
        }
        let name = path.strip_prefix(folder).unwrap_or(&path).to_string_lossy().into_owned();
        let file = read_file(&path, &name)?;
        bytes += file["text"].as_str().map_or(0, str::len) as u64;
        if bytes > LARGEST_LIST.0 {
            return Err(format!("the files of {pattern:?} are larger than {LARGEST_LIST} together"));
        }
        files.push(file);
    }
    if files.is_empty() {
        return Err(format!("{pattern:?} names no file below {}", folder.display()));
    }
    files.sort_by(|one, other| one["path"].as_str().cmp(&other["path"].as_str()));
    Ok(Value::Array(files))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn declared(kinds: &[(&str, InputType, bool)]) -> Declarations {
        let declaration =
            |kind, required| InputDeclaration { kind, required, default: None, description: None };
        kinds
            .iter()
            .map(|(name, kind, required)| ((*name).to_owned(), declaration(*kind, *required)))
            .collect()
    }

    fn typed(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    fn messages(problems: &[Failure]) -> Vec<&str> {
        problems.iter().map(|problem| problem.message.as_str()).collect()
    }

    #[test]
    fn words_are_read_by_the_declared_type() {
        let declared = declared(&[
            ("text", InputType::String, true),
            ("count", InputType::Integer, true),
            ("share", InputType::Number, true),
            ("loud", InputType::Boolean, true),
            ("any", InputType::Json, true),
        ]);
        let words = [("text", "12"), ("count", "12"), ("share", "0.5"), ("loud", "true"), ("any", "[1, {}]")];
        let read = read_inputs(&declared, &typed(&words), Path::new(""), Map::new()).unwrap();
        let wanted = json!({"text": "12", "count": 12, "share": 0.5, "loud": true, "any": [1, {}]});
        assert_eq!(Value::Object(read), wanted);
    }

    #[test]
    fn all_that_is_wrong_is_told_at_once() {
        let mut declared =
            declared(&[("count", InputType::Integer, true), ("task", InputType::String, true)]);
        declared.insert(
            "tone".to_owned(),
            InputDeclaration {
                kind: InputType::String,
                required: false,
                default: Some("plain".into()),
                description: None,
            },
        );
        let words = typed(&[("count", "many"), ("taks", "x")]);
        let problems = read_inputs(&declared, &words, Path::new(""), Map::new()).unwrap_err();
        assert_eq!(
            messages(&problems),
            [
                "input count: has to be a whole number, not \"many\"",
                "input taks: the workflow declares no such input",
                "input task: is required and not given",
            ]
        );
        let words = typed(&[("count", "1"), ("task", "x")]);
        let read = read_inputs(&declared, &words, Path::new(""), Map::new()).unwrap();
        assert_eq!(read["tone"], "plain");
    }

    #[test]
    fn a_file_is_its_path_its_text_and_its_digest() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("notes")).unwrap();
        for (name, text) in [("notes/b.txt", "two"), ("notes/a.txt", "one"), ("notes/c.md", "three")] {
            std::fs::write(folder.path().join(name), text).unwrap();
        }
        let declared = declared(&[("one", InputType::File, true), ("all", InputType::Files, true)]);
        let words = typed(&[("one", "notes/a.txt"), ("all", "notes/*.txt")]);
        let read = read_inputs(&declared, &words, folder.path(), Map::new()).unwrap();
        let first = json!({
            "path": "notes/a.txt",
            "text": "one",
            "sha256": "7692c3ad3540bb803c020b3aee66cd8887123234ea0c6e7143c0add73ff431ed",
        });
        assert_eq!(read["one"], first);
        assert_eq!(read["all"][0], first);
        assert_eq!(read["all"][1]["path"], "notes/b.txt");
        assert_eq!(check_inputs(&declared, read.clone(), Map::new()).unwrap(), read);

        let words = typed(&[("one", "gone.txt"), ("all", "*.pdf")]);
        let problems = read_inputs(&declared, &words, folder.path(), Map::new()).unwrap_err();
        assert!(problems[0].message.starts_with("input one: cannot read"), "{problems:?}");
        assert!(problems[1].message.contains("names no file"), "{problems:?}");
    }

    #[test]
    fn what_is_not_given_anew_is_as_it_was() {
        let mut declared = declared(&[("count", InputType::Integer, true), ("doc", InputType::File, true)]);
        let earlier = || {
            let earlier = json!({"count": 1, "doc": file_value("a.txt", "one"), "gone": true});
            earlier.as_object().cloned().unwrap()
        };
        let read = read_inputs(&declared, &typed(&[("count", "2")]), Path::new(""), earlier()).unwrap();
        assert_eq!(Value::Object(read), json!({"count": 2, "doc": file_value("a.txt", "one")}));
        let wrong = read_inputs(&declared, &typed(&[("count", "x")]), Path::new(""), earlier()).unwrap_err();
        assert_eq!(messages(&wrong), ["input count: has to be a whole number, not \"x\""]);
        // An edited workflow may want something else.
        declared.get_mut("count").unwrap().kind = InputType::String;
        let wrong = check_inputs(&declared, Map::new(), earlier()).unwrap_err();
        assert_eq!(messages(&wrong), ["input count: has to be text by now, and the job's own value is not"]);
    }

    #[test]
    fn values_of_the_wrong_type_are_refused() {
        let declared = declared(&[("count", InputType::Integer, true), ("doc", InputType::File, true)]);
        let given = json!({"count": "12", "doc": "/etc/passwd"}).as_object().unwrap().clone();
        let problems = check_inputs(&declared, given, Map::new()).unwrap_err();
        assert_eq!(
            messages(&problems),
            ["input count: has to be a whole number", "input doc: a file has to be given as {path, text}"]
        );
    }
}
