//! The name server's process, told what to hold by a data plane of the test; needs root.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use dataplane::{Config, Dataplane, Names, Process, Wanted, fake};
use nix::mount::{MntFlags, umount2};
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, getsid};
use scope::Scope;
use std::fs::{self, File};
use std::io;
use std::net::{Ipv4Addr, UdpSocket};
use std::path::{Path, PathBuf};
use std::time::Duration;
use tempfile::TempDir;
use tokio::process::Command;
use tokio::time::{sleep, timeout};

/// How long anything may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// A node's folder; its daemon comes and goes, and its name server does not.
struct Node {
    dir: TempDir,
}

impl Node {
    fn new() -> Self {
        assert!(nix::unistd::geteuid().is_root(), "this test needs root");
        Self { dir: tempfile::tempdir().unwrap() }
    }

    async fn start(&self, scope: &mut Scope) -> Dataplane {
        let dir = self.dir.path();
        let config = Config {
            dir: dir.join("dataplane"),
            netns_dir: dir.join("netns"),
            gateway_subnet: "172.30.0.0/16".parse().unwrap(),
        };
        let names = Names::at(dir.join("resolver.sock"), Program(dir.to_owned()), scope);
        dataplane::start(config, fake::Kernel::default(), linux::Namespaces, names, scope)
            .await
            .unwrap()
    }

    fn pid(&self) -> Option<Pid> {
        let pid = fs::read_to_string(self.dir.path().join("resolver.pid")).ok()?.parse().ok()?;
        fs::exists(format!("/proc/{pid}")).unwrap().then_some(Pid::from_raw(pid))
    }

    fn netns(&self) -> PathBuf {
        self.dir.path().join("netns/c1")
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        // Whatever a failed test has left.
        if let Some(pid) = self.pid() {
            kill(pid, Signal::SIGKILL).ok();
        }
        umount2(&self.netns(), MntFlags::MNT_DETACH).ok();
    }
}

/// Starts the real process.
struct Program(PathBuf);

impl Process for Program {
    async fn renew(&mut self) -> io::Result<()> {
        let log = File::create(self.0.join("log"))?;
        let mut child = Command::new(env!("CARGO_BIN_EXE_skep"))
            .arg("resolver")
            .args(["--run".as_ref(), self.0.as_os_str()])
            .args(["--resolv-conf".as_ref(), self.0.join("resolv.conf").as_os_str()])
            .args(["--log".as_ref(), self.0.join("log").as_os_str()])
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()?;
        let id = child.id().map(|id| id.to_string());
        while fs::read_to_string(self.0.join("resolver.pid")).ok() != id {
            if let Some(status) = child.try_wait()? {
                let log = fs::read_to_string(self.0.join("log"))?;
                return Err(io::Error::other(format!("{status}: {log}")));
            }
            sleep(Duration::from_millis(5)).await;
        }
        Ok(())
    }
}

/// Asks for a name from inside the namespace; says whether there is an answer.
fn answers(netns: &Path, port: u16) -> bool {
    let query = *b"\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x04name\x00\x00\x01\x00\x01";
    let asked = linux::run_in(netns, || -> io::Result<bool> {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
        socket.set_read_timeout(Some(Duration::from_secs(1)))?;
        socket.connect((Ipv4Addr::new(127, 0, 0, 11), port))?;
        socket.send(&query)?;
        let mut reply = [0; 512];
        let len = socket.recv(&mut reply)?;
        Ok(len >= query.len() && reply[..2] == query[..2])
    });
    asked.is_ok_and(|answered| answered.unwrap_or(false))
}

async fn until(what: &str, probe: impl Fn() -> bool) {
    let held = async {
        while !probe() {
            sleep(Duration::from_millis(5)).await;
        }
    };
    assert!(timeout(PATIENCE, held).await.is_ok(), "not in time: {what}");
}

#[tokio::test(flavor = "multi_thread")]
async fn it_outlives_the_daemon_and_comes_back_when_it_is_killed() {
    let node = Node::new();
    let mut scope = Scope::new();
    let daemon = node.start(&mut scope).await;
    let port = daemon.attach("c1", Wanted::default()).await.unwrap().dns_port;
    assert!(answers(&node.netns(), port));
    let first = node.pid().unwrap();
    assert_eq!(getsid(Some(first)).unwrap(), first, "a session of its own");

    // The daemon is killed: nothing says goodbye.
    drop(daemon);
    drop(scope);
    assert!(answers(&node.netns(), port));
    let mut scope = Scope::new();
    let daemon = node.start(&mut scope).await;
    assert_eq!(node.pid(), Some(first), "it is adopted");

    kill(first, Signal::SIGKILL).unwrap();
    until("another process", || node.pid().is_some_and(|pid| pid != first)).await;
    until("an answer at the same port", || answers(&node.netns(), port)).await;

    daemon.detach("c1").await.unwrap();
    assert!(!node.netns().exists());
    let second = node.pid().unwrap();
    scope.cancel();
    scope.join().await.unwrap();
    kill(second, Signal::SIGTERM).unwrap();
    until("its end", || node.pid().is_none()).await;
}

/// Lines of /proc/PID/status.
fn status(pid: Pid) -> String {
    fs::read_to_string(format!("/proc/{pid}/status")).unwrap()
}

/// The half without rights: the only child of the broker.
fn other_half(broker: Pid) -> Pid {
    let children = fs::read_to_string(format!("/proc/{broker}/task/{broker}/children")).unwrap();
    Pid::from_raw(children.trim().parse().expect("one child"))
}

#[tokio::test(flavor = "multi_thread")]
async fn who_hears_containers_has_no_rights_and_opens_new_sockets_all_the_same() {
    let node = Node::new();
    fs::write(node.dir.path().join("resolv.conf"), "").unwrap();
    let mut scope = Scope::new();
    let daemon = node.start(&mut scope).await;
    let port = daemon.attach("c1", Wanted::default()).await.unwrap().dns_port;
    let broker = node.pid().unwrap();
    let other = other_half(broker);
    let rights = status(other);
    for line in [
        "Uid:\t61053\t61053\t61053\t61053\n",
        "Gid:\t61053\t61053\t61053\t61053\n",
        "Groups:\t \n",
        "CapInh:\t0000000000000000\n",
        "CapPrm:\t0000000000000000\n",
        "CapEff:\t0000000000000000\n",
        "CapAmb:\t0000000000000000\n",
        "NoNewPrivs:\t1\n",
    ] {
        assert!(rights.contains(line), "{line:?}: {rights}");
    }
    let root = fs::read_link(format!("/proc/{other}/root")).unwrap();
    assert_eq!(root, node.dir.path().join("nothing"));
    assert_eq!(fs::read_dir(root).unwrap().count(), 0);
    // The broker enters namespaces and ends the other half, and no more.
    let rights = status(broker);
    assert!(rights.contains("CapEff:\t0000000000200020\n"), "{rights}");
    assert!(rights.contains("NoNewPrivs:\t1\n"), "{rights}");

    assert!(answers(&node.netns(), port));
    let sandbox = daemon.attach("c2", Wanted::default()).await.unwrap();
    assert!(answers(Path::new(&sandbox.netns), sandbox.dns_port));
    daemon.detach("c2").await.unwrap();

    // Either half takes the other along, and both come back.
    kill(other, Signal::SIGKILL).unwrap();
    until("another process", || node.pid().is_some_and(|pid| pid != broker)).await;
    until("an answer", || answers(&node.netns(), port)).await;
    let broker = node.pid().unwrap();
    let other = other_half(broker);
    kill(broker, Signal::SIGKILL).unwrap();
    until("the other half's end", || {
        let state = fs::read_to_string(format!("/proc/{other}/stat")).unwrap_or_default();
        state.is_empty() || state.contains(") Z ")
    })
    .await;
    until("an answer", || answers(&node.netns(), port)).await;

    daemon.detach("c1").await.unwrap();
    scope.cancel();
    scope.join().await.unwrap();
    let (broker, other) = (node.pid().unwrap(), other_half(node.pid().unwrap()));
    kill(broker, Signal::SIGTERM).unwrap();
    until("its end", || node.pid().is_none()).await;
    assert!(!fs::exists(format!("/proc/{other}")).unwrap(), "it is gone before the broker is");
}
