//! The data plane with a kernel and namespaces that are stand-ins, asked by a real client.

mod client;
mod life;
mod names;
mod upstream;

use crate::fake::{Kernel, Namespaces};
use crate::handle::{Config, Dataplane, Identity, start_at};
use crate::run::Pace;
use discovery::{Endpoint, Knowledge, NetworkView, Sandbox, SandboxAttachment, ServiceView};
use scope::Scope;
use std::collections::BTreeSet;
use std::fmt::Debug;
use std::net::Ipv4Addr;
use std::time::Duration;
use tempfile::TempDir;
use types::Subnet;

const PACE: Pace = Pace { repair: Duration::from_secs(1), patience: Duration::from_secs(1) };

/// What outlives a daemon, and the one that runs.
struct Host {
    dir: TempDir,
    kernel: Kernel,
    namespaces: Namespaces,
    scope: Scope,
    dataplane: Dataplane,
}

impl Host {
    async fn new() -> Self {
        Self::with_resolv_conf("").await
    }

    async fn with_resolv_conf(resolv_conf: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("resolv.conf"), resolv_conf).unwrap();
        let (kernel, namespaces) = (Kernel::default(), Namespaces::default());
        let mut scope = Scope::new();
        let started =
            start_at(config(&dir), (kernel.clone(), namespaces.clone()), &mut scope, PACE)
                .await
                .unwrap();
        Self { dir, kernel, namespaces, scope, dataplane: started }
    }

    /// Ends the daemon and starts it again, with an empty kernel so that one sees what it does.
    async fn restart(&mut self) {
        let scope = std::mem::take(&mut self.scope);
        scope.cancel();
        scope.join().await.unwrap();
        self.kernel = Kernel::default();
        let ports = (self.kernel.clone(), self.namespaces.clone());
        self.dataplane = start_at(config(&self.dir), ports, &mut self.scope, PACE).await.unwrap();
    }

    async fn identify(&self) {
        let address = [192, 168, 0, 1].into();
        let identity = Identity { node: "n1".into(), address, data_path_port: 4789 };
        self.dataplane.identify(Some(identity)).await.unwrap();
    }

    async fn attach(&self, id: &str, task: Option<&str>, host: u8) -> Sandbox {
        let address = [10, 0, 1, host].into();
        let attachment = SandboxAttachment { network: "net".into(), address, prefix: 24 };
        let task = task.map(Into::into);
        self.dataplane.attach(id, task, vec![attachment], Vec::new()).await.unwrap()
    }

    async fn learn(&self, known: Knowledge, version: u64) {
        self.dataplane.learn(known, version).await.unwrap();
        let mut applied = self.dataplane.applied();
        let reached = applied.wait_for(|applied| *applied >= version);
        tokio::time::timeout(Duration::from_secs(10), reached).await.unwrap().unwrap();
    }
}

fn config(dir: &TempDir) -> Config {
    Config {
        dir: dir.path().join("dataplane"),
        netns_dir: dir.path().join("netns"),
        gateway_subnet: "172.30.0.0/16".parse().unwrap(),
        resolv_conf: dir.path().join("resolv.conf"),
    }
}

/// A network `net` with a service `web` at 10.0.1.2 and a task for each host part: those below 100
/// run on n1, the others on n2.
fn knowledge(tasks: &[(&str, u8, bool)]) -> Knowledge {
    let net = "10.0.1.0/24".parse().unwrap();
    let subnet = Some(Subnet { net, gateway: [10, 0, 1, 1].into() });
    let mut view =
        NetworkView { name: "front".to_owned(), vni: 4097, subnet, ..NetworkView::default() };
    let vip = Some([10, 0, 1, 2].into());
    let service = ServiceView { name: "web".to_owned(), aliases: BTreeSet::new(), vip };
    view.services.insert("web".into(), service);
    for (id, host, serving) in tasks {
        let node = if *host < 100 { 1 } else { 2 };
        let endpoint = Endpoint {
            address: [10, 0, 1, *host].into(),
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
