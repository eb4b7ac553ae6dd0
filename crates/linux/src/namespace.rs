//! Network namespaces: named by a bind mount, entered by threads of our own.
//!
//! Invariant: only a thread that this module starts, or one that its owner has set aside for the
//! kernel, ever changes its namespace. A worker of the asynchronous runtime never does.

use crate::error::Error;
use crate::netlink::{Socket, set_up};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::statfs::{NSFS_MAGIC, statfs};
use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::thread;

/// The namespace of the thread that opens it.
const OWN: &str = "/proc/thread-self/ns/net";
/// The index of the loopback interface in every namespace.
const LOOPBACK: u32 = 1;

/// Settings of a new namespace that containers run in.
const CONTAINER_SETTINGS: [(&str, &str); 4] = [
    // With timestamps of its own for each peer, a client that reaches one back end both directly
    // and through a VIP would have its SYNs dropped as old (PAWS).
    ("ipv4/tcp_timestamps", "2"),
    ("ipv4/ping_group_range", "0 2147483647"),
    ("ipv4/ip_unprivileged_port_start", "0"),
    // Interfaces made later have no IPv6; the loopback interface keeps ::1.
    ("ipv6/conf/default/disable_ipv6", "1"),
];

/// Settings of a namespace that carries an overlay.
const OVERLAY_SETTINGS: [(&str, &str); 4] = [
    // Bridged frames shall not pass through rules for routed packets.
    ("bridge/bridge-nf-call-iptables", "0"),
    ("bridge/bridge-nf-call-ip6tables", "0"),
    ("bridge/bridge-nf-call-arptables", "0"),
    ("ipv6/conf/default/disable_ipv6", "1"),
];

/// What a namespace is for: it decides on its settings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    Container,
    /// An overlay's bridge, or the lab's switch.
    Switch,
    /// A node of the lab: as the machine would be.
    Node,
}

/// An open namespace. It lives at least as long as this.
#[derive(Debug)]
pub struct Namespace {
    file: File,
    inode: u64,
}

impl Namespace {
    /// Opens the namespace at `path`; `None` where there is none (no file, or an ordinary one).
    pub fn open(path: &Path) -> Result<Option<Self>, Error> {
        let failed = |source| Error::Namespace { path: path.to_owned(), source };
        if !exists(path) {
            return Ok(None);
        }
        match File::open(path) {
            Ok(file) => Self::new(file).map(Some).map_err(failed),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(failed(error)),
        }
    }

    /// Opens the namespace at `path`, which must be there.
    pub fn require(path: &Path) -> Result<Self, Error> {
        let missing = io::Error::new(io::ErrorKind::NotFound, "there is no namespace mounted here");
        Self::open(path)?.ok_or_else(|| Error::Namespace { path: path.to_owned(), source: missing })
    }

    /// Opens the namespace that this thread is in.
    pub fn own() -> Result<Self, Error> {
        let failed = |source| Error::Namespace { path: OWN.into(), source };
        File::open(OWN).and_then(Self::new).map_err(failed)
    }

    fn new(file: File) -> io::Result<Self> {
        let inode = file.metadata()?.ino();
        Ok(Self { file, inode })
    }

    /// The number that tells this namespace from all others that live now.
    pub fn inode(&self) -> u64 {
        self.inode
    }

    /// Runs `work` with this thread inside the namespace, and takes the thread back to where it
    /// was. For threads set aside for the kernel only.
    pub(crate) fn visit<T>(&self, work: impl FnOnce() -> Result<T, Error>) -> Result<T, Error> {
        let home = Self::own()?;
        self.enter()?;
        let _back = Back(home);
        work()
    }

    /// Moves this thread for good.
    pub(crate) fn enter(&self) -> Result<(), Error> {
        setns(&self.file, CloneFlags::CLONE_NEWNET)
            .map_err(|errno| Error::system("enter a network namespace", errno.into()))
    }
}

impl AsFd for Namespace {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

/// Takes the thread home, also when the work panicked.
struct Back(Namespace);

impl Drop for Back {
    fn drop(&mut self) {
        if let Err(error) = self.0.enter() {
            // Whatever this thread did next would hit the wrong namespace.
            tracing::error!(%error, "cannot leave a network namespace");
            std::process::abort();
        }
    }
}

/// Runs `work` in a thread of its own inside the namespace at `path`.
pub fn run_in<T: Send>(path: &Path, work: impl FnOnce() -> T + Send) -> Result<T, Error> {
    let namespace = Namespace::require(path)?;
    in_thread(move || {
        namespace.enter()?;
        Ok(work())
    })
}

/// Moves the calling thread into the namespace at `path`. Threads that it starts afterwards are
/// there, too; so a process calls this before it starts any.
pub fn enter(path: &Path) -> Result<(), Error> {
    Namespace::require(path)?.enter()
}

/// Makes the command's process start inside the namespace at `path`.
pub fn start_in<'a>(
    command: &'a mut std::process::Command,
    path: &Path,
) -> Result<&'a mut std::process::Command, Error> {
    use std::os::unix::process::CommandExt;
    let namespace = Namespace::require(path)?;
    // SAFETY: between fork and exec the closure makes one system call on a descriptor that it owns
    // and allocates nothing; an errno is turned into an `io::Error` without allocation.
    Ok(unsafe {
        command.pre_exec(move || {
            setns(&namespace.file, CloneFlags::CLONE_NEWNET).map_err(io::Error::from)
        })
    })
}

/// Makes a namespace at `path`. It is fine if it is there already; then nothing is changed.
pub(crate) fn create(path: &Path, purpose: Purpose) -> Result<(), Error> {
    if exists(path) {
        return Ok(());
    }
    in_thread(|| {
        let failed = |source| Error::Namespace { path: path.to_owned(), source };
        unshare(CloneFlags::CLONE_NEWNET).map_err(|errno| failed(errno.into()))?;
        settle(purpose)?;
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder).map_err(failed)?;
        }
        File::create(path).map_err(failed)?;
        mount(Some(OWN), path, None::<&str>, MsFlags::MS_BIND, None::<&str>)
            .map_err(|errno| failed(errno.into()))
    })
}

/// Unmounts the namespace at `path` and removes the file. It is fine if it has gone. The namespace
/// itself ends with its last process and socket.
pub(crate) fn remove(path: &Path) -> Result<(), Error> {
    let failed = |source| Error::Namespace { path: path.to_owned(), source };
    loop {
        match umount2(path, MntFlags::MNT_DETACH) {
            Ok(()) => {}
            // No mount (any more), or no file.
            Err(nix::Error::EINVAL | nix::Error::ENOENT) => break,
            Err(errno) => return Err(failed(errno.into())),
        }
    }
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(failed(error)),
        Ok(()) | Err(_) => Ok(()),
    }
}

/// Says whether a namespace is mounted at `path`.
pub(crate) fn exists(path: &Path) -> bool {
    statfs(path).is_ok_and(|found| found.filesystem_type() == NSFS_MAGIC)
}

/// Lists the files in a folder whose names begin with `prefix`, namespaces or what is left of them.
pub(crate) fn list(folder: &Path, prefix: &str) -> Result<Vec<PathBuf>, Error> {
    let failed = |source| Error::Namespace { path: folder.to_owned(), source };
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(failed(error)),
    };
    let mut found = Vec::new();
    for entry in entries {
        let entry = entry.map_err(failed)?;
        if entry.file_name().to_string_lossy().starts_with(prefix) {
            found.push(entry.path());
        }
    }
    found.sort();
    Ok(found)
}

/// `sysctl -w net.NAME=VALUE` in the thread's namespace, where it differs. A setting that this
/// kernel does not have is passed over. `/proc/sys/net` shows the namespace of the thread that
/// opens it.
pub(crate) fn set(name: &str, value: &str) -> Result<(), Error> {
    let path = format!("/proc/sys/net/{name}");
    match fs::read_to_string(&path) {
        Ok(found) if found.split_whitespace().eq(value.split_whitespace()) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Ok(_) | Err(_) => fs::write(&path, value)
            .map_err(|source| Error::system(&format!("set {path} to {value}"), source)),
    }
}

/// `sysctl -n net.NAME` in the thread's namespace; `None` where this kernel does not have it.
pub(crate) fn get(name: &str) -> Option<String> {
    let text = fs::read_to_string(format!("/proc/sys/net/{name}")).ok()?;
    Some(text.trim().to_owned())
}

/// `sysctl -w net.NAME=VALUE` in the thread's namespace, where it is lower. Settings of the whole
/// machine are shown in its first namespace alone; elsewhere there is nothing to do.
pub(crate) fn raise(name: &str, least: u64) -> Result<(), Error> {
    let found = get(name).and_then(|text| text.parse::<u64>().ok());
    if found.is_some_and(|found| found < least) { set(name, &least.to_string()) } else { Ok(()) }
}

/// Brings up what every namespace of ours has.
fn settle(purpose: Purpose) -> Result<(), Error> {
    Socket::route()?.send_one(set_up(LOOPBACK, true))?;
    let settings: &[(&str, &str)] = match purpose {
        Purpose::Container => &CONTAINER_SETTINGS,
        Purpose::Switch => &OVERLAY_SETTINGS,
        Purpose::Node => &[],
    };
    settings.iter().try_for_each(|(name, value)| set(name, value))
}

/// Runs `work` in a thread that ends with it: whatever happens to its namespace harms nobody.
pub(crate) fn in_thread<T: Send>(
    work: impl FnOnce() -> Result<T, Error> + Send,
) -> Result<T, Error> {
    thread::scope(|scope| {
        let thread = thread::Builder::new().name("netns".to_owned());
        let running = thread
            .spawn_scoped(scope, work)
            .map_err(|source| Error::system("start a thread", source))?;
        running.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}
