//! `skep service update`.

use super::create::{constraint, labels};
use super::flags::Flags;
use super::{parse, read, spec, write};
use crate::cli::plan::Plan;
use crate::cli::query::text;
use crate::cli::{file, progress, say};
use crate::client::Client;
use anyhow::{Result, bail};
use clap::Args;
use serde_json::Value;
use std::net::IpAddr;
use std::process::ExitCode;
use types::{
    ConfigId, FileReference, HostEntry, Labels, Mount, NetworkAttachment, Preference,
    PublishedPort, SecretId, ServiceSpec, Ulimit,
};

#[derive(Args, Debug)]
pub(crate) struct Update {
    #[arg(value_name = "SERVICE")]
    name: String,
    /// Run this image
    #[arg(long)]
    image: Option<String>,
    /// What to run instead of the image's command
    #[arg(long, value_name = "COMMAND", allow_hyphen_values = true)]
    args: Option<String>,
    /// Replace every task though nothing else changes
    #[arg(long)]
    force: bool,
    /// Go back to the spec before the last update, which nothing else can change
    #[arg(long, conflicts_with_all = ["image", "args", "force", "Added", "Removed", "replicas",
        "max_concurrent", "replicas_max_per_node", "endpoint_mode", "log_driver", "log_opt",
        "ContainerFlags", "HealthFlags", "ResourceFlags", "RestartFlags", "UpdateFlags",
        "RollbackFlags", "Images"])]
    rollback: bool,
    #[command(flatten)]
    added: Added,
    #[command(flatten)]
    removed: Removed,
    #[command(flatten)]
    flags: Flags,
    #[command(flatten)]
    waiting: progress::Waiting,
}

/// What is added to lists of the spec, or takes the place of what is there.
#[derive(Args, Debug)]
#[expect(clippy::struct_field_names, reason = "they are the flags' names")]
struct Added {
    /// Set a variable
    #[arg(long, value_name = "NAME=VALUE")]
    env_add: Vec<String>,
    /// Publish a port
    #[arg(long, value_name = "PORT", value_parser = parse::publish)]
    publish_add: Vec<parse::Ports>,
    /// Keep so many of what nodes have for it, e.g. gpu=2
    #[arg(long, value_name = "KIND=COUNT", value_parser = parse::generic)]
    generic_resource_add: Vec<(String, u64)>,
    /// Add a constraint
    #[arg(long, value_name = "CONSTRAINT", value_parser = constraint)]
    constraint_add: Vec<String>,
    /// Add a preference
    #[arg(long, value_name = "PREF", value_parser = parse::preference)]
    placement_pref_add: Vec<Preference>,
    /// Label the service
    #[arg(long, value_name = "KEY=VALUE")]
    label_add: Vec<String>,
    /// Label its containers
    #[arg(long, value_name = "KEY=VALUE")]
    container_label_add: Vec<String>,
    /// Mount something
    #[arg(long, value_name = "MOUNT", value_parser = parse::mount)]
    mount_add: Vec<Mount>,
    /// Give it a secret as a file
    #[arg(long, value_name = "SECRET", value_parser = file::reference::<SecretId>)]
    secret_add: Vec<FileReference<SecretId>>,
    /// Give it a config as a file
    #[arg(long, value_name = "CONFIG", value_parser = file::reference::<ConfigId>)]
    config_add: Vec<FileReference<ConfigId>>,
    /// Attach it to a network
    #[arg(long, value_name = "NETWORK", value_parser = parse::network)]
    network_add: Vec<NetworkAttachment>,
    /// Add a line to /etc/hosts
    #[arg(long, value_name = "NAME:ADDRESS", value_parser = parse::host)]
    host_add: Vec<HostEntry>,
    /// Add a DNS server
    #[arg(long, value_name = "ADDRESS")]
    dns_add: Vec<IpAddr>,
    /// Add an option of resolv.conf
    #[arg(long, value_name = "OPTION")]
    dns_option_add: Vec<String>,
    /// Add a domain to look names up in
    #[arg(long, value_name = "DOMAIN")]
    dns_search_add: Vec<String>,
    /// Add a group of the user
    #[arg(long, value_name = "GROUP")]
    group_add: Vec<String>,
    /// Set a kernel parameter
    #[arg(long, value_name = "KEY=VALUE")]
    sysctl_add: Vec<String>,
    /// Set a limit
    #[arg(long, value_name = "NAME=SOFT[:HARD]", value_parser = parse::ulimit)]
    ulimit_add: Vec<Ulimit>,
}

/// What is removed from lists of the spec.
#[derive(Args, Debug)]
#[expect(clippy::struct_field_names, reason = "they are the flags' names")]
struct Removed {
    /// Unset a variable
    #[arg(long, value_name = "NAME")]
    env_rm: Vec<String>,
    /// By target port, protocol and mode
    #[arg(long, value_name = "PORT", value_parser = parse::publish)]
    publish_rm: Vec<parse::Ports>,
    /// Keep none of a kind of what nodes have
    #[arg(long, value_name = "KIND")]
    generic_resource_rm: Vec<String>,
    /// Remove a constraint
    #[arg(long, value_name = "CONSTRAINT")]
    constraint_rm: Vec<String>,
    /// Remove a preference
    #[arg(long, value_name = "PREF", value_parser = parse::preference)]
    placement_pref_rm: Vec<Preference>,
    /// Remove a label
    #[arg(long, value_name = "KEY")]
    label_rm: Vec<String>,
    /// Remove a label of its containers
    #[arg(long, value_name = "KEY")]
    container_label_rm: Vec<String>,
    /// By target
    #[arg(long, value_name = "PATH")]
    mount_rm: Vec<String>,
    /// By name
    #[arg(long, value_name = "SECRET")]
    secret_rm: Vec<String>,
    /// By name
    #[arg(long, value_name = "CONFIG")]
    config_rm: Vec<String>,
    /// Take it off a network
    #[arg(long, value_name = "NETWORK")]
    network_rm: Vec<String>,
    /// Remove a name from /etc/hosts, everywhere or where it has this address
    #[arg(long, value_name = "NAME[:ADDRESS]", value_parser = parse::host_removal)]
    host_rm: Vec<parse::HostRemoval>,
    /// Remove a DNS server
    #[arg(long, value_name = "ADDRESS")]
    dns_rm: Vec<IpAddr>,
    /// Remove an option of resolv.conf
    #[arg(long, value_name = "OPTION")]
    dns_option_rm: Vec<String>,
    /// Remove a domain
    #[arg(long, value_name = "DOMAIN")]
    dns_search_rm: Vec<String>,
    /// Remove a group
    #[arg(long, value_name = "GROUP")]
    group_rm: Vec<String>,
    /// Remove a kernel parameter
    #[arg(long, value_name = "KEY")]
    sysctl_rm: Vec<String>,
    /// Remove a limit
    #[arg(long, value_name = "NAME")]
    ulimit_rm: Vec<String>,
}

pub(super) async fn run(client: &Client, verb: Update) -> Result<()> {
    let service = read(client, &verb.name).await?;
    let id = text(&service, "/ID").to_owned();
    if verb.rollback {
        let version = &service["Version"]["Index"];
        let path = format!("/services/{id}/update?version={version}&rollback=previous");
        client.order(&path, &service["Spec"]).await?;
    } else {
        let (spec, client) = changed(client, &verb, spec(&service)?).await?;
        write(&client, &service, &spec).await?;
    }
    say(&verb.name);
    verb.waiting.wait(client, &id).await
}

/// Shows what an update would do, and changes nothing.
pub(super) async fn plan(client: &Client, verb: &Update) -> Result<ExitCode> {
    let service = read(client, &verb.name).await?;
    let before = spec(&service)?;
    let after = if verb.rollback {
        if service["PreviousSpec"].is_null() {
            bail!("service {} does not have a previous spec", verb.name);
        }
        engine_api::parse_service_spec(&service["PreviousSpec"])?
    } else {
        changed(client, verb, before.clone()).await?.0
    };
    let mut plan = Plan::default();
    plan.service(Some(&before), &after)?;
    Ok(plan.print())
}

/// A service's spec as the user wants it, and the client to send it by.
async fn changed(
    client: &Client,
    verb: &Update,
    mut spec: ServiceSpec,
) -> Result<(ServiceSpec, Client)> {
    // The store knows networks by id; the user by name.
    let added = named_networks(client, &verb.added.network_add).await?;
    let removed = ids(client, &verb.removed.network_rm).await?;
    spec.task.networks.retain(|attachment| !removed.contains(&attachment.target.to_string()));
    for attachment in added {
        spec.task.networks.retain(|old| old.target != attachment.target);
        spec.task.networks.push(attachment);
    }
    verb.write(&mut spec)?;
    file::resolve(client, &mut spec.task.container).await?;
    let images = verb.flags.images;
    let client = if verb.image.is_some() {
        images.prepare(client, &mut spec).await?
    } else {
        images.client(client, &spec.task.container.image)?
    };
    Ok((spec, client))
}

async fn ids(client: &Client, names: &[String]) -> Result<Vec<String>> {
    let mut ids = Vec::new();
    for name in names {
        let path = format!("/networks/{}", crate::client::escape(name));
        let network: Value = client.get(&path).await?;
        ids.push(text(&network, "/Id").to_owned());
    }
    Ok(ids)
}

async fn named_networks(
    client: &Client,
    wanted: &[NetworkAttachment],
) -> Result<Vec<NetworkAttachment>> {
    let names: Vec<String> = wanted.iter().map(|wish| wish.target.to_string()).collect();
    let ids = ids(client, &names).await?;
    let attachments = wanted.iter().zip(ids);
    Ok(attachments
        .map(|(wish, id)| NetworkAttachment { target: id.into(), aliases: wish.aliases.clone() })
        .collect())
}

fn change_labels(labels_of: &mut Labels, added: &[String], removed: &[String]) {
    for key in removed {
        labels_of.remove(key);
    }
    labels_of.extend(labels(added));
}

/// Removes, then adds what is not there yet.
fn change<T: PartialEq + Clone>(list: &mut Vec<T>, added: &[T], removed: &[T]) {
    list.retain(|item| !removed.contains(item));
    for item in added {
        if !list.contains(item) {
            list.push(item.clone());
        }
    }
}

/// Takes names out of every line that they are on; a line goes with its last name.
fn remove_hosts(hosts: &mut Vec<HostEntry>, removed: &[parse::HostRemoval]) {
    for gone in removed {
        let there = |host: &HostEntry| gone.address.is_none_or(|address| address == host.address);
        for host in hosts.iter_mut().filter(|host| there(host)) {
            host.names.retain(|name| *name != gone.name);
        }
    }
    hosts.retain(|host| !host.names.is_empty());
}

impl Update {
    /// Changes everything in `spec` but its networks.
    fn write(&self, spec: &mut ServiceSpec) -> Result<()> {
        self.flags.write(spec)?;
        let (added, removed) = (&self.added, &self.removed);
        change_labels(&mut spec.labels, &added.label_add, &removed.label_rm);
        let placement = &mut spec.task.placement;
        change(&mut placement.constraints, &added.constraint_add, &removed.constraint_rm);
        change(&mut placement.preferences, &added.placement_pref_add, &removed.placement_pref_rm);
        for kind in &removed.generic_resource_rm {
            if spec.task.generic.remove(kind).is_none() {
                bail!("could not find generic-resource `{kind}` to remove it");
            }
        }
        spec.task.generic.extend(added.generic_resource_add.iter().cloned());
        self.write_ports(spec);
        self.write_container(spec)?;
        if self.force {
            spec.task.force_update += 1;
        }
        Ok(())
    }

    fn write_ports(&self, spec: &mut ServiceSpec) {
        let ports = &mut spec.endpoint.ports;
        for gone in self.removed.publish_rm.iter().flat_map(|ports| &ports.0) {
            let key = |port: &PublishedPort| (port.target, port.protocol, port.mode);
            ports.retain(|port| key(port) != key(gone));
        }
        for port in self.added.publish_add.iter().flat_map(|ports| &ports.0) {
            ports.retain(|old| {
                let same = (old.published, old.protocol) == (port.published, port.protocol);
                !same || port.published == 0
            });
            ports.push(port.clone());
        }
    }

    fn write_container(&self, spec: &mut ServiceSpec) -> Result<()> {
        let (added, removed) = (&self.added, &self.removed);
        let container = &mut spec.task.container;
        if let Some(image) = &self.image {
            container.image.clone_from(image);
        }
        if let Some(line) = &self.args {
            let Some(words) = compose::split(line) else {
                bail!("a quote in --args is not closed")
            };
            container.args = words;
        }
        container.env.retain(|old| !removed.env_rm.iter().any(|name| parse::key(old) == name));
        for word in &added.env_add {
            container.env.retain(|old| parse::key(old) != parse::key(word));
            container.env.push(parse::variable(word));
        }
        change_labels(
            &mut container.labels,
            &added.container_label_add,
            &removed.container_label_rm,
        );
        container.mounts.retain(|mount| !removed.mount_rm.contains(&mount.target));
        for mount in &added.mount_add {
            container.mounts.retain(|old| old.target != mount.target);
            container.mounts.push(mount.clone());
        }
        container.secrets.retain(|it| !removed.secret_rm.contains(&it.name));
        container.secrets.extend(added.secret_add.iter().cloned());
        container.configs.retain(|it| !removed.config_rm.contains(&it.name));
        container.configs.extend(added.config_add.iter().cloned());
        remove_hosts(&mut container.hosts, &removed.host_rm);
        change(&mut container.hosts, &added.host_add, &[]);
        change(&mut container.dns.nameservers, &added.dns_add, &removed.dns_rm);
        change(&mut container.dns.options, &added.dns_option_add, &removed.dns_option_rm);
        change(&mut container.dns.search, &added.dns_search_add, &removed.dns_search_rm);
        change(&mut container.groups, &added.group_add, &removed.group_rm);
        change_labels(&mut container.sysctls, &added.sysctl_add, &removed.sysctl_rm);
        container.ulimits.retain(|limit| {
            let again = added.ulimit_add.iter().any(|new| new.name == limit.name);
            !again && !removed.ulimit_rm.contains(&limit.name)
        });
        container.ulimits.extend(added.ulimit_add.iter().cloned());
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::{CommandFactory, Parser};

    #[derive(Parser, Debug)]
    struct Line {
        #[command(flatten)]
        update: Update,
    }

    fn update(spec: &mut ServiceSpec, words: &[&str]) -> Result<()> {
        let words = ["update"].iter().chain(words).chain(&["web"]);
        Line::try_parse_from(words)?.update.write(spec)
    }

    #[test]
    fn what_is_not_named_stays_and_what_is_named_changes() {
        let mut spec = ServiceSpec::default();
        spec.task.container.env = vec!["A=1".into(), "B=2".into()];
        spec.endpoint.ports = parse::publish("8080:80").unwrap().0;
        let before = spec.clone();
        update(&mut spec, &[]).unwrap();
        assert_eq!(spec, before);
        update(
            &mut spec,
            &[
                "--env-rm",
                "A",
                "--env-add",
                "B=3",
                "--env-add",
                "C=4",
                "--publish-rm",
                "80",
                "--publish-add",
                "9090:90",
                "--replicas",
                "0",
                "--force",
                "--args",
                "-x 'a b'",
                "--image",
                "nginx:2",
                "--constraint-add",
                "node.role==worker",
            ],
        )
        .unwrap();
        let container = &spec.task.container;
        assert_eq!(container.env, ["B=3", "C=4"]);
        assert_eq!(container.args, ["-x", "a b"]);
        assert_eq!((container.image.as_str(), spec.task.force_update), ("nginx:2", 1));
        let ports: Vec<u16> = spec.endpoint.ports.iter().map(|port| port.published).collect();
        assert_eq!(ports, [9090]);
        assert_eq!(spec.mode, types::ServiceMode::Replicated { replicas: 0 });
        assert_eq!(spec.task.placement.constraints, ["node.role==worker"]);
    }

    #[test]
    fn ports_are_removed_by_target_protocol_and_mode() {
        for (given, left) in [
            ("80", 3),
            ("80/TCP", 3),
            ("80-81", 2),
            ("80/udp", 3),
            ("90", 4),
            ("target=80,mode=host", 3),
            ("target=81,mode=host", 4),
        ] {
            let mut spec = ServiceSpec::default();
            let host = "target=80,published=9090,mode=host";
            for port in ["8080:80", "8081:81", "8080:80/udp", host] {
                spec.endpoint.ports.extend(parse::publish(port).unwrap().0);
            }
            update(&mut spec, &["--publish-rm", given]).unwrap();
            assert_eq!(spec.endpoint.ports.len(), left, "{given}");
        }
        for wrong in ["x", "80/xyz", "0", ""] {
            assert!(update(&mut ServiceSpec::default(), &["--publish-rm", wrong]).is_err());
        }
    }

    #[test]
    fn another_log_driver_has_the_options_of_the_line_alone() {
        let mut spec = ServiceSpec::default();
        let options = |spec: &ServiceSpec| {
            let pairs = spec.task.log_options.iter().map(|(key, value)| format!("{key}={value}"));
            (spec.task.log_driver.clone(), pairs.collect::<Vec<_>>().join(" "))
        };
        update(&mut spec, &["--log-driver", "json-file", "--log-opt", "labels=a"]).unwrap();
        assert_eq!(options(&spec), ("json-file".to_owned(), "labels=a".to_owned()));
        update(&mut spec, &["--log-opt", "max-size=1m"]).unwrap();
        assert_eq!(options(&spec).1, "labels=a max-size=1m");
        update(&mut spec, &["--log-driver", "local", "--log-opt", "max-file=2"]).unwrap();
        assert_eq!(options(&spec), ("local".to_owned(), "max-file=2".to_owned()));
        update(&mut spec, &["--log-driver", "local"]).unwrap();
        assert_eq!(options(&spec), ("local".to_owned(), String::new()));
    }

    #[test]
    fn a_host_is_removed_by_its_name_alone_or_at_one_address() {
        for (given, left) in [
            (&["db"][..], "10.0.0.1=database 10.0.0.2=cache"),
            (&["db:10.0.0.3"], "10.0.0.1=db,database 10.0.0.2=cache"),
            (&["database:10.0.0.1", "cache"], "10.0.0.1=db 10.0.0.3=db"),
            (&["db:10.0.0.1", "database"], "10.0.0.2=cache 10.0.0.3=db"),
            (&["db:::1", "nobody"], "10.0.0.1=db,database 10.0.0.2=cache 10.0.0.3=db"),
        ] {
            let mut spec = ServiceSpec::default();
            for (address, names) in
                [("10.0.0.1", "db,database"), ("10.0.0.2", "cache"), ("10.0.0.3", "db")]
            {
                let names = names.split(',').map(str::to_owned).collect();
                let address = address.parse().unwrap();
                spec.task.container.hosts.push(HostEntry { address, names });
            }
            let words: Vec<&str> = given.iter().flat_map(|name| ["--host-rm", *name]).collect();
            update(&mut spec, &words).unwrap();
            let line = |host: &HostEntry| format!("{}={}", host.address, host.names.join(","));
            let shown: Vec<_> = spec.task.container.hosts.iter().map(line).collect();
            assert_eq!(shown.join(" "), left, "{given:?}");
        }
        let wrong = ["--host-rm", "db:nowhere"];
        assert!(update(&mut ServiceSpec::default(), &wrong).is_err());
    }

    #[test]
    fn a_rollback_goes_with_no_flag_that_changes_something() {
        let command = Line::command();
        let rollback = command.get_arguments().find(|flag| *flag.get_id() == "rollback").unwrap();
        let refused = command.get_arg_conflicts_with(rollback);
        let free: Vec<&str> = command
            .get_arguments()
            .filter(|flag| !refused.iter().any(|other| other.get_id() == flag.get_id()))
            .map(|flag| flag.get_id().as_str())
            .collect();
        assert_eq!(free, ["name", "rollback", "detach", "quiet"]);
        let line = |words: &[&str]| {
            let words = ["update", "web", "--rollback"].iter().chain(words);
            Line::try_parse_from(words)
        };
        assert!(line(&["--detach", "--quiet"]).is_ok());
        for words in [["--image", "x"], ["--env-rm", "A"], ["--restart-delay", "1s"]] {
            assert!(line(&words).is_err(), "{words:?}");
        }
    }

    #[test]
    fn no_health_check_has_settings_and_settings_bring_one_back() {
        let mut spec = ServiceSpec::default();
        for flag in ["cmd", "interval", "retries", "start-interval", "start-period", "timeout"] {
            let value = if flag == "retries" { "5" } else { "5s" };
            let flag = format!("--health-{flag}");
            assert!(update(&mut spec, &["--no-healthcheck", &flag, value]).is_err(), "{flag}");
        }
        update(&mut spec, &["--no-healthcheck"]).unwrap();
        update(&mut spec, &[]).unwrap();
        assert_eq!(spec.task.container.health.as_ref().unwrap().test, ["NONE"]);
        update(&mut spec, &["--health-interval", "5s"]).unwrap();
        let health = spec.task.container.health.clone().unwrap();
        assert_eq!((health.test.len(), health.interval.as_secs()), (0, 5));
    }
}
