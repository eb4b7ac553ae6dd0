//! Who was a member once, or is another one.

use super::{Kit, now, sends};
use crate::managers::{three, until};
use crate::stage::Scripted;
use ca::Identity;
use std::time::Duration;
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio_rustls::TlsConnector;
use types::{FaultKind, Node, NodeRole, NodeSpec};
use wire::{
    BarrierRequest, EnrollRequest, RaftMessage, Release, SessionRequest, dispatcher_client,
    fault_of, managers_client, managers_of, membership_client,
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_was_evicted_stays_out_with_whatever_was_kept() {
    let kit = Kit::new().await;
    // A copy of a node's and of a manager's files, made before they were removed.
    let (node, manager) = (kit.cluster.join().await, kit.cluster.join_as_manager().await);
    let files = tempfile::tempdir().unwrap();
    let empty = ca::Secrets::default();
    node.save(&files.path().join("node"), &empty, &empty).unwrap();
    manager.save(&files.path().join("manager"), &empty, &empty).unwrap();
    let member = ca::enroll(&[kit.cluster.address()], &manager, "127.0.0.1:1").await.unwrap();

    let demoted = Node::clone(kit.cluster.manager.view().node(&manager.node_id()).unwrap());
    let spec = NodeSpec { role: NodeRole::Worker, ..demoted.spec };
    kit.cluster.manager.update_node(&demoted.id, demoted.meta.version, spec).await.unwrap();
    let id = demoted.id.clone();
    kit.cluster.until("a worker", |view| view.node(&id).unwrap().role == NodeRole::Worker).await;
    let open = kit.channel(&manager).await;
    kit.refuses("demoted", managers_client(open.clone()).barrier(BarrierRequest::default())).await;
    let raft = RaftMessage { from: member, body: vec![0] };
    kit.refuses("demoted, in the log", managers_client(open.clone()).raft(raft.clone())).await;
    let enroll = EnrollRequest { release: Release::own(), address: "127.0.0.1:1".to_owned() };
    kit.refuses("demoted, anew", membership_client(open).enroll(enroll)).await;

    for id in [node.node_id(), manager.node_id()] {
        kit.cluster.manager.remove_node(&id, true).await.unwrap();
    }
    for name in ["node", "manager"] {
        let restored = Identity::load(&files.path().join(name), None).unwrap().unwrap().0;
        let channel = kit.channel(&restored).await;
        let session = SessionRequest { release: Release::own(), ..SessionRequest::default() };
        let way = format!("the restored files of an evicted {name}");
        kit.refuses(&way, dispatcher_client(channel.clone()).session(session)).await;
        kit.refuses(&way, managers_client(channel.clone()).raft(raft.clone())).await;
        let renewal = ca::renew(channel, &restored).await;
        assert!(renewal.is_err(), "{way} renew");
    }
    kit.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_manager_speaks_in_the_log_for_itself_alone() {
    let kit = Kit::new().await;
    let second = kit.cluster.join_as_manager().await;
    let number = ca::enroll(&[kit.cluster.address()], &second, "127.0.0.1:1").await.unwrap();
    let channel = kit.channel(&second).await;
    let mut managers = managers_client(channel.clone());
    let says = |from, body: &[u8]| RaftMessage { from, body: body.to_vec() };
    kit.refuses("another's number", managers.raft(says(1, &[0]))).await;
    assert!(managers.raft(says(number, &[0xc1; 64])).await.is_err(), "noise");
    // A manager's certificate, before it has its part in the log.
    let third = kit.signed("third", NodeRole::Manager, now());
    kit.refuses("no number", managers_client(kit.channel(&third).await).raft(says(2, &[0]))).await;
    // It is a node like others, besides.
    Scripted::connect(&kit.cluster, &second, 3).await.unwrap();
    kit.end().await;
}

/// Opens a connection that says nothing to each of these managers; each task ends when its manager
/// ends it.
async fn connected(addresses: &[String], identity: &Identity) -> JoinSet<()> {
    let mut open = JoinSet::new();
    for address in addresses {
        let stream = TcpStream::connect(address).await.unwrap();
        let name = "swarm-manager".try_into().unwrap();
        let connector = TlsConnector::from(ca::tls::client_config(identity).unwrap());
        let mut stream = connector.connect(name, stream).await.unwrap();
        // The manager says first what it can.
        stream.read_u8().await.unwrap();
        open.spawn(async move {
            let mut heard = [0; 1024];
            while matches!(stream.read(&mut heard).await, Ok(1..)) {}
        });
    }
    open
}

/// Longer than a manager takes to look, and shorter than it waits for an answer to its own call.
const SOON: Duration = Duration::from_secs(5);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_connections_of_an_evicted_node_end_at_all_managers() {
    let (cluster, second, third) = three().await;
    let (node, other) = (cluster.join().await, cluster.join().await);
    let addresses = [cluster.address(), second.address.clone(), third.address.clone()];
    for manager in [&second, &third] {
        assert!(manager.manager.fresh().await.unwrap().node(&other.node_id()).is_some());
    }
    let mut evicted = connected(&addresses, &node).await;
    let mut others = connected(&addresses, &other).await;
    cluster.manager.remove_node(&node.node_id(), true).await.unwrap();
    let all = async { while evicted.join_next().await.is_some() {} };
    let ended = tokio::time::timeout(SOON, all).await;
    assert!(ended.is_ok(), "{} managers keep it", evicted.len());
    assert!(others.try_join_next().is_none(), "another one's has ended");
    others.shutdown().await;
    second.stop().await;
    third.stop().await;
    cluster.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_read_of_what_an_evicted_node_sends_to_any_manager() {
    let (cluster, second, third) = three().await;
    let node = cluster.join().await;
    let id = node.node_id();
    cluster.manager.remove_node(&id, true).await.unwrap();
    until("removed", async || {
        [&second, &third].iter().all(|manager| manager.manager.view().node(&id).is_none())
    })
    .await;
    for address in [&cluster.address(), &second.address, &third.address] {
        let config = ca::tls::client_config(&node).unwrap();
        let channel = ca::connect(address, config).await.unwrap();
        for call in ["/skep.Dispatcher/Report", "/skep.Membership/Leave"] {
            let noise = vec![0xff_u8; 64];
            let refused = fault_of(sends(&channel, call, noise).await.unwrap_err());
            assert_eq!(refused.kind, FaultKind::NotFound, "{call} at {address}: {refused}");
        }
        let session = SessionRequest { release: Release::own(), ..SessionRequest::default() };
        let refused = dispatcher_client(channel).session(session).await.unwrap_err();
        assert_eq!(managers_of(&refused), [""; 0], "it hears where managers are");
        assert_eq!(fault_of(refused).kind, FaultKind::NotFound);
    }
    second.stop().await;
    third.stop().await;
    cluster.end().await;
}
