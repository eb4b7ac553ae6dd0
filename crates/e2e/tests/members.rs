//! How nodes get in and out of touch: daemons that are away, managers that hang, joins with options.

use e2e::{Lab, page, until};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::time::{Duration, Instant};

fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

#[test]
fn nodes_come_and_go() {
    let lab = Lab::up(3, &["nginx"]);
    // So that a node is down after three seconds.
    lab.docker(&["swarm", "update", "--dispatcher-heartbeat", "1s"]).good();
    a_daemon_that_is_away_makes_no_black_hole(&lab);
    if lab.managers() == 1 {
        // Where there are others, nodes do not wait for the one that hangs.
        sessions_are_back_at_once_after_a_manager_hung(&lab);
    }
    lab.make_worker(3);
    a_request_outlives_the_leave_of_the_node_that_answers_it(&lab);
    a_join_keeps_to_its_options(&lab);
    let left = lab.down();
    assert!(left.is_empty(), "{left:#?}");
}

fn has_state(lab: &Lab, node: &str, state: &str) {
    until(&format!("{node} is {state}"), secs(30), || {
        let table = lab.docker(&["node", "ls", "--format", "{{.Hostname}} {{.Status}}"]).good();
        let wanted = format!("{node} {state}");
        if table.lines().any(|line| line == wanted) { Ok(()) } else { Err(table) }
    });
}

fn web(lab: &Lab, options: &[&str]) {
    let start = ["service", "create", "--detach", "--name", "web", "--publish", "8090:80"];
    lab.docker(&[&start, options, &["--stop-grace-period", "1s", "nginx:latest"]].concat()).good();
}

fn a_daemon_that_is_away_makes_no_black_hole(lab: &Lab) {
    web(lab, &["--replicas", "3"]);
    lab.converged("web", "3/3", secs(60));
    let address = lab.at(3, 8090);
    let answers = || match page(&address, "/", secs(5)) {
        Ok(page) if page.status == 200 => Ok(()),
        other => Err(format!("{other:?}")),
    };
    until("node-3 answers", secs(30), answers);
    lab.lab(&["kill", "node-3"]).good();
    has_state(lab, "node-3", "Down");
    // Its task has been replaced by now, and what others know of it was pushed.
    lab.converged("web", "3/3", secs(60));
    let failed: Vec<_> = (0..30).filter_map(|_| answers().err()).collect();
    assert!(failed.is_empty(), "{} of 30: {failed:#?}", failed.len());
    lab.lab(&["start", "node-3"]).good();
    has_state(lab, "node-3", "Ready");
    lab.docker(&["service", "rm", "web"]).good();
}

/// How often a node's daemon has heard from a manager what it should have.
fn sessions(lab: &Lab, node: u8) -> usize {
    let log = std::fs::read_to_string(log(lab, node)).unwrap_or_default();
    log.matches("a manager has said what this node should have").count()
}

fn log(lab: &Lab, node: u8) -> PathBuf {
    lab.folder().join(format!("data/node-{node}/daemon.log"))
}

#[expect(clippy::disallowed_methods, reason = "tests run programs and measure")]
fn sessions_are_back_at_once_after_a_manager_hung(lab: &Lab) {
    let pid = std::fs::read_to_string(lab.folder().join("run/node-1/daemon.pid"));
    let pid = pid.expect("the daemon has a pid");
    let signal = |signal: &str| {
        let sent = std::process::Command::new("kill").args([signal, pid.trim()]).status();
        assert!(sent.is_ok_and(|status| status.success()), "kill {signal}");
    };
    let before = [2, 3].map(|node| sessions(lab, node));
    signal("-STOP");
    // Until both have given up their sessions, and try in vain.
    let given_up = |node: u8| {
        let log = std::fs::read_to_string(log(lab, node)).unwrap_or_default();
        let said = log.rfind("a manager has said").unwrap_or_default();
        if log[said..].contains("no session with a manager") { Ok(()) } else { Err(String::new()) }
    };
    for node in [2, 3] {
        until("the session is given up", secs(40), || given_up(node));
    }
    std::thread::sleep(secs(8));
    signal("-CONT");
    let start = Instant::now();
    while [2, 3].iter().zip(before).any(|(node, before)| sessions(lab, *node) == before) {
        assert!(start.elapsed() < secs(20), "sessions do not come back");
        std::thread::sleep(Duration::from_millis(10));
    }
    let took = start.elapsed();
    assert!(took < Duration::from_millis(1500), "sessions are back after {took:?}");
    for node in ["node-2", "node-3"] {
        has_state(lab, node, "Ready");
    }
}

/// Node-3 has left then.
fn a_request_outlives_the_leave_of_the_node_that_answers_it(lab: &Lab) {
    let head = ["service", "create", "--detach", "--name", "web", "--publish", "8090:80"];
    let place = ["--constraint", "node.hostname==node-3", "nginx:latest"];
    lab.docker(&[&head[..], &place].concat()).good();
    lab.converged("web", "1/1", secs(60));
    let address = lab.at(1, 8090);
    until("node-1 leads to node-3", secs(30), || match page(&address, "/", secs(5)) {
        Ok(page) if page.status == 200 => Ok(()),
        other => Err(format!("{other:?}")),
    });
    let mut request = TcpStream::connect(&address).expect("a connection");
    request.set_read_timeout(Some(secs(20))).expect("a limit");
    request.write_all(b"GET / HTTP/1.0\r\n").expect("a beginning");
    std::thread::scope(|scope| {
        let leave = scope.spawn(|| lab.docker_at(3, &["swarm", "leave"]).good());
        let order = ["service", "ps", "--format", "{{.DesiredState}}", "web"];
        until("its task is to go", secs(30), || {
            let orders = lab.docker(&order).good();
            if orders.contains("Shutdown") { Ok(()) } else { Err(orders) }
        });
        // It takes its time, and the node leaves meanwhile.
        for count in 0..10 {
            std::thread::sleep(Duration::from_millis(200));
            request.write_all(format!("X-Part: {count}\r\n").as_bytes()).expect("a part");
        }
        request.write_all(b"\r\n").expect("an end");
        let mut answer = String::new();
        request.read_to_string(&mut answer).expect("an answer");
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        leave.join().expect("it leaves");
    });
    has_state(lab, "node-3", "Down");
    lab.docker(&["service", "rm", "web"]).good();
}

fn a_join_keeps_to_its_options(lab: &Lab) {
    let token = lab.docker(&["swarm", "join-token", "-q", "worker"]).good().trim().to_owned();
    for node in 1..=3 {
        let (name, address) = (format!("node-{node}"), format!("10.77.0.{node}/24"));
        let links = lab.lab(&["exec", &name, "ip", "-o", "-4", "address"]).good();
        let own = lab.address(node).to_string();
        let shown = links.lines().find(|line| line.contains(&own)).expect("its own address");
        let link = shown.split_whitespace().nth(1).expect("a link").to_owned();
        lab.lab(&["exec", &name, "ip", "address", "add", &address, "dev", &link]).good();
    }
    lab.docker(&["node", "rm", "node-3"]).good();
    let manager = lab.at(1, 2377);
    let join = ["swarm", "join", "--token", &token, "--availability", "drain"];
    let own = lab.address(3).to_string();
    let addresses = ["--advertise-addr", &own, "--data-path-addr", "10.77.0.3", &manager];
    lab.docker_at(3, &[&join[..], &addresses].concat()).good();
    let availability =
        lab.docker(&["node", "inspect", "--format", "{{.Spec.Availability}}", "node-3"]).good();
    assert_eq!(availability.trim(), "drain");
    lab.docker(&["node", "update", "--availability", "active", "node-3"]).good();
    web(lab, &["--constraint", "node.hostname==node-3"]);
    lab.converged("web", "1/1", secs(60));
    // From node-1 to node-3's task: by the tunnel, to the address that the join named.
    let address = lab.at(1, 8090);
    until("node-1 leads to node-3", secs(30), || match page(&address, "/", secs(5)) {
        Ok(page) if page.status == 200 => Ok(()),
        other => Err(format!("{other:?}")),
    });
    let tunnels = lab.lab(&["exec", "node-1", "bridge", "fdb", "show"]).good();
    assert!(tunnels.contains("dst 10.77.0.3"), "{tunnels}");
    assert!(!tunnels.contains(&format!("dst {}", lab.address(3))), "{tunnels}");
    lab.docker(&["service", "rm", "web"]).good();
}
