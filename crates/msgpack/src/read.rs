//! Values from tokens, each as its type asks for it.

use crate::token::Token;
use crate::{DEPTH_MAX, ELEMENT_MIN, Error};
use serde::de::{
    DeserializeSeed, Deserializer, EnumAccess, Error as _, MapAccess, SeqAccess, VariantAccess,
    Visitor,
};
use serde::forward_to_deserialize_any;

/// What is left of the bytes.
pub(crate) struct Reader<'de> {
    rest: &'de [u8],
    depth: u16,
    /// What elements may still take in memory.
    allowance: usize,
}

impl<'de> Reader<'de> {
    pub(crate) fn new(bytes: &'de [u8], allowance: usize) -> Self {
        Self { rest: bytes, depth: 0, allowance }
    }

    /// Nothing may be left.
    pub(crate) fn end(&self) -> Result<(), Error> {
        if self.rest.is_empty() { Ok(()) } else { Err(Error::Trailing(self.rest.len())) }
    }

    fn take(&mut self) -> Result<Token<'de>, Error> {
        Token::take(&mut self.rest)
    }

    fn peek(&self) -> Result<Token<'de>, Error> {
        Token::take(&mut { self.rest })
    }

    fn descend(&mut self) -> Result<(), Error> {
        self.depth += 1;
        if self.depth > DEPTH_MAX { Err(Error::Depth) } else { Ok(()) }
    }

    /// Makes room for another element, or says that the bytes are too few for so many.
    fn charge(&mut self, cost: usize) -> Result<(), Error> {
        self.allowance = self.allowance.checked_sub(cost).ok_or(Error::Elements)?;
        Ok(())
    }

    fn list<V: Visitor<'de>>(
        &mut self,
        (left, are): (u32, Are),
        visitor: V,
    ) -> Result<V::Value, Error> {
        self.descend()?;
        let mut items = Items { reader: self, left, are };
        let value = visitor.visit_seq(&mut items)?;
        items.end()?;
        Ok(value)
    }

    fn map<V: Visitor<'de>>(
        &mut self,
        (left, are): (u32, Are),
        visitor: V,
    ) -> Result<V::Value, Error> {
        self.descend()?;
        let mut items = Items { reader: self, left, are };
        let value = visitor.visit_map(&mut items)?;
        items.end()?;
        Ok(value)
    }

    fn take_list<V: Visitor<'de>>(&mut self, are: Are, visitor: V) -> Result<V::Value, Error> {
        match self.take()? {
            Token::List(items) => self.list((items, are), visitor),
            found => Err(wanted(found, &visitor)),
        }
    }

    fn take_map<V: Visitor<'de>>(&mut self, are: Are, visitor: V) -> Result<V::Value, Error> {
        match self.take()? {
            Token::Map(pairs) => self.map((pairs, are), visitor),
            found => Err(wanted(found, &visitor)),
        }
    }

    /// Goes past a value.
    fn skip(&mut self) -> Result<(), Error> {
        let mut left = 1_u64;
        while left > 0 {
            left -= 1;
            left += match self.take()? {
                Token::List(items) => u64::from(items),
                Token::Map(pairs) => u64::from(pairs) * 2,
                _ => 0,
            };
        }
        Ok(())
    }
}

/// What items are to the type that is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Are {
    /// It has as many as its code says.
    Fields,
    /// It has as many as the bytes say.
    Elements,
}

/// What an element of this type takes in memory, without what is behind its pointers: those take
/// elements of their own, or bytes as they are.
fn cost<T>() -> usize {
    match size_of::<T>() {
        // No more than its bytes.
        small @ 0..=1 => small,
        more => more.max(ELEMENT_MIN),
    }
}

/// Says what was found instead.
fn wanted<'de, V: Visitor<'de>>(found: Token<'de>, visitor: &V) -> Error {
    Error::invalid_type(found.unexpected(), visitor)
}

impl<'de> Deserializer<'de> for &mut Reader<'de> {
    type Error = Error;

    fn is_human_readable(&self) -> bool {
        false
    }

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.take()? {
            Token::Nil => visitor.visit_unit(),
            Token::Bool(value) => visitor.visit_bool(value),
            Token::Unsigned(value) => visitor.visit_u64(value),
            Token::Signed(value) => visitor.visit_i64(value),
            Token::Float(value) => visitor.visit_f64(value),
            Token::Text(value) => visitor.visit_borrowed_str(value),
            Token::Bytes(value) => visitor.visit_borrowed_bytes(value),
            Token::List(items) => self.list((items, Are::Elements), visitor),
            Token::Map(pairs) => self.map((pairs, Are::Elements), visitor),
        }
    }

    // A number is any number here: its type says whether it is in range.
    forward_to_deserialize_any! { bool i8 i16 i32 i64 u8 u16 u32 u64 f32 f64 bytes byte_buf }

    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.take()? {
            Token::Text(value) => visitor.visit_borrowed_str(value),
            found => Err(wanted(found, &visitor)),
        }
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.deserialize_str(visitor)
    }

    fn deserialize_char<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.deserialize_str(visitor)
    }

    fn deserialize_identifier<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.deserialize_str(visitor)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        if self.peek()? == Token::Nil {
            self.take()?;
            return visitor.visit_none();
        }
        visitor.visit_some(self)
    }

    fn deserialize_unit<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.take()? {
            // A structure without fields is written as an empty list.
            Token::Nil | Token::List(0) => visitor.visit_unit(),
            found => Err(wanted(found, &visitor)),
        }
    }

    fn deserialize_unit_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, Error> {
        self.deserialize_unit(visitor)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, Error> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.take_list(Are::Elements, visitor)
    }

    fn deserialize_tuple<V: Visitor<'de>>(self, _: usize, visitor: V) -> Result<V::Value, Error> {
        self.take_list(Are::Fields, visitor)
    }

    fn deserialize_tuple_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: usize,
        visitor: V,
    ) -> Result<V::Value, Error> {
        self.take_list(Are::Fields, visitor)
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.take_map(Are::Elements, visitor)
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        self.take_map(Are::Fields, visitor)
    }

    /// A variant's name, or a map of this name to what the variant holds.
    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        match self.peek()? {
            Token::Text(_) => visitor.visit_enum(Variant { reader: self, holds: false }),
            Token::Map(1) => {
                self.take()?;
                self.descend()?;
                let reader = &mut *self;
                let value = visitor.visit_enum(Variant { reader, holds: true })?;
                self.depth -= 1;
                Ok(value)
            }
            found => Err(wanted(found, &visitor)),
        }
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.skip()?;
        visitor.visit_unit()
    }
}

/// The items of a list, or the pairs of a map.
struct Items<'r, 'de> {
    reader: &'r mut Reader<'de>,
    left: u32,
    are: Are,
}

impl Items<'_, '_> {
    fn next(&mut self) -> bool {
        let is_left = self.left > 0;
        self.left = self.left.saturating_sub(1);
        is_left
    }

    fn charge(&mut self, cost: usize) -> Result<(), Error> {
        match self.are {
            Are::Fields => Ok(()),
            Are::Elements => self.reader.charge(cost),
        }
    }

    fn end(self) -> Result<(), Error> {
        self.reader.depth -= 1;
        if self.left == 0 { Ok(()) } else { Err(Error::Items(self.left)) }
    }
}

impl<'de> SeqAccess<'de> for Items<'_, 'de> {
    type Error = Error;

    fn next_element_seed<T: DeserializeSeed<'de>>(
        &mut self,
        seed: T,
    ) -> Result<Option<T::Value>, Error> {
        if !self.next() {
            return Ok(None);
        }
        self.charge(cost::<T::Value>())?;
        seed.deserialize(&mut *self.reader).map(Some)
    }

    fn size_hint(&self) -> Option<usize> {
        usize::try_from(self.left).ok()
    }
}

impl<'de> MapAccess<'de> for Items<'_, 'de> {
    type Error = Error;

    fn next_key_seed<T: DeserializeSeed<'de>>(
        &mut self,
        seed: T,
    ) -> Result<Option<T::Value>, Error> {
        SeqAccess::next_element_seed(self, seed)
    }

    fn next_value_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<T::Value, Error> {
        self.charge(size_of::<T::Value>())?;
        seed.deserialize(&mut *self.reader)
    }

    fn size_hint(&self) -> Option<usize> {
        usize::try_from(self.left).ok()
    }
}

/// A variant of an enum.
struct Variant<'r, 'de> {
    reader: &'r mut Reader<'de>,
    /// Whether a value stands behind its name, and be it nil.
    holds: bool,
}

impl<'r, 'de> Variant<'r, 'de> {
    fn held(self) -> Result<&'r mut Reader<'de>, Error> {
        if self.holds { Ok(self.reader) } else { Err(Error::custom("a variant holds nothing")) }
    }
}

impl<'de> EnumAccess<'de> for Variant<'_, 'de> {
    type Error = Error;
    type Variant = Self;

    fn variant_seed<T: DeserializeSeed<'de>>(self, seed: T) -> Result<(T::Value, Self), Error> {
        Ok((seed.deserialize(&mut *self.reader)?, self))
    }
}

impl<'de> VariantAccess<'de> for Variant<'_, 'de> {
    type Error = Error;

    fn unit_variant(self) -> Result<(), Error> {
        if self.holds { serde::Deserialize::deserialize(self.reader) } else { Ok(()) }
    }

    fn newtype_variant_seed<T: DeserializeSeed<'de>>(self, seed: T) -> Result<T::Value, Error> {
        seed.deserialize(self.held()?)
    }

    fn tuple_variant<V: Visitor<'de>>(self, _: usize, visitor: V) -> Result<V::Value, Error> {
        self.held()?.take_list(Are::Fields, visitor)
    }

    fn struct_variant<V: Visitor<'de>>(
        self,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        self.held()?.take_map(Are::Fields, visitor)
    }
}
