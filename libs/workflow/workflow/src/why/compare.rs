//! Two key documents: where they differ, said in the words of a workflow.

use std::collections::BTreeSet;

use serde::Serialize;
use serde_json::Value;

use super::words::{Words, compare};

/// One place in which two requests differ.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Change {
    /// What it is: prompt, option, model, model file, schema, tools …
    pub what: &'static str,
    /// Where it stands in the key document: `messages[1].content`.
    pub path: String,
    /// `None` where there was nothing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub before: Option<Value>,
    /// `None` where there is nothing any more.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub after: Option<Value>,
    /// The words of two texts; empty where it is no text.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub words: Vec<Words>,
}

/// Members of key documents and what they are, by the beginning of their path without positions. The longest
/// beginning counts.
const NAMES: &[(&str, &str)] = &[
    ("argv", "arguments"),
    ("body", "body"),
    ("candidates", "candidates"),
    ("candidates.digest", "model file"),
    ("candidates.model", "model"),
    ("candidates.options", "option"),
    ("candidates.provider", "provider"),
    ("choices", "choices"),
    ("code_version", "code version"),
    ("env", "environment"),
    ("format", "output format"),
    ("headers", "headers"),
    ("inputs", "inputs"),
    ("kind", "kind of step"),
    ("message", "message"),
    ("messages", "prompt"),
    ("method", "method"),
    ("occurrence", "place among equal steps"),
    ("provider", "provider"),
    ("provider.model", "model"),
    ("provider.opts", "option"),
    ("sample", "sample"),
    ("schema", "schema"),
    ("secrets", "secrets"),
    ("stdin", "standard input"),
    ("step", "name of the step"),
    ("tools", "tools"),
    ("url", "url"),
    ("v", "version of keys"),
];

/// All differences, in the order of the later document.
pub(super) fn changes(before: &Value, after: &Value) -> Vec<Change> {
    let mut found = Vec::new();
    walk(&mut found, &mut String::new(), Some(before), Some(after));
    found
}

fn walk(found: &mut Vec<Change>, path: &mut String, before: Option<&Value>, after: Option<&Value>) {
    if before == after {
        return;
    }
    match (before, after) {
        (Some(Value::Object(before)), Some(Value::Object(after))) => {
            let names: BTreeSet<&String> = before.keys().chain(after.keys()).collect();
            for name in names {
                let separator = if path.is_empty() { "" } else { "." };
                below(found, path, &format!("{separator}{name}"), before.get(name), after.get(name));
            }
        }
        (Some(Value::Array(before)), Some(Value::Array(after))) => {
            for position in 0..before.len().max(after.len()) {
                below(found, path, &format!("[{position}]"), before.get(position), after.get(position));
            }
        }
        _ => found.push(Change {
            what: name_of(path),
            path: path.clone(),
            before: before.cloned(),
            after: after.cloned(),
            words: match (before, after) {
                (Some(Value::String(before)), Some(Value::String(after))) => compare(before, after),
                _ => Vec::new(),
            },
        }),
    }
}

fn below(
    found: &mut Vec<Change>,
    path: &mut String,
    further: &str,
    before: Option<&Value>,
    after: Option<&Value>,
) {
    let length = path.len();
    path.push_str(further);
    walk(found, path, before, after);
    path.truncate(length);
}

fn name_of(path: &str) -> &'static str {
    let mut plain = String::with_capacity(path.len());
    let mut in_position = false;
    for character in path.chars() {
        in_position = in_position && character != ']' || character == '[';
        if !in_position && character != ']' {
            plain.push(character);
        }
    }
    let fits =
        |name: &str| plain.strip_prefix(name).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'));
    let longest = NAMES.iter().filter(|(name, _)| fits(name)).max_by_key(|(name, _)| name.len());
    longest.map_or("request", |(_, what)| what)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn document() -> Value {
        json!({
            "v": 1, "kind": "llm",
            "candidates": [{"provider": "local", "model": "qwen", "digest": "aa", "options": {"temperature": 0.1}}],
            "messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Name a colour"}],
        })
    }

    fn with(change: impl Fn(&mut Value)) -> Vec<Change> {
        let mut after = document();
        change(&mut after);
        changes(&document(), &after)
    }

    fn told(found: &[Change]) -> Vec<(&str, &str)> {
        found.iter().map(|change| (change.what, change.path.as_str())).collect()
    }

    #[test]
    fn equal_requests_have_no_differences() {
        assert_eq!(with(|_| {}), []);
    }

    #[test]
    fn each_difference_is_called_by_what_it_is() {
        let found = with(|after| {
            after["candidates"][0]["model"] = json!("llama");
            after["candidates"][0]["digest"] = json!("bb");
            after["candidates"][0]["options"] = json!({"temperature": 0.7, "seed": 7});
            after["messages"][1]["content"] = json!("Name a fruit");
            after["schema"] = json!({"type": "object"});
        });
        assert_eq!(
            told(&found),
            [
                ("model file", "candidates[0].digest"),
                ("model", "candidates[0].model"),
                ("option", "candidates[0].options.seed"),
                ("option", "candidates[0].options.temperature"),
                ("prompt", "messages[1].content"),
                ("schema", "schema"),
            ]
        );
        let prompt: Vec<_> =
            found[4].words.iter().map(|words| (words.change.word(), words.text.as_str())).collect();
        assert_eq!(prompt, [("same", "Name a "), ("removed", "colour"), ("added", "fruit")]);
        assert_eq!((&found[2].before, &found[2].after), (&None, &Some(json!(7))));
    }

    #[test]
    fn an_added_message_and_a_removed_one_are_told() {
        let added = with(|after| after["messages"].as_array_mut().unwrap().push(json!({"role": "user"})));
        assert_eq!(told(&added), [("prompt", "messages[2]")]);
        let removed = with(|after| after["messages"] = json!([document()["messages"][0]]));
        assert_eq!((told(&removed), &removed[0].after), (vec![("prompt", "messages[1]")], &None));
    }

    #[test]
    fn names_of_the_seeds_request_are_known_too() {
        let request = |version: &str| json!({"provider": {"opts": {"seed": 1}}, "code_version": version});
        assert_eq!(told(&changes(&request("a"), &request("b"))), [("code version", "code_version")]);
        assert_eq!(name_of("provider.opts.seed"), "option");
        assert_eq!(name_of("something.new"), "request");
    }
}
