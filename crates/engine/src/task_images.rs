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
const KEPT_IF_NEARLY_FULL: Duration = Duration::from_mins(10);
/// Less than one part in so many of the disk is free: it is nearly full.
const NEARLY_FULL: u64 = 10;
const LOOK: Duration = Duration::from_mins(5);
const FILE: &str = "task-images.json";

/// Images that were fetched for tasks, by id, and when each was used last.
pub(crate) type TaskImages = BTreeMap<String, Timestamp>;

/// Reads what an earlier engine knew. Without it, images stay.
pub(crate) fn read(data: &Path) -> TaskImages {
    let text = std::fs::read(data.join(FILE)).unwrap_or_default();
    serde_json::from_slice(&text).unwrap_or_default()
}

/// Removes what is due, until the engine stops.
pub(crate) async fn run(engine: Engine) -> Result<(), Fault> {
    let token = engine.inner.token.clone();
    while token.run_until_cancelled(tokio::time::sleep(LOOK)).await.is_some() {
        let data = engine.inner.config.data.clone();
        let is_nearly_full = blocking(move || Ok(is_nearly_full(&data))).await.unwrap_or(false);
        engine.remove_task_images(clock::now(), is_nearly_full).await;
    }
    Ok(())
}

/// The images to remove.
fn due(images: &TaskImages, now: Timestamp, is_nearly_full: bool) -> Vec<String> {
    let kept = if is_nearly_full { KEPT_IF_NEARLY_FULL } else { KEPT };
    let due = images.iter().filter(|(_, used)| kept <= now.since(**used));
    due.map(|(id, _)| id.clone()).collect()
}

impl Engine {
    /// An image was fetched for a task, or is about to be used by one again.
    pub(crate) fn note_task_image(&self, id: &str, is_new: bool) {
        let mut images = self.task_images();
        if is_new || images.contains_key(id) {
            images.insert(id.to_owned(), clock::now());
        }
    }

    /// A user wants an image to be here. That is written down before it returns.
    pub(crate) async fn note_users_image(&self, id: &str) {
        self.task_images().remove(id);
        self.write_task_images().await;
    }

    /// Removes the images that are due, where the disk is nearly full after ten minutes.
    pub(crate) async fn remove_task_images(&self, now: Timestamp, is_nearly_full: bool) {
        let used: BTreeSet<String> =
            self.containers().iter().flat_map(|one| one.images().map(str::to_owned)).collect();
        for (_, last) in self.task_images().iter_mut().filter(|(id, _)| used.contains(*id)) {
            *last = now;
        }
        let due = due(&self.task_images(), now, is_nearly_full);
        for id in due {
            // A user may have named it since.
            if !self.task_images().contains_key(&id) {
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
            self.task_images().remove(&id);
        }
        self.write_task_images().await;
    }

    /// Writes down what differs from what was written last.
    async fn write_task_images(&self) {
        let mut written = self.inner.written_task_images.lock().await;
        let images = self.task_images().clone();
        if images == *written {
            return;
        }
        let path = self.inner.config.data.join(FILE);
        let writing = blocking(move || {
            let text = serde_json::to_vec(&images).map_err(std::io::Error::other);
            let done = text.and_then(|text| host::replace(&path, text, 0o600));
            done.map_err(cannot("write down which images tasks use")).map(|()| images)
        });
        match writing.await {
            Ok(images) => *written = images,
            Err(fault) => tracing::warn!(%fault, "will be tried again"),
        }
    }

    fn task_images(&self) -> MutexGuard<'_, TaskImages> {
        self.inner.task_images.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Says whether the disk of a folder is nearly full.
fn is_nearly_full(folder: &Path) -> bool {
    host::Disk::at(folder).is_ok_and(|disk| disk.bytes.free < disk.bytes.total / NEARLY_FULL)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unused_image_goes_after_a_week_or_ten_minutes_where_the_disk_is_full() {
        let now = Timestamp(0).after(Duration::from_hours(24 * 365));
        let ago = |time: Duration| Timestamp(now.0 - i64::try_from(time.as_nanos()).unwrap());
        let images: TaskImages = [
            ("new".to_owned(), ago(Duration::from_mins(9))),
            ("idle".to_owned(), ago(Duration::from_mins(11))),
            ("old".to_owned(), ago(Duration::from_hours(8 * 24))),
            ("ahead".to_owned(), now.after(Duration::from_hours(1))),
        ]
        .into();
        assert_eq!(due(&images, now, false), ["old"]);
        assert_eq!(due(&images, now, true), ["idle", "old"]);
    }
}
