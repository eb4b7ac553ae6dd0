//! Names, addresses and folders of a lab. Pure.

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

/// The most nodes a lab has: its underlay is a /24.
pub(crate) const NODES_MAX: u8 = 100;

/// Where a lab keeps its things.
#[derive(Clone, Debug)]
pub(crate) struct Layout {
    pub(crate) data: PathBuf,
    pub(crate) run: PathBuf,
}

/// One node of a lab.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    pub(crate) number: u8,
    pub(crate) name: String,
    /// The network namespace's name, and the containerd namespace's.
    pub(crate) namespace: String,
    pub(crate) address: Ipv4Addr,
    pub(crate) data: PathBuf,
    pub(crate) run: PathBuf,
}

impl Layout {
    /// The place of node `number`, counted from 1.
    pub(crate) fn place(&self, number: u8) -> Place {
        let name = format!("node-{number}");
        Place {
            number,
            namespace: format!("skep-{name}"),
            address: Ipv4Addr::new(192, 168, 100, number.saturating_add(1)),
            data: self.data.join(&name),
            run: self.run.join(&name),
            name,
        }
    }

    /// The nodes that were brought up, by what is on disk.
    pub(crate) fn places(&self) -> Vec<Place> {
        let known = |number: &u8| self.place(*number).data.is_dir();
        (1..=NODES_MAX).filter(known).map(|number| self.place(number)).collect()
    }

    /// The resolver's configuration of every node: no upstream, no search domain.
    pub(crate) fn resolv_conf(&self) -> PathBuf {
        self.run.join("resolv.conf")
    }

    pub(crate) fn containerd_data(&self) -> PathBuf {
        self.data.join("containerd")
    }

    pub(crate) fn containerd_run(&self) -> PathBuf {
        self.run.join("containerd")
    }

    pub(crate) fn forwarder_pid(&self) -> PathBuf {
        self.run.join("forward.pid")
    }
}

impl Place {
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

    pub(crate) fn cgroup_parent(&self) -> String {
        format!("/skep-lab/{}", self.name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn node_n_has_the_address_after_its_number() {
        let layout = Layout { data: "/d".into(), run: "/r".into() };
        let place = layout.place(1);
        assert_eq!(place.address, Ipv4Addr::new(192, 168, 100, 2));
        assert_eq!(place.namespace, "skep-node-1");
        assert_eq!(place.socket(), Path::new("/r/node-1/docker.sock"));
    }
}
