//! Services: `ServiceSpec` both ways, `Service` on the way out.

use super::network::with_prefix;
use super::task_template::{AttachmentJson, TaskTemplateJson};
use super::{nanos, not_negative, with_meta};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use types::{
    EndpointMode, EndpointSpec, FailureAction, Fault, Labels, Network, NetworkId, Protocol,
    PublishMode, PublishedPort, Service, ServiceMode, ServiceSpec, UpdateConfig, UpdateOrder,
};

#[derive(Debug, Default, Deserialize, Serialize)]
#[serde(rename = "ServiceSpec", rename_all = "PascalCase", default)]
pub(crate) struct ServiceSpecJson {
    name: String,
    labels: Labels,
    task_template: TaskTemplateJson,
    mode: ModeJson,
    #[serde(skip_serializing_if = "Option::is_none")]
    update_config: Option<UpdateJson>,
    #[serde(skip_serializing_if = "Option::is_none")]
    rollback_config: Option<UpdateJson>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    networks: Vec<AttachmentJson>,
    #[serde(skip_serializing_if = "Option::is_none")]
    endpoint_spec: Option<EndpointJson>,
}

#[derive(Debug, Default, Deserialize, Serialize)]
#[serde(rename = "ServiceMode", rename_all = "PascalCase", default)]
struct ModeJson {
    #[serde(skip_serializing_if = "Option::is_none")]
    replicated: Option<ReplicatedJson>,
    #[serde(skip_serializing_if = "Option::is_none")]
    global: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    replicated_job: Option<ReplicatedJobJson>,
    #[serde(skip_serializing_if = "Option::is_none")]
    global_job: Option<Value>,
}

#[derive(Debug, Default, Deserialize, Serialize)]
#[serde(rename = "ReplicatedService", rename_all = "PascalCase", default)]
struct ReplicatedJson {
    replicas: Option<u64>,
}

#[derive(Debug, Default, Deserialize, Serialize)]
#[serde(rename = "ReplicatedJob", rename_all = "PascalCase", default)]
struct ReplicatedJobJson {
    max_concurrent: Option<u64>,
    total_completions: Option<u64>,
}

#[derive(Debug, Default, Deserialize, Serialize)]
#[serde(rename = "EndpointSpec", rename_all = "PascalCase", default)]
struct EndpointJson {
    #[serde(skip_serializing_if = "String::is_empty")]
    mode: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    ports: Vec<PortJson>,
}

#[derive(Debug, Default, Deserialize, Serialize)]
#[serde(rename = "PortConfig", rename_all = "PascalCase", default)]
pub(crate) struct PortJson {
    #[serde(skip_serializing_if = "String::is_empty")]
    name: String,
    protocol: String,
    target_port: u32,
    #[serde(skip_serializing_if = "is_no_port")]
    published_port: u32,
    publish_mode: String,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_no_port(port: &u32) -> bool {
    *port == 0
}

/// What it leaves out is zero, which is all tasks at once; the usual one tells where there is no
/// such object.
#[derive(Debug, Default, Deserialize, Serialize)]
#[serde(rename = "UpdateConfig", rename_all = "PascalCase", default)]
struct UpdateJson {
    parallelism: u64,
    delay: i64,
    failure_action: String,
    monitor: i64,
    max_failure_ratio: f32,
    order: String,
}

impl ServiceSpecJson {
    /// Reads a spec; refuses what Skep does not have. Network targets stay as the user wrote them.
    pub(crate) fn parse(self) -> Result<ServiceSpec, Fault> {
        let template = self.task_template;
        // Older clients put the networks beside the template.
        let networks = if template.networks.is_empty() { self.networks } else { Vec::new() };
        let mut task = template.parse()?;
        if task.networks.is_empty() {
            task.networks = networks.into_iter().map(AttachmentJson::parse).collect();
        }
        let mode = self.mode.parse()?;
        if mode.is_job() && self.update_config.is_some() {
            return Err(Fault::invalid("Jobs may not have an update config"));
        }
        if mode.is_job() && self.rollback_config.is_some() {
            let text = "update and rollback configuration is not supported for jobs";
            return Err(Fault::invalid(text));
        }
        let update = self.update_config.map_or(Ok(UpdateConfig::default()), UpdateJson::parse)?;
        let rollback =
            self.rollback_config.map_or(Ok(UpdateConfig::default()), UpdateJson::parse)?;
        Ok(ServiceSpec {
            name: self.name,
            labels: self.labels,
            task: task.into(),
            mode,
            endpoint: self.endpoint_spec.unwrap_or_default().parse()?,
            update,
            rollback,
        })
    }

    pub(crate) fn render(spec: &ServiceSpec) -> Self {
        let update = |config| (!spec.mode.is_job()).then(|| UpdateJson::render(config));
        Self {
            name: spec.name.clone(),
            labels: spec.labels.clone(),
            task_template: TaskTemplateJson::render(&spec.task),
            mode: ModeJson::render(spec.mode),
            update_config: update(&spec.update),
            rollback_config: update(&spec.rollback),
            networks: Vec::new(),
            endpoint_spec: Some(EndpointJson::render(&spec.endpoint)),
        }
    }
}

impl ModeJson {
    fn parse(self) -> Result<ServiceMode, Fault> {
        let Self { replicated, global, replicated_job, global_job } = self;
        let modes = [
            replicated.is_some(),
            global.is_some(),
            replicated_job.is_some(),
            global_job.is_some(),
        ];
        if modes.into_iter().filter(|is_there| *is_there).count() > 1 {
            return Err(Fault::invalid("must specify only one service mode"));
        }
        if global.is_some() {
            return Ok(ServiceMode::Global);
        }
        if global_job.is_some() {
            return Ok(ServiceMode::GlobalJob);
        }
        if let Some(job) = replicated_job {
            let max_concurrent = job.max_concurrent.unwrap_or(1);
            let total_completions = job.total_completions.unwrap_or(max_concurrent);
            return Ok(ServiceMode::ReplicatedJob { max_concurrent, total_completions });
        }
        let replicas = replicated.and_then(|mode| mode.replicas).unwrap_or(1);
        Ok(ServiceMode::Replicated { replicas })
    }

    fn render(mode: ServiceMode) -> Self {
        let none = Self::default();
        match mode {
            ServiceMode::Replicated { replicas } => {
                let replicated = Some(ReplicatedJson { replicas: Some(replicas) });
                Self { replicated, ..none }
            }
            ServiceMode::Global => Self { global: Some(json!({})), ..none },
            ServiceMode::ReplicatedJob { max_concurrent, total_completions } => {
                let replicated_job = Some(ReplicatedJobJson {
                    max_concurrent: Some(max_concurrent),
                    total_completions: Some(total_completions),
                });
                Self { replicated_job, ..none }
            }
            ServiceMode::GlobalJob => Self { global_job: Some(json!({})), ..none },
        }
    }
}

impl EndpointJson {
    fn parse(self) -> Result<EndpointSpec, Fault> {
        let mode = match self.mode.as_str() {
            "" | "vip" => EndpointMode::Vip,
            "dnsrr" => EndpointMode::Dnsrr,
            other => return Err(Fault::invalid(format!("invalid endpoint mode '{other}'"))),
        };
        let ports = self.ports.into_iter().map(PortJson::parse).collect::<Result<_, _>>()?;
        Ok(EndpointSpec { mode, ports })
    }

    fn render(spec: &EndpointSpec) -> Self {
        Self {
            mode: mode_word(spec.mode).to_owned(),
            ports: spec.ports.iter().map(PortJson::render).collect(),
        }
    }
}

fn mode_word(mode: EndpointMode) -> &'static str {
    match mode {
        EndpointMode::Vip => "vip",
        EndpointMode::Dnsrr => "dnsrr",
    }
}

impl PortJson {
    fn parse(self) -> Result<PublishedPort, Fault> {
        let protocol = match self.protocol.to_ascii_lowercase().as_str() {
            "" | "tcp" => Protocol::Tcp,
            "udp" => Protocol::Udp,
            other => return Err(Fault::not_implemented(&format!("publishing {other} ports"))),
        };
        let mode = match self.publish_mode.to_ascii_lowercase().as_str() {
            "" | "ingress" => PublishMode::Ingress,
            "host" => PublishMode::Host,
            other => return Err(Fault::invalid(format!("invalid publish mode '{other}'"))),
        };
        let port = |number: u32| {
            u16::try_from(number)
                .map_err(|_out_of_range| Fault::invalid(format!("invalid port '{number}'")))
        };
        let target = port(self.target_port)?;
        if target == 0 {
            return Err(Fault::invalid("invalid port: the target port must not be 0"));
        }
        let published = port(self.published_port)?;
        Ok(PublishedPort { name: self.name, protocol, target, published, mode })
    }

    pub(crate) fn render(port: &PublishedPort) -> Self {
        Self {
            name: port.name.clone(),
            protocol: port.protocol.as_str().to_owned(),
            target_port: u32::from(port.target),
            published_port: u32::from(port.published),
            publish_mode: match port.mode {
                PublishMode::Ingress => "ingress",
                PublishMode::Host => "host",
            }
            .to_owned(),
        }
    }
}

impl UpdateJson {
    fn parse(self) -> Result<UpdateConfig, Fault> {
        let failure_action = match self.failure_action.as_str() {
            "" | "pause" => FailureAction::Pause,
            "continue" => FailureAction::Continue,
            "rollback" => FailureAction::Rollback,
            other => {
                return Err(Fault::invalid(format!("unrecognized update failure action {other}")));
            }
        };
        let order = match self.order.as_str() {
            "" | "stop-first" => UpdateOrder::StopFirst,
            "start-first" => UpdateOrder::StartFirst,
            other => return Err(Fault::invalid(format!("unrecognized update order {other}"))),
        };
        let monitor = if self.monitor == 0 {
            UpdateConfig::default().monitor
        } else {
            not_negative("TaskSpec: update-monitor", self.monitor)?
        };
        Ok(UpdateConfig {
            parallelism: self.parallelism,
            delay: not_negative("TaskSpec: update-delay", self.delay)?,
            failure_action,
            monitor,
            max_failure_ratio: self.max_failure_ratio,
            order,
        })
    }

    fn render(config: &UpdateConfig) -> Self {
        Self {
            parallelism: config.parallelism,
            delay: nanos(config.delay),
            failure_action: match config.failure_action {
                FailureAction::Pause => "pause",
                FailureAction::Continue => "continue",
                FailureAction::Rollback => "rollback",
            }
            .to_owned(),
            monitor: nanos(config.monitor),
            max_failure_ratio: config.max_failure_ratio,
            order: match config.order {
                UpdateOrder::StopFirst => "stop-first",
                UpdateOrder::StartFirst => "start-first",
            }
            .to_owned(),
        }
    }
}

/// How many tasks a service has: `?status=true`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Counts {
    pub(crate) running: u64,
    pub(crate) desired: u64,
    pub(crate) completed: u64,
}

/// Renders a service as `GET /services/{id}` shows it. `network` finds the networks it is on.
pub(crate) fn render<'v>(
    service: &Service,
    counts: Option<Counts>,
    network: impl Fn(&NetworkId) -> Option<&'v Network>,
) -> Value {
    let ports: Vec<PortJson> = service.ports.iter().map(PortJson::render).collect();
    let vips: Vec<Value> = service
        .vips
        .iter()
        .flat_map(|vip| {
            let network = network(&vip.network);
            let shown = |address| {
                let text = with_prefix(address, network);
                json!({ "NetworkID": vip.network, "Addr": text })
            };
            vip.addresses.iter().map(shown).collect::<Vec<_>>()
        })
        .collect();
    let mut endpoint = json!({ "Spec": EndpointJson::render(&service.spec.endpoint) });
    if !ports.is_empty() {
        endpoint["Ports"] = json!(ports);
    }
    if !vips.is_empty() {
        endpoint["VirtualIPs"] = json!(vips);
    }
    let mut object = json!({
        "ID": service.id,
        "Spec": ServiceSpecJson::render(&service.spec),
        "Endpoint": endpoint,
    });
    if let Some(previous) = &service.previous_spec {
        object["PreviousSpec"] = json!(ServiceSpecJson::render(previous));
    }
    if let Some(update) = &service.update {
        object["UpdateStatus"] = json!({
            "State": update.state.as_str(),
            "StartedAt": update.started_at.rfc3339(),
            "Message": update.message,
        });
        if let Some(completed) = update.completed_at {
            object["UpdateStatus"]["CompletedAt"] = completed.rfc3339().into();
        }
    }
    if let Some(job) = &service.job {
        // Go's zero time where it has not been run yet.
        let never = || "0001-01-01T00:00:00Z".to_owned();
        object["JobStatus"] = json!({
            "JobIteration": { "Index": job.iteration },
            "LastExecution": job.last_execution.map_or_else(never, types::Timestamp::rfc3339),
        });
    }
    // Docker has no place for it; clients skip what they do not know.
    if !service.allocation_error.is_empty() {
        object["AllocationError"] = service.allocation_error.clone().into();
    }
    if let Some(counts) = counts {
        object["ServiceStatus"] = json!({
            "RunningTasks": counts.running,
            "DesiredTasks": counts.desired,
            "CompletedTasks": counts.completed,
        });
    }
    with_meta(object, &service.meta)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SPEC: &str = r#"{
        "Name": "web", "Labels": {"a": "b"},
        "TaskTemplate": {
            "ContainerSpec": {
                "Image": "nginx:latest", "Env": ["A=1"], "Hosts": ["10.0.0.9 db database"],
                "StopGracePeriod": 20000000000,
                "Healthcheck": {"Test": ["CMD", "true"], "Interval": 2000000000, "Retries": 3},
                "Mounts": [{"Type": "tmpfs", "Target": "/tmp", "TmpfsOptions": {"SizeBytes": 4096}}]
            },
            "Resources": {"Limits": {"NanoCPUs": 500000000}, "Reservations": null},
            "RestartPolicy": {"Condition": "on-failure", "Delay": 1000000000, "MaxAttempts": 3},
            "Placement": {"Constraints": ["node.role==worker"],
                          "Preferences": [{"Spread": {"SpreadDescriptor": "node.labels.zone"}}],
                          "Platforms": [{"Architecture": "amd64", "OS": "linux"}, {"OS": "linux"}]},
            "Networks": [{"Target": "net1", "Aliases": ["w"]}],
            "ForceUpdate": 2
        },
        "Mode": {"Replicated": {"Replicas": 3}},
        "UpdateConfig": {"Parallelism": 2, "Order": "start-first", "FailureAction": "rollback"},
        "EndpointSpec": {"Ports": [{"Protocol": "tcp", "TargetPort": 80, "PublishedPort": 8080}]}
    }"#;

    fn parse(text: &str) -> Result<ServiceSpec, Fault> {
        crate::request::read::<ServiceSpecJson>(text.as_bytes())?.value.parse()
    }

    #[test]
    fn what_was_parsed_is_rendered_and_parsed_again_without_loss() {
        let spec = parse(SPEC).unwrap();
        assert_eq!(spec.mode, ServiceMode::Replicated { replicas: 3 });
        assert_eq!(spec.task.container.hosts[0].names, ["db", "database"]);
        assert_eq!(spec.endpoint.ports[0].published, 8080);
        assert_eq!(spec.task.placement.platforms[0].architecture, "amd64");
        let text = serde_json::to_string(&ServiceSpecJson::render(&spec)).unwrap();
        assert_eq!(parse(&text).unwrap(), spec);
    }

    #[test]
    fn what_skep_does_not_have_is_refused_by_name() {
        for (text, word) in [
            (
                r#"{"TaskTemplate":{"ContainerSpec":{"Configs":[{"ConfigName":"c","Runtime":{}}]}}}"#,
                "Runtime",
            ),
            (r#"{"TaskTemplate":{"PluginSpec":{}}}"#, "PluginSpec"),
        ] {
            let fault = parse(text).unwrap_err();
            assert!(fault.message.contains(word), "{fault}");
        }
    }

    /// As Go clients have it, which send zeros or leave them out.
    #[test]
    fn what_an_update_config_leaves_out_is_zero_and_without_one_tasks_are_replaced_one_by_one() {
        let parallelism = |rest: &str| {
            let spec = parse(&format!(r#"{{"TaskTemplate":{{"ContainerSpec":{{}}}}{rest}}}"#));
            let spec = spec.unwrap();
            (spec.update.parallelism, spec.rollback.parallelism)
        };
        assert_eq!(parallelism(""), (1, 1));
        assert_eq!(parallelism(r#","UpdateConfig":null,"RollbackConfig":null"#), (1, 1));
        assert_eq!(parallelism(r#","UpdateConfig":{"Delay":1000000000}"#), (0, 1));
        assert_eq!(parallelism(r#","UpdateConfig":{},"RollbackConfig":{}"#), (0, 0));
        assert_eq!(parallelism(r#","RollbackConfig":{"Parallelism":2}"#), (1, 2));
        let usual = UpdateConfig { parallelism: 0, ..UpdateConfig::default() };
        assert_eq!(UpdateJson::default().parse(), Ok(usual));
    }

    #[test]
    fn words_of_ports_are_read_in_any_case() {
        let port = r#"{"TargetPort":80,"Protocol":"UDP","PublishMode":"Host"}"#;
        let text = format!(
            r#"{{"TaskTemplate":{{"ContainerSpec":{{}}}},"EndpointSpec":{{"Ports":[{port}]}}}}"#
        );
        let spec = parse(&text).unwrap();
        let port = &spec.endpoint.ports[0];
        assert_eq!((port.protocol, port.mode), (Protocol::Udp, PublishMode::Host));
        assert_eq!(PortJson::render(port).publish_mode, "host");
        let fault = parse(&text.replace("UDP", "SCTP")).unwrap_err();
        assert_eq!(fault, Fault::not_implemented("publishing sctp ports"));
    }

    #[test]
    fn jobs_are_read_with_dockers_defaults_and_written_without_update_config() {
        let of = |mode: &str| {
            parse(&format!(r#"{{"TaskTemplate":{{"ContainerSpec":{{}}}},"Mode":{{{mode}}}}}"#))
        };
        let job = |max_concurrent, total_completions| ServiceMode::ReplicatedJob {
            max_concurrent,
            total_completions,
        };
        for (text, mode) in [
            (r#""ReplicatedJob":{"MaxConcurrent":2,"TotalCompletions":5}"#, job(2, 5)),
            (r#""ReplicatedJob":{"MaxConcurrent":2}"#, job(2, 2)),
            (r#""ReplicatedJob":{"TotalCompletions":5}"#, job(1, 5)),
            (r#""ReplicatedJob":{}"#, job(1, 1)),
            (r#""GlobalJob":{}"#, ServiceMode::GlobalJob),
        ] {
            let spec = of(text).unwrap();
            assert_eq!(spec.mode, mode, "{text}");
            let text = serde_json::to_string(&ServiceSpecJson::render(&spec)).unwrap();
            assert_eq!(parse(&text).unwrap(), spec);
        }
        for (rest, reason) in [
            (r#""GlobalJob":{},"Global":{}"#, "must specify only one service mode"),
            (r#""GlobalJob":{},"ReplicatedJob":{}"#, "must specify only one service mode"),
            (r#""GlobalJob":{}},"UpdateConfig":{"#, "Jobs may not have an update config"),
            (
                r#""ReplicatedJob":{}},"RollbackConfig":{"#,
                "update and rollback configuration is not supported for jobs",
            ),
        ] {
            assert_eq!(of(rest).unwrap_err(), Fault::invalid(reason), "{rest}");
        }
    }

    #[test]
    fn a_time_below_zero_is_refused_or_means_for_ever() {
        let refused =
            |rest: &str| parse(&format!(r#"{{"TaskTemplate":{{"ContainerSpec":{{}}{rest}"#));
        for (rest, reason) in [
            (r#"},"UpdateConfig":{"Delay":-1}}"#, "TaskSpec: update-delay cannot be negative: -1"),
            (
                r#"},"RollbackConfig":{"Delay":-1}}"#,
                "TaskSpec: update-delay cannot be negative: -1",
            ),
            (
                r#"},"UpdateConfig":{"Monitor":-1}}"#,
                "TaskSpec: update-monitor cannot be negative: -1",
            ),
            (
                r#","RestartPolicy":{"Delay":-1}}}"#,
                "TaskSpec: restart-delay cannot be negative: -1",
            ),
            (
                r#","RestartPolicy":{"Window":-1}}}"#,
                "TaskSpec: restart-window cannot be negative: -1",
            ),
        ] {
            assert_eq!(refused(rest).unwrap_err(), Fault::invalid(reason), "{rest}");
        }
        let text = r#"{"TaskTemplate":{"ContainerSpec":{"StopGracePeriod":-1000000000}}}"#;
        let spec = parse(text).unwrap();
        assert_eq!(spec.task.container.grace(), types::FOREVER);
        let shown = serde_json::to_value(ServiceSpecJson::render(&spec)).unwrap();
        let shown = &shown["TaskTemplate"]["ContainerSpec"]["StopGracePeriod"];
        assert_eq!(shown.as_i64(), Some(-1_000_000_000));
    }

    #[test]
    fn a_port_over_65535_is_refused() {
        let fault = parse(
            r#"{"TaskTemplate":{"ContainerSpec":{}},
                "EndpointSpec":{"Ports":[{"TargetPort":80,"PublishedPort":70000}]}}"#,
        )
        .unwrap_err();
        assert_eq!(fault.message, "invalid port '70000'");
    }
}
