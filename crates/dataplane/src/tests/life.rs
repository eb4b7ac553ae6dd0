//! Attach, learn, withdraw, detach, restart.

use super::client::{exchange, lookup, query};
use super::{Host, PACE, Place, Wanted, addresses, config, knowledge, namespaces, on, until};
use crate::error::Error;
use crate::handle::News;
use crate::handle::start_at;
use crate::names::Names;
use crate::port::Namespaces;
use discovery::{Depth, Desired, KnowledgeDifference, OrdSet, Outcome, SandboxAttachment};
use domain::base::Rtype;
use scope::Scope;
use std::convert::Infallible;
use std::net::Ipv4Addr;
use std::path::Path;
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use types::{Protocol, TaskId};

const VIP: Ipv4Addr = Ipv4Addr::new(10, 0, 1, 2);

/// Each holds wherever the name server is.
macro_rules! wherever_the_name_server_is {
    ($($test:ident,)*) => {
        mod in_this_process {
            $(#[tokio::test]
            async fn $test() {
                super::$test(super::Host::new(super::Place::Here).await).await;
            })*
        }
        mod in_its_own_process {
            $(#[tokio::test]
            async fn $test() {
                super::$test(super::Host::new(super::Place::Apart).await).await;
            })*
        }
    };
}

wherever_the_name_server_is![
    an_attached_container_has_its_rules_in_the_kernel_and_its_names,
    what_managers_push_is_in_kernel_and_names_when_the_version_is_applied,
    what_changed_is_enough_and_what_does_not_follow_is_refused,
    a_withdrawn_task_is_offered_no_more_whatever_managers_say,
    detaching_closes_the_sockets_and_withdraws_the_task,
    a_container_can_be_attached_again_with_other_networks,
    a_network_that_is_not_known_cannot_be_attached_to,
    a_restarted_daemon_holds_the_same_before_it_hears_of_a_manager,
    a_restarted_daemon_forgets_containers_whose_namespace_has_gone,
    a_restarted_daemon_clears_away_what_a_crash_left,
    a_container_whose_namespace_was_lost_is_served_in_its_new_one,
    an_attach_fails_in_time_where_no_name_server_can_be_opened,
    who_leaves_the_cluster_forgets_it_and_keeps_plain_containers,
    what_the_kernel_refuses_is_tried_again,
    who_this_node_is_is_noted_also_while_the_kernel_refuses,
    an_attach_that_cannot_be_applied_fails_in_time_and_leaves_nothing,
    rules_that_somebody_flushed_come_back,
    a_container_that_cannot_be_connected_fails_alone_and_says_why,
    what_fails_alone_is_not_tried_again_at_every_command,
    a_balancer_that_may_lead_to_what_was_taken_out_holds_no_version,
    a_port_that_the_node_itself_uses_is_refused_at_once,
    what_others_touched_is_repaired_at_once,
    what_is_taken_out_leaves_kernel_and_names_while_the_disk_hangs,
];

async fn an_attached_container_has_its_rules_in_the_kernel_and_its_names(host: Host) {
    host.identify().await;
    host.learn(knowledge(&[("t1", 11, false), ("t2", 111, true)]), 1).await;
    let sandbox = host.attach("c1", Some("t1"), 11).await;
    let held = host.kernel.held();
    let rules = &held.sandboxes["c1"];
    assert_eq!(rules.dns_port, sandbox.dns_port);
    assert_eq!(rules.gateway_addresses, [172, 30, 0, 2].into());
    assert_eq!(rules.vips.v4[&VIP], addresses(&[111]));
    assert_eq!(held.overlays[&"net".into()].local, Ipv4Addr::new(192, 168, 0, 1));
    assert_eq!(lookup(sandbox.dns_port, "web").await, [VIP]);
    assert_eq!(lookup(sandbox.dns_port, "TASKS.Web").await, addresses(&[111]));
}

async fn what_managers_push_is_in_kernel_and_names_when_the_version_is_applied(host: Host) {
    host.identify().await;
    host.learn(knowledge(&[("t2", 111, true)]), 7).await;
    let port = host.attach("c1", None, 11).await.dns_port;
    host.learn(knowledge(&[("t2", 111, false), ("t3", 112, true)]), 8).await;
    assert_eq!(host.kernel.held().sandboxes["c1"].vips.v4[&VIP], addresses(&[112]));
    assert_eq!(lookup(port, "tasks.web").await, addresses(&[112]));
    // A new session counts from the start again.
    host.learn(knowledge(&[]), 1).await;
    assert_eq!(*host.dataplane.applied().borrow(), 1);
    assert_eq!(lookup(port, "web").await, addresses(&[]));
}

async fn what_changed_is_enough_and_what_does_not_follow_is_refused(host: Host) {
    host.identify().await;
    let mut known = knowledge(&[("t1", 11, true)]);
    host.learn(known.clone(), 4).await;
    let port = host.attach("c1", Some("t1"), 11).await.dns_port;
    for (version, next) in [
        (5, knowledge(&[("t1", 11, true), ("t2", 111, true)])),
        (6, knowledge(&[("t2", 111, true)])),
    ] {
        let news = || News::Difference(KnowledgeDifference::between(&known, &next));
        for wrong in [version - 1, version + 1] {
            let refused = host.dataplane.learn(news(), wrong).await;
            assert!(matches!(refused, Err(Error::OutOfStep { .. })), "{refused:?}");
        }
        host.dataplane.learn(news(), version).await.unwrap();
        let mut applied = host.dataplane.applied();
        applied.wait_for(|applied| *applied == version).await.unwrap();
        known = next;
        let serving: Vec<u8> = known.networks[&"net".into()]
            .endpoints
            .values()
            .map(|endpoint| endpoint.addresses.v4.unwrap().octets()[3])
            .collect();
        assert_eq!(lookup(port, "tasks.web").await, addresses(&serving));
        assert_eq!(host.kernel.held().sandboxes["c1"].vips.v4[&VIP], addresses(&serving));
    }
    // Who has left knows nothing that a difference could lead from.
    host.dataplane.identify(None).await.unwrap();
    let refused = host.dataplane.learn(News::Difference(KnowledgeDifference::default()), 7).await;
    assert!(matches!(refused, Err(Error::OutOfStep { .. })), "{refused:?}");
}

async fn a_withdrawn_task_is_offered_no_more_whatever_managers_say(host: Host) {
    host.identify().await;
    let known = knowledge(&[("t1", 11, true), ("t2", 111, true)]);
    host.learn(known.clone(), 1).await;
    let port = host.attach("c1", Some("t1"), 11).await.dns_port;
    host.dataplane.withdraw(TaskId::from("t1")).await.unwrap();
    assert_eq!(lookup(port, "tasks.web").await, addresses(&[111]));
    host.learn(known, 2).await;
    assert_eq!(host.kernel.held().sandboxes["c1"].vips.v4[&VIP], addresses(&[111]));
}

async fn detaching_closes_the_sockets_and_withdraws_the_task(host: Host) {
    host.identify().await;
    host.learn(knowledge(&[("t1", 11, true), ("t2", 12, true)]), 1).await;
    let first = host.attach("c1", Some("t1"), 11).await;
    let second = host.attach("c2", Some("t2"), 12).await;
    assert_eq!(lookup(second.dns_port, "tasks.web").await, addresses(&[11, 12]));
    // The stand-in fails to remove a namespace that has an open socket.
    host.dataplane.detach("c1").await.unwrap();
    assert!(!host.kernel.held().sandboxes.contains_key("c1"));
    assert_eq!(lookup(second.dns_port, "tasks.web").await, addresses(&[12]));
    assert!(exchange(first.dns_port, &query("web", Rtype::A).finish()).await.is_none());
    host.dataplane.detach("c1").await.unwrap();
    let left = host.dataplane.sandboxes().await.unwrap();
    assert_eq!(left.keys().collect::<Vec<_>>(), ["c2"]);
}

async fn a_container_can_be_attached_again_with_other_networks(host: Host) {
    host.identify().await;
    host.learn(knowledge(&[]), 1).await;
    let before = host.attach("c1", None, 11).await;
    let ports = vec![(Protocol::Tcp, 8080, 80)];
    let after = host
        .dataplane
        .attach("c1", Wanted { host_ports: ports, ..Wanted::default() })
        .await
        .unwrap();
    assert_eq!(before.gateway_addresses, after.gateway_addresses);
    assert_eq!(before.dns_port, after.dns_port);
    let held = host.kernel.held();
    assert!(held.overlays.is_empty());
    assert_eq!(held.mesh.host_ports[&(Protocol::Tcp, 8080)], (after.gateway_addresses, 80));
}

async fn a_network_that_is_not_known_cannot_be_attached_to(host: Host) {
    let attachment = SandboxAttachment { network: "net".into(), addresses: [10, 0, 1, 9].into() };
    let failed = host.dataplane.attach("c1", on(vec![attachment])).await;
    assert!(matches!(failed, Err(Error::UnknownNetwork(_))), "{failed:?}");
    assert!(host.dataplane.sandboxes().await.unwrap().is_empty());
}

async fn a_restarted_daemon_holds_the_same_before_it_hears_of_a_manager(mut host: Host) {
    host.identify().await;
    host.learn(knowledge(&[("t1", 11, true), ("t2", 111, true)]), 5).await;
    let sandbox = host.attach("c1", Some("t1"), 11).await;
    host.attach("c2", None, 12).await;
    host.dataplane.withdraw("t1".into()).await.unwrap();
    let held = host.kernel.held();
    host.restart().await;
    assert_eq!(lookup(sandbox.dns_port, "tasks.web").await, addresses(&[111]));
    until(held, async || host.kernel.held()).await;
    assert_eq!(host.dataplane.sandboxes().await.unwrap()["c1"], sandbox);
}

async fn a_restarted_daemon_forgets_containers_whose_namespace_has_gone(mut host: Host) {
    host.identify().await;
    host.learn(knowledge(&[]), 1).await;
    let lost = host.attach("c1", None, 11).await;
    host.attach("c2", None, 12).await;
    host.namespaces.lose(Path::new(&lost.netns));
    host.restart().await;
    let left = host.dataplane.sandboxes().await.unwrap();
    assert_eq!(left.keys().collect::<Vec<_>>(), ["c2"]);
}

async fn a_restarted_daemon_clears_away_what_a_crash_left(mut host: Host) {
    host.attach_alone("c1").await;
    let folder = host.dir.path().join("netns");
    host.namespaces.create(&folder.join("c2")).await.unwrap();
    host.restart().await;
    let left = host.namespaces.list(&folder).await.unwrap();
    assert_eq!(left, [folder.join("c1")]);
}

async fn a_container_whose_namespace_was_lost_is_served_in_its_new_one(host: Host) {
    let before = host.attach_alone("c1").await;
    host.namespaces.lose(Path::new(&before.netns));
    let after = host.attach_alone("c1").await;
    let ports = host.namespaces.ports(Path::new(&after.netns));
    assert!(ports.contains(&after.dns_port), "{ports:?}");
    assert_eq!(lookup(after.dns_port, "nothing").await, addresses(&[]));
    host.dataplane.detach("c1").await.unwrap();
}

async fn an_attach_fails_in_time_where_no_name_server_can_be_opened(host: Host) {
    host.namespaces.refuse_sockets(true);
    let failed = host.dataplane.attach("c1", Wanted::default()).await;
    assert!(matches!(failed, Err(Error::Resolver { .. })), "{failed:?}");
    assert!(host.dataplane.sandboxes().await.unwrap().is_empty());
    host.namespaces.refuse_sockets(false);
    assert_ne!(host.attach_alone("c1").await.dns_port, 0);
}

async fn who_leaves_the_cluster_forgets_it_and_keeps_plain_containers(host: Host) {
    host.identify().await;
    host.learn(knowledge(&[("t2", 111, true)]), 1).await;
    let port = host.attach("c1", None, 11).await.dns_port;
    host.dataplane.identify(None).await.unwrap();
    let held = host.kernel.held();
    assert!(held.overlays.is_empty());
    assert!(held.sandboxes.contains_key("c1"));
    assert_eq!(lookup(port, "web").await, addresses(&[]));
}

async fn what_the_kernel_refuses_is_tried_again(host: Host) {
    host.identify().await;
    host.learn(knowledge(&[]), 1).await;
    host.kernel.fail(2);
    let before = host.kernel.applied();
    host.attach("c1", None, 11).await;
    assert!(host.kernel.applied() >= before + 3);
    assert!(host.kernel.held().sandboxes.contains_key("c1"));
}

async fn who_this_node_is_is_noted_also_while_the_kernel_refuses(host: Host) {
    host.kernel.fail(usize::MAX);
    host.identify().await;
    host.dataplane.learn(News::Whole(knowledge(&[])), 1).await.unwrap();
    let forgotten = host.dataplane.identify(None).await;
    assert!(matches!(forgotten, Err(Error::Kernel(_))), "{forgotten:?}");
}

async fn an_attach_that_cannot_be_applied_fails_in_time_and_leaves_nothing(host: Host) {
    host.kernel.fail(usize::MAX);
    let failed = host.dataplane.attach("c1", Wanted::default()).await;
    assert!(matches!(failed, Err(Error::Kernel(_))), "{failed:?}");
    assert!(host.dataplane.sandboxes().await.unwrap().is_empty());
}

async fn rules_that_somebody_flushed_come_back(host: Host) {
    host.dataplane.attach("c1", Wanted::default()).await.unwrap();
    let before = host.kernel.applied();
    // Nothing changes, so only the clock can wake the loop.
    until(true, async || host.kernel.applied() > before).await;
}

/// What fails for one container.
fn only(container: &str) -> Outcome {
    let reason = "VNI 4097 is in use by another program".to_owned();
    Outcome { sandboxes: [(container.to_owned(), reason)].into(), ..Outcome::default() }
}

async fn a_container_that_cannot_be_connected_fails_alone_and_says_why(host: Host) {
    host.identify().await;
    host.kernel.fail_alone(only("c1"));
    let failing = host.dataplane.attach("c1", Wanted::default());
    let others = async {
        host.attach_alone("c2").await;
        // Also what managers say is held, since nothing of it leads anywhere in c1.
        host.learn(knowledge(&[("t2", 111, true)]), 3).await;
        host.dataplane.withdraw(TaskId::from("t2")).await.unwrap();
    };
    let (failed, ()) = tokio::join!(failing, others);
    let error = failed.unwrap_err().to_string();
    assert!(error.contains("VNI 4097 is in use by another program"), "{error}");
    let left = host.dataplane.sandboxes().await.unwrap();
    assert_eq!(left.keys().collect::<Vec<_>>(), ["c2"]);
}

async fn what_fails_alone_is_not_tried_again_at_every_command(host: Host) {
    host.identify().await;
    let networks = [("taken".into(), "VNI 5000 is in use by another program".to_owned())].into();
    host.kernel.fail_alone(Outcome { networks, ..Outcome::default() });
    host.attach_alone("c1").await;
    let before = host.kernel.applied();
    for _ in 0..100 {
        assert_eq!(host.dataplane.sandboxes().await.unwrap().len(), 1);
    }
    // The pause doubles from one to the next.
    let tries = host.kernel.applied() - before;
    assert!(tries < 12, "{tries}");
    // What is new is done at once, and what can be made again is made.
    host.attach_alone("c2").await;
    host.kernel.fail_alone(Outcome::default());
    let before = host.kernel.retried();
    until(true, async || host.kernel.retried() > before).await;
}

async fn a_balancer_that_may_lead_to_what_was_taken_out_holds_no_version(host: Host) {
    host.kernel.fail_alone(Outcome { is_behind: true, ..only("c1") });
    host.dataplane.learn(News::Whole(knowledge(&[])), 3).await.unwrap();
    let failed = host.dataplane.withdraw(TaskId::from("t1")).await;
    assert!(matches!(failed, Err(Error::Kernel(_))), "{failed:?}");
    assert_ne!(*host.dataplane.applied().borrow(), 3);
    host.kernel.fail_alone(Outcome::default());
    host.dataplane.applied().wait_for(|applied| *applied == 3).await.unwrap();
}

async fn a_port_that_the_node_itself_uses_is_refused_at_once(host: Host) {
    let reason = "port 80/tcp is in use on this node by nginx".to_owned();
    let ports = [((Protocol::Tcp, 80), reason)].into();
    host.kernel.fail_alone(Outcome { ports, ..Outcome::default() });
    let wanted = Wanted { host_ports: vec![(Protocol::Tcp, 80, 8080)], ..Wanted::default() };
    let failed = host.dataplane.attach("c1", wanted).await.unwrap_err();
    assert!(matches!(failed, Error::PortTaken(_)), "{failed:?}");
    assert!(failed.to_string().starts_with("port 80/tcp is in use on this node by nginx"));
    host.attach_alone("c2").await;
    assert_eq!(host.dataplane.sandboxes().await.unwrap().len(), 1);
}

async fn what_others_touched_is_repaired_at_once(host: Host) {
    host.attach_alone("c1").await;
    until(true, async || host.kernel.repaired() > 0).await;
    let (repaired, applied) = (host.kernel.repaired(), host.kernel.applied());
    host.kernel.disturb();
    until(repaired + 1, async || host.kernel.repaired()).await;
    assert_eq!(host.kernel.applied(), applied + 1);
}

async fn what_is_taken_out_leaves_kernel_and_names_while_the_disk_hangs(host: Host) {
    host.identify().await;
    host.learn(knowledge(&[("t1", 11, true), ("t2", 111, true)]), 1).await;
    let port = host.attach("c1", None, 11).await.dns_port;
    let disk = journal::fake::hang(&config(&host.dir).dir.join("journal.redb"));
    for (version, left) in [(2, &[("t1", 11, true)][..]), (3, &[])] {
        let learned = host.dataplane.learn(News::Whole(knowledge(left)), version);
        tokio::time::timeout(Duration::from_secs(5), learned).await.unwrap().unwrap();
        let hosts: Vec<u8> = left.iter().map(|(_, host, _)| *host).collect();
        let backends = async || host.kernel.held().sandboxes["c1"].vips.v4.get(&VIP).cloned();
        until(Some(addresses(&hosts)), backends).await;
        until(addresses(&hosts), async || lookup(port, "tasks.web").await).await;
    }
    let (mut applied, mut trouble) = (host.dataplane.applied(), host.dataplane.trouble());
    trouble.wait_for(|trouble| trouble.contains("journal")).await.unwrap();
    assert_eq!(*applied.borrow(), 1, "nothing is on disk");
    drop(disk);
    applied.wait_for(|applied| *applied == 3).await.unwrap();
    trouble.wait_for(String::is_empty).await.unwrap();
}

#[tokio::test]
async fn a_kernel_that_is_lost_ends_the_scope() {
    let mut host = Host::new(Place::Here).await;
    host.kernel.lose();
    drop(host.dataplane.attach("c1", Wanted::default()).await);
    let ended = std::mem::take(&mut host.scope).join().await.unwrap_err();
    let text = format!("{ended:?}");
    assert!(text.contains("Lost"), "{text}");
}

/// Notes for each change that has the VIP whether its name was known before.
#[derive(Clone, Default)]
struct Curious {
    port: Arc<AtomicU16>,
    known: Arc<Mutex<Vec<bool>>>,
}

impl discovery::Kernel for Curious {
    type Error = Infallible;

    async fn apply(&mut self, desired: &Arc<Desired>, _: Depth) -> Result<Outcome, Infallible> {
        if desired.sandboxes.values().any(|rules| rules.vips.v4.contains_key(&VIP)) {
            let port = self.port.load(Ordering::Relaxed);
            let known = !lookup(port, "web").await.is_empty();
            self.known.lock().unwrap().push(known);
        }
        Ok(Outcome::default())
    }
}

#[tokio::test]
async fn a_name_is_known_only_after_the_kernel_leads_it_somewhere() {
    let dir = tempfile::tempdir().unwrap();
    let (curious, namespaces) = (Curious::default(), namespaces());
    let mut scope = Scope::new();
    let names = Names::here(namespaces.clone(), &dir.path().join("none"), &mut scope).await;
    let ports = (curious.clone(), namespaces, names);
    let dataplane = start_at(config(&dir), ports, &mut scope, PACE).await.unwrap();
    let mut applied = dataplane.applied();
    let mut network = knowledge(&[]);
    // The service is not there yet.
    network.networks.values_mut().for_each(|view| view.services.clear());
    dataplane.learn(News::Whole(network), 1).await.unwrap();
    let attachment =
        |host: u8| SandboxAttachment { network: "net".into(), addresses: [10, 0, 1, host].into() };
    let sandbox = dataplane.attach("c1", on(vec![attachment(11)])).await.unwrap();
    curious.port.store(sandbox.dns_port, Ordering::Relaxed);
    // It comes together with another container.
    dataplane.learn(News::Whole(knowledge(&[("t2", 111, true)])), 2).await.unwrap();
    dataplane.attach("c2", on(vec![attachment(12)])).await.unwrap();
    applied.wait_for(|applied| *applied == 2).await.unwrap();
    assert_eq!(lookup(sandbox.dns_port, "web").await, [VIP]);
    assert_eq!(curious.known.lock().unwrap().first(), Some(&false));
}

#[tokio::test]
async fn a_port_that_leads_elsewhere_is_refused_in_dockers_words() {
    let host = Host::new(Place::Here).await;
    host.identify().await;
    let mut known = knowledge(&[]);
    let web = discovery::MeshPort { service: "web".into(), target: 80, tasks: OrdSet::new() };
    known.mesh.ports.insert((Protocol::Tcp, 8080), web);
    host.learn(known, 1).await;
    let wants = |protocol, published: u16, task: Option<&str>| Wanted {
        task: task.map(Into::into),
        host_ports: vec![(protocol, published, 80)],
        ..Wanted::default()
    };
    let attach = async |id: &str, wanted: Wanted| {
        host.dataplane.attach(id, wanted).await.map(drop).map_err(|error| error.to_string())
    };
    let taken =
        |port: u16| Err(format!("Bind for 0.0.0.0:{port} failed: port is already allocated"));
    assert_eq!(attach("plain", wants(Protocol::Tcp, 8080, None)).await, taken(8080));
    assert_eq!(attach("plain", wants(Protocol::Udp, 8080, None)).await, Ok(()));
    assert_eq!(attach("plain", wants(Protocol::Udp, 8080, None)).await, Ok(()), "its own");
    assert_eq!(attach("task", wants(Protocol::Tcp, 9090, Some("t"))).await, Ok(()));
    assert_eq!(attach("other", wants(Protocol::Tcp, 9090, None)).await, taken(9090));
    assert_eq!(attach("other", wants(Protocol::Udp, 8080, Some("u"))).await, taken(8080));
    host.dataplane.detach("task").await.unwrap();
    assert_eq!(attach("other", wants(Protocol::Tcp, 9090, None)).await, Ok(()));
}
