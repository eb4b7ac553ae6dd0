//! Updates, restarts and networks: what the planner decides, seen by users. One lab for all.

use e2e::{Lab, until};
use std::time::{Duration, Instant};

const LIMIT: Duration = Duration::from_mins(1);

#[test]
fn what_changes_is_what_was_asked_for() {
    let lab = Lab::up(3, &["busybox"]);
    names_and_constraints_are_read_as_docker_does(&lab);
    addresses_come_from_the_range_and_run_out_aloud(&lab);
    a_removed_network_carries_tasks_that_still_stop(&lab);
    a_rejected_task_keeps_the_restart_delay(&lab);
    ports_and_spelled_out_defaults_replace_no_task(&lab);
    a_failed_start_first_update_leaves_good_tasks_alone(&lab);
    an_update_that_continues_moves_on(&lab);
    let left = lab.down();
    assert!(left.is_empty(), "{left:#?}");
}

/// Makes a service of a container that sleeps.
fn sleeper(lab: &Lab, name: &str, options: &[&str]) {
    let head = ["service", "create", "--detach", "--name", name];
    lab.docker(&[&head, options, &["busybox:latest", "sleep", "1000000"]].concat()).good();
}

fn update(lab: &Lab, service: &str, options: &[&str]) {
    lab.docker(&[&["service", "update", "--detach"], options, &[service]].concat()).good();
}

/// What a template makes of a service.
fn shown(lab: &Lab, service: &str, template: &str) -> String {
    lab.docker(&["service", "inspect", "--format", template, service]).good().trim().to_owned()
}

/// The tasks of a service that are wanted, in some order that stays.
fn tasks(lab: &Lab, service: &str) -> Vec<String> {
    let wanted = ["--filter", "desired-state=running", "--no-trunc", "-q"];
    let out = lab.docker(&[&["service", "ps"], &wanted[..], &[service]].concat()).good();
    let mut tasks: Vec<String> = out.lines().map(str::to_owned).collect();
    tasks.sort();
    tasks
}

fn history(lab: &Lab, service: &str) -> String {
    let format = "{{.Node}} {{.CurrentState}} {{.Error}}";
    lab.docker(&["service", "ps", "--no-trunc", "--format", format, service]).out
}

fn ends_as(lab: &Lab, service: &str, state: &str) {
    let template = "{{if .UpdateStatus}}{{.UpdateStatus.State}}: {{.UpdateStatus.Message}}{{end}}";
    until(&format!("the update of {service} {state}"), LIMIT, || {
        let now = shown(lab, service, template);
        if now.starts_with(&format!("{state}:")) { Ok(()) } else { Err(now) }
    });
}

fn names_and_constraints_are_read_as_docker_does(lab: &Lab) {
    let create = |name: &str, option: &str| {
        lab.docker(&["service", "create", "--detach", "--name", name, option, "busybox:latest"])
    };
    for name in ["a.b.c", "dash-", "under_"] {
        let said = create(name, "--quiet").bad();
        assert!(said.contains("DNS name component"), "{said}");
    }
    assert!(create(&"x".repeat(64), "--quiet").bad().contains("63"));
    let said = lab.docker(&["network", "create", "--driver", "overlay", "a.b"]).bad();
    assert!(said.contains("DNS name component"), "{said}");
    let said = create("bad", "--constraint=node.labels.region==a,b").bad();
    assert!(said.contains("value 'a,b' is invalid"), "{said}");
    lab.docker(&["node", "update", "--label-add", "region=EU West", "node-2"]).good();
    sleeper(lab, "west", &["--constraint", "node.labels.region == eu west"]);
    lab.converged("west", "1/1", LIMIT);
    assert!(history(lab, "west").starts_with("node-2 "), "{}", history(lab, "west"));
    lab.docker(&["service", "rm", "west"]).good();
}

fn addresses_come_from_the_range_and_run_out_aloud(lab: &Lab) {
    let create = ["network", "create", "--driver", "overlay", "--subnet", "10.77.0.0/24"];
    let wrong = [&create[..], &["--aux-address", "own=10.77.0.1", "narrow"]].concat();
    let said = lab.docker(&wrong).bad();
    assert!(said.contains("10.77.0.1 is the gateway's"), "{said}");
    let kept = "kept=10.77.0.133";
    let range = ["--ip-range", "10.77.0.132/30", "--aux-address", kept, "narrow"];
    lab.docker(&[&create[..], &range].concat()).good();
    let ipam = "{{json .IPAM.Config}}";
    let ipam = lab.docker(&["network", "inspect", "--format", ipam, "narrow"]).good();
    assert!(ipam.contains("10.77.0.132/30") && ipam.contains("10.77.0.133"), "{ipam}");
    // The service has one address, two tasks have the others but for the one that is kept.
    sleeper(lab, "full", &["--network", "narrow", "--replicas", "3"]);
    until("the third task says what is missing", LIMIT, || {
        let said = history(lab, "full");
        let told = said.contains("no free address in 10.77.0.132/30 (network narrow)");
        if told { Ok(()) } else { Err(said) }
    });
    lab.converged("full", "2/3", LIMIT);
    lab.docker(&["service", "rm", "full"]).good();
    lab.docker(&["network", "rm", "narrow"]).good();
}

fn a_removed_network_carries_tasks_that_still_stop(lab: &Lab) {
    let network = ["network", "create", "--driver", "overlay", "--subnet", "10.79.0.0/24", "soon"];
    let first = lab.docker(&network).good();
    let slow = "trap 'sleep 8; exit' TERM; while true; do sleep 0.1; done";
    for (name, node) in [("one", "node-1"), ("two", "node-2")] {
        let here = format!("node.hostname=={node}");
        let head = ["service", "create", "--detach", "--name", name, "--network", "soon"];
        let rest = ["--constraint", &here, "--stop-grace-period", "20s", "busybox:latest"];
        lab.docker(&[&head[..], &rest, &["sh", "-c", slow]].concat()).good();
    }
    lab.converged("one", "1/1", LIMIT);
    lab.converged("two", "1/1", LIMIT);
    let one = lab.containers(3, "one").remove(0);
    let template = "{{index (index .NetworksAttachments 0).Addresses 0}}";
    let inspect = ["inspect", "--type", "task", "--format", template, &tasks(lab, "two")[0]];
    let address = lab.docker(&inspect).good();
    let ping = format!("ping -c 1 -W 2 {}", address.split('/').next().unwrap_or_default());
    until("the two reach each other", LIMIT, || {
        let shown = lab.inside(&one, &ping);
        if shown.ok { Ok(()) } else { Err(shown.out + &shown.err) }
    });
    lab.docker(&["service", "rm", "one", "two"]).good();
    lab.docker(&["network", "rm", "soon"]).good();
    // Both still stop, and the name is free at once.
    let second = lab.docker(&network).good();
    let listed = lab.docker(&["network", "ls", "-q", "--no-trunc", "--filter", "name=soon"]).good();
    assert_eq!(listed, second, "not {first}");
    lab.inside(&one, &ping).good();
    // The subnet comes when the first network has gone.
    sleeper(lab, "third", &["--network", "soon"]);
    lab.converged("third", "1/1", LIMIT);
    lab.docker(&["service", "rm", "third"]).good();
    lab.docker(&["network", "rm", "soon"]).good();
}

fn a_rejected_task_keeps_the_restart_delay(lab: &Lab) {
    let missing = "type=bind,source=/tmp/skep-is-missing,target=/data";
    #[expect(clippy::disallowed_methods, reason = "how long it took is what is tested")]
    let start = Instant::now();
    sleeper(lab, "lost", &["--mount", missing, "--restart-delay", "3s"]);
    // The second one is prepared at once and starts after the delay.
    until("four tries", LIMIT, || {
        let said = history(lab, "lost");
        if said.matches("Rejected").count() >= 4 { Ok(()) } else { Err(said) }
    });
    assert!(start.elapsed() > Duration::from_secs(5), "{:?}", start.elapsed());
    lab.docker(&["service", "rm", "lost"]).good();
}

fn ports_and_spelled_out_defaults_replace_no_task(lab: &Lab) {
    sleeper(lab, "web", &["--publish", "22320:80", "--update-order", "start-first"]);
    lab.converged("web", "1/1", LIMIT);
    let before = tasks(lab, "web");
    update(lab, "web", &["--publish-add", "22321:80"]);
    ends_as(lab, "web", "completed");
    assert_eq!(tasks(lab, "web"), before);
    let defaults = ["--stop-grace-period", "10s", "--restart-condition", "any", "--replicas", "1"];
    update(lab, "web", &defaults);
    ends_as(lab, "web", "completed");
    assert_eq!(tasks(lab, "web"), before);
    let ingress = lab.docker(&["network", "inspect", "--format", "{{.Id}}", "ingress"]).good();
    let vips = shown(lab, "web", "{{range .Endpoint.VirtualIPs}}{{.NetworkID}} {{end}}");
    assert_eq!(vips, ingress.trim());
    lab.docker(&["service", "rm", "web"]).good();
}

fn a_failed_start_first_update_leaves_good_tasks_alone(lab: &Lab) {
    let action = ["--update-failure-action", "rollback", "--update-parallelism", "0"];
    let order = ["--update-order", "start-first", "--restart-delay", "1s", "--replicas", "2"];
    sleeper(lab, "good", &[&action[..], &order].concat());
    lab.converged("good", "2/2", LIMIT);
    let before = tasks(lab, "good");
    update(lab, "good", &["--args", "sh -c 'sleep 1; exit 3'"]);
    ends_as(lab, "good", "rollback_completed");
    until("only the first tasks", LIMIT, || {
        let now = tasks(lab, "good");
        if now == before { Ok(()) } else { Err(format!("{now:?} {}", history(lab, "good"))) }
    });
    assert!(lab.containers(3, "good").len() >= 2);
    lab.docker(&["service", "rm", "good"]).good();
}

fn an_update_that_continues_moves_on(lab: &Lab) {
    let action = ["--update-failure-action", "continue", "--restart-delay", "1s"];
    sleeper(lab, "on", &[&action[..], &["--replicas", "2"]].concat());
    lab.converged("on", "2/2", LIMIT);
    update(lab, "on", &["--mount-add", "type=bind,source=/tmp/skep-is-missing,target=/data"]);
    ends_as(lab, "on", "completed");
    update(lab, "on", &["--mount-rm", "/data"]);
    ends_as(lab, "on", "completed");
    lab.converged("on", "2/2", LIMIT);
    lab.docker(&["service", "rm", "on"]).good();
}
