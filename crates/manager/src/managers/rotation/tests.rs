use super::*;
use ca::Authority;
use types::{NodeDescription, NodeStatus, RootRotation, Timestamp, Version};

const NOW: Timestamp = Timestamp(1_800_000_000_000_000_000);

/// A cluster between two roots.
fn rotating() -> Cluster {
    let [old, new] = [0, 1].map(|_| Authority::create(NOW).unwrap());
    let root_rotation = Some(ca::rotate(&old, new, NOW).unwrap());
    Cluster { root_ca: old, root_rotation, ..Cluster::default() }
}

fn by_old(cluster: &Cluster) -> Issuer {
    ca::issuer(&cluster.root_ca.certificate).unwrap()
}

fn by_new(cluster: &Cluster) -> Issuer {
    ca::issuer(cluster.wanted_root()).unwrap()
}

fn node(id: &str, role: NodeRole, issuer: Issuer) -> Node {
    let status = NodeStatus { state: NodeState::Ready, ..NodeStatus::default() };
    let description = NodeDescription { issuer, ..NodeDescription::default() };
    Node { id: id.into(), role, status, description, ..Node::default() }
}

fn view(cluster: &Cluster, nodes: Vec<Node>) -> View {
    let mut tx = Tx::new(&View::default());
    tx.put_cluster(cluster.clone());
    for node in nodes {
        tx.put_node(node);
    }
    let mut view = View::default();
    view.apply(&tx.finish(), Version(1), Timestamp(1));
    view
}

fn after(view: &View, changes: &Changes) -> View {
    let mut view = view.clone();
    view.apply(changes, Version(2), Timestamp(2));
    view
}

/// Who is told to renew its certificate.
fn told(view: &View) -> Vec<&str> {
    let wanted = Wanted::of(view);
    let renews = |node: &&Node| wanted.tell(node).is_some_and(|trust| trust.issuer.is_some());
    let nodes = view.nodes().map(AsRef::as_ref);
    nodes.filter(renews).map(|node: &Node| node.id.as_str()).collect()
}

use NodeRole::{Manager, Worker};

#[test]
fn managers_come_before_workers_and_who_has_it_is_left_alone() {
    let cluster = rotating();
    let (old, new) = (by_old(&cluster), by_new(&cluster));
    let nodes = |m1: &Issuer, m2: &Issuer, w: &Issuer| {
        let it = [("m1", Manager, m1), ("m2", Manager, m2), ("w", Worker, w)];
        it.map(|(id, role, issuer)| node(id, role, issuer.clone())).to_vec()
    };
    assert_eq!(told(&view(&cluster, nodes(&old, &old, &old))), ["m1", "m2"]);
    assert_eq!(told(&view(&cluster, nodes(&new, &old, &old))), ["m2"]);
    assert_eq!(told(&view(&cluster, nodes(&new, &new, &old))), ["w"]);
    assert!(told(&view(&cluster, nodes(&new, &new, &new))).is_empty());
}

#[test]
fn a_few_nodes_renew_at_a_time_and_one_that_is_down_does_not_hold_up_the_others() {
    let cluster = rotating();
    let names: Vec<String> = (0..BATCH + 10).map(|number| format!("n{number:03}")).collect();
    let mut nodes: Vec<Node> =
        names.iter().map(|name| node(name, Worker, by_old(&cluster))).collect();
    nodes[0].status.state = NodeState::Down;
    let view = view(&cluster, nodes);
    let wanted: Vec<&str> = names[1..=BATCH].iter().map(String::as_str).collect();
    assert_eq!(told(&view), wanted);
    assert_eq!(waits_for(&view).unwrap().len(), BATCH + 10);
    assert!(finished(&view).unwrap().is_empty());
}

#[test]
fn all_nodes_hear_of_the_roots_and_only_until_they_have_them() {
    let cluster = rotating();
    let mut one = node("n", Worker, by_new(&cluster));
    let told = |one: &Node| Wanted::of(&view(&cluster, vec![one.clone()])).tell(one);
    one.description.trust_root = cluster.root_ca.certificate.clone();
    assert_eq!(told(&one), Some(Trust { roots: cluster.roots(), issuer: None }));
    one.description.trust_root = cluster.roots();
    assert_eq!(told(&one), None);
}

#[test]
fn the_new_root_is_the_clusters_once_all_have_certificates_by_it() {
    let mut cluster = rotating();
    cluster.tokens.worker = "old".to_owned();
    let RootRotation { certificate, .. } = cluster.root_rotation.clone().unwrap();
    let mut gone = node("left", Worker, by_old(&cluster));
    gone.status.enter(NodeState::Down, Node::LEFT, NOW);
    let mut down = node("down", Worker, by_old(&cluster));
    down.status.state = NodeState::Down;
    let there = node("m", Manager, by_new(&cluster));
    let waiting = view(&cluster, vec![gone.clone(), down, there.clone()]);
    assert_eq!(waits_for(&waiting).unwrap(), ["down".into()]);
    assert!(finished(&waiting).unwrap().is_empty());

    let ready = view(&cluster, vec![gone, there]);
    let done = after(&ready, &finished(&ready).unwrap());
    let new = done.cluster().unwrap();
    assert_eq!((new.root_ca.certificate.clone(), &new.root_rotation), (certificate, &None));
    let digest = ca::root_digest(&new.root_ca.certificate).unwrap();
    for token in [&new.tokens.worker, &new.tokens.manager] {
        assert_eq!(JoinToken::parse(token).unwrap().digest(), digest);
    }
    assert_ne!(new.tokens.worker, new.tokens.manager);
    assert!(finished(&done).unwrap().is_empty(), "once");
}

/// Its certificate is by a root that is none of the cluster's any more, or will be none.
#[test]
fn nodes_get_back_to_the_root_of_before_when_a_rotation_is_called_off() {
    let mut cluster = rotating();
    let nodes = vec![
        node("a", Worker, by_new(&cluster)),
        node("b", Worker, by_old(&cluster)),
        node("former-release", Worker, Issuer::default()),
    ];
    assert_eq!(told(&view(&cluster, nodes.clone())), ["b", "former-release"]);
    cluster.root_rotation = None;
    assert_eq!(told(&view(&cluster, nodes.clone())), ["a"]);
    assert_eq!(waits_for(&view(&cluster, nodes)), None);
}
