//! Ids: 25 characters of base 36, as Docker's users and scripts expect them.

use crate::TaskSpec;
use crate::text::Text;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::fmt;

/// The length of an id in characters.
const LENGTH: usize = 25;

macro_rules! id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(Text);

        impl $name {
            /// Draws a new id.
            pub fn draw(ids: &mut dyn IdSource) -> Self {
                Self::from(render(ids.next_bits()))
            }

            /// The id as text.
            pub fn as_str(&self) -> &str {
                self.0.as_str()
            }
        }

        impl From<&str> for $name {
            fn from(text: &str) -> Self {
                Self(Text::from(text))
            }
        }

        impl From<String> for $name {
            fn from(text: String) -> Self {
                Self(Text::from(text.as_str()))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.as_str())
            }
        }
    };
}

id!(/// Names a cluster.
    ClusterId);
id!(/// Names a node; the common name of its certificate.
    NodeId);
id!(/// Names a service.
    ServiceId);
id!(/// Names a task.
    TaskId);
id!(/// Names a network of the cluster.
    NetworkId);
id!(/// Names a secret.
    SecretId);
id!(/// Names a config.
    ConfigId);

id!(/// Names what tasks are made from: the digest of its content.
    SpecId);

impl SpecId {
    pub(crate) fn of(spec: &TaskSpec) -> Self {
        let bytes = serde_json::to_vec(spec).expect("plain values can be written to memory");
        let digest = Sha256::digest(&bytes);
        let bits = digest.first_chunk().expect("a digest has 32 bytes");
        Self::from(render(u128::from_be_bytes(*bits)))
    }
}

/// Where new ids come from: randomness in a running cluster, a counter in tests.
pub trait IdSource {
    /// 128 bits that were never given before.
    fn next_bits(&mut self) -> u128;
}

/// Writes the low 128 bits as 25 digits of base 36.
fn render(mut bits: u128) -> String {
    const DIGITS: &[u8; 36] = b"0123456789abcdefghijklmnopqrstuvwxyz";
    let mut text = [b'0'; LENGTH];
    for digit in text.iter_mut().rev() {
        *digit = DIGITS[usize::try_from(bits % 36).unwrap_or(0)];
        bits /= 36;
    }
    text.iter().map(|digit| char::from(*digit)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Count(u128);
    impl IdSource for Count {
        fn next_bits(&mut self) -> u128 {
            self.0 += 1;
            self.0
        }
    }

    #[test]
    fn an_id_has_25_characters_and_differs_from_the_next() {
        let mut ids = Count(u128::MAX - 5);
        let (one, two) = (TaskId::draw(&mut ids), TaskId::draw(&mut ids));
        assert_eq!(one.as_str().len(), LENGTH);
        assert_ne!(one, two);
    }
}
