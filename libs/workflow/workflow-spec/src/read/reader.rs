//! From nodes to values. Whatever cannot be read is noted with its place and reading goes on, so that a writer
//! hears of everything at once.

use std::collections::HashSet;
use std::time::Duration;

use crate::document::{Entry, Node, Place, Shape};
use crate::keys::Section;
use crate::problems::{SpecError, SpecErrors, did_you_mean, nearest};
use crate::references::{Found, Reference};
use crate::{Decision, Template, ValueTemplate};

/// The longest duration that anything may last: a year.
const LONGEST: Duration = Duration::from_secs(366 * 24 * 3600);

/// Something that a template or a decision names, and where.
#[derive(Clone, Debug)]
pub(super) struct Mention<'d> {
    pub(super) reference: Reference,
    pub(super) node: &'d Node<'d>,
    /// Where in the document, as exactly as it can be told.
    pub(super) place: Place,
    /// Named by a decision, not by a template.
    pub(super) decides: bool,
    /// The best name of an inner scope, where this was looked for without success.
    pub(super) near: Option<String>,
}

/// Reads one document.
pub(super) struct Reader<'d> {
    pub(super) root: &'d Node<'d>,
    pub(super) errors: SpecErrors,
    /// What the templates and decisions of the step that is being read name.
    pub(super) mentions: Vec<Mention<'d>>,
}

/// The keys of one mapping, all of them known.
#[derive(Clone, Copy)]
pub(super) struct Fields<'d> {
    pub(super) node: &'d Node<'d>,
    entries: &'d [Entry<'d>],
}

impl<'d> Fields<'d> {
    /// The node under a key; nothing where the key is absent or holds nothing.
    pub(super) fn get(&self, name: &str) -> Option<&'d Node<'d>> {
        self.written(name).filter(|node| !node.is_null())
    }

    /// The node under a key, also where it is `null`.
    pub(super) fn written(&self, name: &str) -> Option<&'d Node<'d>> {
        self.entries.iter().find(|entry| entry.key == name).map(|entry| &entry.node)
    }
}

impl<'d> Reader<'d> {
    pub(super) fn new(root: &'d Node<'d>) -> Self {
        Self { root, errors: SpecErrors::default(), mentions: Vec::new() }
    }

    /// A problem of a whole node.
    pub(super) fn problem(&mut self, node: &Node<'_>, message: impl Into<String>) {
        self.note(node, None, message.into(), None);
    }

    pub(super) fn hinted(&mut self, node: &Node<'_>, message: impl Into<String>, hint: impl Into<String>) {
        self.note(node, None, message.into(), Some(hint.into()));
    }

    /// A problem at a place inside of a text.
    pub(super) fn problem_at(
        &mut self,
        node: &Node<'_>,
        place: Place,
        message: String,
        hint: Option<String>,
    ) {
        self.note(node, Some(place), message, hint);
    }

    /// The nearest of the names that exist. Where enough is wrong already nobody reads more hints, and looking for
    /// them would cost more than reading the spec.
    pub(super) fn nearest<'n>(
        &self,
        wanted: &str,
        names: impl IntoIterator<Item = &'n str>,
    ) -> Option<&'n str> {
        if self.errors.is_full() { None } else { nearest(wanted, names) }
    }

    fn note(&mut self, node: &Node<'_>, place: Option<Place>, message: String, hint: Option<String>) {
        if self.errors.is_full() {
            self.errors.more += 1;
            return;
        }
        let (path, key) = self.root.way_to(node).unwrap_or_default();
        // What is wrong with a whole collection is said where its key stands.
        let key = key.filter(|_| matches!(node.value, Shape::Map(_) | Shape::List(_) | Shape::Null));
        let Place { line, column } = place.or(key).unwrap_or(node.place);
        self.errors.push(SpecError { file: String::new(), line, column, path, message, hint });
    }

    fn wrong_kind(&mut self, node: &Node<'_>, wanted: &str) {
        self.problem(node, format!("needs {wanted}, not {}", node.kind()));
    }

    /// A mapping with keys of the writer's own.
    pub(super) fn named(&mut self, node: &'d Node<'d>) -> &'d [Entry<'d>] {
        match &node.value {
            Shape::Map(entries) => entries,
            Shape::Null => &[],
            _ => {
                self.wrong_kind(node, "a mapping");
                &[]
            }
        }
    }

    /// A mapping with the keys of a section. Unknown keys and missing ones are noted.
    pub(super) fn fields(&mut self, node: &'d Node<'d>, section: &'static Section) -> Option<Fields<'d>> {
        self.fields_beside(node, section, |_| false)
    }

    /// The same, beside keys that are the writer's own.
    pub(super) fn fields_beside(
        &mut self,
        node: &'d Node<'d>,
        section: &'static Section,
        own: fn(&str) -> bool,
    ) -> Option<Fields<'d>> {
        let entries: &'d [Entry<'d>] = match &node.value {
            Shape::Map(entries) => entries,
            Shape::Null => &[],
            _ => {
                self.wrong_kind(node, "a mapping");
                return None;
            }
        };
        for entry in entries {
            if !own(&entry.key) && !section.keys.iter().any(|key| key.name == entry.key) {
                self.unknown_key(entry, section);
            }
        }
        let fields = Fields { node, entries };
        for key in section.keys.iter().filter(|key| key.is_required()) {
            match fields.written(key.name) {
                None => self.problem(node, format!("needs the key {}", key.name)),
                Some(empty) if empty.is_null() => self.problem(empty, "holds nothing, and is needed"),
                Some(_) => {}
            }
        }
        Some(fields)
    }

    fn unknown_key(&mut self, entry: &Entry<'_>, section: &Section) {
        let known = || section.keys.iter().map(|key| key.name);
        let hint = match self.nearest(&entry.key, known()) {
            Some(name) => did_you_mean(name),
            None => format!("known here: {}", known().collect::<Vec<_>>().join(", ")),
        };
        self.note(&entry.node, Some(entry.place), "is no key that is known here".to_owned(), Some(hint));
    }

    pub(super) fn list(&mut self, node: &'d Node<'d>) -> &'d [Node<'d>] {
        match &node.value {
            Shape::List(items) => items,
            Shape::Null => &[],
            _ => {
                self.wrong_kind(node, "a list");
                &[]
            }
        }
    }

    pub(super) fn text(&mut self, node: &'d Node<'d>) -> Option<&'d str> {
        match &node.value {
            Shape::Text { text, .. } => Some(text),
            Shape::Number(number) => {
                self.hinted(node, "needs text, not a number", format!("in quotes: \"{number}\""));
                None
            }
            Shape::Flag(flag) => {
                self.hinted(node, "needs text, not a boolean", format!("in quotes: \"{flag}\""));
                None
            }
            _ => {
                self.wrong_kind(node, "text");
                None
            }
        }
    }

    pub(super) fn flag(&mut self, node: &'d Node<'d>) -> Option<bool> {
        if let Shape::Flag(flag) = node.value {
            Some(flag)
        } else {
            self.wrong_kind(node, "true or false");
            None
        }
    }

    pub(super) fn count(&mut self, node: &'d Node<'d>, from: u64, to: u64) -> Option<u64> {
        let number = if let Shape::Number(number) = &node.value {
            number.as_u64()
        } else {
            self.wrong_kind(node, "a whole number");
            return None;
        };
        if let Some(number) = number.filter(|number| (from..=to).contains(number)) {
            return Some(number);
        }
        let range =
            if to == u64::MAX { format!("of {from} or more") } else { format!("from {from} to {to}") };
        self.problem(node, format!("needs a whole number {range}"));
        None
    }

    /// A count that is known to fit into 32 bits.
    pub(super) fn small_count(&mut self, node: &'d Node<'d>, from: u32, to: u32) -> Option<u32> {
        self.count(node, from.into(), to.into()).and_then(|count| u32::try_from(count).ok())
    }

    pub(super) fn word<T: Copy>(&mut self, node: &'d Node<'d>, words: &[(&str, T)]) -> Option<T> {
        let text = self.text(node)?;
        if let Some((_, value)) = words.iter().find(|(word, _)| *word == text) {
            return Some(*value);
        }
        let known = || words.iter().map(|(word, _)| *word);
        let all = known().collect::<Vec<_>>().join(", ");
        let message = format!("\"{text}\" is none of {all}");
        match self.nearest(text, known()) {
            Some(name) => self.hinted(node, message, did_you_mean(name)),
            None => self.problem(node, message),
        }
        None
    }

    pub(super) fn span(&mut self, node: &'d Node<'d>) -> Option<Duration> {
        if let Shape::Number(number) = &node.value {
            self.hinted(node, "needs a duration with its unit", format!("{number}s, {number}m"));
            return None;
        }
        let text = self.text(node)?;
        match duration(text) {
            Some(span) if span.is_zero() => self.problem(node, "needs a duration longer than nothing"),
            Some(span) if span > LONGEST => self.problem(node, "needs a duration of at most a year"),
            Some(span) => return Some(span),
            None => self.hinted(node, format!("\"{text}\" is no duration"), "such as 250ms, 2s, 15m, 1h30m"),
        }
        None
    }

    pub(super) fn template(&mut self, node: &'d Node<'d>) -> Option<Template> {
        let text = self.text(node)?;
        match Template::compile(text) {
            Ok(template) => {
                self.mention_all(node, template.references());
                Some(template)
            }
            Err(error) => {
                self.broken_template(node, &error);
                None
            }
        }
    }

    /// Any value, whose strings are templates.
    pub(super) fn value_template(&mut self, node: &'d Node<'d>) -> Option<ValueTemplate> {
        Some(match &node.value {
            Shape::Text { text, .. } => match ValueTemplate::of_text(text) {
                Ok(template) => {
                    template.each_template(&mut |inner| self.mention_all(node, inner.references()));
                    template
                }
                Err(error) => {
                    self.broken_template(node, &error);
                    return None;
                }
            },
            Shape::List(items) => {
                let values: Vec<_> = items.iter().map(|item| self.value_template(item)).collect();
                ValueTemplate::List(values.into_iter().collect::<Option<_>>()?)
            }
            Shape::Map(entries) => {
                let field = |entry: &'d Entry<'d>| {
                    self.value_template(&entry.node).map(|value| (entry.key.to_string(), value))
                };
                let fields: Vec<_> = entries.iter().map(field).collect();
                ValueTemplate::Object(fields.into_iter().collect::<Option<_>>()?)
            }
            _ => ValueTemplate::Literal(node.to_json()),
        })
    }

    fn broken_template(&mut self, node: &'d Node<'d>, error: &crate::TemplateError) {
        let place = line_in(node, error.line.unwrap_or(1));
        self.problem_at(node, place, format!("template: {}", error.message), None);
    }

    pub(super) fn decision(&mut self, node: &'d Node<'d>) -> Option<Decision> {
        let text: &str = match &node.value {
            Shape::Flag(true) => "true",
            Shape::Flag(false) => "false",
            _ => self.text(node)?,
        };
        match Decision::compile(text) {
            Ok(decision) => {
                for reference in decision.references() {
                    self.mention(node, reference.clone(), node.place, true);
                }
                Some(decision)
            }
            Err(error) => {
                let column =
                    error.at.map_or(String::new(), |(_, column)| format!(", at its column {column}"));
                let hint =
                    text.contains("{{").then(|| "without {{ }}: it is an expression as it stands".into());
                let place = line_in(node, error.at.map_or(1, |at| at.0 as usize));
                self.problem_at(node, place, format!("decision: {}{column}", error.message), hint);
                None
            }
        }
    }

    fn mention_all(&mut self, node: &'d Node<'d>, found: Vec<Found>) {
        let Shape::Text { text, .. } = &node.value else { return };
        let mut seen = HashSet::new();
        for Found { reference, at } in found {
            if seen.insert(reference.clone()) {
                let place = place_in(node, text, at);
                self.mention(node, reference, place, false);
            }
        }
    }

    fn mention(&mut self, node: &'d Node<'d>, reference: Reference, place: Place, decides: bool) {
        self.mentions.push(Mention { reference, node, place, decides, near: None });
    }
}

/// A list, or the one element of one.
pub(super) fn one_or_more<'d>(node: &'d Node<'d>) -> &'d [Node<'d>] {
    match &node.value {
        Shape::List(items) => items,
        _ => std::slice::from_ref(node),
    }
}

/// The place of a byte of a text. Only in literal blocks are the text's lines those of the document.
fn place_in(node: &Node<'_>, text: &str, at: usize) -> Place {
    match node.value {
        Shape::Text { block: true, .. } => {
            line_in(node, 1 + text[..at].bytes().filter(|byte| *byte == b'\n').count())
        }
        _ => node.place,
    }
}

fn line_in(node: &Node<'_>, line: usize) -> Place {
    match node.value {
        Shape::Text { block: true, .. } => {
            Place { line: node.place.line.saturating_add(line.saturating_sub(1) as u32), ..node.place }
        }
        _ => node.place,
    }
}

/// Numbers with units, one after the other: `1h30m`.
pub(super) fn duration(text: &str) -> Option<Duration> {
    let mut rest = text.trim();
    let mut total = Duration::ZERO;
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let digits = rest.bytes().take_while(|byte| byte.is_ascii_digit() || *byte == b'.').count();
        let letters = rest[digits..].bytes().take_while(u8::is_ascii_alphabetic).count();
        let number: f64 = rest[..digits].parse().ok()?;
        let unit = match &rest[digits..digits + letters] {
            "ms" => 0.001,
            "s" => 1.0,
            "m" | "min" => 60.0,
            "h" => 3600.0,
            "d" => 86_400.0,
            _ => return None,
        };
        total = total.checked_add(Duration::try_from_secs_f64(number * unit).ok()?)?;
        rest = &rest[digits + letters..];
    }
    Some(total)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_units() {
        assert_eq!(duration("250ms"), Some(Duration::from_millis(250)));
        assert_eq!(duration("1h30m"), Some(Duration::from_secs(5400)));
        assert_eq!(duration("1.5s"), Some(Duration::from_millis(1500)));
        for nonsense in ["", "5", "s", "5x", "-5s", "5 s", "1..5s", "99999999999999999999d", "ms5"] {
            assert_eq!(duration(nonsense), None, "{nonsense}");
        }
    }
}
