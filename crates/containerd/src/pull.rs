//! `docker pull`: from a registry into the content store, layer by layer, three at a time.
//!
//! Nothing is held in memory or in files of our own: bytes go from the connection to containerd,
//! which checks them. A transfer that broke goes on where it ended.

use crate::Containerd;
use crate::client::Client;
use crate::content::Opened;
use crate::error::Error;
use crate::images::{NewImage, or_default};
use crate::oci::{self, Descriptor, Index, Manifest};
use crate::registry::{self, Source};
use bytes::BytesMut;
use engine::Reference;
use engine::{Credentials, Image, Progress};
use futures_util::stream::{self, StreamExt, TryStreamExt};
use std::time::Duration;
use tokio::sync::mpsc;
use types::{Fault, Retry, chain};

const LAYERS_AT_ONCE: usize = 3;
const TRANSFER_ATTEMPTS: u32 = 5;
const ANSWER_ATTEMPTS: u32 = 3;
const BACK_OFF_FIRST: Duration = Duration::from_millis(500);
const CHUNK: usize = 1 << 20;
/// How many digits of a digest Docker shows.
const SHORT_ID: usize = 12;
/// For what is not a transfer: asking for tokens and manifests. With retries of its own.
const ANSWER_MAX: Duration = Duration::from_secs(90);
/// The largest manifest that registries accept.
const MANIFEST_MAX: usize = 4 << 20;

const ACCEPTED: [&str; 4] = [oci::INDEX, oci::MANIFEST, oci::DOCKER_LIST, oci::DOCKER_MANIFEST];

impl Containerd {
    /// Pulls an image. Progress is told as far as there is room: the next message says more.
    pub(crate) async fn pull_image(
        &self,
        name: &str,
        credentials: Option<&Credentials>,
        progress: &mpsc::Sender<Progress>,
    ) -> Result<Image, Error> {
        let image = Reference::parse(name)?;
        for mut source in registry::sources(image.parts(), self.mirrors())? {
            source.log_in(credentials);
            match self.pull_from(&source, progress).await {
                Err(error) if source.is_mirror => {
                    let (source, error) = (source.address, chain(&error));
                    tracing::warn!(source, error, "cannot pull from a mirror");
                }
                outcome => return outcome,
            }
        }
        Err(Error::NoImage(name.to_owned()))
    }

    async fn pull_from(
        &self,
        source: &Source,
        progress: &mpsc::Sender<Progress>,
    ) -> Result<Image, Error> {
        // There may be another place to ask.
        let attempts = if source.is_mirror { 1 } else { ANSWER_ATTEMPTS };
        let image = patiently(attempts, || resolve(source)).await?;
        let Manifest { layers, .. } = parse(&image.manifest)?;
        for layer in &layers {
            tell(progress, layer, "Pulling fs layer", 0);
        }
        let work = |leased: Client| async {
            let mut transfers = Vec::new();
            for layer in &layers {
                transfers.push(transfer(&leased, source, layer, progress));
            }
            let transfers = stream::iter(transfers).buffer_unordered(LAYERS_AT_ONCE);
            transfers.try_collect::<()>().await?;
            let unpacked = |layer: &Descriptor| tell(progress, layer, "Pull complete", 0);
            self.keep_image(leased, &image, unpacked).await
        };
        self.client().with_lease(work).await
    }
}

/// Docker's command line goes by these words.
fn tell(progress: &mpsc::Sender<Progress>, layer: &Descriptor, status: &str, current: u64) {
    let hash = layer.digest.trim_start_matches("sha256:");
    let message = Progress {
        id: hash.chars().take(SHORT_ID).collect(),
        status: status.to_owned(),
        current,
        total: layer.size,
    };
    let _nobody_listens = progress.try_send(message);
}

/// Repeats what failed for a passing reason.
async fn patiently<T, F>(attempts: u32, attempt: impl Fn() -> F) -> Result<T, Error>
where
    F: Future<Output = Result<T, Error>>,
{
    let mut pause = BACK_OFF_FIRST;
    let mut left = attempts;
    loop {
        left -= 1;
        match attempt().await {
            Err(error) if 0 < left && error.retry() == Retry::Transient => {
                tracing::debug!(error = chain(&error), ?pause, "trying again");
                tokio::time::sleep(pause).await;
                pause *= 2;
            }
            outcome => return outcome,
        }
    }
}

/// Asks what a name stands for, and follows a list to the manifest for this machine.
async fn resolve(source: &Source) -> Result<NewImage, Error> {
    let resolved = async {
        let (mut content, digest) = manifest(source, &source.reference).await?;
        let mut media_type = media_type_of(&content)?;
        if oci::is_list(&media_type) {
            let list: Index = parse(&content)?;
            let fitting = oci::pick(&list.manifests).ok_or_else(|| {
                let here = oci::architecture();
                let entries = "in the manifest list entries";
                Fault::not_found(format!("no matching manifest for linux/{here} {entries}"))
            })?;
            let one = source.reference.clone_with_digest(fitting.digest.clone());
            content = manifest(source, &one).await?.0;
            media_type = media_type_of(&content)?;
        }
        let manifest: Manifest = parse(&content)?;
        let config = config(source, &manifest.config).await?;
        Ok(NewImage {
            manifest_type: media_type,
            manifest: content,
            config,
            names: vec![source.image().complete().to_owned()],
            digest: Some(digest),
        })
    };
    let answer = tokio::time::timeout(ANSWER_MAX, resolved).await;
    answer.unwrap_or_else(|_elapsed| Err(source.silent(ANSWER_MAX)))
}

pub(crate) async fn manifest(
    source: &Source,
    reference: &oci_client::Reference,
) -> Result<(Vec<u8>, String), Error> {
    let answer = source.http.manifest(reference, (&ACCEPTED, MANIFEST_MAX)).await;
    let content = answer.map_err(|refusal| registry::refusal(source, refusal))?;
    let digest = oci::sha256(&content);
    if let Some(expected) = reference.digest()
        && expected != digest
    {
        let reason = format!("the registry sent {digest}");
        return Err(Error::Digest { expected: expected.to_owned(), reason });
    }
    Ok((content, digest))
}

/// Older registries leave the type out of the document; then what it holds tells.
pub(crate) fn media_type_of(content: &[u8]) -> Result<String, Error> {
    #[derive(serde::Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Kind {
        #[serde(default)]
        schema_version: u32,
        #[serde(default)]
        media_type: String,
        manifests: Option<serde::de::IgnoredAny>,
    }
    let kind: Kind = parse(content)?;
    if kind.schema_version != 2 {
        let reason = "it has a manifest of schema version 1, which is long out of use";
        return Err(Error::Archive(reason.to_owned()));
    }
    let default = if kind.manifests.is_some() { oci::INDEX } else { oci::MANIFEST };
    Ok(or_default(kind.media_type, default))
}

pub(crate) fn parse<T: serde::de::DeserializeOwned>(content: &[u8]) -> Result<T, Error> {
    serde_json::from_slice(content).map_err(|source| Error::json("the registry's manifest", source))
}

pub(crate) async fn config(source: &Source, descriptor: &Descriptor) -> Result<Vec<u8>, Error> {
    let Descriptor { digest, size, .. } = descriptor;
    check_digest(digest)?;
    let size = usize::try_from(*size).ok().filter(|size| *size <= MANIFEST_MAX);
    let Some(size) = size else {
        return Err(Error::Archive("its configuration is too large".to_owned()));
    };
    let pulled = source.http.document(&source.reference, (digest, size)).await;
    let content = pulled.map_err(|refusal| registry::refusal(source, refusal))?;
    let found = oci::sha256(&content);
    if found != *digest {
        let reason = format!("the registry sent {found}");
        return Err(Error::Digest { expected: digest.clone(), reason });
    }
    Ok(content)
}

/// It becomes part of an address.
fn check_digest(digest: &str) -> Result<(), Error> {
    if oci::is_digest(digest) {
        return Ok(());
    }
    Err(Error::Archive(format!("{digest:?} is no sha256 digest")))
}

/// Brings one layer into the content store.
async fn transfer(
    client: &Client,
    source: &Source,
    layer: &Descriptor,
    progress: &mpsc::Sender<Progress>,
) -> Result<(), Error> {
    check_digest(&layer.digest)?;
    let moved =
        patiently(TRANSFER_ATTEMPTS, || transfer_once(client, source, layer, progress)).await?;
    tell(progress, layer, if moved { "Download complete" } else { "Already exists" }, layer.size);
    Ok(())
}

/// Says whether anything had to be moved.
async fn transfer_once(
    client: &Client,
    source: &Source,
    layer: &Descriptor,
    progress: &mpsc::Sender<Progress>,
) -> Result<bool, Error> {
    let mut writer = match client.open_blob(layer).await? {
        Opened::Present => return Ok(false),
        Opened::Wanted(writer) => writer,
    };
    if writer.offset == layer.size {
        // Another namespace of this containerd has it: only the claim is missing.
        client.commit_blob(writer).await?;
        return Ok(false);
    }
    let offset = writer.offset;
    let answer = source.http.blob(&source.reference, (&layer.digest, offset)).await;
    let (begins_at, blob) = answer.map_err(|refusal| registry::refusal(source, refusal))?;
    // A registry that knows no ranges begins at the start.
    let mut skip = offset - begins_at;
    let mut blob = std::pin::pin!(blob);
    let mut chunk = BytesMut::with_capacity(CHUNK);
    while let Some(part) = blob.next().await {
        let part = match part {
            Ok(part) => part,
            Err(refusal) => {
                // What came goes with it, so that the next attempt begins behind it.
                writer.write(chunk.freeze()).await?;
                return Err(registry::refusal(source, refusal));
            }
        };
        let known = usize::try_from(skip).unwrap_or(usize::MAX).min(part.len());
        skip -= known as u64;
        chunk.extend_from_slice(&part[known..]);
        if CHUNK <= chunk.len() {
            writer.write(chunk.split().freeze()).await?;
            tell(progress, layer, "Downloading", writer.offset);
        }
    }
    if !chunk.is_empty() {
        writer.write(chunk.freeze()).await?;
    }
    if writer.offset < layer.size {
        let message = format!("{} cut a layer off", source.address);
        return Err(Error::Registry { message, retry: Retry::Transient });
    }
    client.commit_blob(writer).await?;
    Ok(true)
}
