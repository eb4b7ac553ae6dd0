//! The Container Device Interface: files in which vendors say what a container needs that is to have
//! one of their devices. (<https://github.com/cncf-tags/container-device-interface>)
//!
//! They are read anew for each container that asks for such a device: they change with drivers.

mod edits;
mod names;
#[cfg(test)]
mod tests;

pub(crate) use names::names;

use edits::Edits;
use serde::Deserialize;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use types::Fault;

/// A file of a vendor. What is not known may matter, so such a file is not used.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
struct File {
    #[serde(rename = "cdiVersion")]
    _version: String,
    /// `VENDOR/CLASS`
    kind: String,
    #[serde(rename = "annotations")]
    _annotations: BTreeMap<String, String>,
    devices: Vec<FileDevice>,
    container_edits: Edits,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
struct FileDevice {
    name: String,
    #[serde(rename = "annotations")]
    _annotations: BTreeMap<String, String>,
    container_edits: Edits,
}

/// The devices that the files of some folders know.
#[derive(Debug, Default)]
pub(crate) struct Registry {
    files: Vec<File>,
    /// By `VENDOR/CLASS=NAME`: the file and its device. `None`: two files of a folder have one.
    devices: BTreeMap<String, Option<(usize, usize)>>,
    /// Files that cannot be used, and why.
    unusable: Vec<String>,
}

impl Registry {
    /// Reads the files of these folders; later folders go first. It blocks.
    pub(crate) fn read(folders: &[PathBuf]) -> Self {
        let mut registry = Self::default();
        for folder in folders {
            let mut here = BTreeSet::new();
            for path in files_in(folder) {
                match read_file(&path) {
                    Ok(file) => registry.add(file, &mut here),
                    Err(why) => registry.unusable.push(format!("{}: {why}", path.display())),
                }
            }
        }
        registry
    }

    /// `here`: what other files of its folder have.
    fn add(&mut self, file: File, here: &mut BTreeSet<String>) {
        let index = self.files.len();
        for (number, device) in file.devices.iter().enumerate() {
            let name = format!("{}={}", file.kind, device.name);
            let is_first = here.insert(name.clone());
            self.devices.insert(name, is_first.then_some((index, number)));
        }
        self.files.push(file);
    }

    /// The names of all devices of a kind, without the kind.
    fn of_kind<'a>(&'a self, kind: &'a str) -> impl Iterator<Item = &'a str> {
        let names = self.devices.iter().filter(|(_, place)| place.is_some());
        names.filter_map(move |(name, _)| name.strip_prefix(kind)?.strip_prefix('='))
    }

    /// Gives a container these devices: writes what they need into its OCI specification.
    pub(crate) fn inject(&self, names: &[String], spec: &mut Value) -> Result<(), Fault> {
        let mut missing = Vec::new();
        let (mut edits, mut whole) = (Vec::new(), BTreeSet::new());
        for name in names {
            match self.devices.get(name) {
                Some(Some((file, device))) => {
                    let file_index = *file;
                    let file = &self.files[file_index];
                    if whole.insert(file_index) {
                        edits.push(&file.container_edits);
                    }
                    edits.push(&file.devices[*device].container_edits);
                }
                Some(None) | None => missing.push(name.as_str()),
            }
        }
        if !missing.is_empty() {
            let mut text = format!("unresolvable CDI devices {}", missing.join(", "));
            if !self.unusable.is_empty() {
                text = format!("{text} (not used: {})", self.unusable.join("; "));
            }
            return Err(failed(text));
        }
        edits.into_iter().try_for_each(|edits| edits.apply(spec).map_err(failed))?;
        edits::sort_mounts(spec);
        Ok(())
    }
}

fn failed(why: impl std::fmt::Display) -> Fault {
    Fault::invalid(format!("CDI device injection failed: {why}"))
}

/// The files that may be of this kind, in the order of their names. A folder need not be there.
fn files_in(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let is_one = |path: &PathBuf| {
        path.extension().is_some_and(|kind| kind == "json" || kind == "yaml" || kind == "yml")
    };
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.path()).filter(is_one).collect();
    files.sort();
    files
}

/// Bytes of a file that are read at most.
const FILE_MAX: u64 = 8 << 20;

fn read_file(path: &Path) -> Result<File, String> {
    let size = std::fs::metadata(path).map_err(|error| error.to_string())?.len();
    if FILE_MAX < size {
        return Err(format!("it has {size} bytes, which is too much"));
    }
    let text = std::fs::read_to_string(path).map_err(|error| error.to_string())?;
    let is_json = path.extension().is_some_and(|kind| kind == "json");
    let file: File = if is_json {
        serde_json::from_str(&text).map_err(|error| error.to_string())?
    } else {
        serde_saphyr::from_str(&text).map_err(|error| error.to_string())?
    };
    let wrong = file
        .devices
        .iter()
        .find(|device| !types::is_cdi_name(&format!("{}={}", file.kind, device.name)));
    match wrong {
        Some(device) => Err(format!("{}={} is no name of a device", file.kind, device.name)),
        None => Ok(file),
    }
}
