//! A request's query, read as Docker's server reads it.
//!
//! Names match exactly, of equal ones the first counts (a list takes all); a boolean is anything
//! but nothing, `0`, `no`, `false`, `none`, or, where Docker is strict, one of Go's words
//! ([`ParseBool`]). What a struct does not know is looked up in the
//! [table](super::table), as it is for bodies.

use super::reader::Wrong;
use super::table::{self, Class};
use crate::json::boolean;
use serde::de::value::{MapDeserializer, SeqDeserializer};
use serde::de::{Deserialize, DeserializeOwned, Deserializer, IntoDeserializer, Visitor};
use std::borrow::Cow;
use std::fmt;
use types::Fault;

/// Reads a query into `T`.
pub(crate) fn read<T: DeserializeOwned>(query: &str) -> Result<T, Fault> {
    let pairs: Vec<_> = form_urlencoded::parse(query.as_bytes()).collect();
    T::deserialize(Query(&pairs)).map_err(|error| error.0)
}

/// A boolean of a query as Docker reads it.
pub(crate) fn flag(text: &str) -> bool {
    !matches!(text.trim().to_ascii_lowercase().as_str(), "" | "0" | "no" | "false" | "none")
}

/// A boolean that Docker reads by Go's words, and refuses any other: what it asks for cannot be taken
/// back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct ParseBool(pub(crate) bool);

/// The name by which [`Param`] knows it.
const PARSE_BOOL: &str = "ParseBool";

impl<'de> Deserialize<'de> for ParseBool {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Word;

        impl<'de> Visitor<'de> for Word {
            type Value = ParseBool;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a boolean")
            }

            fn visit_bool<E>(self, value: bool) -> Result<ParseBool, E> {
                Ok(ParseBool(value))
            }

            fn visit_newtype_struct<D: Deserializer<'de>>(
                self,
                inner: D,
            ) -> Result<ParseBool, D::Error> {
                inner.deserialize_bool(self)
            }
        }

        deserializer.deserialize_newtype_struct(PARSE_BOOL, Word)
    }
}

type Pair<'a> = (Cow<'a, str>, Cow<'a, str>);

/// The whole query.
struct Query<'a>(&'a [Pair<'a>]);

impl<'de> Deserializer<'de> for Query<'_> {
    type Error = Wrong;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Wrong> {
        self.deserialize_struct("", &[], visitor)
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Wrong> {
        let mut params: Vec<Param<'_>> = Vec::new();
        for (key, value) in self.0 {
            if !fields.contains(&key.as_ref()) {
                leftover(name, key, value)?;
                continue;
            }
            match params.iter_mut().find(|param| param.name == key.as_ref()) {
                Some(param) => param.given.push(value),
                None => params.push(Param { name: key, given: vec![value] }),
            }
        }
        let params = params.into_iter().map(|param| (param.name, param));
        visitor.visit_map(MapDeserializer::new(params))
    }

    serde::forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option
        unit unit_struct newtype_struct seq tuple tuple_struct map enum identifier ignored_any
    }
}

/// Gives a parameter that the struct does not have to the table.
fn leftover(owner: &'static str, name: &str, value: &str) -> Result<(), Wrong> {
    let Some(row) = table::find(owner, name).filter(|row| row.field == name) else { return Ok(()) };
    // A list has no place for a warning: what has no effect passes.
    let Class::Refused(advice) = row.class else { return Ok(()) };
    if !flag(value) || row.but.contains(&value) {
        return Ok(());
    }
    Err(Wrong(table::refusal(name, value, advice)))
}

/// One parameter, with all its values.
struct Param<'a> {
    name: &'a str,
    given: Vec<&'a str>,
}

impl Param<'_> {
    fn text(&self) -> &str {
        self.given.first().copied().unwrap_or_default()
    }

    fn number<T: std::str::FromStr>(&self) -> Result<T, Wrong> {
        let (name, text) = (self.name, self.text());
        text.parse().map_err(|_invalid| {
            Wrong(Fault::invalid(format!("invalid {name} \"{text}\": it must be a whole number")))
        })
    }
}

macro_rules! numbers {
    ($($method:ident $visit:ident)*) => {$(
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Wrong> {
            visitor.$visit(self.number()?)
        }
    )*};
}

impl<'de> Deserializer<'de> for Param<'_> {
    type Error = Wrong;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Wrong> {
        visitor.visit_str(self.text())
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Wrong> {
        visitor.visit_bool(flag(self.text()))
    }

    numbers! {
        deserialize_i32 visit_i32 deserialize_i64 visit_i64
        deserialize_u16 visit_u16 deserialize_u32 visit_u32 deserialize_u64 visit_u64
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Wrong> {
        // A name alone, or with nothing behind its sign, gives nothing.
        if self.text().is_empty() { visitor.visit_none() } else { visitor.visit_some(self) }
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Wrong> {
        visitor.visit_seq(SeqDeserializer::new(self.given.into_iter()))
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        visitor: V,
    ) -> Result<V::Value, Wrong> {
        if name != PARSE_BOOL {
            return visitor.visit_newtype_struct(self);
        }
        match self.text() {
            "" => visitor.visit_bool(false),
            text => visitor.visit_bool(boolean(text).ok_or_else(|| {
                Wrong(Fault::invalid(format!("invalid value for {}: {text}", self.name)))
            })?),
        }
    }

    serde::forward_to_deserialize_any! {
        i8 i16 i128 u8 u128 f32 f64 char str string bytes byte_buf unit unit_struct tuple
        tuple_struct map struct enum identifier ignored_any
    }
}

impl IntoDeserializer<'_, Wrong> for Param<'_> {
    type Deserializer = Self;

    fn into_deserializer(self) -> Self {
        self
    }
}
