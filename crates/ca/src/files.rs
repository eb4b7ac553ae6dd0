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
    pub(crate) certificate: String,
    pub(crate) key: String,
    pub(crate) root: String,
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
        Ok(Some(Self { certificate, key: needed(KEY)?, root: needed(ROOT)? }))
    }

    pub(crate) fn write(&self, folder: &Path) -> Result<(), Error> {
        self.try_write(folder).map_err(|source| Error::File { path: folder.to_owned(), source })
    }

    fn try_write(&self, folder: &Path) -> io::Result<()> {
        DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
        std::fs::set_permissions(folder, Permissions::from_mode(0o700))?;
        let same_key = std::fs::read_to_string(folder.join(KEY)).is_ok_and(|key| key == self.key);
        if !same_key {
            // An old certificate beside a new key would be worse than none.
            match std::fs::remove_file(folder.join(CERTIFICATE)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                Ok(()) | Err(_) => {}
            }
        }
        for (name, text) in [(ROOT, &self.root), (KEY, &self.key), (CERTIFICATE, &self.certificate)]
        {
            host::replace(&folder.join(name), text, 0o600)?;
        }
        Ok(())
    }
}
