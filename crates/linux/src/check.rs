//! What a machine needs, found out by doing it in a namespace that is thrown away.

use crate::error::{Error, chain};
use crate::ipv4::{MeshRules, PortRules, SandboxRules};
use crate::namespace::{Namespace, in_thread};
use crate::netlink::{Bridge, Socket, Veth, Vxlan, add_bridge, add_veth, add_vxlan};
use crate::nft::Nftables;
use crate::render;
use crate::render::mesh::{Mesh, Surroundings};
use ipnet::Ipv4Net;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};
use std::fs;
use std::io;
use std::net::Ipv4Addr;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use types::Protocol;

/// Where programs are looked for besides the process's own path.
const PROGRAM_FOLDERS: [&str; 6] =
    ["/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"];

/// Addresses for the rules that are tried: two on the ingress network, two of nodes, two of
/// containers.
const SAMPLES: [Ipv4Addr; 6] = [
    Ipv4Addr::new(10, 255, 0, 1),
    Ipv4Addr::new(10, 255, 0, 2),
    Ipv4Addr::new(192, 0, 2, 1),
    Ipv4Addr::new(192, 0, 2, 2),
    Ipv4Addr::new(172, 30, 0, 11),
    Ipv4Addr::new(10, 255, 1, 21),
];

/// Something that a node needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Need {
    pub name: &'static str,
    pub present: bool,
    /// What it is for.
    pub why: &'static str,
    /// What was found instead; empty where it is present.
    pub found: String,
    /// What to do if it is not present.
    pub remedy: &'static str,
}

/// Looks for everything that a node needs. Nothing that this tries is left behind.
pub fn check() -> Vec<Need> {
    let root = need(
        "root",
        "to make namespaces, interfaces and rules",
        "run it as root, with all capabilities",
        nix::unistd::geteuid().is_root().then_some(()).ok_or("not root"),
    );
    let mut needs = vec![root];
    needs.extend(kernel_needs());
    needs.extend(file_needs());
    needs
}

fn kernel_needs() -> Vec<Need> {
    let rules = Nftables::load();
    let library = need(
        "libnftables",
        "to balance services and publish ports",
        "install the package libnftables1 (nftables)",
        rules.as_ref().map(drop).map_err(chain),
    );
    vec![
        need(
            "network namespaces",
            "to give each container a network of its own",
            "use a kernel with CONFIG_NET_NS",
            probe(|| Ok(())),
        ),
        need(
            "bridge",
            "to join the containers of a network",
            "load the module bridge, or use a kernel with CONFIG_BRIDGE",
            probe(|| {
                let bridge = Bridge { name: "check0", mac: [2, 0, 0, 0, 0, 1], mtu: 1500 };
                Socket::route()?.send_one(add_bridge(bridge))
            }),
        ),
        need(
            "veth",
            "to join a container to a bridge",
            "load the module veth, or use a kernel with CONFIG_VETH",
            probe(probe_veth),
        ),
        need(
            "vxlan",
            "to join the nodes of a network",
            "load the module vxlan, or use a kernel with CONFIG_VXLAN",
            probe(probe_vxlan),
        ),
        library,
        need(
            "nftables nat, numgen, fib, reject",
            "to balance services and publish ports",
            "load the modules nft_chain_nat, nft_numgen, nft_fib_ipv4, nft_reject_ipv4 and nf_conntrack, \
             or use a kernel with them",
            probe_rules(rules.as_ref(), || {
                render::sandbox::whole(&sample_sandbox(), &[].into(), (0, 1)).text()
                    + &mesh(render::mesh::packets)
            }),
        ),
        need(
            "nftables in bridges",
            "to keep containers from sending in another one's name",
            "load the module nf_tables with CONFIG_NF_TABLES_BRIDGE, or use a kernel with it",
            probe_rules(rules.as_ref(), || mesh(render::mesh::interfaces)),
        ),
        need(
            "nftables egress hook",
            "to send replies of the routing mesh back to the right node",
            "use Linux 5.16 or later with CONFIG_NETFILTER_EGRESS",
            probe_rules(rules.as_ref(), || mesh(render::mesh::egress)),
        ),
        need(
            "IP forwarding",
            "to lead containers out",
            "mount /proc/sys writable, or set net.ipv4.ip_forward=1 yourself",
            forwarding(),
        ),
    ]
}

fn file_needs() -> Vec<Need> {
    vec![
        need(
            "overlayfs",
            "to put the layers of an image together",
            "load the module overlay, or use a kernel with CONFIG_OVERLAY_FS",
            overlayfs(),
        ),
        need(
            "containerd",
            "to run containers",
            "install containerd, or name a running one by --containerd",
            program("containerd"),
        ),
        need("runc", "to run containers", "install runc", program("runc")),
    ]
}

fn need<E: ToString>(
    name: &'static str,
    why: &'static str,
    remedy: &'static str,
    found: Result<(), E>,
) -> Need {
    let present = found.is_ok();
    let found = found.err().map(|error| error.to_string()).unwrap_or_default();
    Need { name, present, why, found, remedy }
}

/// Tries something in a namespace that ends with it.
fn probe(work: impl FnOnce() -> Result<(), Error> + Send) -> Result<(), String> {
    in_thread(|| {
        unshare(CloneFlags::CLONE_NEWNET)
            .map_err(|errno| Error::system("make a network namespace", errno.into()))?;
        work()
    })
    .map_err(|error| chain(&error))
}

fn probe_veth() -> Result<(), Error> {
    let here = Namespace::own()?;
    let veth = Veth {
        name: "check0",
        mtu: 1450,
        master: None,
        peer: "check1",
        peer_mac: None,
        peer_namespace: here.as_fd(),
    };
    Socket::route()?.send_one(add_veth(&veth))
}

fn probe_vxlan() -> Result<(), Error> {
    let vxlan = Vxlan {
        name: "check0",
        vni: 4096,
        local: Ipv4Addr::LOCALHOST,
        port: 4789,
        mac: None,
        mtu: 1450,
    };
    Socket::route()?.send_one(add_vxlan(&vxlan))
}

fn probe_rules(
    library: Result<&Nftables, &Error>,
    rules: impl FnOnce() -> String + Send,
) -> Result<(), String> {
    let library = library.map_err(chain)?.clone();
    probe(move || library.open()?.run(&rules()).map(drop))
}

/// Renders one of the node's tables with something of everything that it can have, at the one
/// interface that every namespace has.
fn mesh(render: impl FnOnce(&Mesh<'_>) -> String) -> String {
    let [ingress, peer, local, other, here, there] = SAMPLES;
    let port = |backends: &[Ipv4Addr]| PortRules { target: 80, backends: backends.to_vec() };
    let rules = MeshRules {
        ingress: Some(ingress),
        prefix: 16,
        local: Some(local),
        port: 4789,
        peers: [(peer, other)].into(),
        local_tasks: [((there, Protocol::Tcp, 80), here)].into(),
        ports: [((Protocol::Tcp, 80), port(&[here, there])), ((Protocol::Udp, 80), port(&[]))]
            .into(),
        ..MeshRules::default()
    };
    let surroundings = Surroundings {
        closed: ["lo".to_owned()].into(),
        containers: [here].into(),
        inside: [here].into(),
        vnis: [4096].into(),
        ends: [(4096, other)].into(),
    };
    let subnet = Ipv4Net::new(here, 16).unwrap_or_default();
    render(&Mesh { rules: &rules, surroundings: &surroundings, bridge: "lo", subnet, tunnel: "lo" })
}

fn sample_sandbox() -> SandboxRules {
    let [.., here, there] = SAMPLES;
    SandboxRules {
        netns: String::new(),
        gateway_address: here,
        default_route: true,
        attachments: Vec::new(),
        dns_port: 53,
        vips: Arc::new([(there, vec![here, there]), (here, Vec::new())].into()),
        turn: 0,
    }
}

/// Writes back what is there: that shows whether it can be written.
fn forwarding() -> Result<(), io::Error> {
    const PATH: &str = "/proc/sys/net/ipv4/ip_forward";
    fs::write(PATH, fs::read(PATH)?)
}

/// Mounts one, in a mount namespace that ends with the thread.
fn overlayfs() -> Result<(), String> {
    in_thread(|| {
        let failed = |errno: nix::Error| Error::system("mount an overlayfs", errno.into());
        unshare(CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_FS).map_err(failed)?;
        let none = None::<&str>;
        mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).map_err(failed)?;
        let at = std::env::temp_dir();
        mount(Some("check"), &at, Some("tmpfs"), MsFlags::empty(), none).map_err(failed)?;
        for folder in ["lower", "upper", "work", "all"] {
            let made = fs::create_dir(at.join(folder));
            made.map_err(|source| Error::system("make a folder", source))?;
        }
        let under = at.display();
        let options = format!("lowerdir={under}/lower,upperdir={under}/upper,workdir={under}/work");
        let all = at.join("all");
        mount(Some("check"), &all, Some("overlay"), MsFlags::empty(), Some(options.as_str()))
            .map_err(failed)?;
        umount2(&all, MntFlags::empty()).map_err(failed)
    })
    .map_err(|error| chain(&error))
}

fn program(name: &str) -> Result<(), String> {
    let own = std::env::var_os("PATH").unwrap_or_default();
    let own: Vec<PathBuf> = std::env::split_paths(&own).collect();
    let folders = own.iter().map(PathBuf::as_path).chain(PROGRAM_FOLDERS.iter().map(Path::new));
    let mut files = folders.map(|folder| folder.join(name));
    if files.any(|file| file.is_file()) {
        return Ok(());
    }
    Err("not found in the path".to_owned())
}
