//! `ContainerSpec`: what runs in a task's container.

use super::{duration, nanos};
use serde::{Deserialize, Serialize};
use types::{
    ContainerSpec, DnsConfig, Fault, HealthCheck, HostEntry, Labels, Mount, MountKind, Ulimit,
};

#[derive(Debug, Default, Deserialize, Serialize)]
#[serde(rename = "ContainerSpec", rename_all = "PascalCase", default)]
pub(crate) struct ContainerSpecJson {
    pub(crate) image: String,
    #[serde(skip_serializing_if = "Labels::is_empty")]
    labels: Labels,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    command: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    args: Vec<String>,
    #[serde(skip_serializing_if = "String::is_empty")]
    hostname: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    env: Vec<String>,
    #[serde(skip_serializing_if = "String::is_empty")]
    dir: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    user: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    groups: Vec<String>,
    #[serde(rename = "TTY", skip_serializing_if = "is_false")]
    tty: bool,
    #[serde(skip_serializing_if = "is_false")]
    open_stdin: bool,
    #[serde(skip_serializing_if = "is_false")]
    read_only: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    init: Option<bool>,
    #[serde(skip_serializing_if = "String::is_empty")]
    stop_signal: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    stop_grace_period: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    healthcheck: Option<HealthJson>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    hosts: Vec<String>,
    #[serde(rename = "DNSConfig", skip_serializing_if = "Option::is_none")]
    dns: Option<DnsJson>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    mounts: Vec<MountJson>,
    #[serde(rename = "CapabilityAdd", skip_serializing_if = "Vec::is_empty")]
    cap_add: Vec<String>,
    #[serde(rename = "CapabilityDrop", skip_serializing_if = "Vec::is_empty")]
    cap_drop: Vec<String>,
    #[serde(skip_serializing_if = "Labels::is_empty")]
    sysctls: Labels,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    ulimits: Vec<UlimitJson>,
    #[serde(skip_serializing_if = "is_zero")]
    oom_score_adj: i64,
    /// Docker's CLI reads it without asking whether it is there.
    #[serde(skip_deserializing)]
    isolation: String,
}

#[derive(Debug, Default, Deserialize, Serialize)]
#[serde(rename = "HealthConfig", rename_all = "PascalCase", default)]
pub(crate) struct HealthJson {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    test: Vec<String>,
    #[serde(skip_serializing_if = "is_zero")]
    interval: i64,
    #[serde(skip_serializing_if = "is_zero")]
    timeout: i64,
    #[serde(skip_serializing_if = "is_zero")]
    start_period: i64,
    #[serde(skip_serializing_if = "is_zero")]
    start_interval: i64,
    #[serde(skip_serializing_if = "is_zero")]
    retries: i64,
}

#[derive(Debug, Default, Deserialize, Serialize)]
#[serde(rename = "DNSConfig", rename_all = "PascalCase", default)]
struct DnsJson {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    nameservers: Vec<std::net::IpAddr>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    search: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    options: Vec<String>,
}

#[derive(Debug, Default, Deserialize, Serialize)]
#[serde(rename = "Mount", rename_all = "PascalCase", default)]
pub(crate) struct MountJson {
    #[serde(rename = "Type")]
    kind: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    source: String,
    target: String,
    #[serde(skip_serializing_if = "is_false")]
    read_only: bool,
    #[serde(skip_serializing)]
    bind_options: Option<BindOptionsJson>,
    #[serde(skip_serializing_if = "Option::is_none")]
    volume_options: Option<VolumeOptionsJson>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tmpfs_options: Option<TmpfsOptionsJson>,
}

#[derive(Debug, Default, Deserialize, Serialize)]
#[serde(rename = "VolumeOptions", rename_all = "PascalCase", default)]
struct VolumeOptionsJson {
    #[serde(skip_serializing_if = "Option::is_none")]
    driver_config: Option<DriverConfigJson>,
    #[serde(skip_serializing_if = "Labels::is_empty")]
    labels: Labels,
}

#[derive(Debug, Default, Deserialize, Serialize)]
#[serde(rename = "Driver", rename_all = "PascalCase", default)]
struct DriverConfigJson {
    name: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename = "BindOptions", rename_all = "PascalCase", default)]
struct BindOptionsJson {}

#[derive(Debug, Default, Deserialize, Serialize)]
#[serde(rename = "TmpfsOptions", rename_all = "PascalCase", default)]
struct TmpfsOptionsJson {
    #[serde(skip_serializing_if = "is_zero")]
    size_bytes: i64,
    #[serde(skip_serializing_if = "is_zero")]
    mode: i64,
}

#[derive(Debug, Default, Deserialize, Serialize)]
#[serde(rename = "Ulimit", rename_all = "PascalCase", default)]
pub(crate) struct UlimitJson {
    pub(crate) name: String,
    pub(crate) soft: i64,
    pub(crate) hard: i64,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_false(value: &bool) -> bool {
    !*value
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_zero(value: &i64) -> bool {
    *value == 0
}

impl ContainerSpecJson {
    /// Reads the spec; refuses what Skep does not have.
    pub(crate) fn parse(self) -> Result<ContainerSpec, Fault> {
        let mounts = self.mounts.into_iter().map(MountJson::parse).collect::<Result<_, _>>()?;
        let hosts = self.hosts.iter().map(|line| host(line)).collect::<Result<_, _>>()?;
        let dns = self.dns.unwrap_or_default();
        Ok(ContainerSpec {
            image: self.image,
            labels: self.labels,
            command: self.command,
            args: self.args,
            hostname: self.hostname,
            env: self.env,
            dir: self.dir,
            user: self.user,
            groups: self.groups,
            tty: self.tty,
            open_stdin: self.open_stdin,
            read_only: self.read_only,
            init: self.init,
            stop_signal: self.stop_signal,
            stop_grace_period: self.stop_grace_period.map(duration),
            health: self.healthcheck.map(HealthJson::parse),
            hosts,
            dns: DnsConfig {
                nameservers: dns.nameservers,
                search: dns.search,
                options: dns.options,
            },
            mounts,
            cap_add: self.cap_add,
            cap_drop: self.cap_drop,
            sysctls: self.sysctls,
            ulimits: self
                .ulimits
                .into_iter()
                .map(|limit| Ulimit { name: limit.name, soft: limit.soft, hard: limit.hard })
                .collect(),
            oom_score_adj: self.oom_score_adj,
            // They come in a header.
            pull_credentials: None,
        })
    }

    pub(crate) fn render(spec: &ContainerSpec) -> Self {
        let has_dns = spec.dns != DnsConfig::default();
        Self {
            image: spec.image.clone(),
            labels: spec.labels.clone(),
            command: spec.command.clone(),
            args: spec.args.clone(),
            hostname: spec.hostname.clone(),
            env: spec.env.clone(),
            dir: spec.dir.clone(),
            user: spec.user.clone(),
            groups: spec.groups.clone(),
            tty: spec.tty,
            open_stdin: spec.open_stdin,
            read_only: spec.read_only,
            init: spec.init,
            stop_signal: spec.stop_signal.clone(),
            stop_grace_period: spec.stop_grace_period.map(nanos),
            healthcheck: spec.health.as_ref().map(HealthJson::render),
            hosts: spec.hosts.iter().map(render_host).collect(),
            dns: has_dns.then(|| DnsJson {
                nameservers: spec.dns.nameservers.clone(),
                search: spec.dns.search.clone(),
                options: spec.dns.options.clone(),
            }),
            mounts: spec.mounts.iter().map(MountJson::render).collect(),
            cap_add: spec.cap_add.clone(),
            cap_drop: spec.cap_drop.clone(),
            sysctls: spec.sysctls.clone(),
            ulimits: spec.ulimits.iter().map(render_ulimit).collect(),
            oom_score_adj: spec.oom_score_adj,
            isolation: "default".into(),
        }
    }
}

fn render_ulimit(limit: &Ulimit) -> UlimitJson {
    UlimitJson { name: limit.name.clone(), soft: limit.soft, hard: limit.hard }
}

/// Reads `IP NAME [NAME…]`, the form of a line of /etc/hosts.
fn host(line: &str) -> Result<HostEntry, Fault> {
    let mut words = line.split_whitespace();
    let address = words.next().and_then(|word| word.parse().ok());
    let names: Vec<String> = words.map(str::to_owned).collect();
    match (address, names.is_empty()) {
        (Some(address), false) => Ok(HostEntry { address, names }),
        (_, _) => Err(Fault::invalid(format!("invalid host entry '{line}': use 'IP NAME'"))),
    }
}

fn render_host(entry: &HostEntry) -> String {
    format!("{} {}", entry.address, entry.names.join(" "))
}

impl HealthJson {
    pub(crate) fn parse(self) -> HealthCheck {
        HealthCheck {
            test: self.test,
            interval: duration(self.interval),
            timeout: duration(self.timeout),
            start_period: duration(self.start_period),
            start_interval: duration(self.start_interval),
            retries: u32::try_from(self.retries).unwrap_or(0),
        }
    }

    pub(crate) fn render(check: &HealthCheck) -> Self {
        Self {
            test: check.test.clone(),
            interval: nanos(check.interval),
            timeout: nanos(check.timeout),
            start_period: nanos(check.start_period),
            start_interval: nanos(check.start_interval),
            retries: i64::from(check.retries),
        }
    }
}

impl MountJson {
    pub(crate) fn parse(self) -> Result<Mount, Fault> {
        let kind = match self.kind.as_str() {
            "bind" => MountKind::Bind,
            "" | "volume" => MountKind::Volume,
            "tmpfs" => MountKind::Tmpfs,
            other => return Err(Fault::not_implemented(&format!("a mount of type {other}"))),
        };
        if self.target.is_empty() {
            return Err(Fault::invalid("invalid mount config: field Target must not be empty"));
        }
        let tmpfs = self.tmpfs_options.unwrap_or_default();
        let volume = self.volume_options.unwrap_or_default();
        let BindOptionsJson {} = self.bind_options.unwrap_or_default();
        let driver = volume.driver_config.unwrap_or_default().name;
        if !matches!(driver.as_str(), "" | "local") {
            return Err(Fault::not_implemented(&format!("the volume driver '{driver}'")));
        }
        Ok(Mount {
            kind,
            source: self.source,
            target: self.target,
            read_only: self.read_only,
            tmpfs_size: u64::try_from(tmpfs.size_bytes).unwrap_or(0),
            tmpfs_mode: u32::try_from(tmpfs.mode).unwrap_or(0),
            labels: volume.labels,
            volume_driver: driver,
        })
    }

    pub(crate) fn render(mount: &Mount) -> Self {
        let driver = (!mount.volume_driver.is_empty())
            .then(|| DriverConfigJson { name: mount.volume_driver.clone() });
        let tmpfs = TmpfsOptionsJson {
            size_bytes: i64::try_from(mount.tmpfs_size).unwrap_or(i64::MAX),
            mode: i64::from(mount.tmpfs_mode),
        };
        let kind = match mount.kind {
            MountKind::Bind => "bind",
            MountKind::Volume => "volume",
            MountKind::Tmpfs => "tmpfs",
        };
        Self {
            kind: kind.to_owned(),
            source: mount.source.clone(),
            target: mount.target.clone(),
            read_only: mount.read_only,
            volume_options: (!mount.labels.is_empty() || driver.is_some())
                .then(|| VolumeOptionsJson { driver_config: driver, labels: mount.labels.clone() }),
            bind_options: None,
            tmpfs_options: (mount.kind == MountKind::Tmpfs).then_some(tmpfs),
        }
    }
}
