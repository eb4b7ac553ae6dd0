//! A node's identity on disk: `node.crt`, `node.key`, `root.crt`.

use crate::{Error, Secrets};
use seal::UnlockKey;
use std::fs::{DirBuilder, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::Path;
use zeroize::Zeroizing;

const CERTIFICATE: &str = "node.crt";
const KEY: &str = "node.key";
const ROOT: &str = "root.crt";

/// All PEM.
pub(crate) struct Files {
    /// The certificate with what stands between it and a root.
    pub(crate) certificate: String,
    /// One of them is the certificate's: a renewal writes its key beside the one before, then the
    /// certificate, and then the key alone. A crash in between leaves one that fits.
    pub(crate) keys: Vec<Zeroizing<String>>,
    pub(crate) roots: String,
}

impl Files {
    /// The certificate is written last: without it there is no identity.
    pub(crate) fn read(
        folder: &Path,
        unlock: Option<&UnlockKey>,
    ) -> Result<Option<(Self, Secrets)>, Error> {
        let read = |name: &str| {
            let path = folder.join(name);
            match std::fs::read_to_string(&path) {
                Ok(text) => Ok(Some(text)),
                Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
                Err(source) => Err(Error::File { path, source }),
            }
        };
        let Some(certificate) = read(CERTIFICATE)? else {
            return Ok(None);
        };
        let needed = |name: &str| {
            read(name)?.ok_or_else(|| Error::File {
                path: folder.join(name),
                source: io::Error::new(io::ErrorKind::NotFound, "it is missing"),
            })
        };
        let (own, secrets) = Secrets::parse(&Zeroizing::new(needed(KEY)?), unlock)?;
        Ok(Some((Self { certificate, keys: keys(&own), roots: needed(ROOT)? }, secrets)))
    }

    /// Writes all, in the place of what was written with the `old` secrets.
    pub(crate) fn write(&self, folder: &Path, old: &Secrets, new: &Secrets) -> Result<(), Error> {
        let written = self.try_write(folder, old, new);
        written.map_err(|source| Error::File { path: folder.to_owned(), source })
    }

    fn try_write(&self, folder: &Path, old: &Secrets, new: &Secrets) -> io::Result<()> {
        DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
        std::fs::set_permissions(folder, Permissions::from_mode(0o700))?;
        let put = |name: &str, text: &str| host::replace(&folder.join(name), text, 0o600);
        let key = concat(&self.keys);
        let text = Zeroizing::new(std::fs::read_to_string(folder.join(KEY)).unwrap_or_default());
        let before = Secrets::parse(&text, old.lock.as_ref());
        let mut before = before.map(|(own, _)| own).unwrap_or_default();
        if before == key {
            before.clear();
        }
        put(ROOT, &self.roots)?;
        put(KEY, &new.render(&concat(&[key.clone(), before.clone()])))?;
        put(CERTIFICATE, &self.certificate)?;
        if before.is_empty() { Ok(()) } else { put(KEY, &new.render(&key)) }
    }
}

/// The keys of a text, one after the other.
fn keys(text: &str) -> Vec<Zeroizing<String>> {
    let end = "-----END PRIVATE KEY-----";
    let keys = text.split_inclusive(end).filter(|key| key.contains(end));
    keys.map(|key| Zeroizing::new(format!("{}\n", key.trim()))).collect()
}

/// One behind the other, in memory that never moves.
fn concat(texts: &[Zeroizing<String>]) -> Zeroizing<String> {
    let len = texts.iter().map(|text| text.len()).sum();
    let mut all = Zeroizing::new(String::with_capacity(len));
    for text in texts {
        all.push_str(text);
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use zeroize::ZeroizeOnDrop;

    fn overwritten<T: ZeroizeOnDrop>(_: &T) {}

    #[test]
    fn keys_are_found_one_by_one_and_overwritten() {
        let key = |text: &str| {
            format!("-----BEGIN PRIVATE KEY-----\n{text}\n-----END PRIVATE KEY-----\n")
        };
        let found = keys(&[key("MIG"), key("MIH"), "more".to_owned()].concat());
        assert_eq!(*concat(&found), [key("MIG"), key("MIH")].concat());
        found.iter().for_each(overwritten);
        overwritten(&concat(&found));
    }
}
