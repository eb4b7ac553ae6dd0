//! What a type would read: its fields, and theirs, found by asking its `Deserialize`.

use super::super::reader::Wrong;
use serde::de::value::{MapDeserializer, SeqDeserializer};
use serde::de::{DeserializeOwned, Deserializer, IntoDeserializer, Visitor};
use std::iter::once;

/// What is read in one place.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Shape {
    /// A scalar by Go's name, or `any`.
    Leaf(&'static str),
    Object(&'static str, Vec<(&'static str, Shape)>),
    List(Box<Shape>),
    Map(Box<Shape>),
}

/// The shape of a type.
pub(super) fn shape<T: DeserializeOwned>() -> Shape {
    let mut shape = Shape::Leaf("any");
    T::deserialize(Probe(&mut shape)).map(drop).expect("every sample is taken");
    shape
}

struct Probe<'a>(&'a mut Shape);

macro_rules! leaves {
    ($($method:ident $visit:ident $sample:expr, $go:literal;)*) => {$(
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Wrong> {
            *self.0 = Shape::Leaf($go);
            visitor.$visit($sample)
        }
    )*};
}

impl<'de> Deserializer<'de> for Probe<'_> {
    type Error = Wrong;

    leaves! {
        deserialize_bool visit_bool true, "bool";
        deserialize_i32 visit_i32 1, "int32";
        deserialize_i64 visit_i64 1, "int64";
        deserialize_u16 visit_u16 1, "uint16";
        deserialize_u32 visit_u32 1, "uint32";
        deserialize_u64 visit_u64 1, "uint64";
        deserialize_f32 visit_f32 1.0, "float32";
        deserialize_f64 visit_f64 1.0, "float64";
        deserialize_str visit_str "10.0.0.1", "string";
        deserialize_string visit_str "10.0.0.1", "string";
    }

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Wrong> {
        visitor.visit_unit()
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Wrong> {
        visitor.visit_some(self)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        visitor: V,
    ) -> Result<V::Value, Wrong> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Wrong> {
        let mut item = Shape::Leaf("any");
        let value = visitor.visit_seq(SeqDeserializer::new(once(Probe(&mut item))))?;
        *self.0 = Shape::List(Box::new(item));
        Ok(value)
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Wrong> {
        let mut item = Shape::Leaf("any");
        let value = visitor.visit_map(MapDeserializer::new(once(("key", Probe(&mut item)))))?;
        *self.0 = Shape::Map(Box::new(item));
        Ok(value)
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        names: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Wrong> {
        let mut fields: Vec<_> = names.iter().map(|field| (*field, Shape::Leaf("any"))).collect();
        let probes = fields.iter_mut().map(|(field, shape)| (*field, Probe(shape)));
        let value = visitor.visit_map(MapDeserializer::new(probes))?;
        *self.0 = Shape::Object(name, fields);
        Ok(value)
    }

    serde::forward_to_deserialize_any! {
        i8 i16 i128 u8 u128 char bytes byte_buf unit unit_struct tuple tuple_struct enum identifier
        ignored_any
    }
}

impl IntoDeserializer<'_, Wrong> for Probe<'_> {
    type Deserializer = Self;

    fn into_deserializer(self) -> Self {
        self
    }
}
