//! What the daemon is told on its command line.

use anyhow::{Result, anyhow};
use clap::Args;
use ipnet::Ipv4Net;
use std::net::Ipv4Addr;
use std::path::PathBuf;

// What holds where nobody says otherwise; `skep uninstall` takes away what is there.
pub(crate) const DATA: &str = "/var/lib/skep";
pub(crate) const RUN: &str = "/run/skep";
pub(crate) const CONTAINERD_NAMESPACE: &str = "skep";
pub(crate) const CGROUP_PARENT: &str = "/skep";
/// Docker's own.
pub(crate) const CDI_SPEC_DIRS: [&str; 2] = ["/etc/cdi", "/var/run/cdi"];
/// Where clients look for the API of a daemon that runs in [`RUN`].
pub(crate) const API: &str = "unix:///run/skep/docker.sock";
const JOURNAL: &str = "/run/systemd/journal/socket";
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
    /// What this machine has for tasks that ask for it (service create --generic-resource): a name each
    /// (gpu=UUID1, gpu=UUID2), or how many there are (seat=4). Repeatable
    #[arg(long = "node-generic-resource", value_name = "KIND=VALUE")]
    pub(crate) generic: Vec<String>,
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
    /// Where files of the Container Device Interface are; later folders go first. Repeatable
    #[arg(long = "cdi-spec-dir", value_name = "DIR", default_values = CDI_SPEC_DIRS)]
    pub(crate) cdi_spec_dirs: Vec<PathBuf>,
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
    /// The log driver of containers that name none
    #[arg(long, default_value = "json-file", value_name = "DRIVER")]
    pub(crate) log_driver: String,
    /// An option of the log driver of containers that name none, or the same one. Repeatable
    #[arg(long = "log-opt", value_name = "KEY=VALUE")]
    pub(crate) log_opts: Vec<String>,
    /// Where the machine's journal listens, for the log driver journald
    #[arg(long, default_value = JOURNAL, value_name = "SOCKET")]
    pub(crate) journal_socket: PathBuf,
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

    /// The log driver of containers that name none.
    pub(crate) fn log_config(&self) -> Result<engine::LogConfig> {
        let mut log = engine::LogConfig { driver: self.log_driver.clone(), ..Default::default() };
        for option in &self.log_opts {
            let (name, value) = option.split_once('=').unwrap_or((option, ""));
            log.options.insert(name.to_owned(), value.to_owned());
        }
        log.check().map_err(|fault| anyhow!("failed to set log opts: {fault}"))?;
        Ok(log)
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

    #[test]
    fn the_daemons_log_driver_has_to_be_one() {
        let read = |line: &[&str]| {
            let line = [&["daemon"], line].concat();
            Line::parse_from(line).options.log_config().map_err(|error| error.to_string())
        };
        assert_eq!(read(&[]).unwrap().driver, "json-file");
        let syslog = ["--log-driver", "syslog", "--log-opt", "syslog-facility=user"];
        assert_eq!(read(&syslog).unwrap().options["syslog-facility"], "user");
        let error = read(&["--log-opt", "x=y"]).unwrap_err();
        assert_eq!(error, "failed to set log opts: unknown log opt 'x' for json-file log driver");
        read(&["--log-driver", "splunk"]).unwrap_err();
    }
}
