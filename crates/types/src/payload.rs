//! Bytes that may be secret.

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::fmt;
use std::sync::Arc;
use zeroize::Zeroizing;

/// Bytes that may be secret. A clone is the same bytes; they are overwritten once nobody has them
/// any more, and shown to nobody in passing.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Payload(Arc<Zeroizing<Vec<u8>>>);

impl Payload {
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl From<Vec<u8>> for Payload {
    fn from(bytes: Vec<u8>) -> Self {
        Self(Arc::new(bytes.into()))
    }
}

// What is secret may not reach a log.
impl fmt::Debug for Payload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Payload({} bytes)", self.len())
    }
}

impl Serialize for Payload {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        crate::octets::serialize(self.as_bytes(), serializer)
    }
}

impl<'de> Deserialize<'de> for Payload {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        crate::octets::deserialize(deserializer).map(Self::from)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_written_as_they_are_and_not_shown() {
        let payload = Payload::from(b"\x00\xffpassword".to_vec());
        let bytes = msgpack::encode(&payload).unwrap();
        assert_eq!(bytes[..2], [0xc4, 10]);
        assert_eq!(msgpack::decode::<Payload>(&bytes).unwrap(), payload);
        assert_eq!(format!("{payload:?}"), "Payload(10 bytes)");
    }
}
