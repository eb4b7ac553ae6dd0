//! `skep service create`.

use super::flags::Flags;
use super::parse;
use crate::cli::{file, progress, say};
use crate::client::Client;
use anyhow::{Context, Result};
use clap::Args;
use serde_json::Value;
use std::net::IpAddr;
use std::path::PathBuf;
use types::{
    ConfigId, FileReference, HostEntry, Labels, Mount, NetworkAttachment, Placement, Preference,
    SecretId, ServiceMode, ServiceSpec, Ulimit,
};

#[derive(Args, Debug)]
pub(crate) struct Create {
    /// The service's name
    #[arg(long, default_value = "", hide_default_value = true)]
    name: String,
    /// replicated or global, or a job: replicated-job or global-job
    #[arg(long, default_value = "replicated",
        value_parser = ["replicated", "global", "replicated-job", "global-job"])]
    mode: String,
    /// Publish a port: PUBLISHED:TARGET/PROTOCOL (or less), or published=…,target=…,mode=host
    #[arg(short, long, value_name = "PORT", value_parser = parse::publish)]
    publish: Vec<parse::Ports>,
    /// Attach the service to a network: a name, or name=…,alias=…
    #[arg(long, value_parser = parse::network)]
    network: Vec<NetworkAttachment>,
    /// Set a variable
    #[arg(short, long, value_name = "NAME=VALUE")]
    env: Vec<String>,
    /// Read variables from a file
    #[arg(long, value_name = "FILE")]
    env_file: Vec<PathBuf>,
    /// Mount something: type=bind|volume|tmpfs,source=…,target=… and readonly
    #[arg(long, value_parser = parse::mount)]
    mount: Vec<Mount>,
    /// Give it a secret as a file: a name, or source=…,target=…,uid=…,gid=…,mode=0400
    #[arg(long, value_parser = file::reference::<SecretId>)]
    secret: Vec<FileReference<SecretId>>,
    /// Give it a config as a file, in the same way
    #[arg(long, value_parser = file::reference::<ConfigId>)]
    config: Vec<FileReference<ConfigId>>,
    /// Run tasks only where this holds, e.g. node.role==worker
    #[arg(long, value_parser = constraint)]
    constraint: Vec<String>,
    /// Spread tasks: spread=node.labels.KEY
    #[arg(long, value_name = "PREF", value_parser = parse::preference)]
    placement_pref: Vec<Preference>,
    /// Keep so many of what nodes have for it, e.g. gpu=2
    #[arg(long, value_name = "KIND=COUNT", value_parser = parse::generic)]
    generic_resource: Vec<(String, u64)>,
    /// Label the service
    #[arg(short, long, value_name = "KEY=VALUE")]
    label: Vec<String>,
    /// Label its containers
    #[arg(long, value_name = "KEY=VALUE")]
    container_label: Vec<String>,
    /// Add a line to /etc/hosts, NAME:ADDRESS
    #[arg(long, value_parser = parse::host)]
    host: Vec<HostEntry>,
    /// A DNS server for other names
    #[arg(long, value_name = "ADDRESS")]
    dns: Vec<IpAddr>,
    /// An option for resolv.conf
    #[arg(long, value_name = "OPTION")]
    dns_option: Vec<String>,
    /// A domain to look names up in
    #[arg(long, value_name = "DOMAIN")]
    dns_search: Vec<String>,
    /// Further groups of the user
    #[arg(long)]
    group: Vec<String>,
    /// Set a kernel parameter of its namespaces
    #[arg(long, value_name = "KEY=VALUE")]
    sysctl: Vec<String>,
    /// Limit what its processes may use
    #[arg(long, value_name = "NAME=SOFT[:HARD]", value_parser = parse::ulimit)]
    ulimit: Vec<Ulimit>,
    #[command(flatten)]
    flags: Flags,
    #[command(flatten)]
    waiting: progress::Waiting,
    /// The image to run
    image: String,
    /// What to run instead of the image's command
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "COMMAND")]
    args: Vec<String>,
}

/// A constraint, checked before it travels.
pub(super) fn constraint(text: &str) -> Result<String, types::ConstraintError> {
    Placement::check(text).map(|()| text.to_owned())
}

/// `KEY=VALUE` words as labels.
pub(super) fn labels(words: &[String]) -> Labels {
    let pair = |word: &String| {
        let (key, value) = word.split_once('=').unwrap_or((word, ""));
        (key.to_owned(), value.to_owned())
    };
    words.iter().map(pair).collect()
}

impl Create {
    /// The spec that the flags describe.
    fn spec(self) -> Result<(ServiceSpec, progress::Waiting)> {
        let mut spec = ServiceSpec { name: self.name, ..ServiceSpec::default() };
        spec.mode = match self.mode.as_str() {
            "global" => ServiceMode::Global,
            "global-job" => ServiceMode::GlobalJob,
            "replicated-job" => {
                ServiceMode::ReplicatedJob { max_concurrent: 1, total_completions: 1 }
            }
            _ => ServiceMode::default(),
        };
        self.flags.write(&mut spec)?;
        // All at once where nothing else is said.
        if let (ServiceMode::ReplicatedJob { max_concurrent, total_completions }, None) =
            (&mut spec.mode, self.flags.max_concurrent)
        {
            *max_concurrent = *total_completions;
        }
        spec.labels = labels(&self.label);
        spec.endpoint.ports = self.publish.into_iter().flat_map(|ports| ports.0).collect();
        spec.task.networks = self.network;
        spec.task.placement.constraints = self.constraint;
        spec.task.placement.preferences = self.placement_pref;
        spec.task.generic = self.generic_resource.into_iter().collect();
        let container = &mut spec.task.container;
        container.image = self.image;
        container.args = self.args;
        for file in &self.env_file {
            let text = std::fs::read_to_string(file)
                .with_context(|| format!("cannot read {}", file.display()))?;
            let lines = text.lines().map(str::trim_start);
            let lines = lines.filter(|line| !line.is_empty() && !line.starts_with('#'));
            container.env.extend(lines.map(parse::variable));
        }
        for word in &self.env {
            container.env.retain(|old| parse::key(old) != parse::key(word));
            container.env.push(parse::variable(word));
        }
        container.mounts = self.mount;
        container.secrets = self.secret;
        container.configs = self.config;
        container.labels = labels(&self.container_label);
        container.hosts = self.host;
        container.dns.nameservers = self.dns;
        container.dns.options = self.dns_option;
        container.dns.search = self.dns_search;
        container.groups = self.group;
        container.sysctls = labels(&self.sysctl);
        container.ulimits = self.ulimit;
        Ok((spec, self.waiting))
    }
}

pub(super) async fn run(client: &Client, verb: Create) -> Result<()> {
    let images = verb.flags.images;
    let (mut spec, waiting) = verb.spec()?;
    file::resolve(client, &mut spec.task.container).await?;
    let client = &images.prepare(client, &mut spec).await?;
    let body = engine_api::render_service_spec(&spec);
    let created: Value = client.post("/services/create", &body).await?;
    let id = created["ID"].as_str().unwrap_or_default();
    for warning in crate::cli::query::list(&created, "/Warnings") {
        crate::cli::warn(&format!("WARNING: {}", warning.as_str().unwrap_or_default()));
    }
    say(id);
    waiting.wait(client, id).await
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;
    use expect_test::expect;

    #[derive(Parser, Debug)]
    struct Line {
        #[command(flatten)]
        create: Create,
    }

    fn parse(line: &str) -> Result<ServiceSpec, String> {
        let words = ["create"].into_iter().chain(line.split_whitespace());
        let line = Line::try_parse_from(words).map_err(|error| error.to_string())?;
        line.create.spec().map(|(spec, _)| spec).map_err(|error| error.to_string())
    }

    #[test]
    fn flags_come_before_the_image_and_arguments_after() {
        let spec = parse(
            "--detach --name web --replicas 3 -p 8080:80 --network front -e A=1 --constraint node.role==worker \
             --limit-memory 50M --update-order start-first --health-cmd true --stop-grace-period 1s -t \
             --cap-add NET_ADMIN --label a=b nginx:1.25 sh -c --detach",
        )
        .unwrap();
        let container = &spec.task.container;
        expect![[r#"
            web Replicated { replicas: 3 }
            nginx:1.25 ["sh", "-c", "--detach"] ["A=1"]
            PublishedPort { name: "", protocol: Tcp, target: 80, published: 8080, mode: Ingress }
            [NetworkAttachment { target: NetworkId("front"), aliases: [] }]
            ["node.role==worker"] Resources { limit_nano_cpus: 0, limit_memory: 52428800, limit_pids: 0, reserve_nano_cpus: 0, reserve_memory: 0, swap: None, swappiness: None }
            Some(["CMD-SHELL", "true"]) StartFirst"#]].assert_eq(&format!(
            "{} {:?}\n{} {:?} {:?}\n{:?}\n{:?}\n{:?} {:?}\n{:?} {:?}",
            spec.name,
            spec.mode,
            container.image,
            container.args,
            container.env,
            spec.endpoint.ports[0],
            spec.task.networks,
            spec.task.placement.constraints,
            spec.task.resources,
            container.health.as_ref().map(|health| &health.test),
            spec.update.order,
        ));
    }

    #[test]
    fn a_job_says_how_many_complete_and_how_many_run_at_once() {
        let job = |max_concurrent, total_completions| ServiceMode::ReplicatedJob {
            max_concurrent,
            total_completions,
        };
        for (line, mode) in [
            ("--mode replicated-job i", job(1, 1)),
            ("--mode replicated-job --replicas 5 i", job(5, 5)),
            ("--mode replicated-job --replicas 5 --max-concurrent 2 i", job(2, 5)),
            ("--mode global-job i", ServiceMode::GlobalJob),
        ] {
            assert_eq!(parse(line).unwrap().mode, mode, "{line}");
        }
    }

    #[test]
    fn wrong_flags_are_refused_with_a_reason() {
        for (line, word) in [
            ("--publish 80:80:80:80 i", "invalid port"),
            ("--mode job i", "replicated"),
            ("--constraint a=b i", "operator"),
            ("--limit-memory x i", "bytes"),
            ("--mode global --replicas 2 i", "replicated or replicated-job mode"),
            ("--mode global-job --replicas 2 i", "replicated or replicated-job mode"),
            ("--mode global-job --max-concurrent 2 i", "replicated-job mode"),
            ("--max-concurrent 2 i", "replicated-job mode"),
            ("--mode global-job --update-parallelism 2 i", "not supported for jobs"),
            ("--imagee i", "unexpected"),
            ("", "required"),
        ] {
            let error = parse(line).unwrap_err();
            assert!(error.contains(word), "{line}: {error}");
        }
    }
}
