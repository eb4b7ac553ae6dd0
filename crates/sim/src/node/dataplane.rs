//! A model of the data plane's loop: what is known and what is here, and the kernel that follows.
//!
//! What the kernel shall hold is the real projection (`discovery`); here are the journal, the
//! kernel, which takes its time and may refuse, and who waits for it.

use dataplane::{Identity, News};
use discovery::{
    Desired, Here, Knowledge, KnowledgeDifference, OrdMap, OrdSet, Sandbox, SandboxAttachment, Zone,
};
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
    identity: Option<Identity>,
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
    /// What the kernel does not do.
    pub(super) trouble: String,
    identity: Option<Identity>,
    /// What is being made so, and for which version.
    applying: Option<(Arc<Desired>, BTreeMap<String, Zone>, u64)>,
    changed: bool,
    gateways: u32,
}

impl Dataplane {
    /// Takes over what the journal knows; `is_there` says whether a container's namespace is.
    pub(super) fn open(kept: &Kept, is_there: impl Fn(&str) -> bool) -> Self {
        let here = kept.identity.clone().unwrap_or(Identity {
            node: NodeId::default(),
            address: Ipv4Addr::UNSPECIFIED.into(),
            data_path_port: 4789,
        });
        let sandboxes = kept.sandboxes.iter().filter(|(id, _)| is_there(id));
        let gateways = kept.sandboxes.values().filter_map(|it| it.gateway_addresses.v4);
        let gateways = gateways.map(|it| u32::from(it) & 0xffff).max();
        Self {
            here: Here {
                node: here.node,
                address: here.address,
                data_path_port: here.data_path_port,
                sandboxes: sandboxes.map(|(id, sandbox)| (id.clone(), sandbox.clone())).collect(),
                hidden: kept.hidden.clone(),
            },
            known: Arc::new(kept.known.clone()),
            version: 0,
            applied: 0,
            trouble: String::new(),
            identity: kept.identity.clone(),
            applying: None,
            changed: true,
            gateways: gateways.unwrap_or(1),
        }
    }

    /// As `dataplane::run::Run::identify`.
    pub(super) fn identify(&mut self, identity: Identity) {
        if self.identity.as_ref() == Some(&identity) {
            return;
        }
        self.here.node = identity.node.clone();
        self.here.address = identity.address;
        self.here.data_path_port = identity.data_path_port;
        self.identity = Some(identity);
        self.changed = true;
    }

    /// As `dataplane::run::Run::learn`.
    pub(super) fn learn(&mut self, news: News, version: u64) -> Result<(), String> {
        let difference = match news {
            News::Whole(known) => KnowledgeDifference::between(&self.known, &known),
            News::Difference(difference) if version == self.version + 1 => difference,
            News::Difference(_) => {
                let known = self.version;
                return Err(format!("version {version} does not follow on {known}"));
            }
        };
        self.version = version;
        if self.applied >= version {
            self.applied = version.saturating_sub(1);
        }
        self.changed = true;
        if difference.is_empty() {
            return Ok(());
        }
        difference.apply(Arc::make_mut(&mut self.known));
        let known = &self.known;
        let hidden = self.here.hidden.iter().filter(|task| known.has_task(task));
        self.here.hidden = hidden.cloned().collect();
        Ok(())
    }

    pub(super) fn withdraw(&mut self, task: TaskId) {
        self.changed |= self.here.hidden.insert(task).is_none();
    }

    /// As `dataplane::run::Run::attach`.
    pub(super) fn attach(&mut self, container: &str, wanted: Wanted) -> Result<(), String> {
        for attachment in &wanted.attachments {
            let known = self.known.networks.get(&attachment.network);
            if known.is_none_or(|view| view.subnets.is_empty() || view.vni == 0) {
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
            gateway_addresses: gateway.into(),
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
            if let Some(task) = sandbox.task.filter(|task| self.known.has_task(task)) {
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

    /// What was begun is made so, or was refused; without a journal nobody hears of it.
    pub(super) fn settled(&mut self, (works, saved): (bool, bool), kernel: &mut Kernel) {
        let Some((desired, zones, version)) = self.applying.take() else { return };
        self.changed |= !(works && saved);
        self.trouble.clear();
        if !works {
            "the kernel refuses changes".clone_into(&mut self.trouble);
            return;
        }
        if saved {
            self.applied = version;
        }
        *kernel = Kernel { desired, zones };
    }

    /// Says whether the kernel takes its time.
    pub(super) fn is_busy(&self) -> bool {
        self.applying.is_some()
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
            identity: self.identity.clone(),
        }
    }
}
