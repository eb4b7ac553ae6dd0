//! Stored bytes, for tests: what each format of this program wrote to disks and sent to others,
//! kept in the repository and read for ever.
//!
//! A crate that writes bytes has a folder `tests/stored` with one folder for each format. That of
//! the [`PRESENT`] format holds what [`samples`] are written as today: a test that finds other bytes
//! fails, so no format changes unnoticed. The folders of former formats are never written again;
//! beside each of their files stands, as text, what this version reads of it: a field that gets
//! lost is seen there. A new field of what managers store that must not be lost where a manager of the
//! release before writes the object again has its format in `store::since`.
//!
//! The format changed, and no release has the present one yet: `UPDATE=1` before the test writes its
//! folder anew. A release has it: name the next format in [`PRESENT`] first, and let
//! `UPDATE_EXPECT=1` write the texts of the one that has become a former one.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

pub mod samples;
mod text;

pub use text::render;

use serde::Serialize;
use serde::de::DeserializeOwned;
use sha2::{Digest, Sha256};
use std::collections::BTreeSet;
use std::fmt::{Debug, Write};
use std::fs;
use std::path::{Path, PathBuf};

/// The format that this version writes.
pub const PRESENT: &str = "0.1.0-format2";

/// The stored bytes of one crate.
#[derive(Debug)]
pub struct Stored {
    folder: PathBuf,
    /// Names of files that were looked at.
    seen: BTreeSet<String>,
}

impl Stored {
    /// Those of the crate in this folder: `env!("CARGO_MANIFEST_DIR")`.
    pub fn of(crate_folder: &str) -> Self {
        Self { folder: Path::new(crate_folder).join("tests/stored"), seen: BTreeSet::new() }
    }

    /// Holds a message, written as MessagePack with names, to its stored bytes of every format.
    #[expect(clippy::needless_pass_by_value, reason = "reads better where it is called")]
    pub fn message<T>(&mut self, name: &str, sample: T)
    where
        T: Serialize + DeserializeOwned + PartialEq + Debug,
    {
        let bytes = msgpack::encode(&sample).unwrap();
        assert_eq!(msgpack::decode::<T>(&bytes).unwrap(), sample);
        self.present(name, &bytes);
        for (format, bytes) in self.former(name) {
            let read: T = msgpack::decode(&bytes)
                .unwrap_or_else(|error| panic!("{format}/{name} is not read any more: {error}"));
            self.reads(&format, name, &text(&read));
        }
    }

    /// Holds what is written today to the stored bytes of the present format.
    pub fn present(&mut self, name: &str, bytes: &[u8]) {
        self.seen.insert(name.to_owned());
        let folder = self.folder.join(PRESENT);
        let path = folder.join(name);
        if std::env::var_os("UPDATE").is_some() {
            fs::create_dir_all(&folder).unwrap();
            fs::write(&path, bytes).unwrap();
        }
        let stored = fs::read(&path).unwrap_or_default();
        assert!(
            stored == bytes,
            "{} is not what is written today: see the head of crate `stored`",
            path.display()
        );
    }

    /// The bytes of this name that former formats have, each with its format.
    pub fn former(&mut self, name: &str) -> Vec<(String, Vec<u8>)> {
        self.seen.insert(name.to_owned());
        let stored = |format: String| {
            let bytes = fs::read(self.folder.join(&format).join(name)).ok()?;
            Some((format, bytes))
        };
        self.former_formats().into_iter().filter_map(stored).collect()
    }

    /// Holds what is read of former bytes to the text beside them.
    pub fn reads(&self, format: &str, name: &str, text: &str) {
        let path = self.folder.join(format).join(name).with_extension("txt");
        expect_test::expect_file![path].assert_eq(text);
    }

    /// Says that all is looked at. `digests` are those of the former formats: their bytes are as
    /// they were when they were released, and a test has read each of them.
    pub fn finish(self, digests: &[(&str, &str)]) {
        let mut found = Vec::new();
        for format in self.former_formats() {
            let mut hash = Sha256::new();
            for name in self.names(&format) {
                assert!(self.seen.contains(&name), "nobody reads {format}/{name}");
                hash.update(&name);
                hash.update(fs::read(self.folder.join(&format).join(name)).unwrap());
            }
            let digest = hash.finalize().iter().take(8).fold(String::new(), |mut text, byte| {
                write!(text, "{byte:02x}").unwrap();
                text
            });
            found.push((format, digest));
        }
        let found: Vec<_> =
            found.iter().map(|(format, digest)| (format.as_str(), digest.as_str())).collect();
        assert_eq!(found, digests, "stored bytes of a former format are never written again");
        let unseen: Vec<_> =
            self.names(PRESENT).into_iter().filter(|name| !self.seen.contains(name)).collect();
        assert!(unseen.is_empty(), "nobody writes {unseen:?}");
    }

    fn former_formats(&self) -> Vec<String> {
        let mut formats = names(&self.folder);
        formats.retain(|format| self.folder.join(format).is_dir() && format != PRESENT);
        formats
    }

    /// The files of a format, without the texts beside them.
    fn names(&self, format: &str) -> Vec<String> {
        let mut names = names(&self.folder.join(format));
        names.retain(|name| Path::new(name).extension().is_none_or(|kind| kind != "txt"));
        names
    }
}

fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).unwrap();
    let mut names: Vec<_> =
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// A value as text that a person can read: what MessagePack says of it.
pub fn text<T: Serialize>(value: &T) -> String {
    render(&msgpack::encode(value).unwrap()) + "\n"
}
