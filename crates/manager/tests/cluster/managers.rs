//! Several managers: whoever is asked, the one that leads decides.

use crate::stage::{Cluster, PATIENCE, Scripted, cluster, free_address};
use ca::Identity;
use manager::{Config, LogSelector, Manager, Peers};
use raft::Start;
use scope::Scope;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;
use tokio_stream::StreamExt;
use types::{Node, NodeId, NodeRole, NodeSpec, ServiceId, ServiceMode, ServiceSpec};
use wire::{LogChunk, LogLine, LogOptions};

/// A manager besides the first one.
pub(crate) struct Another {
    pub(crate) manager: Manager,
    pub(crate) identity: Identity,
    pub(crate) address: String,
    scope: Scope,
    dir: tempfile::TempDir,
    member: u64,
}

impl Another {
    async fn join(cluster: &Cluster) -> Self {
        let identity = cluster.join_as_manager().await;
        let address = free_address().await.to_string();
        let member = ca::enroll(&[cluster.address()], &identity, &address).await.unwrap();
        let dir = tempfile::tempdir().unwrap();
        let (manager, scope) = start((&identity, member, Start::Join), &address, &dir).await;
        Self { manager, identity, address, scope, dir, member }
    }

    pub(crate) fn id(&self) -> NodeId {
        self.identity.node_id()
    }

    /// It ends, as if it was killed: nobody is told.
    pub(crate) async fn stop(self) -> (Identity, String, tempfile::TempDir, u64) {
        self.scope.cancel();
        tokio::time::timeout(PATIENCE, self.scope.join()).await.unwrap().unwrap();
        (self.identity, self.address, self.dir, self.member)
    }

    pub(crate) async fn again(
        (identity, address, dir, member): (Identity, String, tempfile::TempDir, u64),
    ) -> Self {
        let (manager, scope) = start((&identity, member, Start::Resume), &address, &dir).await;
        Self { manager, identity, address, scope, dir, member }
    }
}

async fn start(
    (identity, member, start): (&Identity, u64, Start),
    address: &str,
    dir: &tempfile::TempDir,
) -> (Manager, Scope) {
    let mut scope = Scope::new();
    let log = raft::Config {
        reserve_bytes: 0,
        member,
        start,
        ..raft::Config::new(dir.path().join("raft"), raft::Key::from([7; 32]))
    };
    let peers = Peers::new(Arc::new(identity.clone()), member);
    let sequencer = raft::open(log, peers.clone(), &mut scope).await.unwrap();
    let config = Config { listen: address.parse().unwrap(), address: address.to_owned() };
    let log = (sequencer, peers);
    let manager =
        Manager::start(config, log, Arc::new(identity.clone()), &mut scope).await.unwrap();
    (manager, scope)
}

/// Waits until it is so.
pub(crate) async fn until(what: &str, is_so: impl AsyncFn() -> bool) {
    let waiting = async {
        while !is_so().await {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    assert!(tokio::time::timeout(PATIENCE, waiting).await.is_ok(), "never: {what}");
}

/// Three managers that all vote.
pub(crate) async fn three() -> (Cluster, Another, Another) {
    let cluster = cluster().await;
    let second = Another::join(&cluster).await;
    let third = Another::join(&cluster).await;
    until("three votes", async || cluster.sequencer.members().voters.len() == 3).await;
    (cluster, second, third)
}

pub(crate) fn spec(name: &str) -> ServiceSpec {
    let mut spec = ServiceSpec { name: name.to_owned(), ..ServiceSpec::default() };
    spec.mode = ServiceMode::Replicated { replicas: 1 };
    spec.task.container.image = "image".into();
    spec
}

async fn has(manager: &Manager, id: &ServiceId) -> bool {
    manager.fresh().await.unwrap().service(id).is_some()
}

async fn demote(manager: &Manager, id: &NodeId) {
    let node = Node::clone(manager.fresh().await.unwrap().node(id).unwrap());
    let spec = NodeSpec { role: NodeRole::Worker, ..node.spec };
    manager.update_node(id, node.meta.version, spec).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whichever_manager_is_asked_what_is_done_is_known_to_all() {
    let (cluster, second, third) = three().await;
    let id = second.manager.create_service(spec("a")).await.unwrap();
    assert!(second.manager.view().service(&id).is_some(), "whoever asked sees it");
    assert!(has(&third.manager, &id).await && has(&cluster.manager, &id).await);
    third.manager.remove_service(&id).await.unwrap();
    assert!(!has(&second.manager, &id).await && !has(&cluster.manager, &id).await);
    let fault = third.manager.remove_service(&id).await.unwrap_err();
    assert_eq!(fault.kind, types::FaultKind::NotFound, "{fault}");

    let all = third.manager.managers().await.unwrap();
    assert_eq!((all.leader, all.unreachable), (Some("manager-node".into()), BTreeSet::new()));
    // A machine may join by any of them.
    let token = cluster.worker_token();
    let addresses = [second.address.clone()];
    let worker = ca::join(&addresses, &token, types::Availability::Active).await.unwrap();
    assert!(cluster.manager.view().node(&worker.node_id()).is_some());
    // Once a manager knows it, it is told to ask the one that leads.
    assert!(third.manager.fresh().await.unwrap().node(&worker.node_id()).is_some());
    let refused = Scripted::connect_to(&third.address, &worker, 1).await.map(drop).unwrap_err();
    assert!(refused.is_not_leading(), "{refused}");
    Scripted::connect(&cluster, &worker, 1).await.unwrap();
    second.stop().await;
    third.stop().await;
    cluster.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_the_leader_is_lost_another_one_leads_and_one_that_comes_back_has_everything() {
    let (cluster, second, third) = three().await;
    let worker = cluster.join().await;
    let before = second.manager.create_service(spec("before")).await.unwrap();
    cluster.end().await;
    let after = second.manager.create_service(spec("after")).await.unwrap();
    assert!(has(&third.manager, &before).await && has(&third.manager, &after).await);
    let all = second.manager.managers().await.unwrap();
    assert!(all.unreachable.contains(&"manager-node".into()), "{all:?}");
    // The tasks of both are placed by the new leader.
    let leader = all.leader.unwrap();
    let address = if leader == second.id() { &second.address } else { &third.address };
    let mut node = Scripted::connect_to(address, &worker, 1).await.unwrap();
    node.read_until("both tasks", |node| node.has.tasks.len() == 2).await;

    let stopped = third.stop().await;
    let alone = tokio::time::timeout(PATIENCE, second.manager.create_service(spec("nobody")));
    let fault = alone.await.unwrap().unwrap_err();
    assert_eq!(fault.kind, types::FaultKind::Unavailable, "{fault}");
    let third = Another::again(stopped).await;
    until("a leader again", async || has_leader(&second.manager).await).await;
    assert!(has(&third.manager, &after).await);
    second.stop().await;
    third.stop().await;
}

async fn has_leader(manager: &Manager) -> bool {
    manager.fresh().await.is_ok()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn managers_are_demoted_and_resign_and_the_last_one_stays() {
    let (cluster, second, third) = three().await;
    demote(&third.manager, &second.id()).await;
    let is_worker = |id: &NodeId| {
        let view = cluster.manager.view();
        let node = view.node(id).unwrap();
        node.role == NodeRole::Worker && node.manager.is_none()
    };
    until("a worker", async || is_worker(&second.id())).await;
    assert_eq!(cluster.sequencer.members().voters.len(), 2);

    // The leader itself: another one leads first.
    let first = cluster.first.node_id();
    cluster.manager.resign(&first).await.unwrap();
    let leader =
        async || third.manager.managers().await.is_ok_and(|it| it.leader == Some(third.id()));
    until("the third leads", leader).await;
    let last = third.manager.resign(&third.id()).await.unwrap_err();
    assert!(last.message.contains("the last manager"), "{last}");
    third.manager.create_service(spec("alone")).await.unwrap();
    third.manager.remove_node(&second.id(), true).await.unwrap();
    second.stop().await;
    third.stop().await;
    cluster.end().await;
}

/// They have no certificate; whoever is asked by them alone has the trouble.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_guesses_tokens_at_one_manager_is_refused_there() {
    let (cluster, second, third) = three().await;
    let token = cluster.worker_token();
    let (start, _) = token.rsplit_once('-').unwrap();
    let guess = format!("{start}-{}", "0".repeat(25));
    let addresses = [second.address.clone()];
    let refused = ca::join(&addresses, &guess, types::Availability::Active).await.unwrap_err();
    assert_eq!(refused, types::Fault::forbidden(ca::TOKEN_REFUSED));
    let refusals = [&second.manager, &cluster.manager].map(|it| it.refusals().calls());
    assert_eq!(refusals, [1, 0], "the leader has not heard of it");
    // A token that was drawn anew just now holds everywhere.
    let known = types::Cluster::clone(cluster.manager.view().cluster().unwrap());
    let rotate = wire::Rotate { worker: true, ..wire::Rotate::default() };
    cluster.manager.update_cluster(known.meta.version, known.spec, rotate).await.unwrap();
    ca::join(&addresses, &cluster.worker_token(), types::Availability::Active).await.unwrap();
    second.stop().await;
    third.stop().await;
    cluster.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_manager_that_is_named_leads() {
    let (cluster, second, third) = three().await;
    for to in [&third, &second, &second] {
        third.manager.transfer(Some(to.id())).await.unwrap();
        let leads =
            async || second.manager.managers().await.is_ok_and(|it| it.leader == Some(to.id()));
        until("it leads", leads).await;
        let status = to.manager.log_status();
        assert!(status.members.iter().all(|it| it.votes && it.is_reachable == Some(true)));
        assert_eq!(status.members.iter().filter(|it| it.is_leader).count(), 1);
    }
    let worker = cluster.join().await;
    let refused = second.manager.transfer(Some(worker.node_id())).await.unwrap_err();
    assert!(refused.message.contains("is no manager"), "{refused}");
    // Who handed over may do so again, to whoever is best prepared.
    second.manager.transfer(None).await.unwrap();
    let another =
        async || third.manager.managers().await.is_ok_and(|it| it.leader != Some(second.id()));
    until("another one leads", another).await;
    second.stop().await;
    third.stop().await;
    cluster.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_planned_handover_fails_nobody() {
    let (cluster, second, third) = three().await;
    let writing = async {
        for number in 0..40 {
            let name = format!("s{number}");
            let made = second.manager.create_service(spec(&name)).await;
            made.unwrap_or_else(|fault| panic!("{name}: {fault}"));
        }
    };
    let moving = async {
        for manager in [&cluster.manager, &second.manager, &third.manager].repeat(3) {
            manager.hand_over(Duration::from_secs(5)).await.unwrap();
        }
    };
    tokio::join!(writing, moving);
    assert_eq!(third.manager.fresh().await.unwrap().services().count(), 40);
    second.stop().await;
    third.stop().await;
    cluster.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn logs_are_followed_by_any_manager() {
    let (cluster, second, third) = three().await;
    let mut node = Scripted::join(&cluster).await;
    let service = second.manager.create_service(spec("web")).await.unwrap();
    let task = node.runs_a_task().await;
    let options = LogOptions { stdout: true, ..LogOptions::default() };
    let mut lines = third.manager.logs(LogSelector::Service(service), options).await.unwrap();
    let request = node.log_request().await;
    let line = LogLine { task, text: b"hello\n".to_vec(), ..LogLine::default() };
    let subscription = request.subscription;
    let chunk = LogChunk { subscription, lines: vec![line], end: true, ..LogChunk::default() };
    node.client.publish_logs(tokio_stream::iter([chunk])).await.unwrap();
    let line = tokio::time::timeout(PATIENCE, lines.next()).await.unwrap().unwrap().unwrap();
    assert_eq!((line.text, line.node), (b"hello\n".to_vec(), node.id));
    assert!(tokio::time::timeout(PATIENCE, lines.next()).await.unwrap().is_none(), "it ends");
    second.stop().await;
    third.stop().await;
    cluster.end().await;
}
