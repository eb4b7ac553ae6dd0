//! Most managers are lost for good.

use e2e::{Client, Lab, page, until};
use std::time::Duration;

fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

#[test]
fn one_of_three_managers_goes_on_alone_and_no_task_is_restarted() {
    let lab = Lab::with_managers(4, 3, &["nginx"]);
    lab.docker(&["swarm", "update", "--dispatcher-heartbeat", "1s"]).good();
    let create = ["service", "create", "--detach=false", "--quiet", "--name", "web"];
    let more = ["--mode", "global", "--publish", "8090:80", "--no-resolve-image", "nginx:latest"];
    lab.docker(&[&create[..], &more].concat()).good();
    let before = [1, 4].map(|node| lab.started(node));

    lab.lab(&["kill", "node-2"]).good();
    lab.lab(&["kill", "node-3"]).good();
    until("node-1 can change nothing", secs(30), || {
        let refused = lab.docker(&["service", "ls"]);
        if refused.ok { Err(refused.out) } else { Ok(()) }
    });
    let refused = lab.docker_at(4, &["swarm", "init", "--force-new-cluster"]).bad();
    assert!(refused.contains("not a swarm manager"), "{refused}");
    answers(&lab, 4);
    lab.docker(&["swarm", "init", "--force-new-cluster"]).good();

    sees(&lab, &["node-1 Ready Leader", "node-2 Down", "node-3 Down", "node-4 Ready"]);
    lab.docker(&["service", "update", "--detach", "--label-add", "a=b", "web"]).good();
    answers(&lab, 4);
    assert_eq!([1, 4].map(|node| lab.started(node)), before, "no task was restarted");

    // One that was not lost after all hears that it manages nothing any more.
    lab.lab(&["start", "node-2"]).good();
    sees(&lab, &["node-2 Ready"]);
    until("node-2 is a worker", secs(30), || {
        let refused = lab.docker_at(2, &["node", "ls"]);
        if refused.err.contains("Worker nodes can't") { Ok(()) } else { Err(refused.out) }
    });
    lab.docker(&["node", "promote", "node-2"]).good();
    sees(&lab, &["node-1 Ready Leader", "node-2 Ready Reachable"]);
    a_backup_is_restored_at_another_address(&lab);
    let left = lab.down();
    assert!(left.is_empty(), "{left:#?}");
}

/// The machines of three of five managers are lost, one after the other. What runs is on the other two.
#[test]
fn what_runs_is_found_while_most_of_five_managers_are_lost_and_one_goes_on() {
    let lab = Lab::with_managers(5, 5, &["busybox"]);
    for node in STAYS {
        let name = format!("node-{node}");
        is_done(&lab, &["node", "update", "--label-add", "stays=yes", &name]);
    }
    let page = "echo well > /index.html; exec httpd -f -p 80 -h /";
    is_done(&lab, &["network", "create", "--driver", "overlay", "net"]);
    runs(&lab, ("web", "3"), &["--publish", "8090:80"], page);
    runs(&lab, ("asker", "1"), &[], ASKER);
    Lab::says(&lab.at(2, 8090), "/", "well", secs(60));
    let client = Client::start(&lab.at(2, 8090), "/", 200);
    two_of_five_are_lost_and_the_cluster_works(&lab);
    let before = STAYS.map(|node| lab.started(node));
    most_are_lost_and_one_goes_on(&lab);
    assert_eq!(STAYS.map(|node| lab.started(node)), before, "no task was restarted");
    scales(&lab, "4");
    let seen = client.stop();
    assert!(seen.requests > 100 && seen.failures.is_empty(), "{seen:#?}");
    let asked = lab.docker(&["service", "logs", "--raw", "asker"]).good();
    let (good, bad): (Vec<_>, Vec<_>) = asked.lines().partition(|line| *line == "well");
    assert!(good.len() > 100 && bad.is_empty(), "{} good, {bad:#?}", good.len());
    let left = lab.down();
    assert!(left.is_empty(), "{left:#?}");
}

/// The nodes whose machines are not lost.
const STAYS: [u8; 2] = [1, 2];

/// Asks by name, each time anew, and says what it got from the first answer on.
const ASKER: &str =
    "ask() { address=$(nslookup -type=a web 127.0.0.11 | awk '/^Address/ {a = $2} END {print a}')
    printf 'GET / HTTP/1.0\\r\\n\\r\\n' | nc -w 5 $address 80 | grep well; }
    until ask > /dev/null; do sleep 0.1; done
    while true; do ask || echo failed; sleep 0.1; done";

fn runs(lab: &Lab, (name, replicas): (&str, &str), options: &[&str], script: &str) {
    let create = ["service", "create", "--detach", "--name", name, "--replicas", replicas];
    let place = ["--network", "net", "--constraint", "node.labels.stays==yes"];
    let stop = ["--stop-grace-period", "2s", "--no-resolve-image"];
    let run = ["busybox:latest", "sh", "-c", script];
    is_done(lab, &[&create[..], &place, &stop, options, &run].concat());
    lab.converged(name, &format!("{replicas}/{replicas}"), secs(60));
}

/// Where five managers share a machine with other tests, an election may take longer than a call waits.
/// Nothing was done then.
fn is_done(lab: &Lab, order: &[&str]) {
    until(&format!("{order:?}"), secs(60), || {
        let shown = lab.docker(order);
        if shown.err.contains("does not have a leader") { Err(shown.err) } else { Ok(shown) }
    })
    .good();
}

fn scales(lab: &Lab, replicas: &str) {
    is_done(lab, &["service", "scale", "--detach", &format!("web={replicas}")]);
    lab.converged("web", &format!("{replicas}/{replicas}"), secs(60));
}

fn lost(lab: &Lab, node: u8) {
    let name = format!("node-{node}");
    lab.lab(&["cut", &name]).good();
    lab.lab(&["kill", &name]).good();
}

fn two_of_five_are_lost_and_the_cluster_works(lab: &Lab) {
    // One of them leads.
    lab.skep(&["raft", "transfer", "node-5"]).good();
    lost(lab, 4);
    lost(lab, 5);
    until("both are known to be lost", secs(60), || {
        let format = "{{.Hostname}} {{.Status}} {{.ManagerStatus}}";
        let table = lab.docker(&["node", "ls", "--format", format]);
        let unreachable = table.out.matches(" Down Unreachable").count();
        if unreachable == 2 { Ok(()) } else { Err(format!("{table:?}")) }
    });
    scales(lab, "5");
    runs(lab, ("late", "1"), &[], "exec sleep 1000000");
    let late = lab.containers(2, "late").remove(0);
    lab.inside(&late, "nslookup -type=a web 127.0.0.11").good();
    scales(lab, "3");
    is_done(lab, &["service", "rm", "late"]);
    until("what was removed has gone", secs(30), || {
        let (late, web) = (lab.containers(2, "late"), lab.containers(2, "web"));
        if late.is_empty() && web.len() == 3 { Ok(()) } else { Err(format!("{late:?} {web:?}")) }
    });
}

fn most_are_lost_and_one_goes_on(lab: &Lab) {
    lost(lab, 3);
    until("node-1 can change nothing", secs(30), || {
        let refused = lab.docker(&["service", "ls"]);
        if refused.err.contains("does not have a leader") { Ok(()) } else { Err(refused.out) }
    });
    Lab::says(&lab.at(2, 8090), "/", "well", secs(10));
    lab.docker(&["swarm", "init", "--force-new-cluster"]).good();
    let gone = ["node-3 Down", "node-4 Down", "node-5 Down"];
    sees(lab, &[&["node-1 Ready Leader", "node-2 Ready"], &gone[..]].concat());
    // The other one has heard that it manages nothing any more.
    until("node-2 is a worker", secs(30), || {
        let refused = lab.docker_at(2, &["node", "ls"]);
        if refused.err.contains("Worker nodes can't") { Ok(()) } else { Err(refused.out) }
    });
    lab.docker(&["node", "promote", "node-2"]).good();
    sees(lab, &["node-1 Ready Leader", "node-2 Ready Reachable"]);
}

/// Saved by a manager that does not lead, restored on a machine that has left.
fn a_backup_is_restored_at_another_address(lab: &Lab) {
    use std::os::unix::fs::PermissionsExt;
    lab.docker(&["swarm", "update", "--autolock"]).good();
    let key = lab.docker(&["swarm", "unlock-key", "-q"]).good();
    let path = lab.folder().join("backup");
    let file = path.display().to_string();
    lab.skep_told(2, &["swarm", "backup", &file], "").good();
    let mode = std::fs::metadata(&path).expect("a backup").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let refused = lab.skep_told(4, &["swarm", "restore", &file], &key).bad();
    assert!(refused.contains("already part of a swarm"), "{refused}");
    lab.lab(&["start", "node-3"]).good();
    until("node-3 is a worker", secs(30), || {
        let left = lab.docker_at(3, &["swarm", "leave"]);
        if left.ok { Ok(()) } else { Err(left.err) }
    });
    for lost in ["node-1", "node-2"] {
        lab.lab(&["kill", lost]).good();
    }
    let refused = lab.skep_told(3, &["swarm", "restore", &file], "SWMKEY-1-x\n").bad();
    assert!(refused.contains("invalid key string"), "{refused}");
    let restore = ["swarm", "restore", &file, "--advertise-addr", "eth0"];
    lab.skep_told(3, &restore, &key).good();
    let services = ["service", "ls", "--format", "{{.Name}}"];
    assert_eq!(lab.docker_at(3, &services).good().trim(), "web");
    assert_eq!(lab.docker_at(3, &["swarm", "unlock-key", "-q"]).good(), key);
    let nodes = lab.docker_at(3, &["node", "ls", "--format", "{{.Hostname}} {{.ManagerStatus}}"]);
    assert!(nodes.good().lines().any(|line| line == "node-3 Leader"));
}

fn answers(lab: &Lab, node: u8) {
    let address = lab.at(node, 8090);
    until(&format!("node-{node} leads to the service"), secs(30), || {
        match page(&address, "/", secs(5)) {
            Ok(page) if page.status == 200 => Ok(()),
            other => Err(format!("{other:?}")),
        }
    });
}

/// Node, status, and what it is among managers.
fn sees(lab: &Lab, wanted: &[&str]) {
    until(&format!("node-1 sees {wanted:?}"), secs(60), || {
        let format = "{{.Hostname}} {{.Status}} {{.ManagerStatus}}";
        let table = lab.docker(&["node", "ls", "--format", format]);
        let lines: Vec<&str> = table.out.lines().map(str::trim).collect();
        let all = wanted.iter().all(|wanted| lines.contains(wanted));
        if all { Ok(()) } else { Err(format!("{table:?}")) }
    });
}
