//! Writing numbered objects.

use raft::{Alone, Config, Key, Sequencer};
use scope::Scope;
use std::path::Path;
use store::{Changes, Tx, View};
use types::{Cluster, Fault, Network, Node, Version};

pub(crate) fn config(directory: &Path) -> Config {
    Config::new(directory, Key::from([7; 32]))
}

pub(crate) async fn open(directory: &Path) -> (Sequencer, Scope) {
    let mut scope = Scope::new();
    let opened = raft::open(config(directory), Alone, &mut scope).await;
    (opened.unwrap(), scope)
}

pub(crate) async fn close(sequencer: Sequencer, scope: Scope) {
    drop(sequencer);
    scope.cancel();
    scope.join().await.unwrap();
}

pub(crate) fn node(name: &str) -> Node {
    Node { id: name.into(), ..Node::default() }
}

/// Writes a node and a network of the same number: one without the other is half a change.
pub(crate) fn pair(view: &View, number: u64) -> Changes {
    let mut tx = Tx::new(view);
    tx.put_node(node(&format!("n{number}")));
    let mut network = Network { id: format!("n{number}").into(), ..Network::default() };
    network.spec.name = format!("n{number}");
    tx.put_network(network);
    tx.finish()
}

pub(crate) async fn put(sequencer: &Sequencer, number: u64) -> Result<Version, Fault> {
    sequencer.sequence(move |view, _| Ok(pair(view, number))).await
}

pub(crate) async fn snapshot_every(sequencer: &Sequencer, interval: u64) {
    let put = sequencer.sequence(move |view, _| {
        let mut tx = Tx::new(view);
        let mut cluster = Cluster { id: "c1".into(), ..Cluster::default() };
        cluster.spec.snapshot_interval = interval;
        tx.put_cluster(cluster);
        Ok(tx.finish())
    });
    put.await.unwrap();
}

pub(crate) fn holds(view: &View, number: u64) -> bool {
    let name = format!("n{number}");
    let (node, network) =
        (view.node(&name.as_str().into()).is_some(), view.network(&name.as_str().into()).is_some());
    assert_eq!(node, network, "half of change {number} is there");
    node
}
