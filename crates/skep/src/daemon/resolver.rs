//! The process of the name server: how a daemon starts it, and what it does.
//!
//! It is a process of its own because containers must find names while no daemon runs. The daemon
//! adopts the one that it finds and replaces one of another version; when it dies, the daemon
//! starts it anew and tells it everything again. Ending the daemon leaves it running.
//!
//! It has two halves (docs/adr/0005-name-server-without-rights.md): the one that is started is the
//! broker, which opens sockets in containers' namespaces and reads containers' output while no
//! daemon runs; the other one, its child, hears containers and daemons, and has no rights at all.
//! They end together.

use super::{options, raise_file_limit};
use crate::process::{end, running};
use anyhow::{Context, Result, bail};
use clap::Args;
use dataplane::Names;
use host::Process;
use nix::sys::signal::{SigSet, Signal, kill};
use nix::unistd::Pid;
use scope::Scope;
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Mutex;
use std::thread;
use std::time::Duration;
use tokio::net::UnixListener;
use tokio::process::{Child, Command};
use tokio::time::{sleep, timeout};
use tracing::Level;

/// How long the process may take until it listens.
const START_MAX: Duration = Duration::from_secs(5);
/// How long one that is replaced may take to close its sockets.
const END_MAX: Duration = Duration::from_secs(2);
const POLL: Duration = Duration::from_millis(5);
/// The log begins anew when it is longer.
const LOG_MAX: u64 = 1 << 20;

/// Options of `skep resolver`.
#[derive(Args, Clone, Debug)]
pub(crate) struct Options {
    /// The daemon's run folder: the socket and the pid file are there
    #[arg(long, value_name = "DIR")]
    run: PathBuf,
    /// Where upstream DNS servers are read from
    #[arg(long, value_name = "FILE")]
    resolv_conf: PathBuf,
    /// Where problems are noted
    #[arg(long, value_name = "FILE")]
    log: PathBuf,
    /// Be the half without rights: the broker is at standard input
    #[arg(long, hide = true)]
    brokered: bool,
}

/// What lists of processes call both halves; at most 15 characters.
const NAME: &str = "skep-resolver";

/// The user that the half without rights is, and its group. Systemd's list of ids leaves it unused,
/// so that nobody else is the same.
const USER: u32 = 61_053;

fn socket(run: &Path) -> PathBuf {
    run.join("resolver.sock")
}

/// Where the process notes its pid. The run folder is among its arguments.
pub(crate) fn pid_file(run: &Path) -> PathBuf {
    run.join("resolver.pid")
}

/// The daemon's way to the process.
pub(super) fn names(options: &options::Options, scope: &mut Scope) -> Names {
    let options = Options {
        run: options.run.clone(),
        resolv_conf: options.resolv_conf.clone(),
        log: options.data.join("resolver.log"),
        brokered: false,
    };
    Names::at(socket(&options.run), Program(options), scope)
}

/// This program as the name server's process.
struct Program(Options);

impl dataplane::Process for Program {
    async fn renew(&mut self) -> io::Result<()> {
        self.replace().await.map_err(|error| io::Error::other(format!("{error:#}")))
    }
}

impl Program {
    /// Starts a new process and, once it listens, ends the one before: the new one opens the
    /// containers' sockets when it is told of them, which is after this.
    async fn replace(&self) -> Result<()> {
        let old = running(&pid_file(&self.0.run), &self.0.run.display().to_string());
        let mut child = self.start()?;
        let listens = timeout(START_MAX, self.listens(&mut child)).await;
        if let Err(error) = listens.unwrap_or_else(|_| bail!("it does not listen in time")) {
            // It may have ended already.
            drop(child.start_kill());
            return Err(error.context(format!("its log is {}", self.0.log.display())));
        }
        match old {
            Some(old) => end_process(old).await,
            None => Ok(()),
        }
    }

    fn start(&self) -> Result<Child> {
        let log = open_log(&self.0.log)?;
        let mut command = Command::from(command(&self.0));
        let command = command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        command.spawn().context("cannot start the name server's process")
    }

    /// Waits until the process has noted its pid: then it listens.
    async fn listens(&self, child: &mut Child) -> Result<()> {
        let id = child.id().map(|id| id.to_string());
        while fs::read_to_string(pid_file(&self.0.run)).ok() != id {
            if let Some(status) = child.try_wait()? {
                bail!("it ended with {status}");
            }
            sleep(POLL).await;
        }
        Ok(())
    }
}

/// The very program that runs here, also when its file was replaced meanwhile.
#[expect(clippy::disallowed_methods, reason = "the daemon's own process for names")]
fn command(options: &Options) -> std::process::Command {
    let mut command = std::process::Command::new("/proc/self/exe");
    // It outlives us, and whatever it inherited would live on with it.
    linux::sealed(&mut command);
    command
        .arg0("skep")
        .arg("resolver")
        .arg("--run")
        .arg(&options.run)
        .arg("--resolv-conf")
        .arg(&options.resolv_conf)
        .arg("--log")
        .arg(&options.log)
        .env_clear()
        .current_dir("/");
    command
}

/// Ends the process, patiently at first: then every socket is closed when it has ended.
pub(crate) async fn end_process(process: Process) -> Result<()> {
    process.signal(Signal::SIGTERM);
    if process.ended_within(END_MAX).await {
        return Ok(());
    }
    end(process, Signal::SIGKILL).await
}

/// Is one half of the process: serves until it is told to end. The process has one thread yet.
pub(crate) fn run(options: &Options) -> Result<()> {
    // It was started by way of /proc, and would be `exe` in every list of processes.
    fs::write("/proc/self/comm", NAME).context("cannot take a name")?;
    if options.brokered { answer(options) } else { broker(options) }
}

/// The half with rights.
fn broker(options: &Options) -> Result<()> {
    // Neither a terminal nor the daemon's end shall take it along.
    match nix::unistd::setsid() {
        // It leads a group of its own already: a person has started it.
        Ok(_) | Err(nix::Error::EPERM) => {}
        Err(error) => return Err(error).context("cannot leave the daemon's session"),
    }
    log_to(open_log(&options.log)?)?;
    let broker = linux::Broker {
        folder: options.run.join("netns"),
        resolv_conf: options.resolv_conf.clone(),
        listener: host::listen_at(&socket(&options.run), 0o600, None).context("cannot listen")?,
    };
    fs::create_dir_all(root(&options.run)).context("cannot make the name server's root")?;
    let (ours, theirs) = linux::Broker::way().context("cannot reach the other half")?;
    let mut other = command(options)
        .arg("--brokered")
        .stdin(theirs)
        .stdout(Stdio::inherit())
        .stderr(Stdio::inherit())
        .spawn()
        .context("cannot start the other half")?;
    // The signals that end this half wait for the loop below, in all threads.
    let ends = SigSet::from_iter([Signal::SIGTERM, Signal::SIGINT, Signal::SIGCHLD]);
    ends.thread_block().context("cannot hold signals back")?;
    linux::keep_capabilities()?;
    // What outlives the daemon also reads containers' output while there is none.
    let stand_in = engine::stand_in(options.run.join("containers"));
    vital("stand-in", stand_in.context("cannot keep containers' output")?)?;
    vital("broker", move || {
        if let Err(error) = broker.serve(&ours) {
            tracing::error!(%error, "the name server's broker ends early");
        }
    })?;
    host::replace(&pid_file(&options.run), std::process::id().to_string(), 0o644)
        .context("cannot note the pid")?;
    loop {
        let signal = ends.wait().context("cannot wait for signals")?;
        if let Some(status) = other.try_wait().context("cannot look after the other half")? {
            bail!("the name server ends early, with {status}");
        }
        if signal != Signal::SIGCHLD {
            break;
        }
    }
    other.kill().and_then(|()| other.wait()).context("cannot end the other half")?;
    Ok(())
}

/// Starts a thread without which the process is of no use: when it ends, however it ends, the
/// process is told to end, and a daemon starts it anew.
fn vital(name: &str, run: impl FnOnce() + Send + 'static) -> Result<()> {
    let run = move || {
        let _told = TellsToEnd;
        run();
    };
    let started = thread::Builder::new().name(name.to_owned()).spawn(run);
    started.map(drop).with_context(|| format!("cannot start the thread {name}"))
}

/// Tells this process to end, when it is dropped.
struct TellsToEnd;

impl Drop for TellsToEnd {
    fn drop(&mut self) {
        let told = kill(Pid::this(), Signal::SIGTERM);
        told.unwrap_or_else(|_| std::process::abort());
    }
}

/// The half without rights.
fn answer(options: &Options) -> Result<()> {
    // The broker's log, which it has opened for both.
    log_to(io::stderr().as_fd().try_clone_to_owned().context("there is no log")?.into())?;
    // Two sockets for each container, and one for each of their TCP connections.
    raise_file_limit();
    let way = io::stdin().as_fd().try_clone_to_owned().context("there is no broker")?;
    linux::confine(&root(&options.run), USER)?;
    let broker = linux::Brokered::new(way);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        let listener = broker.listener().await.context("the broker does not answer")?;
        listener.set_nonblocking(true)?;
        let listener = UnixListener::from_std(listener)?;
        let mut scope = Scope::new();
        dataplane::serve(listener, broker, &options.resolv_conf, &mut scope).await;
        scope.join().await.context("the name server ends early")
    })
}

/// An empty folder: all that the half without rights sees of the machine's files.
fn root(run: &Path) -> PathBuf {
    run.join("nothing")
}

fn log_to(file: File) -> Result<()> {
    tracing_subscriber::fmt()
        .with_max_level(Level::WARN)
        .with_writer(Mutex::new(Bounded::new(file)?))
        .with_ansi(false)
        .init();
    Ok(())
}

fn open_log(path: &Path) -> Result<File> {
    let file = File::options().create(true).append(true).open(path);
    file.with_context(|| format!("cannot write {}", path.display()))
}

/// A log file that begins anew when it has grown too long.
struct Bounded {
    file: File,
    len: u64,
}

impl Bounded {
    fn new(file: File) -> io::Result<Self> {
        let len = file.metadata()?.len();
        Ok(Self { file, len })
    }
}

impl Write for Bounded {
    fn write(&mut self, text: &[u8]) -> io::Result<usize> {
        if self.len > LOG_MAX {
            self.file.set_len(0)?;
            self.len = 0;
        }
        let written = self.file.write(text)?;
        self.len += u64::try_from(written).unwrap_or(u64::MAX);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::process::ExitStatusExt;

    #[test]
    fn the_log_does_not_grow_for_ever() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let mut log = Bounded::new(open_log(&path).unwrap()).unwrap();
        let line = [b'a'; 1024];
        for _ in 0..3 * LOG_MAX / 1024 {
            log.write_all(&line).unwrap();
        }
        let len = fs::metadata(&path).unwrap().len();
        assert!((1024..=LOG_MAX + 1024).contains(&len), "{len}");
    }

    #[test]
    #[ignore = "it is what another test starts"]
    fn has_a_vital_thread() {
        let run: fn() = match std::env::var("SKEP_TEST_THREAD").as_deref() {
            Ok("panics") => || panic!("broken"),
            _ => || (),
        };
        vital("one", run).unwrap();
        thread::sleep(Duration::from_secs(20));
    }

    #[test]
    #[expect(clippy::disallowed_methods, reason = "tests run programs")]
    fn the_process_ends_with_each_of_its_threads_however_that_ends() {
        for end in ["panics", "returns"] {
            let test = "daemon::resolver::tests::has_a_vital_thread";
            let status = std::process::Command::new(std::env::current_exe().unwrap())
                .args(["--exact", test, "--ignored", "--nocapture"])
                .env("SKEP_TEST_THREAD", end)
                .status()
                .unwrap();
            assert_eq!(status.signal(), Some(Signal::SIGTERM as i32), "it {end}");
        }
    }
}
