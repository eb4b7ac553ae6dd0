//! Image archives: what `docker save` wrote in its old and new forms, and OCI layouts.
//!
//! An archive comes as a stream and may hold its table of contents after the blobs, so it is put
//! into a temporary file first. Blobs are then read from there, and never held in memory.

use crate::counted;
use crate::error::Error;
use crate::oci::{self, Descriptor, Index, Manifest};
use crate::spool::{
    Compression, Part, blocking, check_headers, compression, digest_of, read_at, reader,
};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Seek, SeekFrom};
use std::path::Path;
use std::sync::Arc;

/// Manifests and configurations are read into memory.
const DOCUMENT_MAX: u64 = 8 << 20;
/// Of all images of an archive together.
const DOCUMENTS_MAX: usize = 64 << 20;
/// Bytes of the names in an archive, and of what its links lead to: those are kept.
const NAMES_MAX: usize = 64 << 20;
/// Bytes of one of them, as the kernel has it.
const NAME_MAX: usize = 4096;
/// Links in an archive that lead to links.
const LINKS_MAX: usize = 8;
/// Nested indexes in a layout.
const DEPTH_MAX: usize = 4;
const NAME_ANNOTATION: &str = "io.containerd.image.name";
const TAG_ANNOTATION: &str = "org.opencontainers.image.ref.name";

/// An image as it was found in an archive.
#[derive(Debug)]
pub(crate) struct Found {
    pub(crate) manifest: Vec<u8>,
    pub(crate) manifest_type: String,
    pub(crate) config: Vec<u8>,
    pub(crate) layers: Vec<Layer>,
    /// As they stand in the archive, e.g. `nginx:latest`.
    pub(crate) names: Vec<String>,
}

#[derive(Clone, Debug)]
pub(crate) struct Layer {
    pub(crate) descriptor: Descriptor,
    pub(crate) part: Part,
}

#[derive(Debug)]
enum Entry {
    File(Part),
    Link(String),
}

/// An archive in a temporary file without a name, which is gone when this is dropped.
#[derive(Clone, Debug)]
pub(crate) struct Archive {
    file: Arc<File>,
    entries: Arc<BTreeMap<String, Entry>>,
}

/// An entry of `manifest.json`.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Saved {
    config: String,
    repo_tags: Option<Vec<String>>,
    #[serde(deserialize_with = "counted::layers")]
    layers: Vec<String>,
}

/// All of `manifest.json`.
#[derive(Debug, Deserialize)]
#[serde(transparent)]
struct AllSaved {
    #[serde(deserialize_with = "counted::images")]
    images: Vec<Saved>,
}

impl Archive {
    /// Reads the table of contents of a spooled archive.
    pub(crate) async fn open(file: File) -> Result<Self, Error> {
        blocking(move || {
            let entries = list(&file, NAMES_MAX)?;
            Ok(Self { file: Arc::new(file), entries: Arc::new(entries) })
        })
        .await
    }

    /// Finds the images for this machine.
    pub(crate) async fn images(&self) -> Result<Vec<Found>, Error> {
        let archive = self.clone();
        blocking(move || {
            let images = if archive.entries.contains_key("manifest.json") {
                archive.saved()?
            } else if archive.entries.contains_key("index.json") {
                archive.layout()?
            } else {
                let reason = "it has neither a manifest.json nor an index.json";
                return Err(Error::Archive(reason.to_owned()));
            };
            if images.is_empty() {
                let reason = format!("it has no image for linux/{}", oci::architecture());
                return Err(Error::Archive(reason));
            }
            Ok(images)
        })
        .await
    }

    /// Opens a part for reading, at its start.
    pub(crate) fn reader(&self, part: Part) -> Result<tokio::fs::File, Error> {
        reader(&self.file, part)
    }

    fn saved(&self) -> Result<Vec<Found>, Error> {
        let AllSaved { images: saved } = self.json("manifest.json")?;
        // Images share layers: each is digested once.
        let mut digests = BTreeMap::new();
        bounded(saved.iter().map(|image| self.saved_image(image, &mut digests).map(Some)))
    }

    /// Makes a manifest for an image of `docker save`: the same image gets the same one again.
    fn saved_image(
        &self,
        image: &Saved,
        digests: &mut BTreeMap<u64, String>,
    ) -> Result<Found, Error> {
        let config = self.document(&image.config)?;
        let parsed: oci::Config = serde_json::from_slice(&config)
            .map_err(|source| Error::json(image.config.as_str(), source))?;
        let (layers, diffs) = (image.layers.len(), parsed.rootfs.diff_ids.len());
        if layers != diffs {
            let reason = format!("{} has {layers} layers but names {diffs}", image.config);
            return Err(Error::Archive(reason));
        }
        let layers: Result<Vec<Layer>, Error> =
            image.layers.iter().map(|path| self.layer(path, digests)).collect();
        let layers = layers?;
        let manifest = Manifest {
            schema_version: 2,
            media_type: oci::MANIFEST.to_owned(),
            config: Descriptor::new(oci::CONFIG, &config),
            layers: layers.iter().map(|layer| layer.descriptor.clone()).collect(),
        };
        let manifest = serde_json::to_vec(&manifest);
        Ok(Found {
            manifest: manifest.map_err(|source| Error::json("the manifest", source))?,
            manifest_type: oci::MANIFEST.to_owned(),
            config,
            layers,
            names: image.repo_tags.clone().unwrap_or_default(),
        })
    }

    fn layer(&self, path: &str, digests: &mut BTreeMap<u64, String>) -> Result<Layer, Error> {
        let part = self.find(path)?;
        let mut head = [0; 4];
        let length = usize::try_from(part.size.min(4)).unwrap_or(4);
        read_at(&self.file, &mut head[..length], part.offset)?;
        let media_type = match compression(&head) {
            Compression::None => oci::LAYER,
            Compression::Gzip => oci::LAYER_GZIP,
            Compression::Zstd => oci::LAYER_ZSTD,
        };
        // The name says what the blob should be; whether it is, containerd finds out.
        let named = path.strip_prefix("blobs/sha256/").map(|hash| format!("sha256:{hash}"));
        let digest = match named.filter(|digest| oci::is_digest(digest)) {
            Some(digest) => digest,
            None if digests.contains_key(&part.offset) => digests[&part.offset].clone(),
            None => {
                let digest = digest_of(&self.file, part)?;
                digests.insert(part.offset, digest.clone());
                digest
            }
        };
        let media_type = media_type.to_owned();
        let descriptor = Descriptor { media_type, digest, size: part.size, ..Default::default() };
        Ok(Layer { descriptor, part })
    }

    fn layout(&self) -> Result<Vec<Found>, Error> {
        let index: Index = self.json("index.json")?;
        bounded(index.manifests.iter().map(|descriptor| {
            let Some(manifest) = self.follow(descriptor)? else { return Ok(None) };
            let mut image = self.layout_image(&manifest)?;
            image.names = name_of(descriptor).into_iter().collect();
            Ok(Some(image))
        }))
    }

    /// Follows an index to the manifest for this machine.
    fn follow(&self, descriptor: &Descriptor) -> Result<Option<Descriptor>, Error> {
        let mut descriptor = descriptor.clone();
        for _ in 0..DEPTH_MAX {
            if descriptor.media_type != oci::INDEX && descriptor.media_type != oci::DOCKER_LIST {
                return Ok(Some(descriptor));
            }
            let index: Index = self.json(&blob_path(&descriptor.digest)?)?;
            match oci::pick(&index.manifests) {
                Some(fitting) => descriptor = fitting.clone(),
                None => return Ok(None),
            }
        }
        Err(Error::Archive("its indexes are nested too deeply".to_owned()))
    }

    fn layout_image(&self, descriptor: &Descriptor) -> Result<Found, Error> {
        let content = self.blob(&descriptor.digest)?;
        let manifest: Manifest = serde_json::from_slice(&content)
            .map_err(|source| Error::json(descriptor.digest.as_str(), source))?;
        let config = self.blob(&manifest.config.digest)?;
        let mut layers = Vec::new();
        for layer in &manifest.layers {
            let part = self.find(&blob_path(&layer.digest)?)?;
            if part.size != layer.size {
                let reason = format!("it has {} bytes, not {}", part.size, layer.size);
                return Err(Error::Digest { expected: layer.digest.clone(), reason });
            }
            layers.push(Layer { descriptor: layer.clone(), part });
        }
        let manifest_type = descriptor.media_type.clone();
        Ok(Found { manifest: content, manifest_type, config, layers, names: Vec::new() })
    }

    fn blob(&self, digest: &str) -> Result<Vec<u8>, Error> {
        let content = self.document(&blob_path(digest)?)?;
        let found = oci::sha256(&content);
        if found == digest {
            return Ok(content);
        }
        Err(Error::Digest { expected: digest.to_owned(), reason: format!("found {found}") })
    }

    fn json<T: DeserializeOwned>(&self, path: &str) -> Result<T, Error> {
        let content = self.document(path)?;
        serde_json::from_slice(&content).map_err(|source| Error::json(path, source))
    }

    fn document(&self, path: &str) -> Result<Vec<u8>, Error> {
        let part = self.find(path)?;
        if DOCUMENT_MAX < part.size {
            return Err(Error::Archive(format!("{path} is too large")));
        }
        let mut content = vec![0; usize::try_from(part.size).unwrap_or(0)];
        read_at(&self.file, &mut content, part.offset)?;
        Ok(content)
    }

    /// Finds a file, over links: `docker save` before 1.10 wrote a layer once and linked to it.
    fn find(&self, path: &str) -> Result<Part, Error> {
        let missing = || Error::Archive(format!("{path} is missing"));
        let mut name = tidy(Path::new(path)).ok_or_else(missing)?;
        for _ in 0..LINKS_MAX {
            match self.entries.get(&name).ok_or_else(missing)? {
                Entry::File(part) => return Ok(*part),
                Entry::Link(target) => name.clone_from(target),
            }
        }
        Err(missing())
    }
}

/// Collects images as long as their documents do not take too much memory.
fn bounded(
    images: impl Iterator<Item = Result<Option<Found>, Error>>,
) -> Result<Vec<Found>, Error> {
    let (mut found, mut bytes) = (Vec::new(), 0);
    for image in images {
        let Some(image) = image? else { continue };
        bytes += image.manifest.len() + image.config.len();
        check_count(bytes, DOCUMENTS_MAX, "bytes of manifests and configurations")?;
        found.push(image);
    }
    Ok(found)
}

fn check_count(count: usize, most: usize, what: &str) -> Result<(), Error> {
    if count <= most {
        return Ok(());
    }
    Err(Error::Archive(format!("it has more than {most} {what}")))
}

fn list(file: &File, names_max: usize) -> Result<BTreeMap<String, Entry>, Error> {
    check_headers(file)?;
    let broken = |source: io::Error| Error::Archive(format!("it is no tar archive: {source}"));
    let mut file = file;
    file.seek(SeekFrom::Start(0)).map_err(broken)?;
    let mut archive = tar::Archive::new(file);
    let mut entries = BTreeMap::new();
    let mut bytes = 0;
    let mut keep = |name: &str| {
        bytes += name.len();
        check_count(bytes, names_max, "bytes of names")
    };
    for entry in archive.entries_with_seek().map_err(broken)? {
        let entry = entry.map_err(broken)?;
        if NAME_MAX < entry.path_bytes().len().max(entry.link_name_bytes().map_or(0, |it| it.len()))
        {
            return Err(Error::Archive("a name in it is too long".to_owned()));
        }
        let path = entry.path().map_err(broken)?.into_owned();
        let Some(name) = tidy(&path) else { continue };
        let kind = entry.header().entry_type();
        if kind.is_file() {
            let part = Part { offset: entry.raw_file_position(), size: entry.size() };
            keep(&name)?;
            entries.insert(name, Entry::File(part));
        } else if kind.is_symlink() || kind.is_hard_link() {
            let Some(target) = entry.link_name().map_err(broken)? else { continue };
            let from = if kind.is_symlink() { path.parent() } else { None };
            let target = from.unwrap_or_else(|| Path::new("")).join(target);
            if let Some(target) = tidy(&target) {
                keep(&name)?;
                keep(&target)?;
                entries.insert(name, Entry::Link(target));
            }
        }
    }
    Ok(entries)
}

/// Removes `.` and resolves `..`; a path that leaves the archive is nothing.
fn tidy(path: &Path) -> Option<String> {
    let mut parts: Vec<&str> = Vec::new();
    for component in path.components() {
        match component {
            std::path::Component::Normal(part) => parts.push(part.to_str()?),
            std::path::Component::ParentDir => drop(parts.pop()?),
            std::path::Component::CurDir | std::path::Component::RootDir => {}
            std::path::Component::Prefix(_) => return None,
        }
    }
    Some(parts.join("/"))
}

fn blob_path(digest: &str) -> Result<String, Error> {
    let hash = digest.strip_prefix("sha256:").filter(|_| oci::is_digest(digest));
    let invalid = || Error::Archive(format!("{digest:?} is no sha256 digest"));
    Ok(format!("blobs/sha256/{}", hash.ok_or_else(invalid)?))
}

fn name_of(descriptor: &Descriptor) -> Option<String> {
    let annotation = |name| descriptor.annotations.get(name);
    let full = |name: &&String| name.contains([':', '/']);
    annotation(NAME_ANNOTATION).or(annotation(TAG_ANNOTATION).filter(full)).cloned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spool::spool;

    #[test]
    fn a_path_cannot_leave_the_archive() {
        assert_eq!(tidy(Path::new("./a/../b")), Some("b".to_owned()));
        assert_eq!(tidy(Path::new("a/../../b")), None);
    }

    fn tar_of(files: &[(&str, &[u8])]) -> Vec<u8> {
        let mut tar = tar::Builder::new(Vec::new());
        for (path, content) in files {
            let mut header = tar::Header::new_gnu();
            header.set_size(content.len() as u64);
            header.set_mode(0o644);
            tar.append_data(&mut header, path, *content).unwrap();
        }
        tar.into_inner().unwrap()
    }

    async fn open(content: &[u8]) -> Result<Vec<Found>, Error> {
        let directory = tempfile::tempdir().unwrap();
        let file = spool(content, directory.path()).await?;
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0, "left a file");
        Archive::open(file).await?.images().await
    }

    #[tokio::test]
    async fn a_layer_of_an_old_archive_is_found_by_its_link_and_gets_a_digest() {
        let layer = tar_of(&[("hello", b"hello\n")]);
        let config = format!(
            r#"{{"os":"linux","rootfs":{{"type":"layers","diff_ids":["{0}","{0}"]}}}}"#,
            oci::sha256(&layer)
        );
        let manifest = r#"[{"Config":"c.json","RepoTags":["old:1"],"Layers":["one/layer.tar","two/layer.tar"]}]"#;
        let mut tar = tar::Builder::new(tar_of(&[("one/layer.tar", &layer)]));
        // The blobs come first here, and the list after them.
        let mut archive = {
            let mut bytes = std::mem::take(tar.get_mut());
            bytes.truncate(bytes.len() - 1024);
            tar::Builder::new(bytes)
        };
        let mut link = tar::Header::new_gnu();
        link.set_entry_type(tar::EntryType::Symlink);
        link.set_size(0);
        archive.append_link(&mut link, "two/layer.tar", "../one/layer.tar").unwrap();
        for (path, content) in
            [("c.json", config.as_bytes()), ("manifest.json", manifest.as_bytes())]
        {
            let mut header = tar::Header::new_gnu();
            header.set_size(content.len() as u64);
            archive.append_data(&mut header, path, content).unwrap();
        }
        let images = open(&archive.into_inner().unwrap()).await.unwrap();
        assert_eq!(images[0].names, ["old:1"]);
        let digests: Vec<&str> =
            images[0].layers.iter().map(|layer| layer.descriptor.digest.as_str()).collect();
        assert_eq!(digests, [oci::sha256(&layer), oci::sha256(&layer)]);
    }

    #[tokio::test]
    async fn something_else_is_refused_with_a_reason() {
        let error = open(b"not a tar at all, but quite some text").await.unwrap_err();
        assert!(error.to_string().starts_with("invalid image archive: "), "{error}");
        let error = open(&tar_of(&[("etc/passwd", b"")])).await.unwrap_err();
        assert!(error.to_string().contains("manifest.json"), "{error}");
        let error = open(&tar_of(&[("manifest.json", b"[{}")])).await.unwrap_err();
        assert!(error.to_string().contains("not valid JSON"), "{error}");
        let lost = tar_of(&[("manifest.json", br#"[{"Config":"c","Layers":[]}]"#)]);
        let error = open(&lost).await.unwrap_err();
        assert_eq!(error.to_string(), "invalid image archive: c is missing");
    }

    #[tokio::test]
    async fn a_blob_that_is_not_what_its_digest_says_is_refused() {
        let path = format!("blobs/sha256/{}", "a".repeat(64));
        let index = format!(
            r#"{{"manifests":[{{"mediaType":"{}","digest":"sha256:{}","size":2}}]}}"#,
            oci::MANIFEST,
            "a".repeat(64)
        );
        let error = open(&tar_of(&[(&path, b"{}"), ("index.json", index.as_bytes())])).await;
        assert!(matches!(error, Err(Error::Digest { .. })), "{error:?}");
    }

    /// Appends an entry of any kind, with a size that its header claims.
    fn claim(tar: &mut Vec<u8>, kind: tar::EntryType, path: &str, size: u64) {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.set_path(path).unwrap();
        header.set_size(size);
        header.set_cksum();
        tar.extend_from_slice(header.as_bytes());
    }

    #[test]
    fn all_names_together_are_bounded() {
        let mut file = tempfile::tempfile().unwrap();
        let names: Vec<String> = (0..10).map(|number| format!("{number:0>90}")).collect();
        let files: Vec<(&str, &[u8])> =
            names.iter().map(|name| (name.as_str(), &b""[..])).collect();
        io::Write::write_all(&mut file, &tar_of(&files)).unwrap();
        assert_eq!(list(&file, 900).unwrap().len(), 10);
        let refused = list(&file, 899).unwrap_err().to_string();
        assert!(refused.contains("more than 899 bytes of names"), "{refused}");
    }

    #[tokio::test]
    async fn what_no_image_has_is_refused_before_it_takes_memory_or_time() {
        let refused = async |tar: &[u8]| types::chain(&open(tar).await.unwrap_err());
        // A name of a megabyte and more: it would be read into memory.
        let mut long = Vec::new();
        claim(&mut long, tar::EntryType::GNULongName, "././@LongLink", 2 << 20);
        long.resize(long.len() + (2 << 20), b'x');
        assert!(refused(&long).await.contains("too long"));
        // Shorter ones, of which many fit.
        for (kind, of) in
            [(tar::EntryType::GNULongName, "name"), (tar::EntryType::GNULongLink, "link")]
        {
            let mut long = Vec::new();
            claim(&mut long, kind, "././@LongLink", 8 << 10);
            long.resize(long.len() + (8 << 10), b'x');
            claim(&mut long, tar::EntryType::Symlink, "short", 0);
            long.resize(long.len() + 1024, 0);
            assert!(refused(&long).await.contains("a name in it is too long"), "{of}");
        }
        // A file that claims more than there is.
        let mut cut = Vec::new();
        claim(&mut cut, tar::EntryType::Regular, "manifest.json", 1 << 40);
        assert!(refused(&cut).await.contains("cut off"));
        let mut most = Vec::new();
        claim(&mut most, tar::EntryType::Regular, "manifest.json", u64::MAX >> 1);
        refused(&most).await;
        // More layers than a file system takes, more images than an archive has, and a
        // configuration that is read again for each.
        let layers = serde_json::json!([{ "Config": "c", "Layers": vec!["l"; 501] }]).to_string();
        assert!(
            refused(&tar_of(&[("manifest.json", layers.as_bytes())])).await.contains("500 layers")
        );
        let many = serde_json::json!(vec![serde_json::json!({ "Config": "c" }); 1001]).to_string();
        assert!(
            refused(&tar_of(&[("manifest.json", many.as_bytes())])).await.contains("1000 images")
        );
        let large = format!("{{}}{}", " ".repeat(5 << 20));
        let twenty = serde_json::json!(vec![serde_json::json!({ "Config": "c" }); 20]).to_string();
        let archive = tar_of(&[("c", large.as_bytes()), ("manifest.json", twenty.as_bytes())]);
        assert!(refused(&archive).await.contains("bytes of manifests"));
        // Nothing is read behind what is too many.
        let many = [&b"[{}"[..], &b",{}".repeat(1000), b"garbage"].concat();
        assert!(refused(&tar_of(&[("manifest.json", &many)])).await.contains("1000 images"));
        let index = [&br#"{"manifests":["#[..], &b"{},".repeat(1001), b"garbage"].concat();
        assert!(refused(&tar_of(&[("index.json", &index)])).await.contains("1000 images"));
        // Links that lead in circles, or out.
        let mut links = tar::Builder::new(Vec::new());
        for (path, target) in [("manifest.json", "a"), ("a", "manifest.json")] {
            let mut link = tar::Header::new_gnu();
            link.set_entry_type(tar::EntryType::Symlink);
            link.set_size(0);
            links.append_link(&mut link, path, target).unwrap();
        }
        assert!(refused(&links.into_inner().unwrap()).await.contains("manifest.json is missing"));
    }
}
