//! Containers: lists and inspections out.

use super::container_spec::{HealthJson, MountJson, render_ulimit};
use super::memory::memory_swap;
use super::privileges::render_options;
use engine::{ContainerConfig, ContainerInfo, HostPort, NetworkMode, Reference, Status};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use types::{HostEntry, MountKind, Timestamp};

/// Bytes of /dev/shm where nothing is said.
const SHM_SIZE: u64 = 64 << 20;

/// The command line as `docker ps` shows it.
fn command(info: &ContainerInfo) -> String {
    info.args.join(" ")
}

/// Ports as `docker ps` shows them.
fn ports(info: &ContainerInfo) -> Vec<Value> {
    let port = |port: &HostPort| {
        json!({
            "IP": "0.0.0.0",
            "PrivatePort": port.target,
            "PublicPort": port.published,
            "Type": port.protocol.as_str(),
        })
    };
    info.config.host_ports.iter().map(port).collect()
}

/// The state in words, e.g. `Up 3 minutes (healthy)`.
fn status(info: &ContainerInfo, now: Timestamp) -> String {
    let state = &info.state;
    match state.status {
        Status::Created => "Created".to_owned(),
        Status::Running => {
            let health = state.health.as_ref().map(|health| match health.status.as_str() {
                "starting" => " (health: starting)".to_owned(),
                word => format!(" ({word})"),
            });
            format!("Up {}{}", ago(now.since(state.started_at)), health.unwrap_or_default())
        }
        Status::Exited => {
            format!("Exited ({}) {} ago", state.exit_code, ago(now.since(state.finished_at)))
        }
        Status::Removing => "Removal In Progress".to_owned(),
    }
}

/// A duration in Docker's words.
fn ago(duration: std::time::Duration) -> String {
    let seconds = duration.as_secs();
    let (minutes, hours) = (seconds / 60, (seconds + 1800) / 3600);
    match seconds {
        0 => "Less than a second".to_owned(),
        1 => "1 second".to_owned(),
        2..60 => format!("{seconds} seconds"),
        60..120 => "About a minute".to_owned(),
        120..3600 => format!("{minutes} minutes"),
        3600..5400 => "About an hour".to_owned(),
        _ if hours < 48 => format!("{hours} hours"),
        _ if hours < 24 * 14 => format!("{} days", hours / 24),
        _ if hours < 24 * 60 => format!("{} weeks", hours / 24 / 7),
        _ if hours < 24 * 365 * 2 => format!("{} months", hours / 24 / 30),
        _ => format!("{} years", hours / 24 / 365),
    }
}

fn mounts(info: &ContainerInfo) -> Vec<Value> {
    info.mounts
        .iter()
        .map(|point| {
            let mount = &point.mount;
            let kind = match mount.kind {
                MountKind::Bind => "bind",
                MountKind::Volume => "volume",
                MountKind::Tmpfs => "tmpfs",
            };
            let volume = mount.kind == MountKind::Volume;
            json!({
                "Type": kind,
                "Name": if volume { mount.source.as_str() } else { "" },
                "Driver": if volume { "local" } else { "" },
                "Source": point.source,
                "Destination": mount.target,
                "Mode": "",
                "RW": !mount.read_only,
                "Propagation": "",
            })
        })
        .collect()
}

/// The network of a container.
pub(crate) fn network_name(network: &NetworkMode) -> &'static str {
    match network {
        NetworkMode::Bridge | NetworkMode::Attached => "bridge",
        NetworkMode::Host => "host",
        NetworkMode::None => "none",
    }
}

fn networks(info: &ContainerInfo) -> Value {
    let name = network_name(&info.config.network);
    let address = info.address.map(|address| address.to_string()).unwrap_or_default();
    json!({ name: { "IPAddress": address, "NetworkID": "", "EndpointID": "", "Gateway": "",
                    "IPPrefixLen": 0, "MacAddress": "", "Aliases": null } })
}

/// Renders an item of `GET /containers/json`.
pub(crate) fn render_item(info: &ContainerInfo, now: Timestamp) -> Value {
    json!({
        "Id": info.id,
        "Names": [format!("/{}", info.name)],
        "Image": Reference::shorten(&info.config.spec.image),
        "ImageID": info.image,
        "Command": command(info),
        "Created": info.created.0 / 1_000_000_000,
        "Ports": ports(info),
        "Labels": info.config.spec.labels,
        "State": info.state.status.as_str(),
        "Status": status(info, now),
        "HostConfig": { "NetworkMode": network_name(&info.config.network) },
        "NetworkSettings": { "Networks": networks(info) },
        "Mounts": mounts(info),
    })
}

/// A time, or Go's zero time for never.
fn time(time: Timestamp) -> String {
    if time.0 == 0 { "0001-01-01T00:00:00Z".to_owned() } else { time.rfc3339() }
}

/// Renders `State` of an inspection.
fn state(info: &ContainerInfo) -> Value {
    let state = &info.state;
    let mut object = json!({
        "Status": state.status.as_str(),
        "Running": state.status == Status::Running,
        "Paused": false,
        "Restarting": false,
        "OOMKilled": state.oom_killed,
        "Dead": false,
        "Pid": state.pid,
        "ExitCode": state.exit_code,
        "Error": state.error,
        "StartedAt": time(state.started_at),
        "FinishedAt": time(state.finished_at),
    });
    if let Some(health) = &state.health {
        let log: Vec<Value> = health
            .log
            .iter()
            .map(|probe| {
                json!({
                    "Start": probe.start.rfc3339(),
                    "End": probe.end.rfc3339(),
                    "ExitCode": probe.exit_code,
                    "Output": probe.output,
                })
            })
            .collect();
        object["Health"] = json!({
            "Status": health.status.as_str(),
            "FailingStreak": health.failing_streak,
            "Log": log,
        });
    }
    object
}

fn log_driver(config: &ContainerConfig) -> &str {
    match config.log.driver.as_str() {
        "" => "json-file",
        driver => driver,
    }
}

/// Published ports by the container's own: `{"80/tcp": [{"HostIp": …, "HostPort": …}]}`.
fn bindings(config: &ContainerConfig) -> BTreeMap<String, Vec<Value>> {
    let mut bindings: BTreeMap<String, Vec<Value>> = BTreeMap::new();
    for port in &config.host_ports {
        let key = format!("{}/{}", port.target, port.protocol.as_str());
        let binding = json!({ "HostIp": "0.0.0.0", "HostPort": port.published.to_string() });
        bindings.entry(key).or_default().push(binding);
    }
    bindings
}

/// Renders `HostConfig`: a container that is made from it is the same.
fn host_config(config: &ContainerConfig) -> Value {
    let (spec, resources) = (&config.spec, &config.resources);
    let mounts: Vec<_> = spec.mounts.iter().map(MountJson::render).collect();
    let names = |host: &HostEntry| {
        let line = |name: &String| format!("{name}:{}", host.address);
        host.names.iter().map(line).collect::<Vec<_>>()
    };
    let ulimits: Vec<_> = spec.ulimits.iter().map(render_ulimit).collect();
    let shm_size = if config.shm_size == 0 { SHM_SIZE } else { config.shm_size };
    json!({
        "Binds": null,
        "Mounts": mounts,
        "NetworkMode": network_name(&config.network),
        "PortBindings": bindings(config),
        "RestartPolicy": { "Name": "no", "MaximumRetryCount": 0 },
        "AutoRemove": config.auto_remove,
        "LogConfig": { "Type": log_driver(config), "Config": config.log.options },
        "Memory": resources.limit_memory,
        "MemoryReservation": resources.reserve_memory,
        "MemorySwap": memory_swap(resources.limit_memory, resources.swap),
        "MemorySwappiness": resources.swappiness,
        "NanoCpus": resources.limit_nano_cpus,
        "PidsLimit": Some(resources.limit_pids).filter(|limit| *limit != 0),
        "OomScoreAdj": spec.oom_score_adj,
        "ShmSize": shm_size,
        "Ulimits": ulimits,
        "Sysctls": spec.sysctls,
        "SecurityOpt": render_options(&spec.security),
        "CapAdd": spec.cap_add,
        "CapDrop": spec.cap_drop,
        "Privileged": false,
        "ReadonlyRootfs": spec.read_only,
        "MaskedPaths": config.masked_paths,
        "ReadonlyPaths": config.readonly_paths,
        "Init": spec.init,
        "GroupAdd": spec.groups,
        "ExtraHosts": spec.hosts.iter().flat_map(names).collect::<Vec<_>>(),
        "Dns": spec.dns.nameservers,
        "DnsOptions": spec.dns.options,
        "DnsSearch": spec.dns.search,
        "IpcMode": "private",
        "CgroupnsMode": "private",
        "Runtime": "runc",
    })
}

/// Renders `GET /containers/{id}/json`.
pub(crate) fn render(info: &ContainerInfo) -> Value {
    let spec = &info.config.spec;
    let (path, args) =
        info.args.split_first().map_or(("", &[][..]), |(path, args)| (path.as_str(), args));
    let exposed: BTreeMap<String, Value> = info
        .config
        .host_ports
        .iter()
        .map(|port| (format!("{}/{}", port.target, port.protocol.as_str()), json!({})))
        .collect();
    json!({
        "Id": info.id,
        "Created": info.created.rfc3339(),
        "Path": path,
        "Args": args,
        "State": state(info),
        "Image": info.image,
        "ResolvConfPath": "", "HostnamePath": "", "HostsPath": "",
        "LogPath": info.log_path,
        "Name": format!("/{}", info.name),
        "RestartCount": info.state.starts.saturating_sub(1),
        "Driver": "overlayfs",
        "Platform": "linux",
        "MountLabel": "", "ProcessLabel": "", "AppArmorProfile": "",
        "ExecIDs": null,
        "HostConfig": host_config(&info.config),
        "Mounts": mounts(info),
        "Config": {
            "Hostname": info.hostname,
            "Domainname": "",
            "User": info.user,
            "AttachStdin": false, "AttachStdout": true, "AttachStderr": true,
            "ExposedPorts": exposed,
            "Tty": spec.tty,
            "OpenStdin": spec.open_stdin,
            "StdinOnce": info.config.stdin_once,
            "Env": info.env,
            "Cmd": spec.args,
            "Image": Reference::shorten(&spec.image),
            "Volumes": null,
            "WorkingDir": info.dir,
            "Entrypoint": if spec.command.is_empty() { Value::Null } else { json!(spec.command) },
            "Labels": spec.labels,
            "StopSignal": info.stop_signal,
            "StopTimeout": spec.stop_grace_period.map(|grace| grace.as_secs()),
            "Healthcheck": spec.health.as_ref().map(HealthJson::render),
        },
        "NetworkSettings": {
            "SandboxKey": info.netns,
            "Ports": bindings(&info.config),
            "IPAddress": info.address.map(|address| address.to_string()).unwrap_or_default(),
            "Networks": networks(info),
        },
    })
}

#[cfg(test)]
mod tests {
    use super::super::container_create::CreateJson;
    use super::*;

    #[test]
    fn a_container_that_is_made_from_what_is_shown_of_another_is_the_same() {
        let parse = |text: &str| {
            let read = crate::request::read::<CreateJson>(text.as_bytes()).unwrap();
            assert!(read.warnings.is_empty(), "{:?}", read.warnings);
            read.value.parse(String::new()).unwrap()
        };
        let full = include_str!("../request/coverage/container.json");
        let mut document: Value = serde_json::from_str(full).unwrap();
        let config = parse(full);
        document["HostConfig"] = host_config(&config);
        assert_eq!(parse(&document.to_string()), config);
        let plain = parse("{}");
        let shown = json!({ "HostConfig": host_config(&plain) });
        let config = ContainerConfig { shm_size: SHM_SIZE, ..plain };
        let log = engine::LogConfig { driver: "json-file".into(), ..config.log };
        assert_eq!(parse(&shown.to_string()), ContainerConfig { log, ..config });
    }

    #[test]
    fn durations_are_told_as_docker_does() {
        let secs = std::time::Duration::from_secs;
        for (seconds, text) in [
            (0, "Less than a second"),
            (59, "59 seconds"),
            (90, "About a minute"),
            (600, "10 minutes"),
            (4000, "About an hour"),
            (7200, "2 hours"),
            (200_000, "2 days"),
        ] {
            assert_eq!(ago(secs(seconds)), text);
        }
    }
}
