//! The daemon of a node: wires the crates together and keeps them running.
//!
//! The one place that knows every implementation of every port. Stopping it, also by kill -9,
//! leaves containers and traffic running; started again it takes them over.

mod address;
pub(crate) mod docker_socket;
mod facts;
mod labels;
mod lock;
mod member;
mod node;
pub(crate) mod options;
mod ready;
pub(crate) mod resolver;
mod restart;
mod serve;
mod state;
mod vault;

pub(crate) use options::Options;

use crate::cgroup;
use crate::noted_options::NotedOptions;
use anyhow::{Context, Result, bail};
use engine_api::Api;
use nix::fcntl::{Flock, FlockArg};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use scope::Scope;
use std::fs::{DirBuilder, File, Permissions};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::Path;
use std::sync::Arc;
use tracing::Level;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::prelude::*;

/// Runs the daemon until it is told to end; where something fails, it starts again.
pub(crate) async fn run(options: Options) -> Result<()> {
    if !nix::unistd::geteuid().is_root() {
        bail!("the skep daemon needs root: it makes namespaces and network rules (try sudo)");
    }
    crate::process::leave_no_core()?;
    log_to_stderr(&options.log)?;
    private_folder(&options.data, 0o700)?;
    // The API's socket is in here, for those who may use it.
    private_folder(&options.run, 0o711)?;
    let _only_one = lock(&options.data)?;
    NotedOptions::note(&options)?;
    raise_file_limit();
    // The API's TLS takes the process's provider; it is set once.
    if rustls::crypto::ring::default_provider().install_default().is_err() {
        tracing::debug!("a TLS provider was installed before");
    }
    restart::run_until_asked(async |scope| start(&options, scope).await, || tidy(&options)).await?;
    tracing::info!("skep ends; containers and their traffic go on");
    Ok(())
}

/// Starts everything that a node has.
async fn start(options: &Options, scope: &mut Scope) -> Result<()> {
    let listeners = serve::open(options).await?;
    let about = facts::observe(options)?;
    tracing::info!(hostname = about.hostname, version = about.version, "skep starts");
    let standalone = Standalone::start(options, scope).await?;
    let engine = standalone.engine.clone();
    let node = node::start(&options.data, about, standalone, scope).await?;
    let api = engine_api::router(Api { engine, node: Arc::new(node) });
    serve::start(listeners, &api, scope);
    if let (Some(path), Some(socket)) = (&options.docker_socket, options.unix_socket()) {
        docker_socket::link(path, &socket);
    }
    ready::notify().context("cannot tell the service manager that skep is ready")
}

/// Takes away what nobody needs while the daemon is away.
fn tidy(options: &Options) {
    // While containers go on, so does the cgroup above theirs.
    if let Err(error) = cgroup::remove_unused(&options.cgroup_parent) {
        tracing::warn!(%error, "a cgroup is left");
    }
    if let (Some(path), Some(socket)) = (&options.docker_socket, options.unix_socket())
        && let Err(error) = docker_socket::remove(path, &socket)
    {
        tracing::warn!(error = format!("{error:#}"), "the link to the API's socket is left");
    }
}

/// What a node runs whether it is in a cluster or not.
#[derive(Clone)]
pub(crate) struct Standalone {
    pub(crate) dataplane: dataplane::Dataplane,
    pub(crate) engine: engine::Engine,
}

impl Standalone {
    async fn start(options: &Options, scope: &mut Scope) -> Result<Self> {
        let kernel = linux::Kernel::new(kernel_config(&options.run, options.gateway_subnet))
            .context("cannot use the kernel's network: `skep check` says what is missing")?;
        let config = dataplane::Config {
            dir: options.data.join("dataplane"),
            netns_dir: options.run.join("netns"),
            gateway_subnet: options.gateway_subnet,
        };
        let names = resolver::names(options, scope);
        let dataplane = dataplane::start(config, kernel, linux::Namespaces, names, scope)
            .await
            .context("cannot start the data plane")?;
        let runtime = Self::runtime(options, scope).await?;
        let config = engine::Config {
            data: options.data.join("engine"),
            run: options.run.join("containers"),
            cgroup_parent: options.cgroup_parent.clone(),
            network: options.netns.clone(),
            cdi: options.cdi_spec_dirs.clone(),
            resolv_conf: options.resolv_conf.clone(),
            init: linux::init(),
            plugin_folders: options.plugin_folders.clone(),
            mount_helper: Some("/proc/self/exe".into()),
            apparmor: apparmor().await?,
            log: options.log_config()?,
            journal: options.journal_socket.clone(),
        };
        let engine = engine::start(config, Arc::new(runtime), dataplane.clone(), scope)
            .await
            .context("cannot start the engine")?;
        Ok(Self { dataplane, engine })
    }

    /// Connects to the containerd that was named, or to our own.
    async fn runtime(options: &Options, scope: &mut Scope) -> Result<containerd::Containerd> {
        let (socket, runc_root) = if let Some(socket) = &options.containerd {
            (socket.clone(), options.runc_root.clone())
        } else {
            let directories = own_containerd(&options.data, &options.run);
            let runc_root = directories.runc_root();
            let owned = containerd::OwnContainerd::start(directories, containerd::Patience::USUAL)
                .await
                .context("cannot start containerd")?;
            let socket = owned.socket();
            scope.spawn("containerd", owned.keep(scope.token()));
            (socket, Some(runc_root))
        };
        let mirrors = options.mirrors.iter().map(|url| containerd::Mirror::parse(url));
        let config = containerd::Config {
            socket: socket.clone(),
            namespace: options.containerd_namespace.clone(),
            data: options.data.join("spool"),
            oci_runtime: None,
            runc_root,
            mirrors: mirrors.collect::<Result<_, _>>()?,
            patience: containerd::Patience::USUAL,
        };
        containerd::Containerd::connect(config)
            .await
            .with_context(|| format!("cannot use the containerd at {}", socket.display()))
    }
}

/// Where a node's own containerd is.
pub(crate) fn own_containerd(data: &Path, run: &Path) -> containerd::Directories {
    containerd::Directories {
        root: data.join("containerd"),
        state: run.join("containerd"),
        program: None,
    }
}

/// Says whether the node that has this data is in a cluster.
pub(crate) fn is_member(data: &Path) -> bool {
    matches!(state::Files::new(data).load(), Ok(Some(_)))
}

/// Where the kernel's things of a node are.
pub(crate) fn kernel_config(run: &Path, gateway_subnet: ipnet::Ipv4Net) -> linux::Config {
    linux::Config {
        bridge: "skep_gwbridge".to_owned(),
        gateway_subnet,
        overlays: run.join("overlays"),
    }
}

fn log_to_stderr(level: &str) -> Result<()> {
    let levels: Targets = level
        .parse()
        .with_context(|| format!("invalid log level '{level}': use error, warn, info or debug"))?;
    tracing_subscriber::fmt()
        .with_max_level(Level::TRACE)
        .with_writer(std::io::stderr)
        .with_ansi(false)
        .finish()
        .with(levels)
        .init();
    Ok(())
}

/// Makes a folder with this mode, or gives it to the one that is there: volumes hold what
/// containers' root users write, and nobody else may come near.
fn private_folder(path: &Path, mode: u32) -> Result<()> {
    DirBuilder::new()
        .recursive(true)
        .mode(mode)
        .create(path)
        .and_then(|()| std::fs::set_permissions(path, Permissions::from_mode(mode)))
        .with_context(|| format!("cannot make {}", path.display()))
}

/// The AppArmor profile of containers, loaded. One that cannot be loaded is no reason to leave
/// containers unconfined.
async fn apparmor() -> Result<Option<String>> {
    let loaded = tokio::task::spawn_blocking(linux::load_apparmor).await?;
    Ok(loaded.context("cannot confine containers with AppArmor")?.map(str::to_owned))
}

/// Allows as many open files as root may have: each container takes a few.
fn raise_file_limit() {
    let raised = getrlimit(Resource::RLIMIT_NOFILE)
        .and_then(|(_, hard)| setrlimit(Resource::RLIMIT_NOFILE, hard, hard));
    if let Err(error) = raised {
        tracing::warn!(%error, "cannot raise the limit of open files");
    }
}

/// Keeps a second daemon away from the same data. The kernel frees the lock with the last thread
/// of the daemon, however it ends.
///
/// # Errors
/// While another daemon has it.
pub(crate) fn lock(data: &Path) -> Result<Flock<File>> {
    let path = data.join("lock");
    let file = File::create(&path).with_context(|| format!("cannot write {}", path.display()))?;
    Flock::lock(file, FlockArg::LockExclusiveNonblock)
        .map_err(|(_, _)| anyhow::anyhow!("another daemon uses {}: stop it first", data.display()))
}
