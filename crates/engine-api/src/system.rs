//! `/_ping`, `/version`, `/info`, `/events`: what this daemon is and what happens on it.

use crate::error::ApiError;
use crate::json;
use crate::port::{About, LOCKED, Membership};
use crate::{
    Api,
    version::{NEWEST, OLDEST},
};
use axum::extract::State;
use axum::response::IntoResponse;
use axum::routing::get;
use axum::{Json, Router};
use engine::ContainerInfo;
use serde_json::{Value, json};
use std::path::PathBuf;
use std::sync::Arc;
use types::Plugin;

pub(crate) fn routes() -> Router<Api> {
    Router::new()
        .route("/_ping", get(ping).head(ping))
        .route("/version", get(version))
        .route("/info", get(info))
}

async fn ping(State(api): State<Api>) -> impl IntoResponse {
    let swarm = match api.node.membership() {
        Membership::Inactive => "inactive",
        Membership::Pending { .. } => "pending",
        Membership::Locked => "locked",
        Membership::Active(member) if member.manager.is_some() => "active/manager",
        Membership::Active(_) => "active/worker",
    };
    ([("Swarm", swarm), ("Cache-Control", "no-cache, no-store, must-revalidate")], "OK")
}

async fn version(State(api): State<Api>) -> Json<Value> {
    Json(render_version(api.node.about()))
}

pub(crate) fn render_version(about: &About) -> Value {
    let details = json!({
        "ApiVersion": NEWEST,
        "Arch": go_arch(&about.architecture),
        "Experimental": "false",
        "KernelVersion": about.kernel,
        "MinAPIVersion": OLDEST,
        "Os": "linux",
    });
    json!({
        "Platform": { "Name": "Skep" },
        "Components": [{ "Name": "Engine", "Version": about.version, "Details": details }],
        "Version": about.version,
        "ApiVersion": NEWEST,
        "MinAPIVersion": OLDEST,
        "GitCommit": "",
        "GoVersion": "",
        "Os": "linux",
        "Arch": go_arch(&about.architecture),
        "KernelVersion": about.kernel,
    })
}

/// Go's word for an architecture.
pub(crate) fn go_arch(architecture: &str) -> &str {
    match architecture {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

/// All of [`engine::LOG_DRIVERS`] but `none`, as Docker shows them.
const LOG_PLUGINS: [&str; 6] = ["fluentd", "gelf", "journald", "json-file", "local", "syslog"];
const NETWORK_PLUGINS: [&str; 4] = ["bridge", "host", "null", "overlay"];
const VOLUME_PLUGINS: [&str; 1] = ["local"];

/// What of Docker's plugins a node has, as it tells managers: in order of kind and name.
pub fn plugins() -> Vec<Plugin> {
    let all: [(&str, &[&str]); 3] =
        [("Log", &LOG_PLUGINS), ("Network", &NETWORK_PLUGINS), ("Volume", &VOLUME_PLUGINS)];
    let plugin = |kind: &str, name: &str| Plugin { kind: kind.into(), name: name.into() };
    all.into_iter()
        .flat_map(|(kind, names)| names.iter().map(move |name| plugin(kind, name)))
        .collect()
}

async fn info(State(api): State<Api>) -> Result<Json<Value>, ApiError> {
    let containers = api.engine.list(true).await;
    let is_running = |it: &&ContainerInfo| it.state.status == engine::Status::Running;
    let counts = Counts {
        containers: containers.len(),
        running: containers.iter().filter(is_running).count(),
        images: api.engine.images().await?.len(),
    };
    let machine = Machine {
        limits_swap: api.engine.limits_swap(),
        security_options: api.engine.security_options(),
        log_driver: api.engine.log_driver().to_owned(),
        cdi: api.engine.cdi_folders().to_vec(),
    };
    let mut object = render_info(api.node.about(), &counts, &machine);
    let drivers = api.engine.volume_drivers().borrow().clone();
    let own = VOLUME_PLUGINS.map(str::to_owned).into_iter();
    object["Plugins"]["Volume"] = own.chain(drivers).collect();
    object["Swarm"] = swarm(&api.node.membership());
    Ok(Json(object))
}

/// What this node has.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    containers: usize,
    running: usize,
    images: usize,
}

/// What this node's machine can do.
#[derive(Debug, Default)]
pub(crate) struct Machine {
    limits_swap: bool,
    security_options: Vec<&'static str>,
    cdi: Vec<PathBuf>,
    log_driver: String,
}

/// Docker Hub, as clients know it: where they send no other name, they log in there.
const DOCKER_HUB: &str = "https://index.docker.io/v1/";

/// Renders `GET /info` but for the cluster.
pub(crate) fn render_info(about: &About, counts: &Counts, machine: &Machine) -> Value {
    let Counts { containers, running, images } = *counts;
    json!({
        "ID": about.id,
        "Name": about.hostname,
        "Containers": containers,
        "ContainersRunning": running,
        "ContainersPaused": 0,
        "ContainersStopped": containers - running,
        "Images": images,
        "Driver": "overlayfs",
        "DriverStatus": [["driver-type", "io.containerd.snapshotter.v1"]],
        "DockerRootDir": about.data_dir,
        "Plugins": {
            "Volume": VOLUME_PLUGINS,
            "Network": NETWORK_PLUGINS,
            "Authorization": null,
            "Log": LOG_PLUGINS,
        },
        "MemoryLimit": true, "SwapLimit": machine.limits_swap, "CpuCfsPeriod": true, "CpuCfsQuota": true,
        "CPUShares": false, "CPUSet": false, "PidsLimit": true, "OomKillDisable": false,
        "IPv4Forwarding": true, "Debug": false, "ExperimentalBuild": false,
        "LiveRestoreEnabled": true,
        "LoggingDriver": machine.log_driver,
        "CgroupDriver": "cgroupfs",
        "CgroupVersion": about.cgroup_version,
        "NEventsListener": 0,
        "SystemTime": crate::local::now().rfc3339(),
        "KernelVersion": about.kernel,
        "OperatingSystem": about.operating_system,
        "OSVersion": about.operating_system_version,
        "OSType": "linux",
        "Architecture": about.architecture,
        "NCPU": about.cpus,
        "MemTotal": about.memory_bytes,
        "IndexServerAddress": DOCKER_HUB,
        "RegistryConfig": { "InsecureRegistryCIDRs": ["127.0.0.0/8", "::1/128"],
                            "IndexConfigs": { "docker.io": { "Name": "docker.io", "Mirrors": [],
                                              "Secure": true, "Official": true } },
                            "Mirrors": [] },
        "ServerVersion": about.version,
        "Runtimes": { "runc": { "path": "runc" } },
        "DefaultRuntime": "runc",
        "InitBinary": "docker-init",
        "ContainerdCommit": { "ID": "" }, "RuncCommit": { "ID": "" }, "InitCommit": { "ID": "" },
    "SecurityOptions": machine.security_options,
    "Labels": about.labels.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>(),
    "GenericResources": json::generic::render(&about.generic),
    "Isolation": "",
    "FirewallBackend": { "Driver": "nftables" },
    "CDISpecDirs": machine.cdi,
        "Warnings": null,
    })
}

/// The node's part in a cluster, as `docker info` shows it.
pub(crate) fn swarm(membership: &Membership) -> Value {
    let state = |word: &str, error: &str| {
        json!({
            "NodeID": "", "NodeAddr": "", "LocalNodeState": word, "ControlAvailable": false,
            "Error": error, "RemoteManagers": null,
        })
    };
    let member = match membership {
        Membership::Inactive => return state("inactive", ""),
        Membership::Pending { reason } => return state("pending", reason),
        Membership::Locked => return state("locked", LOCKED),
        Membership::Active(member) => member,
    };
    let mut object = state("active", &member.error);
    object["NodeID"] = json!(member.node);
    object["NodeAddr"] = json!(member.address);
    let view = member.manager.as_ref().map(manager::Manager::view);
    let manager_id = |address: &str| {
        let is_it = |node: &&Arc<types::Node>| {
            node.manager.as_ref().is_some_and(|it| it.address == address)
        };
        let found =
            view.as_ref().and_then(|view| view.nodes().find(is_it).map(|node| node.id.clone()));
        json!({ "NodeID": found.unwrap_or_default(), "Addr": address })
    };
    object["RemoteManagers"] = member.managers.iter().map(|address| manager_id(address)).collect();
    if let Some(view) = &view {
        object["ControlAvailable"] = true.into();
        object["Nodes"] = view.nodes().len().into();
        object["Managers"] = view.nodes().filter(|node| node.manager.is_some()).count().into();
        if let Some(cluster) = view.cluster() {
            object["Cluster"] = json::cluster::render_info(cluster);
        }
    }
    object
}
