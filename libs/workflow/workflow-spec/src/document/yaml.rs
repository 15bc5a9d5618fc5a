//! From text to the tree: the events of a YAML parser (JSON is YAML), put together within bounds. What cannot be
//! bounded by the length of the text, such as what aliases repeat, is counted.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};

use serde_json::Number;
use serde_saphyr::granit_parser::{Event, Marker, Options, Parser, ScalarStyle, ScanError, Span, Tag};

use super::{Entry, Node, Place, Shape};

/// Values of one document, those that aliases repeat among them.
const MOST_VALUES: usize = 1_000_000;
/// Collections within collections. Far more than a workflow or a JSON Schema has.
const DEEPEST: usize = 100;

/// A mapping with no more keys than these is looked through faster than a table is kept.
const SHORT: usize = 16;

/// Why a text is no document.
#[derive(Debug)]
pub(crate) struct Broken {
    pub(crate) place: Place,
    pub(crate) message: String,
}

/// Reads one document. An empty text is nothing at all, as in YAML.
pub(crate) fn parse(text: &str) -> Result<Node<'_>, Broken> {
    let mut options = Options::default();
    options.set_emit_comments(false);
    let mut builder = Builder::default();
    for next in Parser::new_from_str_with_options(text, options) {
        let (event, span) = next.map_err(|error| refused(&error))?;
        builder.take(event, span)?;
    }
    Ok(builder.root.unwrap_or(Node { place: Place { line: 1, column: 1 }, value: Shape::Null }))
}

fn refused(error: &ScanError) -> Broken {
    Broken { place: place(*error.marker()), message: error.info() }
}

fn place(marker: Marker) -> Place {
    Place { line: marker.line().max(1) as u32, column: marker.col() as u32 + 1 }
}

/// A collection that has begun and not ended.
enum Open<'a> {
    List { place: Place, anchor: usize, items: Vec<Node<'a>> },
    Map { place: Place, anchor: usize, map: OpenMap<'a> },
}

#[derive(Default)]
struct OpenMap<'a> {
    entries: Vec<Entry<'a>>,
    /// The keys of a long mapping; a short one is looked through.
    seen: HashSet<Cow<'a, str>>,
    /// The key whose value comes next.
    key: Option<(Cow<'a, str>, Place)>,
    /// What `<<` brings in, for keys that are not written here.
    merged: Vec<Node<'a>>,
}

#[derive(Default)]
struct Builder<'a> {
    open: Vec<Open<'a>>,
    anchors: HashMap<usize, (Node<'a>, usize)>,
    values: usize,
    documents: usize,
    root: Option<Node<'a>>,
}

impl<'a> Builder<'a> {
    fn take(&mut self, event: Event<'a>, span: Span) -> Result<(), Broken> {
        let place = place(span.start);
        match event {
            Event::DocumentStart(..) => {
                self.documents += 1;
                if self.documents > 1 {
                    return Err(broken(place, "a second document begins here; a spec is one"));
                }
                Ok(())
            }
            Event::Scalar(text, style, anchor, tag) => {
                let value = scalar(text, style, tag.as_deref(), place)?;
                self.finished(Node { place, value }, anchor, 1)
            }
            Event::SequenceStart(_, anchor, tag) => {
                refuse_tag(tag.as_deref(), "seq", place)?;
                self.begin(Open::List { place, anchor, items: Vec::new() }, place)
            }
            Event::MappingStart(_, anchor, tag) => {
                refuse_tag(tag.as_deref(), "map", place)?;
                self.begin(Open::Map { place, anchor, map: OpenMap::default() }, place)
            }
            Event::SequenceEnd | Event::MappingEnd => self.end(),
            Event::Alias(anchor) => self.repeat(anchor, place),
            _ => Ok(()),
        }
    }

    fn begin(&mut self, open: Open<'a>, place: Place) -> Result<(), Broken> {
        if self.open.len() >= DEEPEST {
            return Err(broken(place, &format!("nested deeper than {DEEPEST} levels")));
        }
        self.open.push(open);
        Ok(())
    }

    fn end(&mut self) -> Result<(), Broken> {
        match self.open.pop() {
            Some(Open::List { place, anchor, items }) => {
                self.finished(Node { place, value: Shape::List(items) }, anchor, 1)
            }
            Some(Open::Map { place, anchor, map }) => {
                let value = Shape::Map(map.closed()?);
                self.finished(Node { place, value }, anchor, 1)
            }
            None => Ok(()),
        }
    }

    /// A copy of what an anchor names, at the place of the alias.
    fn repeat(&mut self, anchor: usize, place: Place) -> Result<(), Broken> {
        let Some((node, size)) = self.anchors.get(&anchor) else {
            return Err(broken(place, "this alias stands inside of what it names"));
        };
        let (size, depth) = (*size, depth(node));
        if self.values + size > MOST_VALUES {
            return Err(too_many(place));
        }
        if self.open.len() + depth > DEEPEST {
            return Err(broken(place, &format!("nested deeper than {DEEPEST} levels")));
        }
        let node = Node { place, value: node.value.clone() };
        self.finished(node, 0, size)
    }

    fn finished(&mut self, node: Node<'a>, anchor: usize, size: usize) -> Result<(), Broken> {
        self.values += size;
        if self.values > MOST_VALUES {
            return Err(too_many(node.place));
        }
        if anchor != 0 {
            self.keep(anchor, &node)?;
        }
        match self.open.last_mut() {
            None => self.root = Some(node),
            Some(Open::List { items, .. }) => items.push(node),
            Some(Open::Map { map, .. }) => map.take(node)?,
        }
        Ok(())
    }

    fn keep(&mut self, anchor: usize, node: &Node<'a>) -> Result<(), Broken> {
        let size = count(node);
        // The copy that is kept counts too: anchors within anchors would grow with the square of the text.
        self.values += size;
        if self.values > MOST_VALUES {
            return Err(too_many(node.place));
        }
        self.anchors.insert(anchor, (node.clone(), size));
        Ok(())
    }
}

impl<'a> OpenMap<'a> {
    fn take(&mut self, node: Node<'a>) -> Result<(), Broken> {
        let Some((key, place)) = self.key.take() else {
            self.key = Some(key_of(node)?);
            return Ok(());
        };
        if key == "<<" {
            match node.value {
                Shape::List(nodes) => self.merged.extend(nodes),
                _ => self.merged.push(node),
            }
            return Ok(());
        }
        if !self.is_new(key.clone()) {
            return Err(self.twice(&key, place));
        }
        self.entries.push(Entry { key, place, node });
        Ok(())
    }

    fn is_new(&mut self, key: Cow<'a, str>) -> bool {
        if self.entries.len() < SHORT {
            return self.entries.iter().all(|entry| entry.key != key);
        }
        if self.seen.is_empty() {
            self.seen.extend(self.entries.iter().map(|entry| entry.key.clone()));
        }
        self.seen.insert(key)
    }

    fn twice(&self, key: &str, place: Place) -> Broken {
        let first = self.entries.iter().find(|entry| entry.key == key).map_or(0, |entry| entry.place.line);
        broken(place, &format!("the key \"{key}\" stands here a second time; the first is on line {first}"))
    }

    /// The entries, with those that `<<` brings in after the written ones.
    fn closed(mut self) -> Result<Vec<Entry<'a>>, Broken> {
        for merged in std::mem::take(&mut self.merged) {
            let Shape::Map(entries) = merged.value else {
                return Err(broken(merged.place, "<< takes a mapping or a list of mappings"));
            };
            for entry in entries {
                if self.is_new(entry.key.clone()) {
                    self.entries.push(entry);
                }
            }
        }
        Ok(self.entries)
    }
}

fn key_of(node: Node<'_>) -> Result<(Cow<'_, str>, Place), Broken> {
    let place = node.place;
    let key = match node.value {
        Shape::Text { text, .. } => text,
        Shape::Number(number) => number.to_string().into(),
        Shape::Flag(flag) => flag.to_string().into(),
        Shape::Null => return Err(broken(place, "a key is missing before the colon")),
        Shape::List(_) | Shape::Map(_) => {
            return Err(broken(
                place,
                "a key is text; this is a collection (a template needs quotes: \"{{ … }}\")",
            ));
        }
    };
    Ok((key, place))
}

fn scalar<'a>(
    text: Cow<'a, str>,
    style: ScalarStyle,
    tag: Option<&Tag>,
    place: Place,
) -> Result<Shape<'a>, Broken> {
    let block = style == ScalarStyle::Literal;
    let as_text = match tag {
        None => style != ScalarStyle::Plain,
        Some(tag) if tag.is_yaml_core_schema_tag("str") => true,
        Some(tag) => {
            let plain = ["int", "float", "bool", "null"].iter().any(|name| tag.is_yaml_core_schema_tag(name));
            if !plain {
                return Err(broken(place, &format!("the tag {} is not used in specs", tag.original())));
            }
            false
        }
    };
    if as_text { Ok(Shape::Text { text, block }) } else { plain(text, place) }
}

fn refuse_tag(tag: Option<&Tag>, allowed: &str, place: Place) -> Result<(), Broken> {
    match tag {
        Some(tag) if !tag.is_yaml_core_schema_tag(allowed) => {
            Err(broken(place, &format!("the tag {} is not used in specs", tag.original())))
        }
        _ => Ok(()),
    }
}

/// A scalar without quotes, by the core schema of YAML 1.2: `yes` and `on` are text.
fn plain(text: Cow<'_, str>, place: Place) -> Result<Shape<'_>, Broken> {
    let first = text.as_bytes().first().copied().unwrap_or(b'~');
    if first.is_ascii_digit() || matches!(first, b'-' | b'+' | b'.') {
        return Ok(match number(&text, place)? {
            Some(number) => Shape::Number(number),
            None => Shape::Text { text, block: false },
        });
    }
    Ok(match text.as_ref() {
        "" | "~" | "null" | "Null" | "NULL" => Shape::Null,
        "true" | "True" | "TRUE" => Shape::Flag(true),
        "false" | "False" | "FALSE" => Shape::Flag(false),
        _ => Shape::Text { text, block: false },
    })
}

/// `None` where it only looks like a number.
fn number(text: &str, place: Place) -> Result<Option<Number>, Broken> {
    if let Ok(number) = text.parse::<i64>() {
        return Ok(Some(number.into()));
    }
    if let Ok(number) = text.parse::<u64>() {
        return Ok(Some(number.into()));
    }
    let radix = |prefix, radix| u64::from_str_radix(text.strip_prefix(prefix)?, radix).ok();
    if let Some(number) = radix("0x", 16).or_else(|| radix("0o", 8)) {
        return Ok(Some(number.into()));
    }
    let unknown_to_json = || broken(place, &format!("{text} is no number that JSON knows"));
    let unsigned = text.strip_prefix(['-', '+']).unwrap_or(text);
    if matches!(unsigned, ".inf" | ".Inf" | ".INF") || matches!(text, ".nan" | ".NaN" | ".NAN") {
        return Err(unknown_to_json());
    }
    let numeric = |byte: u8| byte.is_ascii_digit() || matches!(byte, b'.' | b'e' | b'E' | b'+' | b'-');
    if !unsigned.bytes().any(|byte| byte.is_ascii_digit()) || !text.bytes().all(numeric) {
        return Ok(None);
    }
    match text.parse::<f64>() {
        Ok(number) => Number::from_f64(number).map(Some).ok_or_else(unknown_to_json),
        Err(_) => Ok(None),
    }
}

fn broken(place: Place, message: &str) -> Broken {
    Broken { place, message: message.to_owned() }
}

fn too_many(place: Place) -> Broken {
    broken(place, &format!("more than {MOST_VALUES} values, those that aliases repeat among them"))
}

fn count(node: &Node<'_>) -> usize {
    1 + match &node.value {
        Shape::List(items) => items.iter().map(count).sum(),
        Shape::Map(entries) => entries.iter().map(|entry| count(&entry.node)).sum(),
        _ => 0,
    }
}

fn depth(node: &Node<'_>) -> usize {
    match &node.value {
        Shape::List(items) => 1 + items.iter().map(depth).max().unwrap_or(0),
        Shape::Map(entries) => 1 + entries.iter().map(|entry| depth(&entry.node)).max().unwrap_or(0),
        _ => 0,
    }
}
