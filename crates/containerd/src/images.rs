//! Images: containerd's records of them, in the way that Docker's users think of images.
//!
//! An image is its configuration's digest. Each has a record under that id, which keeps it also
//! when its last name has moved on, and one record for every name. All records point at the
//! manifest for this machine.

use crate::Containerd;
use crate::client::{BULKY, Client, QUICK};
use crate::error::{Error, Gone};
use crate::oci::{self, Config, Descriptor, Manifest};
use containerd_client::services::v1::{
    CreateImageRequest, DeleteImageRequest, GetImageRequest, Image as Record, ListImagesRequest,
    UpdateImageRequest,
};
use engine::Image;
use engine::Reference;
use std::collections::BTreeMap;
use types::{Fault, Labels};

const ID_LABEL: &str = "skep.image";
const SIZE_LABEL: &str = "skep.size";
const DIGEST_LABEL: &str = "skep.digest";

/// An image whose layers are in the content store.
pub(crate) struct NewImage {
    pub(crate) manifest_type: String,
    pub(crate) manifest: Vec<u8>,
    pub(crate) config: Vec<u8>,
    /// Full names.
    pub(crate) names: Vec<String>,
    /// What a registry knows it by: the digest of its manifest or of a list of manifests.
    pub(crate) digest: Option<String>,
}

impl Containerd {
    /// Lists the images of this node.
    pub(crate) async fn list_images(&self) -> Result<Vec<Image>, Error> {
        self.images_where(Vec::new()).await
    }

    /// Finds an image by its full name or its whole id.
    pub(crate) async fn find_image(&self, name: &str) -> Result<Option<Image>, Error> {
        // The records of one image are found by their label; those of others by their target.
        let Some(record) = self.record_of(name).await? else {
            let images = self.list_images().await?;
            let known = |image: &Image| image.id == name || image.names.iter().any(|n| n == name);
            return Ok(images.into_iter().find(known));
        };
        let filter = match (record.labels.get(ID_LABEL), &record.target) {
            (Some(id), _) => format!("labels.\"{ID_LABEL}\"=={id}"),
            (None, Some(target)) => format!("target.digest=={}", target.digest),
            (None, None) => return Ok(None),
        };
        Ok(self.images_where(vec![filter]).await?.into_iter().next())
    }

    pub(crate) async fn existing_image(&self, name: &str) -> Result<Image, Error> {
        let missing = || Error::NoImage(Reference::shorten(name).to_owned());
        self.find_image(name).await?.ok_or_else(missing)
    }

    async fn record_of(&self, name: &str) -> Result<Option<Record>, Error> {
        let client = self.client();
        let body = GetImageRequest { name: name.to_owned() };
        let answer = client.call("look up an image", QUICK, body);
        match answer.await {
            Ok(answer) => Ok(answer.image),
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error),
        }
    }

    async fn images_where(&self, filters: Vec<String>) -> Result<Vec<Image>, Error> {
        let client = self.client();
        let body = ListImagesRequest { filters };
        let answer = client.call("list images", QUICK, body);
        let mut images: BTreeMap<String, Image> = BTreeMap::new();
        for record in answer.await?.images {
            let Some(id) = self.id_of(&record).await? else { continue };
            let image = images.entry(id.clone()).or_default();
            image.id = id;
            image.digest = record.target.map(|target| target.digest).unwrap_or_default();
            let size = record.labels.get(SIZE_LABEL).and_then(|size| size.parse().ok());
            image.size = size.unwrap_or(image.size);
            if record.name.starts_with("sha256:") {
                continue;
            }
            if let Some(digest) = record.labels.get(DIGEST_LABEL)
                && let Some((repository, _tag)) = record.name.rsplit_once(':')
                && !record.name.contains('@')
            {
                image.names.push(format!("{repository}@{digest}"));
            }
            image.names.push(record.name);
        }
        let mut complete = Vec::new();
        for mut image in images.into_values() {
            image.names.sort();
            image.names.dedup();
            if let Some(config) = readable(client.read_json(&image.id).await)? {
                image.config = config;
                complete.push(image);
            }
        }
        Ok(complete)
    }

    /// Records that others made (`ctr`, a registry's client) lack our label.
    async fn id_of(&self, record: &Record) -> Result<Option<String>, Error> {
        if let Some(id) = record.labels.get(ID_LABEL) {
            return Ok(Some(id.clone()));
        }
        let Some(target) = &record.target else { return Ok(None) };
        let manifest: Option<Manifest> = readable(self.client().read_json(&target.digest).await)?;
        Ok(manifest.map(|manifest| manifest.config.digest).filter(|digest| !digest.is_empty()))
    }

    /// Finds the snapshot that containers of an image start from, and makes it where it is missing:
    /// another client may have removed it.
    pub(crate) async fn root_of(&self, image: &Image) -> Result<String, Error> {
        let config: Config = self.client().read_json(&image.id).await?;
        let chain = oci::chain_ids(&config.rootfs.diff_ids);
        let top = chain.last().cloned().unwrap_or_default();
        if top.is_empty() || self.snapshots().exists(&top).await? {
            return Ok(top);
        }
        let manifest: Manifest = self.client().read_json(&image.digest).await?;
        let client = self.client();
        let work = |leased| async { self.unpack_image(leased, &manifest, &config, |_| ()).await };
        client.with_lease(work).await
    }

    /// Gives an image another full name.
    pub(crate) async fn add_name(&self, image: &str, name: &str) -> Result<(), Error> {
        let image = self.existing_image(image).await?;
        let name = Reference::parse(name)?;
        if name.is_pinned() {
            return Err(Fault::invalid("refusing to create a tag with a digest reference").into());
        }
        let labels = labels_of(&image.id, image.size, None);
        let manifest = self.client().read_document(&image.digest).await?;
        let parsed: Manifest = serde_json::from_slice(&manifest)
            .map_err(|source| Error::json(image.digest.as_str(), source))?;
        let media_type = or_default(parsed.media_type, oci::MANIFEST);
        let descriptor = Descriptor::new(&media_type, &manifest);
        record(self.client(), name.complete(), &descriptor, &labels).await
    }

    /// Removes a name, or an id. With the last name goes the image.
    pub(crate) async fn remove_name(&self, name: &str) -> Result<(), Error> {
        let Some(image) = self.find_image(name).await? else { return Ok(()) };
        self.forget(name, false).await?;
        let is_id = image.id == name;
        // What only says which digest a tag had is no name to live on.
        let left = image.names.iter().any(|other| other != name && !other.contains('@'));
        if left && !is_id {
            return Ok(());
        }
        for other in &image.names {
            self.forget(other, false).await?;
        }
        self.forget(&image.id, true).await
    }

    /// Removes the images that we have made or fetched, with all that they alone kept alive.
    pub(crate) async fn remove_own_images(&self) -> Result<(), Error> {
        let client = self.client();
        let body = ListImagesRequest { filters: vec![format!("labels.\"{ID_LABEL}\"")] };
        let answer = client.call("list images", QUICK, body);
        let records = answer.await?.images;
        let last = records.len().saturating_sub(1);
        for (number, record) in records.iter().enumerate() {
            self.forget(&record.name, number == last).await?;
        }
        Ok(())
    }

    /// Removes a record; with `collect` also what it alone kept alive, before this returns.
    async fn forget(&self, name: &str, collect: bool) -> Result<(), Error> {
        let client = self.client();
        let body = DeleteImageRequest { name: name.to_owned(), sync: collect, target: None };
        let answer = client.call("remove an image", BULKY, body);
        answer.await.or_gone()
    }

    /// Keeps a new image: writes its documents, unpacks it and records it under its id and its
    /// names. Names move away from other images.
    pub(crate) async fn keep_image(
        &self,
        leased: Client,
        image: &NewImage,
        done: impl FnMut(&Descriptor),
    ) -> Result<Image, Error> {
        let manifest: Manifest = serde_json::from_slice(&image.manifest)
            .map_err(|source| Error::json("the image's manifest", source))?;
        let config: Config = serde_json::from_slice(&image.config)
            .map_err(|source| Error::json("the image's configuration", source))?;
        check_platform(&config)?;
        let target = Descriptor::new(&image.manifest_type, &image.manifest);
        leased.write_document(&manifest.config, &image.config).await?;
        leased.write_document(&target, &image.manifest).await?;
        leased.label_blob(&target.digest, references(&manifest)).await?;

        self.unpack_image(leased.clone(), &manifest, &config, done).await?;
        let size = self.snapshots().usage(&config.rootfs.diff_ids).await?;
        let id = manifest.config.digest;
        let labels = labels_of(&id, size, image.digest.as_deref());
        record(&leased, &id, &target, &labels).await?;
        for name in &image.names {
            record(&leased, name, &target, &labels).await?;
        }
        self.existing_image(&id).await
    }

    async fn unpack_image(
        &self,
        leased: Client,
        manifest: &Manifest,
        config: &Config,
        done: impl FnMut(&Descriptor),
    ) -> Result<String, Error> {
        let snapshots = self.snapshots();
        let unpacking = snapshots.through(leased.clone());
        let top = unpacking.unpack(&manifest.layers, &config.rootfs.diff_ids, done).await?;
        if !top.is_empty() {
            let label = format!("containerd.io/gc.ref.snapshot.{}", snapshots.name);
            let labels = [(label, top.clone())].into_iter().collect();
            leased.label_blob(&manifest.config.digest, labels).await?;
        }
        Ok(top)
    }
}

/// Writes a record, over one of the same name.
async fn record(
    client: &Client,
    name: &str,
    target: &Descriptor,
    labels: &Labels,
) -> Result<(), Error> {
    let image = Record {
        name: name.to_owned(),
        labels: labels.clone().into_iter().collect(),
        target: Some(target.into()),
        ..Default::default()
    };
    let body = CreateImageRequest { image: Some(image.clone()), source_date_epoch: None };
    let made = client.call("record an image", QUICK, body);
    match made.await {
        Err(error) if error.is_taken() => {}
        other => return other.map(|_| ()),
    }
    let paths = vec!["target".to_owned(), "labels".to_owned()];
    let body = UpdateImageRequest {
        image: Some(image),
        update_mask: Some(prost_types::FieldMask { paths }),
        source_date_epoch: None,
    };
    let moved = client.call("record an image", QUICK, body);
    moved.await.map(|_| ())
}

fn labels_of(id: &str, size: u64, digest: Option<&str>) -> Labels {
    let mut labels = Labels::new();
    labels.insert(ID_LABEL.to_owned(), id.to_owned());
    labels.insert(SIZE_LABEL.to_owned(), size.to_string());
    if let Some(digest) = digest {
        labels.insert(DIGEST_LABEL.to_owned(), digest.to_owned());
    }
    labels
}

/// The labels by which a manifest keeps its configuration and layers from being collected.
fn references(manifest: &Manifest) -> Labels {
    let mut labels = Labels::new();
    let config = "containerd.io/gc.ref.content.config".to_owned();
    labels.insert(config, manifest.config.digest.clone());
    for (number, layer) in manifest.layers.iter().enumerate() {
        labels.insert(format!("containerd.io/gc.ref.content.l.{number}"), layer.digest.clone());
    }
    labels
}

/// An image of another architecture would only fail later, with "exec format error".
fn check_platform(config: &Config) -> Result<(), Error> {
    let here = oci::architecture();
    let fits = |value: &str, here: &str| value.is_empty() || value == here;
    if fits(&config.os, "linux") && fits(&config.architecture, here) {
        return Ok(());
    }
    let Config { os, architecture, .. } = config;
    let image = format!("image with platform {os}/{architecture}");
    Err(Fault::invalid(format!("{image} does not fit this machine's linux/{here}")).into())
}

pub(crate) fn or_default(text: String, default: &str) -> String {
    if text.is_empty() { default.to_owned() } else { text }
}

/// Content that is there and can be used. An image whose content was removed by others, or is
/// damaged, is none; one whose content could not be read just now is not known to be none.
fn readable<T>(content: Result<T, Error>) -> Result<Option<T>, Error> {
    match content {
        Ok(content) => Ok(Some(content)),
        Err(Error::Json { .. } | Error::Digest { .. }) => Ok(None),
        Err(error) if error.is_not_found() => Ok(None),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tonic::{Code, Status};

    #[test]
    fn content_that_could_not_be_read_just_now_is_not_missing() {
        let read = |code| -> Result<Option<()>, Error> {
            readable(Err(Error::Call { call: "read", status: Box::new(Status::new(code, "")) }))
        };
        assert!(matches!(read(Code::NotFound), Ok(None)));
        assert!(matches!(read(Code::Unavailable), Err(Error::Call { .. })));
        assert!(matches!(read(Code::DeadlineExceeded), Err(Error::Call { .. })));
    }
}
