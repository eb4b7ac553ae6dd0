//! Bytes as MessagePack's own kind of bytes: one number each would take half as much again.

use serde::de::{Deserializer, SeqAccess, Visitor};
use serde::ser::Serializer;
use std::fmt;

pub fn serialize<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_bytes(bytes)
}

pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
    deserializer.deserialize_byte_buf(Octets)
}

struct Octets;

impl<'de> Visitor<'de> for Octets {
    type Value = Vec<u8>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("bytes")
    }

    fn visit_bytes<E>(self, bytes: &[u8]) -> Result<Vec<u8>, E> {
        Ok(bytes.to_vec())
    }

    fn visit_byte_buf<E>(self, bytes: Vec<u8>) -> Result<Vec<u8>, E> {
        Ok(bytes)
    }

    /// As a list of numbers.
    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Vec<u8>, A::Error> {
        let mut bytes = Vec::new();
        while let Some(byte) = list.next_element()? {
            bytes.push(byte);
        }
        Ok(bytes)
    }
}

#[cfg(test)]
mod tests {
    use serde::{Deserialize, Serialize};

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Kept {
        #[serde(with = "crate::octets")]
        text: Vec<u8>,
    }

    /// As it was written before bytes had a kind of their own.
    #[derive(Serialize)]
    struct Listed {
        text: Vec<u8>,
    }

    #[test]
    fn bytes_are_short_and_a_list_of_numbers_is_read_too() {
        let kept = Kept { text: vec![0xff; 100] };
        let bytes = msgpack::encode(&kept).unwrap();
        assert!(bytes.len() < 120, "{} bytes", bytes.len());
        assert_eq!(msgpack::decode::<Kept>(&bytes).unwrap(), kept);
        let listed = msgpack::encode(&Listed { text: vec![0xff; 100] }).unwrap();
        assert!(listed.len() > 200);
        assert_eq!(msgpack::decode::<Kept>(&listed).unwrap(), kept);
    }
}
