//! Labs of several managers: who leads, who works, and how one is stopped.
//!
//! Tests ask node-1. Where `SKEP_E2E_MANAGERS` says that labs have several managers, node-1 does not
//! lead, and its users are to see no difference. What a test says of managers it asks here.

use crate::{Lab, until};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::time::Duration;

/// How many managers a lab has whose test does not say.
const MANAGERS: &str = "SKEP_E2E_MANAGERS";
/// For a node to become what it is told to be, and for a daemon to end.
const LIMIT: Duration = Duration::from_mins(1);

pub(crate) fn wanted() -> u8 {
    std::env::var(MANAGERS).ok().and_then(|count| count.parse().ok()).unwrap_or(1)
}

impl Lab {
    /// The number of the node that leads, as `asked` shows it; `None` where it shows nobody.
    pub fn leader_seen_by(&self, asked: u8) -> Option<u8> {
        let format = "{{.Hostname}} {{.ManagerStatus}}";
        let table = self.docker_at(asked, &["node", "ls", "--format", format]);
        let leads = |line: &str| {
            line.trim().strip_suffix(" Leader")?.strip_prefix("node-")?.parse::<u8>().ok()
        };
        table.out.lines().find_map(leads)
    }

    /// The number of the node that leads.
    ///
    /// # Panics
    /// Where nobody does.
    pub fn leader(&self) -> u8 {
        self.leader_seen_by(1).expect("there is a leader")
    }

    /// Sees to it that a node is a worker, also where labs have several managers.
    ///
    /// # Panics
    /// Where it does not become one.
    pub fn make_worker(&self, node: u8) {
        let name = format!("node-{node}");
        self.docker(&["node", "demote", &name]).good();
        until(&format!("{name} is a worker"), LIMIT, || {
            let refused = self.docker_at(node, &["node", "ls"]);
            let is_worker = refused.err.contains("This node is not a swarm manager");
            let format = "{{.Status.State}}{{with .ManagerStatus}} {{.Reachability}}{{end}}";
            let shown = self.docker(&["node", "inspect", "--format", format, &name]);
            let is_known = shown.out.trim() == "ready";
            if is_worker && is_known { Ok(()) } else { Err(format!("{refused:?} {shown:?}")) }
        });
    }

    /// Stops a node's daemon as a service manager does, and waits until it has ended.
    ///
    /// # Panics
    /// Where it does not.
    pub fn stop(&self, node: u8) {
        let pid = self.pid(node).expect("the daemon has a pid");
        kill(Pid::from_raw(pid), Signal::SIGTERM).expect("it runs");
        let process = format!("/proc/{pid}/cmdline");
        until(&format!("the daemon of node-{node} has ended"), LIMIT, || {
            match std::fs::read(&process) {
                Ok(line) if !line.is_empty() => Err("it runs".to_owned()),
                Ok(_) | Err(_) => Ok(()),
            }
        });
    }
}
