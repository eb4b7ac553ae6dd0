//! The root of trust is rotated below a cluster that is used all the while.

use e2e::{Client, Lab, until};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

#[test]
fn the_root_is_rotated_while_nobody_notices() {
    let lab = Lab::with_managers(4, 3, &["nginx"]);
    lab.docker(&["swarm", "update", "--dispatcher-heartbeat", "1s"]).good();
    let create = ["service", "create", "--detach=false", "--quiet", "--name", "web"];
    let more = ["--replicas", "4", "--publish", "8090:80", "--no-resolve-image", "nginx:latest"];
    lab.docker(&[&create[..], &more].concat()).good();
    let old = Tokens::of(&lab);
    let client = Client::start(&lab.at(4, 8090), "/", 200);
    while_users(&lab, changes, rotates_and_waits);
    while_users(&lab, looks, a_node_that_is_down_is_waited_for_and_a_leader_is_lost_meanwhile);
    tokens_are_rotated(&lab);
    a_worker_is_promoted_and_demoted(&lab);
    every_manager_leads_in_turn(&lab);
    a_leader_is_stopped_and_started(&lab);
    let seen = client.stop();
    assert!(seen.requests > 100 && seen.failures.is_empty(), "{seen:#?}");
    machines_join_with_new_tokens(&lab, &old);
    let left = lab.down();
    assert!(left.is_empty(), "{left:#?}");
}

/// Does something while users ask two managers, and no call of theirs fails.
fn while_users(lab: &Lab, ask: fn(&Lab, u8, usize), act: impl FnOnce(&Lab)) {
    let is_over = &AtomicBool::new(false);
    std::thread::scope(|threads| {
        let users = [2, 3].map(|node| {
            threads.spawn(move || {
                let asks = (0..).take_while(|_| !is_over.load(Ordering::Relaxed));
                asks.map(|number| ask(lab, node, number)).count()
            })
        });
        let stop = Stop(is_over);
        act(lab);
        drop(stop);
        let asked: usize = users.into_iter().map(|user| user.join().expect("none fails")).sum();
        assert!(asked > 5, "{asked} times");
    });
}

/// Users stop also where the test fails.
struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

fn changes(lab: &Lab, node: u8, number: usize) {
    let name = format!("net-{node}-{number}");
    lab.docker_at(node, &["network", "create", "--driver", "overlay", &name]).good();
    lab.docker_at(node, &["network", "rm", &name]).good();
}

/// What a leader is asked for while it is lost is asked of the next one, where that changes nothing.
fn looks(lab: &Lab, node: u8, _number: usize) {
    assert_eq!(lab.docker_at(node, &["service", "ls", "--quiet"]).good().lines().count(), 1);
}

fn root(lab: &Lab) -> String {
    lab.docker(&["swarm", "ca"]).good()
}

/// Node, status and TLS status, in order.
fn nodes(lab: &Lab) -> Vec<String> {
    let table =
        lab.docker(&["node", "ls", "--format", "{{.Hostname}} {{.Status}} {{.TLSStatus}}"]).good();
    let mut lines: Vec<String> = table.lines().map(str::to_owned).collect();
    lines.sort();
    lines
}

fn is_rotating(lab: &Lab) -> bool {
    let format = "{{.Swarm.Cluster.RootRotationInProgress}}";
    lab.docker(&["info", "--format", format]).good().trim() == "true"
}

fn all_have_it(lab: &Lab) {
    let wanted = [1, 2, 3, 4].map(|node| format!("node-{node} Ready Ready"));
    until("every node has a certificate by the new root", secs(60), || {
        let (nodes, rotates) = (nodes(lab), is_rotating(lab));
        if nodes == wanted && !rotates { Ok(()) } else { Err(format!("{nodes:#?} {rotates}")) }
    });
}

/// The CLI waits until every node has it, and shows the new root.
fn rotates_and_waits(lab: &Lab) {
    let before = root(lab);
    let shown = lab.docker(&["swarm", "ca", "--rotate", "--quiet"]).good();
    let after = root(lab);
    assert!(after.contains("BEGIN CERTIFICATE") && after != before);
    assert!(shown.trim().is_empty() || shown.contains(after.trim()), "{shown}");
    all_have_it(lab);
}

fn a_node_that_is_down_is_waited_for_and_a_leader_is_lost_meanwhile(lab: &Lab) {
    let before = root(lab);
    lab.lab(&["kill", "node-4"]).good();
    until("node-4 is down", secs(30), || {
        let nodes = nodes(lab);
        if nodes[3].starts_with("node-4 Down") { Ok(()) } else { Err(format!("{nodes:#?}")) }
    });
    lab.docker(&["swarm", "ca", "--rotate", "--detach"]).good();
    lab.docker(&["swarm", "ca", "--rotate", "--detach"]).good();
    let format = "{{.Hostname}} {{.ManagerStatus}}";
    let managers = lab.docker_at(2, &["node", "ls", "--format", format]).good();
    let leader = managers.lines().find_map(|line| line.trim().strip_suffix(" Leader"));
    let leader = leader.expect("there is a leader").to_owned();
    // Users ask the other two, which wait for the next leader.
    if leader == "node-1" {
        lab.lab(&["kill", &leader]).good();
        lab.lab(&["start", &leader]).good();
    }
    let wanted = [
        "node-1 Ready Ready",
        "node-2 Ready Ready",
        "node-3 Ready Ready",
        "node-4 Down Needs Rotation",
    ];
    until("all but the one that is down have it", secs(60), || {
        let nodes = nodes(lab);
        if nodes == wanted { Ok(()) } else { Err(format!("{nodes:#?}")) }
    });
    assert!(is_rotating(lab) && root(lab) == before);
    let waiting = lab.ask(1, "GET", "/swarm").body;
    assert!(waiting.contains("\"RootRotationInProgress\":true"), "{waiting}");
    lab.lab(&["start", "node-4"]).good();
    all_have_it(lab);
    assert_ne!(root(lab), before);
}

fn tokens_are_rotated(lab: &Lab) {
    let Tokens(before) = Tokens::of(lab);
    for role in ["worker", "manager"] {
        lab.docker(&["swarm", "join-token", "--rotate", "--quiet", role]).good();
    }
    let Tokens(after) = Tokens::of(lab);
    assert!(before.iter().zip(&after).all(|(before, after)| before != after));
}

fn a_worker_is_promoted_and_demoted(lab: &Lab) {
    lab.docker(&["node", "promote", "node-4"]).good();
    until("node-4 answers as a manager", secs(60), || {
        let shown = lab.docker_at(4, &["service", "ls", "--quiet"]);
        if shown.ok { Ok(()) } else { Err(shown.err) }
    });
    lab.make_worker(4);
}

fn every_manager_leads_in_turn(lab: &Lab) {
    for node in [1, 2, 3] {
        lab.skep(&["raft", "transfer", &format!("node-{node}")]).good();
        let label = format!("led.by={node}");
        lab.docker(&["service", "update", "--detach", "--label-add", &label, "web"]).good();
    }
}

/// As an operator does who restarts the service of the machine.
fn a_leader_is_stopped_and_started(lab: &Lab) {
    let led = lab.leader();
    lab.stop(led);
    let asked = if led == 1 { 2 } else { 1 };
    let label = ["service", "update", "--detach", "--label-add", "stopped=yes", "web"];
    lab.docker_at(asked, &label).good();
    assert_ne!(lab.leader_seen_by(asked), Some(led));
    lab.lab(&["start", &format!("node-{led}")]).good();
    until("it is back", secs(30), || {
        let nodes = nodes(lab);
        if nodes.iter().all(|node| node.ends_with(" Ready Ready")) {
            Ok(())
        } else {
            Err(format!("{nodes:#?}"))
        }
    });
}

/// The worker's token, and the manager's.
struct Tokens([String; 2]);

impl Tokens {
    fn of(lab: &Lab) -> Self {
        let token = |role| lab.docker(&["swarm", "join-token", "--quiet", role]).good();
        Self(["worker", "manager"].map(|role| token(role).trim().to_owned()))
    }
}

fn machines_join_with_new_tokens(lab: &Lab, old: &Tokens) {
    lab.docker_at(4, &["swarm", "leave"]).good();
    let remote = lab.at(1, 2377);
    for token in &old.0 {
        let refused = lab.docker_at(4, &["swarm", "join", "--token", token, &remote]).bad();
        assert!(refused.contains("remote CA does not match fingerprint"), "{refused}");
    }
    let [worker, _] = Tokens::of(lab).0;
    lab.docker_at(4, &["swarm", "join", "--token", &worker, &remote]).good();
}
