//! Further processes in containers.

mod running;

pub(crate) use running::{Piece, Running};

use crate::blocking::{blocking, cannot};
use crate::clock;
use crate::container::Container;
use crate::engine::Engine;
use crate::fifo::{self, Output};
use crate::life;
use crate::rootfs;
use crate::runtime::{Size, Stdio};
use crate::spec::{self, ExecPlan};
use crate::users::{Accounts, User};
use bytes::Bytes;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::io::DuplexStream;
use tokio::net::unix::pipe::Sender;
use tokio::sync::{mpsc, watch};
use types::Fault;

/// Processes that are remembered; then the oldest that has ended is forgotten.
const KEPT: usize = 1024;
/// Pieces of output that wait for a client.
pub(crate) const CHUNKS: usize = 64;
/// Docker's exit code of a process that went with its container.
const KILLED: i32 = 137;
/// How long the size of a terminal waits for its process, as with Docker.
const START_TIMEOUT: Duration = Duration::from_secs(10);
/// Between two tries while the runtime is away.
const PAUSE: Duration = Duration::from_millis(500);

/// A further process.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "as many streams and switches as Docker has")]
pub struct ExecConfig {
    pub command: Vec<String>,
    pub env: Vec<String>,
    /// The container's own where empty.
    pub dir: String,
    /// The container's own where empty.
    pub user: String,
    pub tty: bool,
    pub stdin: bool,
    pub stdout: bool,
    pub stderr: bool,
    pub privileged: bool,
    /// The keys by which a client leaves the terminal; Docker's where empty.
    pub detach_keys: Vec<u8>,
}

/// What is known of such a process.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ExecInfo {
    pub id: String,
    /// The container's id.
    pub container: String,
    pub config: ExecConfig,
    pub running: bool,
    /// On the host; 0 before it starts.
    pub pid: u32,
    /// None before it has ended.
    pub exit_code: Option<i32>,
}

/// What a client wants of a container's standard streams.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "as many streams and switches as Docker has")]
pub struct AttachOptions {
    /// First what is in the log.
    pub logs: bool,
    /// Then what comes.
    pub stream: bool,
    pub stdin: bool,
    pub stdout: bool,
    pub stderr: bool,
}

/// A piece of output.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chunk {
    pub stderr: bool,
    pub bytes: Bytes,
}

/// A client's ends of the standard streams.
#[derive(Debug)]
pub struct Attached {
    /// Output is raw bytes of a terminal, to be sent without frames.
    pub tty: bool,
    /// Ends when the process has ended and all it wrote was received.
    pub output: mpsc::Receiver<Chunk>,
    /// Shutting it down ends the process's standard input. `None` where it has none.
    pub input: Option<DuplexStream>,
}

/// A process that a client asked for.
#[derive(Debug)]
pub(crate) struct Exec {
    number: u64,
    info: watch::Sender<ExecInfo>,
}

impl Exec {
    fn info(&self) -> watch::Ref<'_, ExecInfo> {
        self.info.borrow()
    }

    fn ended(&self, code: i32) {
        self.info.send_modify(|info| {
            info.running = false;
            info.exit_code = Some(code);
        });
    }
}

/// A process that runs.
pub(crate) struct Launched {
    pub(crate) pid: u32,
    /// `None` where nobody wants it.
    pub(crate) output: Option<Output>,
    pub(crate) input: Option<Sender>,
    pub(crate) streams: Streams,
}

/// The FIFOs of a process, which go with this.
pub(crate) struct Streams(Stdio);

impl Drop for Streams {
    fn drop(&mut self) {
        for path in [&self.0.stdin, &self.0.stdout, &self.0.stderr].into_iter().flatten() {
            let _gone = std::fs::remove_file(path);
        }
    }
}

impl Engine {
    /// Notes a further process for a running container. Returns its id.
    #[expect(clippy::unused_async, reason = "like the other calls; it may wait one day")]
    pub async fn exec_create(&self, name: &str, config: ExecConfig) -> Result<String, Fault> {
        let container = self.running(name)?;
        if config.command.is_empty() {
            return Err(Fault::invalid("No exec command specified"));
        }
        let id = clock::draw_id();
        let command = config.command.join(" ");
        let info = ExecInfo {
            id: id.clone(),
            container: container.id().to_owned(),
            config,
            ..ExecInfo::default()
        };
        let mut execs = self.execs();
        let number = execs.values().map(|exec| exec.number).max().unwrap_or(0) + 1;
        if KEPT <= execs.len() {
            let ended = execs.values().filter(|exec| !exec.info().running);
            let oldest = ended.min_by_key(|exec| exec.number).map(|exec| exec.info().id.clone());
            let full = || Fault::unavailable("too many processes were started in containers");
            execs.remove(&oldest.ok_or_else(full)?);
        }
        execs.insert(id.clone(), Arc::new(Exec { number, info: watch::Sender::new(info) }));
        drop(execs);
        let of = [("execID", id.clone())];
        container.tell(&self.inner.events, &format!("exec_create: {command}"), &of);
        Ok(id)
    }

    /// What is known of a process that can be started, or why it cannot.
    pub fn exec_ready(&self, exec: &str) -> Result<ExecInfo, Fault> {
        let info = self.exec_inspect(exec)?;
        if info.running || info.exit_code.is_some() {
            let reason = format!("Error: Exec command {} has already run", info.id);
            return Err(Fault::conflict(reason));
        }
        self.running(&info.container)?;
        Ok(info)
    }

    /// Starts it, with streams as its configuration asks; with `detach` there are none. Where it
    /// cannot be started, [`ExecInfo::exit_code`] is 126 to 128.
    pub async fn exec_start(&self, exec: &str, detach: bool) -> Result<Attached, Fault> {
        let (engine, exec) = (self.clone(), self.exec(exec)?);
        self.complete(async move { engine.exec_start_one(&exec, detach).await }).await
    }

    async fn exec_start_one(&self, exec: &Arc<Exec>, detach: bool) -> Result<Attached, Fault> {
        let id = exec.info().id.clone();
        let ExecInfo { container, mut config, .. } = self.exec_ready(&id)?;
        // Of two clients at once, one starts it.
        let first = exec.info.send_if_modified(|info| !std::mem::replace(&mut info.running, true));
        if !first {
            return Err(Fault::conflict(format!("Error: Exec command {id} is already running")));
        }
        if detach {
            (config.stdin, config.stdout, config.stderr) = (false, false, false);
        }
        let container = self.running(&container).inspect_err(|_ended| exec.ended(KILLED))?;
        let launched = self.launch(&container, &id, &config).await;
        let launched = launched.inspect_err(|fault| exec.ended(life::code_of(fault)))?;
        exec.info.send_modify(|info| info.pid = launched.pid);
        let of = [("execID", id.clone())];
        let command = format!("exec_start: {}", config.command.join(" "));
        container.tell(&self.inner.events, &command, &of);
        Ok(self.attend(exec, &container, launched, &config))
    }

    /// Carries the streams of a process until it has ended.
    fn attend(
        &self,
        exec: &Arc<Exec>,
        container: &Arc<Container>,
        launched: Launched,
        config: &ExecConfig,
    ) -> Attached {
        let Launched { output, input, streams, .. } = launched;
        let (sink, receiver) = mpsc::channel(CHUNKS);
        let runtime = Arc::clone(&self.inner.runtime);
        let (events, of) = (self.inner.events.clone(), Arc::clone(container));
        let (container, id) = (container.id().to_owned(), exec.info().id.clone());
        let over = self.inner.token.child_token();
        let client = input.map(|pipe| {
            let (client, engine) = tokio::io::duplex(64 << 10);
            let (runtime, container, id) = (Arc::clone(&runtime), container.clone(), id.clone());
            let feeding = feed(engine, pipe);
            let (over, tty) = (over.clone(), config.tty);
            self.inner.tracker.spawn(async move {
                // A terminal stays open: its process goes on without the client.
                if over.run_until_cancelled(feeding).await.is_some() && !tty {
                    let _gone = runtime.close_stdin(container, Some(id)).await;
                }
            });
            client
        });
        let (exec, stdout, stderr) = (Arc::clone(exec), config.stdout, config.stderr);
        let token = self.inner.token.clone();
        let mut running = Running::new(&runtime, &container, &id, output);
        self.inner.tracker.spawn(async move {
            let carrying = async {
                loop {
                    match running.next().await {
                        Piece::Ended(exit) => break exit,
                        Piece::Output(chunk) => {
                            let wanted = if chunk.stderr { stderr } else { stdout };
                            if wanted {
                                // A client that has gone is not waited for; its process goes on.
                                let _gone = sink.send(chunk).await;
                            }
                        }
                    }
                }
            };
            let exit = token.run_until_cancelled(carrying).await;
            over.cancel();
            drop(streams);
            let code = exit.map_or(KILLED, |exit| exit.code);
            exec.ended(code);
            let ended = [("execID", id), ("exitCode", code.to_string())];
            of.tell(&events, "exec_die", &ended);
        });
        Attached { tty: config.tty, output: receiver, input: client }
    }

    /// Starts a process in a container.
    pub(crate) async fn launch(
        &self,
        container: &Arc<Container>,
        exec: &str,
        config: &ExecConfig,
    ) -> Result<Launched, Fault> {
        let user = self.exec_user(container, &config.user).await?;
        let rendered = spec::exec(&ExecPlan {
            config: &container.fixed.config,
            image: &container.image,
            machine: &self.inner.machine,
            hostname: &container.hostname(),
            user: &user,
            exec: config,
        })?;
        let stdio = stdio(&container.run, exec, config);
        let streams = Streams(stdio.clone());
        let made = stdio.clone();
        blocking(move || {
            let mut paths = [&made.stdin, &made.stdout, &made.stderr].into_iter().flatten();
            paths.try_for_each(|path| fifo::make(path)).map_err(cannot("make a process's streams"))
        })
        .await?;
        let output = match &stdio.stdout {
            Some(stdout) => Some(
                Output::open(stdout, stdio.stderr.as_deref())
                    .map_err(cannot("open a process's output"))?,
            ),
            None => None,
        };
        let input = stdio.stdin.as_deref().map(fifo::writer).transpose();
        let input = input.map_err(cannot("open a process's input"))?;
        let (id, exec) = (container.id().to_owned(), exec.to_owned());
        let pid = self.inner.runtime.exec(id, exec, rendered, stdio).await?;
        Ok(Launched { pid, output, input, streams })
    }

    /// Finds a user in the running container's own files.
    async fn exec_user(&self, container: &Container, wanted: &str) -> Result<User, Fault> {
        let spec = &container.fixed.config.spec;
        let names = [wanted, &spec.user, &container.image.user];
        let name = names.into_iter().find(|name| !name.is_empty()).unwrap_or_default().to_owned();
        let groups = if wanted.is_empty() { spec.groups.clone() } else { Vec::new() };
        let root = PathBuf::from(format!("/proc/{}/root", container.state.borrow().pid));
        blocking(move || {
            let accounts = rootfs::accounts(&root).or_else(|error| {
                // Numbers need no files.
                let numeric = name.chars().all(|c| c.is_ascii_digit() || c == ':');
                if numeric { Ok(Accounts::default()) } else { Err(error) }
            });
            accounts.map_err(cannot("read the container's users"))?.find(&name, &groups)
        })
        .await
    }

    /// What is known of a further process.
    pub fn exec_inspect(&self, exec: &str) -> Result<ExecInfo, Fault> {
        Ok(self.exec(exec)?.info().clone())
    }

    /// Sets the size of its terminal. A client may ask for it before the process is there.
    pub async fn exec_resize(&self, exec: &str, size: Size) -> Result<(), Fault> {
        let mut info = self.exec(exec)?.info.subscribe();
        let there = info.wait_for(|info| info.pid != 0 || info.exit_code.is_some());
        let found = tokio::time::timeout(START_TIMEOUT, there).await;
        let late = || Fault::internal("timeout waiting for exec session ready");
        let info = found.ok().and_then(Result::ok).ok_or_else(late)?.clone();
        if !info.running {
            return Err(Fault::conflict(format!("exec {exec} is not running")));
        }
        self.inner.runtime.resize(info.container, Some(info.id), size).await
    }

    fn exec(&self, id: &str) -> Result<Arc<Exec>, Fault> {
        let missing = || Fault::not_found(format!("No such exec instance: {id}"));
        self.execs().get(id).map(Arc::clone).ok_or_else(missing)
    }

    /// The processes of clients that run in a container, by their ids.
    pub(crate) fn running_execs(&self, container: &str) -> Vec<String> {
        let execs = self.execs();
        let of_it = execs.iter().filter(|(_, exec)| {
            let info = exec.info();
            info.container == container && info.running
        });
        of_it.map(|(id, _)| id.clone()).collect()
    }

    /// Forgets the processes of a container that is removed.
    pub(crate) fn forget_execs(&self, container: &str) {
        self.execs().retain(|_, exec| exec.info().container != container);
    }

    fn execs(&self) -> MutexGuard<'_, BTreeMap<String, Arc<Exec>>> {
        self.inner.execs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn stdio(run: &Path, exec: &str, config: &ExecConfig) -> Stdio {
    let wanted = config.tty || config.stdout || config.stderr;
    let path = |name| run.join(format!("{exec}-{name}"));
    Stdio {
        stdin: config.stdin.then(|| path("stdin")),
        stdout: wanted.then(|| path("stdout")),
        stderr: (wanted && !config.tty).then(|| path("stderr")),
        terminal: config.tty,
    }
}

/// Copies what a client sends into a process's input, until the client ends it.
pub(crate) async fn feed(mut client: DuplexStream, pipe: Sender) {
    let mut buffer = vec![0; 16 << 10];
    while let Ok(count) = tokio::io::AsyncReadExt::read(&mut client, &mut buffer).await {
        if count == 0 || fifo::write_all(&pipe, &buffer[..count]).await.is_err() {
            return;
        }
    }
}
