//! A document as a tree in which every value knows its place. YAML and JSON both become one.

mod yaml;

use std::borrow::Cow;

use serde_json::{Map, Number, Value};

pub(crate) use yaml::parse;

/// A place in a document, both from 1. The column counts characters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) line: u32,
    pub(crate) column: u32,
}

/// A value and where it begins.
#[derive(Clone, Debug)]
pub(crate) struct Node<'a> {
    pub(crate) place: Place,
    pub(crate) value: Shape<'a>,
}

#[derive(Clone, Debug)]
pub(crate) enum Shape<'a> {
    Null,
    Flag(bool),
    Number(Number),
    /// `block`: written as a literal block, so that its lines are lines of the document after its own.
    Text {
        text: Cow<'a, str>,
        block: bool,
    },
    List(Vec<Node<'a>>),
    /// In the order of the document, each key once.
    Map(Vec<Entry<'a>>),
}

#[derive(Clone, Debug)]
pub(crate) struct Entry<'a> {
    pub(crate) key: Cow<'a, str>,
    pub(crate) place: Place,
    pub(crate) node: Node<'a>,
}

impl Node<'_> {
    pub(crate) fn is_null(&self) -> bool {
        matches!(self.value, Shape::Null)
    }

    /// What kind of value it is, in words.
    pub(crate) fn kind(&self) -> &'static str {
        match &self.value {
            Shape::Null => "nothing",
            Shape::Flag(_) => "a boolean",
            Shape::Number(_) => "a number",
            Shape::Text { .. } => "text",
            Shape::List(_) => "a list",
            Shape::Map(_) => "a mapping",
        }
    }

    /// The value without its places.
    pub(crate) fn to_json(&self) -> Value {
        match &self.value {
            Shape::Null => Value::Null,
            Shape::Flag(flag) => Value::Bool(*flag),
            Shape::Number(number) => Value::Number(number.clone()),
            Shape::Text { text, .. } => Value::String(text.to_string()),
            Shape::List(items) => Value::Array(items.iter().map(Node::to_json).collect()),
            Shape::Map(entries) => {
                let field = |entry: &Entry<'_>| (entry.key.to_string(), entry.node.to_json());
                Value::Object(entries.iter().map(field).collect::<Map<_, _>>())
            }
        }
    }

    /// The way from here to a node that lies below, as it is written in messages (`steps.qa.files[0]`), and the
    /// place of the key that leads to it.
    pub(crate) fn way_to(&self, wanted: &Node<'_>) -> Option<(String, Option<Place>)> {
        let mut way = Vec::new();
        if !self.seek(wanted, &mut way) {
            return None;
        }
        let key = way.last().and_then(|(_, key)| *key);
        let path: String = way.into_iter().map(|(part, _)| part).collect();
        Some((path.trim_start_matches('.').to_owned(), key))
    }

    fn seek(&self, wanted: &Node<'_>, way: &mut Vec<(String, Option<Place>)>) -> bool {
        if std::ptr::eq(std::ptr::from_ref(self).cast::<u8>(), std::ptr::from_ref(wanted).cast()) {
            return true;
        }
        let mut below = |part: String, key, node: &Node<'_>| {
            way.push((part, key));
            let found = node.seek(wanted, way);
            if !found {
                way.pop();
            }
            found
        };
        match &self.value {
            Shape::List(items) => {
                items.iter().enumerate().any(|(index, item)| below(format!("[{index}]"), None, item))
            }
            Shape::Map(entries) => {
                entries.iter().any(|entry| below(format!(".{}", entry.key), Some(entry.place), &entry.node))
            }
            _ => false,
        }
    }
}
