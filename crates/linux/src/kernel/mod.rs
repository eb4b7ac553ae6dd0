//! Makes the kernel hold what is desired.
//!
//! One thread owns all of it. What it holds is remembered, and an `apply` works out the difference
//! to that; when the same is asked for twice, or after a failure or a start, the kernel is observed
//! first. So a change costs what changed, and what others broke is repaired on the next repetition.

mod clean;
mod flows;
mod gateway;
mod mesh;
mod overlay;
mod sandbox;
mod tunnel;

use crate::error::Error;
use crate::namespace;
use crate::nft::Nftables;
use discovery::Desired;
use gateway::Gateway;
use ipnet::Ipv4Net;
use mesh::Mesh;
use overlay::Overlay;
use sandbox::Sandbox;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::thread;
use tokio::sync::{mpsc, oneshot};
use types::NetworkId;

/// Applications that may wait for the thread: its owner waits for each.
const REQUESTS: usize = 1;

/// What an interface on an overlay may carry: 1500 less the tunnel's headers.
const OVERLAY_MTU: u32 = 1450;

/// Where things are on this machine.
#[derive(Clone, Debug)]
pub struct Config {
    /// The bridge that leads containers out; at most 15 characters.
    pub bridge: String,
    /// Its subnet; the bridge has the first address.
    pub gateway_subnet: Ipv4Net,
    /// Where the namespaces of overlays are bind-mounted.
    pub overlays: PathBuf,
}

/// The kernel's network, as the namespace shows it in which this was made.
#[derive(Debug)]
pub struct Kernel {
    requests: mpsc::Sender<Request>,
}

#[derive(Debug)]
struct Request {
    desired: Box<Desired>,
    reply: oneshot::Sender<Result<(), Error>>,
}

impl Kernel {
    /// Starts the thread that owns the kernel, in the caller's namespace. It ends when this is
    /// dropped, and leaves in the kernel what is there.
    pub fn new(config: Config) -> Result<Self, Error> {
        gateway::check(&config)?;
        let mut holder = Holder::new(config, Nftables::load()?);
        let (requests, mut inbox) = mpsc::channel::<Request>(REQUESTS);
        thread::Builder::new()
            .name("kernel".to_owned())
            .spawn(move || {
                while let Some(request) = inbox.blocking_recv() {
                    let outcome = holder.apply(*request.desired);
                    // Nobody waits any more: the next application repairs what failed.
                    drop(request.reply.send(outcome));
                }
            })
            .map_err(|source| Error::system("start the kernel's thread", source))?;
        Ok(Self { requests })
    }

    /// Removes everything of ours in the caller's namespace, and the namespaces of overlays. Only
    /// containers' namespaces stay, without their interfaces. It is fine if there is nothing.
    pub fn clean(config: &Config) -> Result<(), Error> {
        namespace::in_thread(|| clean::clean(config))
    }
}

impl discovery::Kernel for Kernel {
    type Error = Error;

    async fn apply(&mut self, desired: &Desired) -> Result<(), Error> {
        let (reply, answer) = oneshot::channel();
        let request = Request { desired: Box::new(desired.clone()), reply };
        self.requests.send(request).await.map_err(|_ended| Error::Ended)?;
        answer.await.map_err(|_ended| Error::Ended)?
    }
}

/// What the kernel holds of ours, as far as is known.
struct Holder {
    config: Config,
    nftables: Nftables,
    gateway: Option<Gateway>,
    overlays: BTreeMap<NetworkId, Overlay>,
    sandboxes: BTreeMap<String, Sandbox>,
    mesh: Option<Mesh>,
    /// The last that was applied without a failure.
    last: Option<Desired>,
    /// The last application went well, so that what is remembered is true unless others meddled.
    settled: bool,
}

impl Holder {
    fn new(config: Config, nftables: Nftables) -> Self {
        Self {
            config,
            nftables,
            gateway: None,
            overlays: BTreeMap::new(),
            sandboxes: BTreeMap::new(),
            mesh: None,
            last: None,
            settled: false,
        }
    }

    fn apply(&mut self, desired: Desired) -> Result<(), Error> {
        let observe = !self.settled || self.last.as_ref() == Some(&desired);
        self.settled = false;
        let mut troubles = Troubles::default();
        troubles.note("gateway bridge", self.hold_gateway(&desired, observe));
        self.hold_overlays(&desired, observe, &mut troubles);
        self.hold_sandboxes(&desired, observe, &mut troubles);
        troubles.note("routing mesh", self.hold_mesh(&desired, observe));
        self.forget_flows(&desired, &mut troubles);
        if troubles.0.is_none() {
            self.settled = true;
            self.last = Some(desired);
        }
        troubles.0.map_or(Ok(()), Err)
    }

    fn hold_gateway(&mut self, desired: &Desired, observe: bool) -> Result<(), Error> {
        let held = self.gateway.take().filter(|_| !observe);
        let mut gateway = held.map_or_else(|| Gateway::hold(&self.config), Ok)?;
        let known = gateway.know(desired.sandboxes.values().map(|sandbox| sandbox.gateway_address));
        self.gateway = Some(gateway);
        known
    }

    fn hold_overlays(&mut self, desired: &Desired, observe: bool, troubles: &mut Troubles) {
        // What goes makes room first: a VNI can be there only once.
        let gone: Vec<NetworkId> = self
            .overlays
            .keys()
            .filter(|id| !desired.overlays.contains_key(*id))
            .cloned()
            .collect();
        for id in gone {
            self.overlays.remove(&id);
            let path = overlay::path(&self.config, &id);
            troubles.note(id.as_str(), overlay::dismantle(&path));
        }
        if observe {
            troubles.note("overlays", overlay::dismantle_others(&self.config, &desired.overlays));
        }
        for (id, wanted) in &desired.overlays {
            let path = overlay::path(&self.config, id);
            let held = self.overlays.remove(id);
            if let Some(held) =
                troubles.take(id.as_str(), Overlay::hold(&path, wanted, held, observe))
            {
                self.overlays.insert(id.clone(), held);
            }
        }
    }

    fn hold_sandboxes(&mut self, desired: &Desired, observe: bool, troubles: &mut Troubles) {
        self.sandboxes.retain(|id, _| desired.sandboxes.contains_key(id));
        let Some(gateway) = &self.gateway else { return };
        let ground = sandbox::Ground {
            nftables: &self.nftables,
            gateway,
            overlays: &self.overlays,
            fresh: RefCell::default(),
        };
        for (id, wanted) in &desired.sandboxes {
            let held = self.sandboxes.remove(id);
            let outcome = Sandbox::hold(&ground, wanted, held, observe);
            if let Some(Some(held)) = troubles.take(id, outcome) {
                self.sandboxes.insert(id.clone(), held);
            }
        }
        troubles.note("new interfaces", ground.wait());
    }

    fn hold_mesh(&mut self, desired: &Desired, observe: bool) -> Result<(), Error> {
        let held = self.mesh.take();
        // Without the bridge there is nothing to lead to; its failure was noted.
        let Some(gateway) = &self.gateway else { return Ok(()) };
        let ground = (&self.config, &self.nftables, gateway.index);
        self.mesh = Some(Mesh::hold(ground, desired, held, observe)?);
        Ok(())
    }

    /// Takes tracked connections off back ends that are no more.
    fn forget_flows(&mut self, desired: &Desired, troubles: &mut Troubles) {
        let change = flows::Change { before: self.last.as_ref(), after: desired };
        for (id, sandbox) in &mut self.sandboxes {
            troubles.note(id, change.forget_in_sandbox(id, sandbox));
        }
        if let Some(mesh) = &mut self.mesh {
            troubles.note("routing mesh", change.forget_here(&self.config, mesh));
        }
    }
}

/// Goes on after a failure: one broken sandbox must not keep the others from changing.
#[derive(Debug, Default)]
struct Troubles(Option<Error>);

impl Troubles {
    fn note(&mut self, what: &str, outcome: Result<(), Error>) {
        let _: Option<()> = self.take(what, outcome);
    }

    fn take<T>(&mut self, what: &str, outcome: Result<T, Error>) -> Option<T> {
        match outcome {
            Ok(value) => Some(value),
            Err(error) => {
                let cause = std::error::Error::source(&error).map(ToString::to_string);
                tracing::warn!(what, %error, cause, "cannot apply; it is tried again");
                self.0.get_or_insert(error);
                None
            }
        }
    }
}
