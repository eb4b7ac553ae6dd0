//! Images that tasks run: fetched where they are not here, and where their tag has moved on.
//!
//! As in Docker, a name with a digest is asked for once, and a tag before every task; where its
//! registry cannot be asked, what is here serves. Whoever comes while the same name is being
//! fetched shares the answer. A registry that cannot be reached is left alone for a while: images
//! that exist on this node alone must not make every task wait.

use crate::by_name::ByName;
use crate::clock;
use crate::engine::Engine;
use crate::reference::Reference;
use crate::runtime::{Credentials, Distribution, Image};
use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::mpsc;
use types::{Fault, FaultKind, Timestamp};

/// A registry is asked by a task for as long as this where the image is here.
const ASK_MAX: Duration = Duration::from_secs(5);
/// One that could not be reached is not asked again so soon.
const REST: Duration = Duration::from_mins(1);

/// Locked for one fetch of a name at a time. It holds when its registry was asked last.
type LastAsked = tokio::sync::Mutex<Timestamp>;

/// Fetches that go on, and registries that were not reached.
#[derive(Debug, Default)]
pub(crate) struct Fetches {
    asked: ByName<LastAsked>,
    unreached: Mutex<BTreeMap<String, Timestamp>>,
}

impl Fetches {
    fn may_ask(&self, registry: &str, now: Timestamp) -> bool {
        let mut unreached = self.unreached();
        unreached.retain(|_, since| now.since(*since) < REST);
        !unreached.contains_key(registry)
    }

    fn was_not_reached(&self, registry: &str, now: Timestamp) {
        self.unreached().insert(registry.to_owned(), now);
    }

    fn unreached(&self) -> MutexGuard<'_, BTreeMap<String, Timestamp>> {
        self.unreached.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Engine {
    /// Asks the registry of an image what its name stands for now.
    pub async fn distribution(
        &self,
        name: &str,
        credentials: Option<Credentials>,
    ) -> Result<Distribution, Fault> {
        let reference = Reference::parse(name)?;
        self.inner.runtime.resolve(reference.complete().to_owned(), credentials).await
    }

    /// The image for a task: what is here, unless its tag stands for another one by now.
    pub async fn ensure_image(
        &self,
        name: &str,
        credentials: Option<Credentials>,
    ) -> Result<Image, Fault> {
        let came = clock::now();
        let reference = Reference::parse(name)?;
        let asked = self.inner.fetches.asked.get(reference.complete(), LastAsked::default);
        let mut asked = asked.lock().await;
        let here = match self.image(name).await {
            Ok(image) => Some(image),
            Err(fault) if fault.kind == FaultKind::NotFound => None,
            Err(fault) => return Err(fault),
        };
        if let Some(image) = here {
            // By its id, it stands for itself.
            let is_named = image.names.iter().any(|own| own == reference.complete());
            let is_known = reference.is_pinned() || !is_named || came <= *asked;
            self.note_task_image(&image.id, false);
            if is_known || !self.inner.fetches.may_ask(reference.registry(), came) {
                return Ok(image);
            }
            *asked = clock::now();
            if !self.has_moved(&reference, &image, credentials.clone()).await {
                return Ok(image);
            }
            return self.fetch(&reference, credentials).await.or_else(|fault| {
                tracing::warn!(name, %fault, "cannot fetch what a tag stands for now");
                Ok(image)
            });
        }
        let image = self.fetch(&reference, credentials).await?;
        *asked = clock::now();
        Ok(image)
    }

    /// Says whether a tag stands for another image at its registry. Where that cannot be known, it
    /// does not.
    async fn has_moved(
        &self,
        reference: &Reference,
        image: &Image,
        credentials: Option<Credentials>,
    ) -> bool {
        let name = reference.complete().to_owned();
        let asking = self.inner.runtime.resolve(name, credentials);
        let fault = match tokio::time::timeout(ASK_MAX, asking).await {
            Ok(Ok(found)) => {
                let pinned = format!("{}@{}", reference.repository(), found.digest);
                return !image.names.contains(&pinned);
            }
            // It answers; it has no such image, or not for us.
            Ok(Err(fault)) if fault.kind == FaultKind::NotFound => return false,
            Ok(Err(fault)) => fault,
            Err(_late) => Fault::unavailable("no answer"),
        };
        let registry = reference.registry();
        tracing::info!(registry, %fault, "cannot ask for an image; using what is here");
        self.inner.fetches.was_not_reached(registry, clock::now());
        false
    }

    async fn fetch(
        &self,
        reference: &Reference,
        credentials: Option<Credentials>,
    ) -> Result<Image, Fault> {
        // Nobody looks at the progress; the runtime does not wait for it either.
        let (progress, _unseen) = mpsc::channel(1);
        let name = reference.complete().to_owned();
        let before = self.images().await?;
        let image = self.inner.runtime.pull(name, credentials, progress).await?;
        self.note_task_image(&image.id, before.iter().all(|known| known.id != image.id));
        self.tell_image("pull", reference.familiar(), reference.familiar());
        Ok(image)
    }
}
