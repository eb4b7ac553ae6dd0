//! Names, addresses and folders of a lab. Pure.
//!
//! Whatever a lab has is called after it, so that two labs share nothing: namespaces, containerd,
//! cgroups, the underlay, and the address of the machine's loopback that leads to it.

use crate::daemon::options::{DATA, RUN};
use ipnet::Ipv4Net;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

/// The most nodes a lab has: its underlay is a /24.
pub(crate) const NODES_MAX: u8 = 100;
/// The lab that is meant where nobody names one.
pub(crate) const DEFAULT: &str = "lab";
/// The underlay of that lab.
const DEFAULT_SUBNET: Ipv4Net = Ipv4Net::new_assert(Ipv4Addr::new(192, 168, 100, 0), 24);
/// The machine's interface is called `skep-NAME0`, and an interface's name has 15 characters.
const NAME_MAX: usize = 9;

/// Where a lab keeps its things, and what they are called.
#[derive(Clone, Debug)]
pub(crate) struct Layout {
    pub(crate) name: String,
    /// The underlay; `None` while the lab was never up and may take any.
    pub(crate) subnet: Option<Ipv4Net>,
    pub(crate) data: PathBuf,
    pub(crate) run: PathBuf,
}

/// One node of a lab.
#[derive(Clone, Debug)]
pub(crate) struct Node {
    pub(crate) number: u8,
    pub(crate) name: String,
    /// The network namespace's name, and the containerd namespace's.
    pub(crate) namespace: String,
    pub(crate) address: Ipv4Addr,
    pub(crate) data: PathBuf,
    pub(crate) run: PathBuf,
    pub(crate) cgroup_parent: String,
}

/// Reads the name of a lab: interfaces, namespaces and cgroups are called after it.
pub(crate) fn name(text: &str) -> Result<String, String> {
    let plain = text.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit());
    let letter = text.starts_with(|first: char| first.is_ascii_lowercase());
    if plain && letter && text.len() <= NAME_MAX {
        return Ok(text.to_owned());
    }
    Err(format!("a lab's name is a small letter and up to {} more, or digits", NAME_MAX - 1))
}

/// Reads the subnet of an underlay.
pub(crate) fn subnet(text: &str) -> Result<Ipv4Net, String> {
    let read: Option<Ipv4Net> = text.parse().ok();
    let net = read.filter(|net| net.prefix_len() == 24 && net.network() == net.addr());
    net.ok_or_else(|| "a lab's subnet is a /24, e.g. 192.168.150.0/24".to_owned())
}

/// The first subnet for a lab that overlaps with none of those in use.
pub(crate) fn free_subnet(taken: &[Ipv4Net]) -> Option<Ipv4Net> {
    let candidates = (101..200).map(|third| Ipv4Net::new_assert([192, 168, third, 0].into(), 24));
    let overlap = |one: &Ipv4Net, other: &Ipv4Net| one.contains(other) || other.contains(one);
    candidates.into_iter().find(|net| taken.iter().all(|other| !overlap(net, other)))
}

impl Layout {
    /// The lab of this name, in its usual folders where no others are given.
    pub(crate) fn new(name: String, data: Option<PathBuf>, run: Option<PathBuf>) -> Self {
        let folder = if name == DEFAULT { name.clone() } else { format!("lab-{name}") };
        Self {
            subnet: (name == DEFAULT).then_some(DEFAULT_SUBNET),
            data: data.unwrap_or_else(|| Path::new(DATA).join(&folder)),
            run: run.unwrap_or_else(|| Path::new(RUN).join(&folder)),
            name,
        }
    }

    /// The node of this number, counted from 1.
    pub(crate) fn node(&self, number: u8) -> Node {
        let name = format!("node-{number}");
        let underlay = self.underlay();
        Node {
            number,
            namespace: format!("{}{number}", underlay.node),
            address: underlay.address(number.into()),
            data: self.data.join(&name),
            run: self.run.join(&name),
            cgroup_parent: format!("{}/{name}", self.cgroup()),
            name,
        }
    }

    /// The switch with its nodes.
    pub(crate) fn underlay(&self) -> linux::Underlay {
        let mine = format!("skep-{}", self.name);
        let others = format!("{mine}-node-");
        linux::Underlay {
            folder: "/run/netns".into(),
            node: if self.name == DEFAULT { "skep-node-".to_owned() } else { others },
            name: mine,
            subnet: self.subnet.unwrap_or(DEFAULT_SUBNET),
        }
    }

    /// The cgroup above those of the nodes.
    pub(crate) fn cgroup(&self) -> String {
        format!("/skep-{}", self.name)
    }

    /// The machine's address at which published ports answer.
    pub(crate) fn localhost(&self) -> Ipv4Addr {
        if self.name == DEFAULT {
            return Ipv4Addr::LOCALHOST;
        }
        let [_, second, third, _] = self.underlay().subnet.network().octets();
        Ipv4Addr::new(127, second, third, 1)
    }

    /// Where the subnet is noted: the nodes' addresses stay theirs over a reboot.
    pub(crate) fn subnet_file(&self) -> PathBuf {
        self.data.join("subnet")
    }

    /// The nodes that were brought up, by what is on disk.
    pub(crate) fn nodes(&self) -> Vec<Node> {
        let known = |number: &u8| self.node(*number).data.is_dir();
        (1..=NODES_MAX).filter(known).map(|number| self.node(number)).collect()
    }

    /// The resolver's configuration of every node: no upstream, no search domain.
    pub(crate) fn resolv_conf(&self) -> PathBuf {
        self.run.join("resolv.conf")
    }

    /// Files of the Container Device Interface that are every node's, beside the machine's own.
    pub(crate) fn cdi(&self) -> PathBuf {
        self.run.join("cdi")
    }

    pub(crate) fn containerd_data(&self) -> PathBuf {
        self.data.join("containerd")
    }

    pub(crate) fn containerd_run(&self) -> PathBuf {
        self.run.join("containerd")
    }

    pub(crate) fn keeper_pid(&self) -> PathBuf {
        self.run.join("keep.pid")
    }

    pub(crate) fn forwarder_pid(&self) -> PathBuf {
        self.run.join("forward.pid")
    }
}

impl Node {
    pub(crate) fn socket(&self) -> PathBuf {
        self.run.join("docker.sock")
    }

    pub(crate) fn pid_file(&self) -> PathBuf {
        self.run.join("daemon.pid")
    }

    pub(crate) fn log(&self) -> PathBuf {
        self.data.join("daemon.log")
    }

    pub(crate) fn netns(&self) -> PathBuf {
        Path::new("/run/netns").join(&self.namespace)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn net(text: &str) -> Ipv4Net {
        text.parse().unwrap()
    }

    #[test]
    fn the_usual_lab_is_where_the_story_says() {
        let layout = Layout::new(DEFAULT.to_owned(), None, None);
        let node = layout.node(1);
        assert_eq!(node.address, Ipv4Addr::new(192, 168, 100, 2));
        assert_eq!(node.namespace, "skep-node-1");
        assert_eq!(node.cgroup_parent, "/skep-lab/node-1");
        assert_eq!(node.socket(), Path::new("/run/skep/lab/node-1/docker.sock"));
        assert_eq!(node.data, Path::new("/var/lib/skep/lab/node-1"));
        assert_eq!(layout.localhost(), Ipv4Addr::LOCALHOST);
    }

    #[test]
    fn two_labs_share_nothing() {
        let parts = |name: &str, subnet: &str| {
            let mut layout = Layout::new(name.to_owned(), None, None);
            layout.subnet = Some(net(subnet));
            let (node, underlay) = (layout.node(1), layout.underlay());
            [
                node.namespace,
                node.address.to_string(),
                node.cgroup_parent,
                node.data.display().to_string(),
                node.run.display().to_string(),
                layout.localhost().to_string(),
                underlay.name,
                layout.containerd_run().display().to_string(),
            ]
        };
        let (usual, other) = (parts(DEFAULT, "192.168.100.0/24"), parts("x", "192.168.101.0/24"));
        for (one, two) in usual.iter().zip(&other) {
            assert_ne!(one, two);
        }
        assert!(other.contains(&"skep-x-node-1".to_owned()), "{other:?}");
        assert!(other.contains(&"127.168.101.1".to_owned()), "{other:?}");
    }

    #[test]
    fn a_free_subnet_is_one_that_no_route_leads_to() {
        assert_eq!(free_subnet(&[]), Some(net("192.168.101.0/24")));
        let taken = [net("192.168.101.0/24"), net("192.168.102.128/25")];
        assert_eq!(free_subnet(&taken), Some(net("192.168.103.0/24")));
        assert_eq!(free_subnet(&[net("192.168.0.0/16")]), None);
    }

    #[test]
    fn a_name_fits_an_interface_and_cannot_be_taken_for_a_node() {
        for good in ["a", "lab", "t12345678"] {
            assert_eq!(name(good).as_deref(), Ok(good));
        }
        for bad in ["", "node-1", "A", "1a", "a_b", "t123456789"] {
            assert!(name(bad).is_err(), "{bad}");
        }
        assert_eq!(subnet("10.1.2.0/24"), Ok(net("10.1.2.0/24")));
        assert!(subnet("10.1.2.1/24").is_err() && subnet("10.1.0.0/16").is_err());
    }
}
