//! What users ask for.

use crate::random::Random;
use std::time::Duration;
use types::{
    Availability, EndpointMode, FailureAction, FileReference, FileTarget, HealthCheck,
    NetworkAttachment, NetworkId, NetworkSpec, NodeRole, PublishMode, PublishedPort,
    RestartCondition, STACK_LABEL, ServiceMode, ServiceSpec, UpdateConfig, UpdateOrder,
};

/// Services and networks that users have names for.
const SERVICES: u64 = 6;
const NETWORKS: u64 = 4;

/// What a user does. Things are told by number: what is not there is refused, as users find.
#[derive(Clone, Debug)]
pub enum Operation {
    CreateNetwork(u64),
    RemoveNetwork(u64),
    CreateService(u64, Box<Wish>),
    UpdateService(u64, Box<Wish>),
    Scale(u64, u64),
    Rollback(u64),
    RemoveService(u64),
    Availability(usize, Availability),
    /// Whether it has the label that some services ask for.
    Label(usize, bool),
    /// Whether it is drained with pace, once it is drained.
    Pace(usize, bool),
    /// It is to be a manager, or none any more.
    Role(usize, NodeRole),
    /// Another machine joins.
    Join,
    /// On the node itself.
    Leave(usize),
    RemoveNode(usize, bool),
}

/// How containers of an image behave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Image {
    Good,
    /// Takes its time to be pulled.
    Large,
    /// Ends with an error soon.
    Brief,
    /// Ends with success after a while.
    Job,
    /// Is in no registry.
    Missing,
    /// Cannot be started.
    Broken,
    /// Does not hear the stop signal.
    Stubborn,
    /// Its health check fails after a while.
    Sick,
}

impl Image {
    const ALL: [(&'static str, Self); 8] = [
        ("good", Self::Good),
        ("large", Self::Large),
        ("brief", Self::Brief),
        ("job", Self::Job),
        ("missing", Self::Missing),
        ("broken", Self::Broken),
        ("stubborn", Self::Stubborn),
        ("sick", Self::Sick),
    ];

    /// The image of a reference, e.g. `good:3`.
    pub fn of(reference: &str) -> Self {
        let name = reference.split(':').next().unwrap_or_default();
        Self::ALL.iter().find(|(known, _)| *known == name).map_or(Self::Good, |(_, image)| *image)
    }

    pub fn name(self) -> &'static str {
        Self::ALL.iter().find(|(_, image)| *image == self).map_or("good", |(name, _)| *name)
    }

    fn draw(random: &mut Random) -> Self {
        match random.below(20) {
            0 => Self::Brief,
            1 => Self::Job,
            2 => Self::Missing,
            3 => Self::Broken,
            4 | 5 => Self::Stubborn,
            6 => Self::Sick,
            7 => Self::Large,
            _ => Self::Good,
        }
    }
}

/// The secret of services that belong to a stack.
pub const SECRET: &str = "key";

/// A service as a user wants it.
#[derive(Clone, Debug)]
#[expect(clippy::struct_excessive_bools, reason = "each is another wish")]
pub struct Wish {
    pub global: bool,
    /// It is run until so many have completed.
    pub job: bool,
    pub replicas: u64,
    pub image: Image,
    pub release: u64,
    /// By number, in this order.
    pub networks: Vec<u64>,
    pub port: Option<(u16, PublishMode)>,
    pub dnsrr: bool,
    pub health: bool,
    pub grace: Duration,
    pub labelled: bool,
    pub stack: bool,
    pub restart: (RestartCondition, Duration, u64),
    pub update: UpdateConfig,
    pub rollback: UpdateConfig,
}

impl Wish {
    fn draw(random: &mut Random) -> Self {
        let networks = match random.below(4) {
            0 => vec![],
            1 | 2 => vec![random.below(NETWORKS)],
            _ => {
                let first = random.below(NETWORKS);
                vec![first, (first + 1) % NETWORKS]
            }
        };
        let port = random.chance(400).then(|| {
            let mode = if random.chance(850) { PublishMode::Ingress } else { PublishMode::Host };
            (8_000 + u16::try_from(random.below(4)).unwrap_or(0), mode)
        });
        let job = random.chance(150);
        // What runs on for ever completes never, until users mend it.
        let ends = job && random.chance(850);
        let image =
            if ends { random.pick(&[Image::Job, Image::Brief]) } else { Image::draw(random) };
        let condition = random.pick(&[
            RestartCondition::Any,
            RestartCondition::Any,
            RestartCondition::Any,
            RestartCondition::OnFailure,
            RestartCondition::None,
        ]);
        let attempts = if random.chance(200) { 2 } else { 0 };
        let global = random.chance(150);
        Self {
            global,
            job,
            replicas: random.below(6),
            image,
            release: random.below(4),
            networks,
            port,
            dnsrr: port.is_none() && random.chance(200),
            health: image == Image::Sick || random.chance(300),
            grace: Duration::from_secs(random.pick(&[1, 3, 10])),
            labelled: random.chance(100),
            stack: random.chance(300),
            restart: (condition, Duration::from_secs(random.pick(&[0, 1, 5])), attempts),
            update: update(random),
            rollback: update(random),
        }
    }

    /// The spec; networks by the ids that users find for their names.
    pub fn spec(&self, name: String, network: impl Fn(u64) -> NetworkId) -> ServiceSpec {
        let mut spec = ServiceSpec { name, ..ServiceSpec::default() };
        if self.stack {
            spec.labels.insert(STACK_LABEL.to_owned(), "shop".to_owned());
            spec.task.container.secrets = vec![FileReference {
                id: SECRET.into(),
                name: SECRET.to_owned(),
                target: FileTarget { name: SECRET.to_owned(), ..FileTarget::default() },
            }];
        }
        let replicas = self.replicas;
        spec.mode = match (self.global, self.job) {
            (true, false) => ServiceMode::Global,
            (true, true) => ServiceMode::GlobalJob,
            (false, false) => ServiceMode::Replicated { replicas },
            (false, true) => ServiceMode::ReplicatedJob {
                max_concurrent: 1 + self.release,
                total_completions: replicas,
            },
        };
        let attach = |number: &u64| NetworkAttachment {
            target: network(*number),
            aliases: vec![format!("alias{number}")],
        };
        spec.task.networks = self.networks.iter().map(attach).collect();
        if let Some((published, mode)) = self.port {
            let port = PublishedPort { published, target: 80, mode, ..PublishedPort::default() };
            spec.endpoint.ports = vec![port];
        }
        if self.dnsrr {
            spec.endpoint.mode = EndpointMode::Dnsrr;
        }
        let container = &mut spec.task.container;
        container.image = format!("{}:{}", self.image.name(), self.release);
        container.stop_grace_period = Some(self.grace);
        container.health = self.health.then(|| HealthCheck {
            test: vec!["CMD".to_owned(), "true".to_owned()],
            ..HealthCheck::default()
        });
        if self.labelled {
            spec.task.placement.constraints = vec!["node.labels.disk==ssd".to_owned()];
        }
        if self.release % 2 == 1 {
            spec.task.generic.insert("gpu".to_owned(), 1 + self.release / 2);
        }
        let restart = &mut spec.task.restart;
        (restart.condition, restart.delay, restart.max_attempts) = self.restart;
        if !self.job {
            (spec.update, spec.rollback) = (self.update.clone(), self.rollback.clone());
        }
        spec
    }
}

fn update(random: &mut Random) -> UpdateConfig {
    UpdateConfig {
        parallelism: random.below(3),
        delay: Duration::from_secs(random.pick(&[0, 0, 1, 4])),
        failure_action: random.pick(&[
            FailureAction::Pause,
            FailureAction::Continue,
            FailureAction::Rollback,
        ]),
        monitor: Duration::from_secs(random.pick(&[0, 2, 5])),
        max_failure_ratio: random.pick(&[0.0, 0.3, 1.0]),
        order: random.pick(&[UpdateOrder::StopFirst, UpdateOrder::StartFirst]),
    }
}

impl Operation {
    /// What users begin with.
    pub fn first(random: &mut Random) -> Vec<Self> {
        let networks = (0..NETWORKS).map(Self::CreateNetwork);
        let services = 2 + random.below(3);
        let mut all: Vec<Self> = networks.collect();
        for service in 0..services {
            all.push(Self::CreateService(service, Box::new(Wish::draw(random))));
        }
        all
    }

    /// What only clusters of several managers are asked for.
    pub fn draw_role(random: &mut Random, nodes: usize) -> Self {
        let node = usize::try_from(random.below(nodes as u64)).unwrap_or(0);
        Self::Role(node, random.pick(&[NodeRole::Manager, NodeRole::Worker]))
    }

    pub fn draw(random: &mut Random, nodes: usize) -> Self {
        let (service, network) = (random.below(SERVICES), random.below(NETWORKS));
        // Also those that join later.
        let node = usize::try_from(random.below(nodes as u64 + 1)).unwrap_or(0);
        match random.below(32) {
            0 => Self::CreateNetwork(network),
            1 => Self::RemoveNetwork(network),
            2..=5 => Self::CreateService(service, Box::new(Wish::draw(random))),
            6..=11 => Self::UpdateService(service, Box::new(Wish::draw(random))),
            12..=16 => Self::Scale(service, random.below(8)),
            17..=18 => Self::Rollback(service),
            19..=20 => Self::RemoveService(service),
            21..=25 => {
                let active = Availability::Active;
                let to = [active, active, Availability::Pause, Availability::Drain];
                Self::Availability(node, random.pick(&to))
            }
            26 => Self::Label(node, random.chance(600)),
            27 => Self::Join,
            28..=29 => Self::Pace(node, random.chance(700)),
            30 => Self::Leave(node),
            _ => Self::RemoveNode(node, random.chance(300)),
        }
    }
}

/// A network as a user wants it.
pub fn network(number: u64) -> NetworkSpec {
    NetworkSpec { name: network_name(number), internal: number == 3, ..NetworkSpec::default() }
}

pub fn network_name(number: u64) -> String {
    format!("net{number}")
}

pub fn service_name(number: u64) -> String {
    format!("svc{number}")
}
