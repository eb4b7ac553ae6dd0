//! `TaskTemplate`: what every task of a service is made from.

use super::container_spec::ContainerSpecJson;
use super::generic::{self, GenericJson};
use super::{memory, nanos, not_negative};
use serde::{Deserialize, Serialize};
use types::{
    Fault, GenericReservations, Labels, LogDriver, NetworkAttachment, Placement, Platform,
    Preference, Resources, RestartCondition, RestartPolicy, TaskSpec,
};

#[derive(Debug, Default, Deserialize, Serialize)]
#[serde(rename = "TaskSpec", rename_all = "PascalCase", default)]
pub(crate) struct TaskTemplateJson {
    container_spec: Option<ContainerSpecJson>,
    resources: ResourcesJson,
    #[serde(skip_serializing_if = "Option::is_none")]
    restart_policy: Option<RestartJson>,
    placement: PlacementJson,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) networks: Vec<AttachmentJson>,
    #[serde(skip_serializing_if = "Option::is_none")]
    log_driver: Option<LogDriverJson>,
    force_update: u64,
    #[serde(skip_deserializing)]
    runtime: &'static str,
}

#[derive(Debug, Default, Deserialize, Serialize)]
#[serde(rename = "LogDriver", rename_all = "PascalCase", default)]
pub(super) struct LogDriverJson {
    name: String,
    #[serde(skip_serializing_if = "Labels::is_empty")]
    options: Labels,
}

#[derive(Debug, Default, Deserialize, Serialize)]
#[serde(rename = "NetworkAttachmentConfig", rename_all = "PascalCase", default)]
pub(crate) struct AttachmentJson {
    pub(crate) target: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    aliases: Vec<String>,
}

#[derive(Debug, Default, Deserialize, Serialize)]
#[serde(rename = "ResourceRequirements", rename_all = "PascalCase", default)]
struct ResourcesJson {
    #[serde(skip_serializing_if = "Option::is_none")]
    limits: Option<LimitsJson>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reservations: Option<ReservationsJson>,
    #[serde(skip_serializing_if = "Option::is_none")]
    swap_bytes: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    memory_swappiness: Option<i64>,
}

#[derive(Debug, Default, Deserialize, Serialize)]
#[serde(rename = "Limit", rename_all = "PascalCase", default)]
struct LimitsJson {
    #[serde(rename = "NanoCPUs", skip_serializing_if = "Option::is_none")]
    nano_cpus: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    memory_bytes: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pids: Option<i64>,
}

#[derive(Debug, Default, Deserialize, Serialize)]
#[serde(rename = "Resources", rename_all = "PascalCase", default)]
struct ReservationsJson {
    #[serde(rename = "NanoCPUs", skip_serializing_if = "Option::is_none")]
    nano_cpus: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    memory_bytes: Option<i64>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    generic_resources: Vec<GenericJson>,
}

#[derive(Debug, Default, Deserialize, Serialize)]
#[serde(rename = "TaskRestartPolicy", rename_all = "PascalCase", default)]
struct RestartJson {
    condition: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    delay: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_attempts: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    window: Option<i64>,
}

#[derive(Debug, Default, Deserialize, Serialize)]
#[serde(rename = "Placement", rename_all = "PascalCase", default)]
struct PlacementJson {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    constraints: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    preferences: Vec<PreferenceJson>,
    #[serde(skip_serializing_if = "is_none_wanted")]
    max_replicas: u64,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    platforms: Vec<PlatformJson>,
}

#[derive(Debug, Default, Deserialize, Serialize)]
#[serde(rename = "Platform", rename_all = "PascalCase", default)]
struct PlatformJson {
    #[serde(skip_serializing_if = "String::is_empty")]
    architecture: String,
    #[serde(rename = "OS", skip_serializing_if = "String::is_empty")]
    os: String,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_none_wanted(replicas: &u64) -> bool {
    *replicas == 0
}

#[derive(Debug, Default, Deserialize, Serialize)]
#[serde(rename = "PlacementPreference", rename_all = "PascalCase", default)]
struct PreferenceJson {
    spread: Option<SpreadJson>,
}

#[derive(Debug, Default, Deserialize, Serialize)]
#[serde(rename = "SpreadOver", rename_all = "PascalCase", default)]
struct SpreadJson {
    spread_descriptor: String,
}

impl TaskTemplateJson {
    pub(crate) fn parse(self) -> Result<TaskSpec, Fault> {
        let Some(container) = self.container_spec else {
            return Err(Fault::invalid("TaskSpec: missing container spec"));
        };
        let log = self.log_driver.unwrap_or_default().parse()?;
        let mut resources = self.resources;
        let generic =
            resources.reservations.as_mut().map(|it| std::mem::take(&mut it.generic_resources));
        let generic = generic::parse(generic.unwrap_or_default())?;
        Ok(TaskSpec {
            container: container.parse()?,
            resources: resources.parse()?,
            restart: self
                .restart_policy
                .map_or(Ok(RestartPolicy::default()), RestartJson::parse)?,
            placement: self.placement.parse(),
            networks: self.networks.into_iter().map(AttachmentJson::parse).collect(),
            log_driver: log.name,
            log_options: log.options,
            force_update: self.force_update,
            generic,
        })
    }

    pub(crate) fn render(spec: &TaskSpec) -> Self {
        Self {
            container_spec: Some(ContainerSpecJson::render(&spec.container)),
            resources: ResourcesJson::render(&spec.resources, &spec.generic),
            restart_policy: Some(RestartJson::render(&spec.restart)),
            placement: PlacementJson::render(&spec.placement),
            networks: spec.networks.iter().map(AttachmentJson::render).collect(),
            log_driver: spec.own_log().map(LogDriverJson::render),
            force_update: spec.force_update,
            runtime: "container",
        }
    }
}

impl LogDriverJson {
    pub(super) fn parse(self) -> Result<LogDriver, Fault> {
        let Self { name, options } = self;
        // Else it is every task that is refused, one node after another.
        engine::LogConfig { driver: name.clone(), options: options.clone() }.check_anywhere()?;
        Ok(LogDriver { name, options })
    }

    pub(super) fn render(LogDriver { name, options }: LogDriver) -> Self {
        Self { name, options }
    }
}

impl AttachmentJson {
    pub(crate) fn parse(self) -> NetworkAttachment {
        NetworkAttachment { target: self.target.into(), aliases: self.aliases }
    }

    fn render(attachment: &NetworkAttachment) -> Self {
        Self { target: attachment.target.to_string(), aliases: attachment.aliases.clone() }
    }
}

impl ResourcesJson {
    fn parse(self) -> Result<Resources, Fault> {
        let (limits, kept) =
            (self.limits.unwrap_or_default(), self.reservations.unwrap_or_default());
        Ok(Resources {
            limit_nano_cpus: limits.nano_cpus.unwrap_or(0),
            limit_memory: limits.memory_bytes.unwrap_or(0),
            limit_pids: limits.pids.unwrap_or(0),
            reserve_nano_cpus: kept.nano_cpus.unwrap_or(0),
            reserve_memory: kept.memory_bytes.unwrap_or(0),
            swap: self.swap_bytes,
            swappiness: memory::swappiness(self.memory_swappiness)?,
        })
    }

    fn render(resources: &Resources, generic: &GenericReservations) -> Self {
        let some = |amount: i64| (amount != 0).then_some(amount);
        let limits = LimitsJson {
            nano_cpus: some(resources.limit_nano_cpus),
            memory_bytes: some(resources.limit_memory),
            pids: some(resources.limit_pids),
        };
        let kept = ReservationsJson {
            nano_cpus: some(resources.reserve_nano_cpus),
            memory_bytes: some(resources.reserve_memory),
            generic_resources: generic::render_wanted(generic),
        };
        let none = Resources::default();
        let is_limited = (resources.limit_nano_cpus, resources.limit_memory, resources.limit_pids)
            != (none.limit_nano_cpus, none.limit_memory, none.limit_pids);
        let keeps = (resources.reserve_nano_cpus, resources.reserve_memory)
            != (none.reserve_nano_cpus, none.reserve_memory)
            || !generic.is_empty();
        Self {
            limits: is_limited.then_some(limits),
            reservations: keeps.then_some(kept),
            swap_bytes: resources.swap,
            memory_swappiness: resources.swappiness,
        }
    }
}

impl RestartJson {
    fn parse(self) -> Result<RestartPolicy, Fault> {
        let normal = RestartPolicy::default();
        let condition = match self.condition.as_str() {
            "" | "any" => RestartCondition::Any,
            "on-failure" => RestartCondition::OnFailure,
            "none" => RestartCondition::None,
            other => return Err(Fault::invalid(format!("invalid restart condition '{other}'"))),
        };
        let time = |name: &str, nanos: Option<i64>| {
            nanos.map(|nanos| not_negative(&format!("TaskSpec: {name}"), nanos)).transpose()
        };
        Ok(RestartPolicy {
            condition,
            delay: time("restart-delay", self.delay)?.unwrap_or(normal.delay),
            max_attempts: self.max_attempts.unwrap_or(0),
            window: time("restart-window", self.window)?.unwrap_or(normal.window),
        })
    }

    fn render(policy: &RestartPolicy) -> Self {
        Self {
            condition: match policy.condition {
                RestartCondition::None => "none",
                RestartCondition::OnFailure => "on-failure",
                RestartCondition::Any => "any",
            }
            .to_owned(),
            delay: Some(nanos(policy.delay)),
            max_attempts: Some(policy.max_attempts),
            window: (!policy.window.is_zero()).then(|| nanos(policy.window)),
        }
    }
}

impl PlacementJson {
    fn parse(self) -> Placement {
        let spread = |preference: PreferenceJson| {
            preference.spread.map(|spread| Preference { spread: spread.spread_descriptor })
        };
        let platform = |it: PlatformJson| Platform { os: it.os, architecture: it.architecture };
        Placement {
            constraints: self.constraints,
            preferences: self.preferences.into_iter().filter_map(spread).collect(),
            max_replicas_per_node: self.max_replicas,
            platforms: self.platforms.into_iter().map(platform).collect(),
        }
    }

    fn render(placement: &Placement) -> Self {
        let spread = |preference: &Preference| PreferenceJson {
            spread: Some(SpreadJson { spread_descriptor: preference.spread.clone() }),
        };
        let platform = |it: &Platform| PlatformJson {
            architecture: it.architecture.clone(),
            os: it.os.clone(),
        };
        Self {
            constraints: placement.constraints.clone(),
            preferences: placement.preferences.iter().map(spread).collect(),
            max_replicas: placement.max_replicas_per_node,
            platforms: placement.platforms.iter().map(platform).collect(),
        }
    }
}
