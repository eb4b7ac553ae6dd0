//! `HostConfig` of a container: what it asks of this machine.

use super::super::container_spec::{MountJson, render_ulimit};
use super::super::memory::memory_swap;
use super::super::node_access;
use super::super::privileges::render_options;
use super::network_mode;
use engine::{ContainerConfig, MASKED, READONLY};
use serde_json::{Map, Value, json};
use std::collections::{BTreeMap, BTreeSet};
use types::{HostEntry, Mount, MountKind};

/// Bytes of /dev/shm where nothing is said.
const SHM_SIZE: u64 = 64 << 20;

fn log_driver(config: &ContainerConfig) -> &str {
    match config.log.driver.as_str() {
        "" => "json-file",
        driver => driver,
    }
}

/// Go's form of a list that nobody gave.
fn some<T: serde::Serialize>(items: &[T]) -> Value {
    if items.is_empty() { Value::Null } else { json!(items) }
}

/// Ports as they were asked for; one that is free was found where no number is shown.
fn bindings(config: &ContainerConfig) -> BTreeMap<String, Vec<Value>> {
    let mut bindings: BTreeMap<String, Vec<Value>> = BTreeMap::new();
    // A former release did not write down what was asked for.
    let asked = &config.asked.host_ports;
    for port in if asked.is_empty() { &config.host_ports } else { asked } {
        let key = format!("{}/{}", port.target, port.protocol.as_str());
        let number = Some(port.published).filter(|port| *port != 0);
        let number = number.map(|port| port.to_string()).unwrap_or_default();
        bindings.entry(key).or_default().push(json!({ "HostIp": "", "HostPort": number }));
    }
    bindings
}

/// What was asked for as mounts, and not in the other ways.
fn mounts(config: &ContainerConfig) -> Vec<&Mount> {
    let asked = &config.asked;
    let bound = asked.binds.iter().filter_map(|bind| bind.split(':').nth(1));
    let other: BTreeSet<&str> =
        bound.chain(asked.tmpfs.keys().chain(&asked.volumes).map(String::as_str)).collect();
    let mounts = config.spec.mounts.iter();
    mounts.filter(|mount| !other.contains(mount.target.as_str())).collect()
}

fn extra_hosts(config: &ContainerConfig) -> Vec<String> {
    if !config.asked.extra_hosts.is_empty() {
        return config.asked.extra_hosts.clone();
    }
    let names = |host: &HostEntry| {
        let line = |name: &String| format!("{name}:{}", host.address);
        host.names.iter().map(line).collect::<Vec<_>>()
    };
    config.spec.hosts.iter().flat_map(names).collect()
}

/// Renders `HostConfig`: a container that is made from it is the same.
pub(super) fn host_config(config: &ContainerConfig) -> Value {
    let mut object = of_all_machines(config);
    object.extend(of_this_machine(config));
    object.extend(resources(config));
    object.extend(node_access::render(&config.node));
    // What Docker leaves out where there is nothing.
    let spec = &config.spec;
    let mounts = mounts(config);
    let optional = [
        ("Tmpfs", json!(config.asked.tmpfs), config.asked.tmpfs.is_empty()),
        ("Sysctls", json!(spec.sysctls), spec.sysctls.is_empty()),
        ("Init", json!(spec.init), spec.init.is_none()),
        (
            "Mounts",
            mounts.iter().map(|mount| json!(MountJson::render(mount))).collect(),
            mounts.is_empty(),
        ),
    ];
    for (name, value, is_empty) in optional {
        if !is_empty {
            object.insert(name.to_owned(), value);
        }
    }
    Value::Object(object)
}

/// The driver of volumes that `-v` names, and of those without a name.
fn volume_driver(config: &ContainerConfig) -> &str {
    let by_mount = mounts(config);
    let mut others = config.spec.mounts.iter().filter(|mount| {
        mount.kind == MountKind::Volume && !by_mount.iter().any(|it| it.target == mount.target)
    });
    others.next().map_or("", |mount| &mount.volume_driver)
}

/// The fields of an object.
fn fields(object: Value) -> Map<String, Value> {
    if let Value::Object(fields) = object { fields } else { Map::new() }
}

fn of_all_machines(config: &ContainerConfig) -> Map<String, Value> {
    fields(json!({
        "Binds": some(&config.asked.binds),
        "ContainerIDFile": "",
        "LogConfig": { "Type": log_driver(config), "Config": config.log.options },
        "NetworkMode": network_mode(config),
        "PortBindings": bindings(config),
        "RestartPolicy": { "Name": "no", "MaximumRetryCount": 0 },
        "AutoRemove": config.auto_remove,
        "VolumeDriver": volume_driver(config),
        "VolumesFrom": null,
        "ConsoleSize": [0, 0],
    }))
}

fn of_this_machine(config: &ContainerConfig) -> Map<String, Value> {
    let spec = &config.spec;
    let paths = |own: &Option<Vec<String>>, usual: &[&str]| match own {
        Some(own) => json!(own),
        // Nothing is hidden from it.
        None if config.node.privileged => Value::Null,
        None => json!(usual),
    };
    fields(json!({
        "CapAdd": some(&spec.cap_add),
        "CapDrop": some(&spec.cap_drop),
        "Dns": spec.dns.nameservers,
        "DnsOptions": spec.dns.options,
        "DnsSearch": spec.dns.search,
        "ExtraHosts": some(&extra_hosts(config)),
        "GroupAdd": some(&spec.groups),
        "Cgroup": "",
        "Links": null,
        "OomScoreAdj": spec.oom_score_adj,
        "PublishAllPorts": false,
        "ReadonlyRootfs": spec.read_only,
        "SecurityOpt": some(&render_options(&spec.security)),
        "UsernsMode": "",
        "ShmSize": if config.shm_size == 0 { SHM_SIZE } else { config.shm_size },
        "Runtime": "runc",
        "Isolation": "",
        "MaskedPaths": paths(&config.masked_paths, &MASKED),
        "ReadonlyPaths": paths(&config.readonly_paths, &READONLY),
    }))
}

fn resources(config: &ContainerConfig) -> Map<String, Value> {
    let resources = &config.resources;
    let ulimits: Vec<_> = config.spec.ulimits.iter().map(render_ulimit).collect();
    fields(json!({
        "CpuShares": 0,
        "Memory": resources.limit_memory,
        "NanoCpus": resources.limit_nano_cpus,
        "BlkioWeight": 0,
        "BlkioWeightDevice": [],
        "BlkioDeviceReadBps": [],
        "BlkioDeviceWriteBps": [],
        "BlkioDeviceReadIOps": [],
        "BlkioDeviceWriteIOps": [],
        "CpuPeriod": 0,
        "CpuQuota": 0,
        "CpuRealtimePeriod": 0,
        "CpuRealtimeRuntime": 0,
        "CpusetCpus": "",
        "CpusetMems": "",
        "MemoryReservation": resources.reserve_memory,
        "MemorySwap": memory_swap(resources.limit_memory, resources.swap),
        "MemorySwappiness": resources.swappiness,
        "OomKillDisable": null,
        "PidsLimit": Some(resources.limit_pids).filter(|limit| *limit != 0),
        "Ulimits": ulimits,
        "CpuCount": 0,
        "CpuPercent": 0,
        "IOMaximumIOps": 0,
        "IOMaximumBandwidth": 0,
    }))
}

#[cfg(test)]
mod tests {
    use super::super::super::container_create::CreateJson;
    use super::*;

    #[test]
    fn a_container_that_is_made_from_what_is_shown_of_another_is_the_same() {
        let parse = |text: &str| {
            let read = crate::request::read::<CreateJson>(text.as_bytes()).unwrap();
            assert!(read.warnings.is_empty(), "{:?}", read.warnings);
            read.value.parse(String::new(), None).unwrap()
        };
        let full = include_str!("../../request/coverage/container.json");
        let mut document: Value = serde_json::from_str(full).unwrap();
        let config = parse(full);
        document["HostConfig"] = host_config(&config);
        assert_eq!(parse(&document.to_string()), config);
        let plain = parse("{}");
        let shown = json!({ "HostConfig": host_config(&plain) });
        let own = |paths: &[&str]| Some(paths.iter().map(|path| (*path).to_owned()).collect());
        let config = ContainerConfig {
            shm_size: SHM_SIZE,
            masked_paths: own(&MASKED),
            readonly_paths: own(&READONLY),
            ..plain
        };
        let log = engine::LogConfig { driver: "json-file".into(), ..config.log };
        assert_eq!(parse(&shown.to_string()), ContainerConfig { log, ..config });
    }

    #[test]
    fn mounts_are_shown_in_the_way_that_they_were_asked_for() {
        let text = r#"{"Volumes":{"/v":{}},"HostConfig":{"Binds":["/a:/b:ro"],"Tmpfs":{"/t":""},
            "Mounts":[{"Type":"volume","Source":"data","Target":"/m"}],
            "PortBindings":{"80/tcp":[{"HostPort":""}]}}}"#;
        let read = crate::request::read::<CreateJson>(text.as_bytes()).unwrap().value;
        let shown = host_config(&read.parse(String::new(), None).unwrap());
        assert_eq!(shown["Binds"], json!(["/a:/b:ro"]));
        assert_eq!(shown["Tmpfs"], json!({ "/t": "" }));
        let targets: Vec<_> =
            shown["Mounts"].as_array().unwrap().iter().map(|mount| &mount["Target"]).collect();
        assert_eq!(targets, ["/m"]);
        assert_eq!(shown["PortBindings"], json!({ "80/tcp": [{ "HostIp": "", "HostPort": "" }] }));
        let plain = host_config(&ContainerConfig::default());
        assert!(plain["Binds"].is_null() && plain.get("Mounts").is_none());
    }
}
