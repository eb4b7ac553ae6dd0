//! Makes the kernel hold what is desired.
//!
//! One thread owns all of it; others help it with containers. What it holds is remembered, and a
//! change costs what differs from that; a repair looks at everything, in case others have meddled.
//! What cannot be made fails alone. While the same is wanted of it, it is tried again only where the
//! application says so: its owner knows when enough time has passed.

mod beside;
mod clean;
mod firewall;
mod flows;
mod gate;
mod gateway;
mod mesh;
mod mtu;
mod overlay;
mod parallel;
mod ports;
mod router;
mod sandbox;
mod tunnel;
mod watch;

use crate::error::{Error, chain};
use crate::ipv4::{self, Desired, SandboxRules, Vips};
use crate::namespace;
use crate::nft::Nftables;
use crate::render;
use discovery::{Depth, Outcome};
use flows::Alive;
use gateway::Gateway;
use ipnet::Ipv4Net;
use mesh::AppliedMesh;
use overlay::{AppliedOverlay, same_links};
use parallel::in_parallel;
use ports::Ports;
use render::sandbox::Step;
use sandbox::{AppliedSandbox, Target};
use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread;
use tokio::sync::mpsc::error::TryRecvError;
use tokio::sync::{mpsc, oneshot};
use types::NetworkId;

pub(crate) use watch::ChangeListener;

/// Applications that may wait for the thread: its owner waits for each.
const REQUESTS: usize = 1;

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
    listener: ChangeListener,
}

#[derive(Debug)]
struct Request {
    desired: Arc<discovery::Desired>,
    depth: Depth,
    reply: oneshot::Sender<Outcome>,
}

impl Kernel {
    /// Starts the thread that owns the kernel, in the caller's namespace. It ends when this is
    /// dropped, and leaves in the kernel what is there.
    pub fn new(config: Config) -> Result<Self, Error> {
        gateway::check(&config)?;
        let listener = ChangeListener::default();
        listener.open(render::mesh::TABLE)?;
        let mut applier = Applier::new(config, Nftables::load()?, listener.clone());
        let (requests, mut inbox) = mpsc::channel::<Request>(REQUESTS);
        thread::Builder::new()
            .name("kernel".to_owned())
            .spawn(move || {
                while let Some(request) = next(&mut inbox, &mut applier) {
                    let (desired, left_out) = ipv4::part(&request.desired);
                    let outcome = applier.apply(Arc::new(desired), request.depth);
                    let outcome = ipv4::with(outcome, left_out);
                    // Nobody waits any more: the next application tries again what failed.
                    drop(request.reply.send(outcome));
                }
            })
            .map_err(|source| Error::system("start the kernel's thread", source))?;
        Ok(Self { requests, listener })
    }

    /// What others have in the caller's namespace that has to be lived beside, in whole sentences.
    pub fn beside(config: &Config) -> Result<Vec<String>, Error> {
        beside::report(config)
    }

    /// Removes everything of ours in the caller's namespace, and the namespaces of overlays. Only
    /// containers' namespaces stay, without their interfaces. It is fine if there is nothing.
    pub fn clean(config: &Config) -> Result<(), Error> {
        namespace::in_thread(|| clean::clean(config))
    }
}

/// The next request. While there is none, what was tracked before this daemon is looked at, bit by
/// bit, since one look takes 10 ms.
fn next(inbox: &mut mpsc::Receiver<Request>, applier: &mut Applier) -> Option<Request> {
    while applier.has_unseen() {
        match inbox.try_recv() {
            Ok(request) => return Some(request),
            Err(TryRecvError::Empty) => applier.look(),
            Err(TryRecvError::Disconnected) => return None,
        }
    }
    inbox.blocking_recv()
}

impl discovery::Kernel for Kernel {
    type Error = Error;

    async fn apply(
        &mut self,
        desired: &Arc<discovery::Desired>,
        depth: Depth,
    ) -> Result<Outcome, Error> {
        let (reply, answer) = oneshot::channel();
        let request = Request { desired: Arc::clone(desired), depth, reply };
        self.requests.send(request).await.map_err(|_ended| Error::Ended)?;
        answer.await.map_err(|_ended| Error::Ended)
    }

    async fn disturbed(&mut self) {
        self.listener.disturbed().await;
    }
}

/// What the kernel holds of ours, as far as is known.
struct Applier {
    config: Config,
    nftables: Nftables,
    listener: ChangeListener,
    gateway: Option<Gateway>,
    overlays: BTreeMap<NetworkId, AppliedOverlay>,
    sandboxes: BTreeMap<String, AppliedSandbox>,
    ports: Ports,
    /// The interfaces that do not lead to each other; `None`: nobody has looked yet.
    closed: Option<BTreeSet<String>>,
    mesh: Option<AppliedMesh>,
    /// Why a firewall of others does not let us pass, when it was last looked at.
    firewall: Option<String>,
    last: Arc<Desired>,
    /// Containers whose tracked connections nobody has looked at since this daemon started.
    unseen: BTreeSet<String>,
    /// What failed last time, so that it is noted once.
    told: Outcome,
    /// As much of it as is not tried again, if it is wanted as it was.
    resting: Outcome,
    /// Nothing was applied yet: nothing is known.
    fresh: bool,
}

/// How much is done about the mesh.
#[derive(Clone, Copy)]
struct Effort {
    /// The rules are looked at, and not believed.
    repair: bool,
    /// What failed last time is tried again.
    tries: bool,
}

impl Applier {
    fn new(config: Config, nftables: Nftables, listener: ChangeListener) -> Self {
        Self {
            config,
            nftables,
            listener,
            gateway: None,
            overlays: BTreeMap::new(),
            sandboxes: BTreeMap::new(),
            ports: Ports::default(),
            closed: None,
            mesh: None,
            firewall: None,
            last: Arc::default(),
            unseen: BTreeSet::new(),
            told: Outcome::default(),
            resting: Outcome::default(),
            fresh: true,
        }
    }

    fn apply(&mut self, desired: Arc<Desired>, depth: Depth) -> Outcome {
        let repair = depth == Depth::Repair || self.fresh;
        self.fresh = false;
        let tries = depth >= Depth::Retry;
        self.resting = if tries { Outcome::default() } else { self.told.clone() };
        let node = self.apply_gateway(&desired, repair).err();
        let mut outcome = Outcome { node, ..Outcome::default() };
        let remade = self.apply_overlays(&desired, repair, &mut outcome);
        let is_remade = |rules: &SandboxRules| {
            rules.attachments.iter().any(|attachment| remade.contains(&attachment.network))
        };
        self.apply_sandboxes(&desired, |rules| repair || is_remade(rules), &mut outcome);
        let effort = Effort { repair: repair || depth == Depth::Rules, tries };
        self.apply_mesh(&desired, effort, &mut outcome);
        self.forget_flows(&desired, &mut outcome);
        outcome.is_behind |= outcome.node.is_some() || self.mesh.is_none();
        self.last = desired;
        self.tell(&outcome);
        outcome
    }

    fn apply_gateway(&mut self, desired: &Desired, repair: bool) -> Result<(), String> {
        let applied = self.gateway.take().filter(|_| !repair);
        let mut gateway = match (applied, self.resting.node.take()) {
            (Some(applied), _) => applied,
            (None, Some(reason)) => return Err(reason),
            (None, None) => self.hold_gateway().map_err(|error| chain(&error))?,
        };
        let known = gateway.know(desired.sandboxes.values().map(|sandbox| sandbox.gateway_address));
        self.gateway = Some(gateway);
        known.map_err(|error| chain(&error))
    }

    fn hold_gateway(&mut self) -> Result<Gateway, Error> {
        // Before forwarding is switched on.
        if self.closed.is_none() {
            self.closed = Some(router::close(&self.config, &self.nftables, &self.listener)?);
        }
        Gateway::hold(&self.config)
    }

    /// Returns the networks that are another than before, for those who are on them.
    fn apply_overlays<'d>(
        &mut self,
        desired: &'d Desired,
        repair: bool,
        outcome: &mut Outcome,
    ) -> BTreeSet<&'d NetworkId> {
        // What goes makes room first: a VNI can be there only once.
        let over = |id: &NetworkId, _: &mut AppliedOverlay| !desired.overlays.contains_key(id);
        let over: Vec<NetworkId> = self.overlays.extract_if(.., over).map(|(id, _)| id).collect();
        for id in over {
            note(&mut outcome.networks, &id, overlay::dismantle(&overlay::path(&self.config, &id)));
        }
        if repair && let Err(error) = overlay::dismantle_others(&self.config, &desired.overlays) {
            tracing::warn!(error = chain(&error), "cannot remove networks of former times");
        }
        let containers = containers(desired);
        let nobody = BTreeSet::new();
        let mut remade = BTreeSet::new();
        for (id, wanted) in &desired.overlays {
            let last = self.last.overlays.get(id);
            let reason = self.resting.networks.remove(id);
            if let Some(reason) =
                reason.filter(|_| last.is_some_and(|last| same_links(last, wanted)))
            {
                outcome.networks.insert(id.clone(), reason);
                continue;
            }
            let applied = self.overlays.remove(id);
            if applied.as_ref().is_none_or(|applied| !applied.same_links(wanted)) {
                remade.insert(id);
            }
            let path = overlay::path(&self.config, id);
            let containers = containers.get(id).unwrap_or(&nobody);
            let target = overlay::Target { rules: wanted, containers, repair };
            match AppliedOverlay::apply(&self.nftables, &path, target, applied) {
                Ok(applied) => drop(self.overlays.insert(id.clone(), applied)),
                Err(error) => note(&mut outcome.networks, id, Err(error)),
            }
        }
        remade
    }

    fn apply_sandboxes(
        &mut self,
        desired: &Desired,
        repair: impl Fn(&SandboxRules) -> bool,
        outcome: &mut Outcome,
    ) {
        self.sandboxes.retain(|id, _| desired.sandboxes.contains_key(id));
        let Some(gateway) = &self.gateway else { return };
        let context = sandbox::Context::new(&self.nftables, gateway, &self.overlays);
        let steps = self.steps(desired);
        let mut work = Vec::new();
        for (id, rules) in &desired.sandboxes {
            let applied = self.sandboxes.get(id);
            let Some(step) = steps.get(&key(applied, rules)) else { continue };
            let target = Target { rules, step, repair: repair(rules) };
            if !target.repair && applied.is_some_and(|applied| applied.is(&target)) {
                continue;
            }
            let is_same = |_: &String| !target.repair && self.last.sandboxes.get(id) == Some(rules);
            if let Some(reason) = self.resting.sandboxes.remove(id).filter(is_same) {
                outcome.is_behind |= applied.is_some_and(|applied| !applied.leads(rules));
                outcome.sandboxes.insert(id.clone(), reason);
                continue;
            }
            work.push((id, target, self.sandboxes.remove(id)));
        }
        let done = in_parallel(work, |(id, target, applied)| {
            let is_new = applied.is_none();
            (id, target.rules, is_new, AppliedSandbox::apply(&context, &target, applied))
        });
        for (id, wanted, is_new, (applied, done)) in done {
            if let Some(applied) = applied {
                self.sandboxes.insert(id.clone(), applied);
                if is_new {
                    self.unseen.insert(id.clone());
                }
            }
            if let Err(error) = done {
                let mut networks = wanted.attachments.iter().map(|to| &to.network);
                let cause = networks.find_map(|network| outcome.networks.get(network));
                let text = cause.cloned().unwrap_or_else(|| chain(&error));
                outcome.is_behind |=
                    self.sandboxes.get(id).is_some_and(|applied| !applied.leads(wanted));
                outcome.sandboxes.insert(id.clone(), text);
            }
        }
        context.wait();
    }

    /// What leads from the VIPs that sandboxes have to those that they shall have.
    fn steps(&self, desired: &Desired) -> BTreeMap<Key, Step> {
        let mut steps = BTreeMap::new();
        for (id, rules) in &desired.sandboxes {
            let applied = self.sandboxes.get(id);
            let none = Vips::new();
            let old = applied.map_or(&none, |applied| applied.vips());
            let step = steps.entry(key(applied, rules));
            step.or_insert_with(|| Step::between(old, &rules.vips));
        }
        steps
    }

    fn apply_mesh(
        &mut self,
        desired: &Desired,
        Effort { repair, tries }: Effort,
        outcome: &mut Outcome,
    ) {
        let mut rules = desired.mesh.clone();
        self.ports.hold(rules.ports.keys().chain(rules.host_ports.keys()).copied(), tries);
        outcome.ports.clone_from(&self.ports.refused);
        rules.ports.retain(|key, _| !self.ports.refused.contains_key(key));
        rules.host_ports.retain(|key, _| !self.ports.refused.contains_key(key));
        let closed = self.closed.clone().unwrap_or_default();
        let wanted = mesh::Wanted { rules, surroundings: mesh::surroundings(desired, closed) };
        let applied = self.mesh.take();
        // Without the bridge there is nothing to lead to; its failure is told.
        if self.gateway.is_none() {
            return;
        }
        let context = mesh::Context {
            config: &self.config,
            nftables: &self.nftables,
            listener: &self.listener,
        };
        let reason = self.resting.mesh.take().filter(|_| {
            let is_less = applied.as_ref().is_none_or(|applied| !applied.same_links(&wanted.rules));
            is_less && mesh::same_links(&self.last.mesh, &desired.mesh)
        });
        // Without its tunnel, ports in host mode and the way out remain.
        let mesh = if reason.is_some() {
            outcome.mesh = reason;
            AppliedMesh::apply(context, wanted.without_tunnel(), applied, repair)
        } else {
            let changed = AppliedMesh::apply(context, wanted.clone(), applied, repair);
            // What could not be changed is made anew: a failure that passes takes no port away.
            let made = changed.or_else(|_| AppliedMesh::apply(context, wanted.clone(), None, true));
            made.or_else(|error| {
                outcome.mesh = Some(chain(&error));
                AppliedMesh::apply(context, wanted.without_tunnel(), None, repair)
            })
        };
        match mesh {
            Ok(mut mesh) => {
                if repair {
                    self.firewall = mesh.admit(&self.config).err().as_ref().map(chain);
                }
                outcome.firewall.clone_from(&self.firewall);
                self.mesh = Some(mesh);
            }
            Err(error) => outcome.mesh = Some(chain(&error)),
        }
    }

    /// Takes tracked connections off back ends that are no more.
    fn forget_flows(&mut self, desired: &Desired, outcome: &mut Outcome) {
        let alive = Alive::new(desired);
        let all = self.sandboxes.iter_mut().collect();
        let failed = in_parallel(all, |(id, sandbox)| Some((id, sandbox.forget(&alive).err()?)));
        for (id, error) in failed.into_iter().flatten() {
            note(&mut outcome.sandboxes, id, Err(error));
        }
        let forgotten = self.mesh.as_mut().map(|mesh| mesh.forget(&alive));
        if let Some(Err(error)) = forgotten {
            tracing::warn!(error = chain(&error), "cannot forget connections to published ports");
        }
    }

    fn has_unseen(&self) -> bool {
        !self.unseen.is_empty() || self.mesh.as_ref().is_some_and(AppliedMesh::is_unseen)
    }

    /// Looks at the tracked connections of one container, or of the node.
    fn look(&mut self) {
        let alive = Alive::new(&self.last);
        let looked = if let Some(id) = self.unseen.pop_first() {
            self.sandboxes.get_mut(&id).map(|sandbox| sandbox.look(&alive))
        } else {
            let subnet = self.config.gateway_subnet.trunc();
            self.mesh.as_mut().map(|mesh| mesh.look(&alive, subnet))
        };
        if let Some(Err(error)) = looked {
            tracing::warn!(error = chain(&error), "cannot look at tracked connections");
        }
    }

    /// Notes what has failed since last time.
    fn tell(&mut self, outcome: &Outcome) {
        let told = &self.told;
        if let Some(reason) = outcome.node.as_ref().filter(|_| told.node != outcome.node) {
            tracing::warn!(reason, "cannot set up the node's network; it is tried again");
        }
        if let Some(reason) = outcome.mesh.as_ref().filter(|_| told.mesh != outcome.mesh) {
            tracing::warn!(reason, "cannot set up the routing mesh; it is tried again");
        }
        if let Some(reason) =
            outcome.firewall.as_ref().filter(|_| told.firewall != outcome.firewall)
        {
            tracing::warn!(reason, "a firewall stands in the way; it is looked at again");
        }
        for (network, reason) in &outcome.networks {
            if told.networks.get(network) != Some(reason) {
                tracing::warn!(%network, reason, "cannot make a network; it is tried again");
            }
        }
        for (container, reason) in &outcome.sandboxes {
            if told.sandboxes.get(container) != Some(reason) {
                tracing::warn!(container, reason, "cannot connect a container; it is tried again");
            }
        }
        for (key, reason) in &outcome.ports {
            if !told.ports.contains_key(key) {
                tracing::warn!(reason, "this node does not publish a port");
            }
        }
        self.told.clone_from(outcome);
    }
}

/// The containers on each network here.
fn containers(desired: &Desired) -> BTreeMap<&NetworkId, BTreeSet<Ipv4Addr>> {
    let mut containers: BTreeMap<_, BTreeSet<_>> = BTreeMap::new();
    for attachment in desired.sandboxes.values().flat_map(|sandbox| &sandbox.attachments) {
        containers.entry(&attachment.network).or_default().insert(attachment.address);
    }
    containers
}

/// Two tables of VIPs, by where they are. Both live until the application is over.
type Key = (Option<*const Vips>, *const Vips);

fn key(applied: Option<&AppliedSandbox>, wanted: &SandboxRules) -> Key {
    (applied.map(|applied| Arc::as_ptr(applied.vips())), Arc::as_ptr(&wanted.vips))
}

fn note<K: Clone + Ord>(failed: &mut BTreeMap<K, String>, what: &K, outcome: Result<(), Error>) {
    if let Err(error) = outcome {
        failed.entry(what.clone()).or_insert_with(|| chain(&error));
    }
}
