//! Mounting for volumes, by a process of its own: a server of files that does not answer keeps
//! whoever mounts in the kernel, and only a process can be killed there.
//!
//! The daemon starts its own program as the helper, with what is to be done in its standard input:
//! a password among the options is in nobody's list of processes.

use crate::blocking::cannot;
use nix::errno::Errno;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat2};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use serde::{Deserialize, Serialize};
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;
use tokio::io::AsyncWriteExt;
use tokio::process::Command;
use types::Fault;

/// The verb of the program that carries out one [`Order`].
pub const HELPER: &str = "mount-helper";
/// For one order. A server that takes longer to answer is away.
const ORDER_MAX: Duration = Duration::from_secs(30);

/// What is to be done, and nothing else: it has been checked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Order {
    /// `mount -t KIND -o OPTIONS DEVICE TARGET`
    Mount {
        device: String,
        target: PathBuf,
        kind: String,
        options: String,
    },
    Unmount {
        target: PathBuf,
    },
    /// Binds a path that lies in a folder, whatever links are there, at a target that is made.
    Bind {
        root: PathBuf,
        subpath: String,
        target: PathBuf,
    },
}

/// Carries orders out.
#[derive(Clone, Debug)]
pub(crate) struct Mounter {
    /// The program; without one, threads of this process do it.
    pub(crate) program: Option<PathBuf>,
    limit: Duration,
}

impl Mounter {
    pub(crate) fn new(program: Option<PathBuf>) -> Self {
        Self { program, limit: ORDER_MAX }
    }

    /// Does it; the error says in Docker's words what could not be done.
    pub(crate) async fn carry_out(&self, order: Order) -> Result<(), String> {
        let what = order.to_string();
        match tokio::time::timeout(self.limit, self.begin(order)).await {
            Ok(done) => done,
            Err(_elapsed) => Err(format!("{what}: no answer within {:?}", self.limit)),
        }
    }

    async fn begin(&self, order: Order) -> Result<(), String> {
        let failed = |error: &dyn std::fmt::Display| format!("cannot start the helper: {error}");
        let Some(program) = &self.program else {
            let done = tokio::task::spawn_blocking(move || order.carry_out());
            return done.await.map_err(|panic| failed(&panic))?;
        };
        // Killed when nobody waits for it any more.
        let mut helper = Command::new(program)
            .arg(HELPER)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .map_err(|error| failed(&error))?;
        let text = serde_json::to_vec(&order).map_err(|error| failed(&error))?;
        if let Some(mut input) = helper.stdin.take() {
            input.write_all(&text).await.map_err(|error| failed(&error))?;
        }
        let output = helper.wait_with_output().await.map_err(|error| failed(&error))?;
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        if output.status.success() {
            Ok(())
        } else if said.is_empty() {
            Err(format!("{order}: the helper ended: {}", output.status))
        } else {
            Err(said)
        }
    }
}

/// The helper's whole life: reads an order, carries it out, and says what went wrong.
///
/// # Errors
/// Where it could not be done; that has been said on standard output.
pub fn help() -> Result<(), String> {
    let mut text = Vec::new();
    let read = io::stdin().lock().read_to_end(&mut text).map_err(|error| error.to_string());
    let parse = || serde_json::from_slice::<Order>(&text).map_err(|error| error.to_string());
    let done = read.and_then(|_| parse()).and_then(|order| order.carry_out());
    if let Err(message) = &done {
        // Whoever asked has gone, or hears it.
        let _gone = io::stdout().lock().write_all(message.as_bytes());
    }
    done
}

impl Order {
    fn carry_out(&self) -> Result<(), String> {
        let done = match self {
            Self::Mount { device, target, kind, options } => {
                mount_all(device, target, kind, &Options::parse(options))
            }
            Self::Unmount { target } => unmount(target),
            Self::Bind { root, subpath, target } => return bind(root, subpath, target),
        };
        done.map_err(|errno| format!("{self}: {}", words(errno)))
    }
}

impl std::fmt::Display for Order {
    /// As Docker tells what failed.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Mount { device, target, options, .. } => {
                let Options { flags, data } = Options::parse(options);
                write!(f, "mount {device}:{}", target.display())?;
                if !flags.is_empty() {
                    write!(f, ", flags: {:#x}", flags.bits())?;
                }
                if !data.is_empty() {
                    write!(f, ", data: {data}")?;
                }
                Ok(())
            }
            Self::Unmount { target } => write!(f, "unmount {}", target.display()),
            Self::Bind { root, subpath, .. } => {
                write!(f, "cannot access path {}", root.join(subpath).display())
            }
        }
    }
}

/// The kernel's words for what went wrong, as Go writes them.
fn words(errno: Errno) -> String {
    errno.desc().to_lowercase()
}

/// Options of mount(8): those that are flags of the kernel's, and those for the file system.
#[derive(Debug, PartialEq, Eq)]
struct Options {
    flags: MsFlags,
    data: String,
}

/// How mounts pass on, which the kernel is told in a call of its own.
const PROPAGATION: MsFlags = MsFlags::MS_SHARED
    .union(MsFlags::MS_PRIVATE)
    .union(MsFlags::MS_SLAVE)
    .union(MsFlags::MS_UNBINDABLE);

impl Options {
    fn parse(text: &str) -> Self {
        let (mut flags, mut data) = (MsFlags::empty(), Vec::new());
        for option in text.split(',').filter(|option| !option.is_empty()) {
            match flag(option) {
                Some((flag, on)) => flags.set(flag, on),
                None if option == "defaults" => {}
                None => data.push(option),
            }
        }
        Self { flags, data: data.join(",") }
    }
}

/// The flag of an option, and whether the option sets it.
fn flag(option: &str) -> Option<(MsFlags, bool)> {
    let rec = MsFlags::MS_REC;
    let (flag, on) = match option {
        "ro" => (MsFlags::MS_RDONLY, true),
        "rw" => (MsFlags::MS_RDONLY, false),
        "nosuid" => (MsFlags::MS_NOSUID, true),
        "suid" => (MsFlags::MS_NOSUID, false),
        "nodev" => (MsFlags::MS_NODEV, true),
        "dev" => (MsFlags::MS_NODEV, false),
        "noexec" => (MsFlags::MS_NOEXEC, true),
        "exec" => (MsFlags::MS_NOEXEC, false),
        "sync" => (MsFlags::MS_SYNCHRONOUS, true),
        "async" => (MsFlags::MS_SYNCHRONOUS, false),
        "dirsync" => (MsFlags::MS_DIRSYNC, true),
        "remount" => (MsFlags::MS_REMOUNT, true),
        "mand" => (MsFlags::MS_MANDLOCK, true),
        "nomand" => (MsFlags::MS_MANDLOCK, false),
        "noatime" => (MsFlags::MS_NOATIME, true),
        "atime" => (MsFlags::MS_NOATIME, false),
        "nodiratime" => (MsFlags::MS_NODIRATIME, true),
        "diratime" => (MsFlags::MS_NODIRATIME, false),
        "relatime" => (MsFlags::MS_RELATIME, true),
        "norelatime" => (MsFlags::MS_RELATIME, false),
        "strictatime" => (MsFlags::MS_STRICTATIME, true),
        "nostrictatime" => (MsFlags::MS_STRICTATIME, false),
        "bind" => (MsFlags::MS_BIND, true),
        "rbind" => (MsFlags::MS_BIND | rec, true),
        "unbindable" => (MsFlags::MS_UNBINDABLE, true),
        "runbindable" => (MsFlags::MS_UNBINDABLE | rec, true),
        "private" => (MsFlags::MS_PRIVATE, true),
        "rprivate" => (MsFlags::MS_PRIVATE | rec, true),
        "shared" => (MsFlags::MS_SHARED, true),
        "rshared" => (MsFlags::MS_SHARED | rec, true),
        "slave" => (MsFlags::MS_SLAVE, true),
        "rslave" => (MsFlags::MS_SLAVE | rec, true),
        _ => return None,
    };
    Some((flag, on))
}

/// Mounts in as many calls as the kernel wants: what is mounted, how it passes on, and of a bind
/// that it is to be read alone. What was mounted by the first is unmounted where another fails.
fn mount_all(device: &str, target: &Path, kind: &str, options: &Options) -> Result<(), Errno> {
    let Options { flags, data } = options;
    let none = None::<&str>;
    let own = flags.difference(PROPAGATION);
    let data = (!data.is_empty()).then_some(data.as_str());
    mount(Some(device), target, Some(kind), own, data)?;
    let bind_to_read = MsFlags::MS_BIND | MsFlags::MS_RDONLY;
    let further = || {
        if flags.intersects(PROPAGATION) {
            mount(none, target, none, flags.intersection(PROPAGATION | MsFlags::MS_REC), none)?;
        }
        if own.contains(bind_to_read) {
            mount(none, target, none, own | MsFlags::MS_REMOUNT, none)?;
        }
        Ok(())
    };
    further().inspect_err(|_| {
        let _unmounted = unmount(target);
    })
}

/// Lazily: what somebody still has open goes when it is closed. That nothing is there is fine.
pub(crate) fn unmount(target: &Path) -> Result<(), Errno> {
    match umount2(target, MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW) {
        Err(error) if !matches!(error, Errno::EINVAL | Errno::ENOENT) => Err(error),
        _ => Ok(()),
    }
}

/// The open path is bound: whoever changes links meanwhile leads nowhere.
fn bind(root: &Path, subpath: &str, target: &Path) -> Result<(), String> {
    let inaccessible = |errno: Errno| {
        format!("cannot access path {}: {}", root.join(subpath).display(), words(errno))
    };
    let folder = File::open(root).map_err(|error| inaccessible(errno_of(&error)))?;
    let how = OpenHow::new()
        .flags(OFlag::O_PATH | OFlag::O_CLOEXEC)
        .resolve(ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_MAGICLINKS);
    let found = openat2(&folder, subpath, how).map_err(|errno| match errno {
        Errno::EXDEV | Errno::ELOOP => format!(
            "path concatenation escapes the base directory, base: {}, subpath: {subpath}",
            root.display()
        ),
        errno => inaccessible(errno),
    })?;
    let found = File::from(found);
    let put = || -> io::Result<()> {
        if found.metadata()?.is_dir() {
            fs::create_dir(target)?;
        } else {
            File::create_new(target)?;
        }
        let source = format!("/proc/self/fd/{}", found.as_raw_fd());
        let (none, flags) = (None::<&str>, MsFlags::MS_BIND | MsFlags::MS_REC);
        Ok(mount(Some(source.as_str()), target, none, flags, none)?)
    };
    put().map_err(|error| inaccessible(errno_of(&error)))
}

fn errno_of(error: &io::Error) -> Errno {
    error.raw_os_error().map_or(Errno::EIO, Errno::from_raw)
}

/// Takes away what [`Order::Bind`] or an image made at a target. Nothing that it shows is removed.
pub(crate) fn take_away(target: &Path) -> Result<(), Fault> {
    let what = target.display();
    unmount(target).map_err(io::Error::from).map_err(cannot(&format!("unmount {what}")))?;
    match fs::symlink_metadata(target) {
        Ok(about) if about.is_dir() => fs::remove_dir(target),
        // Ours is empty: what is bound there is in its place no more.
        Ok(about) if about.len() == 0 => fs::remove_file(target),
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
    .map_err(cannot(&format!("remove {what}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mount_order(options: &str) -> Order {
        let (device, kind) = (":/share".to_owned(), "nfs".to_owned());
        Order::Mount { device, target: "/v/_data".into(), kind, options: options.to_owned() }
    }

    #[test]
    fn options_are_the_kernels_flags_or_the_file_systems() {
        let read = Options::parse("addr=192.0.2.1,ro,,nolock,rbind,rslave,noexec,exec,defaults");
        let flags = MsFlags::MS_RDONLY | MsFlags::MS_BIND | MsFlags::MS_REC | MsFlags::MS_SLAVE;
        assert_eq!(read, Options { flags, data: "addr=192.0.2.1,nolock".to_owned() });
        assert_eq!(
            mount_order("addr=192.0.2.1,ro").to_string(),
            "mount :/share:/v/_data, flags: 0x1, data: addr=192.0.2.1"
        );
        assert_eq!(mount_order("").to_string(), "mount :/share:/v/_data");
    }

    #[test]
    fn orders_are_written_and_read() {
        let order = mount_order("ro");
        let text = serde_json::to_vec(&order).unwrap();
        assert_eq!(serde_json::from_slice::<Order>(&text).unwrap(), order);
    }

    #[test]
    fn a_subpath_is_bound_where_it_is_and_no_link_leads_out_of_its_volume() {
        if !nix::unistd::geteuid().is_root() {
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("volume");
        fs::create_dir_all(root.join("real/deep")).unwrap();
        fs::write(root.join("real/deep/file"), "text").unwrap();
        for (link, to) in [("in", "real"), ("out", "../../.."), ("absolute", "/etc")] {
            std::os::unix::fs::symlink(to, root.join(link)).unwrap();
        }
        let target = dir.path().join("at");
        for good in ["real/deep", "in/deep"] {
            bind(&root, good, &target).unwrap();
            assert_eq!(fs::read_to_string(target.join("file")).unwrap(), "text", "{good}");
            take_away(&target).unwrap();
            assert!(!target.exists());
        }
        bind(&root, "in/deep/file", &target).unwrap();
        assert_eq!(fs::read_to_string(&target).unwrap(), "text");
        take_away(&target).unwrap();
        for bad in ["out/etc", "absolute", "real/../../volume2", "out"] {
            let refused = bind(&root, bad, &target).unwrap_err();
            assert!(refused.starts_with("path concatenation escapes the base"), "{refused}");
        }
        let missing = bind(&root, "real/none", &target).unwrap_err();
        assert!(
            missing.starts_with("cannot access path ")
                && missing.ends_with("no such file or directory")
        );
        assert_eq!(fs::read_to_string(root.join("real/deep/file")).unwrap(), "text");
    }

    /// A helper that never answers is what a dead server looks like.
    #[tokio::test]
    async fn what_does_not_answer_is_given_up_and_killed() {
        let dir = tempfile::tempdir().unwrap();
        let (program, pid) = (dir.path().join("helper"), dir.path().join("pid"));
        let script = format!("#!/bin/sh\necho $$ > {}\nexec tail -f /dev/null\n", pid.display());
        host::replace(&program, script, 0o755).unwrap();
        let mounter = Mounter { program: Some(program), limit: Duration::from_millis(500) };
        let refused = mounter.carry_out(mount_order("soft")).await.unwrap_err();
        assert_eq!(refused, "mount :/share:/v/_data, data: soft: no answer within 500ms");
        let pid = fs::read_to_string(pid).unwrap();
        let gone = || {
            let state =
                fs::read_to_string(format!("/proc/{}/stat", pid.trim())).unwrap_or_default();
            state.is_empty() || state.contains(") Z ")
        };
        tokio::time::timeout(Duration::from_secs(10), async {
            while !gone() {
                tokio::task::yield_now().await;
            }
        })
        .await
        .expect("it was killed");
    }

    #[tokio::test]
    async fn what_cannot_be_mounted_says_why_in_dockers_words() {
        if !nix::unistd::geteuid().is_root() {
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        let target = dir.path().to_owned();
        let (device, kind) = ("none".to_owned(), "nosuchfs".to_owned());
        let order =
            Order::Mount { device, target: target.clone(), kind, options: "size=1m".to_owned() };
        let refused = Mounter::new(None).carry_out(order).await.unwrap_err();
        let expected = format!("mount none:{}, data: size=1m: no such device", target.display());
        assert_eq!(refused, expected);
    }
}
