//! What a node keeps secret on its disk: one file, so that all of it changes at once.
//!
//! It is the PEM of the private key, followed on a manager by the keys of the log. Where managers are
//! locked, all of that is sealed by the unlock key, and is one other block of PEM.

use crate::Error;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use seal::{Key, UnlockKey};
use zeroize::Zeroizing;

const LOG_KEY: &str = "SKEP LOG KEY";
const SEALED: &str = "SKEP SEALED KEYS";
/// Sealed keys are not taken for something else.
const CONTEXT: &[u8] = b"node.key";

/// A node's secrets besides its private key.
#[derive(Clone, Debug, Default)]
pub struct Secrets {
    /// On a manager: by which its log is sealed, the newest first.
    pub log: Vec<Key>,
    /// By which all secrets are sealed on the disk; none: they are in the clear.
    pub lock: Option<UnlockKey>,
}

impl Secrets {
    /// The file, with the private key (PEM).
    pub(crate) fn render(&self, private_key: &str) -> Zeroizing<String> {
        let log: Vec<_> = self.log.iter().map(|key| block(LOG_KEY, key.bytes())).collect();
        // What grows leaves copies behind.
        let len = private_key.len() + log.iter().map(|block| block.len()).sum::<usize>();
        let mut text = Zeroizing::new(String::with_capacity(len));
        text.push_str(private_key);
        for block in &log {
            text.push_str(block);
        }
        match &self.lock {
            Some(lock) => block(SEALED, &lock.seal().seal(CONTEXT, text.as_bytes())),
            None => text,
        }
    }

    /// Reads the file; returns the private key (PEM) too. An unlock key opens it if it is locked.
    pub(crate) fn parse(
        text: &str,
        unlock: Option<&UnlockKey>,
    ) -> Result<(Zeroizing<String>, Self), Error> {
        let damaged = || Error::Certificate("its keys cannot be read".to_owned());
        let Some(sealed) = blocks(text, SEALED).next() else {
            let log = blocks(text, LOG_KEY)
                .map(|key| Some(Key::from(<[u8; 32]>::try_from(&**key?).ok()?)));
            let log = log.collect::<Option<_>>().ok_or_else(damaged)?;
            let own = text.split(&begin(LOG_KEY)).next().unwrap_or_default();
            return Ok((Zeroizing::new(own.to_owned()), Self { log, lock: None }));
        };
        let unlock = unlock.ok_or(Error::Locked)?;
        let opened = unlock.seal().open(CONTEXT, &sealed.ok_or_else(damaged)?);
        let opened = Zeroizing::new(opened.map_err(|_refused| Error::UnlockKey)?);
        let text = std::str::from_utf8(&opened).map_err(|_no_text| damaged())?;
        let (private_key, secrets) = Self::parse(text, None)?;
        Ok((private_key, Self { lock: Some(unlock.clone()), ..secrets }))
    }
}

fn begin(label: &str) -> String {
    format!("-----BEGIN {label}-----\n")
}

fn end(label: &str) -> String {
    format!("\n-----END {label}-----\n")
}

fn block(label: &str, bytes: &[u8]) -> Zeroizing<String> {
    let (begin, end) = (begin(label), end(label));
    let len = begin.len() + bytes.len().div_ceil(3) * 4 + end.len();
    let mut text = Zeroizing::new(String::with_capacity(len));
    text.push_str(&begin);
    STANDARD.encode_string(bytes, &mut text);
    text.push_str(&end);
    text
}

/// What is in the blocks of this label; none: it cannot be read.
fn blocks<'a>(
    text: &'a str,
    label: &str,
) -> impl Iterator<Item = Option<Zeroizing<Vec<u8>>>> + use<'a> {
    let end = end(label);
    let parts: Vec<&str> = text.split(&begin(label)).skip(1).collect();
    parts.into_iter().map(move |part| {
        let (coded, _) = part.split_once(&end)?;
        // With room for all, so that it does not grow either.
        let mut bytes = Zeroizing::new(Vec::with_capacity(coded.len()));
        STANDARD.decode_vec(coded, &mut bytes).ok()?;
        Some(bytes)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const PRIVATE: &str = "-----BEGIN PRIVATE KEY-----\nMIG\n-----END PRIVATE KEY-----\n";

    fn bytes(keys: &[Key]) -> Vec<[u8; 32]> {
        keys.iter().map(|key| *key.bytes()).collect()
    }

    #[test]
    fn keys_are_read_as_they_were_written_and_by_the_unlock_key_alone_where_they_are_locked() {
        for log in [vec![], vec![Key::draw()], vec![Key::draw(), Key::draw()]] {
            let clear = Secrets { log, lock: None };
            let text = clear.render(PRIVATE);
            let (own, read) = Secrets::parse(&text, None).unwrap();
            assert_eq!((own.as_str(), bytes(&read.log)), (PRIVATE, bytes(&clear.log)));
            let (lock, wrong) = (UnlockKey::draw(), UnlockKey::draw());
            let locked = Secrets { lock: Some(lock.clone()), ..clear };
            let text = locked.render(PRIVATE);
            assert!(!text.contains("MIG") && !text.contains(LOG_KEY));
            assert!(matches!(Secrets::parse(&text, None), Err(Error::Locked)));
            assert!(matches!(Secrets::parse(&text, Some(&wrong)), Err(Error::UnlockKey)));
            let (own, read) = Secrets::parse(&text, Some(&lock)).unwrap();
            assert_eq!((own.as_str(), bytes(&read.log)), (PRIVATE, bytes(&locked.log)));
            assert_eq!(read.lock, Some(lock));
        }
    }

    #[test]
    fn what_a_former_release_wrote_is_the_private_key_alone() {
        let (own, secrets) = Secrets::parse(PRIVATE, None).unwrap();
        assert_eq!((own.as_str(), secrets.log.len(), secrets.lock), (PRIVATE, 0, None));
        let damaged = format!("{PRIVATE}{}x{}", begin(LOG_KEY), end(LOG_KEY));
        assert!(Secrets::parse(&damaged, None).is_err());
    }
}
