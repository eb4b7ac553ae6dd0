//! A node's identity and keys on its disk.

use anyhow::{Context, Result};
use ca::{Error, Identity, Key, Secrets, UnlockKey};
use raft::Sequencer;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Where they are, and what of them is in use. Clones are one and the same.
#[derive(Clone)]
pub(super) struct Vault {
    folder: PathBuf,
    secrets: Arc<Mutex<Secrets>>,
    /// Held while they are written: a renewed certificate and another lock come from different loops.
    changing: Arc<tokio::sync::Mutex<()>>,
}

impl Vault {
    pub(super) fn new(folder: PathBuf) -> Self {
        Self { folder, secrets: Arc::default(), changing: Arc::default() }
    }

    fn secrets(&self) -> MutexGuard<'_, Secrets> {
        // Nothing panics while it holds the lock.
        self.secrets.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads the node's identity; `None`: it has none.
    pub(super) async fn load(&self) -> Result<Option<Identity>> {
        let (folder, lock) = (self.folder.clone(), self.secrets().lock.clone());
        let read = move || Identity::load(&folder, lock.as_ref());
        let Some((identity, secrets)) = tokio::task::spawn_blocking(read).await?? else {
            return Ok(None);
        };
        *self.secrets() = secrets;
        Ok(Some(identity))
    }

    /// Says whether reading failed for want of the unlock key.
    pub(super) fn is_locked(error: &anyhow::Error) -> bool {
        matches!(error.downcast_ref(), Some(Error::Locked | Error::UnlockKey))
    }

    /// Takes an unlock key if it opens what is on the disk. Otherwise nothing changes.
    pub(super) async fn unlock(&self, key: UnlockKey) -> Result<(), Error> {
        let (folder, given) = (self.folder.clone(), key.clone());
        let read = tokio::task::spawn_blocking(move || Identity::load(&folder, Some(&given)));
        read.await.map_err(|_ended| Error::UnlockKey)??;
        self.secrets().lock = Some(key);
        Ok(())
    }

    /// Writes a new identity. The keys of a former one are forgotten.
    pub(super) async fn begin(&self, identity: &Identity) -> Result<()> {
        *self.secrets() = Secrets::default();
        self.save(identity).await
    }

    /// Writes the identity as it is now: its certificate was renewed.
    pub(super) async fn save(&self, identity: &Identity) -> Result<()> {
        self.change(identity, |_| {}).await
    }

    /// Changes the secrets, first on the disk; one change after the other.
    async fn change(&self, identity: &Identity, change: impl FnOnce(&mut Secrets)) -> Result<()> {
        let _one = self.changing.lock().await;
        let old = self.secrets().clone();
        let mut new = old.clone();
        change(&mut new);
        let (folder, identity) = (self.folder.clone(), identity.clone());
        let save = move || identity.save(&folder, &old, &new).map(|()| new);
        let new = tokio::task::spawn_blocking(save).await??;
        *self.secrets() = new;
        Ok(())
    }

    /// The keys of this manager's log, on the disk before something is sealed by them.
    pub(super) async fn log_keys(&self, identity: &Identity) -> Result<raft::Keys> {
        if self.secrets().log.is_empty() {
            self.change(identity, |secrets| secrets.log = vec![Key::draw()]).await?;
        }
        let mut keys = self.secrets().log.clone().into_iter();
        let present = keys.next().unwrap_or_else(Key::draw);
        Ok(raft::Keys { present, former: keys.next() })
    }

    /// Locks this manager's secrets by an unlock key, or by none. Who had seen them in the clear reads
    /// nothing of the log from then on: it gets another key with the lock.
    pub(super) async fn lock_by(
        &self,
        lock: Option<UnlockKey>,
        identity: &Identity,
        log: &Sequencer,
    ) -> Result<()> {
        self.finish(identity, log).await?;
        if self.secrets().lock == lock {
            return Ok(());
        }
        let set = |secrets: &mut Secrets| {
            if secrets.lock.is_none() {
                secrets.log.insert(0, Key::draw());
            }
            secrets.lock = lock;
        };
        self.change(identity, set).await?;
        self.finish(identity, log).await
    }

    /// Seals the log by the newest key, where it is not known that it is.
    async fn finish(&self, identity: &Identity, log: &Sequencer) -> Result<()> {
        let newest = {
            let secrets = self.secrets();
            secrets.log.first().filter(|_| 1 < secrets.log.len()).cloned()
        };
        let Some(newest) = newest else { return Ok(()) };
        log.reseal(newest).await.context("cannot seal the log by another key")?;
        self.forget_former_log_key(identity).await
    }

    /// The log is sealed by the newest key alone.
    pub(super) async fn forget_former_log_key(&self, identity: &Identity) -> Result<()> {
        if self.secrets().log.len() < 2 {
            return Ok(());
        }
        self.change(identity, |secrets| secrets.log.truncate(1)).await
    }

    /// A node without a log has the key of its certificate alone, and is never locked.
    pub(super) async fn forget_log(&self, identity: &Identity) -> Result<()> {
        let is_so = {
            let secrets = self.secrets();
            secrets.log.is_empty() && secrets.lock.is_none()
        };
        if is_so {
            return Ok(());
        }
        self.change(identity, |secrets| *secrets = Secrets::default()).await
    }
}
