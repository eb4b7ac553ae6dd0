//! The digest of a root certificate, as join tokens carry it.

use crate::Error;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use sha2::{Digest, Sha256};
use types::NodeId;

const DIGITS: &[u8; 36] = b"0123456789abcdefghijklmnopqrstuvwxyz";
/// 256 bits take 50 digits of base 36.
pub(crate) const DIGEST_LENGTH: usize = 50;
/// 128 bits take 25.
pub(crate) const SECRET_LENGTH: usize = 25;

/// The SHA-256 digest of a root certificate (PEM in, over its DER) in base 36.
pub fn root_digest(root: &str) -> Result<String, Error> {
    let der = CertificateDer::from_pem_slice(root.as_bytes())
        .map_err(|error| Error::Certificate(format!("{error:?}")))?;
    Ok(digest(&der))
}

/// The node that a request (PEM) for a first certificate makes: repeated, it makes the same one.
pub fn node_of(request: &str) -> NodeId {
    NodeId::from(base36::<SECRET_LENGTH>(&Sha256::digest(request)[..16]).as_str())
}

pub(crate) fn digest(root: &CertificateDer<'_>) -> String {
    base36::<DIGEST_LENGTH>(&Sha256::digest(root.as_ref()))
}

/// Writes a big-endian number with `LENGTH` digits of base 36.
pub(crate) fn base36<const LENGTH: usize>(number: &[u8]) -> String {
    let mut rest = number.to_vec();
    let mut text = [b'0'; LENGTH];
    for digit in text.iter_mut().rev() {
        let mut remainder = 0u16;
        for byte in &mut rest {
            let value = remainder * 256 + u16::from(*byte);
            *byte = u8::try_from(value / 36).unwrap_or(u8::MAX);
            remainder = value % 36;
        }
        *digit = DIGITS[usize::from(remainder)];
    }
    text.iter().map(|digit| char::from(*digit)).collect()
}

pub(crate) fn is_base36(text: &str, length: usize) -> bool {
    text.len() == length && text.bytes().all(|byte| DIGITS.contains(&byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_written_in_base_36() {
        assert_eq!(base36::<4>(&[0]), "0000");
        assert_eq!(base36::<4>(&[35]), "000z");
        assert_eq!(base36::<4>(&[1, 0]), "0074");
        // The largest numbers fit: 2^256 - 1 and 2^128 - 1.
        assert_eq!(
            base36::<DIGEST_LENGTH>(&[255; 32]),
            "6dp5qcb22im238nr3wvp0ic7q99w035jmy2iw7i6n43d37jtof"
        );
        assert_eq!(base36::<SECRET_LENGTH>(&[255; 16]), "f5lxx1zz5pnorynqglhzmsp33");
    }
}
