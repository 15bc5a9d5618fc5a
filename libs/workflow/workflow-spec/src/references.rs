//! What a template or a decision names, found without evaluating it: that is how needs are inferred and how
//! names that nobody knows are found before anything runs.

/// The families of names that everything in a workflow can see.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Family {
    Steps,
    Inputs,
    Files,
    Secrets,
}

impl Family {
    pub(crate) fn of(word: &str) -> Option<Self> {
        Some(match word {
            "steps" => Self::Steps,
            "inputs" => Self::Inputs,
            "files" => Self::Files,
            "secrets" => Self::Secrets,
            _ => return None,
        })
    }

    pub(crate) const fn word(self) -> &'static str {
        match self {
            Self::Steps => "steps",
            Self::Inputs => "inputs",
            Self::Files => "files",
            Self::Secrets => "secrets",
        }
    }
}

/// One thing that is named.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Reference {
    /// `steps.qa`, `files['main.py']`.
    Known(Family, String),
    /// A family with something computed after it, or nothing: `steps[name]`.
    Computed(Family),
    /// Any other name, such as the element of a map.
    Local(String),
}

/// A reference and where it stands in the text, in bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Found {
    pub(crate) reference: Reference,
    pub(crate) at: usize,
}

/// Everything that the code of a template names: names that it makes itself (`set`, `for`) are among the locals.
/// The template must be one that compiles.
pub(crate) fn in_template(source: &str) -> Vec<Found> {
    let mut found = Vec::new();
    for (start, code) in code_of(source) {
        in_code(start, code, &mut found);
    }
    found
}

/// The stretches of code in a template, with where each begins. Comments and raw blocks are none.
fn code_of(source: &str) -> Vec<(usize, &str)> {
    let mut stretches = Vec::new();
    let mut at = 0;
    while let Some(brace) = source[at..].find('{') {
        let start = at + brace;
        let closing = match source.as_bytes().get(start + 1) {
            Some(b'{') => "}}",
            Some(b'%') => "%}",
            Some(b'#') => {
                at = source[start..].find("#}").map_or(source.len(), |end| start + end + 2);
                continue;
            }
            _ => {
                at = start + 1;
                continue;
            }
        };
        let end = end_of_code(source, start + 2, closing);
        let code = &source[start + 2..end];
        at = (end + 2).min(source.len());
        if code.trim_matches(['-', '+', ' ']) == "raw" && closing == "%}" {
            at = end_of_raw(source, at);
        } else {
            stretches.push((start + 2, code));
        }
    }
    stretches
}

/// Where code ends: at its closing mark that stands in no string.
fn end_of_code(source: &str, from: usize, closing: &str) -> usize {
    let bytes = source.as_bytes();
    let mut at = from;
    let mut braces = 0usize;
    while at < bytes.len() {
        match bytes[at] {
            b'\'' | b'"' => at = end_of_string(bytes, at),
            b'{' => {
                braces += 1;
                at += 1;
            }
            b'}' if braces > 0 => {
                braces -= 1;
                at += 1;
            }
            _ if bytes[at..].starts_with(closing.as_bytes()) => return at,
            _ => at += 1,
        }
    }
    bytes.len()
}

fn end_of_raw(source: &str, from: usize) -> usize {
    let mut at = from;
    while let Some(tag) = source[at..].find("{%") {
        let inner = at + tag + 2;
        let end = source[inner..].find("%}").map_or(source.len(), |end| inner + end + 2);
        if source[inner..end].trim_matches(['-', '+', ' ', '%', '}']) == "endraw" {
            return end;
        }
        at = inner;
    }
    source.len()
}

/// The byte after a string that begins at `at`.
fn end_of_string(bytes: &[u8], at: usize) -> usize {
    let quote = bytes[at];
    let mut end = at + 1;
    while end < bytes.len() {
        match bytes[end] {
            b'\\' => end += 2,
            byte if byte == quote => return end + 1,
            _ => end += 1,
        }
    }
    bytes.len()
}

fn in_code(start: usize, code: &str, found: &mut Vec<Found>) {
    let bytes = code.as_bytes();
    let mut at = 0;
    let mut before = None;
    while at < bytes.len() {
        let byte = bytes[at];
        if byte == b'\'' || byte == b'"' {
            at = end_of_string(bytes, at).min(bytes.len());
            before = Some(byte);
        } else if byte.is_ascii_alphabetic() || byte == b'_' || byte >= 0x80 {
            let end = end_of_word(bytes, at);
            if before != Some(b'.') && before != Some(b'|') {
                let word = &code[at..end];
                let reference = match Family::of(word) {
                    Some(family) => after_family(family, &code[end..]),
                    None => Reference::Local(word.to_owned()),
                };
                found.push(Found { reference, at: start + at });
            }
            at = end;
            before = Some(b'a');
        } else {
            if !byte.is_ascii_whitespace() {
                before = Some(byte);
            }
            at += 1;
        }
    }
}

fn end_of_word(bytes: &[u8], at: usize) -> usize {
    let more = |byte: &&u8| byte.is_ascii_alphanumeric() || **byte == b'_' || **byte >= 0x80;
    at + bytes[at..].iter().take_while(more).count()
}

/// What follows a family's word: `.name` or `['name']`, or something that only the run can tell.
fn after_family(family: Family, rest: &str) -> Reference {
    let rest = rest.trim_start();
    let name = if let Some(dotted) = rest.strip_prefix('.') {
        let dotted = dotted.trim_start();
        Some(&dotted[..end_of_word(dotted.as_bytes(), 0)])
    } else if let Some(bracketed) = rest.strip_prefix('[') {
        constant(bracketed)
    } else {
        None
    };
    match name {
        Some(name) if !name.is_empty() => Reference::Known(family, name.to_owned()),
        _ => Reference::Computed(family),
    }
}

/// `'name']`, with nothing escaped in it and nothing else in the brackets.
fn constant(bracketed: &str) -> Option<&str> {
    let bracketed = bracketed.trim_start();
    let quote = bracketed.chars().next().filter(|first| matches!(first, '\'' | '"'))?;
    let (name, rest) = bracketed[1..].split_once(quote)?;
    (!name.contains('\\') && rest.trim_start().starts_with(']')).then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(source: &str) -> Vec<String> {
        let spelled = |found: Found| match found.reference {
            Reference::Known(family, name) => format!("{}.{name}", family.word()),
            Reference::Computed(family) => format!("{}[…]", family.word()),
            Reference::Local(name) => name,
        };
        in_template(source).into_iter().map(spelled).collect()
    }

    #[test]
    fn dotted_and_bracketed_names_are_found() {
        assert_eq!(names("{{ steps.a.output.text }} {{ files['x y.py'] }}"), ["steps.a", "files.x y.py"]);
        assert_eq!(names("{{ steps [ \"a-b\" ] . output }}"), ["steps.a-b"]);
        assert_eq!(
            names("{% if inputs.x %}{{ secrets.T }}{% endif %}"),
            ["if", "inputs.x", "secrets.T", "endif"]
        );
    }

    #[test]
    fn what_is_computed_is_told_apart() {
        assert_eq!(names("{{ steps[item].output }}"), ["steps[…]", "item"]);
        assert_eq!(names("{{ files['a' ~ x] }}"), ["files[…]", "x"]);
        assert_eq!(names("{{ steps | tojson }}"), ["steps[…]"]);
    }

    #[test]
    fn text_strings_comments_raw_blocks_and_fields_name_nothing() {
        assert_eq!(names("steps.a {# {{ steps.b }} #}"), Vec::<String>::new());
        assert_eq!(names("{{ 'steps.a }}' ~ x }}"), ["x"]);
        assert_eq!(names("{% raw %}{{ steps.a }}{% endraw %}{{ y }}"), ["y"]);
        assert_eq!(names("{{ x.steps.a }}"), ["x"]);
        assert_eq!(names("{{ {'a': {'b': z}} }}"), ["z"]);
    }
}
