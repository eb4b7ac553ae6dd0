//! Several managers: any of them is asked, one is lost, they change.

use e2e::{Lab, page, until};
use serde_json::Value;
use std::time::Duration;

fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

#[test]
fn managers_are_lost_promoted_demoted_and_leave() {
    let lab = Lab::with_managers(4, 3, &["nginx"]);
    lab.docker(&["swarm", "update", "--dispatcher-heartbeat", "1s"]).good();
    every_manager_answers_as_the_leader(&lab);
    operators_look_after_the_log(&lab);
    a_leader_that_is_stopped_hands_over_first(&lab);
    a_leader_that_is_killed_is_replaced_and_comes_back(&lab);
    nodes_are_promoted_and_demoted(&lab);
    a_manager_that_was_demoted_and_promoted_while_it_was_away_is_one_again(&lab);
    without_most_managers_what_runs_goes_on(&lab);
    a_leader_leaves(&lab);
    let left = lab.down();
    assert!(left.is_empty(), "{left:#?}");
}

/// Node, status, and what it is among managers, as a manager's user sees it.
fn nodes(lab: &Lab, asked: u8) -> Vec<String> {
    let format = "{{.Hostname}} {{.Status}} {{.ManagerStatus}}";
    let table = lab.docker_at(asked, &["node", "ls", "--format", format]);
    let mut lines: Vec<String> = table.out.lines().map(|line| line.trim().to_owned()).collect();
    lines.sort();
    lines
}

/// The one that leads is reachable as well.
fn sees(lab: &Lab, asked: u8, wanted: &[&str]) {
    until(&format!("node-{asked} sees {wanted:?}"), secs(60), || {
        let seen = nodes(lab, asked);
        let is = |line: &String, wanted: &str| {
            line == wanted || line.replace("Leader", "Reachable") == wanted
        };
        let has = |wanted: &&str| seen.iter().any(|line| is(line, wanted));
        if wanted.iter().all(has) { Ok(()) } else { Err(format!("{seen:#?}")) }
    });
}

fn leader(lab: &Lab, asked: u8) -> u8 {
    lab.leader_seen_by(asked).expect("there is a leader")
}

fn answers(lab: &Lab, node: u8) {
    let address = lab.at(node, 8090);
    until(&format!("node-{node} leads to the service"), secs(60), || {
        match page(&address, "/", secs(5)) {
            Ok(page) if page.status == 200 => Ok(()),
            other => Err(format!("{other:?}")),
        }
    });
}

fn every_manager_answers_as_the_leader(lab: &Lab) {
    sees(lab, 1, &["node-1 Ready Reachable", "node-2 Ready Reachable", "node-3 Ready Reachable"]);
    let create = ["service", "create", "--detach=false", "--quiet", "--name", "web"];
    let more = ["--replicas", "4", "--publish", "8090:80", "--no-resolve-image", "nginx:latest"];
    lab.docker_at(2, &[&create[..], &more].concat()).good();
    // What one was told is done, every other one shows.
    for asked in 1..=3 {
        let shown = lab.docker_at(asked, &["service", "ls", "--format", "{{.Name}} {{.Replicas}}"]);
        assert_eq!(shown.good().trim(), "web 4/4");
        lab.docker_at(asked, &["service", "logs", "web"]).good();
    }
    for turn in 0..5 {
        let name = format!("net-{turn}");
        lab.docker_at(2, &["network", "create", "--driver", "overlay", &name]).good();
        if turn % 2 == 0 {
            lab.docker_at(3, &["network", "inspect", &name]).good();
        }
        lab.docker_at(3, &["network", "rm", &name]).good();
        lab.docker_at(1, &["network", "inspect", &name]).bad();
    }
}

/// By skep's own CLI: docker's has nothing like it.
fn operators_look_after_the_log(lab: &Lab) {
    let status = lab.skep(&["raft", "status"]).good();
    assert!(status.contains(", index ") && status.contains("node-2"), "{status}");
    for to in ["node-3", "node-1", "node-1"] {
        let said = lab.skep(&["raft", "transfer", to]).good();
        assert_eq!(said.trim(), format!("{to} leads"));
        assert_eq!(format!("node-{}", leader(lab, 2)), to);
    }
    let worker = lab.skep(&["raft", "transfer", "node-4"]).bad();
    assert!(worker.contains("is no manager"), "{worker}");
    lab.docker(&["network", "create", "--driver", "overlay", "logged"]).good();
    lab.docker(&["network", "rm", "logged"]).good();
    let log = lab.skep(&["raft", "log", "--tail", "100"]).good();
    assert!(log.contains("+ network ") && log.contains("- network "), "{log}");
    assert!(log.contains("voters [1,2,3]"), "{log}");
}

/// As a service manager stops it: an election would take a second from its end on.
fn a_leader_that_is_stopped_hands_over_first(lab: &Lab) {
    let stopped = leader(lab, 2);
    let asked = if stopped == 2 { 3 } else { 2 };
    lab.stop(stopped);
    let status: Value =
        serde_json::from_str(&lab.ask(asked, "GET", "/skep/raft").body).expect("JSON");
    let members = status["Members"].as_array().expect("a list");
    let leads = members.iter().find(|member| member["Role"] == "leader");
    let leads = leads.unwrap_or_else(|| panic!("nobody leads when it has ended: {status}"));
    let name = format!("node-{stopped}");
    assert_ne!(leads["Hostname"], name.as_str(), "{status}");
    lab.lab(&["start", &name]).good();
    sees(lab, asked, &[&format!("{name} Ready Reachable")]);
}

fn a_leader_that_is_killed_is_replaced_and_comes_back(lab: &Lab) {
    let lost = leader(lab, 2);
    let asked = if lost == 2 { 3 } else { 2 };
    let name = format!("node-{lost}");
    lab.lab(&["kill", &name]).good();
    // No call fails: it waits for the next leader.
    lab.docker_at(asked, &["service", "update", "--detach", "--label-add", "a=b", "web"]).good();
    sees(lab, asked, &[&format!("{name} Down Unreachable")]);
    assert_ne!(leader(lab, asked), lost);
    answers(lab, 4);
    lab.lab(&["start", &name]).good();
    sees(lab, lost, &[&format!("{name} Ready Reachable")]);
}

fn nodes_are_promoted_and_demoted(lab: &Lab) {
    lab.docker_at(2, &["node", "demote", "node-1"]).good();
    sees(lab, 2, &["node-1 Ready"]);
    until("node-1 is a worker", secs(30), || {
        let refused = lab.docker_at(1, &["node", "ls"]);
        if refused.err.contains("Worker nodes can't") { Ok(()) } else { Err(refused.out) }
    });
    lab.docker_at(2, &["node", "promote", "node-1", "node-4"]).good();
    sees(lab, 2, &["node-1 Ready Reachable", "node-4 Ready Reachable"]);
    sees(lab, 4, &["node-1 Ready Reachable", "node-4 Ready Reachable"]);
    lab.docker_at(2, &["node", "demote", "node-4"]).good();
    // Whoever labels it reads what is wanted of it, and sends all of that.
    until("node-4 has a label", secs(30), || {
        let label = lab.docker_at(2, &["node", "update", "--label-add", "kept=1", "node-4"]);
        if label.ok { Ok(()) } else { Err(format!("{label:?}")) }
    });
    let wanted = lab.docker_at(2, &["node", "inspect", "--format", "{{.Spec.Role}}", "node-4"]);
    assert_eq!(wanted.good().trim(), "worker");
    sees(lab, 2, &["node-4 Ready"]);
    answers(lab, 4);
}

/// It has a number and a log of before, and does not hear that it has had none meanwhile.
fn a_manager_that_was_demoted_and_promoted_while_it_was_away_is_one_again(lab: &Lab) {
    lab.lab(&["kill", "node-1"]).good();
    lab.docker_at(2, &["node", "demote", "node-1"]).good();
    let status = ["node", "inspect", "--format", "{{.Spec.Role}} {{.ManagerStatus}}", "node-1"];
    until("node-1 is out of the log", secs(30), || {
        let shown = lab.docker_at(2, &status);
        if shown.out.trim() == "worker <nil>" { Ok(()) } else { Err(format!("{shown:?}")) }
    });
    lab.docker_at(2, &["node", "promote", "node-1"]).good();
    lab.lab(&["start", "node-1"]).good();
    sees(lab, 2, &["node-1 Ready Reachable"]);
    sees(lab, 1, &["node-1 Ready Reachable"]);
}

/// One of three is left: nothing is changed, and what runs is found.
fn without_most_managers_what_runs_goes_on(lab: &Lab) {
    lab.lab(&["kill", "node-1"]).good();
    lab.lab(&["kill", "node-3"]).good();
    until("node-2 says so", secs(30), || {
        let refused = lab.docker_at(2, &["service", "ls"]);
        let says = refused.err.contains("does not have a leader");
        if says { Ok(()) } else { Err(format!("{refused:?}")) }
    });
    lab.docker_at(2, &["network", "create", "--driver", "overlay", "never"]).bad();
    answers(lab, 4);
    lab.lab(&["start", "node-1"]).good();
    lab.lab(&["start", "node-3"]).good();
    sees(lab, 2, &["node-1 Ready Reachable", "node-4 Ready"]);
}

fn a_leader_leaves(lab: &Lab) {
    let first = leader(lab, 2);
    let other = if first == 2 { 3 } else { 2 };
    let refused = lab.docker_at(first, &["swarm", "leave"]).bad();
    assert!(refused.contains("participating as a manager"), "{refused}");
    lab.docker_at(first, &["swarm", "leave", "--force"]).good();
    sees(lab, other, &[&format!("node-{first} Down")]);
    lab.docker_at(other, &["node", "rm", &format!("node-{first}")]).good();
    lab.docker_at(other, &["service", "scale", "--detach", "web=2"]).good();
    answers(lab, 4);
}
