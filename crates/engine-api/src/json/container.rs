//! Plain containers: `POST /containers/create` in, lists and inspections out.

use super::container_spec::{HealthJson, MountJson, UlimitJson};
use super::{duration, nullable};
use engine::{ContainerConfig, ContainerInfo, HostPort, LogConfig, NetworkMode, Reference, Status};
use serde::Deserialize;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use types::{
    ContainerSpec, DnsConfig, Fault, HostEntry, Labels, MountKind, Protocol, Resources, Timestamp,
    Ulimit,
};

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct CreateJson {
    #[serde(deserialize_with = "nullable")]
    hostname: String,
    #[serde(deserialize_with = "nullable")]
    user: String,
    tty: bool,
    open_stdin: bool,
    stdin_once: bool,
    #[serde(deserialize_with = "nullable")]
    env: Vec<String>,
    #[serde(deserialize_with = "nullable")]
    cmd: Vec<String>,
    #[serde(deserialize_with = "nullable")]
    entrypoint: Vec<String>,
    image: String,
    #[serde(deserialize_with = "nullable")]
    working_dir: String,
    #[serde(deserialize_with = "nullable")]
    labels: Labels,
    #[serde(deserialize_with = "nullable")]
    stop_signal: String,
    stop_timeout: Option<i64>,
    healthcheck: Option<HealthJson>,
    #[serde(deserialize_with = "nullable")]
    host_config: HostConfigJson,
    #[serde(deserialize_with = "nullable")]
    networking_config: NetworkingJson,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct NetworkingJson {
    #[serde(deserialize_with = "nullable")]
    endpoints_config: BTreeMap<String, Value>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
#[expect(clippy::struct_excessive_bools, reason = "Docker's JSON has them")]
struct HostConfigJson {
    #[serde(deserialize_with = "nullable")]
    binds: Vec<String>,
    #[serde(deserialize_with = "nullable")]
    mounts: Vec<MountJson>,
    #[serde(deserialize_with = "nullable")]
    tmpfs: Labels,
    #[serde(deserialize_with = "nullable")]
    network_mode: String,
    #[serde(deserialize_with = "nullable")]
    port_bindings: BTreeMap<String, Option<Vec<BindingJson>>>,
    publish_all_ports: bool,
    #[serde(deserialize_with = "nullable")]
    restart_policy: RestartJson,
    auto_remove: bool,
    privileged: bool,
    readonly_rootfs: bool,
    init: Option<bool>,
    #[serde(deserialize_with = "nullable")]
    cap_add: Vec<String>,
    #[serde(deserialize_with = "nullable")]
    cap_drop: Vec<String>,
    #[serde(deserialize_with = "nullable")]
    dns: Vec<std::net::IpAddr>,
    #[serde(deserialize_with = "nullable")]
    dns_options: Vec<String>,
    #[serde(deserialize_with = "nullable")]
    dns_search: Vec<String>,
    #[serde(deserialize_with = "nullable")]
    extra_hosts: Vec<String>,
    #[serde(deserialize_with = "nullable")]
    group_add: Vec<String>,
    #[serde(deserialize_with = "nullable")]
    sysctls: Labels,
    #[serde(deserialize_with = "nullable")]
    ulimits: Vec<UlimitJson>,
    #[serde(deserialize_with = "nullable")]
    log_config: LogJson,
    memory: i64,
    nano_cpus: i64,
    pids_limit: Option<i64>,
    shm_size: i64,
    oom_score_adj: i64,
    #[serde(deserialize_with = "nullable")]
    devices: Vec<Value>,
    #[serde(deserialize_with = "nullable")]
    pid_mode: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct BindingJson {
    host_ip: String,
    host_port: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct RestartJson {
    name: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct LogJson {
    #[serde(rename = "Type")]
    kind: String,
    #[serde(deserialize_with = "nullable")]
    config: Labels,
}

impl CreateJson {
    /// The paths on this machine that `-v` binds.
    pub(crate) fn bind_sources(&self) -> Vec<String> {
        let source = |bind: &String| bind.split(':').next().unwrap_or_default().to_owned();
        self.host_config.binds.iter().map(source).filter(|path| path.starts_with('/')).collect()
    }

    /// Reads a container; refuses what Skep does not have.
    pub(crate) fn parse(self, name: String) -> Result<ContainerConfig, Fault> {
        let host = &self.host_config;
        host.refuse()?;
        let network = network_mode(host, &self.networking_config)?;
        let mut mounts =
            host.binds.iter().map(|bind| parse_bind(bind)).collect::<Result<Vec<_>, _>>()?;
        mounts.extend(host.tmpfs.keys().map(|target| types::Mount {
            kind: MountKind::Tmpfs,
            target: target.clone(),
            ..types::Mount::default()
        }));
        let hosts =
            host.extra_hosts.iter().map(|entry| extra_host(entry)).collect::<Result<_, _>>()?;
        let host_ports = host_ports(&host.port_bindings)?;
        let host = self.host_config;
        for mount in host.mounts {
            mounts.push(mount.parse()?);
        }
        let limit =
            |limit: UlimitJson| Ulimit { name: limit.name, soft: limit.soft, hard: limit.hard };
        let spec = ContainerSpec {
            image: self.image,
            labels: self.labels,
            command: self.entrypoint,
            args: self.cmd,
            hostname: self.hostname,
            env: self.env,
            dir: self.working_dir,
            user: self.user,
            groups: host.group_add,
            tty: self.tty,
            open_stdin: self.open_stdin,
            read_only: host.readonly_rootfs,
            init: host.init,
            stop_signal: self.stop_signal,
            stop_grace_period: self
                .stop_timeout
                .map(|secs| duration(secs.saturating_mul(1_000_000_000))),
            health: self.healthcheck.map(HealthJson::parse),
            hosts,
            dns: DnsConfig {
                nameservers: host.dns,
                search: host.dns_search,
                options: host.dns_options,
            },
            mounts,
            cap_add: host.cap_add,
            cap_drop: host.cap_drop,
            sysctls: host.sysctls,
            ulimits: host.ulimits.into_iter().map(limit).collect(),
            oom_score_adj: host.oom_score_adj,
            pull_credentials: None,
        };
        Ok(ContainerConfig {
            id: String::new(),
            name,
            spec,
            resources: Resources {
                limit_nano_cpus: host.nano_cpus,
                limit_memory: host.memory,
                limit_pids: host.pids_limit.unwrap_or(0).max(0),
                ..Resources::default()
            },
            network,
            host_ports,
            log: LogConfig { driver: host.log_config.kind, options: host.log_config.config },
            auto_remove: host.auto_remove,
            stdin_once: self.stdin_once,
            shm_size: u64::try_from(host.shm_size).unwrap_or(0),
        })
    }
}

impl HostConfigJson {
    /// Refuses what would otherwise be forgotten in silence.
    fn refuse(&self) -> Result<(), Fault> {
        for (wanted, feature) in [
            (self.privileged, "a privileged container"),
            (!self.devices.is_empty(), "a container with devices"),
            (self.publish_all_ports, "publishing all ports"),
            (!self.pid_mode.is_empty(), "a container in another's PID namespace"),
            (
                !matches!(self.restart_policy.name.as_str(), "" | "no"),
                "restarting a plain container (use a service)",
            ),
        ] {
            if wanted {
                return Err(Fault::not_implemented(feature));
            }
        }
        Ok(())
    }
}

fn network_mode(host: &HostConfigJson, networking: &NetworkingJson) -> Result<NetworkMode, Fault> {
    let named = networking.endpoints_config.keys().next().map_or("", String::as_str);
    let mode = if host.network_mode.is_empty() { named } else { &host.network_mode };
    match mode {
        "" | "default" | "bridge" => Ok(NetworkMode::Bridge),
        "host" => Ok(NetworkMode::Host),
        "none" => Ok(NetworkMode::None),
        other => Err(Fault::not_implemented(&format!("a plain container on the network {other}"))),
    }
}

/// Reads `SOURCE:TARGET[:OPTIONS]`.
fn parse_bind(bind: &str) -> Result<types::Mount, Fault> {
    let wrong = || Fault::invalid(format!("invalid volume specification: '{bind}'"));
    let mut parts = bind.split(':');
    let (source, target) = (parts.next().unwrap_or_default(), parts.next().ok_or_else(wrong)?);
    if !target.starts_with('/') {
        return Err(wrong());
    }
    let options = parts.next().unwrap_or_default();
    Ok(types::Mount {
        kind: if source.starts_with('/') { MountKind::Bind } else { MountKind::Volume },
        source: source.to_owned(),
        target: target.to_owned(),
        read_only: options.split(',').any(|option| option == "ro"),
        ..types::Mount::default()
    })
}

/// Reads `NAME:IP`.
fn extra_host(entry: &str) -> Result<HostEntry, Fault> {
    let wrong = || Fault::invalid(format!("bad format for add-host: \"{entry}\""));
    let (name, address) = entry.split_once(':').ok_or_else(wrong)?;
    let address = address.parse().map_err(|_invalid| wrong())?;
    Ok(HostEntry { address, names: vec![name.to_owned()] })
}

fn host_ports(
    bindings: &BTreeMap<String, Option<Vec<BindingJson>>>,
) -> Result<Vec<HostPort>, Fault> {
    let mut ports = Vec::new();
    for (target, bindings) in bindings {
        let wrong = || Fault::invalid(format!("invalid port specification: \"{target}\""));
        let (number, protocol) = target.split_once('/').unwrap_or((target, "tcp"));
        let target: u16 = number.parse().map_err(|_invalid| wrong())?;
        let protocol = match protocol {
            "tcp" => Protocol::Tcp,
            "udp" => Protocol::Udp,
            other => return Err(Fault::not_implemented(&format!("publishing {other} ports"))),
        };
        for binding in bindings.iter().flatten() {
            if !matches!(binding.host_ip.as_str(), "" | "0.0.0.0" | "::") {
                return Err(Fault::not_implemented("publishing a port on one address"));
            }
            let published = match binding.host_port.as_str() {
                "" => 0,
                number => number.parse().map_err(|_invalid| wrong())?,
            };
            ports.push(HostPort { protocol, published, target });
        }
    }
    Ok(ports)
}

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
            json!({
                "Type": kind,
                "Name": if mount.kind == MountKind::Volume { mount.source.as_str() } else { "" },
                "Source": point.source,
                "Destination": mount.target,
                "Mode": "",
                "RW": !mount.read_only,
                "Propagation": "",
            })
        })
        .collect()
}

fn networks(info: &ContainerInfo) -> Value {
    let name = match info.config.network {
        NetworkMode::Bridge | NetworkMode::Attached => "bridge",
        NetworkMode::Host => "host",
        NetworkMode::None => "none",
    };
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
        "HostConfig": { "NetworkMode": "default" },
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
    let bindings: BTreeMap<String, Value> = info
        .config
        .host_ports
        .iter()
        .map(|port| {
            let key = format!("{}/{}", port.target, port.protocol.as_str());
            (key, json!([{ "HostIp": "0.0.0.0", "HostPort": port.published.to_string() }]))
        })
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
        "HostConfig": {
            "NetworkMode": "default",
            "PortBindings": bindings,
            "RestartPolicy": { "Name": "no", "MaximumRetryCount": 0 },
            "AutoRemove": info.config.auto_remove,
            "LogConfig": { "Type": "json-file", "Config": info.config.log.options },
            "Memory": info.config.resources.limit_memory,
            "NanoCpus": info.config.resources.limit_nano_cpus,
            "CapAdd": spec.cap_add, "CapDrop": spec.cap_drop,
            "ReadonlyRootfs": spec.read_only,
        },
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
        },
        "NetworkSettings": {
            "SandboxKey": info.netns,
            "Ports": bindings,
            "IPAddress": info.address.map(|address| address.to_string()).unwrap_or_default(),
            "Networks": networks(info),
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<ContainerConfig, Fault> {
        serde_json::from_str::<CreateJson>(text).unwrap().parse("c".into())
    }

    #[test]
    fn a_container_is_read() {
        let config = parse(
            r#"{"Image":"busybox","Cmd":["sh"],"HostConfig":{"Binds":["/a:/b:ro","data:/d"],
                "PortBindings":{"80/tcp":[{"HostPort":"8080"}]},"AutoRemove":true}}"#,
        )
        .unwrap();
        assert_eq!(config.spec.args, ["sh"]);
        assert!(config.spec.mounts[0].read_only && config.auto_remove);
        assert_eq!(config.spec.mounts[1].kind, MountKind::Volume);
        assert_eq!((config.host_ports[0].published, config.host_ports[0].target), (8080, 80));
    }

    #[test]
    fn what_skep_does_not_have_is_refused_by_name() {
        for (text, word) in [
            (r#"{"HostConfig":{"Privileged":true}}"#, "privileged"),
            (r#"{"HostConfig":{"RestartPolicy":{"Name":"always"}}}"#, "restarting"),
            (r#"{"HostConfig":{"NetworkMode":"mynet"}}"#, "mynet"),
        ] {
            let fault = parse(text).unwrap_err();
            assert!(fault.message.contains(word), "{fault}");
        }
        assert!(parse(r#"{"HostConfig":{"Binds":["/a"]}}"#).is_err());
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
