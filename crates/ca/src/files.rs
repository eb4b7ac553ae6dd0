//! A node's identity on disk: `node.crt`, `node.key`, `root.crt`.

use crate::Error;
use std::fs::{DirBuilder, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::Path;

const CERTIFICATE: &str = "node.crt";
const KEY: &str = "node.key";
const ROOT: &str = "root.crt";

/// All PEM.
pub(crate) struct Files {
    /// The certificate with what stands between it and a root.
    pub(crate) certificate: String,
    /// One of them is the certificate's: a renewal writes its key beside the one before, then the
    /// certificate, and then the key alone. A crash in between leaves one that fits.
    pub(crate) keys: Vec<String>,
    pub(crate) roots: String,
}

impl Files {
    /// The certificate is written last: without it there is no identity.
    pub(crate) fn read(folder: &Path) -> Result<Option<Self>, Error> {
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
        Ok(Some(Self { certificate, keys: keys(&needed(KEY)?), roots: needed(ROOT)? }))
    }

    pub(crate) fn write(&self, folder: &Path) -> Result<(), Error> {
        self.try_write(folder).map_err(|source| Error::File { path: folder.to_owned(), source })
    }

    fn try_write(&self, folder: &Path) -> io::Result<()> {
        DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
        std::fs::set_permissions(folder, Permissions::from_mode(0o700))?;
        let put = |name: &str, text: &str| host::replace(&folder.join(name), text, 0o600);
        let key = self.keys.concat();
        let before = std::fs::read_to_string(folder.join(KEY)).unwrap_or_default();
        put(ROOT, &self.roots)?;
        if before != key {
            put(KEY, &[key.as_str(), &before].concat())?;
        }
        put(CERTIFICATE, &self.certificate)?;
        if before.is_empty() || before == key { Ok(()) } else { put(KEY, &key) }
    }
}

/// The keys of a text, one after the other.
fn keys(text: &str) -> Vec<String> {
    let end = "-----END PRIVATE KEY-----";
    let keys = text.split_inclusive(end).filter(|key| key.contains(end));
    keys.map(|key| format!("{}\n", key.trim())).collect()
}
