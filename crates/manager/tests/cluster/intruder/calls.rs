//! What strangers, workers and the cluster's former members may not call.

use super::{Kit, now, other_root, sends};
use crate::stage::Scripted;
use ca::{Identity, JoinToken};
use serde::Serialize;
use std::collections::BTreeMap;
use tonic::transport::Channel;
use types::{Cluster, NodeRole, ServiceSpec};
use wire::{
    Acknowledge, BarrierRequest, EnrollRequest, Heartbeat, IssueRequest, LeaveRequest, LogChunk,
    LogOptions, LogSelector, LogsRequest, Order, OrderRequest, RaftMessage, Release, Report,
    Rotate, SessionRequest, dispatcher_client, managers_client, membership_client,
};

fn wish(token: &str) -> IssueRequest {
    let csr = Identity::generate().unwrap().csr().to_owned();
    IssueRequest {
        release: Release::own(),
        token: token.to_owned(),
        csr,
        ..IssueRequest::default()
    }
}

fn order(order: Order) -> OrderRequest {
    OrderRequest { release: Release::own(), order }
}

fn logs() -> LogsRequest {
    let selector = LogSelector::Service("any".into());
    LogsRequest { release: Release::own(), selector, options: LogOptions::default() }
}

/// Something of which nothing is said.
#[derive(Clone, Copy, Default, Serialize)]
struct Emptied {
    #[serde(skip)]
    _all: u8,
}

/// As many lines, or statuses, as fit into a message where nothing is said of each.
#[derive(Serialize)]
struct Hollow {
    lines: Vec<Emptied>,
    statuses: BTreeMap<String, Emptied>,
}

impl Hollow {
    fn lines() -> Self {
        Self {
            lines: vec![Emptied::default(); wire::MESSAGE_LIMIT - 64],
            statuses: BTreeMap::new(),
        }
    }

    fn statuses() -> Self {
        let task = |number| (format!("{number:x}"), Emptied::default());
        Self { lines: Vec::new(), statuses: (0..wire::MESSAGE_LIMIT / 8).map(task).collect() }
    }
}

/// All that a node may call, and more.
async fn nodes_calls(kit: &Kit, who: &str, channel: &Channel) {
    let mut node = dispatcher_client(channel.clone());
    let way = |call: &str| format!("{who}: {call}");
    kit.refuses(&way("session"), node.session(SessionRequest::default())).await;
    kit.refuses(&way("heartbeat"), node.heartbeat(Heartbeat::default())).await;
    kit.refuses(&way("acknowledge"), node.acknowledge(Acknowledge::default())).await;
    kit.refuses(&way("report"), node.report(Report::default())).await;
    let chunks = tokio_stream::iter([LogChunk::default()]);
    kit.refuses(&way("logs"), node.publish_logs(chunks)).await;
    let mut member = membership_client(channel.clone());
    kit.refuses(&way("leave"), member.leave(LeaveRequest::default())).await;
    let enroll = EnrollRequest { release: Release::own(), address: "127.0.0.1:1".to_owned() };
    kit.refuses(&way("enroll"), member.enroll(enroll)).await;
    kit.refuses(&way("renew"), member.issue(wish(""))).await;
}

/// All that managers alone may call.
async fn managers_calls(kit: &Kit, who: &str, channel: &Channel) {
    let mut managers = managers_client(channel.clone());
    let way = |call: &str| format!("{who}: {call}");
    kit.refuses(
        &way("log"),
        managers.raft(RaftMessage { from: 1, body: vec![0], ..RaftMessage::default() }),
    )
    .await;
    kit.refuses(&way("barrier"), managers.barrier(BarrierRequest::default())).await;
    let spec = Box::new(ServiceSpec::default());
    kit.refuses(&way("order"), managers.order(order(Order::CreateService { spec }))).await;
    kit.refuses(&way("logs of all"), managers.logs(logs())).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn strangers_may_ask_to_join_and_nothing_else() {
    let kit = Kit::new().await;
    let channel = kit.stranger().await;
    nodes_calls(&kit, "a stranger", &channel).await;
    // A connection without a certificate serves no such thing.
    let order = order(Order::RemoveNode { id: "worker".into(), force: true });
    assert!(managers_client(channel.clone()).order(order).await.is_err());

    let mut member = membership_client(channel.clone());
    let token = kit.cluster.worker_token();
    let (start, _) = token.rsplit_once('-').unwrap();
    let guess = format!("{start}-{}", "0".repeat(25));
    kit.refuses("a guess", member.issue(wish(&guess))).await;
    kit.refuses("no token", member.issue(wish("SWMTKN-1"))).await;
    let foreign = JoinToken::draw(&other_root()).unwrap().render();
    kit.refuses("another cluster's token", member.issue(wish(&foreign))).await;
    let (_, secret) = token.rsplit_once('-').unwrap();
    let (other, _) = foreign.rsplit_once('-').unwrap();
    let mixed = format!("{other}-{secret}");
    kit.refuses("the secret under another root", member.issue(wish(&mixed))).await;
    let broken = IssueRequest { csr: "-----BEGIN".to_owned(), ..wish(&token) };
    kit.refuses("no request", member.issue(broken)).await;
    let long = IssueRequest { csr: "x".repeat(20_000), ..wish(&token) };
    kit.refuses("a request without end", member.issue(long)).await;
    let huge = IssueRequest { csr: "x".repeat(wire::MEMBERSHIP_LIMIT), ..wish(&token) };
    kit.refuses("a huge message", member.issue(huge)).await;
    kit.refuses("noise", sends(&channel, "/skep.Membership/Issue", vec![0xff_u8; 64])).await;

    // Whoever has had a token, before it was drawn anew.
    let cluster = Cluster::clone(kit.cluster.manager.view().cluster().unwrap());
    let rotate = Rotate { worker: true, manager: true, unlock_key: true, root: None };
    let (version, spec) = (cluster.meta.version, cluster.spec.clone());
    kit.cluster.manager.update_cluster(version, spec, rotate).await.unwrap();
    for token in [&cluster.tokens.worker, &cluster.tokens.manager] {
        kit.refuses("a token of yesterday", member.issue(wish(token))).await;
    }
    assert_eq!(kit.cluster.manager.view().nodes().count(), 2, "no node was made");
    kit.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn workers_speak_for_themselves_alone() {
    let kit = Kit::new().await;
    let channel = kit.channel(&kit.worker).await;
    managers_calls(&kit, "a worker", &channel).await;
    let mut member = membership_client(channel.clone());
    let enroll = EnrollRequest { release: Release::own(), address: "127.0.0.1:1".to_owned() };
    kit.refuses("a worker makes itself a manager", member.enroll(enroll)).await;
    // Its request says that it is a manager; its certificate says what it is.
    let renewed = member.issue(wish("")).await.unwrap().into_inner();
    assert_eq!(renewed.role, NodeRole::Worker);
    let huge = Report { session: "x".repeat(wire::MESSAGE_LIMIT), ..Report::default() };
    kit.refuses("a huge report", sends(&channel, "/skep.Dispatcher/Report", huge)).await;
    kit.refuses("noise", sends(&channel, "/skep.Dispatcher/Report", vec![0xff_u8; 64])).await;
    // As many bytes as a message may have would be a gigabyte.
    for (path, hollow) in [
        ("/skep.Dispatcher/PublishLogs", Hollow::lines()),
        ("/skep.Dispatcher/Report", Hollow::statuses()),
    ] {
        let before = kit.cluster.manager.refusals().calls();
        let refused = sends(&channel, path, hollow).await.unwrap_err();
        assert!(refused.message().contains("too few for so many elements"), "{path}: {refused}");
        assert!(before < kit.cluster.manager.refusals().calls(), "{path}: nobody has counted it");
    }
    for path in ["/skep.Managers/../skep.Managers/Order", "/skep.managers/Order", "/Order", "//"] {
        assert!(
            sends(&channel, path, order(Order::RemoveService { id: "s".into() })).await.is_err()
        );
    }
    kit.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_certificate_of_nobody_opens_nothing() {
    let kit = Kit::new().await;
    // The root's key was copied, and a certificate was signed behind the managers' backs.
    for (node, role) in [("nobody", NodeRole::Worker), ("boss", NodeRole::Manager)] {
        let forged = kit.signed(node, role, now());
        let channel = kit.channel(&forged).await;
        nodes_calls(&kit, node, &channel).await;
        // The barrier and the log below are checked against the store as well.
        managers_calls(&kit, node, &channel).await;
    }
    // A worker's name with a manager's role.
    let forged = kit.signed(kit.worker.node_id().as_str(), NodeRole::Manager, now());
    managers_calls(&kit, "a worker as a manager", &kit.channel(&forged).await).await;
    kit.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sessions_and_tasks_of_others_are_out_of_reach() {
    let kit = Kit::new().await;
    let thief = kit.cluster.join().await;
    let mut own = Scripted::connect(&kit.cluster, &thief, 2).await.unwrap();
    let stolen = kit.honest.session.clone();
    let heartbeat = Heartbeat { session: stolen.clone() };
    assert!(own.client.heartbeat(heartbeat).await.is_err(), "another's session");
    let report = Report { session: stolen, ..Report::default() };
    assert!(own.client.report(report).await.is_err(), "another's session");
    kit.end().await;
}
