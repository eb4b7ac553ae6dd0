//! Images that tasks brought to this node and that no container uses any more: removed by rule.
//!
//! An image that was fetched for a task goes once no container has used it for a week, and where
//! less than a tenth of the disk is free, after ten minutes. What a user has pulled, loaded,
//! imported or named stays until a user removes it, also where tasks use it.

use crate::blocking::{blocking, cannot};
use crate::clock;
use crate::engine::Engine;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::{MutexGuard, PoisonError};
use std::time::Duration;
use types::{Fault, FaultKind, Timestamp};

/// How long an unused image is kept.
const KEPT: Duration = Duration::from_hours(7 * 24);
/// How long where the disk is nearly full: long enough for a task that is about to be made.
const KEPT_IF_SHORT: Duration = Duration::from_mins(10);
/// Less than one part in so many of the disk is free: it is nearly full.
const SHORT: u64 = 10;
const LOOK: Duration = Duration::from_mins(5);
const FILE: &str = "task-images.json";

/// Images that were fetched for tasks, by id, and when each was used last.
pub(crate) type Spares = BTreeMap<String, Timestamp>;

/// Reads what an earlier engine knew. Without it, images stay.
pub(crate) fn read(data: &Path) -> Spares {
    let text = std::fs::read(data.join(FILE)).unwrap_or_default();
    serde_json::from_slice(&text).unwrap_or_default()
}

/// Removes what is due, until the engine stops.
pub(crate) async fn run(engine: Engine) -> Result<(), Fault> {
    let token = engine.inner.token.clone();
    while token.run_until_cancelled(tokio::time::sleep(LOOK)).await.is_some() {
        let data = engine.inner.config.data.clone();
        let is_short = blocking(move || Ok(is_short(&data))).await.unwrap_or(false);
        engine.remove_spares(clock::now(), is_short).await;
    }
    Ok(())
}

/// The images to remove.
fn due(spares: &Spares, now: Timestamp, is_short: bool) -> Vec<String> {
    let kept = if is_short { KEPT_IF_SHORT } else { KEPT };
    let due = spares.iter().filter(|(_, used)| kept <= now.since(**used));
    due.map(|(id, _)| id.clone()).collect()
}

impl Engine {
    /// An image was fetched for a task, or is about to be used by one again.
    pub(crate) fn note_task_image(&self, id: &str, is_new: bool) {
        let mut spares = self.spares();
        if is_new || spares.contains_key(id) {
            spares.insert(id.to_owned(), clock::now());
        }
    }

    /// A user wants an image to be here. That is written down before it returns.
    pub(crate) async fn note_users_image(&self, id: &str) {
        self.spares().remove(id);
        self.write_spares().await;
    }

    /// Removes the images that are due, where the disk is short of room or not.
    pub(crate) async fn remove_spares(&self, now: Timestamp, is_short: bool) {
        let used: BTreeSet<String> =
            self.containers().iter().map(|container| container.fixed.image.clone()).collect();
        for (_, last) in self.spares().iter_mut().filter(|(id, _)| used.contains(*id)) {
            *last = now;
        }
        let due = due(&self.spares(), now, is_short);
        for id in due {
            // A user may have named it since.
            if !self.spares().contains_key(&id) {
                continue;
            }
            match self.remove_image(&id, true).await {
                Ok(_) => tracing::info!(id, "removed an image that no task uses any more"),
                Err(fault) if fault.kind == FaultKind::NotFound => {}
                Err(fault) => {
                    tracing::warn!(id, %fault, "an image that nobody uses stays for now");
                    continue;
                }
            }
            self.spares().remove(&id);
        }
        self.write_spares().await;
    }

    /// Writes down what differs from what was written last.
    async fn write_spares(&self) {
        let mut written = self.inner.written_spares.lock().await;
        let spares = self.spares().clone();
        if spares == *written {
            return;
        }
        let path = self.inner.config.data.join(FILE);
        let writing = blocking(move || {
            let text = serde_json::to_vec(&spares).map_err(std::io::Error::other);
            let done = text.and_then(|text| host::replace(&path, text, 0o600));
            done.map_err(cannot("write down which images tasks use")).map(|()| spares)
        });
        match writing.await {
            Ok(spares) => *written = spares,
            Err(fault) => tracing::warn!(%fault, "will be tried again"),
        }
    }

    fn spares(&self) -> MutexGuard<'_, Spares> {
        self.inner.spares.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Says whether the disk of a folder is nearly full.
fn is_short(folder: &Path) -> bool {
    host::Disk::at(folder).is_ok_and(|disk| disk.bytes.free < disk.bytes.total / SHORT)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unused_image_goes_after_a_week_or_ten_minutes_where_the_disk_is_full() {
        let now = Timestamp(0).after(Duration::from_hours(24 * 365));
        let ago = |time: Duration| Timestamp(now.0 - i64::try_from(time.as_nanos()).unwrap());
        let spares: Spares = [
            ("new".to_owned(), ago(Duration::from_mins(9))),
            ("idle".to_owned(), ago(Duration::from_mins(11))),
            ("old".to_owned(), ago(Duration::from_hours(8 * 24))),
            ("ahead".to_owned(), now.after(Duration::from_hours(1))),
        ]
        .into();
        assert_eq!(due(&spares, now, false), ["old"]);
        assert_eq!(due(&spares, now, true), ["idle", "old"]);
    }
}
