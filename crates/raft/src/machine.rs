//! What the log adds up to: a [`View`], published after every step, and its snapshots.

use crate::consensus::{Consensus, LogId, Snapshot, SnapshotData, SnapshotMeta, StoredMembership};
use crate::disk::{Disk, FoundSnapshot, StoredSnapshot, Write, bytes, decode, encode};
use crate::log::Writer;
use crate::sizes::Sizes;
use futures_util::{Stream, TryStreamExt};
use openraft::storage::{EntryResponder, RaftSnapshotBuilder, RaftStateMachine};
use openraft::{EntryPayload, OptionalSend};
use std::io;
use std::sync::Arc;
use store::{Changes, Format, View};
use tokio::sync::watch;
use types::{Timestamp, UnknownSpec, Version};

pub(crate) struct Machine {
    applied: Option<LogId>,
    membership: StoredMembership,
    view: View,
    views: watch::Sender<View>,
    disk: Arc<Disk>,
    writer: Writer,
    sizes: Arc<Sizes>,
}

impl Machine {
    /// Starts from the last snapshot, if there is one.
    pub(crate) fn start(
        snapshot: Option<FoundSnapshot>,
        (disk, writer): (Arc<Disk>, Writer),
        sizes: Arc<Sizes>,
    ) -> (Self, watch::Receiver<View>) {
        let (views, published) = watch::channel(View::default());
        let mut machine = Self {
            applied: None,
            membership: StoredMembership::default(),
            view: View::default(),
            views,
            disk,
            writer,
            sizes,
        };
        if let Some(FoundSnapshot { meta, view, .. }) = snapshot {
            machine.restore(&meta, view);
        }
        (machine, published)
    }

    fn restore(&mut self, meta: &SnapshotMeta, view: View) {
        self.view = view;
        self.applied = meta.last_log_id;
        self.membership = meta.last_membership.clone();
        self.views.send_replace(self.view.clone());
    }

    fn take(
        &mut self,
        id: LogId,
        payload: EntryPayload<crate::consensus::Record, u64, crate::consensus::Member>,
    ) -> io::Result<()> {
        let nothing = Changes::default();
        let version = Version(id.index);
        match payload {
            EntryPayload::Blank => self.view.apply(&nothing, version, Timestamp::default()),
            EntryPayload::Normal(mut record) => {
                record.changes.give_specs(&record.specs, &self.view).map_err(unreadable)?;
                self.view.apply(&record.changes, version, record.time);
                self.view.led_by(record.leader, version, record.time);
            }
            EntryPayload::Membership(membership) => {
                self.view.apply(&nothing, version, Timestamp::default());
                self.membership = StoredMembership::new(Some(id), membership);
            }
        }
        self.applied = Some(id);
        Ok(())
    }
}

fn unreadable(error: UnknownSpec) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

impl RaftStateMachine<Consensus> for Machine {
    type SnapshotData = SnapshotData;
    type SnapshotBuilder = Builder;

    async fn applied_state(&mut self) -> io::Result<(Option<LogId>, StoredMembership)> {
        Ok((self.applied, self.membership.clone()))
    }

    async fn apply<Strm>(&mut self, mut entries: Strm) -> io::Result<()>
    where
        Strm: Stream<Item = io::Result<EntryResponder<Consensus>>> + Unpin + OptionalSend,
    {
        let mut responders = Vec::new();
        while let Some((entry, responder)) = entries.try_next().await? {
            self.take(entry.log_id, entry.payload)?;
            responders.extend(responder);
        }
        // Whoever is answered finds the change in the view.
        self.views.send_replace(self.view.clone());
        for responder in responders {
            responder.send(());
        }
        Ok(())
    }

    async fn get_snapshot_builder(&mut self) -> Builder {
        Builder {
            meta: SnapshotMeta {
                last_log_id: self.applied,
                last_membership: self.membership.clone(),
            },
            view: self.view.clone(),
            writer: self.writer.clone(),
            sizes: Arc::clone(&self.sizes),
            written: self.sizes.written(),
        }
    }

    async fn install_snapshot(&mut self, meta: &SnapshotMeta, data: Vec<u8>) -> io::Result<()> {
        let written = self.sizes.written();
        let meta = meta.clone();
        let unpack = tokio::task::spawn_blocking(move || {
            let view = decode_state(&data)?;
            let stored = StoredSnapshot { meta, data };
            Ok::<_, io::Error>((view, encode(&stored)?, stored.meta))
        });
        let (view, whole, meta) = unpack.await.map_err(io::Error::other)??;
        let (size, keep) = (bytes(&whole), kept(&view));
        // A restart finds what was seen: it is shown once it is on disk. Should it be cut off between
        // the snapshot and the log before it, the library forgets that log when it starts again.
        self.writer.write(Write::Snapshot { whole, keep }).await?;
        self.sizes.measure(size, written);
        self.restore(&meta, view);
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> io::Result<Option<Snapshot>> {
        let disk = Arc::clone(&self.disk);
        let read = tokio::task::spawn_blocking(move || disk.snapshot());
        let stored = read.await.map_err(io::Error::other)??;
        Ok(stored.map(|stored| Snapshot { meta: stored.meta, snapshot: stored.data }))
    }
}

/// How many snapshots before the newest one the cluster wants to keep.
fn kept(view: &View) -> u64 {
    view.cluster().map_or(0, |cluster| cluster.spec.kept_snapshots)
}

/// The whole state, as a snapshot holds it.
pub(crate) fn encode_state(view: &View) -> io::Result<Vec<u8>> {
    encode(&store::Snapshot::from(view))
}

/// The state that a snapshot holds.
pub(crate) fn decode_state(data: &[u8]) -> io::Result<View> {
    let snapshot = decode::<store::Snapshot>(data)?;
    if !snapshot.format.is_known() {
        let text = format!(
            "a snapshot has format {}, and this release reads formats up to {}",
            snapshot.format,
            Format::PRESENT
        );
        return Err(io::Error::new(io::ErrorKind::InvalidData, text));
    }
    View::try_from(snapshot).map_err(unreadable)
}

/// Writes one snapshot. The view it holds stays as it is while entries go on being applied.
pub(crate) struct Builder {
    meta: SnapshotMeta,
    view: View,
    writer: Writer,
    sizes: Arc<Sizes>,
    /// When it was begun.
    written: u64,
}

impl RaftSnapshotBuilder<Consensus> for Builder {
    type SnapshotData = SnapshotData;

    async fn build_snapshot(&mut self) -> io::Result<Snapshot> {
        let (meta, view) = (self.meta.clone(), self.view.clone());
        let keep = kept(&view);
        let build = tokio::task::spawn_blocking(move || {
            let data = encode_state(&view)?;
            let stored = StoredSnapshot { meta, data };
            Ok::<_, io::Error>((encode(&stored)?, stored))
        });
        let (whole, stored) = build.await.map_err(io::Error::other)??;
        let size = bytes(&whole);
        self.writer.write(Write::Snapshot { whole, keep }).await?;
        self.sizes.measure(size, self.written);
        Ok(Snapshot { meta: stored.meta, snapshot: stored.data })
    }
}
