//! Most managers are lost for good.

use e2e::{Lab, page, until};
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
    let before = [1, 4].map(|node| started(&lab, node));

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
    assert_eq!([1, 4].map(|node| started(&lab, node)), before, "no task was restarted");

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

/// The containers of a node, each with the time at which it was started.
fn started(lab: &Lab, node: u8) -> String {
    let all = lab.docker_at(node, &["ps", "--quiet", "--no-trunc"]).good();
    let format = "{{.Id}} {{.State.StartedAt}}";
    let inspect = ["inspect", "--format", format];
    lab.docker_at(node, &[&inspect[..], &all.lines().collect::<Vec<_>>()].concat()).good()
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
