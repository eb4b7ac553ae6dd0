//! `ContainerSpec`: what runs in a task's container.

use super::file::{ConfigReferenceJson, SecretReferenceJson};
use super::privileges::PrivilegesJson;
use super::{duration, grace, grace_nanos, nanos};
use serde::{Deserialize, Serialize};
use types::{
    ContainerSpec, DnsConfig, Fault, HealthCheck, HostEntry, Labels, Mount, MountKind, Propagation,
    Security, Ulimit,
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
    #[serde(skip_serializing_if = "Option::is_none")]
    privileges: Option<PrivilegesJson>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    secrets: Vec<SecretReferenceJson>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    configs: Vec<ConfigReferenceJson>,
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
    #[serde(skip_serializing_if = "Option::is_none")]
    bind_options: Option<BindOptionsJson>,
    #[serde(skip_serializing_if = "Option::is_none")]
    volume_options: Option<VolumeOptionsJson>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tmpfs_options: Option<TmpfsOptionsJson>,
    #[serde(skip_serializing_if = "Option::is_none")]
    image_options: Option<ImageOptionsJson>,
}

#[derive(Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(rename = "ImageOptions", rename_all = "PascalCase", default)]
struct ImageOptionsJson {
    #[serde(skip_serializing_if = "String::is_empty")]
    subpath: String,
}

#[derive(Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(rename = "VolumeOptions", rename_all = "PascalCase", default)]
struct VolumeOptionsJson {
    #[serde(skip_serializing_if = "is_false")]
    no_copy: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    driver_config: Option<DriverConfigJson>,
    #[serde(skip_serializing_if = "Labels::is_empty")]
    labels: Labels,
    #[serde(skip_serializing_if = "String::is_empty")]
    subpath: String,
}

#[derive(Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(rename = "Driver", rename_all = "PascalCase", default)]
struct DriverConfigJson {
    name: String,
    #[serde(skip_serializing_if = "Labels::is_empty")]
    options: Labels,
}

#[derive(Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(rename = "BindOptions", rename_all = "PascalCase", default)]
#[expect(clippy::struct_excessive_bools, reason = "Docker's JSON has them")]
struct BindOptionsJson {
    #[serde(skip_serializing_if = "String::is_empty")]
    propagation: String,
    #[serde(skip_serializing_if = "is_false")]
    non_recursive: bool,
    #[serde(skip_serializing_if = "is_false")]
    create_mountpoint: bool,
    #[serde(skip_serializing_if = "is_false")]
    read_only_non_recursive: bool,
    #[serde(skip_serializing_if = "is_false")]
    read_only_force_recursive: bool,
}

#[derive(Debug, Default, Deserialize, Serialize)]
#[serde(rename = "TmpfsOptions", rename_all = "PascalCase", default)]
struct TmpfsOptionsJson {
    #[serde(skip_serializing_if = "is_zero")]
    size_bytes: i64,
    #[serde(skip_serializing_if = "is_zero")]
    mode: i64,
    /// Each is a name, or a name and a value.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    options: Vec<Vec<String>>,
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
        let secrets = self.secrets.into_iter().map(SecretReferenceJson::parse);
        let configs = self.configs.into_iter().map(ConfigReferenceJson::parse);
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
            stop_grace_period: self.stop_grace_period.map(grace),
            health: self.healthcheck.map(HealthJson::parse).transpose()?,
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
            security: self.privileges.map_or(Ok(Security::default()), PrivilegesJson::parse)?,
            secrets: secrets.collect::<Result<_, _>>()?,
            configs: configs.collect::<Result<_, _>>()?,
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
            stop_grace_period: spec.stop_grace_period.map(grace_nanos),
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
            privileges: PrivilegesJson::render(&spec.security),
            secrets: spec.secrets.iter().map(SecretReferenceJson::render).collect(),
            configs: spec.configs.iter().map(ConfigReferenceJson::render).collect(),
            isolation: "default".into(),
        }
    }
}

pub(crate) fn render_ulimit(limit: &Ulimit) -> UlimitJson {
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

/// Docker's two: of a tmpfs that services and `--mount` ask for, programs can be made executable.
fn tmpfs_options(options: &[Vec<String>]) -> Result<Vec<String>, Fault> {
    let one = |option: &Vec<String>| match option.as_slice() {
        [name] if matches!(name.as_str(), "exec" | "noexec") => Ok(name.clone()),
        [name] | [name, _] => Err(Fault::invalid(format!("invalid option: {name}"))),
        _ => Err(Fault::invalid("invalid option array length")),
    };
    options.iter().map(one).collect()
}

impl HealthJson {
    /// Reads a health check; refuses what none can be, in Docker's words.
    pub(crate) fn parse(self) -> Result<HealthCheck, Fault> {
        let kind = self.test.first().map_or("NONE", String::as_str);
        if !matches!(kind, "NONE" | "CMD" | "CMD-SHELL") {
            let reason = format!("Unknown healthcheck type '{kind}' (expected 'CMD')");
            return Err(Fault::invalid(reason));
        }
        let retries = u32::try_from(self.retries).map_err(|_range| {
            let retries = self.retries;
            Fault::invalid(format!("Retries in Healthcheck cannot be negative: {retries}"))
        })?;
        let time = |name: &str, nanos: i64| match nanos {
            0 => Ok(duration(0)),
            1_000_000.. => Ok(duration(nanos)),
            _ => Err(Fault::invalid(format!(
                "{name} in Healthcheck cannot be less than 1ms: {nanos}"
            ))),
        };
        Ok(HealthCheck {
            test: self.test,
            interval: time("Interval", self.interval)?,
            timeout: time("Timeout", self.timeout)?,
            start_period: time("StartPeriod", self.start_period)?,
            start_interval: time("StartInterval", self.start_interval)?,
            retries,
        })
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
        let word = self.kind.to_ascii_lowercase();
        let kind = match word.as_str() {
            "" => MountKind::Volume,
            // What Docker knows, and nobody here has.
            "npipe" | "cluster" => {
                return Err(Fault::not_implemented(&format!("a mount of type {word}")));
            }
            other => MountKind::parse(other).ok_or_else(|| {
                Fault::invalid(format!(
                    "invalid mount config for type \"{other}\": mount type unknown"
                ))
            })?,
        };
        if self.target.is_empty() {
            let kind = kind.as_str();
            return Err(Fault::invalid(format!(
                "invalid mount config for type \"{kind}\": field Target must not be empty"
            )));
        }
        self.check_options(kind)?;
        let tmpfs = self.tmpfs_options.unwrap_or_default();
        let volume = self.volume_options.unwrap_or_default();
        let driver = volume.driver_config.unwrap_or_default();
        let image = self.image_options.unwrap_or_default();
        let bind = self.bind_options.unwrap_or_default();
        let mut propagation = Propagation::default();
        if !bind.propagation.is_empty() {
            let word = &bind.propagation;
            let wrong = || Fault::invalid(format!("invalid propagation mode: {word}"));
            propagation = Propagation::parse(&word.to_ascii_lowercase()).ok_or_else(wrong)?;
        }
        let mount = Mount {
            kind,
            source: self.source,
            target: self.target,
            read_only: self.read_only,
            read_only_not_below: bind.read_only_non_recursive,
            read_only_or_fail: bind.read_only_force_recursive,
            propagation,
            not_below: bind.non_recursive,
            make_source: bind.create_mountpoint,
            no_copy: volume.no_copy,
            tmpfs_options: tmpfs_options(&tmpfs.options)?,
            tmpfs_size: u64::try_from(tmpfs.size_bytes).unwrap_or(0),
            tmpfs_mode: u32::try_from(tmpfs.mode).unwrap_or(0),
            labels: volume.labels,
            volume_driver: driver.name,
            driver_options: driver.options,
            subpath: if kind == MountKind::Image { image.subpath } else { volume.subpath },
        };
        mount.check_source()?;
        Ok(mount)
    }

    /// Refuses options of another type of mounts than this one, in Docker's words.
    fn check_options(&self, kind: MountKind) -> Result<(), Fault> {
        let options = [
            ("BindOptions", MountKind::Bind, self.bind_options.is_some()),
            ("VolumeOptions", MountKind::Volume, self.volume_options.is_some()),
            ("TmpfsOptions", MountKind::Tmpfs, self.tmpfs_options.is_some()),
            ("ImageOptions", MountKind::Image, self.image_options.is_some()),
        ];
        match options.into_iter().find(|(_, of, given)| *given && *of != kind) {
            Some((field, ..)) => Err(Fault::invalid(format!(
                "invalid mount config for type \"{}\": field {field} must not be specified",
                kind.as_str()
            ))),
            None => Ok(()),
        }
    }

    pub(crate) fn render(mount: &Mount) -> Self {
        let is_volume = mount.kind == MountKind::Volume;
        let has_driver = !mount.volume_driver.is_empty() || !mount.driver_options.is_empty();
        let volume = VolumeOptionsJson {
            no_copy: mount.no_copy,
            driver_config: has_driver.then(|| DriverConfigJson {
                name: mount.volume_driver.clone(),
                options: mount.driver_options.clone(),
            }),
            labels: mount.labels.clone(),
            subpath: mount.subpath.clone(),
        };
        let image = ImageOptionsJson { subpath: mount.subpath.clone() };
        let tmpfs = TmpfsOptionsJson {
            size_bytes: i64::try_from(mount.tmpfs_size).unwrap_or(i64::MAX),
            mode: i64::from(mount.tmpfs_mode),
            options: mount
                .tmpfs_options
                .iter()
                .map(|option| option.splitn(2, '=').map(str::to_owned).collect())
                .collect(),
        };
        let private = mount.propagation == Propagation::default();
        let bind = BindOptionsJson {
            propagation: if private { "" } else { mount.propagation.as_str() }.to_owned(),
            non_recursive: mount.not_below,
            create_mountpoint: mount.make_source,
            read_only_non_recursive: mount.read_only_not_below,
            read_only_force_recursive: mount.read_only_or_fail,
        };
        Self {
            kind: mount.kind.as_str().to_owned(),
            source: mount.source.clone(),
            target: mount.target.clone(),
            read_only: mount.read_only,
            volume_options: Some(volume)
                .filter(|volume| is_volume && *volume != VolumeOptionsJson::default()),
            image_options: Some(image)
                .filter(|it| mount.kind == MountKind::Image && !it.subpath.is_empty()),
            bind_options: Some(bind).filter(|bind| *bind != BindOptionsJson::default()),
            tmpfs_options: (mount.kind == MountKind::Tmpfs).then_some(tmpfs),
        }
    }
}
