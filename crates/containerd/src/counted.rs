//! Lists in documents of images: reading stops where they are longer than any image's.
//!
//! A document of a few bytes for each item would be many times as large in memory.

use crate::unpack::LAYERS_MAX;
use serde::Deserialize;
use serde::de::{Deserializer, Error, SeqAccess, Visitor};
use std::fmt;
use std::marker::PhantomData;

/// Images in an archive, or in a list of what there is for each kind of machine.
const IMAGES_MAX: usize = 1000;

/// Reads a list of images.
pub(crate) fn images<'de, D, T>(deserializer: D) -> Result<Vec<T>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    deserializer.deserialize_seq(AtMost { most: IMAGES_MAX, what: "images", item: PhantomData })
}

/// Reads a list of layers.
pub(crate) fn layers<'de, D, T>(deserializer: D) -> Result<Vec<T>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    deserializer.deserialize_seq(AtMost { most: LAYERS_MAX, what: "layers", item: PhantomData })
}

struct AtMost<T> {
    most: usize,
    what: &'static str,
    item: PhantomData<fn() -> T>,
}

impl<'de, T: Deserialize<'de>> Visitor<'de> for AtMost<T> {
    type Value = Vec<T>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "a list of {}", self.what)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Vec<T>, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = list.next_element()? {
            if items.len() == self.most {
                return Err(Error::custom(format!("more than {} {}", self.most, self.what)));
            }
            items.push(item);
        }
        Ok(items)
    }
}
