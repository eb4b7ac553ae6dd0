//! Bytes that only who has a key can read, and that nobody else can change unnoticed.
//!
//! A [`Seal`] is XChaCha20-Poly1305 with a nonce by chance, long enough that none is ever drawn twice. What is
//! sealed opens in its own context alone: bytes that belong in one place are refused in another.
//! An [`UnlockKey`] is a key that people keep.
//!
//! It knows nothing of what is sealed, nor of where keys are kept.
//!
//! Invariant: a [`Key`] and an [`UnlockKey`] are overwritten when they are dropped, and never printed. What
//! they are rendered to is their holder's to look after.

mod unlock;

pub use unlock::UnlockKey;

use chacha20poly1305::aead::inout::InOutBuf;
use chacha20poly1305::{AeadInOut, KeyInit, Tag, XChaCha20Poly1305, XNonce};
use std::fmt;
use zeroize::Zeroizing;

const NONCE_BYTES: usize = 24;
const TAG_BYTES: usize = 16;

/// How much longer sealed bytes are.
pub const OVERHEAD: usize = NONCE_BYTES + TAG_BYTES;

/// Sealed by another key, for another context, or changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("sealed by another key, or damaged")]
pub struct Refused;

/// A key.
#[derive(Clone)]
pub struct Key(Zeroizing<[u8; 32]>);

impl Key {
    /// Draws a new one.
    pub fn draw() -> Self {
        Self::from(rand::random::<[u8; 32]>())
    }

    pub fn bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl From<[u8; 32]> for Key {
    fn from(bytes: [u8; 32]) -> Self {
        Self(Zeroizing::new(bytes))
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key(…)")
    }
}

/// Seals and opens by one key.
pub struct Seal(XChaCha20Poly1305);

impl fmt::Debug for Seal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Seal(…)")
    }
}

impl Seal {
    pub fn new(key: &Key) -> Self {
        Self(XChaCha20Poly1305::new(key.bytes().into()))
    }

    /// Seals `plain` into the place where it is to be, which is longer by [`OVERHEAD`].
    pub fn write(&self, context: &[u8], plain: &[u8], place: &mut [u8]) {
        let nonce = rand::random::<[u8; NONCE_BYTES]>();
        let (head, rest) = place.split_at_mut(NONCE_BYTES);
        let (body, tag) = rest.split_at_mut(plain.len());
        head.copy_from_slice(&nonce);
        let nonce = XNonce::from(nonce);
        let buffer = InOutBuf::new(plain, body).expect("they were cut to the same length");
        let made = self.0.encrypt_inout_detached(&nonce, context, buffer);
        tag.copy_from_slice(&made.expect("nothing in memory is too long to be sealed"));
    }

    pub fn seal(&self, context: &[u8], plain: &[u8]) -> Vec<u8> {
        let mut sealed = vec![0; plain.len() + OVERHEAD];
        self.write(context, plain, &mut sealed);
        sealed
    }

    pub fn open(&self, context: &[u8], sealed: &[u8]) -> Result<Vec<u8>, Refused> {
        let (nonce, rest) = sealed.split_first_chunk::<NONCE_BYTES>().ok_or(Refused)?;
        let (body, tag) = rest.split_last_chunk::<TAG_BYTES>().ok_or(Refused)?;
        let mut plain = vec![0; body.len()];
        let buffer = InOutBuf::new(body, &mut plain).map_err(|_lengths| Refused)?;
        let (nonce, tag) = (XNonce::from(*nonce), Tag::from(*tag));
        let opened = self.0.decrypt_inout_detached(&nonce, context, buffer, &tag);
        opened.map_err(|_wrong| Refused)?;
        Ok(plain)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_sealed_opens_by_its_key_in_its_place_as_it_was_and_not_otherwise() {
        let (own, other) = (Seal::new(&Key::draw()), Seal::new(&Key::draw()));
        for plain in [&b""[..], b"secret", &[7; 10_000]] {
            let sealed = own.seal(b"here", plain);
            assert_ne!(sealed, own.seal(b"here", plain), "twice the same looks different");
            assert_eq!(own.open(b"here", &sealed).unwrap(), plain);
            assert_eq!(other.open(b"here", &sealed), Err(Refused));
            assert_eq!(own.open(b"there", &sealed), Err(Refused));
            for at in [0, NONCE_BYTES, sealed.len() - 1] {
                let mut changed = sealed.clone();
                changed[at] ^= 1;
                assert_eq!(own.open(b"here", &changed), Err(Refused));
            }
            assert_eq!(own.open(b"here", &sealed[1..]), Err(Refused));
        }
        assert_eq!(own.open(b"here", b"short"), Err(Refused));
    }

    #[test]
    fn keys_do_not_print() {
        let key = Key::from([7; 32]);
        assert_eq!(format!("{key:?} {:?}", Seal::new(&key)), "Key(…) Seal(…)");
    }
}
