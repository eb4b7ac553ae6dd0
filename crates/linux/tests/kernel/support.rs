//! A lab for tests: nodes, containers, and small servers and clients in them.

use discovery::{
    Depth, Desired, Interface, Kernel as _, MeshRules, Outcome, Overlay, PortRules, SandboxRules,
    Vips,
};
use ipnet::Ipv4Net;
use linux::{Config, Kernel, Namespaces, Underlay, run_in};
use socket2::{Domain, Socket, Type};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4, TcpListener, TcpStream, UdpSocket};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::Duration;
use types::{NetworkId, Protocol, Subnet};

/// An answer that takes longer will not come.
pub(crate) const PATIENCE: Duration = Duration::from_secs(3);
/// Servers listen here, in UDP and TCP.
pub(crate) const PORT: u16 = 7000;
pub(crate) const VIP: Ipv4Addr = Ipv4Addr::new(10, 0, 1, 200);

/// A container: the number of its node, and its own on that node.
pub(crate) type Name = (u8, u8);

pub(crate) struct Host {
    pub(crate) path: PathBuf,
    pub(crate) config: Config,
    pub(crate) kernel: Kernel,
}

pub(crate) struct Lab {
    folder: tempfile::TempDir,
    pub(crate) underlay: Underlay,
    pub(crate) hosts: BTreeMap<u8, Host>,
    /// Who is there.
    pub(crate) containers: BTreeSet<Name>,
    /// Those of them that are on internal networks alone.
    pub(crate) inside: BTreeSet<Name>,
    pub(crate) vips: BTreeMap<Ipv4Addr, Vec<Name>>,
    /// Published port -> back ends.
    pub(crate) ports: BTreeMap<(Protocol, u16), Vec<Name>>,
    /// Where published ports lead: [`PORT`].
    pub(crate) target: u16,
    pub(crate) host_ports: BTreeMap<(Protocol, u16), Name>,
    pub(crate) data_path_port: u16,
    pub(crate) vni: u32,
    /// The underlay's as the network's creator said it.
    pub(crate) mtu: u32,
    pub(crate) network: NetworkId,
}

impl Host {
    pub(crate) fn apply(&mut self, desired: &Desired) -> Outcome {
        wait(self.kernel.apply(&Arc::new(desired.clone()), Depth::Change)).unwrap()
    }

    /// Tries what failed again, as the data plane does some time later.
    pub(crate) fn retry(&mut self, desired: &Desired) -> Outcome {
        wait(self.kernel.apply(&Arc::new(desired.clone()), Depth::Retry)).unwrap()
    }
}

pub(crate) fn wait<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(work)
}

/// Tries until it holds.
pub(crate) fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    for _ in 0..200 {
        if holds() {
            return;
        }
        thread::sleep(Duration::from_millis(25));
    }
    panic!("never: {what}");
}

impl Lab {
    /// Nodes 1 to `hosts`, with containers 1 to `each` on each of them.
    pub(crate) fn new(hosts: u8, each: u8) -> Self {
        assert!(nix::unistd::geteuid().is_root(), "these tests need root");
        let prefix = format!("skt-{}-", std::process::id());
        let folder = tempfile::Builder::new().prefix(&prefix).tempdir().unwrap();
        let underlay = Underlay {
            folder: folder.path().to_owned(),
            name: "switch".to_owned(),
            node: "node-".to_owned(),
            subnet: "10.250.0.0/24".parse().unwrap(),
        };
        let mut lab = Self {
            underlay,
            hosts: BTreeMap::new(),
            containers: BTreeSet::new(),
            inside: BTreeSet::new(),
            vips: BTreeMap::new(),
            ports: BTreeMap::new(),
            target: PORT,
            host_ports: BTreeMap::new(),
            data_path_port: 4789,
            vni: 4097,
            mtu: 0,
            network: "net1".into(),
            folder,
        };
        wait(dataplane::Namespaces::create(&Namespaces, &lab.machine())).unwrap();
        run_in(&lab.machine(), || lab.underlay.up()).unwrap().unwrap();
        for number in 1..=hosts {
            let path = lab.underlay.add_node(number.into()).unwrap();
            let config = Config {
                bridge: "skep_gwbridge".to_owned(),
                gateway_subnet: "172.30.0.0/16".parse().unwrap(),
                overlays: lab.folder.path().join(format!("overlays-{number}")),
            };
            let kernel = run_in(&path, || Kernel::new(config.clone())).unwrap().unwrap();
            lab.hosts.insert(number, Host { path, config, kernel });
            for own in 1..=each {
                lab.add((number, own));
            }
        }
        lab
    }

    pub(crate) fn add(&mut self, name: Name) {
        wait(dataplane::Namespaces::create(&Namespaces, &self.container(name))).unwrap();
        self.containers.insert(name);
    }

    pub(crate) fn remove(&mut self, name: Name) {
        self.containers.remove(&name);
        self.vips.values_mut().for_each(|names| names.retain(|other| *other != name));
        self.ports.values_mut().for_each(|names| names.retain(|other| *other != name));
    }

    /// An external client: no node, no container.
    pub(crate) fn machine(&self) -> PathBuf {
        self.folder.path().join("machine")
    }

    pub(crate) fn container(&self, (host, own): Name) -> PathBuf {
        self.folder.path().join(format!("c{host}-{own}"))
    }

    pub(crate) fn host(&self, number: u8) -> PathBuf {
        self.hosts[&number].path.clone()
    }

    pub(crate) fn node_address(&self, number: u8) -> Ipv4Addr {
        self.underlay.address(number.into())
    }

    pub(crate) fn apply(&mut self) {
        let desired: Vec<Desired> = self.hosts.keys().map(|host| self.desired(*host)).collect();
        for (host, desired) in self.hosts.values_mut().zip(desired) {
            assert_eq!(host.apply(&desired), Outcome::default());
        }
    }

    /// Looks at everything, as the data plane does each half minute.
    pub(crate) fn repair(&mut self) {
        let desired: Vec<Desired> = self.hosts.keys().map(|host| self.desired(*host)).collect();
        for (host, desired) in self.hosts.values_mut().zip(desired) {
            let outcome = wait(host.kernel.apply(&Arc::new(desired), Depth::Repair)).unwrap();
            assert_eq!(outcome, Outcome::default());
        }
    }

    /// Another daemon takes over.
    pub(crate) fn restart(&mut self) {
        for host in self.hosts.values_mut() {
            let config = host.config.clone();
            host.kernel = run_in(&host.path, || Kernel::new(config)).unwrap().unwrap();
        }
    }

    /// What `discovery` would project for a node.
    pub(crate) fn desired(&self, host: u8) -> Desired {
        let local = self.node_address(host);
        let others: Vec<Name> =
            self.containers.iter().filter(|name| name.0 != host).copied().collect();
        let overlay = Overlay {
            vni: self.vni,
            local: local.into(),
            port: self.data_path_port,
            subnets: Subnet::new("10.0.1.0/24".parse().unwrap()).into_iter().collect(),
            mtu: self.mtu,
            peers: others.iter().map(|name| self.node_address(name.0).into()).collect(),
            remotes: others
                .iter()
                .map(|name| (address(*name).into(), self.node_address(name.0).into()))
                .collect(),
        };
        let vips = self.vips.iter();
        let vips: BTreeMap<_, Vec<_>> =
            vips.map(|(vip, to)| (*vip, to.iter().copied().map(address).collect())).collect();
        let vips = Vips { v4: Arc::new(vips), ..Vips::default() };
        let own = self.containers.iter().filter(|name| name.0 == host);
        let sandboxes = own.map(|name| {
            let addresses = vec![Ipv4Net::new(address(*name), 24).unwrap().into()];
            let interface = Interface { network: self.network.clone(), addresses };
            let rules = SandboxRules {
                netns: self.container(*name).display().to_string(),
                gateway_addresses: gateway_address(*name).into(),
                default_route: !self.inside.contains(name),
                interfaces: vec![interface],
                dns_port: 40053,
                vips: vips.clone(),
                turn: 0,
            };
            (format!("c{}-{}", name.0, name.1), rules)
        });
        Desired {
            overlays: BTreeMap::from([(self.network.clone(), overlay)]),
            sandboxes: sandboxes.collect(),
            mesh: self.mesh(host),
        }
    }

    fn mesh(&self, host: u8) -> MeshRules {
        let backend = |name: &Name| {
            let address = if name.0 == host { gateway_address } else { ingress_address };
            IpAddr::V4(address(*name))
        };
        let (own, others): (BTreeSet<Name>, BTreeSet<Name>) =
            self.containers.iter().partition(|name| name.0 == host);
        let ports = self.ports.iter().map(|(key, names)| {
            (*key, PortRules { target: self.target, backends: names.iter().map(backend).collect() })
        });
        let host_ports = self.host_ports.iter().filter(|(_, name)| name.0 == host);
        MeshRules {
            prefix: 16,
            prefix_v6: 0,
            ingress: node_ingress(host).into(),
            local: Some(self.node_address(host).into()),
            port: self.data_path_port,
            mtu: self.mtu,
            peers: self
                .hosts
                .keys()
                .filter(|other| **other != host)
                .map(|other| (node_ingress(*other).into(), self.node_address(*other).into()))
                .collect(),
            remote_tasks: others
                .iter()
                .map(|name| (ingress_address(*name).into(), node_ingress(name.0).into()))
                .collect(),
            local_tasks: self
                .ports
                .iter()
                .flat_map(|((protocol, _), names)| names.iter().map(|name| (*protocol, *name)))
                .filter(|(_, name)| own.contains(name))
                .map(|(protocol, name)| {
                    let (from, to) = (ingress_address(name), gateway_address(name));
                    ((from.into(), protocol, self.target), to.into())
                })
                .collect(),
            ports: ports.collect(),
            host_ports: host_ports
                .map(|(key, name)| (*key, (gateway_address(*name).into(), PORT)))
                .collect(),
        }
    }

    pub(crate) fn serve_all(&self, names: &[Name]) {
        for name in names {
            self.serve(*name);
        }
    }

    /// Starts a server in a container, in UDP and TCP.
    pub(crate) fn serve(&self, name: Name) {
        let label = format!("c{}-{}", name.0, name.1);
        serve(&self.container(name), PORT, &label);
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        for host in self.hosts.values() {
            drop(run_in(&host.path, || Kernel::clean(&host.config)));
        }
        drop(run_in(&self.machine(), || self.underlay.down()));
        // Those of the networks of a host that a test has taken out stand in its folder.
        let files = |folder: &Path| {
            let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
            entries.map(|entry| entry.path()).collect::<Vec<_>>()
        };
        for file in files(self.folder.path()) {
            for namespace in files(&file).iter().chain([&file]) {
                drop(wait(dataplane::Namespaces::remove(&Namespaces, namespace)));
            }
        }
    }
}

pub(crate) fn address((host, own): Name) -> Ipv4Addr {
    [10, 0, 1, host * 10 + own].into()
}

pub(crate) fn gateway_address((_, own): Name) -> Ipv4Addr {
    [172, 30, 0, 10 + own].into()
}

pub(crate) fn ingress_address((host, own): Name) -> Ipv4Addr {
    [10, 255, 1, host * 10 + own].into()
}

pub(crate) fn node_ingress(host: u8) -> Ipv4Addr {
    [10, 255, 0, host].into()
}

/// Answers every connection and datagram with the server's name and the address of the client;
/// a connection then echoes lines.
pub(crate) fn serve(place: &Path, port: u16, name: &str) {
    let (tcp, udp) = run_in(place, || {
        (TcpListener::bind(("0.0.0.0", port)).unwrap(), UdpSocket::bind(("0.0.0.0", port)).unwrap())
    })
    .unwrap();
    let label = name.to_owned();
    thread::spawn(move || {
        for stream in tcp.incoming().map_while(Result::ok) {
            let label = label.clone();
            thread::spawn(move || echo(stream, &label));
        }
    });
    let label = name.to_owned();
    thread::spawn(move || {
        let mut buffer = [0; 100];
        while let Ok((_, from)) = udp.recv_from(&mut buffer) {
            drop(udp.send_to(format!("{label} {}", from.ip()).as_bytes(), from));
        }
    });
}

fn echo(mut stream: TcpStream, label: &str) -> Option<()> {
    let peer = stream.peer_addr().ok()?.ip();
    writeln!(stream, "{label} {peer}").ok()?;
    let mut reader = BufReader::new(stream.try_clone().ok()?);
    let mut line = String::new();
    while reader.read_line(&mut line).ok()? != 0 {
        stream.write_all(line.as_bytes()).ok()?;
        line.clear();
    }
    Some(())
}

/// A connection that stays open.
pub(crate) struct Held {
    reader: BufReader<TcpStream>,
    /// The server's name and the address that it saw.
    pub(crate) greeting: String,
}

impl Held {
    pub(crate) fn open(place: &Path, to: Ipv4Addr, port: u16) -> io::Result<Self> {
        let to = SocketAddr::from((to, port));
        let stream = run_in(place, || TcpStream::connect_timeout(&to, PATIENCE)).unwrap()?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let mut reader = BufReader::new(stream);
        let mut greeting = String::new();
        reader.read_line(&mut greeting)?;
        Ok(Self { reader, greeting: greeting.trim().to_owned() })
    }

    /// Sends a line and waits for it to come back.
    pub(crate) fn ask(&mut self) -> io::Result<()> {
        self.reader.get_mut().write_all(b"ping\n")?;
        let mut answer = String::new();
        match self.reader.read_line(&mut answer)? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            _ => Ok(()),
        }
    }
}

pub(crate) fn ask_all(held: &mut [Held]) {
    for held in held {
        held.ask().unwrap();
    }
}

pub(crate) fn ask_tcp(place: &Path, to: Ipv4Addr, port: u16) -> io::Result<String> {
    Ok(Held::open(place, to, port)?.greeting)
}

pub(crate) fn udp_client(place: &Path) -> UdpSocket {
    let socket = run_in(place, || UdpSocket::bind("0.0.0.0:0").unwrap()).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket
}

pub(crate) fn ask_by(socket: &UdpSocket, to: Ipv4Addr, port: u16) -> io::Result<String> {
    socket.send_to(b"?", (to, port))?;
    let mut buffer = [0; 100];
    let (length, from) = socket.recv_from(&mut buffer)?;
    assert_eq!(from, SocketAddr::V4(SocketAddrV4::new(to, port)), "the answer is from elsewhere");
    Ok(String::from_utf8_lossy(&buffer[..length]).into_owned())
}

pub(crate) fn ask_udp(place: &Path, to: Ipv4Addr, port: u16) -> io::Result<String> {
    ask_by(&udp_client(place), to, port)
}

/// Asks over both protocols `times` each, and counts answers: one line for each kind.
pub(crate) fn survey(place: &Path, to: Ipv4Addr, port: u16, times: usize) -> String {
    let mut lines = String::new();
    for (protocol, ask) in [("tcp", ask_tcp as fn(&Path, _, _) -> _), ("udp", ask_udp)] {
        let mut answers: BTreeMap<String, usize> = BTreeMap::new();
        for _ in 0..times {
            let answer = ask(place, to, port).unwrap_or_else(|error| error.kind().to_string());
            *answers.entry(answer).or_default() += 1;
        }
        for (answer, count) in answers {
            writeln!(lines, "{protocol} {answer} x{count}").unwrap();
        }
    }
    lines
}

/// One echo request; says whether it is answered.
pub(crate) fn ping(place: &Path, to: Ipv4Addr) -> bool {
    run_in(place, || {
        let icmp = Socket::new(Domain::IPV4, Type::DGRAM, Some(socket2::Protocol::ICMPV4)).unwrap();
        icmp.set_read_timeout(Some(PATIENCE)).unwrap();
        icmp.connect(&SocketAddr::from((to, 0)).into()).unwrap();
        icmp.send(&[8, 0, 0, 0, 0, 1, 0, 1]).unwrap();
        (&icmp).read(&mut [0; 100]).is_ok()
    })
    .unwrap()
}

/// Runs a program inside a namespace and returns what it prints.
pub(crate) fn run(place: &Path, program: &[&str]) -> String {
    #[expect(clippy::disallowed_methods, reason = "tests break things with the usual tools")]
    let mut command = std::process::Command::new(program[0]);
    let output =
        linux::start_in(&mut command, place).unwrap().args(&program[1..]).output().unwrap();
    assert!(output.status.success(), "{program:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}
