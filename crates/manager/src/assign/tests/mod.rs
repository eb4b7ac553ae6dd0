mod files;
mod follow;

use super::*;
use expect_test::{Expect, expect};
use std::fmt::Write as _;
use store::Tx;
use types::{
    Attachment, DesiredState, Network, NetworkAttachment, Node, NodeState, NodeStatus,
    PublishedPort, STACK_LABEL, Service, ServiceSpec, Specs, TaskSpec, Timestamp, Version, Vip,
};

/// Lines `task node state desired`; one service `web` on network `front` with port 8080.
fn view(tasks: &str, down: &[&str]) -> View {
    let mut tx = Tx::new(&View::default());
    for (number, id) in (1..).zip(["n1", "n2", "n3"]) {
        let state = if down.contains(&id) { NodeState::Down } else { NodeState::Ready };
        let status =
            NodeStatus { state, address: [192, 168, 0, number].into(), ..Default::default() };
        let ingress_addresses = [10, 255, 0, number].into();
        tx.put_node(Node { id: id.into(), status, ingress_addresses, ..Node::default() });
    }
    for name in ["front", "back"] {
        let mut network = Network { id: name.into(), vni: 4097, ..Network::default() };
        network.spec.name = name.into();
        tx.put_network(network);
    }
    let mut spec = ServiceSpec { name: "web".into(), ..ServiceSpec::default() };
    spec.labels.insert(STACK_LABEL.into(), "shop".into());
    spec.task.networks =
        vec![NetworkAttachment { target: "front".into(), aliases: vec!["www".into()] }];
    let port = PublishedPort { published: 8080, target: 80, ..PublishedPort::default() };
    let vip = Vip { network: "front".into(), addresses: [10, 0, 1, 2].into() };
    tx.put_service(Service {
        id: "s".into(),
        spec,
        ports: vec![port],
        vips: vec![vip],
        ..Service::default()
    });
    for line in tasks.lines().map(str::trim).filter(|line| !line.is_empty()) {
        tx.put_task(task(line));
    }
    let mut view = View::default();
    view.apply(&tx.finish(), Version(1), Timestamp(1));
    view
}

fn task(line: &str) -> Task {
    let words: Vec<&str> = line.split_whitespace().collect();
    let number: u8 = words[0][1..].parse().unwrap();
    let mut task = Task {
        id: words[0].into(),
        service: "s".into(),
        service_name: "web".into(),
        slot: number.into(),
        ..Task::default()
    };
    task.node = Some(words[1].into());
    task.status.state =
        TaskState::ALL.into_iter().find(|state| state.as_str() == words[2]).unwrap();
    task.desired = [DesiredState::Running, DesiredState::Shutdown]
        .into_iter()
        .find(|desired| desired.as_str() == words[3])
        .unwrap();
    task.attachments = vec![Attachment {
        network: "front".into(),
        addresses: [10, 0, 1, number].into(),
        aliases: Vec::new(),
    }];
    task.ingress_addresses = [10, 255, 1, number].into();
    task
}

fn given(view: &View, node: &str) -> Assignments {
    Topology::of(view).assignments(view, (&node.into(), &Files::default()), |_| false)
}

fn difference(old: &Assignments, new: &Assignments) -> Option<wire::Difference> {
    super::difference(old, new, &mut Alike::default())
}

fn check(node: &str, view: &View, expected: &Expect) {
    let given = given(view, node).whole();
    let mut text = String::new();
    for id in given.tasks.keys() {
        writeln!(text, "task {id}").unwrap();
    }
    for network in given.knowledge.networks.values() {
        for (id, it) in &network.endpoints {
            let serving = if it.serving { "serves" } else { "silent" };
            writeln!(text, "{}: {id} {} by {} {serving}", network.name, it.addresses, it.vtep)
                .unwrap();
        }
        for it in network.services.values() {
            let (name, stack) = (&it.name, &it.stack);
            writeln!(text, "{}: {name} of {stack} {:?} {}", network.name, it.aliases, it.vips)
                .unwrap();
        }
    }
    for ((protocol, port), it) in &given.knowledge.mesh.ports {
        writeln!(text, "mesh: {}/{port} {:?}", protocol.as_str(), it.tasks).unwrap();
    }
    expected.assert_eq(&text);
}

#[test]
fn a_node_knows_all_that_is_on_its_networks_and_only_running_tasks_serve() {
    let view = view(
        "t1 n1 running running
         t2 n2 starting running
         t3 n2 running shutdown
         t4 n2 failed running",
        &[],
    );
    check(
        "n1",
        &view,
        &expect![[r#"
            task t1
            front: t1 10.0.1.1 by 192.168.0.1 serves
            front: t2 10.0.1.2 by 192.168.0.2 silent
            front: t3 10.0.1.3 by 192.168.0.2 silent
            front: web of shop {"www"} 10.0.1.2
            mesh: tcp/8080 {TaskId("t1"), TaskId("t2"), TaskId("t3")}
        "#]],
    );
}

#[test]
fn a_node_without_tasks_knows_the_mesh_alone() {
    let view = view("t1 n1 running running", &[]);
    check(
        "n3",
        &view,
        &expect![[r#"
            mesh: tcp/8080 {TaskId("t1")}
        "#]],
    );
}

#[test]
fn a_node_that_is_down_serves_nothing_and_keeps_its_place() {
    let tasks = "t1 n1 running running\nt2 n2 running running";
    let view = view(tasks, &["n2"]);
    check(
        "n1",
        &view,
        &expect![[r#"
            task t1
            front: t1 10.0.1.1 by 192.168.0.1 serves
            front: t2 10.0.1.2 by 192.168.0.2 silent
            front: web of shop {"www"} 10.0.1.2
            mesh: tcp/8080 {TaskId("t1"), TaskId("t2")}
        "#]],
    );
    let mesh = given(&view, "n1").mesh;
    assert_eq!(mesh.nodes, given(&self::view(tasks, &[]), "n1").mesh.nodes);
    assert!(mesh.tasks[&TaskId::from("t1")].serving && !mesh.tasks[&TaskId::from("t2")].serving);
}

#[test]
fn a_node_that_left_is_forgotten() {
    let mut view = view("t1 n1 running running\nt2 n2 running running", &[]);
    let left = crate::dispatch::report::left(&view, &"n2".into(), Timestamp(2)).unwrap();
    view.apply(&left, Version(2), Timestamp(2));
    let mesh = given(&view, "n1").mesh;
    assert_eq!(mesh.nodes.keys().collect::<Vec<_>>(), [&NodeId::from("n1"), &NodeId::from("n3")]);
    assert_eq!(mesh.tasks.keys().collect::<Vec<_>>(), [&TaskId::from("t1")]);
}

#[test]
fn others_reach_a_node_at_its_data_path_address() {
    let mut view = view("t1 n1 running running\nt2 n2 running running", &[]);
    let (mut tx, apart) = (Tx::new(&view), [10, 9, 0, 2].into());
    tx.edit_node(&"n2".into(), |node| node.status.data_path_address = Some(apart));
    view.apply(&tx.finish(), Version(2), Timestamp(2));
    let given = given(&view, "n1");
    assert_eq!(given.mesh.nodes[&NodeId::from("n2")].address, apart);
    assert_eq!(given.networks[&"front".into()].endpoints[&TaskId::from("t2")].vtep, apart);
}

#[test]
fn an_ended_task_stays_assigned_until_it_is_forgotten_but_needs_no_network() {
    let view = view("t1 n1 complete shutdown", &[]);
    check(
        "n1",
        &view,
        &expect![[r"
            task t1
            mesh: tcp/8080 {}
        "]],
    );
}

#[test]
fn a_report_that_comes_back_is_no_difference_for_the_one_who_sent_it() {
    let mut old = given(&view("t1 n1 ready running", &[]), "n1");
    let mut new = given(&view("t1 n1 starting running", &[]), "n1");
    (old.version, new.version) = (3, 4);
    assert_eq!(difference(&old, &new), None);
}

#[test]
fn a_difference_leads_from_one_set_to_the_other() {
    let mut old = given(&view("t1 n1 running running\nt2 n1 running running", &[]), "n1");
    let mut new = given(&view("t1 n1 running shutdown\nt3 n2 running running", &[]), "n1");
    (old.version, new.version) = (3, 4);
    new.withdrawn.insert("t1".into());
    let difference = difference(&old, &new).unwrap();
    assert_eq!((difference.from, difference.version), (3, 4));
    assert_eq!(difference.tasks.keys().collect::<Vec<_>>(), [&TaskId::from("t1")]);
    assert_eq!(difference.removed_tasks, [TaskId::from("t2")].into());
    assert_eq!(difference.withdrawn, Some([TaskId::from("t1")].into()));
    let front = &difference.knowledge.networks[&"front".into()];
    assert_eq!(
        front.endpoints.changed.keys().collect::<Vec<_>>(),
        [&TaskId::from("t1"), &"t3".into()]
    );
    assert_eq!(front.endpoints.gone, [TaskId::from("t2")].into());
    let mut knowledge = old.whole().knowledge;
    difference.knowledge.apply(&mut knowledge);
    assert_eq!(knowledge, new.whole().knowledge);
}

#[test]
fn what_did_not_change_is_shared_with_the_topology_before() {
    let (one, two) = (view("t1 n1 starting running", &[]), view("t1 n1 running running", &[]));
    let before = Topology::of(&one);
    let mut after = before.clone();
    let touched = after.follow(&Step::between(&one, &two));
    assert_eq!(touched.networks, [NetworkId::from("front")].into());
    let shared = |id: &str| Arc::ptr_eq(&before.networks[&id.into()], &after.networks[&id.into()]);
    assert!(shared("back") && !shared("front"));
}

#[test]
fn what_many_nodes_are_told_alike_is_computed_once() {
    let (one, two) = (view("t1 n1 starting running", &[]), view("t1 n1 running running", &[]));
    let before = Topology::of(&one);
    let mut after = before.clone();
    after.follow(&Step::between(&one, &two));
    let mut alike = Alike::default();
    for node in ["n1", "n2", "n3"] {
        let [old, new] = [(&before, &one), (&after, &two)].map(|(topology, view)| {
            topology.assignments(view, (&node.into(), &Files::default()), |_| false)
        });
        let difference = super::difference(&old, &new, &mut alike).unwrap();
        let serving = |task: &discovery::MeshTask| task.serving;
        assert!(difference.knowledge.mesh.tasks.changed.values().all(serving));
    }
    assert_eq!(alike.computed(), 2, "the mesh and the network of n1");
}

/// Tasks of a service with a spec of some size, on one node.
fn thousand() -> View {
    let mut spec = SharedSpec::default();
    spec.container.image = format!("registry.example.com/web@sha256:{}", "0".repeat(64));
    spec.container.env = (0..10).map(|it| format!("VARIABLE_{it}=some value")).collect();
    let mut tx = Tx::new(&View::default());
    for slot in 1..=1000 {
        let id = TaskId::from(format!("{slot:025}"));
        let mut task = Task { id, slot, node: Some("n1".into()), ..Task::default() };
        task.status.state = TaskState::Assigned;
        task.spec = spec.clone();
        tx.put_task(task);
    }
    let mut view = View::default();
    view.apply(&tx.finish(), Version(1), Timestamp(1));
    view
}

#[test]
fn what_a_thousand_tasks_are_made_from_is_sent_once() {
    let none = given(&View::default(), "n1");
    let all = given(&thousand(), "n1");
    let full: BTreeMap<_, _> = all.tasks.iter().map(|(id, task)| (id, Task::clone(task))).collect();
    let full = wire::encode(&full).unwrap().len();
    let whole = all.whole();
    let difference = difference(&none, &all).unwrap();
    assert_eq!((whole.specs.len(), difference.specs.len()), (1, 1));
    for sent in [wire::encode(&whole).unwrap(), wire::encode(&difference).unwrap()] {
        assert!(sent.len() * 2 < full, "{} of {full} bytes", sent.len());
    }
}

/// Another release may have written the same content otherwise: what a task names was said.
#[test]
fn a_spec_that_got_another_id_is_said_again() {
    let mut old = given(&view("t1 n1 running running", &[]), "n1");
    let mut new = given(&view("t1 n1 running running", &[]), "n1");
    (old.version, new.version) = (3, 4);
    let task = new.tasks.values_mut().next().map(Arc::make_mut).unwrap();
    let other = SpecId::from("another-digest");
    let specs = Specs::from(BTreeMap::from([(
        other.clone(),
        SharedSpec::from(TaskSpec::clone(&task.spec)),
    )]));
    task.spec = specs.get(&other).unwrap().clone();
    let difference = difference(&old, &new).unwrap();
    assert!(difference.tasks.contains_key(&"t1".into()));
    assert!(difference.specs.contains_key(&other));
    assert_eq!(difference.removed_specs.len(), 1);
}
