//! What a cluster does: services and tasks.

use super::{both, labels, meta, seconds, texts, time};
use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::time::Duration;
use types::{
    AppArmor, Attachment, ContainerSpec, ContainerStatus, DesiredState, DnsConfig, EndpointMode,
    EndpointSpec, FailureAction, FileReference, FileTarget, GenericReservations, GenericResources,
    HealthCheck, HostEntry, JobStatus, Labels, Mount, MountKind, NetworkAttachment, Placement,
    Platform, Preference, Propagation, Protocol, PublishMode, PublishedPort, PullCredentials,
    Resources, RestartCondition, RestartPolicy, STACK_LABEL, Seccomp, Security, Service,
    ServiceMode, ServiceSpec, Slot, Task, TaskSpec, TaskState, TaskStatus, Ulimit, UpdateConfig,
    UpdateOrder, UpdateState, UpdateStatus, Vip,
};

fn mount(kind: MountKind, propagation: Propagation) -> Mount {
    Mount {
        kind,
        source: "data".to_owned(),
        target: "/data".to_owned(),
        read_only: true,
        read_only_not_below: true,
        read_only_or_fail: true,
        propagation,
        not_below: true,
        make_source: true,
        no_copy: true,
        tmpfs_size: 64 << 20,
        tmpfs_mode: 0o700,
        tmpfs_options: texts(["noexec"]),
        labels: labels("mount"),
        volume_driver: "local".to_owned(),
        driver_options: labels("options"),
        subpath: "sub/folder".to_owned(),
    }
}

fn reference<I: for<'a> From<&'a str>>(id: &str, target: &str) -> FileReference<I> {
    let target = FileTarget { name: target.to_owned(), uid: 1000, gid: 100, mode: 0o440 };
    FileReference { id: id.into(), name: format!("{id}-name"), target }
}

fn container() -> ContainerSpec {
    ContainerSpec {
        image: "registry.example/shop/web:1@sha256:0123".to_owned(),
        labels: labels("container"),
        command: texts(["/bin/web"]),
        args: texts(["--port", "80"]),
        hostname: "host-3".to_owned(),
        env: texts(["A=1", "B"]),
        dir: "/srv".to_owned(),
        user: "web:web".to_owned(),
        groups: texts(["tty"]),
        tty: true,
        open_stdin: true,
        read_only: true,
        init: Some(true),
        stop_signal: "SIGINT".to_owned(),
        stop_grace_period: Some(seconds(1)),
        health: Some(HealthCheck {
            test: texts(["CMD", "true"]),
            interval: seconds(2),
            timeout: seconds(3),
            start_period: seconds(4),
            start_interval: seconds(5),
            retries: 6,
        }),
        hosts: vec![HostEntry {
            address: "2001:db8::1".parse().unwrap(),
            names: texts(["db", "db.example"]),
        }],
        dns: DnsConfig {
            nameservers: vec![Ipv4Addr::new(192, 0, 2, 53).into()],
            search: texts(["example"]),
            options: texts(["ndots:2"]),
        },
        mounts: vec![
            mount(MountKind::Volume, Propagation::Rprivate),
            mount(MountKind::Bind, Propagation::Rslave),
            mount(MountKind::Bind, Propagation::Rshared),
            mount(MountKind::Tmpfs, Propagation::Private),
        ],
        cap_add: texts(["NET_ADMIN"]),
        cap_drop: texts(["CHOWN"]),
        sysctls: Labels::from([("net.core.somaxconn".to_owned(), "9".to_owned())]),
        ulimits: vec![Ulimit { name: "nofile".to_owned(), soft: 10, hard: -1 }],
        oom_score_adj: -5,
        security: Security {
            seccomp: Seccomp::Custom("{}".to_owned()),
            apparmor: AppArmor::Named("own".to_owned()),
            no_new_privileges: true,
            selinux_disabled: true,
        },
        secrets: vec![reference("secret1", "/run/key")],
        configs: vec![reference("config1", "app.conf")],
        pull_credentials: Some(PullCredentials {
            username: "u".to_owned(),
            password: "p".to_owned(),
            identity_token: "i".to_owned(),
        }),
    }
}

fn task_spec() -> TaskSpec {
    TaskSpec {
        container: container(),
        resources: Resources {
            limit_nano_cpus: 1,
            limit_memory: 2,
            limit_pids: 3,
            reserve_nano_cpus: 4,
            reserve_memory: 5,
            swap: Some(-1),
            swappiness: Some(60),
        },
        restart: RestartPolicy {
            condition: RestartCondition::OnFailure,
            delay: seconds(6),
            max_attempts: 7,
            window: seconds(8),
        },
        placement: Placement {
            constraints: texts(["node.role==worker"]),
            preferences: vec![Preference { spread: "node.labels.zone".to_owned() }],
            max_replicas_per_node: 9,
            platforms: vec![Platform { os: "linux".to_owned(), architecture: "amd64".to_owned() }],
        },
        networks: vec![NetworkAttachment { target: "net1".into(), aliases: texts(["www"]) }],
        log_driver: "local".to_owned(),
        log_options: labels("log"),
        force_update: 10,
        generic: GenericReservations::default(),
    }
}

fn ports() -> Vec<PublishedPort> {
    let port = |name: &str, protocol, mode| PublishedPort {
        name: name.to_owned(),
        protocol,
        target: 80,
        published: 8080,
        mode,
    };
    vec![
        port("http", Protocol::Tcp, PublishMode::Ingress),
        port("dns", Protocol::Udp, PublishMode::Host),
    ]
}

fn service_spec() -> ServiceSpec {
    ServiceSpec {
        name: "shop_web".to_owned(),
        labels: Labels::from([(STACK_LABEL.to_owned(), "shop".to_owned())]),
        task: task_spec().into(),
        mode: ServiceMode::Replicated { replicas: 3 },
        endpoint: EndpointSpec { mode: EndpointMode::Vip, ports: ports() },
        update: UpdateConfig {
            parallelism: 2,
            delay: seconds(11),
            failure_action: FailureAction::Rollback,
            monitor: seconds(12),
            max_failure_ratio: 0.25,
            order: UpdateOrder::StartFirst,
        },
        rollback: UpdateConfig {
            failure_action: FailureAction::Continue,
            ..UpdateConfig::default()
        },
    }
}

pub fn service() -> Service {
    let mut before = service_spec();
    before.task.container.image = "registry.example/shop/web:0".into();
    Service {
        id: "s1".into(),
        meta: meta(4),
        spec: service_spec(),
        previous_spec: Some(before),
        ports: ports(),
        vips: vec![Vip { network: "net1".into(), addresses: both(2) }],
        update: Some(UpdateStatus {
            state: UpdateState::RollbackPaused,
            started_at: time(4),
            completed_at: Some(time(5)),
            message: "update paused".to_owned(),
            failed: BTreeMap::from([
                (Slot::Number(2), time(6)),
                (Slot::Node("n2".into()), time(7)),
            ]),
        }),
        allocation_error: "no address".to_owned(),
        // Only a job has it.
        job: None,
        homes: BTreeMap::from([(1, "node-1".into())]),
    }
}

pub fn job() -> Service {
    let mut service = Service { id: "s3".into(), meta: meta(7), ..Service::default() };
    service.spec.name = "import".into();
    service.spec.mode = ServiceMode::ReplicatedJob { max_concurrent: 2, total_completions: 5 };
    let before = ServiceSpec { mode: ServiceMode::GlobalJob, ..service.spec.clone() };
    service.previous_spec = Some(before);
    service.job =
        Some(JobStatus { iteration: 3, last_execution: Some(time(13)), scheduled: Some(time(14)) });
    service
}

/// A task of [`job`].
pub fn job_task() -> Task {
    Task {
        id: "t3".into(),
        service: "s3".into(),
        service_name: "import".to_owned(),
        slot: 2,
        iteration: Some(3),
        spec: job().spec.task,
        ..Task::default()
    }
}

pub fn global_service() -> Service {
    let mut service = Service { id: "s2".into(), meta: meta(5), ..Service::default() };
    service.spec.name = "agent".into();
    service.spec.mode = ServiceMode::Global;
    service.spec.endpoint.mode = EndpointMode::Dnsrr;
    service.spec.task.container.security.seccomp = Seccomp::Unconfined;
    service.spec.task.container.security.apparmor = AppArmor::Unconfined;
    service
}

pub fn status(state: TaskState) -> TaskStatus {
    TaskStatus {
        state,
        since: time(8),
        message: "started".to_owned(),
        error: "exit code 3".to_owned(),
        container: Some(ContainerStatus { id: "c1".to_owned(), pid: 42, exit_code: -1 }),
        unhealthy: true,
        refreshed: 0,
    }
}

/// A task of [`service`].
pub fn task() -> Task {
    Task {
        id: "t1".into(),
        meta: meta(6),
        service: "s1".into(),
        service_name: "shop_web".to_owned(),
        service_labels: Labels::from([(STACK_LABEL.to_owned(), "shop".to_owned())]),
        slot: 1,
        iteration: None,
        node: Some("n2".into()),
        spec: task_spec().into(),
        desired: DesiredState::Running,
        status: status(TaskState::Running),
        running_since: Some(time(9)),
        not_before: Some(time(10)),
        trial: Duration::from_millis(1250),
        replaces: None,
        restarts: vec![time(11), time(12)],
        attachments: vec![Attachment {
            network: "net1".into(),
            addresses: both(3),
            aliases: texts(["www"]),
        }],
        ingress_addresses: [10, 255, 0, 4].into(),
        ports: ports(),
        default_log: None,
        generic: GenericResources::default(),
        refresh: None,
    }
}

/// A task of [`global_service`] that has no more than it must.
pub fn other_task() -> Task {
    Task {
        id: "t2".into(),
        service: "s2".into(),
        service_name: "agent".to_owned(),
        desired: DesiredState::Shutdown,
        spec: global_service().spec.task,
        ..Task::default()
    }
}
