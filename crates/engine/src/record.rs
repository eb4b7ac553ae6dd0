//! What is written down of a container, so that it is known after a restart.

use crate::config::ContainerConfig;
use crate::info::{ContainerState, MountPoint};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use types::Timestamp;

const FILE: &str = "record.json";

/// A container, whole.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Record {
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) created: Timestamp,
    /// The image's id.
    pub(crate) image: String,
    /// The image's configuration: the image may lose its name or go while the container is here.
    pub(crate) image_config: Value,
    pub(crate) config: ContainerConfig,
    pub(crate) mounts: Vec<MountPoint>,
    pub(crate) state: ContainerState,
}

/// Reads the record in a container's folder.
pub(crate) fn read(folder: &Path) -> io::Result<Record> {
    let text = fs::read(folder.join(FILE))?;
    serde_json::from_slice(&text).map_err(io::Error::other)
}

/// Writes the record of a container, or leaves the old one as it is. It is root's alone: passwords
/// may be in it.
pub(crate) fn write(folder: &Path, record: &Record) -> io::Result<()> {
    let text = serde_json::to_vec(record).map_err(io::Error::other)?;
    host::replace(&folder.join(FILE), text, 0o600)
}

/// Makes a folder that only root looks into, also where it is there with another mode.
pub(crate) fn private_folder(path: &Path) -> io::Result<()> {
    fs::create_dir_all(path)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o700))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_read_as_it_was_written() {
        let dir = tempfile::tempdir().unwrap();
        let record = Record { id: "a".repeat(64), name: "web".to_owned(), ..Record::default() };
        write(dir.path(), &record).unwrap();
        write(dir.path(), &record).unwrap();
        assert_eq!(read(dir.path()).unwrap(), record);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
        let mode = fs::metadata(dir.path().join(FILE)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }
}
