//! What a type would read: its fields, and theirs, found by asking its `Deserialize`.

use super::super::reader::Wrong;
use serde::de::value::StrDeserializer;
use serde::de::{DeserializeOwned, DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};

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
        let value = visitor.visit_seq(One(Some(&mut item)))?;
        *self.0 = Shape::List(Box::new(item));
        Ok(value)
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Wrong> {
        let mut fields = Fields { names: &["key"], shapes: Vec::new() };
        let value = visitor.visit_map(&mut fields)?;
        let (_, item) = fields.shapes.pop().expect("one entry was asked for");
        *self.0 = Shape::Map(Box::new(item));
        Ok(value)
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        names: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Wrong> {
        let mut fields = Fields { names, shapes: Vec::new() };
        let value = visitor.visit_map(&mut fields)?;
        *self.0 = Shape::Object(name, fields.shapes);
        Ok(value)
    }

    serde::forward_to_deserialize_any! {
        i8 i16 i128 u8 u128 char bytes byte_buf unit unit_struct tuple tuple_struct enum identifier
        ignored_any
    }
}

/// A list of one item.
struct One<'a>(Option<&'a mut Shape>);

impl<'de> SeqAccess<'de> for One<'_> {
    type Error = Wrong;

    fn next_element_seed<T: DeserializeSeed<'de>>(
        &mut self,
        seed: T,
    ) -> Result<Option<T::Value>, Wrong> {
        self.0.take().map(|item| seed.deserialize(Probe(item))).transpose()
    }
}

/// Every field once, in order.
struct Fields {
    names: &'static [&'static str],
    shapes: Vec<(&'static str, Shape)>,
}

impl<'de> MapAccess<'de> for &mut Fields {
    type Error = Wrong;

    fn next_key_seed<K: DeserializeSeed<'de>>(
        &mut self,
        seed: K,
    ) -> Result<Option<K::Value>, Wrong> {
        let name = self.names.get(self.shapes.len());
        name.map(|name| seed.deserialize(StrDeserializer::new(name))).transpose()
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Wrong> {
        let name = self.names[self.shapes.len()];
        let mut shape = Shape::Leaf("any");
        let value = seed.deserialize(Probe(&mut shape))?;
        self.shapes.push((name, shape));
        Ok(value)
    }
}
