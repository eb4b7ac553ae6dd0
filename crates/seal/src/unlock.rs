//! Unlock keys: `SWMKEY-1-<256 bits in base 64>`, as swarmkit writes them.

use crate::{Key, Seal};
use base64::Engine;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use std::fmt;
use zeroize::Zeroizing;

const PREFIX: &str = "SWMKEY-1-";

/// What a person gives so that a manager may use its keys.
#[derive(Clone)]
pub struct UnlockKey(Key);

// It must not reach a log.
impl fmt::Debug for UnlockKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("UnlockKey(…)")
    }
}

impl PartialEq for UnlockKey {
    fn eq(&self, other: &Self) -> bool {
        self.0.bytes() == other.0.bytes()
    }
}

impl Eq for UnlockKey {}

impl UnlockKey {
    /// Draws a new one.
    pub fn draw() -> Self {
        Self(Key::draw())
    }

    /// Reads one as a person gives it.
    pub fn parse(text: &str) -> Option<Self> {
        let digits = text.trim().strip_prefix(PREFIX)?;
        let bytes = Zeroizing::new(STANDARD_NO_PAD.decode(digits).ok()?);
        Some(Self(Key::from(<[u8; 32]>::try_from(bytes.as_slice()).ok()?)))
    }

    /// As a person sees it.
    pub fn render(&self) -> String {
        format!("{PREFIX}{}", STANDARD_NO_PAD.encode(self.0.bytes()))
    }

    pub fn seal(&self) -> Seal {
        Seal::new(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unlock_key_is_read_as_it_was_written_and_nothing_else_is() {
        let key = UnlockKey::draw();
        let text = key.render();
        assert_eq!(UnlockKey::parse(&format!(" {text}\n")), Some(key));
        assert_eq!(text.len(), PREFIX.len() + 43);
        for wrong in ["", "SWMKEY-1-", "SWMKEY-2-", &text[1..], &text[..text.len() - 1]] {
            assert_eq!(UnlockKey::parse(wrong), None, "{wrong}");
        }
    }
}
