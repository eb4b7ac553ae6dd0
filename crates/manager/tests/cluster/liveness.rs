//! Nodes that are lost, and those that are not.

use crate::stage::{Scripted, cluster, cluster_with};
use std::sync::Arc;
use std::time::Duration;
use types::{ClusterSpec, FaultKind, NodeState};
use wire::Acknowledge;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_says_nothing_is_down_and_is_back_when_it_speaks_again() {
    let cluster = cluster_with(Duration::from_millis(300)).await;
    let identity = cluster.join().await;
    let node = Scripted::connect(&cluster, &identity, 1).await.unwrap();
    let id = node.id.clone();
    assert_eq!(cluster.node_state(&id), NodeState::Ready);
    cluster
        .until("the node is down", |view| view.node(&id).unwrap().status.state == NodeState::Down)
        .await;
    let mut node = Scripted::connect(&cluster, &identity, 1).await.unwrap();
    assert_eq!(cluster.node_state(&id), NodeState::Ready);
    let next = node.beat().await.unwrap();
    assert!(next <= Duration::from_millis(300), "{next:?}");
    cluster.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_newer_session_takes_the_place_of_an_older_one() {
    let cluster = cluster().await;
    let identity = cluster.join().await;
    let mut old = Scripted::connect(&cluster, &identity, 1).await.unwrap();
    let mut new = Scripted::connect(&cluster, &identity, 1).await.unwrap();
    while old.read().await {}
    assert_eq!(old.beat().await.unwrap_err().kind, FaultKind::NotFound);
    new.beat().await.unwrap();
    cluster.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_silent_node_stays_down_though_its_connection_is_open() {
    let cluster = cluster_with(Duration::from_millis(300)).await;
    let mut node = Scripted::join(&cluster).await;
    let id = node.id.clone();
    let is_down = |view: &store::View| view.node(&id).unwrap().status.state == NodeState::Down;
    cluster.until("the node is down", is_down).await;
    // Its session ends, so that it finds out.
    while node.read().await {}
    assert_eq!(node.beat().await.unwrap_err().kind, FaultKind::NotFound);
    // Ten heartbeats later it would have gone up and down several times.
    let mut views = cluster.manager.watch();
    let back = views.wait_for(|view| !is_down(view));
    assert!(tokio::time::timeout(Duration::from_secs(3), back).await.is_err(), "it is back");
    cluster.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shorter_heartbeat_loses_nobody_who_keeps_to_the_longer_one() {
    let cluster = cluster_with(Duration::from_secs(5)).await;
    let mut node = Scripted::join(&cluster).await;
    node.beat().await.unwrap();
    let before = Arc::clone(cluster.manager.view().cluster().unwrap());
    let spec = ClusterSpec { heartbeat: Duration::from_millis(300), ..before.spec.clone() };
    let manager = &cluster.manager;
    manager.update_cluster(before.meta.version, spec, manager::Rotate::default()).await.unwrap();
    let mut views = manager.watch();
    let down = views.wait_for(|view| view.node(&node.id).unwrap().status.state != NodeState::Ready);
    assert!(tokio::time::timeout(Duration::from_secs(3), down).await.is_err(), "it was lost");
    let next = node.beat().await.unwrap();
    assert!(next <= Duration::from_millis(300), "{next:?}");
    cluster.end().await;
}

/// On one thread, so that whoever sends never lets the manager find its inbox empty.
#[tokio::test]
async fn a_silent_node_is_lost_whatever_others_say() {
    let cluster = cluster_with(Duration::from_millis(300)).await;
    let (silent, loud) = (cluster.join().await, cluster.join().await);
    let silent = Scripted::connect(&cluster, &silent, 1).await.unwrap();
    let loud = Scripted::connect(&cluster, &loud, 2).await.unwrap();
    let mut calls = tokio::task::JoinSet::new();
    for _ in 0..200 {
        let (mut client, session) = (loud.client.clone(), loud.session.clone());
        calls.spawn(async move {
            loop {
                let acknowledge = Acknowledge { session: session.clone(), version: 1 };
                client.acknowledge(acknowledge).await.unwrap();
            }
        });
    }
    let is_down =
        |view: &store::View| view.node(&silent.id).unwrap().status.state == NodeState::Down;
    cluster.until("the silent node is down", is_down).await;
    calls.shutdown().await;
    cluster.end().await;
}
