//! The text of an id.

use serde::de::{Error, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

/// Text that stands in its place up to this many bytes: an id has 25.
const SHORT: usize = 30;

/// Text that is never changed. What is short is copied as plain bytes and compared without a look
/// at another place in memory: stores and indexes of 100,000 tasks do little else.
#[derive(Clone)]
pub(crate) enum Text {
    Short { len: u8, bytes: [u8; SHORT] },
    Long(Arc<str>),
}

impl Text {
    fn as_bytes(&self) -> &[u8] {
        match self {
            Self::Short { len, bytes } => &bytes[..usize::from(*len)],
            Self::Long(text) => text.as_bytes(),
        }
    }

    pub(crate) fn as_str(&self) -> &str {
        match self {
            Self::Short { .. } => {
                std::str::from_utf8(self.as_bytes()).expect("it was made of text")
            }
            Self::Long(text) => text,
        }
    }
}

impl From<&str> for Text {
    fn from(text: &str) -> Self {
        let mut bytes = [0; SHORT];
        match (bytes.get_mut(..text.len()), u8::try_from(text.len())) {
            (Some(place), Ok(len)) => {
                place.copy_from_slice(text.as_bytes());
                Self::Short { len, bytes }
            }
            (None, _) | (_, Err(_)) => Self::Long(text.into()),
        }
    }
}

impl Default for Text {
    fn default() -> Self {
        Self::from("")
    }
}

impl PartialEq for Text {
    fn eq(&self, other: &Self) -> bool {
        self.as_bytes() == other.as_bytes()
    }
}

impl Eq for Text {}

impl PartialOrd for Text {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// As that of `str`, which goes by bytes, too.
impl Ord for Text {
    fn cmp(&self, other: &Self) -> Ordering {
        self.as_bytes().cmp(other.as_bytes())
    }
}

impl Hash for Text {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.as_str().hash(state);
    }
}

impl fmt::Debug for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.as_str().fmt(f)
    }
}

impl Serialize for Text {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl<'de> Deserialize<'de> for Text {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Read;
        impl Visitor<'_> for Read {
            type Value = Text;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string")
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Text, E> {
                Ok(Text::from(text))
            }
        }
        deserializer.deserialize_str(Read)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_and_long_text_is_what_it_was_made_of() {
        let texts: Vec<String> = [0, 1, 2, 25, 29, 30, 31, 32, 1000, 300_000]
            .into_iter()
            .flat_map(|len| [format!("{}a", "é".repeat(len / 2)), "z".repeat(len)])
            .collect();
        for one in &texts {
            let text = Text::from(one.as_str());
            assert_eq!((text.as_str(), format!("{text:?}")), (one.as_str(), format!("{one:?}")));
            let json = serde_json::to_string(&text).unwrap();
            assert_eq!(json, serde_json::to_string(one).unwrap());
            assert_eq!(serde_json::from_str::<Text>(&json).unwrap(), text);
            for other in &texts {
                assert_eq!(text.cmp(&Text::from(other.as_str())), one.cmp(other));
            }
        }
        assert_eq!(size_of::<Text>(), 32);
    }
}
