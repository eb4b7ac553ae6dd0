//! The promise that answers have what tools read, held against Docker's API.
//!
//! `docker-answers.txt` has the fields of the answers; every one must be in what is rendered of a
//! full sample, or in [`LEFT_OUT`] with the reason, which `docs/api.md` shows.

mod samples;

use serde_json::Value;
use std::fmt::Write;

const DOCKER: &str = include_str!("docker-answers.txt");

const ON_DEMAND: &str = "it is told where it is asked for";
const EMPTY: &str = "Docker leaves it out where it is empty, and here it always is";
const GO: &str = "it is a matter of Docker's own program";
const MANIFEST: &str = "the image is told by its id and its digests";
const LATER: &str = "the feature is not there";

/// Fields that Docker's answers have and Skep's do not: the operation, the field, why.
const LEFT_OUT: &[(&str, &str, &str)] = &[
    ("GET /containers/json", "ImageManifestDescriptor", MANIFEST),
    ("GET /containers/json", "SizeRw", ON_DEMAND),
    ("GET /containers/json", "SizeRootFs", ON_DEMAND),
    ("GET /containers/json", "HostConfig.Annotations", EMPTY),
    ("GET /containers/{id}/json", "ImageManifestDescriptor", MANIFEST),
    ("GET /containers/{id}/json", "SizeRw", ON_DEMAND),
    ("GET /containers/{id}/json", "SizeRootFs", ON_DEMAND),
    ("GET /containers/{id}/json", "HostConfig.KernelMemoryTCP", EMPTY),
    ("GET /containers/{id}/json", "HostConfig.Annotations", EMPTY),
    ("GET /containers/{id}/json", "HostConfig.StorageOpt", EMPTY),
    ("GET /containers/{id}/json", "Config.ArgsEscaped", EMPTY),
    ("GET /containers/{id}/json", "Config.NetworkDisabled", EMPTY),
    ("GET /containers/{id}/json", "Config.MacAddress", EMPTY),
    ("GET /containers/{id}/json", "Config.Shell", EMPTY),
    ("GET /images/json", "Manifests", LATER),
    ("GET /images/json", "Descriptor", MANIFEST),
    ("GET /images/{name}/json", "Descriptor", MANIFEST),
    ("GET /images/{name}/json", "Manifests", LATER),
    ("GET /info", "KernelMemoryTCP", EMPTY),
    ("GET /info", "NFd", GO),
    ("GET /info", "NGoroutines", GO),
    ("GET /info", "HttpProxy", "the daemon's environment says it"),
    ("GET /info", "HttpsProxy", "the daemon's environment says it"),
    ("GET /info", "NoProxy", "the daemon's environment says it"),
    ("GET /info", "Runtimes{}.runtimeArgs", EMPTY),
    ("GET /info", "Runtimes{}.status", EMPTY),
    ("GET /info", "ProductLicense", EMPTY),
    ("GET /info", "DefaultAddressPools", EMPTY),
    ("GET /info", "FirewallBackend.Info", EMPTY),
    ("GET /info", "DiscoveredDevices", EMPTY),
    ("GET /info", "Containerd", "the daemon's containerd is its own"),
    ("GET /networks", "Peers", "it is told of one network alone"),
    ("GET /services/{id}", "ServiceStatus", ON_DEMAND),
    ("GET /tasks/{id}", "Name", EMPTY),
    ("GET /version", "Experimental", EMPTY),
    ("GET /version", "BuildTime", "a build is the same whenever it is made"),
    ("GET /volumes/{name}", "Status", EMPTY),
    ("GET /volumes/{name}", "ClusterVolume", LATER),
    ("GET /volumes/{name}", "UsageData", "it is a part of docker system df"),
];

/// The fields of each answer as Docker has them.
fn docker() -> Vec<(&'static str, Vec<&'static str>)> {
    let mut all: Vec<(&str, Vec<&str>)> = Vec::new();
    for line in DOCKER.lines().filter(|line| !line.starts_with('#')) {
        match (line.strip_prefix("  "), all.last_mut()) {
            (Some(field), Some((_, fields))) => fields.push(field),
            _ => all.push((line, Vec::new())),
        }
    }
    all
}

/// Says whether a field is in an answer; so is one below something that is empty.
fn is_there(object: &Value, path: &str) -> bool {
    let (first, rest) = path.split_once('.').unwrap_or((path, ""));
    let name = first.trim_end_matches(['[', ']', '{', '}']);
    let Some(value) = object.get(name) else { return false };
    let mut inner = vec![value];
    for _ in 0..first[name.len()..].len() / 2 {
        inner = inner.into_iter().flat_map(items).collect();
    }
    inner.retain(|value| value.is_object());
    rest.is_empty() || inner.is_empty() || inner.iter().any(|value| is_there(value, rest))
}

fn items(value: &Value) -> Vec<&Value> {
    match value {
        Value::Array(list) => list.iter().collect(),
        Value::Object(map) => map.values().collect(),
        _ => Vec::new(),
    }
}

/// Says whether a field is left out, or one that it is a part of.
fn is_left_out(operation: &str, field: &str) -> bool {
    LEFT_OUT.iter().any(|(of, left, _)| {
        let below = field.strip_prefix(left);
        *of == operation
            && below.is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[', '{']))
    })
}

#[test]
fn every_field_of_dockers_answers_is_there_or_left_out_with_a_reason() {
    let samples = samples::all();
    let mut forgotten = Vec::new();
    for (operation, fields) in docker() {
        let sample = samples.iter().find(|(name, _)| *name == operation);
        let (_, sample) = sample.unwrap_or_else(|| panic!("no sample of {operation}"));
        for field in fields {
            if !is_there(sample, field) && !is_left_out(operation, field) {
                forgotten.push(format!("{operation}: {field}"));
            }
        }
    }
    assert!(forgotten.is_empty(), "missing:\n{}", forgotten.join("\n"));
}

#[test]
fn what_is_said_to_be_left_out_is_a_field_and_is_not_there() {
    let (samples, docker) = (samples::all(), docker());
    for (operation, field, _) in LEFT_OUT {
        let known = docker.iter().any(|(of, fields)| of == operation && fields.contains(field));
        assert!(known, "{operation}: Docker has no {field}");
        let sample = samples.iter().find(|(name, _)| name == operation);
        assert!(!is_there(&sample.unwrap().1, field), "{operation}: {field} is there");
    }
}

/// The part of `docs/api.md` about answers.
pub(crate) fn print() -> String {
    let mut page = "\n## Fields of answers that are left out\n\n\
        What Docker tells of containers, images, networks, volumes, nodes, services, tasks, the cluster and\n\
        itself is told here, too, but for these fields. A container's `NetworkSettings` has the networks that it has an\n\
        interface on: not `ingress`, whose addresses lead to it by way of its node.\n\n\
        | answer | field | why |\n|---|---|---|\n"
        .to_owned();
    for (operation, field, reason) in LEFT_OUT {
        writeln!(page, "| {operation} | `{field}` | {reason} |").expect("writing to a string");
    }
    page
}
