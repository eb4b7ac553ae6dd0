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
    let left = lab.down();
    assert!(left.is_empty(), "{left:#?}");
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
