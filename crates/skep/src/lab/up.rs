//! `skep lab up`: makes what is missing until a cluster of the wanted size runs.

use super::layout::{Layout, free_subnet};
use super::node;
use crate::client::Client;
use anyhow::{Context, Result, bail};
use ipnet::Ipv4Net;
use linux::Underlay;
use nix::fcntl::{Flock, FlockArg};
use serde_json::{Value, json};
use std::fs::{self, File};
use std::net::Ipv4Addr;
use std::path::Path;
use std::time::Duration;

/// How long the nodes may take until all are ready.
const READY_MAX: Duration = Duration::from_mins(1);
const POLL: Duration = Duration::from_millis(100);

#[expect(clippy::print_stdout, reason = "progress for the user")]
pub(super) async fn run(mut layout: Layout, nodes: u8, managers: u8) -> Result<()> {
    if !(1..=nodes).contains(&managers) {
        bail!(
            "{managers} managers of {nodes} nodes: use --managers with a number from 1 to {nodes}"
        );
    }
    println!("==> underlay");
    fs::create_dir_all(&layout.data).context("cannot make the lab's folder")?;
    fs::create_dir_all(&layout.run).context("cannot make the lab's folder")?;
    let underlay = underlay(&mut layout)?;
    let layout = &layout;
    let known = layout.nodes().last().map_or(0, |node| node.number);
    fs::write(layout.resolv_conf(), "# The lab's nodes have no upstream name server.\n")?;
    println!("==> containerd");
    containerd::OwnContainerd::start(layout.containerd(), containerd::Patience::USUAL)
        .await
        .context("cannot start containerd")?;
    // It starts containerd anew when that dies.
    start_helper(layout, "keep", &layout.keeper_pid())?;
    for number in 1..=nodes.max(known) {
        let node = layout.node(number);
        println!("==> {} at {}", node.name, node.address);
        underlay
            .add_node(number.into())
            .with_context(|| format!("cannot plug {} in", node.name))?;
        node::start(layout, &node, &[]).await?;
    }
    form(layout, nodes.max(known), managers).await?;
    // It forwards localhost to node-1.
    start_helper(layout, "forward", &layout.forwarder_pid())?;
    let first = layout.node(1);
    println!("==> the cluster is up: {} nodes", nodes.max(known));
    println!("==> published ports answer on {}\n", layout.localhost());
    println!("export DOCKER_HOST=unix://{}", first.socket().display());
    Ok(())
}

/// Makes the switch, on a subnet that nobody else has, and notes which.
fn underlay(layout: &mut Layout) -> Result<Underlay> {
    // Of two labs that come up at once, the second one sees what the first has taken.
    let lock = File::create("/run/skep-labs.lock").context("cannot lock the labs' subnets")?;
    let _one_at_a_time = Flock::lock(lock, FlockArg::LockExclusive)
        .map_err(|(_, error)| error)
        .context("cannot lock the labs' subnets")?;
    if layout.subnet.is_none() {
        let routes = fs::read_to_string("/proc/net/route").context("cannot read the routes")?;
        layout.subnet = free_subnet(&subnets(&routes));
    }
    let subnet = layout.subnet.context("no subnet is free: choose one by --subnet")?;
    let underlay = layout.underlay();
    underlay.up().context("cannot make the lab's underlay")?;
    host::replace(&layout.subnet_file(), subnet.to_string(), 0o644)
        .context("cannot note the subnet")?;
    Ok(underlay)
}

/// The subnets that the machine's routes lead to, as `/proc/net/route` has them.
fn subnets(routes: &str) -> Vec<Ipv4Net> {
    let address = |hex: &str| {
        // The kernel writes the bytes as they lie in memory.
        u32::from_str_radix(hex, 16).ok().map(|number| Ipv4Addr::from(number.to_ne_bytes()))
    };
    let subnet = |line: &str| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let net = Ipv4Net::with_netmask(address(words.get(1)?)?, address(words.get(7)?)?).ok()?;
        // The default route leads everywhere and nowhere in particular.
        (net.prefix_len() > 0).then_some(net)
    };
    routes.lines().skip(1).filter_map(subnet).collect()
}

/// Makes the first node a manager and lets the others join, the first of them as managers as well; waits
/// until all are ready.
async fn form(layout: &Layout, nodes: u8, managers: u8) -> Result<()> {
    let first = layout.node(1);
    let manager = Client::unix(&first.socket());
    if state(&manager).await? == "inactive" {
        let request = json!({
            "ListenAddr": "0.0.0.0:2377",
            "AdvertiseAddr": first.address.to_string(),
        });
        manager.post::<Value>("/swarm/init", &request).await?;
    }
    let swarm: Value = manager.get("/swarm").await?;
    for number in 2..=nodes {
        let node = layout.node(number);
        let client = Client::unix(&node.socket());
        if state(&client).await? == "inactive" {
            let role = if number <= managers { "Manager" } else { "Worker" };
            let request = json!({
                "ListenAddr": "0.0.0.0:2377",
                "AdvertiseAddr": node.address.to_string(),
                "RemoteAddrs": [format!("{}:2377", first.address)],
                "JoinToken": swarm["JoinTokens"][role],
            });
            client
                .order("/swarm/join", &request)
                .await
                .with_context(|| format!("{} cannot join", node.name))?;
        }
    }
    let ready = async {
        while ready_nodes(&manager).await < usize::from(nodes) {
            tokio::time::sleep(POLL).await;
        }
    };
    if tokio::time::timeout(READY_MAX, ready).await.is_err() {
        bail!("not all nodes are ready after {READY_MAX:?}: see `docker node ls`");
    }
    Ok(())
}

/// A node's part in the cluster, e.g. `inactive`.
async fn state(client: &Client) -> Result<String> {
    let info: Value = client.get("/info").await?;
    Ok(info["Swarm"]["LocalNodeState"].as_str().unwrap_or_default().to_owned())
}

async fn ready_nodes(manager: &Client) -> usize {
    let nodes: Vec<Value> = manager.get("/nodes").await.unwrap_or_default();
    nodes.iter().filter(|node| node["Status"]["State"] == "ready").count()
}

/// Starts `skep lab VERB` as a process that stays, where it does not run.
fn start_helper(layout: &Layout, verb: &str, pid_file: &Path) -> Result<()> {
    let mark = layout.run.display().to_string();
    if crate::process::running(pid_file, &mark).is_some() {
        return Ok(());
    }
    let data = layout.data.display().to_string();
    let words = ["lab", verb, "--name", &layout.name, "--data", &data, "--run", &mark];
    let log = layout.data.join(format!("{verb}.log"));
    node::launch(&words.map(str::to_owned), &log, pid_file)?;
    Ok(())
}

impl Layout {
    /// Where the containerd of the whole lab is.
    pub(super) fn containerd(&self) -> containerd::Directories {
        containerd::Directories {
            root: self.containerd_data(),
            state: self.containerd_run(),
            program: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn routes_are_read_but_for_the_default_one() {
        let routes = "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\n\
            eth0\t00000000\t010A0A0A\t0003\t0\t0\t0\t00000000\t0\n\
            skep-lab0\t0064A8C0\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\n";
        assert_eq!(subnets(routes), ["192.168.100.0/24".parse().unwrap()]);
    }
}
