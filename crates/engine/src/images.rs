//! Images: found, fetched, named and removed, in Docker's words.

use crate::engine::Engine;
use crate::events::EventKind;
use crate::info::Status;
use crate::reference::Reference;
use crate::runtime::{Archive, Credentials, Image, Progress};
use std::collections::BTreeMap;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use types::Fault;

/// Lines of progress that wait for a client.
const PROGRESS: usize = 64;

/// Progress of a pull as it comes. Ends after the image is there; a fault is the last item.
pub type PullStream = ReceiverStream<Result<Progress, Fault>>;

/// What the removal of an image did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Removed {
    /// A name as users write it.
    Untagged(String),
    /// An image's id.
    Deleted(String),
}

impl Engine {
    /// Fetches an image (`nginx`, `registry/a:b`, `a@sha256:…`), whether or not it is here. Ends
    /// when the stream is dropped.
    pub fn pull(&self, name: &str, credentials: Option<Credentials>) -> Result<PullStream, Fault> {
        let reference = Reference::parse(name)?;
        let (sink, stream) = mpsc::channel(PROGRESS);
        let (engine, token) = (self.clone(), self.inner.token.clone());
        self.inner.tracker.spawn(async move {
            let gone = sink.clone();
            let pulling = async {
                tokio::select! {
                    outcome = engine.pull_one(&reference, credentials, &sink) => {
                        if let Err(fault) = outcome {
                            let _gone = sink.send(Err(fault)).await;
                        }
                    }
                    () = gone.closed() => {}
                }
            };
            token.run_until_cancelled(pulling).await;
        });
        Ok(ReceiverStream::new(stream))
    }

    async fn pull_one(
        &self,
        reference: &Reference,
        credentials: Option<Credentials>,
        sink: &mpsc::Sender<Result<Progress, Fault>>,
    ) -> Result<(), Fault> {
        let name = reference.complete().to_owned();
        let before = self.inner.runtime.image(name.clone()).await?;
        let (progress, mut updates) = mpsc::channel(PROGRESS);
        let mut pulling = self.inner.runtime.pull(name, credentials, progress);
        let image = loop {
            tokio::select! {
                biased;
                Some(update) = updates.recv() => { let _gone = sink.send(Ok(update)).await; }
                image = &mut pulling => break image?,
            }
        };
        while let Ok(update) = updates.try_recv() {
            let _gone = sink.send(Ok(update)).await;
        }
        self.note_users_image(&image.id).await;
        self.tell_image("pull", reference.familiar(), reference.familiar());
        let newer = before.is_none_or(|before| before.id != image.id);
        let what = if newer { "Downloaded newer image" } else { "Image is up to date" };
        for status in [
            format!("Digest: {}", image.digest),
            format!("Status: {what} for {}", reference.familiar()),
        ] {
            let _gone = sink.send(Ok(Progress { status, ..Progress::default() })).await;
        }
        Ok(())
    }

    /// Takes the images of a `docker save` archive or OCI layout over.
    pub async fn load(&self, archive: Archive) -> Result<Vec<Image>, Fault> {
        let images = self.inner.runtime.load(archive).await?;
        for image in &images {
            self.note_users_image(&image.id).await;
            self.tell_image("load", &image.id, &image.id);
        }
        Ok(images)
    }

    /// Makes an image from a tar of a root file system (`docker import`). `config` is its OCI
    /// configuration, without what follows from the tar and this machine.
    pub async fn import(
        &self,
        rootfs: Archive,
        name: Option<&str>,
        config: serde_json::Value,
    ) -> Result<Image, Fault> {
        let name = name.filter(|name| !name.is_empty()).map(Reference::parse).transpose()?;
        let complete = name.map(|name| name.complete().to_owned());
        let image = self.inner.runtime.import(rootfs, complete, config).await?;
        self.note_users_image(&image.id).await;
        self.tell_image("import", &image.id, &image.id);
        Ok(image)
    }

    /// All images.
    pub async fn images(&self) -> Result<Vec<Image>, Fault> {
        self.inner.runtime.images().await
    }

    /// The image of this name, id or beginning of an id; `No such image: …` otherwise.
    pub async fn image(&self, name: &str) -> Result<Image, Fault> {
        let hex = name.strip_prefix("sha256:").unwrap_or(name);
        let is_hex = !hex.is_empty() && hex.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        if is_hex && hex.len() == 64 {
            let found = self.inner.runtime.image(format!("sha256:{hex}")).await?;
            return found.ok_or_else(|| missing(name));
        }
        let reference = Reference::parse(name);
        if let Ok(reference) = &reference
            && let Some(image) = self.inner.runtime.image(reference.complete().to_owned()).await?
        {
            return Ok(image);
        }
        if is_hex {
            let id = format!("sha256:{hex}");
            let images = self.inner.runtime.images().await?;
            let mut fitting = images.into_iter().filter(|image| image.id.starts_with(&id));
            if let (Some(image), None) = (fitting.next(), fitting.next()) {
                return Ok(image);
            }
        }
        Err(match reference {
            Ok(reference) => missing(reference.familiar()),
            Err(fault) => fault,
        })
    }

    /// Removes a name or, by id, an image. Without `force` not while a container uses it.
    pub async fn remove_image(&self, name: &str, force: bool) -> Result<Vec<Removed>, Fault> {
        let image = self.image(name).await?;
        let reference = Reference::parse(name).ok();
        let named = reference.filter(|name| image.names.iter().any(|own| own == name.complete()));
        let short = image.id.trim_start_matches("sha256:").chars().take(12).collect::<String>();
        let untag: Vec<String> = match &named {
            Some(name) => vec![name.complete().to_owned()],
            None if 1 < image.names.len() && !force => {
                return Err(Fault::conflict(format!(
                    "conflict: unable to delete {short} (must be forced) - image is referenced in \
                     multiple repositories"
                )));
            }
            None => image.names.clone(),
        };
        let last = untag.len() == image.names.len();
        if last {
            let what = named.as_ref().map_or(short.as_str(), Reference::familiar);
            self.check_unused(&image, what, force)?;
        }
        let mut removed = Vec::new();
        for name in untag {
            self.inner.runtime.untag(name.clone()).await?;
            let familiar = Reference::shorten(&name).to_owned();
            self.tell_image("untag", &image.id, &familiar);
            removed.push(Removed::Untagged(familiar));
        }
        if last {
            if image.names.is_empty() {
                self.inner.runtime.untag(image.id.clone()).await?;
            }
            self.tell_image("delete", &image.id, &image.id);
            removed.push(Removed::Deleted(image.id));
        }
        Ok(removed)
    }

    fn check_unused(&self, image: &Image, what: &str, force: bool) -> Result<(), Fault> {
        let containers = self.containers();
        let mut users = containers.iter().filter(|one| one.images().any(|id| id == image.id));
        // One that runs is named first: there, force does not help.
        let running = users.clone().find(|one| one.status() == Status::Running);
        let Some(user) = running.or_else(|| users.next()) else { return Ok(()) };
        let id: String = user.id().chars().take(12).collect();
        if user.status() == Status::Running {
            return Err(Fault::conflict(format!(
                "conflict: unable to delete {what} (cannot be forced) - image is being used by \
                 running container {id}"
            )));
        }
        if force {
            return Ok(());
        }
        Err(Fault::conflict(format!(
            "conflict: unable to remove repository reference \"{what}\" (must force) - container \
             {id} is using its referenced image"
        )))
    }

    /// Gives an image a further name.
    pub async fn tag(&self, image: &str, name: &str) -> Result<(), Fault> {
        let image = self.image(image).await?;
        let reference = Reference::parse(name)?;
        if reference.complete().contains('@') {
            return Err(Fault::invalid("refusing to create a tag with a digest reference"));
        }
        // First, so that no rule takes what has its name.
        self.note_users_image(&image.id).await;
        self.inner.runtime.tag(image.id.clone(), reference.complete().to_owned()).await?;
        self.tell_image("tag", &image.id, reference.familiar());
        Ok(())
    }

    pub(crate) fn tell_image(&self, action: &str, id: &str, name: &str) {
        let attributes = BTreeMap::from([("name".to_owned(), name.to_owned())]);
        self.inner.events.tell(EventKind::Image, action, id, attributes);
    }
}

fn missing(name: &str) -> Fault {
    Fault::not_found(format!("No such image: {name}"))
}
