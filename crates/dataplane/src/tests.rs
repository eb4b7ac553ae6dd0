//! The data plane with a kernel and namespaces that are stand-ins, asked by a real client.
//!
//! Every test has a network of its own: the stand-ins' ports are on loopback, and a port that was
//! closed for a moment must not be taken by another process.

mod apart;
mod client;
mod life;
mod names;
mod upstream;

use crate::fake::{Kernel, Namespaces};
use crate::handle::News;
use crate::handle::{Config, Dataplane, Identity, Wanted, start_at};
use crate::names::{Names, Process, serve};
use crate::run::Pace;
use discovery::{Endpoint, Knowledge, NetworkView, Sandbox, SandboxAttachment, ServiceView};
use scope::Scope;
use std::cell::Cell;
use std::collections::BTreeSet;
use std::fmt::Debug;
use std::io;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tempfile::TempDir;
use tokio::net::UnixListener;
use tokio::sync::Mutex;
use types::Subnet;

const PACE: Pace = Pace {
    repair: Duration::from_secs(1),
    patience: Duration::from_secs(1),
    names: Duration::from_millis(500),
    journal: Duration::from_millis(500),
};

/// Where the name server runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Here,
    Apart,
}

/// Moves this thread, which is the test's, to an empty network with loopback; once.
#[expect(clippy::disallowed_methods, reason = "a test's own network is made by a program")]
fn own_network() {
    thread_local!(static MOVED: Cell<bool> = const { Cell::new(false) });
    if MOVED.replace(true) {
        return;
    }
    nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).expect("this test needs root");
    let up = std::process::Command::new("ip").args(["link", "set", "lo", "up"]).status();
    assert!(up.unwrap().success(), "loopback is switched on");
}

/// Stand-ins for namespaces, in a network of the test's own.
fn namespaces() -> Namespaces {
    own_network();
    Namespaces::default()
}

/// What outlives a daemon, and the one that runs.
struct Host {
    dir: TempDir,
    kernel: Kernel,
    namespaces: Namespaces,
    place: Place,
    program: Program,
    scope: Scope,
    dataplane: Dataplane,
}

impl Host {
    async fn new(place: Place) -> Self {
        Self::with_resolv_conf(place, "").await
    }

    async fn with_resolv_conf(place: Place, resolv_conf: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("resolv.conf"), resolv_conf).unwrap();
        let namespaces = namespaces();
        let program = Program::new(dir.path(), &namespaces);
        let kernel = Kernel::default();
        let mut scope = Scope::new();
        let dataplane = daemon(&dir, &kernel, place, &program, &mut scope).await;
        Self { dir, kernel, namespaces, place, program, scope, dataplane }
    }

    /// Ends the daemon and starts it again, with an empty kernel so that one sees what it does.
    async fn restart(&mut self) {
        self.stop().await;
        self.kernel = Kernel::default();
        self.dataplane =
            daemon(&self.dir, &self.kernel, self.place, &self.program, &mut self.scope).await;
    }

    /// Ends the daemon.
    async fn stop(&mut self) {
        let scope = std::mem::take(&mut self.scope);
        scope.cancel();
        scope.join().await.unwrap();
    }

    async fn identify(&self) {
        let address = [192, 168, 0, 1].into();
        let identity = Identity { node: "n1".into(), address, data_path_port: 4789 };
        self.dataplane.identify(Some(identity)).await.unwrap();
    }

    async fn attach(&self, id: &str, task: Option<&str>, host: u8) -> Sandbox {
        let addresses = [10, 0, 1, host].into();
        let attachment = SandboxAttachment { network: "net".into(), addresses };
        let task = task.map(Into::into);
        self.dataplane.attach(id, Wanted { task, ..on(vec![attachment]) }).await.unwrap()
    }

    /// Attaches a plain container that is on no network.
    async fn attach_alone(&self, id: &str) -> Sandbox {
        self.dataplane.attach(id, Wanted::default()).await.unwrap()
    }

    async fn learn(&self, known: Knowledge, version: u64) {
        self.dataplane.learn(News::Whole(known), version).await.unwrap();
        let mut applied = self.dataplane.applied();
        let reached = applied.wait_for(|applied| *applied >= version);
        tokio::time::timeout(Duration::from_secs(10), reached).await.unwrap().unwrap();
    }
}

/// A plain container on these networks.
fn on(attachments: Vec<SandboxAttachment>) -> Wanted {
    Wanted { attachments, ..Wanted::default() }
}

fn config(dir: &TempDir) -> Config {
    Config {
        dir: dir.path().join("dataplane"),
        netns_dir: dir.path().join("netns"),
        gateway_subnet: "172.30.0.0/16".parse().unwrap(),
    }
}

/// Starts a daemon's data plane.
async fn daemon(
    dir: &TempDir,
    kernel: &Kernel,
    place: Place,
    program: &Program,
    scope: &mut Scope,
) -> Dataplane {
    let namespaces = program.namespaces.clone();
    let names = match place {
        Place::Here => Names::here(namespaces.clone(), &program.resolv_conf, scope).await,
        Place::Apart => Names::at(program.socket.clone(), program.clone(), scope),
    };
    start_at(config(dir), (kernel.clone(), namespaces, names), scope, PACE).await.unwrap()
}

/// The name server's process of a test: a scope that no daemon owns. Clones share it.
#[derive(Clone)]
struct Program {
    socket: PathBuf,
    resolv_conf: PathBuf,
    namespaces: Namespaces,
    running: Arc<Mutex<Option<Scope>>>,
    starts: Arc<AtomicUsize>,
}

impl Program {
    fn new(dir: &Path, namespaces: &Namespaces) -> Self {
        Self {
            socket: dir.join("resolver.sock"),
            resolv_conf: dir.join("resolv.conf"),
            namespaces: namespaces.clone(),
            running: Arc::default(),
            starts: Arc::default(),
        }
    }

    /// How often it was started.
    fn starts(&self) -> usize {
        self.starts.load(Ordering::Relaxed)
    }

    /// Ends it where it stands.
    async fn kill(&self) {
        drop(self.running.lock().await.take());
    }
}

impl Process for Program {
    async fn renew(&mut self) -> io::Result<()> {
        let mut running = self.running.lock().await;
        if let Some(old) = running.take() {
            old.cancel();
            old.join().await.map_err(io::Error::other)?;
        }
        drop(std::fs::remove_file(&self.socket));
        let listener = UnixListener::bind(&self.socket)?;
        let mut scope = Scope::new();
        serve(listener, self.namespaces.clone(), &self.resolv_conf, &mut scope).await;
        *running = Some(scope);
        self.starts.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }
}

/// A network `net` with a service `web` at 10.0.1.2 and a task for each host part: those below 100
/// run on n1, the others on n2.
fn knowledge(tasks: &[(&str, u8, bool)]) -> Knowledge {
    let subnets = Subnet::new("10.0.1.0/24".parse().unwrap()).into_iter().collect();
    let mut view =
        NetworkView { name: "front".to_owned(), vni: 4097, subnets, ..NetworkView::default() };
    let vips = [10, 0, 1, 2].into();
    let service = ServiceView { name: "web".to_owned(), vips, ..ServiceView::default() };
    view.services.insert("web".into(), service);
    for (id, host, serving) in tasks {
        let node = if *host < 100 { 1 } else { 2 };
        let endpoint = Endpoint {
            addresses: [10, 0, 1, *host].into(),
            node: format!("n{node}").into(),
            vtep: [192, 168, 0, node].into(),
            service: "web".into(),
            name: format!("web.{host}.{id}"),
            aliases: BTreeSet::new(),
            serving: *serving,
        };
        view.endpoints.insert((*id).into(), endpoint);
    }
    let mut known = Knowledge::default();
    known.networks.insert("net".into(), view);
    known
}

fn addresses(hosts: &[u8]) -> Vec<Ipv4Addr> {
    hosts.iter().map(|host| Ipv4Addr::new(10, 0, 1, *host)).collect()
}

/// Waits until `probe` says what is expected, and fails with what it says at last.
async fn until<T: PartialEq + Debug>(expected: T, probe: impl AsyncFn() -> T) {
    let mut last = probe().await;
    for _ in 0..500 {
        if last == expected {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
        last = probe().await;
    }
    assert_eq!(last, expected);
}
