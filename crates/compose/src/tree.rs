//! YAML as a tree that knows where everything stood.

use crate::remark::Log;
use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_saphyr::{Location, Spanned, Tagged};
use std::fmt;
use std::sync::Arc;

/// Values inside values; deeper text is refused. Stack files need seven.
const DEPTH_MAX: usize = 32;

/// Where something stands. Lines and columns count from 1.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Position {
    pub(crate) file: Arc<str>,
    pub(crate) line: u64,
    pub(crate) column: u64,
}

/// A value, its place, and the way to it from the root.
#[derive(Clone, Debug)]
pub(crate) struct Node {
    pub(crate) value: Value,
    pub(crate) at: Position,
    pub(crate) path: String,
    pub(crate) tag: Option<Tag>,
}

/// What a value is to the one that an earlier file has in its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tag {
    /// `!reset`: there is none.
    Reset,
    /// `!override`: it is replaced, not merged.
    Override,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Value {
    Null,
    Bool(bool),
    Int(i128),
    Float(f64),
    Text(String),
    List(Vec<Node>),
    Map(Vec<Entry>),
}

/// A key, where it stands, and its value.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub(crate) key: String,
    pub(crate) at: Position,
    pub(crate) node: Node,
}

// Two nodes or entries are the same where their values are, wherever they stand.
impl PartialEq for Entry {
    fn eq(&self, other: &Self) -> bool {
        self.key == other.key && self.node == other.node
    }
}

impl PartialEq for Node {
    fn eq(&self, other: &Self) -> bool {
        self.value == other.value
    }
}

impl Node {
    /// The value of a key of a mapping.
    pub(crate) fn child(&self, key: &str) -> Option<&Self> {
        let Value::Map(entries) = &self.value else { return None };
        entries.iter().find(|entry| entry.key == key).map(|entry| &entry.node)
    }

    /// What the value is, for messages.
    pub(crate) fn kind(&self) -> &'static str {
        match &self.value {
            Value::Null => "nothing",
            Value::Bool(_) => "a boolean",
            Value::Int(_) | Value::Float(_) => "a number",
            Value::Text(_) => "a string",
            Value::List(_) => "a list",
            Value::Map(_) => "a mapping",
        }
    }
}

/// Reads one YAML document. `None`: it is not YAML, and the log says why.
pub(crate) fn parse(file: &str, text: &str, log: &mut Log) -> Option<Node> {
    let file: Arc<str> = file.into();
    let options = serde_saphyr::options! {
        strict_booleans: true,
        legacy_octal_numbers: true,
        with_snippet: false,
        budget: serde_saphyr::budget! { max_depth: DEPTH_MAX },
    };
    match serde_saphyr::from_str_with_options::<Spanned<Tagged<Raw>>>(text, options) {
        Ok(root) => Some(Planter { file, log }.plant(root, String::new())),
        Err(error) => {
            let place = error.location().filter(|location| *location != Location::UNKNOWN);
            let planter = Planter { file, log };
            let at = planter.position(place.unwrap_or(Location::UNKNOWN));
            planter.log.error_at(&at, "", plain(&error));
            None
        }
    }
}

/// The message of an error without the place, which remarks show in their own way, and without
/// advice to programmers.
fn plain(error: &serde_saphyr::Error) -> String {
    let text = error.without_snippet().to_string();
    let mut text = text.lines().next().unwrap_or_default();
    for end in [" at line ", ", set ", "; use "] {
        text = text.rfind(end).map_or(text, |cut| &text[..cut]);
    }
    text.trim_end_matches([':', ',', ' ']).to_owned()
}

/// Turns what the parser hands over into nodes.
struct Planter<'a> {
    file: Arc<str>,
    log: &'a mut Log,
}

impl Planter<'_> {
    fn position(&self, location: Location) -> Position {
        Position { file: Arc::clone(&self.file), line: location.line(), column: location.column() }
    }

    fn plant(&mut self, raw: Spanned<Tagged<Raw>>, path: String) -> Node {
        let at = self.position(raw.defined);
        let Tagged(value, tag) = raw.value;
        let tag = match tag.as_deref() {
            Some("!reset") => Some(Tag::Reset),
            Some("!override") => Some(Tag::Override),
            // What YAML itself defines says only how the value is written.
            Some(tag) if tag.starts_with('!') && !tag.starts_with("!!") => {
                let text = format!("unknown tag {tag:?}: there are !reset and !override");
                self.log.error_at(&at, &path, text);
                None
            }
            _ => None,
        };
        let value = match value {
            Raw::Null => Value::Null,
            Raw::Bool(value) => Value::Bool(value),
            Raw::Int(value) => Value::Int(value),
            Raw::Float(value) => Value::Float(value),
            Raw::Text(value) => Value::Text(value),
            Raw::List(items) => Value::List(
                items
                    .into_iter()
                    .enumerate()
                    .map(|(index, item)| self.plant(item, format!("{path}[{index}]")))
                    .collect(),
            ),
            Raw::Map(entries) => {
                Value::Map(entries.into_iter().map(|entry| self.entry(entry, &path)).collect())
            }
        };
        Node { value, at, path, tag }
    }

    fn entry(&mut self, (key, value): RawEntry, path: &str) -> Entry {
        let at = self.position(key.defined);
        let key = match key.value {
            Raw::Text(text) => text,
            Raw::Null => "null".to_owned(),
            Raw::Bool(value) => value.to_string(),
            Raw::Int(value) => value.to_string(),
            Raw::Float(value) => value.to_string(),
            // No key that is known looks like this, so it ends as an unknown one.
            Raw::List(_) => "[…]".to_owned(),
            Raw::Map(_) => "{…}".to_owned(),
        };
        let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
        Entry { at, node: self.plant(value, path), key }
    }
}

/// What the parser hands over.
enum Raw {
    Null,
    Bool(bool),
    Int(i128),
    Float(f64),
    Text(String),
    List(Vec<Spanned<Tagged<Raw>>>),
    Map(Vec<RawEntry>),
}

type RawEntry = (Spanned<Raw>, Spanned<Tagged<Raw>>);

impl<'de> Deserialize<'de> for Raw {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(RawVisitor)
    }
}

struct RawVisitor;

impl<'de> Visitor<'de> for RawVisitor {
    type Value = Raw;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a YAML value")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Raw, E> {
        Ok(Raw::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Raw, E> {
        Ok(Raw::Int(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Raw, E> {
        Ok(Raw::Int(value.into()))
    }

    fn visit_i128<E>(self, value: i128) -> Result<Raw, E> {
        Ok(Raw::Int(value))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Raw, E> {
        Ok(Raw::Float(value))
    }

    fn visit_str<E>(self, value: &str) -> Result<Raw, E> {
        Ok(Raw::Text(value.to_owned()))
    }

    fn visit_unit<E>(self) -> Result<Raw, E> {
        Ok(Raw::Null)
    }

    fn visit_none<E>(self) -> Result<Raw, E> {
        Ok(Raw::Null)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Raw, D::Error> {
        Raw::deserialize(deserializer)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Raw, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = list.next_element()? {
            items.push(item);
        }
        Ok(Raw::List(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Raw, A::Error> {
        let mut entries = Vec::new();
        while let Some(entry) = map.next_entry()? {
            entries.push(entry);
        }
        Ok(Raw::Map(entries))
    }
}
