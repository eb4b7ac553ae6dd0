//! Starting a container.

use super::mounts;
use crate::blocking::{blocking, cannot};
use crate::config::NetworkMode;
use crate::container::Container;
use crate::engine::Engine;
use crate::fifo::{self, Output};
use crate::info::Status;
use crate::logs::Link;
use crate::memory::{self, MemoryFile};
use crate::node_access;
use crate::spec::{self, Netns, Plan};
use crate::{cdi, clock, files, health, pump, told};
use dataplane::Dataplane;
use std::fs;
use std::net::IpAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::sync::Arc;
use tokio_util::sync::CancellationToken;
use types::{Fault, FaultKind, Retry, Timestamp};

impl Engine {
    /// Starts a container. False where it runs already.
    pub async fn start(&self, name: &str) -> Result<bool, Fault> {
        self.start_with(name, Vec::new()).await
    }

    /// The same with the files of its secrets and configs, which are there until it ends.
    pub async fn start_with(&self, name: &str, files: Vec<MemoryFile>) -> Result<bool, Fault> {
        let (engine, container) = (self.clone(), self.find(name)?);
        self.complete(async move {
            let started = engine.start_one(&container, &files).await;
            // Whoever waits for such a container waits for it to be gone.
            if started.is_err() {
                engine.remove_itself(&container).await;
            }
            started
        })
        .await
    }

    /// Puts other files in the place of those that a container that runs was started with: as many, at
    /// the same places.
    pub async fn replace_files(&self, name: &str, files: Vec<MemoryFile>) -> Result<(), Fault> {
        let container = self.running(name)?;
        let _turn = container.operation.lock().await;
        let run = container.run.clone();
        blocking(move || memory::replace(&run, &files).map_err(cannot("replace files in memory")))
            .await
    }

    pub(super) async fn start_one(
        &self,
        container: &Arc<Container>,
        files: &[MemoryFile],
    ) -> Result<bool, Fault> {
        let _turn = container.operation.lock().await;
        match container.status() {
            Status::Running => return Ok(false),
            Status::Removing => {
                return Err(Fault::conflict(
                    "container is marked for removal and cannot be started",
                ));
            }
            Status::Created | Status::Exited => {}
        }
        if container.fixed.config.spec.has_files() && files.is_empty() {
            return Err(Fault::conflict(
                "the secrets and configs of this container are gone: they are there for its task \
                 alone, which is started by its service",
            ));
        }
        let started = clock::now();
        let brought_up = self.bring_up(container, files).await;
        self.hide_sources(container).await;
        match brought_up {
            Ok(pid) => {
                self.began(container, pid, started).await;
                told::taken(container, &self.inner.events);
                container.tell(&self.inner.events, "start", &[]);
                Ok(true)
            }
            Err(fault) => {
                self.take_down(container).await;
                pump::close(container);
                let code = code_of(&fault);
                let change = |state: &mut crate::ContainerState| {
                    state.error.clone_from(&fault.message);
                    state.exit_code = code;
                };
                container.update(change).await;
                Err(fault)
            }
        }
    }

    /// Notes that a container runs, and looks after it from now on.
    pub(super) async fn began(&self, container: &Arc<Container>, pid: u32, started: Timestamp) {
        container
            .update(|state| {
                state.status = Status::Running;
                state.pid = pid;
                state.exit_code = 0;
                state.error.clear();
                state.oom_killed = false;
                state.started_at = started;
                state.finished_at = Timestamp::default();
                state.health = container.check.as_ref().map(|_| crate::Health::default());
                state.starts += 1;
            })
            .await;
        self.look_after(container);
    }

    /// Starts the health check, where there is one.
    pub(super) fn look_after(&self, container: &Arc<Container>) {
        if container.check.is_some() {
            let token = self.inner.token.child_token();
            container.live().health = Some(token.clone());
            let watching = health::watch_over(self.clone(), Arc::clone(container), token);
            self.inner.tracker.spawn(watching);
        }
    }

    async fn bring_up(
        &self,
        container: &Arc<Container>,
        files: &[MemoryFile],
    ) -> Result<u32, Fault> {
        let points = container.fixed.mounts.iter();
        mounts::check_binds(&self.inner.path_checks, points.map(|point| &point.mount)).await?;
        let id = container.id().to_owned();
        {
            let _permit = self.start_permit().await;
            self.inner.runtime.prepare(id.clone(), container.fixed.image.clone()).await?;
        }
        let places = self.acquire_volumes(container).await?;
        let user = self.look_inside(container, &places).await?;
        let own = &container.fixed.config;
        let host = self.joined_network(container)?;
        let borrowed = self.borrowed(container)?;
        let (netns, files_of) = match host {
            Some(host) => (host.netns, host.container),
            None => (self.connect(container).await?, Arc::clone(container)),
        };
        let its_name = &files_of.fixed.config;
        let has_nodes_name =
            its_name.node.uts || (netns == Netns::Host && its_name.spec.hostname.is_empty());
        let hostname = if has_nodes_name { node_name().await } else { files_of.hostname() };
        if Arc::ptr_eq(&files_of, container) {
            self.write_files(container, &netns, &hostname).await?;
        }
        self.open_streams(container).await?;
        let (run, files) = (container.run.clone(), files.to_vec());
        let shared = own.node.shareable.then_some(own.shm_size);
        let put = move || {
            if let Some(bytes) = shared {
                memory::share(&run, if bytes == 0 { spec::SHM_SIZE } else { bytes })?;
            }
            memory::write(&run, &files)
        };
        let put = move || put().map_err(cannot("put files into memory"));
        let memory_files = blocking(put).await?;
        let points = self.show_sources(container, &places).await?;
        let access = own.node.clone();
        let devices = blocking(move || node_access::find(&access)).await?;
        let mut rendered = spec::render(&Plan {
            id: container.id(),
            config: &container.fixed.config,
            image: &container.image,
            machine: &self.inner.machine,
            user: &user,
            hostname: &hostname,
            netns: &netns,
            files: &files_of.folder,
            mounts: &points,
            memory_files: &memory_files,
            cgroup_parent: match own.node.cgroup_parent.as_str() {
                "" => &self.inner.config.cgroup_parent,
                own => own,
            },
            borrowed: &borrowed,
            devices: &devices,
        })?;
        if !own.node.device_requests.is_empty() {
            let (folders, requests) =
                (self.inner.config.cdi.clone(), own.node.device_requests.clone());
            rendered = blocking(move || {
                let registry = cdi::Registry::read(&folders);
                registry.inject(&cdi::names(&requests, &registry)?, &mut rendered)?;
                Ok(rendered)
            })
            .await?;
        }
        let _permit = self.start_permit().await;
        self.inner.runtime.start(id, rendered, container.stdio()).await
    }

    /// Connects the container, or finds how its caller connected it.
    async fn connect(&self, container: &Container) -> Result<Netns, Fault> {
        let dataplane = &self.inner.dataplane;
        let sandbox = match container.fixed.config.network {
            NetworkMode::Host => return Ok(Netns::Host),
            NetworkMode::None => return Ok(Netns::New),
            NetworkMode::Bridge => {
                let ports = container.fixed.config.host_ports.iter();
                let ports = ports.map(|port| (port.protocol, port.published, port.target));
                let wanted = dataplane::Wanted {
                    host_ports: ports.collect(),
                    nameservers: container.fixed.config.spec.dns.nameservers.clone(),
                    ..dataplane::Wanted::default()
                };
                let attached = dataplane.attach(container.id(), wanted).await;
                attached.map_err(|error| unconnected(&error))?
            }
            NetworkMode::Attached => find_sandbox(dataplane, container.id()).await?,
        };
        let places = self.inner.dataplane.places(container.id()).await;
        let places = places.map_err(|error| unconnected(&error))?;
        container.state.send_modify(|state| state.places = places);
        let path = PathBuf::from(&sandbox.netns);
        let mut live = container.live();
        live.address = sandbox.gateway_addresses.v4;
        live.netns = Some(path.clone());
        Ok(Netns::Path(path))
    }

    /// Writes /etc/hosts, /etc/hostname and /etc/resolv.conf.
    async fn write_files(
        &self,
        container: &Container,
        netns: &Netns,
        hostname: &str,
    ) -> Result<(), Fault> {
        let spec = container.fixed.config.spec.clone();
        let hostname = hostname.to_owned();
        let addresses = self.addresses(container).await;
        let folder = container.folder.clone();
        let (own, daemon) = (*netns != Netns::Host, self.inner.config.resolv_conf.clone());
        blocking(move || {
            let daemon = fs::read_to_string(daemon).unwrap_or_default();
            let resolv = if own { files::resolv_conf(&spec.dns, &daemon) } else { daemon };
            let hosts = files::hosts(&addresses, &hostname, &spec.hosts);
            for (name, text) in
                [("hosts", hosts), ("hostname", format!("{hostname}\n")), ("resolv.conf", resolv)]
            {
                let path = folder.join(name);
                // Whoever the container runs as reads them, whatever the daemon's umask is.
                let readable = fs::Permissions::from_mode(0o644);
                let written =
                    fs::write(&path, text).and_then(|()| fs::set_permissions(&path, readable));
                written.map_err(cannot("write a container's files"))?;
            }
            Ok(())
        })
        .await
    }

    /// Where the container's own name leads to: its cluster networks, or the gateway bridge.
    async fn addresses(&self, container: &Container) -> Vec<IpAddr> {
        let Some(gateway) = container.live().address else { return Vec::new() };
        let sandbox = find_sandbox(&self.inner.dataplane, container.id()).await.ok();
        let attachments = sandbox.map(|sandbox| sandbox.attachments).unwrap_or_default();
        if attachments.is_empty() {
            return vec![gateway.into()];
        }
        attachments.iter().flat_map(|attachment| attachment.addresses.iter()).collect()
    }

    /// Makes the FIFOs and starts to carry what comes.
    async fn open_streams(&self, container: &Arc<Container>) -> Result<(), Fault> {
        // A container whose output nobody takes is not started.
        let link = match &container.remote {
            Some(remote) => remote.connect().await?,
            None => None,
        };
        let (run, stdio) = (container.run.clone(), container.stdio());
        blocking(move || {
            let made = fs::create_dir_all(&run).and_then(|()| {
                let paths = [&stdio.stdin, &stdio.stdout, &stdio.stderr];
                paths.into_iter().flatten().try_for_each(|path| fifo::make(path))
            });
            made.map_err(cannot("make a container's streams"))
        })
        .await?;
        self.carry(container, link)
    }

    /// Opens the FIFOs and carries what comes; `link`: to where it is sent, if there is one already.
    pub(super) fn carry(
        &self,
        container: &Arc<Container>,
        link: Option<Link>,
    ) -> Result<(), Fault> {
        let stdio = container.stdio();
        let stdout = stdio.stdout.unwrap_or_default();
        let output = Output::open(&stdout, stdio.stderr.as_deref())
            .map_err(cannot("open a container's output"))?;
        if let Some(path) = stdio.stdin {
            let writer = fifo::writer(&path).map_err(cannot("open a container's input"))?;
            container.live().stdin = Some(Arc::new(writer));
        }
        if let Some(log) = &container.log {
            log.reopen();
        }
        let token: CancellationToken = self.inner.token.clone();
        pump::start(container, (output, link), &self.inner.tracker, token);
        Ok(())
    }
}

async fn find_sandbox(dataplane: &Dataplane, id: &str) -> Result<discovery::Sandbox, Fault> {
    let mut sandboxes = dataplane.sandboxes().await.map_err(|error| unconnected(&error))?;
    let missing = || Fault::conflict(format!("the network of container {id} is not attached"));
    sandboxes.remove(id).ok_or_else(missing)
}

fn unconnected(error: &dataplane::Error) -> Fault {
    let cause = std::error::Error::source(error).map(|cause| format!(": {cause}"));
    let message = format!("{error}{}", cause.unwrap_or_default());
    match (error, error.retry()) {
        (dataplane::Error::PortAllocated(_) | dataplane::Error::PortTaken(_), _) => {
            Fault::conflict(message)
        }
        (_, Retry::Transient) => Fault::unavailable(message),
        (_, Retry::Permanent) => Fault::internal(message),
    }
}

async fn node_name() -> String {
    let name = tokio::fs::read_to_string("/proc/sys/kernel/hostname").await.unwrap_or_default();
    name.trim().to_owned()
}

/// The exit code of a container that could not be started, as Docker chooses it.
pub(crate) fn code_of(fault: &Fault) -> i32 {
    let missing = ["executable file not found", "no such file or directory"];
    if missing.iter().any(|text| fault.message.contains(text)) {
        127
    } else if fault.message.contains("permission denied") && fault.kind != FaultKind::Unavailable {
        126
    } else {
        128
    }
}
