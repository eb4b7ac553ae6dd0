//! Making a container: everything a user may have got wrong is found here.

use super::mounts;
use crate::blocking::{blocking, cannot};
use crate::config::ContainerConfig;
use crate::container::Container;
use crate::engine::Engine;
use crate::info::{ContainerState, MountPoint};
use crate::record::{self, Record};
use crate::runtime::Image;
use crate::spec::{self, ImageConfig};
use crate::volumes::Hold;
use crate::{clock, joined, names, signals};
use std::net::{Ipv4Addr, TcpListener, UdpSocket};
use std::path::PathBuf;
use std::sync::Arc;
use tokio::sync::oneshot;
use types::{AppArmor, Fault, Protocol};

/// A container that was made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Created {
    pub id: String,
    pub warnings: Vec<String>,
}

impl Engine {
    /// Makes a container; its image must be here (`No such image: …`). One that is made after its
    /// caller has gone is removed again.
    pub async fn create(&self, config: ContainerConfig) -> Result<Created, Fault> {
        let (engine, (tell, told)) = (self.clone(), oneshot::channel());
        self.inner.tracker.spawn(async move {
            // Whoever asked has given up, and nobody knows what was made.
            if let Err(Ok(Created { id, .. })) = tell.send(engine.make(config).await)
                && let Err(fault) = engine.remove(&id, true, true).await
            {
                tracing::warn!(id, %fault, "a container that nobody waited for stays");
            }
        });
        told.await.unwrap_or_else(|_panicked| Err(Fault::internal("the engine failed")))
    }

    async fn make(&self, mut config: ContainerConfig) -> Result<Created, Fault> {
        let image = self.image(&config.spec.image).await?;
        let image_config = ImageConfig::of(&image.config);
        image_config.check()?;
        config.log = std::mem::take(&mut config.log).or(&self.inner.config.log);
        if config.is_tasks {
            config.log.drop_unused_buffer();
        }
        check(&config, &image_config)?;
        self.join(&mut config);
        self.check_machine(&config)?;
        let warnings = self.warnings(&config);
        config.host_ports = free_ports(config.host_ports)?;
        if config.id.is_empty() {
            config.id = clock::draw_id();
        }
        self.reserve(&mut config)?;
        let id = config.id.clone();
        match self.establish(config, image, &image_config).await {
            Ok((container, holds)) => {
                container.tell(&self.inner.events, "create", &[]);
                self.registry().insert(container);
                // From now on its volumes are seen to be used.
                drop(holds);
                Ok(Created { id, warnings })
            }
            Err(fault) => {
                self.registry().remove(&id);
                self.clear_away(&id).await;
                Err(fault)
            }
        }
    }

    /// Keeps the name, drawn where there is none.
    fn reserve(&self, config: &mut ContainerConfig) -> Result<(), Fault> {
        let mut registry = self.registry();
        if config.name.is_empty() {
            config.name = names::draw(|name| registry.is_taken(name));
        }
        let name = config.name.strip_prefix('/').unwrap_or(&config.name).to_owned();
        names::check("container", &name)?;
        config.name = name;
        registry.reserve(&config.name, &config.id)
    }

    async fn establish(
        &self,
        config: ContainerConfig,
        image: Image,
        image_config: &ImageConfig,
    ) -> Result<(Arc<Container>, Vec<Hold>), Fault> {
        let planned = mounts::plan(&config.spec, image_config)?;
        mounts::check_binds(&self.inner.path_checks, planned.iter()).await?;
        let images = mounts::find_images(self, &planned).await?;
        let (engine, id) = (self.clone(), config.id.clone());
        let mut resolved = blocking(move || mounts::resolve(&engine, &id, planned)).await?;
        for (point, image) in resolved.points.iter_mut().zip(images) {
            point.image = image;
        }
        match self.establish_on(resolved.points.clone(), config, image).await {
            Ok(container) => Ok((container, resolved.holds)),
            Err(fault) => {
                let engine = self.clone();
                let remove = move || {
                    mounts::remove_new(&engine, resolved);
                    Ok(())
                };
                blocking(remove).await?;
                Err(fault)
            }
        }
    }

    async fn establish_on(
        &self,
        points: Vec<MountPoint>,
        config: ContainerConfig,
        image: Image,
    ) -> Result<Arc<Container>, Fault> {
        let (folder, run) = (self.folder(&config.id), self.run_folder(&config.id));
        let record = Record {
            id: config.id.clone(),
            name: config.name.clone(),
            created: clock::now(),
            image: image.id.clone(),
            image_config: ImageConfig::kept(image.config),
            config,
            mounts: points,
            state: ContainerState::default(),
        };
        let container =
            Arc::new(Container::new(record, (folder.clone(), run), &self.inner.config.journal)?);
        blocking(move || {
            record::private_folder(&folder).map_err(cannot("make a container's folder"))
        })
        .await?;
        // The record comes first: what nobody knows of is removed at the next start.
        container.save().await?;
        let _permit = self.start_permit().await;
        self.inner.runtime.prepare(container.id().to_owned(), image.id).await?;
        Ok(container)
    }

    /// Refuses what this machine does not have.
    fn check_machine(&self, config: &ContainerConfig) -> Result<(), Fault> {
        let (machine, spec) = (&self.inner.machine, &config.spec);
        if spec.init == Some(true) && machine.init.is_none() {
            let message = format!("there is no init for {} machines", std::env::consts::ARCH);
            return Err(Fault::invalid(message));
        }
        if let AppArmor::Named(profile) = &spec.security.apparmor
            && machine.apparmor.is_none()
        {
            let message = format!("the kernel has no AppArmor: cannot use the profile {profile}");
            return Err(Fault::invalid(message));
        }
        if spec.mounts.iter().any(|mount| mount.read_only_or_fail) && !machine.read_only_below() {
            let message = "the kernel cannot make a mount and all below it read-only (5.12 can)";
            return Err(Fault::invalid(message));
        }
        spec::check_seccomp(&spec.security.seccomp, machine)
    }

    /// What this machine does to confine containers, in Docker's words.
    pub fn security_options(&self) -> Vec<&'static str> {
        let machine = &self.inner.machine;
        let options = [
            (machine.apparmor.is_some(), "name=apparmor"),
            (machine.seccomp, "name=seccomp,profile=builtin"),
            (machine.cgroup2, "name=cgroupns"),
        ];
        options.into_iter().filter(|(has, _)| *has).map(|(_, name)| name).collect()
    }

    /// Where files of the Container Device Interface are looked for.
    pub fn cdi_folders(&self) -> &[PathBuf] {
        &self.inner.config.cdi
    }

    /// Says whether this machine limits swap.
    pub fn limits_swap(&self) -> bool {
        self.inner.machine.swap
    }

    fn warnings(&self, config: &ContainerConfig) -> Vec<String> {
        let (machine, resources) = (&self.inner.machine, &config.resources);
        let mut warnings = Vec::new();
        if 0 < resources.limit_memory && resources.swap != Some(-1) && !machine.swap {
            warnings.push(
                "Your kernel does not support swap limit capabilities or the cgroup is not \
                 mounted. Memory limited without swap."
                    .to_owned(),
            );
        }
        if resources.swappiness.is_some() && !machine.swappiness {
            warnings.push(
                "Your kernel does not support memory swappiness capabilities or the cgroup is not \
                 mounted. Memory swappiness discarded."
                    .to_owned(),
            );
        }
        warnings
    }
}

fn check(config: &ContainerConfig, image: &ImageConfig) -> Result<(), Fault> {
    let spec = &config.spec;
    spec::arguments(spec, image)?;
    spec::check_capabilities(&spec.cap_add)?;
    spec::check_capabilities(&spec.cap_drop)?;
    if config.node.uts && !spec.hostname.is_empty() {
        return Err(Fault::invalid("conflicting options: hostname and the UTS mode"));
    }
    joined::check(config)?;
    types::check_cgroup_parent(&config.node.cgroup_parent).map_err(Fault::invalid)?;
    if !spec.stop_signal.is_empty() {
        signals::parse(&spec.stop_signal)?;
    }
    let dir = spec::working_dir(spec, image);
    if !dir.starts_with('/') {
        return Err(Fault::invalid(format!(
            "the working directory '{dir}' is invalid, it needs to be an absolute path"
        )));
    }
    if !config.id.is_empty() && !is_id(&config.id) {
        return Err(Fault::invalid("a container's id has 64 hex digits"));
    }
    config.log.check()
}

fn is_id(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

/// Asks the kernel for ports where the user does not care which.
fn free_ports(
    mut ports: Vec<crate::config::HostPort>,
) -> Result<Vec<crate::config::HostPort>, Fault> {
    // All are held until the last is found, so that they differ.
    let (mut tcp, mut udp) = (Vec::new(), Vec::new());
    let any = (Ipv4Addr::UNSPECIFIED, 0);
    for port in ports.iter_mut().filter(|port| port.published == 0) {
        let found = match port.protocol {
            Protocol::Tcp => TcpListener::bind(any).and_then(|socket| {
                let address = socket.local_addr();
                tcp.push(socket);
                address
            }),
            Protocol::Udp => UdpSocket::bind(any).and_then(|socket| {
                let address = socket.local_addr();
                udp.push(socket);
                address
            }),
        };
        port.published = found.map_err(cannot("find a free port"))?.port();
    }
    Ok(ports)
}
