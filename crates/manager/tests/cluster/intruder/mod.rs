//! Ways into a cluster that must all be closed: each is refused and counted, and those who belong to
//! the cluster go on meanwhile.

mod calls;
mod connections;
mod members;

use crate::stage::{Cluster, PATIENCE, Scripted, cluster, now};
use ca::{Authority, Identity, Peer};
use std::fmt::Debug;
use std::future::Future;
use std::time::Duration;
use tonic::client::Grpc;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::Channel;
use tonic::{Request, Status};
use types::{ClusterId, Fault, FaultKind, NodeRole, RootCa, Timestamp};
use wire::{Done, MessagePack, fault_of};

const DAY: Duration = Duration::from_hours(24);

/// A cluster with an honest node, and an intruder who has what each way says.
struct Kit {
    cluster: Cluster,
    honest: Scripted,
    worker: Identity,
}

impl Kit {
    async fn new() -> Self {
        let cluster = cluster().await;
        let worker = cluster.join().await;
        let honest = Scripted::connect(&cluster, &worker, 1).await.unwrap();
        Self { cluster, honest, worker }
    }

    fn root(&self) -> RootCa {
        self.cluster.manager.view().cluster().unwrap().root_ca.clone()
    }

    fn id(&self) -> ClusterId {
        self.cluster.manager.view().cluster().unwrap().id.clone()
    }

    /// An identity that the cluster's root has signed, from `at` on for a day.
    fn signed(&self, node: &str, role: NodeRole, at: Timestamp) -> Identity {
        identity(&self.root(), &Peer { node: node.into(), role, cluster: self.id() }, at)
    }

    async fn channel(&self, identity: &Identity) -> Channel {
        self.cluster.connect(identity).await
    }

    /// A connection without a certificate.
    async fn stranger(&self) -> Channel {
        let digest = ca::root_digest(&self.root().certificate).unwrap();
        let config = ca::tls::bootstrap_client_config(&digest).unwrap();
        ca::connect(&self.cluster.address(), config).await.unwrap()
    }

    /// The call is refused for good, and counted.
    async fn refuses<T: Debug>(&self, way: &str, call: impl Future<Output = Result<T, Status>>) {
        let before = self.cluster.manager.refusals().calls();
        let fault = fault_of(answer(way, call).await.expect_err(way));
        let is_final =
            matches!(fault.kind, FaultKind::Forbidden | FaultKind::NotFound | FaultKind::Invalid);
        assert!(is_final, "{way}: {:?} {fault}", fault.kind);
        assert!(before < self.cluster.manager.refusals().calls(), "{way}: nobody has counted it");
    }

    /// Nothing is heard on the connection, and it is counted.
    async fn shuts_out<T: Debug>(&self, way: &str, knock: impl Future<Output = Result<T, Fault>>) {
        let before = self.cluster.manager.refusals().connections();
        answer(way, knock).await.expect_err(way);
        let counted = async {
            while self.cluster.manager.refusals().connections() == before {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let counted = tokio::time::timeout(PATIENCE, counted).await;
        assert!(counted.is_ok(), "{way}: nobody has counted it");
    }

    /// Whoever belongs here is served as before.
    async fn end(mut self) {
        self.honest.beat().await.unwrap();
        self.cluster.join().await;
        self.cluster.end().await;
    }
}

async fn answer<T>(way: &str, attempt: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, attempt).await.unwrap_or_else(|_| panic!("{way}: no answer"))
}

/// Sends `message` to whatever is at `path`.
async fn sends(
    channel: &Channel,
    path: &'static str,
    message: impl serde::Serialize + Send + Sync + 'static,
) -> Result<(), Status> {
    let mut client = Grpc::new(channel.clone());
    client.ready().await.unwrap();
    let codec = MessagePack::<_, Done>::default();
    let path = PathAndQuery::from_static(path);
    client.unary(Request::new(message), path, codec).await.map(drop)
}

fn identity(root: &RootCa, peer: &Peer, at: Timestamp) -> Identity {
    let request = Identity::generate().unwrap();
    let authority = Authority::load(root).unwrap();
    let certificate = authority.sign(request.csr(), peer, DAY, at).unwrap();
    request.accept(&certificate, &root.certificate).unwrap()
}

/// The root of another cluster.
fn other_root() -> RootCa {
    Authority::create(now()).unwrap()
}
