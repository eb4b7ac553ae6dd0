//! What one node may have under way.

use crate::stage::{PATIENCE, Scripted, cluster};
use http_body::Frame;
use http_body_util::StreamBody;
use std::convert::Infallible;
use std::future::poll_fn;
use tokio_stream::StreamExt;
use tonic::Status;
use tonic::body::Body;
use tonic::codegen::{Bytes, Service};
use tonic::transport::Channel;
use types::Fault;
use wire::fault_of;

/// Begins a message of 8 MiB that never ends, and says why the manager does not want it.
async fn begin(mut channel: Channel) -> Fault {
    let head = [&[0][..], &(8_u32 << 20).to_be_bytes()].concat();
    let begun = tokio_stream::once(Ok::<_, Infallible>(Frame::data(Bytes::from(head))));
    let body = Body::new(StreamBody::new(begun.chain(tokio_stream::pending())));
    let request = http::Request::post("/skep.Dispatcher/Heartbeat");
    let request = request.header("content-type", "application/grpc").body(body).unwrap();
    poll_fn(|cx| channel.poll_ready(cx)).await.unwrap();
    let response = channel.call(request).await.unwrap();
    fault_of(Status::from_header_map(response.headers()).unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_node_sends_at_once_is_bounded_over_all_its_connections() {
    let cluster = cluster().await;
    let greedy = cluster.join().await;
    let mut begun = tokio::task::JoinSet::new();
    for _ in 0..5 {
        begun.spawn(begin(cluster.connect(&greedy).await));
    }
    let refused = tokio::time::timeout(PATIENCE, begun.join_next()).await;
    let fault = refused.expect("one is too much").unwrap().unwrap();
    let why = "has messages of 32 MiB under way at this manager";
    assert!(fault.message.contains(why), "{fault}");
    // What is short goes on, and what others send.
    let mut node = Scripted::connect(&cluster, &greedy, 1).await.unwrap();
    node.beat().await.unwrap();
    let other = cluster.join().await;
    let mut node = Scripted::connect(&cluster, &other, 2).await.unwrap();
    node.beat().await.unwrap();
    assert_eq!(begun.len(), 4);
    begun.shutdown().await;
    cluster.end().await;
}
