//! Join tokens: `SWMTKN-1-<digest of the root>-<secret>`.

use crate::Error;
use crate::digest::{DIGEST_LENGTH, SECRET_LENGTH, base36, is_base36, root_digest};
use std::fmt;
use types::RootCa;

const PREFIX: &str = "SWMTKN";
const VERSION: &str = "1";

/// What lets a machine join: it says which cluster to trust and proves that the user may.
#[derive(Clone)]
pub struct JoinToken {
    digest: String,
    secret: String,
}

// The secret must not reach a log.
impl fmt::Debug for JoinToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JoinToken(…)")
    }
}

impl JoinToken {
    /// Draws a new token for the cluster of this root.
    pub fn draw(root: &RootCa) -> Result<Self, Error> {
        let mut secret = [0; 16];
        let random = ring::rand::SystemRandom::new();
        ring::rand::SecureRandom::fill(&random, &mut secret)
            .map_err(|_unspecified| Error::Randomness)?;
        let digest = root_digest(&root.certificate)?;
        Ok(Self { digest, secret: base36::<SECRET_LENGTH>(&secret) })
    }

    /// Reads a token as a user gives it.
    pub fn parse(text: &str) -> Result<Self, Error> {
        let parts: Vec<&str> = text.trim().split('-').collect();
        let [PREFIX, VERSION, digest, secret] = parts[..] else {
            return Err(Error::Token);
        };
        if !is_base36(digest, DIGEST_LENGTH) || !is_base36(secret, SECRET_LENGTH) {
            return Err(Error::Token);
        }
        Ok(Self { digest: digest.to_owned(), secret: secret.to_owned() })
    }

    /// The token as a user sees it.
    pub fn render(&self) -> String {
        format!("{PREFIX}-{VERSION}-{}-{}", self.digest, self.secret)
    }

    /// The digest of the root to trust.
    pub fn digest(&self) -> &str {
        &self.digest
    }

    /// Says whether both are the same token, in a time that tells nothing of where they differ.
    pub fn matches(&self, other: &Self) -> bool {
        let (one, two) = (self.render(), other.render());
        let same_length = one.len() == two.len();
        let differences =
            one.bytes().zip(two.bytes()).fold(0, |sum, (a, b)| std::hint::black_box(sum | (a ^ b)));
        same_length && differences == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Authority;
    use types::Timestamp;

    #[test]
    fn a_token_is_read_as_it_was_written() {
        let root = Authority::create(Timestamp(0)).unwrap();
        let token = JoinToken::draw(&root).unwrap();
        let text = token.render();
        let read = JoinToken::parse(&format!(" {text}\n")).unwrap();
        assert!(read.matches(&token));
        assert_eq!(read.render(), text);
        assert_eq!(read.digest(), root_digest(&root.certificate).unwrap());
        assert!(!JoinToken::draw(&root).unwrap().matches(&token));
    }

    #[test]
    fn what_is_no_token_is_refused() {
        let (digest, secret) = ("0".repeat(50), "1".repeat(25));
        assert!(JoinToken::parse(&format!("SWMTKN-1-{digest}-{secret}")).is_ok());
        for text in [
            String::new(),
            "SWMTKN".to_owned(),
            format!("SWMTKN-2-{digest}-{secret}"),
            format!("swmtkn-1-{digest}-{secret}"),
            format!("SWMTKN-1-{digest}"),
            format!("SWMTKN-1-{digest}-{secret}-{secret}"),
            format!("SWMTKN-1-{digest}0-{secret}"),
            format!("SWMTKN-1-{digest}-{}", "A".repeat(25)),
            format!("SWMTKN-1-{}-{secret}", "ä".repeat(25)),
        ] {
            let error = JoinToken::parse(&text).unwrap_err();
            assert_eq!(error.to_string(), "invalid join token", "{text}");
        }
    }
}
