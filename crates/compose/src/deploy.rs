//! `deploy`: how a service runs in a cluster.

use crate::access;
use crate::fields::Fields;
use crate::remark::Log;
use crate::scalar::{duration, fraction, integer, labels, nano_cpus, size, strings, text, word};
use crate::tree::{Node, Value};
use std::time::Duration;
use types::{
    EndpointMode, FailureAction, GenericReservations, Labels, Placement, Preference, Resources,
    RestartCondition, RestartPolicy, ServiceMode, ServiceSpec, UpdateConfig, UpdateOrder,
};

/// Reads `deploy` into a service's spec.
pub(crate) fn deploy(node: &Node, spec: &mut ServiceSpec, log: &mut Log) {
    let mut fields = Fields::of(node, log);
    spec.mode = mode(&mut fields, log);
    if let Some(node) = fields.take("labels") {
        spec.labels = labels(node, log);
    }
    if let Some(node) = fields.take("endpoint_mode") {
        let modes = [("vip", EndpointMode::Vip), ("dnsrr", EndpointMode::Dnsrr)];
        spec.endpoint.mode = word(node, &modes, log);
    }
    if let Some(node) = fields.take("update_config") {
        spec.update = update(node, log);
        refuse_for_job(spec.mode, node, log);
    }
    if let Some(node) = fields.take("rollback_config") {
        spec.rollback = update(node, log);
        refuse_for_job(spec.mode, node, log);
    }
    if let Some(node) = fields.take("resources") {
        let labels = &mut spec.task.container.labels;
        (spec.task.resources, spec.task.generic) = resources(node, labels, log);
    }
    if let Some(node) = fields.take("restart_policy") {
        spec.task.restart = restart(node, log);
    }
    if let Some(node) = fields.take("placement") {
        spec.task.placement = placement(node, log);
    }
    fields.finish(log);
}

/// A job is run anew, it has no task that is replaced.
fn refuse_for_job(mode: ServiceMode, node: &Node, log: &mut Log) {
    if mode.is_job() {
        log.error(node, "update and rollback configuration is not supported for jobs");
    }
}

fn mode(fields: &mut Fields<'_>, log: &mut Log) -> ServiceMode {
    let job = ServiceMode::ReplicatedJob { max_concurrent: 1, total_completions: 1 };
    let words = [ServiceMode::default(), ServiceMode::Global, job, ServiceMode::GlobalJob]
        .map(|mode| (mode.as_str(), mode));
    let mode = fields.take("mode").map(|node| word(node, &words, log)).unwrap_or_default();
    let Some(node) = fields.take("replicas") else { return mode };
    match mode {
        ServiceMode::Replicated { .. } => ServiceMode::Replicated { replicas: integer(node, log) },
        // Docker knows no other way to say how many run at once.
        ServiceMode::ReplicatedJob { .. } => {
            let replicas = integer(node, log);
            ServiceMode::ReplicatedJob { max_concurrent: replicas, total_completions: replicas }
        }
        ServiceMode::Global | ServiceMode::GlobalJob => {
            log.error(node, "replicas can only be used with mode replicated or replicated-job");
            mode
        }
    }
}

fn update(node: &Node, log: &mut Log) -> UpdateConfig {
    let mut fields = Fields::of(node, log);
    let mut config = UpdateConfig::default();
    if let Some(node) = fields.take("parallelism") {
        config.parallelism = integer(node, log);
    }
    if let Some(node) = fields.take("delay") {
        config.delay = duration(node, log);
    }
    if let Some(node) = fields.take("failure_action") {
        let words = [
            ("pause", FailureAction::Pause),
            ("continue", FailureAction::Continue),
            ("rollback", FailureAction::Rollback),
        ];
        config.failure_action = word(node, &words, log);
    }
    if let Some(node) = fields.take("monitor") {
        let monitor = duration(node, log);
        // Zero stands for the default.
        if monitor > Duration::ZERO {
            config.monitor = monitor;
        }
    }
    if let Some(node) = fields.take("max_failure_ratio") {
        let ratio = fraction(node, log);
        if ratio > 1.0 {
            log.error(node, "should be from 0 to 1");
        }
        #[expect(clippy::cast_possible_truncation, reason = "a ratio needs no more digits")]
        let ratio = ratio as f32;
        config.max_failure_ratio = ratio;
    }
    if let Some(node) = fields.take("order") {
        let words =
            [("stop-first", UpdateOrder::StopFirst), ("start-first", UpdateOrder::StartFirst)];
        config.order = word(node, &words, log);
    }
    fields.finish(log);
    config
}

fn resources(node: &Node, access: &mut Labels, log: &mut Log) -> (Resources, GenericReservations) {
    let mut fields = Fields::of(node, log);
    let (mut resources, mut kept) = (Resources::default(), GenericReservations::new());
    if let Some(node) = fields.take("limits") {
        let mut fields = Fields::of(node, log);
        if let Some(node) = fields.take("cpus") {
            resources.limit_nano_cpus = nano_cpus(node, log);
        }
        if let Some(node) = fields.take("memory") {
            resources.limit_memory = size(node, log);
        }
        if let Some(node) = fields.take("pids") {
            resources.limit_pids = integer(node, log);
        }
        fields.finish(log);
    }
    if let Some(node) = fields.take("reservations") {
        let mut fields = Fields::of(node, log);
        if let Some(node) = fields.take("cpus") {
            resources.reserve_nano_cpus = nano_cpus(node, log);
        }
        if let Some(node) = fields.take("memory") {
            resources.reserve_memory = size(node, log);
        }
        if let Some(node) = fields.take("generic_resources") {
            kept = generic_resources(node, log);
        }
        if let Some(node) = fields.take("devices") {
            access::reserved(node, access, log);
        }
        fields.finish(log);
    }
    fields.finish(log);
    (resources, kept)
}

/// Reads `- discrete_resource_spec: {kind: gpu, value: 2}`, each.
fn generic_resources(node: &Node, log: &mut Log) -> GenericReservations {
    let mut kept = GenericReservations::new();
    let Value::List(items) = &node.value else {
        log.error(node, "should be a list");
        return kept;
    };
    for item in items {
        let mut fields = Fields::of(item, log);
        let Some(spec) = fields.take("discrete_resource_spec") else {
            log.error(item, "should have a discrete_resource_spec with kind and value");
            continue;
        };
        fields.finish(log);
        let mut fields = Fields::of(spec, log);
        let kind = fields.take("kind").map(|node| text(node, log)).unwrap_or_default();
        let value = fields.take("value").map(|node| integer(node, log));
        fields.finish(log);
        match value {
            Some(value) if !kind.is_empty() => {
                let sum = kept.entry(kind).or_default();
                *sum = sum.saturating_add(value);
            }
            Some(_) | None => log.error(spec, "should have kind and value"),
        }
    }
    kept
}

fn restart(node: &Node, log: &mut Log) -> RestartPolicy {
    let mut fields = Fields::of(node, log);
    let mut policy = RestartPolicy::default();
    if let Some(node) = fields.take("condition") {
        let words = [
            ("any", RestartCondition::Any),
            ("on-failure", RestartCondition::OnFailure),
            ("none", RestartCondition::None),
        ];
        policy.condition = word(node, &words, log);
    }
    if let Some(node) = fields.take("delay") {
        policy.delay = duration(node, log);
    }
    if let Some(node) = fields.take("max_attempts") {
        policy.max_attempts = integer(node, log);
    }
    if let Some(node) = fields.take("window") {
        policy.window = duration(node, log);
    }
    fields.finish(log);
    policy
}

/// Reads `restart` of a service, which stands for a restart policy where `deploy` has none.
pub(crate) fn old_restart(node: &Node, log: &mut Log) -> RestartPolicy {
    let mut policy = RestartPolicy::default();
    let text = text(node, log);
    let (word, attempts) = text.split_once(':').unwrap_or((&text, ""));
    match (word, attempts) {
        ("always" | "unless-stopped", "") => {}
        ("on-failure", attempts) => {
            policy.condition = RestartCondition::OnFailure;
            match attempts.parse() {
                Ok(attempts) => policy.max_attempts = attempts,
                Err(_) if attempts.is_empty() => {}
                Err(_) => log.error(node, "the attempts should be a whole number"),
            }
        }
        ("no" | "false", "") => log.warn(
            node,
            "ignored: tasks are restarted; set deploy.restart_policy.condition to none instead",
        ),
        (_, _) => log.error(node, "should be one of no, always, unless-stopped, on-failure[:N]"),
    }
    policy
}

fn placement(node: &Node, log: &mut Log) -> Placement {
    let mut fields = Fields::of(node, log);
    let mut placement = Placement::default();
    if let Some(node) = fields.take("constraints") {
        placement.constraints = strings(node, log);
        for constraint in &placement.constraints {
            if let Err(error) = Placement::check(constraint) {
                log.error(node, error.to_string());
            }
        }
    }
    if let Some(node) = fields.take("preferences") {
        match &node.value {
            Value::List(items) => {
                for item in items {
                    let mut fields = Fields::of(item, log);
                    if let Some(spread) = fields.take("spread") {
                        placement.preferences.push(Preference { spread: text(spread, log) });
                    }
                    fields.finish(log);
                }
            }
            Value::Null
            | Value::Bool(_)
            | Value::Int(_)
            | Value::Float(_)
            | Value::Text(_)
            | Value::Map(_) => log.error(node, "should be a list"),
        }
    }
    if let Some(node) = fields.take("max_replicas_per_node") {
        placement.max_replicas_per_node = integer(node, log);
    }
    fields.finish(log);
    placement
}
