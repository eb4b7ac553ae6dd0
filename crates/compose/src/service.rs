//! Services: one entry of the file becomes one spec.

use crate::fields::{Fields, entries};
use crate::file::{self, Files};
use crate::network::{self, Networks};
use crate::project::{scoped, stack_labels};
use crate::remark::Log;
use crate::scalar::{
    boolean, capability, command, duration, integer, labels, pairs, strings, text,
};
use crate::tree::{Entry, Node, Value};
use crate::volume::{self, Volumes};
use crate::{Around, LABEL_IMAGE, access, deploy, health, order, paths, port};
use std::collections::BTreeMap;
use types::{
    Config, ContainerSpec, HostEntry, SCHEDULE_LABEL, STICKY_LABEL, Secret, ServiceSpec, TaskSpec,
    Ulimit, check_name,
};

/// What the other parts of the file say.
pub(crate) struct Stage<'a> {
    pub(crate) around: &'a Around<'a>,
    pub(crate) networks: Networks,
    pub(crate) volumes: Volumes,
    pub(crate) secrets: Files,
    pub(crate) configs: Files,
    /// The networks that services are on.
    pub(crate) used: Networks,
}

/// Keys that Docker ignores, too.
const IGNORED: [(&str, &str); 16] = [
    ("build", "skep runs images, it does not build them"),
    ("cgroupns_mode", "it has no effect in a cluster"),
    ("container_name", "a task's container is named after its service"),
    ("credential_spec", "it has no effect on Linux"),
    ("develop", "it has no effect in a cluster"),
    ("domainname", "it has no effect in a cluster"),
    ("expose", "services of one network reach each other on every port"),
    ("external_links", "services of one network find each other by name"),
    ("isolation", "it has no effect on Linux"),
    ("links", "services of one network find each other by name"),
    ("mac_address", "it has no effect in a cluster"),
    ("platform", "it has no effect in a cluster; use deploy.placement.constraints"),
    ("pull_policy", "an image is pulled where a node does not have it"),
    ("runtime", "it has no effect in a cluster"),
    ("annotations", "it has no effect in a cluster"),
    ("attach", "it has no effect in a cluster"),
];

/// Keys that would change what runs, and cannot be honoured.
const REFUSED: [(&str, &str); 11] = [
    ("scale", "use deploy.replicas"),
    ("cpu_quota", "set resource limits with deploy.resources"),
    ("cpu_shares", "set resource limits with deploy.resources"),
    ("cpus", "set resource limits with deploy.resources"),
    ("cpuset", "set resource limits with deploy.resources"),
    ("mem_limit", "set resource limits with deploy.resources"),
    ("mem_reservation", "set resource limits with deploy.resources"),
    ("pids_limit", "set resource limits with deploy.resources"),
    ("storage_opt", "what a container writes over its image is not limited by skep"),
    ("volume_driver", "name the driver of a volume in the top-level volumes"),
    ("volumes_from", "share a volume by naming it in the top-level volumes"),
];

/// A service, and what it names in `depends_on`.
pub(crate) struct Service<'a> {
    pub(crate) spec: ServiceSpec,
    pub(crate) needs: Vec<order::Named<'a>>,
}

/// Reads a service; `None` where it has no image, or none of its profiles is active.
pub(crate) fn service<'a>(
    entry: &'a Entry,
    stage: &mut Stage<'_>,
    log: &mut Log,
) -> Option<Service<'a>> {
    let around = stage.around;
    let mut fields = Fields::of(&entry.node, log);
    if let Some(node) = fields.take("profiles") {
        let profiles = strings(node, log);
        let is_active = |name: &String| name == "*" || profiles.contains(name);
        if !profiles.is_empty() && !around.profiles.iter().any(is_active) {
            log.warn(node, "not deployed: none of its profiles is active");
            return None;
        }
    }
    let needs = fields.take("depends_on").map(|node| order::named(node, log)).unwrap_or_default();
    let mut spec = ServiceSpec::default();
    let deploy = fields.take("deploy");
    if let Some(node) = deploy {
        deploy::deploy(node, &mut spec, log);
    }
    if let Some(node) = fields.take("x-schedule") {
        spec.labels.insert(SCHEDULE_LABEL.to_owned(), text(node, log));
    }
    if let Some(node) = fields.take("x-sticky") {
        let value = if boolean(node, log) { "on" } else { "off" };
        spec.labels.insert(STICKY_LABEL.to_owned(), value.to_owned());
    }
    let old_restart = fields.take("restart");
    if let Some(node) = old_restart
        && entry.node.child("deploy").and_then(|deploy| deploy.child("restart_policy")).is_none()
    {
        spec.task.restart = deploy::old_restart(node, log);
    }
    if let Some(node) = fields.take("ports") {
        spec.endpoint.ports = port::ports(node, log);
    }
    let networks = fields.take("networks");
    spec.task.networks = match fields.take("network_mode") {
        Some(mode) => network::of_node(mode, networks, &spec.endpoint.ports, log),
        None => network::attachments(networks, &entry.key, stage, log),
    };
    logging(&mut fields, &mut spec.task, log);
    access::swap(&mut fields, &mut spec.task.resources, log);
    // Those of reserved devices, which stand in `deploy`.
    let reserved = std::mem::take(&mut spec.task.container.labels);
    spec.task.container = container(&mut fields, stage, log);
    if let Some(node) = deploy {
        access::merge(reserved, node, &mut spec.task.container.labels, log);
    }
    access::access(&mut fields, &mut spec.task.container.labels, log);
    fields.ignore(&IGNORED, log);
    fields.refuse(&REFUSED, log);
    fields.finish(log);
    let image = spec.task.container.image.clone();
    if image.is_empty() {
        log.error_at(&entry.at, &entry.node.path, "a service needs an image");
        return None;
    }
    spec.name = scoped(around, &entry.key);
    if let Err(fault) = check_name(&spec.name) {
        log.error_at(&entry.at, &entry.node.path, format!("{:?}: {fault}", spec.name));
    }
    spec.labels = stack_labels(spec.labels, around);
    spec.labels.insert(LABEL_IMAGE.into(), image);
    let labels = &mut spec.task.container.labels;
    *labels = stack_labels(std::mem::take(labels), around);
    Some(Service { spec, needs })
}

fn logging(fields: &mut Fields<'_>, task: &mut TaskSpec, log: &mut Log) {
    let Some(node) = fields.take("logging") else { return };
    let mut fields = Fields::of(node, log);
    if let Some(node) = fields.take("driver") {
        task.log_driver = text(node, log);
    }
    if let Some(node) = fields.take("options") {
        task.log_options = labels(node, log);
    }
    fields.finish(log);
}

fn container(fields: &mut Fields<'_>, stage: &Stage<'_>, log: &mut Log) -> ContainerSpec {
    let mut spec = ContainerSpec::default();
    words(fields, &mut spec, log);
    if let Some(node) = fields.take("entrypoint") {
        spec.command = command(node, log);
    }
    if let Some(node) = fields.take("command") {
        spec.args = command(node, log);
    }
    if let Some(node) = fields.take("labels") {
        spec.labels = labels(node, log);
    }
    if let Some(node) = fields.take("sysctls") {
        spec.sysctls = labels(node, log);
    }
    spec.env = environment(fields, stage.around, log);
    if let Some(node) = fields.take("stop_grace_period") {
        spec.stop_grace_period = Some(duration(node, log));
    }
    if let Some(node) = fields.take("healthcheck") {
        spec.health = Some(health::health(node, log));
    }
    if let Some(node) = fields.take("init") {
        spec.init = Some(boolean(node, log));
    }
    if let Some(node) = fields.take("oom_score_adj") {
        spec.oom_score_adj = integer(node, log);
    }
    if let Some(node) = fields.take("security_opt") {
        spec.security = access::security(node, stage.around, log);
    }
    if let Some(node) = fields.take("extra_hosts") {
        spec.hosts = hosts(node, log);
    }
    if let Some(node) = fields.take("dns") {
        for text in strings(node, log) {
            match text.parse() {
                Ok(address) => spec.dns.nameservers.push(address),
                Err(_) => log.error(node, format!("{text:?} is not an address")),
            }
        }
    }
    if let Some(node) = fields.take("ulimits") {
        spec.ulimits = ulimits(node, log);
    }
    if let Some(node) = fields.take("volumes") {
        spec.mounts = volume::mounts(node, &stage.volumes, stage.around, log);
    }
    if let Some(node) = fields.take("tmpfs") {
        spec.mounts.extend(volume::tmpfs(node, log));
    }
    if let Some(node) = fields.take("secrets") {
        spec.secrets = file::references::<Secret>(node, &stage.secrets, log);
    }
    if let Some(node) = fields.take("configs") {
        spec.configs = file::references::<Config>(node, &stage.configs, log);
    }
    spec
}

/// The fields that are a word, a switch or a list of words.
fn words(fields: &mut Fields<'_>, spec: &mut ContainerSpec, log: &mut Log) {
    for (key, field) in [
        ("image", &mut spec.image),
        ("hostname", &mut spec.hostname),
        ("user", &mut spec.user),
        ("working_dir", &mut spec.dir),
        ("stop_signal", &mut spec.stop_signal),
    ] {
        if let Some(node) = fields.take(key) {
            *field = text(node, log);
        }
    }
    for (key, field) in [
        ("read_only", &mut spec.read_only),
        ("tty", &mut spec.tty),
        ("stdin_open", &mut spec.open_stdin),
    ] {
        if let Some(node) = fields.take(key) {
            *field = boolean(node, log);
        }
    }
    for (key, field) in [
        ("dns_search", &mut spec.dns.search),
        ("dns_opt", &mut spec.dns.options),
        ("group_add", &mut spec.groups),
    ] {
        if let Some(node) = fields.take(key) {
            *field = strings(node, log);
        }
    }
    for (key, field) in [("cap_add", &mut spec.cap_add), ("cap_drop", &mut spec.cap_drop)] {
        if let Some(node) = fields.take(key) {
            *field = strings(node, log).iter().map(|name| capability(name)).collect();
        }
    }
}

/// Reads `env_file`, then `environment` over it. The result is sorted, as Docker has it.
fn environment(fields: &mut Fields<'_>, around: &Around<'_>, log: &mut Log) -> Vec<String> {
    let mut env: BTreeMap<String, Option<String>> = BTreeMap::new();
    if let Some(node) = fields.take("env_file") {
        for (file, required) in env_files(node, log) {
            let path = paths::absolute(around.folder, &file);
            match (around.read)(&path) {
                Ok(text) => env.extend(variables(&String::from_utf8_lossy(&text), around)),
                Err(error) if required => {
                    log.error(node, format!("cannot read {}: {error}", path.display()));
                }
                Err(error) => {
                    log.warn(node, format!("left out: cannot read {}: {error}", path.display()));
                }
            }
        }
    }
    if let Some(node) = fields.take("environment") {
        for (name, value, node) in pairs(node, log) {
            if name.is_empty() {
                log.error(node, "a variable needs a name");
                continue;
            }
            // A name alone hands on the variable of whoever deploys.
            let value = value.or_else(|| around.env.get(&name).cloned());
            env.insert(name, value);
        }
    }
    env.into_iter()
        .map(|(name, value)| match value {
            Some(value) => format!("{name}={value}"),
            None => name,
        })
        .collect()
}

/// The files of `env_file`, and whether each must be there.
fn env_files(node: &Node, log: &mut Log) -> Vec<(String, bool)> {
    let Value::List(items) = &node.value else {
        return strings(node, log).into_iter().map(|path| (path, true)).collect();
    };
    items
        .iter()
        .filter_map(|item| match &item.value {
            Value::Map(_) => {
                let mut fields = Fields::of(item, log);
                let path = fields.take("path").map(|node| text(node, log));
                let required = fields.take("required").is_none_or(|node| boolean(node, log));
                if let Some(node) = fields.take("format")
                    && text(node, log) != "raw"
                {
                    log.error(node, "there is the format raw alone");
                }
                fields.finish(log);
                path.map(|path| (path, required))
            }
            Value::Null
            | Value::Bool(_)
            | Value::Int(_)
            | Value::Float(_)
            | Value::Text(_)
            | Value::List(_) => Some((text(item, log), true)),
        })
        .collect()
}

/// The variables of an env file: `NAME=VALUE` lines, with `#` comments; a name alone hands on the
/// variable of whoever deploys.
fn variables(text: &str, around: &Around<'_>) -> Vec<(String, Option<String>)> {
    text.trim_start_matches('\u{feff}')
        .lines()
        .map(str::trim_start)
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .filter_map(|line| {
            if let Some((name, value)) = line.split_once('=') {
                return Some((name.to_owned(), Some(value.to_owned())));
            }
            let name = line.trim_end();
            around.env.get(name).map(|value| (name.to_owned(), Some(value.clone())))
        })
        .collect()
}

/// Reads `extra_hosts`: `NAME:ADDRESS` or `NAME=ADDRESS`, or a mapping.
fn hosts(node: &Node, log: &mut Log) -> Vec<HostEntry> {
    let lines: Vec<(String, String, &Node)> = match &node.value {
        Value::List(items) => items
            .iter()
            .map(|item| {
                let line = text(item, log);
                let (name, address) = line.split_once(['=', ':']).unwrap_or((&line, ""));
                (name.to_owned(), address.to_owned(), item)
            })
            .collect(),
        Value::Null
        | Value::Bool(_)
        | Value::Int(_)
        | Value::Float(_)
        | Value::Text(_)
        | Value::Map(_) => entries(node, log)
            .iter()
            .map(|entry| (entry.key.clone(), text(&entry.node, log), &entry.node))
            .collect(),
    };
    lines
        .into_iter()
        .filter_map(|(name, address, node)| {
            if let Ok(address) = address.trim_matches(['[', ']']).parse() {
                return Some(HostEntry { address, names: vec![name] });
            }
            log.error(node, format!("should be NAME:ADDRESS; {address:?} is not an address"));
            None
        })
        .collect()
}

/// Reads `ulimits`, and sorts them as Docker does.
fn ulimits(node: &Node, log: &mut Log) -> Vec<Ulimit> {
    let mut limits: Vec<Ulimit> = entries(node, log)
        .iter()
        .map(|entry| {
            let mut limit = Ulimit { name: entry.key.clone(), soft: 0, hard: 0 };
            if let Value::Map(_) = &entry.node.value {
                let mut fields = Fields::of(&entry.node, log);
                match (fields.take("soft"), fields.take("hard")) {
                    (Some(soft), Some(hard)) => {
                        limit.soft = integer(soft, log);
                        limit.hard = integer(hard, log);
                    }
                    (_, _) => log.error(&entry.node, "needs both soft and hard"),
                }
                fields.finish(log);
            } else {
                limit.soft = integer(&entry.node, log);
                limit.hard = limit.soft;
            }
            limit
        })
        .collect();
    limits.sort_by(|one, other| one.name.cmp(&other.name));
    limits
}
