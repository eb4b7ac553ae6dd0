//! What goes wrong with managers.

use crate::client::Book;
use crate::clock::{CLOCKED, lab_with_clock};
use crate::disk::SmallDisk;
use e2e::{Lab, until};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::io::Write;
use std::process::Stdio;
use std::time::Duration;

/// For a machine to be taken into the cluster, or out of it.
const CHANGE_MAX: Duration = Duration::from_secs(90);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// The daemon dies from one moment to the next.
    Kill,
    /// It ends in order: where it leads, another one does before.
    Restart,
    /// No packet leaves the machine or comes to it.
    Cut,
    /// It hears nobody, but is heard.
    Deaf,
    /// It hears all, and is not heard.
    Mute,
    /// The daemon does nothing for a while, and does not know.
    Stop,
    /// The disk of the log is full.
    Full,
    /// It takes no writes, again and again for a moment.
    Slow,
    /// The manager's clock jumps, ahead or back, and stays so.
    Clock,
    /// Another one is asked to lead.
    Transfer,
    /// The log is a snapshot all the time, while the manager is cut off: it gets one.
    Snapshot,
    /// Another machine takes its place: it leaves, and joins anew by any manager.
    Replace,
}

impl Fault {
    pub(crate) const ALL: [Self; 12] = [
        Self::Kill,
        Self::Restart,
        Self::Cut,
        Self::Deaf,
        Self::Mute,
        Self::Stop,
        Self::Full,
        Self::Slow,
        Self::Clock,
        Self::Transfer,
        Self::Snapshot,
        Self::Replace,
    ];

    pub(crate) fn begin(self, lab: &Lab, node: u8) {
        let name = format!("node-{node}");
        match self {
            Self::Kill => drop(lab.lab(&["kill", &name]).good()),
            Self::Restart => send(lab, node, Signal::SIGTERM),
            Self::Cut => drop(lab.lab(&["cut", &name]).good()),
            Self::Deaf => drop_packets(lab, node, "input", "saddr"),
            Self::Mute => drop_packets(lab, node, "output", "daddr"),
            Self::Stop => send(lab, node, Signal::SIGSTOP),
            Self::Full => SmallDisk::fill(lab),
            // They are not begun and ended: see `strike`.
            Self::Slow | Self::Clock | Self::Transfer | Self::Snapshot | Self::Replace => {}
        }
    }

    pub(crate) fn end(self, lab: &Lab, node: u8) {
        let name = format!("node-{node}");
        match self {
            Self::Kill | Self::Restart => start(lab, node),
            Self::Cut => drop(lab.lab(&["heal", &name]).good()),
            Self::Deaf | Self::Mute => nft(lab, node, "delete table ip nemesis\n"),
            Self::Stop => send(lab, node, Signal::SIGCONT),
            Self::Full => SmallDisk::empty(lab),
            Self::Slow | Self::Clock | Self::Transfer | Self::Snapshot | Self::Replace => {}
        }
    }
}

/// Starts a daemon that does not run, or is about to end.
fn start(lab: &Lab, node: u8) {
    let name = format!("node-{node}");
    until(&format!("{name} starts"), CHANGE_MAX, || {
        let start = ["start", &name];
        let started = if node == CLOCKED { lab_with_clock(lab, &start) } else { lab.lab(&start) };
        if started.ok { Ok(()) } else { Err(started.err) }
    });
}

fn send(lab: &Lab, node: u8, signal: Signal) {
    let pid = lab.pid(node).expect("the daemon has a pid");
    kill(Pid::from_raw(pid), signal).unwrap();
}

/// `nft add rule ip nemesis way ip saddr 192.168.100.0/24 drop`, in the node's namespace.
fn drop_packets(lab: &Lab, node: u8, hook: &str, whose: &str) {
    let [first, second, third, _] = lab.address(0).octets();
    let hook = format!("type filter hook {hook} priority -150; policy accept;");
    let rule = format!("ip {whose} {first}.{second}.{third}.0/24 drop");
    let rules = format!(
        "add table ip nemesis\nadd chain ip nemesis way {{ {hook} }}\nadd rule ip nemesis way {rule}\n"
    );
    nft(lab, node, &rules);
}

fn nft(lab: &Lab, node: u8, rules: &str) {
    let mut command = lab.in_node(&format!("node-{node}"), &["nft", "--file", "-"]);
    let mut child = command.stdin(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(rules.as_bytes()).unwrap();
    assert!(child.wait().unwrap().success(), "{rules}");
}

/// Node, status, and what it is among managers, as a manager's user sees it.
pub(crate) fn nodes(lab: &Lab, asked: u8) -> Vec<String> {
    let format = "{{.Hostname}} {{.Status}} {{.ManagerStatus}}";
    let table = lab.docker_at(asked, &["node", "ls", "--format", format]);
    table.out.lines().map(|line| line.trim().to_owned()).collect()
}

/// The node that leads, if somebody says so.
pub(crate) fn leader(lab: &Lab, asked: u8) -> Option<u8> {
    let leads = |line: &String| line.strip_suffix(" Leader")?.strip_prefix("node-")?.chars().next();
    let digit = nodes(lab, asked).iter().find_map(leads)?;
    digit.to_digit(10).and_then(|digit| u8::try_from(digit).ok())
}

/// Waits until a manager sees all of them.
pub(crate) fn all_are_there(lab: &Lab, asked: u8, managers: u8) {
    until(&format!("node-{asked} sees all managers"), CHANGE_MAX, || {
        let nodes = nodes(lab, asked);
        let is_there =
            |node: &String| node.ends_with(" Ready Leader") || node.ends_with(" Ready Reachable");
        let there = nodes.iter().filter(|node| is_there(node)).count();
        if there == usize::from(managers) { Ok(()) } else { Err(nodes.join("\n")) }
    });
}

/// A manager is demoted, leaves and is forgotten; a machine joins in its place, told any other manager.
pub(crate) fn replace(lab: &Lab, book: &Book, node: u8, others: (u8, u8)) {
    let (name, (asked, by)) = (format!("node-{node}"), others);
    let again = |what: &str, asked: u8, command: &[&str]| {
        until(what, CHANGE_MAX, || {
            let done = lab.docker_at(asked, command);
            if done.ok { Ok(done.out) } else { Err(done.err) }
        })
    };
    again("it is demoted", asked, &["node", "demote", &name]);
    until("it is a worker", CHANGE_MAX, || {
        let nodes = nodes(lab, asked);
        let is_worker = nodes.iter().any(|line| *line == format!("{name} Ready"));
        if is_worker { Ok(()) } else { Err(nodes.join("\n")) }
    });
    book.tell(format!("{name} is a worker"));
    until("it knows", CHANGE_MAX, || {
        let refused = lab.docker_at(node, &["node", "ls"]);
        if refused.err.contains("Worker nodes can't") { Ok(()) } else { Err(refused.out) }
    });
    again("it leaves", node, &["swarm", "leave"]);
    again("it is forgotten", asked, &["node", "rm", "--force", &name]);
    let token = again("a token", asked, &["swarm", "join-token", "--quiet", "manager"]);
    let remote = format!("{}:2377", lab.address(by));
    let own = lab.address(node).to_string();
    let join = ["swarm", "join", "--advertise-addr", &own, "--token", token.trim(), &remote];
    book.tell(format!("{name} joins by node-{by}"));
    until("it joins", CHANGE_MAX, || {
        let joined = lab.docker_at(node, &join);
        // One that took too long goes on in the background.
        let is_on =
            joined.err.contains("Timeout was reached") || joined.err.contains("already part");
        if joined.ok || is_on { Ok(()) } else { Err(joined.err) }
    });
    all_are_there(lab, by, 5);
}

/// How often the log becomes a snapshot, and how many entries stay behind it for members that lag.
pub(crate) fn set_snapshots(
    lab: &Lab,
    asked: u8,
    (interval, kept): (u64, u64),
) -> Result<(), String> {
    let ask = |what, body: &str| match lab.try_to_ask(asked, what, body, CHANGE_MAX) {
        Ok(Some(answer)) if answer.status == 200 => Ok(answer.body),
        Ok(Some(answer)) => Err(answer.body),
        Ok(None) => Err("no answer".to_owned()),
        Err(error) => Err(error.to_string()),
    };
    let swarm: serde_json::Value =
        serde_json::from_str(&ask(("GET", "/swarm"), "")?).map_err(|error| error.to_string())?;
    let mut spec = swarm["Spec"].clone();
    spec["Raft"]["SnapshotInterval"] = interval.into();
    spec["Raft"]["LogEntriesForSlowFollowers"] = kept.into();
    let target = format!("/swarm/update?version={}", swarm["Version"]["Index"]);
    ask(("POST", &target), &spec.to_string()).map(drop)
}
