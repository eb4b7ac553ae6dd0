//! The engine's port, on the parts of this crate.

use crate::{Containerd, Error, happenings, mounts};
use engine::{
    Archive, Credentials, Distribution, Exit, Happening, Image, Progress, Runtime, RuntimeFuture,
    Size, State, Stdio, Usage,
};
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use futures_util::stream::BoxStream;
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::PathBuf;
use tokio::sync::mpsc;
use types::Fault;

/// Boxes a call on a clone, which owns all it needs, and turns its error into the user's.
fn answer<T, F>(call: F) -> BoxFuture<'static, Result<T, Fault>>
where
    F: Future<Output = Result<T, Error>> + Send + 'static,
{
    call.map(|outcome| outcome.map_err(Fault::from)).boxed()
}

impl Runtime for Containerd {
    fn load(&self, archive: Archive) -> RuntimeFuture<'_, Vec<Image>> {
        let own = self.clone();
        answer(async move { own.load_archive(archive).await })
    }

    fn import(
        &self,
        rootfs: Archive,
        name: Option<String>,
        config: Value,
    ) -> RuntimeFuture<'_, Image> {
        let own = self.clone();
        answer(async move { own.import_rootfs(rootfs, name.as_deref(), config).await })
    }

    fn pull(
        &self,
        name: String,
        credentials: Option<Credentials>,
        progress: mpsc::Sender<Progress>,
    ) -> RuntimeFuture<'_, Image> {
        let own = self.clone();
        answer(async move { own.pull_image(&name, credentials.as_ref(), &progress).await })
    }

    fn resolve(
        &self,
        name: String,
        credentials: Option<Credentials>,
    ) -> RuntimeFuture<'_, Distribution> {
        let own = self.clone();
        answer(async move { own.resolve_name(&name, credentials.as_ref()).await })
    }

    fn images(&self) -> RuntimeFuture<'_, Vec<Image>> {
        let own = self.clone();
        answer(async move { own.list_images().await })
    }

    fn image(&self, name: String) -> RuntimeFuture<'_, Option<Image>> {
        let own = self.clone();
        answer(async move { own.find_image(&name).await })
    }

    fn tag(&self, image: String, name: String) -> RuntimeFuture<'_, ()> {
        let own = self.clone();
        answer(async move { own.add_name(&image, &name).await })
    }

    fn untag(&self, name: String) -> RuntimeFuture<'_, ()> {
        let own = self.clone();
        answer(async move { own.remove_name(&name).await })
    }

    fn prepare(&self, id: String, image: String) -> RuntimeFuture<'_, ()> {
        let own = self.clone();
        answer(async move { own.prepare_container(&id, &image).await })
    }

    fn mount(&self, id: String, at: PathBuf) -> RuntimeFuture<'_, ()> {
        let own = self.clone();
        answer(async move { own.mount_container(&id, at).await })
    }

    fn mount_image(
        &self,
        id: String,
        number: usize,
        image: String,
        at: PathBuf,
    ) -> RuntimeFuture<'_, ()> {
        let own = self.clone();
        answer(async move { own.mount_image_for((&id, number), &image, at).await })
    }

    fn unmount(&self, at: PathBuf) -> RuntimeFuture<'_, ()> {
        answer(mounts::beside(move || mounts::unmount(&at)))
    }

    fn start(&self, id: String, spec: Value, stdio: Stdio) -> RuntimeFuture<'_, u32> {
        let own = self.clone();
        answer(async move { own.start_task(&id, spec, &stdio).await })
    }

    fn signal(&self, id: String, signal: i32, all: bool) -> RuntimeFuture<'_, ()> {
        let own = self.clone();
        answer(async move { own.signal_process(&id, "", signal, all).await })
    }

    fn reap(&self, id: String) -> RuntimeFuture<'_, Option<Exit>> {
        let own = self.clone();
        answer(async move { own.reap_task(&id).await })
    }

    fn delete(&self, id: String) -> RuntimeFuture<'_, ()> {
        let own = self.clone();
        answer(async move { own.delete_container(&id).await })
    }

    fn state(&self, id: String) -> RuntimeFuture<'_, Option<State>> {
        let own = self.clone();
        answer(async move { own.container_state(&id).await })
    }

    fn list(&self) -> RuntimeFuture<'_, BTreeMap<String, State>> {
        let own = self.clone();
        answer(async move { own.list_containers().await })
    }

    fn happenings(&self) -> BoxStream<'static, Happening> {
        happenings::listen(self.client().clone(), self.inner.config.patience)
    }

    fn exec(
        &self,
        id: String,
        exec: String,
        process: Value,
        stdio: Stdio,
    ) -> RuntimeFuture<'_, u32> {
        let own = self.clone();
        answer(async move { own.exec_process(&id, &exec, &process, &stdio).await })
    }

    fn exec_wait(&self, id: String, exec: String) -> RuntimeFuture<'_, Exit> {
        let own = self.clone();
        answer(async move { own.wait_process(&id, &exec).await })
    }

    fn exec_signal(&self, id: String, exec: String, signal: i32) -> RuntimeFuture<'_, ()> {
        let own = self.clone();
        answer(async move { own.signal_process(&id, &exec, signal, false).await })
    }

    fn close_stdin(&self, id: String, exec: Option<String>) -> RuntimeFuture<'_, ()> {
        let own = self.clone();
        answer(async move { own.close_input(&id, &exec.unwrap_or_default()).await })
    }

    fn resize(&self, id: String, exec: Option<String>, size: Size) -> RuntimeFuture<'_, ()> {
        let own = self.clone();
        answer(async move { own.resize_terminal(&id, &exec.unwrap_or_default(), size).await })
    }

    fn pids(&self, id: String) -> RuntimeFuture<'_, Vec<u32>> {
        let own = self.clone();
        answer(async move { own.process_ids(&id).await })
    }

    fn usage(&self, id: String) -> RuntimeFuture<'_, Usage> {
        let own = self.clone();
        answer(async move { own.measure(&id).await })
    }

    fn written(&self, id: String) -> RuntimeFuture<'_, u64> {
        let own = self.clone();
        answer(async move { own.written_by(id).await })
    }
}
