//! MessagePack as text that a person can read.

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use std::fmt::{self, Write};

struct Rendered(String);

/// What any message says, in the order of its bytes.
pub fn render(bytes: &[u8]) -> String {
    msgpack::decode::<Rendered>(bytes).unwrap().0
}

impl<'de> Deserialize<'de> for Rendered {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Reader).map(Self)
    }
}

struct Reader;

impl<'de> Visitor<'de> for Reader {
    type Value = String;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MessagePack")
    }

    fn visit_unit<E>(self) -> Result<String, E> {
        Ok("nil".to_owned())
    }

    fn visit_bool<E>(self, value: bool) -> Result<String, E> {
        Ok(value.to_string())
    }

    fn visit_u64<E>(self, value: u64) -> Result<String, E> {
        Ok(value.to_string())
    }

    fn visit_i64<E>(self, value: i64) -> Result<String, E> {
        Ok(value.to_string())
    }

    fn visit_f32<E>(self, value: f32) -> Result<String, E> {
        Ok(format!("{value:?}"))
    }

    fn visit_f64<E>(self, value: f64) -> Result<String, E> {
        Ok(format!("{value:?}"))
    }

    fn visit_str<E>(self, value: &str) -> Result<String, E> {
        Ok(format!("{value:?}"))
    }

    /// Bytes may be a message of their own: one that begins as a map, as no text does.
    fn visit_bytes<E>(self, value: &[u8]) -> Result<String, E> {
        let is_map = value.first().is_some_and(|first| matches!(first, 0x80..=0x8f | 0xde | 0xdf));
        let inner = msgpack::decode::<Rendered>(value).ok().filter(|_| is_map);
        Ok(match inner {
            Some(Rendered(text)) => format!("bytes of {text}"),
            None => format!("b\"{}\"", value.escape_ascii()),
        })
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<String, A::Error> {
        let mut text = Vec::new();
        while let Some(Rendered(item)) = items.next_element()? {
            text.push(item);
        }
        Ok(format!("[{}]", text.join(", ")))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<String, A::Error> {
        let mut text = String::from("{");
        while let Some((Rendered(key), Rendered(value))) = entries.next_entry()? {
            let value = value.replace('\n', "\n  ");
            writeln!(text, "\n  {key}: {value},").unwrap();
            text.pop();
        }
        let end = if text.len() > 1 { "\n}" } else { "}" };
        Ok(text + end)
    }
}
