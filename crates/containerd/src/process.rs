//! A containerd of our own: started where none is configured, and found again after a restart.
//!
//! It has a session of its own and outlives us, also a kill -9; with it live the containers. What
//! makes it ours is the configuration file on its command line, which lies in our run directory.

use crate::client::Client;
use crate::error::Error;
use crate::patience::Patience;
use crate::spool;
use host::Process;
use nix::sys::signal::Signal;
use std::convert::Infallible;
use std::fs;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;
use tokio::process::Command;
use tokio_util::sync::CancellationToken;
use types::chain;

/// How long a containerd may take until it answers. With a large database it reads for a while.
const START_MAX: Duration = Duration::from_secs(30);
const POLL: Duration = Duration::from_millis(25);
const WATCH: Duration = Duration::from_millis(500);
/// For a process to end after SIGKILL.
const KILL_MAX: Duration = Duration::from_secs(5);
const RESTART_FIRST: Duration = Duration::from_millis(100);
const RESTART_MAX: Duration = Duration::from_secs(8);
/// A log that is longer begins anew; there is one of before. It is looked at this often.
const LOG_BYTES_MAX: u64 = 10 << 20;
const LOG_WATCH: Duration = Duration::from_secs(2);
/// How much of the end of a log is looked at for its last line.
const LOG_END: u64 = 4 << 10;
/// The kernel's limit for the path of a unix socket; containerd appends `.ttrpc` to ours.
const SOCKET_PATH_MAX: usize = 107 - ".ttrpc".len();
/// The kernel kills containerd only after everything that holds more memory and matters less.
const OOM_SCORE: &str = "-500";
const SEARCH_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Where an own containerd keeps its things.
#[derive(Clone, Debug)]
pub struct Directories {
    /// Images and snapshots; kept over restarts of the machine.
    pub root: PathBuf,
    /// Socket, configuration and the state of running containers. Nothing else may be in this
    /// directory: stopping removes it.
    pub state: PathBuf,
    /// `containerd` of the search path where not set.
    pub program: Option<PathBuf>,
}

impl Directories {
    pub fn socket(&self) -> PathBuf {
        self.state.join("containerd.sock")
    }

    pub fn log(&self) -> PathBuf {
        self.root.join("containerd.log")
    }

    /// Where runc keeps the state of our containers. Ours, as two engines with the same namespace
    /// would meet in the common one.
    pub fn runc_root(&self) -> PathBuf {
        self.state.join("runc")
    }

    pub(crate) fn config(&self) -> PathBuf {
        self.state.join("config.toml")
    }

    /// Finds the containerd that was started here.
    pub(crate) fn running(&self) -> Option<Process> {
        let config = self.config();
        let ours = |name: &str, arguments: &[String]| {
            name.starts_with("containerd") && host::has_flag(arguments, "--config", &config)
        };
        host::find(ours).into_iter().next()
    }
}

/// A containerd that we started, now or in an earlier life.
#[derive(Debug)]
pub struct OwnContainerd {
    directories: Directories,
    patience: Patience,
    process: Process,
    adopted: bool,
}

impl OwnContainerd {
    /// Takes over the containerd that runs in these directories, or starts one. Returns when it
    /// answers.
    pub async fn start(directories: Directories, patience: Patience) -> Result<Self, Error> {
        if let Some(process) = directories.running() {
            let client = Client::new(&directories.socket(), "default")?;
            let answers = tokio::select! {
                answers = answers(&directories, process) => answers.is_ok(),
                () = client.silence(patience, patience.missed) => false,
            };
            if answers {
                tracing::info!(pid = process.pid(), "took over the running containerd");
                return Ok(Self { directories, patience, process, adopted: true });
            }
            tracing::warn!(
                pid = process.pid(),
                "the running containerd does not answer; killing it"
            );
            end(process).await;
        }
        let process = launch(&directories).await?;
        Ok(Self { directories, patience, process, adopted: false })
    }

    pub fn socket(&self) -> PathBuf {
        self.directories.socket()
    }

    pub fn directories(&self) -> &Directories {
        &self.directories
    }

    pub fn pid(&self) -> i32 {
        self.process.pid()
    }

    /// Says whether it already ran when we came.
    pub fn was_adopted(&self) -> bool {
        self.adopted
    }

    /// Starts containerd again whenever it ends, and where it does not answer any more. Its
    /// containers live on meanwhile, and the new one takes them over. A loop: it ends with the token,
    /// and leaves containerd running.
    pub async fn keep(mut self, token: CancellationToken) -> Result<(), Error> {
        let client = Client::new(&self.directories.socket(), "default")?;
        let log = self.directories.log();
        let keep = async {
            loop {
                let pid = self.process.pid();
                tokio::select! {
                    () = ended(self.process) => {
                        tracing::error!(pid, "containerd has ended; starting it again");
                        self.process = launch_again(&self.directories).await;
                    }
                    () = client.silence(self.patience, self.patience.missed) => {
                        tracing::error!(pid, "containerd does not answer any more; ending it");
                        end(self.process).await;
                    }
                    never = bound_log(&log) => match never {},
                }
            }
        };
        token.run_until_cancelled(keep).await;
        Ok(())
    }

    /// Ends containerd and with it every container it runs.
    pub async fn stop(self) -> Result<(), Error> {
        crate::teardown::stop(&self.directories).await
    }
}

async fn ended(process: Process) {
    while process.is_alive() {
        tokio::time::sleep(WATCH).await;
    }
}

async fn end(process: Process) {
    process.signal(Signal::SIGKILL);
    process.ended_within(KILL_MAX).await;
}

/// Tries until it works.
async fn launch_again(directories: &Directories) -> Process {
    let mut pause = RESTART_FIRST;
    loop {
        tokio::time::sleep(pause).await;
        match launch(directories).await {
            Ok(process) => return process,
            Err(error) => {
                tracing::error!(error = chain(&error), "cannot start containerd again");
                pause = (pause * 2).min(RESTART_MAX);
            }
        }
    }
}

/// `setsid containerd --config FILE`, with its output in a log file.
async fn launch(directories: &Directories) -> Result<Process, Error> {
    for directory in [&directories.root, &directories.state] {
        let made = fs::DirBuilder::new().recursive(true).mode(0o711).create(directory);
        made.map_err(|source| Error::file("make the directory", directory, source))?;
    }
    let socket = directories.socket();
    if SOCKET_PATH_MAX < socket.as_os_str().len() {
        let reason = format!("the path of its socket is too long: {}", socket.display());
        return Err(Error::Start { reason });
    }
    let config = directories.config();
    fs::write(&config, render_config(directories))
        .map_err(|source| Error::file("write", &config, source))?;

    let program = directories.program.clone().unwrap_or_else(|| PathBuf::from("containerd"));
    let mut command = in_own_session(&program);
    command.arg("--config").arg(&config).current_dir("/").env("PATH", search_path());
    let log = open_log(&directories.log())?;
    let errors =
        log.try_clone().map_err(|source| Error::file("open", directories.log(), source))?;
    command.stdin(Stdio::null()).stdout(log).stderr(errors);
    let child = command.spawn().map_err(|source| Error::Start {
        reason: format!("{}: {source} (package containerd)", program.display()),
    })?;
    // The runtime reaps it when it ends before us.
    let pid = child.id().and_then(|pid| i32::try_from(pid).ok());
    let process = pid.and_then(Process::with_pid).ok_or_else(|| early_end(directories))?;
    // Without the privilege it stays at ours, which does no harm.
    let _kept = fs::write(format!("/proc/{}/oom_score_adj", process.pid()), OOM_SCORE);
    if let Err(error) = answers(directories, process).await {
        // The next one would find the database locked.
        end(process).await;
        return Err(error);
    }
    tracing::info!(pid = process.pid(), "started containerd");
    Ok(process)
}

/// A session of its own keeps the signals of our terminal away; without setsid(1) a process group
/// of its own does nearly as well.
fn in_own_session(program: &Path) -> Command {
    let setsid = Path::new("/usr/bin/setsid");
    if setsid.exists() {
        let mut command = Command::new(setsid);
        command.arg(program);
        return command;
    }
    let mut command = Command::new(program);
    command.process_group(0);
    command
}

fn search_path() -> String {
    match std::env::var("PATH") {
        Ok(path) if !path.is_empty() => format!("{path}:{SEARCH_PATH}"),
        _ => SEARCH_PATH.to_owned(),
    }
}

fn open_log(path: &Path) -> Result<fs::File, Error> {
    turn_over(path)?;
    let opened = fs::OpenOptions::new().create(true).append(true).mode(0o600).open(path);
    opened.map_err(|source| Error::file("open", path, source))
}

/// Keeps a log that is being written from growing for ever.
async fn bound_log(path: &Path) -> Infallible {
    loop {
        tokio::time::sleep(LOG_WATCH).await;
        let log = path.to_owned();
        if let Err(error) = spool::blocking(move || turn_over(&log)).await {
            tracing::warn!(error = chain(&error), "a log grows on");
        }
    }
}

/// Begins a log anew that is too long. Its file stays the same: containerd has it open, and writes
/// to its end, wherever that is.
fn turn_over(path: &Path) -> Result<(), Error> {
    if fs::metadata(path).is_ok_and(|log| LOG_BYTES_MAX < log.len()) {
        let kept = fs::copy(path, path.with_extension("log.1"));
        // Also where no copy can be made: the disk may be full of it.
        let emptied = fs::OpenOptions::new().write(true).open(path).and_then(|log| log.set_len(0));
        emptied.and(kept).map_err(|source| Error::file("begin anew", path, source))?;
    }
    Ok(())
}

fn last_line(path: &Path) -> io::Result<Option<String>> {
    let mut file = fs::File::open(path)?;
    let start = file.metadata()?.len().saturating_sub(LOG_END);
    file.seek(SeekFrom::Start(start))?;
    let mut end = Vec::new();
    file.take(LOG_END).read_to_end(&mut end)?;
    Ok(String::from_utf8_lossy(&end).lines().next_back().map(str::to_owned))
}

/// Waits until containerd answers. That its socket exists says little: it may be an old one.
async fn answers(directories: &Directories, process: Process) -> Result<(), Error> {
    let socket = directories.socket();
    let client = Client::new(&socket, "default")?;
    let asked = async {
        while process.is_alive() {
            // Connecting first keeps the patience of the client out of this loop.
            if tokio::net::UnixStream::connect(&socket).await.is_ok()
                && client.ask_version().await.is_ok()
            {
                return Ok(());
            }
            tokio::time::sleep(POLL).await;
        }
        Err(early_end(directories))
    };
    let elapsed =
        |_| Error::Start { reason: format!("it does not answer on {}", socket.display()) };
    tokio::time::timeout(START_MAX, asked).await.map_err(elapsed)?
}

fn early_end(directories: &Directories) -> Error {
    let last = last_line(&directories.log()).ok().flatten();
    let last = last.unwrap_or_else(|| "it wrote no log".to_owned());
    Error::Start {
        reason: format!("it ended at once, see {}: {last}", directories.log().display()),
    }
}

/// Renders the configuration, in the form that 1.6 and 2.x both read. The plugins that are left
/// out would ask for block devices, file systems or addresses that nothing here uses; the second
/// group are the names of 2.x.
fn render_config(directories: &Directories) -> String {
    let disabled = [
        "io.containerd.grpc.v1.cri",
        "io.containerd.internal.v1.restart",
        "io.containerd.internal.v1.opt",
        "io.containerd.internal.v1.tracing",
        "io.containerd.tracing.processor.v1.otlp",
        "io.containerd.snapshotter.v1.aufs",
        "io.containerd.snapshotter.v1.btrfs",
        "io.containerd.snapshotter.v1.devmapper",
        "io.containerd.snapshotter.v1.zfs",
        "io.containerd.cri.v1.images",
        "io.containerd.cri.v1.runtime",
        "io.containerd.podsandbox.controller.v1.podsandbox",
        "io.containerd.monitor.container.v1.restart",
        "io.containerd.nri.v1.nri",
        "io.containerd.snapshotter.v1.blockfile",
        "io.containerd.snapshotter.v1.erofs",
    ];
    let disabled: Vec<String> = disabled.iter().map(|name| format!("  \"{name}\",")).collect();
    format!(
        "# Written by skep at every start of containerd.\n\
         version = 2\n\
         root = {root}\n\
         state = {state}\n\
         disabled_plugins = [\n{disabled}\n]\n\
         \n\
         [grpc]\n  address = {socket}\n\
         \n\
         [debug]\n  level = \"warn\"\n\
         \n\
         [plugins.\"io.containerd.gc.v1.scheduler\"]\n  startup_delay = \"10s\"\n",
        root = quote(&directories.root),
        state = quote(&directories.state),
        disabled = disabled.join("\n"),
        socket = quote(&directories.socket()),
    )
}

/// A TOML basic string.
fn quote(path: &Path) -> String {
    let text = path.to_string_lossy().replace('\\', "\\\\").replace('"', "\\\"");
    format!("\"{text}\"")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn the_last_line_of_a_log_is_found_however_long_the_log_is() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("containerd.log");
        assert!(last_line(&path).is_err());
        let log = fs::File::create(&path).unwrap();
        assert_eq!(last_line(&path).unwrap(), None);
        // More than there is memory; on the disk it is a hole.
        log.set_len(1 << 40).unwrap();
        fs::OpenOptions::new().append(true).open(&path).unwrap().write_all(b"one\ntwo\n").unwrap();
        assert_eq!(last_line(&path).unwrap().as_deref(), Some("two"));
    }
}
