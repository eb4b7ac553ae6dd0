//! Plain containers: `POST /containers/create` in.

use super::container_options::{BindingJson, exposed, extra_host, host_ports, parse_bind, tmpfs};
use super::container_spec::{HealthJson, MountJson, UlimitJson};
use super::memory;
use super::node_access::{self, CONTAINER, DeviceJson, RequestJson};
use super::privileges::security_options;
use super::{Words, grace};
use engine::{Asked, ContainerConfig, HostPort, LogConfig, NetworkMode};
use serde::Deserialize;
use serde_json::Value;
use std::collections::BTreeMap;
use std::mem::take;
use std::net::IpAddr;
use types::{ContainerSpec, DnsConfig, Fault, Labels, MountKind, NodeAccess, Resources, Ulimit};

/// In Go's nanoseconds.
const SECOND: i64 = 1_000_000_000;

#[derive(Debug, Default, Deserialize)]
#[serde(rename = "ContainerCreate", rename_all = "PascalCase", default)]
#[expect(clippy::struct_excessive_bools, reason = "Docker's object has them")]
pub(crate) struct CreateJson {
    hostname: String,
    user: String,
    attach_stdin: bool,
    attach_stdout: bool,
    attach_stderr: bool,
    exposed_ports: BTreeMap<String, Value>,
    tty: bool,
    open_stdin: bool,
    stdin_once: bool,
    env: Vec<String>,
    cmd: Words,
    entrypoint: Words,
    image: String,
    working_dir: String,
    labels: Labels,
    stop_signal: String,
    stop_timeout: Option<i64>,
    healthcheck: Option<HealthJson>,
    volumes: BTreeMap<String, Value>,
    host_config: HostConfigJson,
    networking_config: NetworkingJson,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename = "NetworkingConfig", rename_all = "PascalCase", default)]
struct NetworkingJson {
    #[expect(clippy::zero_sized_map_values, reason = "its fields are refused one by one")]
    endpoints_config: BTreeMap<String, EndpointJson>,
}

/// How a container is on a network: nothing of it can be chosen yet.
#[derive(Debug, Default, Deserialize)]
#[serde(rename = "EndpointSettings", default)]
struct EndpointJson {}

#[derive(Debug, Default, Deserialize)]
#[serde(rename = "HostConfig", rename_all = "PascalCase", default)]
struct HostConfigJson {
    binds: Vec<String>,
    mounts: Vec<MountJson>,
    tmpfs: Labels,
    volume_driver: String,
    network_mode: String,
    port_bindings: BTreeMap<String, Option<Vec<BindingJson>>>,
    restart_policy: RestartJson,
    auto_remove: bool,
    readonly_rootfs: bool,
    init: Option<bool>,
    cap_add: Vec<String>,
    cap_drop: Vec<String>,
    dns: Vec<IpAddr>,
    dns_options: Vec<String>,
    dns_search: Vec<String>,
    extra_hosts: Vec<String>,
    group_add: Vec<String>,
    sysctls: Labels,
    ulimits: Vec<UlimitJson>,
    security_opt: Vec<String>,
    log_config: LogJson,
    memory: i64,
    memory_reservation: i64,
    memory_swap: i64,
    memory_swappiness: Option<i64>,
    masked_paths: Option<Vec<String>>,
    readonly_paths: Option<Vec<String>>,
    nano_cpus: i64,
    pids_limit: Option<i64>,
    shm_size: i64,
    oom_score_adj: i64,
    privileged: bool,
    pid_mode: String,
    ipc_mode: String,
    #[serde(rename = "UTSMode")]
    uts_mode: String,
    cgroupns_mode: String,
    devices: Vec<DeviceJson>,
    device_cgroup_rules: Vec<String>,
    device_requests: Vec<RequestJson>,
    cgroup_parent: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename = "RestartPolicy", rename_all = "PascalCase", default)]
struct RestartJson {}

#[derive(Debug, Default, Deserialize)]
#[serde(rename = "LogConfig", rename_all = "PascalCase", default)]
struct LogJson {
    #[serde(rename = "Type")]
    kind: String,
    config: Labels,
}

impl CreateJson {
    /// The paths on this machine that `-v` binds.
    pub(crate) fn bind_sources(&self) -> Vec<String> {
        let source = |bind: &String| bind.split(':').next().unwrap_or_default().to_owned();
        self.host_config.binds.iter().map(source).filter(|path| path.starts_with('/')).collect()
    }

    /// Refuses what no container can have.
    fn check(&self) -> Result<(), Fault> {
        let host = &self.host_config;
        self.env.iter().try_for_each(|variable| check_variable(variable))?;
        memory::check(host.memory, host.memory_reservation)?;
        if host.shm_size < 0 {
            return Err(Fault::invalid("SHM size can not be less than 0"));
        }
        Ok(())
    }

    /// What is shown again as it was asked for.
    fn asked(&self, host_ports: &[HostPort]) -> Result<Asked, Fault> {
        let host = &self.host_config;
        let ports = self.exposed_ports.keys().map(|port| exposed(port));
        Ok(Asked {
            attach_stdin: self.attach_stdin,
            attach_stdout: self.attach_stdout,
            attach_stderr: self.attach_stderr,
            exposed_ports: ports.collect::<Result<_, _>>()?,
            binds: host.binds.clone(),
            tmpfs: host.tmpfs.clone(),
            volumes: self.volumes.keys().cloned().collect(),
            extra_hosts: host.extra_hosts.clone(),
            host_ports: host_ports.to_vec(),
        })
    }

    /// Reads a container; refuses what Skep does not have.
    /// `gateway` is this node's address as containers see it.
    pub(crate) fn parse(
        self,
        name: String,
        gateway: Option<IpAddr>,
    ) -> Result<ContainerConfig, Fault> {
        let host = &self.host_config;
        self.check()?;
        let RestartJson {} = host.restart_policy;
        let network = network_mode(host, &self.networking_config)?;
        let mut mounts = plain_mounts(host)?;
        let hosts = host.extra_hosts.iter().map(|entry| extra_host(entry, gateway));
        let hosts = hosts.collect::<Result<_, _>>()?;
        let host_ports = host_ports(&host.port_bindings)?;
        let asked = self.asked(&host_ports)?;
        let resources = resources(host)?;
        let mut host = self.host_config;
        let node = node_access(&mut host)?;
        let further = host.mounts.into_iter().map(MountJson::parse);
        mounts.extend(further.collect::<Result<Vec<_>, _>>()?);
        add_volumes(&mut mounts, &self.volumes, &host.volume_driver);
        let limit =
            |limit: UlimitJson| Ulimit { name: limit.name, soft: limit.soft, hard: limit.hard };
        let spec = ContainerSpec {
            image: self.image,
            labels: self.labels,
            command: self.entrypoint.0,
            args: self.cmd.0,
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
            stop_grace_period: self.stop_timeout.map(|secs| grace(secs.saturating_mul(SECOND))),
            health: self.healthcheck.map(HealthJson::parse).transpose()?,
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
            security: security_options(&host.security_opt)?,
            secrets: Vec::new(),
            configs: Vec::new(),
            pull_credentials: None,
        };
        Ok(ContainerConfig {
            id: String::new(),
            name,
            spec,
            resources,
            network,
            host_ports,
            log: LogConfig { driver: host.log_config.kind, options: host.log_config.config },
            masked_paths: host.masked_paths,
            readonly_paths: host.readonly_paths,
            auto_remove: host.auto_remove,
            stdin_once: self.stdin_once,
            shm_size: u64::try_from(host.shm_size).unwrap_or(0),
            node,
            is_tasks: false,
            asked,
        })
    }
}

/// What it asks for of the node's own.
fn node_access(host: &mut HostConfigJson) -> Result<NodeAccess, Fault> {
    let asked = node_access::Asked {
        privileged: host.privileged,
        pid: take(&mut host.pid_mode),
        ipc: take(&mut host.ipc_mode),
        uts: take(&mut host.uts_mode),
        cgroup: take(&mut host.cgroupns_mode),
        devices: take(&mut host.devices),
        device_rules: take(&mut host.device_cgroup_rules),
        device_requests: take(&mut host.device_requests),
        cgroup_parent: take(&mut host.cgroup_parent),
        network_of: host.network_mode.strip_prefix(CONTAINER).unwrap_or_default().to_owned(),
    };
    asked.parse()
}

fn resources(host: &HostConfigJson) -> Result<Resources, Fault> {
    Ok(Resources {
        limit_nano_cpus: host.nano_cpus,
        limit_memory: host.memory,
        limit_pids: host.pids_limit.unwrap_or(0).max(0),
        reserve_memory: host.memory_reservation,
        swap: memory::swap(host.memory, host.memory_swap)?,
        swappiness: memory::swappiness(host.memory_swappiness)?,
        ..Resources::default()
    })
}

/// A variable has a name, and nothing can have a zero byte in it.
fn check_variable(variable: &str) -> Result<(), Fault> {
    if variable.is_empty() || variable.starts_with('=') || variable.contains('\0') {
        return Err(Fault::invalid(format!("invalid environment variable: {variable:?}")));
    }
    Ok(())
}

/// Refuses more processors than there are, in Docker's words.
pub(crate) fn check_cpus(nano_cpus: i64, there: i64) -> Result<(), Fault> {
    if (0..=there.saturating_mul(1_000_000_000)).contains(&nano_cpus) {
        return Ok(());
    }
    Err(Fault::invalid(format!(
        "Range of CPUs is from 0.01 to {there}.00, as there are only {there} CPUs available"
    )))
}

fn network_mode(host: &HostConfigJson, networking: &NetworkingJson) -> Result<NetworkMode, Fault> {
    let read = |mode: &str| match mode {
        "" | "default" | "bridge" => Ok(NetworkMode::Bridge),
        "host" => Ok(NetworkMode::Host),
        "none" => Ok(NetworkMode::None),
        // That of another container is none of its own.
        other if other.strip_prefix(CONTAINER).is_some_and(|it| !it.is_empty()) => {
            Ok(NetworkMode::None)
        }
        other => Err(Fault::not_implemented(&format!("a plain container on the network {other}"))),
    };
    let named = networking.endpoints_config.keys().next().map_or("", String::as_str);
    let mode = read(if host.network_mode.is_empty() { named } else { &host.network_mode })?;
    for name in networking.endpoints_config.keys() {
        if read(name)? != mode {
            return Err(Fault::not_implemented("a plain container on more than one network"));
        }
    }
    Ok(mode)
}

/// What `-v` and `--tmpfs` mount; `--mount` comes on top.
fn plain_mounts(host: &HostConfigJson) -> Result<Vec<types::Mount>, Fault> {
    let mut mounts =
        host.binds.iter().map(|bind| parse_bind(bind)).collect::<Result<Vec<_>, _>>()?;
    for mount in mounts.iter_mut().filter(|mount| mount.kind == MountKind::Volume) {
        mount.volume_driver.clone_from(&host.volume_driver);
    }
    for (target, options) in &host.tmpfs {
        mounts.push(tmpfs(target, options)?);
    }
    Ok(mounts)
}

/// Adds a volume without a name wherever nothing is mounted yet: clients also name the targets of
/// their binds.
fn add_volumes(mounts: &mut Vec<types::Mount>, volumes: &BTreeMap<String, Value>, driver: &str) {
    for target in volumes.keys() {
        let path = std::path::Path::new(target);
        if !mounts.iter().any(|mount| std::path::Path::new(&mount.target) == path) {
            let kind = MountKind::Volume;
            let (target, volume_driver) = (target.clone(), driver.to_owned());
            mounts.push(types::Mount { kind, target, volume_driver, ..types::Mount::default() });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use types::Propagation;

    fn parse(text: &str) -> Result<ContainerConfig, Fault> {
        crate::request::read::<CreateJson>(text.as_bytes())?
            .value
            .parse("c".into(), "172.31.0.1".parse().ok())
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
        let text = r#"{"Volumes":{"/v":{}},"HostConfig":{"Tmpfs":{"/t":"size=64k,mode=1777"}}}"#;
        let mounts = parse(text).unwrap().spec.mounts;
        assert_eq!((mounts[0].tmpfs_size, mounts[0].tmpfs_mode), (65536, 0o1777));
        assert_eq!((mounts[1].kind, mounts[1].target.as_str()), (MountKind::Volume, "/v"));
        let text = r#"{"HostConfig":{"Memory":8388608,"MemorySwap":-1,"MemorySwappiness":10,
            "Binds":["/a:/b:rslave,Z","v:/c:nocopy"],"Tmpfs":{"/t":"exec,uid=5"},
            "SecurityOpt":["no-new-privileges"],"MaskedPaths":[]}}"#;
        let config = parse(text).unwrap();
        assert_eq!((config.resources.swap, config.resources.swappiness), (Some(-1), Some(10)));
        let mounts = &config.spec.mounts;
        assert_eq!(mounts[0].propagation, Propagation::Rslave);
        assert!(mounts[1].no_copy && config.spec.security.no_new_privileges);
        assert_eq!(mounts[2].tmpfs_options, ["exec", "uid=5"]);
        assert_eq!(config.masked_paths, Some(Vec::new()));
    }

    /// docker-py names the target of every bind among the volumes.
    #[test]
    fn a_volume_whose_target_is_mounted_otherwise_is_no_other_one() {
        let text = r#"{"Volumes":{"/b":{},"/t/":{},"/m":{},"/own":{}},"HostConfig":{
            "Binds":["/a:/b/:ro"],"Tmpfs":{"/t":""},"Mounts":[{"Type":"tmpfs","Target":"/m"}]}}"#;
        let mounts = parse(text).unwrap().spec.mounts;
        let targets: Vec<_> = mounts.iter().map(|mount| mount.target.as_str()).collect();
        assert_eq!(targets, ["/b/", "/t", "/m", "/own"]);
    }

    #[test]
    fn a_name_may_lead_to_the_node_itself() {
        let hosts = |entry: &str| {
            let text = format!(r#"{{"HostConfig":{{"ExtraHosts":["{entry}"]}}}}"#);
            Ok::<_, Fault>(parse(&text)?.spec.hosts[0].address.to_string())
        };
        assert_eq!(hosts("node:host-gateway").unwrap(), "172.31.0.1");
        assert_eq!(hosts("db=10.0.0.9").unwrap(), "10.0.0.9");
        assert_eq!(hosts("six:[::1]").unwrap(), "::1");
        let odd = hosts("db:nowhere").unwrap_err().message;
        assert_eq!(odd, "invalid IP address in add-host: \"nowhere\"");
        assert!(hosts("db").is_err() && hosts(":1.2.3.4").is_err());
        assert!(extra_host("node:host-gateway", None).is_err());
    }

    #[test]
    fn after_a_stop_timeout_below_zero_nobody_kills() {
        let grace =
            |secs: i64| parse(&format!(r#"{{"StopTimeout":{secs}}}"#)).unwrap().spec.grace();
        assert_eq!((grace(-1), grace(i64::MIN)), (types::FOREVER, types::FOREVER));
        assert_eq!((grace(0), grace(3).as_secs()), (std::time::Duration::ZERO, 3));
    }

    #[test]
    fn what_no_container_can_have_is_refused_in_dockers_words() {
        let check = |text: &str| format!(r#"{{"Healthcheck":{text}}}"#);
        let host = |text: &str| format!(r#"{{"HostConfig":{text}}}"#);
        for (text, reason) in [
            (check(r#"{"Test":["FOO"]}"#), "Unknown healthcheck type 'FOO' (expected 'CMD')"),
            (check(r#"{"Interval":5}"#), "Interval in Healthcheck cannot be less than 1ms: 5"),
            (
                check(r#"{"StartPeriod":-1}"#),
                "StartPeriod in Healthcheck cannot be less than 1ms: -1",
            ),
            (check(r#"{"Retries":-1}"#), "Retries in Healthcheck cannot be negative: -1"),
            (host(r#"{"Memory":1}"#), "Minimum memory limit allowed is 6MB"),
            (host(r#"{"MemoryReservation":1}"#), "Minimum memory reservation allowed is 6MB"),
            (
                host(r#"{"Memory":8388608,"MemoryReservation":8388609}"#),
                "Minimum memory limit can not be less than memory reservation limit, see usage",
            ),
            (host(r#"{"ShmSize":-1}"#), "SHM size can not be less than 0"),
            (
                host(r#"{"Devices":[{"PathOnHost":"/dev/null","CgroupPermissions":"x"}]}"#),
                "invalid device mode: x",
            ),
            (
                host(r#"{"Devices":[{"PathOnHost":"null"}]}"#),
                "invalid device path \"null\": it is not absolute",
            ),
            (host(r#"{"PidMode":"private"}"#), "invalid PID mode: private"),
            (host(r#"{"PidMode":"container:"}"#), "invalid PID mode: container:"),
            (host(r#"{"IpcMode":"mine"}"#), "invalid IPC mode: mine"),
            (host(r#"{"UTSMode":"container:x"}"#), "invalid UTS mode: container:x"),
            (host(r#"{"CgroupnsMode":"x"}"#), "invalid cgroup namespace mode: x"),
            (
                host(r#"{"DeviceRequests":[{"Count":1,"DeviceIDs":["0"]}]}"#),
                "cannot set both Count and DeviceIDs on device request",
            ),
            (
                host(r#"{"DeviceRequests":[{"Driver":"cdi","DeviceIDs":["x"]}]}"#),
                "invalid CDI device name \"x\": it is VENDOR/CLASS=NAME",
            ),
            (host(r#"{"DeviceCgroupRules":["x"]}"#), "invalid device cgroup rule format: 'x'"),
            (r#"{"Env":["=b"]}"#.to_owned(), "invalid environment variable: \"=b\""),
            (r#"{"Env":["A\u0000=b"]}"#.to_owned(), "invalid environment variable: \"A\\0=b\""),
        ] {
            assert_eq!(parse(&text).unwrap_err(), Fault::invalid(reason), "{text}");
        }
        assert!(parse(r#"{"Env":["A","B=c=d"],"Healthcheck":{"Test":["NONE"]}}"#).is_ok());
        assert!(check_cpus(2_000_000_000, 2).is_ok() && check_cpus(0, 2).is_ok());
        let many = "Range of CPUs is from 0.01 to 2.00, as there are only 2 CPUs available";
        for cpus in [2_000_000_001, -1] {
            assert_eq!(check_cpus(cpus, 2), Err(Fault::invalid(many)));
        }
    }

    #[test]
    fn what_skep_does_not_have_is_refused_by_name() {
        for (text, word) in [
            (r#"{"HostConfig":{"IpcMode":"none"}}"#, "HostConfig.IpcMode=none"),
            (r#"{"HostConfig":{"RestartPolicy":{"Name":"always"}}}"#, "RestartPolicy.Name=always"),
            (r#"{"HostConfig":{"NetworkMode":"mynet"}}"#, "mynet"),
            (r#"{"HostConfig":{"SecurityOpt":["label=type:t"]}}"#, "SELinux"),
            (r#"{"HostConfig":{"VolumesFrom":["other"]}}"#, r#"HostConfig.VolumesFrom=["other"]"#),
            (r#"{"HostConfig":{"Tmpfs":{"/t":"huge=always"}}}"#, "huge=always"),
            (
                r#"{"NetworkingConfig":{"EndpointsConfig":{"bridge":{"Aliases":["a"]}}}}"#,
                r#"NetworkingConfig.EndpointsConfig.Aliases=["a"]"#,
            ),
        ] {
            let fault = parse(text).unwrap_err();
            assert_eq!(fault.kind, types::FaultKind::NotImplemented, "{fault}");
            assert!(fault.message.contains(word), "{fault}");
        }
        assert!(parse(r#"{"HostConfig":{"Binds":["/a:/b:odd"]}}"#).is_err());
        assert!(parse(r#"{"HostConfig":{"Binds":["/a"]}}"#).is_err());
    }
}
