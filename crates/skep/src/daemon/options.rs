//! What the daemon is told on its command line.

use clap::Args;
use ipnet::Ipv4Net;
use std::net::Ipv4Addr;
use std::path::PathBuf;

// What holds where nobody says otherwise; `skep uninstall` takes away what is there.
pub(crate) const DATA: &str = "/var/lib/skep";
pub(crate) const RUN: &str = "/run/skep";
pub(crate) const CONTAINERD_NAMESPACE: &str = "skep";
pub(crate) const CGROUP_PARENT: &str = "/skep";
/// Where clients look for the API of a daemon that runs in [`RUN`].
pub(crate) const API: &str = "unix:///run/skep/docker.sock";
/// The subnet of the gateway bridge.
pub(crate) const GATEWAY_SUBNET: Ipv4Net = Ipv4Net::new_assert(Ipv4Addr::new(172, 30, 0, 0), 16);

/// Options of `skep daemon`.
#[derive(Args, Clone, Debug)]
pub(crate) struct Options {
    /// Where state that must survive a reboot is kept
    #[arg(long, default_value = DATA, value_name = "DIR")]
    pub(crate) data: PathBuf,
    /// Where sockets, namespaces and pipes are kept
    #[arg(long, default_value = RUN, value_name = "DIR")]
    pub(crate) run: PathBuf,
    /// Where the API answers: unix://PATH, or tcp://ADDRESS:PORT (mutual TLS only). Repeatable
    /// [default: unix://RUN/docker.sock]
    #[arg(short = 'H', long = "host", value_name = "ADDRESS")]
    pub(crate) hosts: Vec<String>,
    /// Where programs look for Docker, e.g. /var/run/docker.sock: made a link to the API's socket,
    /// where nobody else has one
    #[arg(long, value_name = "PATH")]
    pub(crate) docker_socket: Option<PathBuf>,
    /// The certificate of the API's TCP server (PEM)
    #[arg(long, value_name = "FILE")]
    pub(crate) tlscert: Option<PathBuf>,
    /// The key of the API's TCP server (PEM)
    #[arg(long, value_name = "FILE")]
    pub(crate) tlskey: Option<PathBuf>,
    /// Who signs the certificates of the API's TCP clients (PEM)
    #[arg(long, value_name = "FILE")]
    pub(crate) tlscacert: Option<PathBuf>,
    /// The socket of a containerd to use; without it skep starts and owns one
    #[arg(long, value_name = "SOCKET")]
    pub(crate) containerd: Option<PathBuf>,
    /// The containerd namespace of this node's containers
    #[arg(long, default_value = CONTAINERD_NAMESPACE, value_name = "NAME")]
    pub(crate) containerd_namespace: String,
    /// Where runc keeps its state, with a containerd of somebody else's
    #[arg(long, value_name = "DIR")]
    pub(crate) runc_root: Option<PathBuf>,
    /// The node's name [default: the machine's host name]
    #[arg(long, value_name = "NAME")]
    pub(crate) hostname: Option<String>,
    /// What is known of this machine: constraints of services may ask for engine.labels.KEY.
    /// Repeatable
    #[arg(long = "label", value_name = "KEY=VALUE")]
    pub(crate) labels: Vec<String>,
    /// The network namespace to live in [default: the one it is started in]
    #[arg(long, value_name = "FILE")]
    pub(crate) netns: Option<PathBuf>,
    /// Where upstream DNS servers are read from
    #[arg(long, default_value = "/etc/resolv.conf", value_name = "FILE")]
    pub(crate) resolv_conf: PathBuf,
    /// The subnet of the bridge by which containers reach the outside
    #[arg(long, default_value_t = GATEWAY_SUBNET, value_name = "NET")]
    pub(crate) gateway_subnet: Ipv4Net,
    /// The cgroup above the containers' own
    #[arg(long, default_value = CGROUP_PARENT, value_name = "PATH")]
    pub(crate) cgroup_parent: String,
    /// Mirrors of docker.io, tried in order. Repeatable
    #[arg(long = "registry-mirror", value_name = "URL")]
    pub(crate) mirrors: Vec<String>,
    /// Where Docker's volume plugins are found: NAME.sock, NAME.spec or NAME.json. Repeatable
    #[arg(
        long = "plugins",
        value_name = "DIR",
        default_values = ["/run/docker/plugins", "/etc/docker/plugins", "/usr/lib/docker/plugins"]
    )]
    pub(crate) plugin_folders: Vec<PathBuf>,
    /// What is logged: error, warn, info, debug, or a tracing filter
    #[arg(long, default_value = "info,openraft=error", env = "SKEP_LOG", value_name = "LEVEL")]
    pub(crate) log: String,
    /// The group that may use the API's sockets
    #[arg(long, default_value = "docker", value_name = "GROUP")]
    pub(crate) group: String,
}

impl Options {
    /// The addresses to serve the API at.
    pub(crate) fn addresses(&self) -> Vec<String> {
        if self.hosts.is_empty() {
            return vec![format!("unix://{}", self.run.join("docker.sock").display())];
        }
        self.hosts.clone()
    }

    /// The API's first unix socket.
    pub(crate) fn unix_socket(&self) -> Option<PathBuf> {
        self.addresses()
            .iter()
            .find_map(|address| address.strip_prefix("unix://").map(PathBuf::from))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        options: Options,
    }

    #[test]
    fn clients_look_where_a_daemon_answers() {
        let line = Line::parse_from(["daemon"]);
        assert_eq!(line.options.addresses(), [API]);
    }
}
