//! A stand-in for what runs containers, for tests of this crate and of its users.
//!
//! Containers are entries of a map that write into their real FIFOs. Clones share everything: they
//! outlive an engine that is started again, as containers do.

use crate::runtime::{
    Archive, Credentials, Distribution, Exit, Happening, Image, Progress, Runtime, RuntimeFuture,
    Size, State, Stdio, Usage,
};
use futures_util::StreamExt;
use futures_util::future::FutureExt;
use futures_util::stream::{self, BoxStream};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use types::Fault;

const HAPPENINGS: usize = 256;
const PID: u32 = 1_000_000;
const KILL: i32 = 9;

/// Remembers containers. Clones share them.
#[derive(Clone, Default)]
pub struct Fake {
    state: Arc<Mutex<Held>>,
    /// Counts changes, for those who wait for one.
    changed: Arc<watch::Sender<u64>>,
}

#[derive(Default)]
#[expect(clippy::struct_excessive_bools, reason = "as many moods as a runtime has")]
struct Held {
    images: BTreeMap<String, Image>,
    containers: BTreeMap<String, Kept>,
    execs: BTreeMap<String, Run>,
    mounts: Vec<PathBuf>,
    /// Images that were mounted for containers, and where.
    image_mounts: Vec<(String, PathBuf)>,
    listeners: Vec<mpsc::Sender<Happening>>,
    /// What further processes do, by their first word.
    scripts: BTreeMap<String, Script>,
    /// Calls fail as if the runtime's daemon were away.
    away: bool,
    /// The runtime cannot tell how containers are that were started.
    puzzled: bool,
    /// A list leaves containers out that were started.
    forgetful: bool,
    /// What the next looks at a container are answered with.
    faults: Vec<Fault>,
    /// File systems are not made until this is false.
    slow: bool,
    /// The process of every container that is started; one that is not there where 0.
    pid: u32,
    /// What file systems and starts fail with.
    broken: Option<Fault>,
    /// Containers end at SIGTERM unless told otherwise.
    stubborn: bool,
    pulls: usize,
    /// What the last pull was given.
    credentials: Option<Credentials>,
    /// What a registry has, by complete name; the image's id is the digest.
    registry: BTreeMap<String, Image>,
    asked: usize,
}

#[derive(Clone, Default)]
struct Kept {
    run: Option<Run>,
    signals: Vec<i32>,
}

#[derive(Clone, Default)]
struct Run {
    spec: Value,
    stdio: Stdio,
    exit: Option<Exit>,
}

/// What a further process does.
#[derive(Clone, Debug, Default)]
pub struct Script {
    pub output: String,
    pub error: String,
    pub code: i32,
    /// Goes on until it is killed.
    pub hangs: bool,
}

impl Fake {
    /// One with an image of this complete name.
    pub fn with_image(name: &str, config: Value) -> Self {
        let fake = Self::default();
        fake.add_image(name, config);
        fake
    }

    /// Adds an image; its id is made from its name.
    pub fn add_image(&self, name: &str, config: Value) {
        let id = format!(
            "sha256:{:0<64}",
            name.bytes()
                .fold(0_u64, |sum, byte| { sum.wrapping_mul(31).wrapping_add(u64::from(byte)) })
        );
        let image = Image {
            id: id.clone(),
            names: vec![name.to_owned()],
            digest: id.clone(),
            size: 1,
            config: Value::Object([("config".to_owned(), config)].into_iter().collect()),
        };
        self.change(|held| held.images.insert(id, image));
    }

    /// A container writes to its standard output or error.
    pub fn write(&self, id: &str, text: &str, to_stderr: bool) {
        let stdio = self.held().containers[id].run.clone().unwrap_or_default().stdio;
        let path = if to_stderr { stdio.stderr } else { stdio.stdout };
        write(path.as_deref(), text);
    }

    /// A container ends.
    pub fn end(&self, id: &str, code: i32) {
        self.end_at(id, Exit { code, at: crate::clock::now() });
    }

    /// A container ends at a time that the clock showed.
    pub fn end_at(&self, id: &str, exit: Exit) {
        let told = self.change(|held| {
            let run = held.containers.get_mut(id).and_then(|kept| kept.run.as_mut());
            let Some(run) = run.filter(|run| run.exit.is_none()) else { return false };
            run.exit = Some(exit);
            true
        });
        if told {
            self.tell(&Happening::Ended { id: id.to_owned(), exit });
        }
    }

    /// A container ends while nobody listens.
    pub fn end_unseen(&self, id: &str, code: i32) {
        self.change(|held| {
            let run = held.containers.get_mut(id).and_then(|kept| kept.run.as_mut());
            if let Some(run) = run {
                run.exit = Some(Exit { code, at: crate::clock::now() });
            }
        });
    }

    /// Tells everyone who listens.
    pub fn tell(&self, happening: &Happening) {
        let mut held = self.held();
        held.listeners.retain(|listener| listener.try_send(happening.clone()).is_ok());
    }

    /// What further processes with this first word do.
    pub fn script(&self, word: &str, script: Script) {
        self.change(|held| held.scripts.insert(word.to_owned(), script));
    }

    /// Whether calls fail because the runtime's daemon is away.
    pub fn set_away(&self, away: bool) {
        self.change(|held| held.away = away);
    }

    /// Whether the runtime cannot tell how containers are that were started.
    pub fn set_puzzled(&self, puzzled: bool) {
        self.change(|held| held.puzzled = puzzled);
    }

    /// Whether lists leave out containers that were started.
    pub fn set_forgetful(&self, forgetful: bool) {
        self.change(|held| held.forgetful = forgetful);
    }

    /// What the next looks at a container are answered with, one each.
    pub fn answer_with(&self, faults: Vec<Fault>) {
        self.change(|held| held.faults = faults);
    }

    /// How many of these answers were not given yet.
    pub fn unanswered(&self) -> usize {
        self.held().faults.len()
    }

    /// The process of every container that is started from now on.
    pub fn set_pid(&self, pid: u32) {
        self.change(|held| held.pid = pid);
    }

    /// Whether the runtime takes its time to make file systems.
    pub fn set_slow(&self, slow: bool) {
        self.change(|held| held.slow = slow);
    }

    /// Whether containers ignore SIGTERM.
    pub fn set_stubborn(&self, stubborn: bool) {
        self.change(|held| held.stubborn = stubborn);
    }

    /// What file systems and starts, also of further processes, fail with from now on.
    pub fn set_broken(&self, broken: Option<Fault>) {
        self.change(|held| held.broken = broken);
    }

    /// The specification a container was started with.
    pub fn spec(&self, id: &str) -> Option<Value> {
        let held = self.held();
        Some(held.containers.get(id)?.run.as_ref()?.spec.clone())
    }

    /// Which images were mounted for containers, and where.
    pub fn image_mounts(&self) -> Vec<(String, PathBuf)> {
        self.held().image_mounts.clone()
    }

    /// The signals a container got.
    pub fn signals(&self, id: &str) -> Vec<i32> {
        self.held().containers.get(id).map(|kept| kept.signals.clone()).unwrap_or_default()
    }

    /// The containers that have a file system.
    pub fn ids(&self) -> Vec<String> {
        self.held().containers.keys().cloned().collect()
    }

    /// A registry has this image, whose digest is made from `version`.
    pub fn publish(&self, name: &str, version: u8, config: Value) {
        let id = format!("sha256:{version:064x}");
        let repository = name.rsplit_once(':').map_or(name, |(repository, _)| repository);
        let names = vec![name.to_owned(), format!("{repository}@{id}")];
        let config = Value::Object([("config".to_owned(), config)].into_iter().collect());
        let image = Image { id: id.clone(), names, digest: id, size: 1, config };
        self.change(|held| held.registry.insert(name.to_owned(), image));
    }

    /// How often a registry was asked for a digest.
    pub fn asked(&self) -> usize {
        self.held().asked
    }

    /// How often something was pulled.
    pub fn pulls(&self) -> usize {
        self.held().pulls
    }

    /// What the last pull was given.
    pub fn credentials(&self) -> Option<Credentials> {
        self.held().credentials.clone()
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change<T>(&self, change: impl FnOnce(&mut Held) -> T) -> T {
        let result = change(&mut self.held());
        self.changed.send_modify(|count| *count += 1);
        result
    }

    /// Does something at once, unless the daemon is away.
    fn call<T: Send + 'static>(
        &self,
        call: impl FnOnce(&mut Held) -> Result<T, Fault>,
    ) -> RuntimeFuture<'static, T> {
        let away = Err(Fault::unavailable("the runtime is away"));
        let answer = if self.held().away { away } else { self.change(call) };
        std::future::ready(answer).boxed()
    }

    fn end_exec(&self, key: &str, code: i32) {
        self.change(|held| {
            if let Some(run) = held.execs.get_mut(key).filter(|run| run.exit.is_none()) {
                run.exit = Some(Exit { code, at: crate::clock::now() });
            }
        });
    }
}

fn write(path: Option<&Path>, text: &str) {
    let Some(path) = path.filter(|_| !text.is_empty()) else { return };
    let opened = std::fs::OpenOptions::new().write(true).open(path);
    let written = opened.and_then(|mut file| file.write_all(text.as_bytes()));
    written.unwrap_or_else(|error| tracing::error!(%error, "the stand-in cannot write"));
}

fn no_container(id: &str) -> Fault {
    Fault::not_found(format!("No such container: {id}"))
}

fn key(id: &str, exec: &str) -> String {
    format!("{id}/{exec}")
}

fn state(kept: &Kept, puzzled: bool) -> State {
    match kept.run.as_ref().map(|run| run.exit) {
        None => State::Prepared,
        Some(_) if puzzled => State::Unknown,
        Some(None) => State::Running { pid: PID },
        Some(Some(exit)) => State::Ended(exit),
    }
}

impl Runtime for Fake {
    fn load(&self, _: Archive) -> RuntimeFuture<'_, Vec<Image>> {
        self.call(|held| Ok(held.images.values().cloned().collect()))
    }

    fn import(&self, _: Archive, name: Option<String>, config: Value) -> RuntimeFuture<'_, Image> {
        let names: Vec<String> = name.into_iter().collect();
        self.call(|_| Ok(Image { names, config, ..Image::default() }))
    }

    fn pull(
        &self,
        name: String,
        credentials: Option<Credentials>,
        progress: mpsc::Sender<Progress>,
    ) -> RuntimeFuture<'_, Image> {
        let status = "Pull complete".to_owned();
        let _full = progress.try_send(Progress { status, ..Progress::default() });
        let published = self.held().registry.get(&name).cloned();
        match published {
            Some(image) => self.change(|held| {
                for other in held.images.values_mut() {
                    other.names.retain(|own| *own != name);
                }
                held.images.insert(image.id.clone(), image);
            }),
            None => self.add_image(&name, json!({ "Cmd": ["run"] })),
        }
        self.call(|held| {
            held.pulls += 1;
            held.credentials = credentials;
            let image = held.images.values().find(|image| image.names.contains(&name));
            image.cloned().ok_or_else(|| Fault::internal("it was just added"))
        })
    }

    /// Others get their turn before a registry answers.
    fn resolve(&self, name: String, _: Option<Credentials>) -> RuntimeFuture<'_, Distribution> {
        let answer = self.call(|held| {
            held.asked += 1;
            let image = held.registry.get(&name);
            let unreachable = || Fault::internal(format!("{name}: no route to host"));
            let digest = image.ok_or_else(unreachable)?.digest.clone();
            Ok(Distribution { digest, ..Distribution::default() })
        });
        async move {
            tokio::task::yield_now().await;
            answer.await
        }
        .boxed()
    }

    fn images(&self) -> RuntimeFuture<'_, Vec<Image>> {
        self.call(|held| Ok(held.images.values().cloned().collect()))
    }

    fn image(&self, name: String) -> RuntimeFuture<'_, Option<Image>> {
        self.call(|held| {
            let mut images = held.images.values();
            Ok(images.find(|image| image.id == name || image.names.contains(&name)).cloned())
        })
    }

    fn tag(&self, image: String, name: String) -> RuntimeFuture<'_, ()> {
        self.call(|held| {
            held.images.values_mut().for_each(|image| image.names.retain(|own| *own != name));
            let found = held.images.get_mut(&image);
            found.ok_or_else(|| Fault::not_found("No such image"))?.names.push(name);
            Ok(())
        })
    }

    fn untag(&self, name: String) -> RuntimeFuture<'_, ()> {
        self.call(|held| {
            held.images.values_mut().for_each(|image| image.names.retain(|own| *own != name));
            held.images.retain(|_, image| !image.names.is_empty());
            Ok(())
        })
    }

    fn prepare(&self, id: String, _: String) -> RuntimeFuture<'_, ()> {
        let mut changed = self.changed.subscribe();
        let fake = self.clone();
        async move {
            // It never fails: the sender is the stand-in's own.
            let _quick = changed.wait_for(|_| !fake.held().slow).await.is_ok();
            let made = fake.call(|held| {
                if let Some(fault) = held.broken.clone() {
                    return Err(fault);
                }
                held.containers.entry(id).or_default();
                Ok(())
            });
            made.await
        }
        .boxed()
    }

    fn mount(&self, _: String, at: PathBuf) -> RuntimeFuture<'_, ()> {
        self.call(|held| {
            let passwd = "root:x:0:0::/:\nwww:x:33:33::/:\n";
            let made = std::fs::create_dir_all(at.join("etc"))
                .and_then(|()| std::fs::create_dir_all(at.join("data")))
                .and_then(|()| std::fs::write(at.join("data/first"), "from the image"))
                .and_then(|()| std::fs::write(at.join("etc/passwd"), passwd));
            held.mounts.push(at);
            made.map_err(|error| Fault::internal(error.to_string()))
        })
    }

    fn unmount(&self, at: PathBuf) -> RuntimeFuture<'_, ()> {
        self.call(|held| {
            if held.mounts.contains(&at) {
                for entry in ["etc", "data"] {
                    let _gone = std::fs::remove_dir_all(at.join(entry));
                }
            }
            held.mounts.retain(|mount| *mount != at);
            Ok(())
        })
    }

    fn mount_image(
        &self,
        _: String,
        _: usize,
        image: String,
        at: PathBuf,
    ) -> RuntimeFuture<'_, ()> {
        self.call(|held| {
            let image = held.images.get(&image).ok_or_else(|| Fault::not_found("No such image"))?;
            held.image_mounts.push((image.id.clone(), at));
            Ok(())
        })
    }

    fn start(&self, id: String, spec: Value, stdio: Stdio) -> RuntimeFuture<'_, u32> {
        self.call(|held| {
            if let Some(fault) = held.broken.clone() {
                return Err(fault);
            }
            let kept = held.containers.get_mut(&id).ok_or_else(|| no_container(&id))?;
            kept.run = Some(Run { spec, stdio, exit: None });
            Ok(if held.pid == 0 { PID } else { held.pid })
        })
    }

    fn signal(&self, id: String, signal: i32, _: bool) -> RuntimeFuture<'_, ()> {
        let ends = signal == KILL || (signal == 15 && !self.held().stubborn);
        let answer = self.call(|held| {
            let kept = held.containers.get_mut(&id).ok_or_else(|| no_container(&id))?;
            kept.signals.push(signal);
            Ok(())
        });
        if ends {
            self.end(&id, 128 + signal);
        }
        answer
    }

    fn reap(&self, id: String) -> RuntimeFuture<'_, Option<Exit>> {
        self.call(|held| {
            let Some(kept) = held.containers.get_mut(&id) else { return Ok(None) };
            Ok(kept.run.take().and_then(|run| run.exit))
        })
    }

    fn delete(&self, id: String) -> RuntimeFuture<'_, ()> {
        self.call(|held| {
            held.containers.remove(&id);
            Ok(())
        })
    }

    fn state(&self, id: String) -> RuntimeFuture<'_, Option<State>> {
        self.call(|held| match held.faults.pop() {
            Some(fault) => Err(fault),
            None => Ok(held.containers.get(&id).map(|kept| state(kept, held.puzzled))),
        })
    }

    fn list(&self) -> RuntimeFuture<'_, BTreeMap<String, State>> {
        self.call(|held| {
            let forgotten = |kept: &Kept| held.forgetful && kept.run.is_some();
            let all = held.containers.iter().filter(|(_, kept)| !forgotten(kept));
            Ok(all.map(|(id, kept)| (id.clone(), state(kept, held.puzzled))).collect())
        })
    }

    fn happenings(&self) -> BoxStream<'static, Happening> {
        let (listener, told) = mpsc::channel(HAPPENINGS);
        self.held().listeners.push(listener);
        let first = stream::once(std::future::ready(Happening::Resubscribed));
        first.chain(ReceiverStream::new(told)).chain(stream::pending()).boxed()
    }

    fn exec(
        &self,
        id: String,
        exec: String,
        process: Value,
        stdio: Stdio,
    ) -> RuntimeFuture<'_, u32> {
        let word = process["args"][0].as_str().unwrap_or_default().to_owned();
        let script = self.held().scripts.get(&word).cloned().unwrap_or_default();
        let key = key(&id, &exec);
        let answer = self.call(|held| {
            if let Some(fault) = held.broken.clone() {
                return Err(fault);
            }
            if held.containers.get(&id).is_none_or(|kept| kept.run.is_none()) {
                return Err(no_container(&id));
            }
            let run = Run { spec: process, stdio: stdio.clone(), exit: None };
            held.execs.insert(key.clone(), run);
            Ok(PID + 1)
        });
        write(stdio.stdout.as_deref(), &script.output);
        write(stdio.stderr.as_deref().or(stdio.stdout.as_deref()), &script.error);
        if !script.hangs {
            self.end_exec(&key, script.code);
        }
        answer
    }

    fn exec_wait(&self, id: String, exec: String) -> RuntimeFuture<'_, Exit> {
        let (fake, key) = (self.clone(), key(&id, &exec));
        async move {
            let mut changed = fake.changed.subscribe();
            loop {
                changed.mark_unchanged();
                {
                    let mut held = fake.held();
                    let run = held.execs.get(&key).ok_or_else(|| no_container(&key))?;
                    if let Some(exit) = run.exit {
                        held.execs.remove(&key);
                        return Ok(exit);
                    }
                }
                if changed.changed().await.is_err() {
                    return Err(no_container(&key));
                }
            }
        }
        .boxed()
    }

    fn exec_signal(&self, id: String, exec: String, signal: i32) -> RuntimeFuture<'_, ()> {
        if signal == KILL {
            self.end_exec(&key(&id, &exec), 128 + signal);
        }
        self.call(|_| Ok(()))
    }

    /// Whatever waits for its input ends: containers with what was written to them as output.
    fn close_stdin(&self, id: String, exec: Option<String>) -> RuntimeFuture<'_, ()> {
        match exec {
            Some(exec) => self.end_exec(&key(&id, &exec), 0),
            None => self.end(&id, 0),
        }
        self.call(|_| Ok(()))
    }

    fn resize(&self, _: String, _: Option<String>, _: Size) -> RuntimeFuture<'_, ()> {
        self.call(|_| Ok(()))
    }

    fn pids(&self, _: String) -> RuntimeFuture<'_, Vec<u32>> {
        self.call(|_| Ok(vec![std::process::id()]))
    }

    fn usage(&self, _: String) -> RuntimeFuture<'_, Usage> {
        self.call(|_| Ok(Usage { pids: 1, ..Usage::default() }))
    }

    fn written(&self, _: String) -> RuntimeFuture<'_, u64> {
        self.call(|_| Ok(7))
    }
}
