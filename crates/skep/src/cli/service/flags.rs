//! Flags that `service create` and `service update` share: each sets one thing.

use super::parse;
use crate::cli::registry::Images;
use anyhow::{Result, bail};
use clap::Args;
use std::time::Duration;
use types::{
    ContainerSpec, EndpointMode, FailureAction, HealthCheck, Resources, RestartCondition,
    RestartPolicy, ServiceMode, ServiceSpec, UpdateConfig, UpdateOrder,
};

/// Everything that is set rather than added or removed.
#[derive(Args, Debug)]
pub(super) struct Flags {
    /// Number of tasks
    #[arg(long, value_name = "N")]
    pub(super) replicas: Option<u64>,
    /// Most tasks of a job that run at once; all of them if this is not said when it is created
    #[arg(long, value_name = "N")]
    pub(super) max_concurrent: Option<u64>,
    /// Most tasks on one node; 0: no limit
    #[arg(long, value_name = "N")]
    replicas_max_per_node: Option<u64>,
    /// vip or dnsrr
    #[arg(long, value_parser = parse::endpoint_mode)]
    endpoint_mode: Option<EndpointMode>,
    /// Where the output of tasks goes
    #[arg(long)]
    log_driver: Option<String>,
    /// An option of the log driver, KEY=VALUE
    #[arg(long, value_name = "OPTION")]
    log_opt: Vec<String>,
    #[command(flatten)]
    container: ContainerFlags,
    #[command(flatten)]
    health: HealthFlags,
    #[command(flatten)]
    resources: ResourceFlags,
    #[command(flatten)]
    restart: RestartFlags,
    #[command(flatten)]
    update: UpdateFlags,
    #[command(flatten)]
    rollback: RollbackFlags,
    #[command(flatten)]
    pub(super) images: Images,
}

#[derive(Args, Debug)]
struct ContainerFlags {
    /// User name or UID, and group
    #[arg(short, long, value_name = "USER[:GROUP]")]
    user: Option<String>,
    /// Working directory inside the container
    #[arg(short, long, value_name = "DIR")]
    workdir: Option<String>,
    /// The host name inside the container
    #[arg(long)]
    hostname: Option<String>,
    /// Replaces the image's entrypoint
    #[arg(long, value_name = "COMMAND")]
    entrypoint: Option<String>,
    /// The signal that asks the container to stop
    #[arg(long, value_name = "SIGNAL")]
    stop_signal: Option<String>,
    /// Time between the stop signal and SIGKILL
    #[arg(long, value_name = "TIME", value_parser = parse::duration)]
    stop_grace_period: Option<Duration>,
    /// Run an init as PID 1
    #[arg(long, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true", require_equals = true)]
    init: Option<bool>,
    /// Mount the root file system read-only
    #[arg(long, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true", require_equals = true)]
    read_only: Option<bool>,
    /// Give the container a terminal
    #[arg(short, long, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true", require_equals = true)]
    tty: Option<bool>,
    /// Add a capability
    #[arg(long, value_name = "CAP", value_parser = capability)]
    cap_add: Vec<String>,
    /// Drop a capability
    #[arg(long, value_name = "CAP", value_parser = capability)]
    cap_drop: Vec<String>,
    /// How soon it is killed when memory runs out (-1000 to 1000)
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    oom_score_adj: Option<i64>,
}

#[derive(Args, Debug)]
struct HealthFlags {
    /// A command that tells whether the container works
    #[arg(long, value_name = "COMMAND")]
    health_cmd: Option<String>,
    /// Time between two checks
    #[arg(long, value_name = "TIME", value_parser = parse::duration)]
    health_interval: Option<Duration>,
    /// Failures in a row that make a container unhealthy
    #[arg(long, value_name = "N")]
    health_retries: Option<u32>,
    /// Time between two checks while it starts
    #[arg(long, value_name = "TIME", value_parser = parse::duration)]
    health_start_interval: Option<Duration>,
    /// Time to start, in which failures do not count
    #[arg(long, value_name = "TIME", value_parser = parse::duration)]
    health_start_period: Option<Duration>,
    /// Time that a check may take
    #[arg(long, value_name = "TIME", value_parser = parse::duration)]
    health_timeout: Option<Duration>,
    /// Do not use the image's health check
    #[arg(long, conflicts_with_all = ["health_cmd", "health_interval", "health_retries",
        "health_start_interval", "health_start_period", "health_timeout"])]
    no_healthcheck: bool,
}

#[derive(Args, Debug)]
struct ResourceFlags {
    /// CPUs that a task may use
    #[arg(long, value_name = "CPUS", value_parser = parse::cpus)]
    limit_cpu: Option<i64>,
    /// Memory that a task may use
    #[arg(long, value_name = "BYTES", value_parser = parse::bytes)]
    limit_memory: Option<i64>,
    /// Processes that a task may have
    #[arg(long, value_name = "N")]
    limit_pids: Option<i64>,
    /// CPUs that are kept for a task
    #[arg(long, value_name = "CPUS", value_parser = parse::cpus)]
    reserve_cpu: Option<i64>,
    /// Memory that is kept for a task
    #[arg(long, value_name = "BYTES", value_parser = parse::bytes)]
    reserve_memory: Option<i64>,
}

#[derive(Args, Debug)]
#[expect(clippy::struct_field_names, reason = "they are the flags' names")]
struct RestartFlags {
    /// none, on-failure or any
    #[arg(long, value_parser = parse::restart_condition)]
    restart_condition: Option<RestartCondition>,
    /// Time between the end of a task and its replacement
    #[arg(long, value_name = "TIME", value_parser = parse::duration)]
    restart_delay: Option<Duration>,
    /// Restarts before giving up
    #[arg(long, value_name = "N")]
    restart_max_attempts: Option<u64>,
    /// Time within which restarts are counted
    #[arg(long, value_name = "TIME", value_parser = parse::duration)]
    restart_window: Option<Duration>,
}

#[derive(Args, Debug)]
#[expect(clippy::struct_field_names, reason = "they are the flags' names")]
struct UpdateFlags {
    /// Time between two updates of tasks
    #[arg(long, value_name = "TIME", value_parser = parse::duration)]
    update_delay: Option<Duration>,
    /// pause, continue or rollback
    #[arg(long, value_parser = parse::failure_action)]
    update_failure_action: Option<FailureAction>,
    /// Part of the tasks that may fail
    #[arg(long, value_name = "RATIO")]
    update_max_failure_ratio: Option<f32>,
    /// Time after each update in which a failure counts
    #[arg(long, value_name = "TIME", value_parser = parse::duration)]
    update_monitor: Option<Duration>,
    /// start-first or stop-first
    #[arg(long, value_parser = parse::order)]
    update_order: Option<UpdateOrder>,
    /// Tasks updated at a time; 0: all at once
    #[arg(long, value_name = "N")]
    update_parallelism: Option<u64>,
}

#[derive(Args, Debug)]
#[expect(clippy::struct_field_names, reason = "they are the flags' names")]
struct RollbackFlags {
    /// Time between two rollbacks of tasks
    #[arg(long, value_name = "TIME", value_parser = parse::duration)]
    rollback_delay: Option<Duration>,
    /// pause or continue
    #[arg(long, value_parser = parse::failure_action)]
    rollback_failure_action: Option<FailureAction>,
    /// Part of the tasks that may fail
    #[arg(long, value_name = "RATIO")]
    rollback_max_failure_ratio: Option<f32>,
    /// Time after each rollback in which a failure counts
    #[arg(long, value_name = "TIME", value_parser = parse::duration)]
    rollback_monitor: Option<Duration>,
    /// start-first or stop-first
    #[arg(long, value_parser = parse::order)]
    rollback_order: Option<UpdateOrder>,
    /// Tasks rolled back at a time; 0: all at once
    #[arg(long, value_name = "N")]
    rollback_parallelism: Option<u64>,
}

#[expect(clippy::unnecessary_wraps, reason = "clap wants a result")]
fn capability(name: &str) -> Result<String, String> {
    Ok(compose::capability(name))
}

/// Sets a field where the user named a value.
fn set<T: Clone>(field: &mut T, value: Option<&T>) {
    if let Some(value) = value {
        field.clone_from(value);
    }
}

/// The same mode with so many tasks; of a job, so many that are to complete.
pub(super) fn with_replicas(mode: ServiceMode, replicas: u64) -> Result<ServiceMode> {
    match mode {
        ServiceMode::Replicated { .. } => Ok(ServiceMode::Replicated { replicas }),
        ServiceMode::ReplicatedJob { max_concurrent, .. } => {
            Ok(ServiceMode::ReplicatedJob { max_concurrent, total_completions: replicas })
        }
        ServiceMode::Global | ServiceMode::GlobalJob => {
            bail!("replicas can only be used with replicated or replicated-job mode")
        }
    }
}

impl Flags {
    /// Sets in `spec` what the user named.
    pub(super) fn write(&self, spec: &mut ServiceSpec) -> Result<()> {
        if let Some(replicas) = self.replicas {
            spec.mode = with_replicas(spec.mode, replicas)?;
        }
        match (&mut spec.mode, self.max_concurrent) {
            (_, None) => {}
            (ServiceMode::ReplicatedJob { max_concurrent, .. }, Some(most)) => {
                *max_concurrent = most;
            }
            (_, Some(_)) => bail!("max-concurrent can only be used with replicated-job mode"),
        }
        set(&mut spec.task.placement.max_replicas_per_node, self.replicas_max_per_node.as_ref());
        set(&mut spec.endpoint.mode, self.endpoint_mode.as_ref());
        // Another driver does not know the options of the one before.
        if let Some(driver) = self.log_driver.as_ref().filter(|driver| !driver.is_empty()) {
            spec.task.log_driver.clone_from(driver);
            spec.task.log_options.clear();
        }
        for option in &self.log_opt {
            let (key, value) = option.split_once('=').unwrap_or((option, ""));
            spec.task.log_options.insert(key.into(), value.into());
        }
        self.container.write(&mut spec.task.container);
        self.health.write(&mut spec.task.container);
        self.resources.write(&mut spec.task.resources);
        self.restart.write(&mut spec.task.restart);
        self.update.write(&mut spec.update);
        self.rollback.write(&mut spec.rollback);
        let none = UpdateConfig::default();
        if spec.mode.is_job() && (spec.update != none || spec.rollback != none) {
            bail!("update and rollback configuration is not supported for jobs");
        }
        Ok(())
    }
}

impl ContainerFlags {
    fn write(&self, spec: &mut ContainerSpec) {
        set(&mut spec.user, self.user.as_ref());
        set(&mut spec.dir, self.workdir.as_ref());
        set(&mut spec.hostname, self.hostname.as_ref());
        set(&mut spec.stop_signal, self.stop_signal.as_ref());
        if self.stop_grace_period.is_some() {
            spec.stop_grace_period = self.stop_grace_period;
        }
        if self.init.is_some() {
            spec.init = self.init;
        }
        set(&mut spec.read_only, self.read_only.as_ref());
        set(&mut spec.tty, self.tty.as_ref());
        set(&mut spec.oom_score_adj, self.oom_score_adj.as_ref());
        if let Some(line) = &self.entrypoint {
            spec.command = compose::split(line).unwrap_or_else(|| vec![line.clone()]);
        }
        // What is added is dropped no longer, and the other way round.
        swap(&self.cap_add, &mut spec.cap_add, &mut spec.cap_drop);
        swap(&self.cap_drop, &mut spec.cap_drop, &mut spec.cap_add);
    }
}

/// Moves words to one list from the other.
fn swap(words: &[String], to: &mut Vec<String>, from: &mut Vec<String>) {
    from.retain(|word| !words.contains(word));
    for word in words {
        if !to.contains(word) {
            to.push(word.clone());
        }
    }
}

impl HealthFlags {
    fn write(&self, spec: &mut ContainerSpec) {
        if self.no_healthcheck {
            spec.health = Some(HealthCheck { test: vec!["NONE".into()], ..HealthCheck::default() });
            return;
        }
        let before = spec.health.clone().unwrap_or_default();
        let mut check = before.clone();
        if let Some(command) = &self.health_cmd {
            check.test = vec!["CMD-SHELL".into(), command.clone()];
        }
        set(&mut check.interval, self.health_interval.as_ref());
        set(&mut check.retries, self.health_retries.as_ref());
        set(&mut check.start_interval, self.health_start_interval.as_ref());
        set(&mut check.start_period, self.health_start_period.as_ref());
        set(&mut check.timeout, self.health_timeout.as_ref());
        if check != before {
            // Whoever sets something wants to be checked: by the image's command, if by no other.
            check.test.retain(|word| word != "NONE");
            spec.health = Some(check);
        }
    }
}

impl ResourceFlags {
    fn write(&self, resources: &mut Resources) {
        set(&mut resources.limit_nano_cpus, self.limit_cpu.as_ref());
        set(&mut resources.limit_memory, self.limit_memory.as_ref());
        set(&mut resources.limit_pids, self.limit_pids.as_ref());
        set(&mut resources.reserve_nano_cpus, self.reserve_cpu.as_ref());
        set(&mut resources.reserve_memory, self.reserve_memory.as_ref());
    }
}

impl RestartFlags {
    fn write(&self, policy: &mut RestartPolicy) {
        set(&mut policy.condition, self.restart_condition.as_ref());
        set(&mut policy.delay, self.restart_delay.as_ref());
        set(&mut policy.max_attempts, self.restart_max_attempts.as_ref());
        set(&mut policy.window, self.restart_window.as_ref());
    }
}

impl UpdateFlags {
    fn write(&self, config: &mut UpdateConfig) {
        set(&mut config.delay, self.update_delay.as_ref());
        set(&mut config.failure_action, self.update_failure_action.as_ref());
        set(&mut config.max_failure_ratio, self.update_max_failure_ratio.as_ref());
        set(&mut config.monitor, self.update_monitor.as_ref());
        set(&mut config.order, self.update_order.as_ref());
        set(&mut config.parallelism, self.update_parallelism.as_ref());
    }
}

impl RollbackFlags {
    fn write(&self, config: &mut UpdateConfig) {
        set(&mut config.delay, self.rollback_delay.as_ref());
        set(&mut config.failure_action, self.rollback_failure_action.as_ref());
        set(&mut config.max_failure_ratio, self.rollback_max_failure_ratio.as_ref());
        set(&mut config.monitor, self.rollback_monitor.as_ref());
        set(&mut config.order, self.rollback_order.as_ref());
        set(&mut config.parallelism, self.rollback_parallelism.as_ref());
    }
}
