//! `docker load` and `docker import`: images from streams.

use crate::Containerd;
use crate::archive::{Archive, Found};
use crate::client::Client;
use crate::error::Error;
use crate::images::NewImage;
use crate::oci::{self, Descriptor, Manifest};
use crate::spool;
use engine::Image;
use engine::Reference;
use serde_json::{Value, json};
use tokio::io::AsyncRead;

/// The complete name of an image.
fn complete(name: &str) -> Result<String, Error> {
    Ok(Reference::parse(name)?.complete().to_owned())
}

impl Containerd {
    /// Loads the images of an archive: of `docker save`, old or new, or an OCI layout; plain or
    /// with gzip.
    pub(crate) async fn load_archive<R>(&self, stream: R) -> Result<Vec<Image>, Error>
    where
        R: AsyncRead + Unpin,
    {
        let archive = Archive::open(spool::spool(stream, self.spool()).await?).await?;
        let mut images = Vec::new();
        for found in archive.images().await? {
            images.push(self.load_one(&archive, &found).await?);
        }
        Ok(images)
    }

    async fn load_one(&self, archive: &Archive, found: &Found) -> Result<Image, Error> {
        let names: Result<Vec<String>, Error> =
            found.names.iter().map(|name| complete(name)).collect();
        let image = NewImage {
            manifest_type: found.manifest_type.clone(),
            manifest: found.manifest.clone(),
            config: found.config.clone(),
            names: names?,
            digest: None,
        };
        let work = |leased: Client| async {
            for layer in &found.layers {
                leased.write_blob(&layer.descriptor, archive.reader(layer.part)?).await?;
            }
            self.keep_image(leased, &image, |_| ()).await
        };
        self.client().with_lease(work).await
    }

    /// Makes an image of one layer from a tar of a file system, and completes its configuration.
    pub(crate) async fn import_rootfs<R>(
        &self,
        stream: R,
        name: Option<&str>,
        config: Value,
    ) -> Result<Image, Error>
    where
        R: AsyncRead + Unpin,
    {
        let names: Vec<String> = name.map(complete).transpose()?.into_iter().collect();
        let file = spool::spool(stream, self.spool()).await?;
        let (file, part, diff) = spool::blocking(move || {
            let part = spool::check_tar(&file)?;
            let diff = spool::digest_of(&file, part)?;
            Ok((file, part, diff))
        })
        .await?;

        let image = NewImage { names, ..render(&diff, part.size, config)? };
        let layer = Descriptor {
            media_type: oci::LAYER.to_owned(),
            digest: diff,
            size: part.size,
            ..Default::default()
        };
        let work = |leased: Client| async {
            leased.write_blob(&layer, spool::reader(&file, part)?).await?;
            self.keep_image(leased, &image, |_| ()).await
        };
        self.client().with_lease(work).await
    }
}

/// Renders an image with one plain layer.
fn render(diff: &str, size: u64, mut config: Value) -> Result<NewImage, Error> {
    let bytes = |what: &str, value: Result<Vec<u8>, serde_json::Error>| {
        value.map_err(|source| Error::json(what, source))
    };
    let Some(fields) = config.as_object_mut() else {
        return Err(Error::Archive("its configuration is no JSON object".to_owned()));
    };
    fields.insert("architecture".to_owned(), json!(oci::architecture()));
    fields.insert("os".to_owned(), json!("linux"));
    fields.insert("rootfs".to_owned(), json!({ "type": "layers", "diff_ids": [diff] }));
    let config = bytes("the configuration", serde_json::to_vec(&config))?;
    let layer = Descriptor {
        media_type: oci::LAYER.to_owned(),
        digest: diff.to_owned(),
        size,
        ..Default::default()
    };
    let manifest = Manifest {
        schema_version: 2,
        media_type: oci::MANIFEST.to_owned(),
        config: Descriptor::new(oci::CONFIG, &config),
        layers: vec![layer],
    };
    let manifest = bytes("the manifest", serde_json::to_vec(&manifest))?;
    Ok(NewImage {
        manifest_type: oci::MANIFEST.to_owned(),
        manifest,
        config,
        names: Vec::new(),
        digest: None,
    })
}
