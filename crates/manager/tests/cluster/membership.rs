//! Who gets in, and who is out.

use crate::stage::{Cluster, Scripted, cluster, cluster_of, now};
use ca::Identity;
use std::time::Duration;
use tonic::transport::Channel;
use types::{Availability, Fault, FaultKind, Node, NodeRole, NodeSpec, NodeState};
use wire::{
    BarrierRequest, IssueRequest, LeaveRequest, RaftMessage, Release, Report, RootRequest,
    SessionRequest, dispatcher_client, fault_of, managers_client, membership_client,
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn strangers_wrong_tokens_and_removed_nodes_are_refused() {
    let cluster = cluster().await;
    let malformed = ca::join(&[cluster.address()], "SWMTKN-1-nonsense", Availability::Active)
        .await
        .unwrap_err();
    assert_eq!(malformed, Fault::invalid("invalid join token"));
    // A token of the right cluster with a wrong secret.
    let token = cluster.worker_token();
    let (start, _) = token.rsplit_once('-').unwrap();
    let wrong = format!("{start}-{}", "0".repeat(25));
    let refused = ca::join(&[cluster.address()], &wrong, Availability::Active).await.unwrap_err();
    assert_eq!(refused, Fault::forbidden(ca::TOKEN_REFUSED));

    let digest = ca::JoinToken::parse(&token).unwrap().digest().to_owned();
    let stranger = ca::tls::bootstrap_client_config(&digest).unwrap();
    let channel = ca::connect(&cluster.address(), stranger).await.unwrap();
    let report = dispatcher_client(channel).report(Report::default()).await;
    assert_eq!(fault_of(report.unwrap_err()).kind, FaultKind::Forbidden);

    let identity = cluster.join().await;
    let id = identity.node_id();
    cluster.manager.remove_node(&id, true).await.unwrap();
    let refused = Scripted::connect(&cluster, &identity, 1).await.map(|_| ()).unwrap_err();
    assert_eq!(refused, Fault::not_found(format!("node {id} not found")));
    cluster.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_renews_its_certificate_and_leaves() {
    let cluster = cluster().await;
    let identity = cluster.join().await;
    let node = Scripted::connect(&cluster, &identity, 1).await.unwrap();
    let channel = cluster.connect(&identity).await;
    ca::renew(channel.clone(), &identity).await.unwrap();
    assert_eq!(identity.node_id(), node.id);
    membership_client(channel).leave(LeaveRequest::default()).await.unwrap();
    assert_eq!(cluster.node_state(&node.id), NodeState::Down);
    let left = cluster.manager.view().node(&node.id).unwrap().status.message.clone();
    assert_eq!(left, "left");
    let again = Scripted::connect(&cluster, &identity, 1).await.map(|_| ()).unwrap_err();
    assert_eq!(again.kind, FaultKind::Forbidden, "{again}");
    cluster.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_joins_with_the_availability_that_it_asks_for() {
    let cluster = cluster().await;
    let drained = cluster.join_as(Availability::Drain).await;
    let active = cluster.join().await;
    let view = cluster.manager.view();
    let availability = |node: &Identity| view.node(&node.node_id()).unwrap().spec.availability;
    assert_eq!(availability(&drained), Availability::Drain);
    assert_eq!(availability(&active), Availability::Active);
    cluster.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_manager_whose_certificate_has_expired_signs_itself_a_new_one() {
    let cluster = cluster_of(Duration::from_mins(10), now().before(Duration::from_hours(48))).await;
    assert!(cluster.first.expires_at() > now().after(Duration::from_hours(1)));
    let mut own = Scripted::connect(&cluster, &cluster.first, 9).await.unwrap();
    own.beat().await.unwrap();
    cluster.join().await;
    cluster.end().await;
}

/// Its clock was ahead when the old one was signed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_manager_whose_certificate_does_not_hold_yet_signs_itself_a_new_one() {
    let cluster = cluster_of(Duration::from_mins(10), now().after(Duration::from_hours(48))).await;
    let mut own = Scripted::connect(&cluster, &cluster.first, 9).await.unwrap();
    own.beat().await.unwrap();
    cluster.join().await;
    cluster.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_join_that_is_repeated_makes_one_node() {
    let cluster = cluster().await;
    let root = cluster.manager.view().cluster().unwrap().root_ca.certificate.clone();
    let config = ca::tls::bootstrap_client_config(&ca::root_digest(&root).unwrap()).unwrap();
    let channel = ca::connect(&cluster.address(), config).await.unwrap();
    let mut client = membership_client(channel);
    let request = Identity::generate().unwrap();
    let (token, csr) = (cluster.worker_token(), request.csr().to_owned());
    let release = Release::own();
    let wish = IssueRequest { release, token, csr, ..IssueRequest::default() };
    let first = client.issue(wish.clone()).await.unwrap().into_inner();
    let second = client.issue(wish).await.unwrap().into_inner();
    assert_eq!(first.node, second.node);
    let joined = request.accept(&second.certificate, &second.root).unwrap();
    assert_eq!(joined.node_id(), first.node);
    assert_eq!(cluster.manager.view().nodes().count(), 2, "with the manager");
    cluster.end().await;
}

/// What is refused to a node that is none any more, and that its connections end.
async fn is_out(cluster: &Cluster, identity: &Identity, channel: Channel, mut node: Scripted) {
    let id = identity.node_id();
    let renewal = ca::renew(channel.clone(), identity).await.unwrap_err();
    assert!(matches!(renewal.kind, FaultKind::Forbidden | FaultKind::NotFound), "{id}: {renewal}");
    let renewal = ca::renew(cluster.connect(identity).await, identity).await.unwrap_err();
    assert!(matches!(renewal.kind, FaultKind::Forbidden | FaultKind::NotFound), "{id}: {renewal}");
    let session = Scripted::connect(cluster, identity, 7).await.map(|_| ()).unwrap_err();
    assert!(matches!(session.kind, FaultKind::Forbidden | FaultKind::NotFound), "{session}");
    // Its session ends with its connection.
    let end = async { while node.read().await {} };
    tokio::time::timeout(Duration::from_secs(10), end).await.expect("its connection ends");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_is_none_any_more_renews_nothing_and_its_connections_end() {
    let cluster = cluster().await;
    let (left, removed) = (cluster.join().await, cluster.join().await);
    let channel = cluster.connect(&left).await;
    let node = Scripted::connect(&cluster, &left, 1).await.unwrap();
    membership_client(cluster.connect(&left).await).leave(LeaveRequest::default()).await.unwrap();
    is_out(&cluster, &left, channel, node).await;

    let channel = cluster.connect(&removed).await;
    let node = Scripted::connect(&cluster, &removed, 2).await.unwrap();
    cluster.manager.remove_node(&removed.node_id(), true).await.unwrap();
    is_out(&cluster, &removed, channel, node).await;

    cluster.end().await;
}

/// Also on a connection that was open before.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_manager_that_is_demoted_is_a_worker_at_once() {
    let cluster = cluster().await;
    let demoted = cluster.join_as_manager().await;
    assert_eq!(demoted.role(), NodeRole::Manager);
    let channel = cluster.connect(&demoted).await;
    let mut managers = managers_client(channel.clone());
    managers.barrier(BarrierRequest::default()).await.unwrap();
    let mut node = Scripted::connect(&cluster, &demoted, 9).await.unwrap();
    assert_eq!(node.role, Some(NodeRole::Manager));

    let id = demoted.node_id();
    let present = Node::clone(cluster.manager.view().node(&id).unwrap());
    let spec = NodeSpec { role: NodeRole::Worker, ..present.spec.clone() };
    cluster.manager.update_node(&id, present.meta.version, spec).await.unwrap();
    cluster.until("a worker", |view| view.node(&id).unwrap().role == NodeRole::Worker).await;
    let refused = managers.barrier(BarrierRequest::default()).await.unwrap_err();
    assert_eq!(fault_of(refused).kind, FaultKind::Forbidden);
    // Its session ends; the next one says what it is now, and it gets a certificate for that.
    let end = async { while node.read().await {} };
    tokio::time::timeout(Duration::from_secs(10), end).await.expect("its session ends");
    let node = Scripted::connect(&cluster, &demoted, 9).await.unwrap();
    assert_eq!(node.role, Some(NodeRole::Worker));
    ca::renew(channel, &demoted).await.unwrap();
    assert_eq!(demoted.role(), NodeRole::Worker);
    let mut managers = managers_client(cluster.connect(&demoted).await);
    let refused = managers.raft(RaftMessage::default()).await.unwrap_err();
    assert_eq!(fault_of(refused).kind, FaultKind::Forbidden);
    cluster.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn managers_are_numbered_and_no_number_is_given_twice() {
    let cluster = cluster().await;
    let worker = cluster.join().await;
    let refused = ca::enroll(&[cluster.address()], &worker, "127.0.0.1:2").await.unwrap_err();
    assert_eq!(refused.kind, FaultKind::Forbidden, "{refused}");
    let manager = cluster.join_as_manager().await;
    assert_eq!(ca::enroll(&[cluster.address()], &manager, "127.0.0.1:2").await, Ok(2));
    assert_eq!(ca::enroll(&[cluster.address()], &manager, "127.0.0.1:3").await, Ok(3));
    let view = cluster.manager.view();
    let status = view.node(&manager.node_id()).unwrap().manager.clone().unwrap();
    assert_eq!((status.raft_id, status.address.as_str()), (3, "127.0.0.1:3"));
    cluster.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_guesses_tokens_keeps_no_node_out() {
    let cluster = cluster().await;
    let node = cluster.join().await;
    let channel = cluster.connect(&node).await;
    let token = cluster.worker_token();
    let (start, _) = token.rsplit_once('-').unwrap();
    let mut guesses = tokio::task::JoinSet::new();
    for guess in 0..200 {
        let (address, token) = (cluster.address(), format!("{start}-{guess:025}"));
        guesses.spawn(async move { ca::join(&[address], &token, Availability::Active).await });
    }
    // At least one was told that it is wrong; others are still at it.
    assert!(guesses.join_next().await.unwrap().unwrap().is_err());
    // From the same address as they.
    let enter = async {
        cluster.join().await;
        ca::renew(channel, &node).await.unwrap();
    };
    tokio::time::timeout(Duration::from_secs(30), enter).await.expect("nodes get in and renew");
    guesses.shutdown().await;
    cluster.end().await;
}

/// The bytes that a node of the former release has sent.
fn former<T: serde::de::DeserializeOwned>(message: &str) -> T {
    let stored = "../wire/tests/stored/0.1.0-format1";
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(stored).join(message);
    wire::decode(&std::fs::read(path).unwrap()).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_of_the_former_release_is_told_why_it_is_refused() {
    let cluster = cluster().await;
    let identity = cluster.join().await;
    let id = identity.node_id();
    let mut client = dispatcher_client(cluster.connect(&identity).await);
    let request: SessionRequest = former("session-request.msgpack");
    let refused = fault_of(client.session(request).await.unwrap_err());
    assert_eq!(refused.kind, FaultKind::Incompatible, "{refused}");
    for part in ["skep 0.1.0 with protocol 1", &format!("node {id} is older: update it")] {
        assert!(refused.message.contains(part), "{refused}");
    }
    let view = cluster.manager.view();
    let node = view.node(&id).unwrap();
    assert_eq!(node.status.state, NodeState::Unknown);
    assert_eq!(node.trouble, refused.message);
    // Once it is updated it is there.
    Scripted::connect(&cluster, &identity, 1).await.unwrap();
    assert_eq!(cluster.node_state(&id), NodeState::Ready);
    cluster.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_machine_of_the_former_release_makes_no_node() {
    let cluster = cluster().await;
    let root = cluster.manager.view().cluster().unwrap().root_ca.certificate.clone();
    let config = ca::tls::bootstrap_client_config(&ca::root_digest(&root).unwrap()).unwrap();
    let mut client = membership_client(ca::connect(&cluster.address(), config).await.unwrap());
    let wish: IssueRequest = former("issue-request.msgpack");
    let csr = Identity::generate().unwrap().csr().to_owned();
    let wish = IssueRequest { token: cluster.worker_token(), csr, ..wish };
    let asked: RootRequest = former("root-request.msgpack");
    for refused in [client.issue(wish).await.map(drop), client.root(asked).await.map(drop)] {
        let refused = fault_of(refused.unwrap_err());
        assert!(refused.message.contains("this machine is older: update it"), "{refused}");
    }
    assert_eq!(cluster.manager.view().nodes().count(), 1, "the manager alone");
    cluster.end().await;
}
