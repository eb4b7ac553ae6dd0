//! 500 containers on one node, 1,000 endpoints, 50 services: what a change of one back end costs
//! until all of them have it, and what looking after everything costs. Needs root; all of it is in
//! namespaces that end with it.
#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "a benchmark prints, or fails")]

use dataplane::{Dataplane, Identity, Names, Namespaces as _, News, Process, Wanted};
use discovery::{
    Depth, Endpoint, Here, Kernel as _, Knowledge, NetworkView, SandboxAttachment, ServiceView,
};
use linux::{Config, Kernel, Namespaces, run_in};
use nix::sys::resource::{UsageWho, getrusage};
use scope::Scope;
use std::io;
use std::net::{Ipv4Addr, UdpSocket};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::net::UnixListener;
use types::{Subnet, TaskId};

const CONTAINERS: u16 = 500;
const ENDPOINTS: u16 = 1000;
const SERVICES: u16 = 50;
const ROUNDS: u64 = 11;
/// How often the data plane looks at everything.
const REPAIR: Duration = Duration::from_secs(30);
const NODE: Ipv4Addr = Ipv4Addr::new(10, 250, 0, 2);

fn main() {
    let folder = tempfile::tempdir().unwrap();
    let node = folder.path().join("node");
    let runtime = || tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime().block_on(Namespaces.create(&node)).unwrap();
    run_in(&node, || runtime().block_on(bench(folder.path()))).unwrap();
    for path in std::fs::read_dir(folder.path().join("netns")).unwrap() {
        runtime().block_on(Namespaces.remove(&path.unwrap().path())).unwrap();
    }
    runtime().block_on(Namespaces.remove(&node)).unwrap();
}

async fn bench(folder: &Path) {
    let mut scope = Scope::new();
    let config = Config {
        bridge: "skep_gwbridge".to_owned(),
        gateway_subnet: "172.30.0.0/16".parse().unwrap(),
        overlays: folder.join("overlays"),
    };
    let server = Server(folder.to_owned(), None);
    let names = Names::at(folder.join("resolver.sock"), server, &mut scope);
    let files = dataplane::Config {
        dir: folder.join("dataplane"),
        netns_dir: folder.join("netns"),
        gateway_subnet: config.gateway_subnet,
    };
    let kernel = Kernel::new(config.clone()).unwrap();
    let plane = dataplane::start(files, kernel, Namespaces, names, &mut scope).await.unwrap();
    let identity = Identity { node: "n1".into(), address: NODE.into(), data_path_port: 4789 };
    plane.identify(Some(identity)).await.unwrap();
    let known = knowledge(None);
    plane.learn(News::Whole(known), 1).await.unwrap();

    let start = now();
    let attaching = (0..CONTAINERS).map(|number| attach(&plane, number));
    let used = used_so_far();
    futures_join(attaching).await;
    println!("{CONTAINERS} containers attached: {}", since(start, used));

    let mut version = 1;
    report("a change of one back end, no connections", change(&plane, &mut version).await);
    for (id, sandbox) in plane.sandboxes().await.unwrap() {
        // To a service other than one's own.
        let number: u16 = id.trim_start_matches('c').parse().unwrap();
        let to = (vip(number % SERVICES), 7000);
        let sent = run_in(Path::new(&sandbox.netns), || {
            UdpSocket::bind("0.0.0.0:0").and_then(|socket| socket.send_to(b"?", to))
        });
        sent.unwrap().unwrap();
    }
    report("the same, each has a connection", change(&plane, &mut version).await);

    let here = Here {
        node: "n1".into(),
        address: NODE.into(),
        data_path_port: 4789,
        sandboxes: plane.sandboxes().await.unwrap(),
        hidden: discovery::OrdSet::new(),
    };
    // As the last round has left it.
    let known = knowledge(Some(ENDPOINTS - 1));
    let desired = Arc::new(discovery::desired(&known, &here));
    scope.cancel();
    scope.join().await.unwrap();
    let mut kernel = Kernel::new(config.clone()).unwrap();
    let (start, used) = (now(), used_so_far());
    assert!(kernel.apply(&desired, Depth::Repair).await.unwrap().is_whole());
    println!("another daemon takes over: {}", since(start, used));
    let (start, used) = (now(), used_so_far());
    for _ in 0..ROUNDS {
        assert!(kernel.apply(&desired, Depth::Repair).await.unwrap().is_whole());
    }
    let each = |all: Duration| all.as_secs_f64() / f64::from(u32::try_from(ROUNDS).unwrap());
    let (took, used) = (each(start.elapsed()), each(used_so_far().saturating_sub(used)));
    println!(
        "a repair: {:.0} ms, {:.0} ms of a core: {:.2} % of it (limit 5 %)",
        took * 1e3,
        used * 1e3,
        100.0 * used / REPAIR.as_secs_f64()
    );
    drop(kernel);
    Kernel::clean(&config).unwrap();
}

/// Takes one back end out or in, in turn, until kernel and names hold it: the median, and how much
/// of a core it took.
async fn change(plane: &Dataplane, version: &mut u64) -> (Duration, Duration) {
    let mut applied = plane.applied();
    let mut times = Vec::new();
    let used = used_so_far();
    for round in 0..ROUNDS {
        *version += 1;
        let out = (round % 2 == 0).then_some(ENDPOINTS - 1);
        let known = knowledge(out);
        let start = now();
        plane.learn(News::Whole(known), *version).await.unwrap();
        applied.wait_for(|applied| *applied >= *version).await.unwrap();
        times.push(start.elapsed());
    }
    let used = used_so_far().saturating_sub(used) / u32::try_from(ROUNDS).unwrap();
    times.sort();
    (times[times.len() / 2], used)
}

fn report(what: &str, (time, used): (Duration, Duration)) {
    let [time, used] = [time, used].map(|time| time.as_secs_f64() * 1e3);
    println!("{what}: {time:.1} ms on all {CONTAINERS} (limit 100 ms), {used:.1} ms of a core");
}

fn since(start: Instant, used: Duration) -> String {
    let used = used_so_far().saturating_sub(used);
    format!("{:.2} s, {:.2} s of a core", start.elapsed().as_secs_f64(), used.as_secs_f64())
}

async fn attach(plane: &Dataplane, number: u16) {
    let attachment = SandboxAttachment { network: "net".into(), addresses: address(number).into() };
    let task = TaskId::from(format!("t{number}").as_str());
    let wanted = Wanted { task: Some(task), attachments: vec![attachment], ..Wanted::default() };
    plane.attach(&format!("c{number}"), wanted).await.unwrap();
}

async fn futures_join(work: impl Iterator<Item = impl Future<Output = ()>>) {
    let mut work: Vec<_> = work.map(Box::pin).collect();
    std::future::poll_fn(|context| {
        work.retain_mut(|one| one.as_mut().poll(context).is_pending());
        if work.is_empty() { std::task::Poll::Ready(()) } else { std::task::Poll::Pending }
    })
    .await;
}

fn address(number: u16) -> Ipv4Addr {
    let [high, low] = (number + 0x200).to_be_bytes();
    [10, 0, high, low].into()
}

fn vip(number: u16) -> Ipv4Addr {
    [10, 0, 1, u8::try_from(number).unwrap()].into()
}

/// Everybody serves but `out`. The first half is on this node.
fn knowledge(out: Option<u16>) -> Knowledge {
    let mut view = NetworkView {
        name: "net".to_owned(),
        vni: 4097,
        subnets: Subnet::new("10.0.0.0/16".parse().unwrap()).into_iter().collect(),
        ..NetworkView::default()
    };
    for number in 0..SERVICES {
        let name = format!("service-{number}");
        let service = ServiceView { name, vips: vip(number).into(), ..ServiceView::default() };
        view.services.insert(format!("s{number}").as_str().into(), service);
    }
    for number in 0..ENDPOINTS {
        let node = if number < CONTAINERS { 1 } else { 2 };
        let (task, service) = (format!("t{number}"), number % SERVICES);
        let endpoint = Endpoint {
            addresses: address(number).into(),
            node: format!("n{node}").as_str().into(),
            vtep: [10, 250, 0, node + 1].into(),
            service: format!("s{service}").as_str().into(),
            name: format!("service-{service}.{number}.{task}"),
            aliases: [].into(),
            serving: out != Some(number),
        };
        view.endpoints.insert(task.as_str().into(), endpoint);
    }
    Knowledge { networks: [("net".into(), view)].into(), ..Knowledge::default() }
}

/// The name server, reached as a process of its own is.
struct Server(PathBuf, Option<Scope>);

impl Process for Server {
    async fn renew(&mut self) -> io::Result<()> {
        let listener = UnixListener::bind(self.0.join("resolver.sock"))?;
        let mut scope = Scope::new();
        dataplane::serve(listener, Namespaces, &self.0.join("none"), &mut scope).await;
        self.1 = Some(scope);
        Ok(())
    }
}

fn used_so_far() -> Duration {
    let usage = getrusage(UsageWho::RUSAGE_SELF).unwrap();
    let time = [usage.user_time(), usage.system_time()];
    let micros = time.map(|time| time.tv_sec() * 1_000_000 + time.tv_usec());
    Duration::from_micros(micros.iter().sum::<i64>().try_into().unwrap())
}

#[expect(clippy::disallowed_methods, reason = "a benchmark measures real time")]
fn now() -> Instant {
    Instant::now()
}
