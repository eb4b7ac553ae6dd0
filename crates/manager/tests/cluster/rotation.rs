//! Another root of trust, below managers and nodes that go on.

use crate::managers::{Another, spec, three, until};
use crate::stage::{Cluster, Scripted, cluster};
use ca::{Identity, JoinToken};
use manager::{Manager, Rotate, managers::rotation::waits_for};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::task::JoinHandle;
use types::{Availability, Fault, NodeId};

/// Between two heartbeats.
const BEAT: Duration = Duration::from_millis(50);

/// What a node's agent does about certificates, until it is dropped.
struct Agent(JoinHandle<()>);

impl Drop for Agent {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Agent {
    fn start(identity: &Identity, managers: &[String]) -> Self {
        let (identity, managers) = (identity.clone(), managers.to_vec());
        #[expect(clippy::disallowed_methods, reason = "it ends with the test")]
        let agent = tokio::spawn(async move {
            for address in managers.iter().cycle() {
                // It does not lead, is down, or the session is over: another one is asked.
                session(&identity, address).await.ok();
                tokio::time::sleep(BEAT).await;
            }
        });
        Self(agent)
    }
}

/// A session, until the node's certificate or roots are others.
async fn session(identity: &Identity, address: &str) -> Result<(), Fault> {
    let mut node = Scripted::connect_to(address, identity, 1).await?;
    loop {
        if let Some(trust) = node.heartbeat().await?.trust {
            return match trust.issuer {
                Some(_) => {
                    let config = ca::tls::client_config(identity)?;
                    ca::renew(ca::connect(address, config).await?, identity).await
                }
                None => Ok(identity.trust(&trust.roots).map(drop)?),
            };
        }
        tokio::time::sleep(BEAT).await;
    }
}

/// Begins another rotation.
async fn rotate(manager: &Manager) {
    let cluster = types::Cluster::clone(manager.fresh().await.unwrap().cluster().unwrap());
    let mut spec = cluster.spec.clone();
    spec.force_rotate += 1;
    manager.update_cluster(cluster.meta.version, spec, Rotate::default()).await.unwrap();
}

/// The root that is on its way.
fn next_root(manager: &Manager) -> String {
    manager.view().cluster().unwrap().wanted_root().to_owned()
}

/// Waits until this is the cluster's root, and the only one.
async fn is_root(manager: &Manager, root: &str) {
    let is_it = async || manager.view().cluster().unwrap().roots() == root;
    until("the new root is the cluster's", is_it).await;
}

fn addresses(cluster: &Cluster, others: [&Another; 2]) -> Vec<String> {
    [cluster.address(), others[0].address.clone(), others[1].address.clone()].to_vec()
}

async fn has_renewed(identity: &Identity, root: &str) {
    let issuer = ca::issuer(root).unwrap();
    until("a renewal", async || identity.issuer() == issuer).await;
}

/// A manager that leads, once there is one.
async fn leader(managers: [&Manager; 2]) -> NodeId {
    loop {
        for manager in managers {
            if let Ok(Some(leader)) = manager.managers().await.map(|it| it.leader) {
                return leader;
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_root_is_rotated_below_managers_and_no_call_fails() {
    let (cluster, second, third) = three().await;
    let all = addresses(&cluster, [&second, &third]);
    let (worker, token) = (cluster.join().await, cluster.worker_token());
    let nodes = [&cluster.first, &second.identity, &third.identity, &worker];
    let _agents = nodes.map(|node| Agent::start(node, &all));
    let (before, is_over) = (next_root(&cluster.manager), AtomicBool::new(false));
    let asking = async {
        let mut number = 0;
        while !is_over.load(Ordering::Relaxed) {
            let name = format!("s{number}");
            let manager = [&second.manager, &third.manager, &cluster.manager][number % 3];
            let made = manager.create_service(spec(&name)).await;
            made.unwrap_or_else(|fault| panic!("{name}: {fault}"));
            number += 1;
        }
    };
    let rotating = async {
        rotate(&third.manager).await;
        let root = next_root(&third.manager);
        is_root(&second.manager, &root).await;
        let wanted = |node: &&Identity| node.roots() == root;
        until("all know it", async || nodes.iter().all(wanted)).await;
        is_over.store(true, Ordering::Relaxed);
        root
    };
    let (root, ()) = tokio::join!(rotating, asking);
    assert_ne!(root, before);
    // Machines join with other tokens.
    let refused = ca::join(&all, &token, Availability::Active).await.unwrap_err();
    assert!(refused.message.contains("does not match fingerprint"), "{refused}");
    let new = second.manager.view().cluster().unwrap().tokens.worker.clone();
    assert_eq!(JoinToken::parse(&new).unwrap().digest(), ca::root_digest(&root).unwrap());
    let joined = ca::join(&all, &new, Availability::Active).await.unwrap();
    assert_eq!(joined.roots(), root);
    second.stop().await;
    third.stop().await;
    cluster.end().await;
}

/// It waits for a node that is down, and for no other one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_is_down_is_waited_for_and_named() {
    let cluster = cluster().await;
    let (away, there) = (cluster.join().await, cluster.join().await);
    let all = [cluster.address()];
    drop(Scripted::connect(&cluster, &away, 2).await.unwrap());
    let _agents = [&cluster.first, &there].map(|node| Agent::start(node, &all));
    rotate(&cluster.manager).await;
    let root = next_root(&cluster.manager);
    let named = async || waits_for(&cluster.manager.view()) == Some(vec![away.node_id()]);
    until("it alone is waited for", named).await;
    // Another root takes the place of one that is on its way: all renew once more.
    rotate(&cluster.manager).await;
    let newest = next_root(&cluster.manager);
    assert_ne!(newest, root);
    has_renewed(&there, &newest).await;
    until("it alone is waited for", named).await;
    let _agent = Agent::start(&away, &all);
    is_root(&cluster.manager, &newest).await;
    has_renewed(&away, &newest).await;
    cluster.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_removed_node_is_not_waited_for_and_a_rotation_can_be_called_off() {
    let cluster = cluster().await;
    let (gone, there) = (cluster.join().await, cluster.join().await);
    let all = [cluster.address()];
    let _agents = [&cluster.first, &there].map(|node| Agent::start(node, &all));
    let before = cluster.manager.view().cluster().unwrap().root_ca.clone();
    rotate(&cluster.manager).await;
    has_renewed(&there, &next_root(&cluster.manager)).await;
    // Back to the root that is known.
    let now = types::Cluster::clone(cluster.manager.view().cluster().unwrap());
    let back = Rotate { root: Some(before.clone()), ..Rotate::default() };
    cluster.manager.update_cluster(now.meta.version, now.spec.clone(), back).await.unwrap();
    is_root(&cluster.manager, &before.certificate).await;
    has_renewed(&there, &before.certificate).await;
    assert_eq!(cluster.manager.view().cluster().unwrap().tokens, now.tokens);

    rotate(&cluster.manager).await;
    let root = next_root(&cluster.manager);
    cluster.manager.remove_node(&gone.node_id(), true).await.unwrap();
    is_root(&cluster.manager, &root).await;
    cluster.end().await;
}

/// Before anybody has renewed, when managers have, and when all have.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_is_killed_leaves_no_rotation_half_done() {
    for phase in 0..3 {
        let (cluster, second, third) = three().await;
        let all = addresses(&cluster, [&second, &third]);
        let worker = cluster.join().await;
        while leader([&cluster.manager, &second.manager]).await != second.id() {
            cluster.manager.hand_over(Duration::from_secs(5)).await.ok();
            third.manager.hand_over(Duration::from_secs(5)).await.ok();
        }
        rotate(&cluster.manager).await;
        let root = next_root(&cluster.manager);
        let managers = [&cluster.first, &second.identity, &third.identity];
        let mut agents = Vec::new();
        if phase > 0 {
            agents.extend(managers.map(|node| Agent::start(node, &all)));
            for manager in managers {
                has_renewed(manager, &root).await;
            }
        }
        if phase > 1 {
            agents.push(Agent::start(&worker, &all));
            has_renewed(&worker, &root).await;
        }
        let killed = second.stop().await;
        agents.extend([&cluster.first, &killed.0, &third.identity, &worker].map(|node| {
            // Those that had one go on with it: two are as good as one.
            Agent::start(node, &all)
        }));
        let second = Another::again(killed).await;
        is_root(&third.manager, &root).await;
        is_root(&second.manager, &root).await;
        second.stop().await;
        third.stop().await;
        cluster.end().await;
    }
}
