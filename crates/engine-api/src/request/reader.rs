//! A request's JSON, read by the rules of Go's `encoding/json`, as Docker's server reads it.
//!
//! Names of fields match without regard to case; of equal names the last one counts, objects of
//! equal names are merged; `null` is "not given", at every depth; a wrong type is an error in Go's
//! words. What a struct does not know is looked up in the [table](super::table).

use super::table::{self, Class};
use super::tree::Json;
use serde::de::value::{MapDeserializer, SeqDeserializer};
use serde::de::{DeserializeOwned, Deserializer, Error as _, IntoDeserializer, Visitor};
use std::any::type_name;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt;
use types::Fault;

/// A request's body, and what the user is told of it besides.
#[derive(Debug, Default)]
pub(crate) struct Read<T> {
    pub(crate) value: T,
    /// One sentence for each field that has no effect.
    pub(crate) warnings: Vec<String>,
}

/// Reads a body. An empty one is the default.
pub(crate) fn read<T: DeserializeOwned + Default>(bytes: &[u8]) -> Result<Read<T>, Fault> {
    let text = String::from_utf8_lossy(bytes);
    if text.trim().is_empty() {
        return Ok(Read { value: T::default(), warnings: Vec::new() });
    }
    let wrong = |error: serde_json::Error| {
        let what = if error.is_eof() { "unexpected EOF".to_owned() } else { error.to_string() };
        Fault::invalid(format!("invalid JSON: {what}"))
    };
    let mut parser = serde_json::Deserializer::from_str(&text);
    let tree = serde::Deserialize::deserialize(&mut parser).map_err(wrong)?;
    parser.end().map_err(|_more| Fault::invalid("unexpected content after JSON"))?;
    from_tree(&tree)
}

/// Reads a document that is parsed already.
pub(crate) fn from_tree<T: DeserializeOwned>(tree: &Json) -> Result<Read<T>, Fault> {
    let warnings = RefCell::new(Vec::new());
    let location = Location { owner: "", path: String::new(), warnings: &warnings };
    let value = T::deserialize(Reader { given: vec![tree], location }).map_err(|error| error.0)?;
    Ok(Read { value, warnings: warnings.into_inner() })
}

/// A fault on its way through serde.
#[derive(Debug)]
pub(crate) struct Wrong(pub(crate) Fault);

impl fmt::Display for Wrong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl std::error::Error for Wrong {}

impl serde::de::Error for Wrong {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self(Fault::invalid(format!("invalid JSON: {message}")))
    }
}

/// Where in the request the reader is.
#[derive(Clone)]
struct Location<'a> {
    /// Docker's name of the object whose field this is.
    owner: &'static str,
    /// From the body's root, joined by dots, without indices: Go's form.
    path: String,
    warnings: &'a RefCell<Vec<String>>,
}

impl Location<'_> {
    fn field(&self, owner: &'static str, name: &str) -> Self {
        let path =
            if self.path.is_empty() { name.to_owned() } else { format!("{}.{name}", self.path) };
        Self { owner, path, warnings: self.warnings }
    }
}

/// Everything that a request gives for one field, in its order.
struct Reader<'a> {
    given: Vec<&'a Json>,
    location: Location<'a>,
}

impl<'a> Reader<'a> {
    /// A scalar's value: a later `null` changes nothing.
    fn last(&self) -> Option<&'a Json> {
        self.given.iter().rev().find(|value| ***value != Json::Null).copied()
    }

    /// What is given after the last `null`, which clears pointers, lists and maps.
    fn after_null(mut self) -> Self {
        if let Some(null) = self.given.iter().rposition(|value| **value == Json::Null) {
            self.given.drain(..=null);
        }
        self
    }

    fn mismatch(&self, found: &Json, wanted: &str) -> Wrong {
        let location = &self.location;
        let into = if location.path.is_empty() {
            "Go value".to_owned()
        } else {
            format!("Go struct field {}.{}", location.owner, location.path)
        };
        Wrong::custom(format!(
            "json: cannot unmarshal {} into {into} of type {wanted}",
            found.word()
        ))
    }

    fn item(&self, value: &'a Json) -> Self {
        Self { given: vec![value], location: self.location.clone() }
    }

    /// The pairs of all objects that are given, in order.
    fn pairs(&self, wanted: &str) -> Result<Vec<&'a (String, Json)>, Wrong> {
        let mut all = Vec::new();
        for value in self.given.iter().filter(|value| ***value != Json::Null) {
            match value {
                Json::Object(pairs) => all.extend(pairs),
                other => return Err(self.mismatch(other, wanted)),
            }
        }
        Ok(all)
    }

    /// Gives a field that the struct does not have to the table.
    fn leftover(&self, owner: &'static str, name: &str, value: &Json) -> Result<(), Wrong> {
        let Some(row) = table::find(owner, name) else { return Ok(()) };
        if row.passes(value) {
            return Ok(());
        }
        let (path, value) = first_set(&self.location.field(owner, row.field).path, value);
        match row.class {
            Class::Refused(advice) => Err(Wrong(table::refusal(&path, &value, advice))),
            Class::NoEffect(_) if row.quiet => Ok(()),
            Class::NoEffect(reason) => {
                self.location.warnings.borrow_mut().push(format!("{path} has no effect: {reason}"));
                Ok(())
            }
        }
    }
}

/// The first field below `path` that says something, and what it says.
fn first_set(path: &str, value: &Json) -> (String, String) {
    match value {
        Json::Object(pairs) => match pairs.iter().find(|(_, value)| !value.is_zero()) {
            Some((name, value)) => first_set(&format!("{path}.{name}"), value),
            None => (path.to_owned(), value.to_string()),
        },
        Json::Text(text) => (path.to_owned(), text.clone()),
        other => (path.to_owned(), other.to_string()),
    }
}

/// Go's name for a type of ours.
fn go_type(rust: &str) -> &str {
    match rust {
        _ if rust.contains("Map<") => "map[string]string",
        _ if rust.contains("Vec<alloc::string::String>") => "[]string",
        _ if rust.contains("Vec<") => "[]object",
        _ => "object",
    }
}

macro_rules! integers {
    ($($method:ident $visit:ident $type:ty, $convert:ident, $go:literal;)*) => {$(
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Wrong> {
            match self.last() {
                None => visitor.$visit(0),
                Some(found) => {
                    let number = match found {
                        Json::Number(number) => number.$convert(),
                        _ => None,
                    };
                    let number = number.and_then(|number| <$type>::try_from(number).ok());
                    visitor.$visit(number.ok_or_else(|| self.mismatch(found, $go))?)
                }
            }
        }
    )*};
}

impl<'de> Deserializer<'de> for Reader<'_> {
    type Error = Wrong;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Wrong> {
        match self.last() {
            None | Some(Json::Null) => visitor.visit_unit(),
            Some(Json::Bool(value)) => visitor.visit_bool(*value),
            Some(Json::Number(number)) => number.deserialize_any(visitor).map_err(Wrong::custom),
            Some(Json::Text(text)) => visitor.visit_str(text),
            Some(Json::List(_)) => self.deserialize_seq(visitor),
            Some(Json::Object(_)) => self.deserialize_map(visitor),
        }
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Wrong> {
        match self.last() {
            None => visitor.visit_bool(false),
            Some(Json::Bool(value)) => visitor.visit_bool(*value),
            Some(found) => Err(self.mismatch(found, "bool")),
        }
    }

    integers! {
        deserialize_i8 visit_i8 i8, as_i64, "int8";
        deserialize_i16 visit_i16 i16, as_i64, "int16";
        deserialize_i32 visit_i32 i32, as_i64, "int32";
        deserialize_i64 visit_i64 i64, as_i64, "int64";
        deserialize_u8 visit_u8 u8, as_u64, "uint8";
        deserialize_u16 visit_u16 u16, as_u64, "uint16";
        deserialize_u32 visit_u32 u32, as_u64, "uint32";
        deserialize_u64 visit_u64 u64, as_u64, "uint64";
    }

    fn deserialize_f32<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Wrong> {
        self.deserialize_f64(visitor)
    }

    fn deserialize_f64<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Wrong> {
        match self.last() {
            None => visitor.visit_f64(0.0),
            Some(Json::Number(number)) => visitor.visit_f64(number.as_f64().unwrap_or(0.0)),
            Some(found) => Err(self.mismatch(found, "float64")),
        }
    }

    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Wrong> {
        match self.last() {
            None => visitor.visit_str(""),
            Some(Json::Text(text)) => visitor.visit_str(text),
            Some(found) => Err(self.mismatch(found, "string")),
        }
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Wrong> {
        self.deserialize_str(visitor)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Wrong> {
        let given = self.after_null();
        if given.given.is_empty() { visitor.visit_none() } else { visitor.visit_some(given) }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        visitor: V,
    ) -> Result<V::Value, Wrong> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Wrong> {
        let given = self.after_null();
        let items = match given.last() {
            None => &[][..],
            Some(Json::List(items)) => items,
            Some(found) => return Err(given.mismatch(found, go_type(type_name::<V::Value>()))),
        };
        visitor.visit_seq(SeqDeserializer::new(items.iter().map(|item| given.item(item))))
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Wrong> {
        let given = self.after_null();
        let pairs = given.pairs(go_type(type_name::<V::Value>()))?;
        let last: BTreeMap<&str, usize> =
            pairs.iter().enumerate().map(|(at, (key, _))| (key.as_str(), at)).collect();
        let counts = |at: usize, key: &str| last.get(key) == Some(&at);
        let entries = pairs
            .iter()
            .enumerate()
            .filter(|(at, (key, _))| counts(*at, key))
            .map(|(_, (key, value))| (key.as_str(), given.item(value)));
        visitor.visit_map(MapDeserializer::new(entries))
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Wrong> {
        let mut entries: Vec<(&str, Reader<'_>)> = Vec::new();
        for (key, value) in self.pairs(name)? {
            let exact = fields.iter().find(|field| *field == key);
            let field = exact.or_else(|| fields.iter().find(|it| it.eq_ignore_ascii_case(key)));
            let Some(field) = field else {
                self.leftover(name, key, value)?;
                continue;
            };
            if let Some((_, reader)) = entries.iter_mut().find(|(earlier, _)| earlier == field) {
                reader.given.push(value);
            } else {
                let location = self.location.field(name, field);
                entries.push((field, Reader { given: vec![value], location }));
            }
        }
        // What is null alone was not given.
        entries.retain(|(_, reader)| reader.last().is_some());
        visitor.visit_map(MapDeserializer::new(entries.into_iter()))
    }

    serde::forward_to_deserialize_any! {
        i128 u128 char bytes byte_buf unit unit_struct tuple tuple_struct enum identifier
        ignored_any
    }
}

impl IntoDeserializer<'_, Wrong> for Reader<'_> {
    type Deserializer = Self;

    fn into_deserializer(self) -> Self {
        self
    }
}
