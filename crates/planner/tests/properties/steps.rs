//! What may happen to a cluster.

use proptest::prelude::*;
use types::{Availability, FailureAction, RestartCondition, UpdateOrder};

/// Something that happens to the cluster.
#[derive(Clone, Debug)]
pub(super) enum Step {
    Node {
        node: u8,
        down: bool,
        availability: Availability,
        ssd: bool,
        paced: bool,
    },
    RemoveNode(u8),
    Service {
        service: u8,
        wish: Wish,
    },
    RemoveService(u8),
    Network {
        network: u8,
        prefix: u8,
    },
    RemoveNetwork(u8),
    /// The nodes move their tasks on; the seed says how far and which fail.
    Work {
        seed: u64,
    },
    /// A node leaves for good, or managers give up its tasks.
    Leave {
        node: u8,
        for_good: bool,
    },
    History(u8),
    Wait {
        seconds: u8,
    },
}

/// A service as some user wants it.
#[derive(Clone, Debug)]
#[expect(clippy::struct_excessive_bools, reason = "each is another wish")]
pub(super) struct Wish {
    pub(super) global: bool,
    pub(super) job: bool,
    pub(super) replicas: u8,
    pub(super) image: u8,
    pub(super) ssd: bool,
    pub(super) networks: Vec<u8>,
    pub(super) port: Option<(u8, bool)>,
    pub(super) restart: RestartCondition,
    pub(super) delay: u8,
    pub(super) parallelism: u8,
    pub(super) order: UpdateOrder,
    pub(super) failure: FailureAction,
    pub(super) memory: u8,
    pub(super) max_per_node: u8,
    pub(super) spread: bool,
    pub(super) rebalance: bool,
    /// To another service: an operator of affinities.
    pub(super) beside: Option<&'static str>,
    pub(super) gpus: u8,
    pub(super) seats: u8,
}

fn wish() -> impl Strategy<Value = Wish> {
    let restart = prop_oneof![
        3 => Just(RestartCondition::Any),
        1 => Just(RestartCondition::OnFailure),
        1 => Just(RestartCondition::None),
    ];
    let failure = prop_oneof![
        Just(FailureAction::Pause),
        Just(FailureAction::Continue),
        Just(FailureAction::Rollback),
    ];
    let order = prop_oneof![Just(UpdateOrder::StopFirst), Just(UpdateOrder::StartFirst)];
    let port = prop::option::weighted(0.5, (0..3u8, any::<bool>()));
    let networks = prop::collection::vec(0..3u8, 0..3);
    (
        (0..7u8, 0..6u8, 0..3u8, any::<bool>(), networks, port),
        (restart, 0..3u8, 0..3u8, order, failure, 0..3u8, 0..4u8, 0..4u8),
        (0..12usize, 0..8u8, 0..8u8),
    )
        .prop_map(|(one, two, (beside, gpus, seats))| {
            let (mode, replicas, image, ssd, networks, port) = one;
            let (restart, delay, parallelism, order, failure, memory, max_per_node, kind) = two;
            Wish {
                global: mode < 2,
                job: mode == 1 || mode == 2,
                replicas,
                image,
                ssd: ssd && image == 0,
                networks,
                port,
                restart,
                delay,
                parallelism,
                order,
                failure,
                memory,
                max_per_node: max_per_node.saturating_sub(1),
                spread: kind < 2,
                rebalance: kind == 2,
                beside: ["==", "!=", "==~", "!=~"].get(beside).copied(),
                gpus: gpus.saturating_sub(5),
                seats: seats.saturating_sub(5),
            }
        })
}

fn node() -> impl Strategy<Value = Step> {
    let availability = prop_oneof![
        6 => Just(Availability::Active),
        2 => Just(Availability::Pause),
        3 => Just(Availability::Drain),
    ];
    let (down, paced) = (prop::bool::weighted(0.2), prop::bool::weighted(0.6));
    (0..4u8, down, availability, any::<bool>(), paced).prop_map(
        |(node, down, availability, ssd, paced)| Step::Node {
            node,
            down,
            availability,
            ssd,
            paced,
        },
    )
}

pub(super) fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => node(),
        1 => (0..4u8).prop_map(Step::RemoveNode),
        4 => (0..3u8, wish()).prop_map(|(service, wish)| Step::Service { service, wish }),
        1 => (0..3u8).prop_map(Step::RemoveService),
        1 => (0..3u8, 27..31u8).prop_map(|(network, prefix)| Step::Network { network, prefix }),
        1 => (0..3u8).prop_map(Step::RemoveNetwork),
        8 => any::<u64>().prop_map(|seed| Step::Work { seed }),
        1 => (0..4u8, prop::bool::weighted(0.3))
            .prop_map(|(node, for_good)| Step::Leave { node, for_good }),
        1 => (0..6u8).prop_map(Step::History),
        3 => (0..12u8).prop_map(|seconds| Step::Wait { seconds }),
        // Nobody plans for longer than a new task may wait only where managers were away.
        1 => (20..60u8).prop_map(|seconds| Step::Wait { seconds }),
    ]
}
