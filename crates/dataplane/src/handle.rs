//! The way in: configuration and the handle that other rooms hold.

use crate::error::Error;
use crate::names::Names;
use crate::port::Namespaces;
use crate::run::{Pace, Run};
use discovery::{
    Kernel, Knowledge, KnowledgeDifference, OrdMap, Place, Sandbox, SandboxAttachment,
};
use ipnet::Ipv4Net;
use scope::Scope;
use std::net::IpAddr;
use std::path::PathBuf;
use tokio::sync::{mpsc, oneshot, watch};
use types::{NodeId, Protocol, TaskId};

/// Commands that may wait for the loop. A caller waits when it is full.
const COMMANDS: usize = 256;

/// Where things are on this machine.
#[derive(Clone, Debug)]
pub struct Config {
    /// The journal's folder.
    pub dir: PathBuf,
    /// Where namespaces are bind-mounted, one file for each container.
    pub netns_dir: PathBuf,
    /// The subnet of the gateway bridge; its first address is the bridge's.
    pub gateway_subnet: Ipv4Net,
}

/// Who this node is in the cluster.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Identity {
    pub node: NodeId,
    /// Where other nodes reach it: the VXLAN end point.
    #[serde(with = "types::plain")]
    pub address: IpAddr,
    /// UDP port of VXLAN.
    pub data_path_port: u16,
}

/// What a caller waits for.
pub(crate) type Reply<T> = oneshot::Sender<Result<T, Error>>;

/// What a container wants of the network.
#[derive(Clone, Debug, Default)]
pub struct Wanted {
    /// The task that it belongs to; `None` for a plain container.
    pub task: Option<TaskId>,
    /// Its addresses on cluster networks, in the order of eth0, eth1, …
    pub attachments: Vec<SandboxAttachment>,
    /// Ports published in host mode: (protocol, published on the node, target).
    pub host_ports: Vec<(Protocol, u16, u16)>,
    /// Its own DNS servers; empty: the node's.
    pub nameservers: Vec<IpAddr>,
}

/// What managers say of networks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum News {
    /// All of it.
    Whole(Knowledge),
    /// What changed since the version before.
    Difference(KnowledgeDifference),
}

/// Everything that can be asked of the loop.
#[derive(Debug)]
pub(crate) enum Command {
    Identify(Option<Identity>, Reply<()>),
    Learn(News, u64, Reply<()>),
    Attach(String, Wanted, Reply<Sandbox>),
    Detach(String, Reply<()>),
    Withdraw(TaskId, Reply<()>),
    Sandboxes(Reply<OrdMap<String, Sandbox>>),
    Places(String, Reply<Vec<Place>>),
}

/// The data plane of this node.
#[derive(Clone, Debug)]
pub struct Dataplane {
    commands: mpsc::Sender<Command>,
    applied: watch::Receiver<u64>,
    trouble: watch::Receiver<String>,
}

/// Starts the data plane: takes over what the journal knows, and runs in `scope`.
pub async fn start<K, N>(
    config: Config,
    kernel: K,
    namespaces: N,
    names: Names,
    scope: &mut Scope,
) -> Result<Dataplane, Error>
where
    K: Kernel + 'static,
    N: Namespaces,
{
    start_at(config, (kernel, namespaces, names), scope, Pace::USUAL).await
}

pub(crate) async fn start_at<K, N>(
    config: Config,
    ports: (K, N, Names),
    scope: &mut Scope,
    pace: Pace,
) -> Result<Dataplane, Error>
where
    K: Kernel + 'static,
    N: Namespaces,
{
    let (commands, inbox) = mpsc::channel(COMMANDS);
    let (publish, applied) = watch::channel(0);
    let (tell, trouble) = watch::channel(String::new());
    let run = Run::open(config, ports, (publish, tell), (scope.token(), pace)).await?;
    scope.spawn("dataplane", run.run(inbox));
    Ok(Dataplane { commands, applied, trouble })
}

impl Dataplane {
    /// Tells who this node is in the cluster; returns when it is noted. `None` when it has left:
    /// then all that is known of the cluster is forgotten, and it returns when kernel and names
    /// have forgotten it too.
    pub async fn identify(&self, identity: Option<Identity>) -> Result<(), Error> {
        self.ask(|reply| Command::Identify(identity, reply)).await
    }

    /// Takes what managers say. Returns when it is noted; [`Self::applied`] says when kernel and
    /// names hold it. A difference leads from the version before, and is refused where another one
    /// is known.
    pub async fn learn(&self, news: News, version: u64) -> Result<(), Error> {
        self.ask(|reply| Command::Learn(news, version, reply)).await
    }

    /// The version that kernel and names hold. After `learn(_, v)` has returned, a value of at
    /// least `v` means that `v` is held, also when versions began anew with a new session.
    pub fn applied(&self) -> watch::Receiver<u64> {
        self.applied.clone()
    }

    /// What of the node's network does not work, in plain words; empty where all does.
    pub fn trouble(&self) -> watch::Receiver<String> {
        self.trouble.clone()
    }

    /// Makes a container's namespace, interfaces, balancer and DNS server. When it returns, the
    /// container may be started in `Sandbox::netns`. Attaching again changes what differs. All its
    /// networks must be known here. Who gives up waiting must detach.
    pub async fn attach(&self, id: &str, wanted: Wanted) -> Result<Sandbox, Error> {
        self.ask(|reply| Command::Attach(id.to_owned(), wanted, reply)).await
    }

    /// Takes a container's network down, and its task out of names and balancers of this node.
    /// It is fine if it is not there.
    pub async fn detach(&self, id: &str) -> Result<(), Error> {
        self.ask(|reply| Command::Detach(id.to_owned(), reply)).await
    }

    /// Takes a task out of names and balancers of this node, whatever managers say of it: its
    /// container has ended or is about to. Final. Returns when kernel and names hold it.
    pub async fn withdraw(&self, task: TaskId) -> Result<(), Error> {
        self.ask(|reply| Command::Withdraw(task, reply)).await
    }

    /// The sandboxes of this node by container id.
    pub async fn sandboxes(&self) -> Result<OrdMap<String, Sandbox>, Error> {
        self.ask(Command::Sandboxes).await
    }

    /// The cluster's networks that a container is on; none where it is not here.
    pub async fn places(&self, id: &str) -> Result<Vec<Place>, Error> {
        self.ask(|reply| Command::Places(id.to_owned(), reply)).await
    }

    async fn ask<T>(&self, command: impl FnOnce(Reply<T>) -> Command) -> Result<T, Error> {
        let (reply, answer) = oneshot::channel();
        if self.commands.send(command(reply)).await.is_err() {
            return Err(Error::Stopped);
        }
        answer.await.unwrap_or(Err(Error::Stopped))
    }
}
