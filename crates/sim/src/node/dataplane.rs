//! A model of the data plane's loop: what is known and what is here, and the kernel that follows.
//!
//! What the kernel shall hold is the real projection (`discovery`); here are the journal, the
//! kernel, which takes its time and may refuse, and who waits for it.

use discovery::{Desired, Here, Knowledge, OrdMap, OrdSet, Sandbox, SandboxAttachment, Zone};
use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::sync::Arc;
use types::{NodeId, Protocol, TaskId};

/// What containers are led by. It stays while the daemon is away.
#[derive(Clone, Debug, Default)]
pub struct Kernel {
    pub desired: Arc<Desired>,
    pub zones: BTreeMap<String, Zone>,
}

/// The journal.
#[derive(Clone, Debug, Default)]
pub(super) struct Kept {
    known: Knowledge,
    sandboxes: OrdMap<String, Sandbox>,
    hidden: OrdSet<TaskId>,
    identity: Option<(NodeId, Ipv4Addr)>,
}

/// What a container asks to be attached with.
#[derive(Clone, Debug)]
pub(super) struct Wanted {
    pub(super) task: TaskId,
    pub(super) attachments: Vec<SandboxAttachment>,
    pub(super) host_ports: Vec<(Protocol, u16, u16)>,
}

#[derive(Debug)]
pub(super) struct Dataplane {
    pub(super) here: Here,
    pub(super) known: Arc<Knowledge>,
    version: u64,
    pub(super) applied: u64,
    /// What the kernel was told last.
    held: Option<Arc<Desired>>,
    /// What is being made so, and for which version.
    applying: Option<(Arc<Desired>, BTreeMap<String, Zone>, u64)>,
    changed: bool,
    gateways: u32,
}

impl Dataplane {
    /// Takes over what the journal knows; `is_there` says whether a container's namespace is.
    pub(super) fn open(kept: &Kept, is_there: impl Fn(&str) -> bool) -> Self {
        let (node, address) =
            kept.identity.clone().unwrap_or((NodeId::default(), Ipv4Addr::UNSPECIFIED));
        let sandboxes = kept.sandboxes.iter().filter(|(id, _)| is_there(id));
        let gateways =
            kept.sandboxes.values().map(|it| u32::from(it.gateway_address) & 0xffff).max();
        Self {
            here: Here {
                node,
                address,
                data_path_port: 4789,
                sandboxes: sandboxes.map(|(id, sandbox)| (id.clone(), sandbox.clone())).collect(),
                hidden: kept.hidden.clone(),
            },
            known: Arc::new(kept.known.clone()),
            version: 0,
            applied: 0,
            held: None,
            applying: None,
            changed: true,
            gateways: gateways.unwrap_or(1),
        }
    }

    pub(super) fn identify(&mut self, node: NodeId, address: Ipv4Addr) {
        (self.here.node, self.here.address) = (node, address);
        self.changed = true;
    }

    /// As `dataplane::run::Run::learn`.
    pub(super) fn learn(&mut self, known: Knowledge, version: u64) {
        self.version = version;
        if self.applied >= version {
            self.applied = version.saturating_sub(1);
        }
        self.changed = true;
        if known == *self.known {
            return;
        }
        self.known = Arc::new(known);
        let known = &self.known;
        let hidden = self.here.hidden.iter().filter(|task| is_known(known, task));
        self.here.hidden = hidden.cloned().collect();
    }

    pub(super) fn withdraw(&mut self, task: TaskId) {
        self.changed |= self.here.hidden.insert(task).is_none();
    }

    /// As `dataplane::run::Run::attach`.
    pub(super) fn attach(&mut self, container: &str, wanted: Wanted) -> Result<(), String> {
        for attachment in &wanted.attachments {
            let known = self.known.networks.get(&attachment.network);
            if known.is_none_or(|view| view.subnet.is_none() || view.vni == 0) {
                return Err(format!("network {} is not known here", attachment.network));
            }
        }
        let others = self.here.sandboxes.iter().filter(|(id, _)| *id != container);
        let taken: BTreeSet<(Protocol, u16)> = others
            .flat_map(|(_, it)| it.host_ports.iter().map(|(protocol, port, _)| (*protocol, *port)))
            .collect();
        if wanted.host_ports.iter().any(|(protocol, port, _)| taken.contains(&(*protocol, *port))) {
            return Err("port is already allocated".to_owned());
        }
        self.gateways += 1;
        let gateway = Ipv4Addr::from(0xac12_0000 | (self.gateways & 0xffff));
        self.here.hidden.remove(&wanted.task);
        let sandbox = Sandbox {
            task: Some(wanted.task),
            netns: format!("/run/{container}"),
            gateway_address: gateway,
            attachments: wanted.attachments,
            dns_port: 5_353,
            host_ports: wanted.host_ports,
            nameservers: Vec::new(),
        };
        self.here.sandboxes.insert(container.to_owned(), sandbox);
        self.changed = true;
        Ok(())
    }

    pub(super) fn detach(&mut self, container: &str) {
        if let Some(sandbox) = self.here.sandboxes.remove(container) {
            self.changed = true;
            if let Some(task) = sandbox.task.filter(|task| is_known(&self.known, task)) {
                self.here.hidden.insert(task);
            }
        }
    }

    /// Begins to make it so, if there is something to do and nothing under way.
    pub(super) fn settle(&mut self) -> bool {
        if self.applying.is_some() || !self.changed {
            return false;
        }
        self.changed = false;
        let desired = Arc::new(discovery::desired(&self.known, &self.here));
        let zones = discovery::zones(&self.known, &self.here);
        self.applying = Some((desired, zones, self.version));
        true
    }

    /// What was begun is made so, or was refused; without a journal nobody hears of it. Says whether
    /// anything is different.
    pub(super) fn settled(&mut self, (works, saved): (bool, bool), kernel: &mut Kernel) -> bool {
        let Some((desired, zones, version)) = self.applying.take() else { return false };
        self.changed |= !(works && saved);
        if !works {
            return false;
        }
        if saved {
            self.applied = version;
        }
        let is_news = self.held.as_ref() != Some(&desired) || kernel.zones != zones;
        self.held = Some(Arc::clone(&desired));
        *kernel = Kernel { desired, zones };
        is_news
    }

    /// Says whether kernel and names hold all that is known and here.
    pub(super) fn is_settled(&self) -> bool {
        !self.changed && self.applying.is_none()
    }

    pub(super) fn kept(&self) -> Kept {
        Kept {
            known: Knowledge::clone(&self.known),
            sandboxes: self.here.sandboxes.clone(),
            hidden: self.here.hidden.clone(),
            identity: Some((self.here.node.clone(), self.here.address)),
        }
    }
}

fn is_known(known: &Knowledge, task: &TaskId) -> bool {
    known.mesh.tasks.contains_key(task)
        || known.networks.values().any(|view| view.endpoints.contains_key(task))
}
