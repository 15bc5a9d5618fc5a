//! Templates of the plainest sort: text with the ways to values in it (`{{ steps.a.output.text }}`). Most prompts
//! are no more than that, and a job of ten thousand steps should not build a template engine for each. What comes
//! out is what the engine would make; wherever that is not certain, the engine is asked.

use serde_json::Value;

use crate::Names;
use crate::references::{Family, Found, Reference};

/// Words that mean something else to the engine where a name could stand.
const NOT_NAMES: [&str; 14] =
    ["true", "false", "none", "True", "False", "None", "not", "and", "or", "in", "is", "if", "else", "self"];

/// A template of the plainest sort.
#[derive(Debug)]
pub(crate) struct Plain {
    pieces: Vec<Piece>,
}

#[derive(Debug)]
enum Piece {
    Text(Box<str>),
    Way(Way),
}

/// The way to a value, and where it stands.
#[derive(Debug)]
pub(crate) struct Way {
    start: Start,
    rest: Vec<Box<str>>,
    at: usize,
}

#[derive(Debug)]
enum Start {
    Known(Family, Box<str>),
    Local(Box<str>),
}

impl Plain {
    /// `None`: this one needs the engine.
    pub(crate) fn parse(source: &str, is_global: impl Fn(&str) -> bool) -> Option<Self> {
        let mut pieces = Vec::new();
        let mut at = 0;
        while let Some(brace) = source[at..].find('{') {
            let open = at + brace;
            match source.as_bytes().get(open + 1) {
                Some(b'{') => {}
                Some(b'%' | b'#') => return None,
                // A brace that opens nothing is text; it goes along with what follows it.
                _ => {
                    pieces.push(Piece::Text(source[at..=open].into()));
                    at = open + 1;
                    continue;
                }
            }
            let close = open + source[open..].find("}}")?;
            pieces.push(Piece::Text(source[at..open].into()));
            pieces.push(Piece::Way(Way::parse(&source[open + 2..close], open + 2, &is_global)?));
            at = close + 2;
        }
        pieces.push(Piece::Text(source[at..].into()));
        pieces.retain(|piece| !matches!(piece, Piece::Text(text) if text.is_empty()));
        Some(Self { pieces })
    }

    pub(crate) fn references(&self) -> Vec<Found> {
        let reference = |piece: &Piece| match piece {
            Piece::Text(_) => None,
            Piece::Way(way) => Some(way.found()),
        };
        self.pieces.iter().filter_map(reference).collect()
    }

    /// `None`: ask the engine, which knows how the value is written or why there is none.
    pub(crate) fn render(&self, names: &dyn Names) -> Option<String> {
        let mut text = String::new();
        for piece in &self.pieces {
            match piece {
                Piece::Text(piece) => text.push_str(piece),
                Piece::Way(way) => way.write(names, &mut text)?,
            }
        }
        Some(text)
    }
}

impl Way {
    /// The code between the braces. `None`: it is more than a way.
    pub(crate) fn parse(code: &str, at: usize, is_global: &impl Fn(&str) -> bool) -> Option<Self> {
        let at = at + (code.len() - code.trim_start().len());
        let (root, mut rest) = word(code.trim())?;
        let mut names: Vec<Box<str>> = Vec::new();
        while !rest.is_empty() {
            let (name, further) = match rest.strip_prefix('.') {
                Some(dotted) => word(dotted)?,
                None => bracketed(rest)?,
            };
            names.push(name.into());
            rest = further;
        }
        let start = match Family::of(root) {
            Some(_) if names.is_empty() => return None,
            Some(family) => Start::Known(family, names.remove(0)),
            None if NOT_NAMES.contains(&root) || is_global(root) => return None,
            None => Start::Local(root.into()),
        };
        Some(Self { start, rest: names, at })
    }

    pub(crate) fn found(&self) -> Found {
        let reference = match &self.start {
            Start::Known(family, name) => Reference::Known(*family, name.to_string()),
            Start::Local(name) => Reference::Local(name.to_string()),
        };
        Found { reference, at: self.at }
    }

    /// The value itself. `None`: ask the engine.
    pub(crate) fn value(&self, names: &dyn Names) -> Option<Value> {
        match &self.start {
            Start::Known(Family::Steps, id) => {
                let output = names.step(id)?;
                let (field, rest) = self.of_output()?;
                match field {
                    "text" if rest.is_empty() => Some(Value::String(output.text.clone())),
                    "code" if rest.is_empty() => Some(Value::String(output.code().to_owned())),
                    "text" | "code" => None,
                    _ => of_json(output.json.as_ref()?, field, rest).cloned(),
                }
            }
            Start::Known(Family::Inputs, name) => follow(&names.input(name)?, &self.rest).cloned(),
            Start::Known(Family::Files, path) => self.whole(names.file(path)?),
            Start::Known(Family::Secrets, name) => self.whole(names.secret(name)?),
            Start::Local(name) => follow(&names.local(name)?, &self.rest).cloned(),
        }
    }

    fn write(&self, names: &dyn Names, text: &mut String) -> Option<()> {
        match &self.start {
            Start::Known(Family::Steps, id) => {
                let output = names.step(id)?;
                match self.of_output()? {
                    ("text", []) => text.push_str(&output.text),
                    ("code", []) => text.push_str(output.code()),
                    ("text" | "code", _) => return None,
                    (field, rest) => write(of_json(output.json.as_ref()?, field, rest)?, text)?,
                }
            }
            Start::Known(Family::Inputs, name) => write(follow(&names.input(name)?, &self.rest)?, text)?,
            Start::Local(name) => write(follow(&names.local(name)?, &self.rest)?, text)?,
            Start::Known(..) => write(&self.value(names)?, text)?,
        }
        Some(())
    }

    fn whole(&self, text: String) -> Option<Value> {
        self.rest.is_empty().then_some(Value::String(text))
    }

    /// What is asked of `steps.<id>.output`.
    fn of_output(&self) -> Option<(&str, &[Box<str>])> {
        let (output, rest) = self.rest.split_first()?;
        let (field, rest) = rest.split_first()?;
        (output.as_ref() == "output").then_some((field.as_ref(), rest))
    }
}

fn of_json<'v>(json: &'v Value, field: &str, rest: &[Box<str>]) -> Option<&'v Value> {
    let value = if field == "json" { json } else { json.get(field)? };
    follow(value, rest)
}

fn follow<'v>(value: &'v Value, way: &[Box<str>]) -> Option<&'v Value> {
    way.iter().try_fold(value, |value, field| value.as_object()?.get(field.as_ref()))
}

/// Text and whole numbers; how anything else is written is the engine's affair.
fn write(value: &Value, text: &mut String) -> Option<()> {
    match value {
        Value::String(value) => text.push_str(value),
        Value::Number(number) if !number.is_f64() => text.push_str(&number.to_string()),
        _ => return None,
    }
    Some(())
}

fn word(text: &str) -> Option<(&str, &str)> {
    let part = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    let end = text.bytes().position(|byte| !part(byte)).unwrap_or(text.len());
    let first = text.bytes().next()?;
    (part(first) && !first.is_ascii_digit()).then(|| text.split_at(end))
}

/// `['name']` and what follows it.
fn bracketed(text: &str) -> Option<(&str, &str)> {
    let inner = text.strip_prefix('[')?;
    let quote = inner.chars().next().filter(|first| matches!(first, '\'' | '"'))?;
    let (name, rest) = inner[1..].split_once(quote)?;
    (!name.contains('\\')).then_some((name, rest.strip_prefix(']')?))
}
