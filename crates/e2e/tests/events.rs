//! `docker events`: what happens in the cluster, as every manager tells it, and on a node.

use e2e::{Lab, until};
use serde_json::Value;
use std::time::Duration;

/// The docker CLI cuts moments to seconds: the one after this has all.
const ALL: [&str; 4] = ["events", "--since", "0", "--until=-1s"];

#[test]
fn what_happens_is_told_by_every_manager() {
    let lab = Lab::with_managers(3, 3, &["busybox"]);
    changes_are_told_with_dockers_attributes(&lab);
    filters_choose(&lab);
    containers_networks_and_volumes_are_told_where_they_are(&lab);
    processes_and_images_are_told(&lab);
    what_comes_is_told_at_once(&lab);
    what_nobody_tells_is_refused(&lab);
    let left = lab.down();
    assert!(left.is_empty(), "{left:#?}");
}

/// What docker prints with these filters, as JSON.
fn told(lab: &Lab, node: u8, filters: &[&str]) -> Vec<Value> {
    let mut line = [&ALL[..], &["--format", "{{json .}}"]].concat();
    for filter in filters {
        line.extend(["--filter", filter]);
    }
    let shown = lab.docker_at(node, &line).good();
    shown.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
}

/// E.g. `service update web replicas.new=2 replicas.old=1`, without what differs from run to run.
fn text(event: &Value) -> String {
    let word = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let mut line = format!("{} {}", word(&event["Type"]), word(&event["Action"]));
    let attributes = event["Actor"]["Attributes"].as_object().expect("attributes");
    line.push(' ');
    line += &attributes.get("name").map_or_else(String::new, word);
    let of_run = ["name", "version", "container", "execID", "execDuration"];
    for (name, value) in attributes.iter().filter(|(name, _)| !of_run.contains(&name.as_str())) {
        line += &[" ", name, "=", &word(value)].concat();
    }
    line
}

/// Says that these lines are among what was told, in this order.
fn are_in_order(told: &[Value], lines: &[&str]) {
    let texts: Vec<String> = told.iter().map(text).collect();
    let mut rest = texts.iter();
    for line in lines {
        assert!(rest.any(|text| text == line), "no {line} where it should be in {texts:#?}");
    }
}

const SWARM: [&str; 4] = ["type=service", "type=network", "type=config", "type=secret"];

fn changes_are_told_with_dockers_attributes(lab: &Lab) {
    lab.docker_told(2, &["config", "create", "notes", "-"], "x").good();
    lab.docker_told(3, &["secret", "create", "key", "-"], "x").good();
    lab.docker(&["network", "create", "--driver", "overlay", "shop"]).good();
    let create = ["service", "create", "--detach", "--name", "web", "--network", "shop"];
    let create = [&create[..], &["busybox:latest", "sleep", "1000"]].concat();
    lab.docker_at(2, &create).good();
    lab.converged("web", "1/1", Duration::from_mins(1));
    let update = ["service", "update", "--detach", "--replicas", "2", "web"];
    lab.docker_at(3, &update).good();
    lab.converged("web", "2/2", Duration::from_mins(1));
    lab.docker(&["service", "update", "--detach", "--env-add", "A=1", "web"]).good();
    lab.update_ends("web", "completed", Duration::from_mins(2));
    lab.docker(&["node", "update", "--availability", "pause", "node-3"]).good();
    lab.docker(&["node", "update", "--availability", "active", "node-3"]).good();
    lab.docker(&["service", "rm", "web"]).good();
    lab.docker(&["config", "rm", "notes"]).good();
    lab.docker(&["secret", "rm", "key"]).good();
    until("the network is free", Duration::from_mins(1), || {
        let removed = lab.docker(&["network", "rm", "shop"]);
        if removed.ok { Ok(()) } else { Err(removed.err) }
    });
    let swarm = [&SWARM[..], &["scope=swarm"]].concat();
    let events = told(lab, 1, &swarm);
    are_in_order(
        &events,
        &[
            "config create notes",
            "secret create key",
            "network create shop",
            "service create web",
            "service update web replicas.new=2 replicas.old=1",
            "service update web updatestate.new=updating",
            "service update web updatestate.new=completed updatestate.old=updating",
            "service remove web",
            "config remove notes",
            "secret remove key",
            "network remove shop",
        ],
    );
    for node in [2, 3] {
        assert_eq!(told(lab, node, &swarm), events, "node-{node} tells something else");
    }
    let times: Vec<i64> = events.iter().filter_map(|it| it["timeNano"].as_i64()).collect();
    assert!(times.is_sorted() && times.len() == events.len(), "{times:?}");
    let nodes = told(lab, 2, &["type=node"]);
    are_in_order(
        &nodes,
        &[
            // It is created before it has said its name.
            "node create ",
            "node update node-3 state.new=ready state.old=unknown",
            "node update node-3 availability.new=pause availability.old=active",
            "node update node-3 availability.new=active availability.old=pause",
        ],
    );
}

fn filters_choose(lab: &Lab) {
    let count = |filters: &[&str]| told(lab, 1, filters).len();
    assert!(told(lab, 1, &["service=web"]).iter().all(|it| text(it).starts_with("service")));
    assert!(0 < count(&["service=web", "event=remove"]));
    assert_eq!(count(&["service=nobody"]), 0);
    assert_eq!(count(&["config=notes"]), 2);
    assert_eq!(count(&["secret=key", "event=create"]), 1);
    assert_eq!(count(&["network=shop", "scope=swarm", "event=remove"]), 1);
    assert!(0 < count(&["node=node-2"]));
    assert_eq!(count(&["node=node-2", "type=service"]), 0);
    assert_eq!(count(&["scope=local", "type=secret"]), 0);
    // As Docker does, up to an end all that is remembered is shown.
    let all = lab.docker(&["events", "--until=-1s", "--filter", "config=notes"]).good();
    assert_eq!(all.lines().count(), 2, "{all}");
}

fn containers_networks_and_volumes_are_told_where_they_are(lab: &Lab) {
    let run = ["run", "--rm", "--name", "one", "--volume", "kept:/data", "--label", "mark=1"];
    lab.docker_at(2, &[&run[..], &["busybox:latest", "sh", "-c", "exit 3"]].concat()).bad();
    lab.docker_at(2, &["volume", "rm", "kept"]).good();
    let here = ["container=one", "type=container"];
    let of_container = told(lab, 2, &here);
    let more = "image=busybox:latest mark=1";
    are_in_order(
        &of_container,
        &[
            &format!("container create one {more}"),
            &format!("container attach one {more}"),
            &format!("container start one {more}"),
            &format!("container die one exitCode=3 {more}"),
            &format!("container destroy one {more}"),
        ],
    );
    assert_eq!(told(lab, 1, &here), Vec::<Value>::new(), "it was on another node");
    are_in_order(
        &told(lab, 2, &["scope=local"]),
        &[
            "volume create  driver=local",
            "network connect bridge type=bridge",
            "volume mount  destination=/data driver=local propagation= read/write=true",
            &format!("container start one {more}"),
            &format!("container die one exitCode=3 {more}"),
            "network disconnect bridge type=bridge",
            "volume unmount  driver=local",
            "volume destroy  driver=local",
        ],
    );
    let id = |filter: &str| told(lab, 2, &[filter])[0]["Actor"]["ID"].clone();
    assert_eq!(id("volume=kept"), "kept");
    let bridge = lab.docker_at(2, &["network", "inspect", "--format", "{{.Id}}", "bridge"]);
    if bridge.ok {
        assert_eq!(id("network=bridge"), bridge.out.trim());
    }
    // The service's tasks were on a network of the cluster.
    let connected = (1..=3).flat_map(|node| told(lab, node, &["network=shop", "scope=local"]));
    are_in_order(&connected.collect::<Vec<_>>(), &["network connect shop type=overlay"]);
}

fn processes_and_images_are_told(lab: &Lab) {
    let more = "image=busybox:latest";
    lab.docker(&["run", "--detach", "--name", "two", "busybox:latest", "sleep", "1000"]).good();
    lab.docker(&["exec", "two", "sh", "-c", "exit 4"]).bad();
    lab.docker(&["top", "two"]).good();
    lab.docker(&["kill", "--signal", "CONT", "two"]).good();
    lab.docker(&["restart", "--time", "0", "two"]).good();
    lab.docker(&["rm", "--force", "two"]).good();
    are_in_order(
        &told(lab, 1, &["container=two"]),
        &[
            &format!("container exec_create: sh -c exit 4 two {more}"),
            &format!("container exec_start: sh -c exit 4 two {more}"),
            &format!("container exec_die two exitCode=4 {more}"),
            &format!("container top two {more}"),
            &format!("container kill two {more} signal=18"),
            &format!("container restart two {more}"),
            &format!("container destroy two {more}"),
        ],
    );
    lab.docker(&["tag", "busybox:latest", "mine:1"]).good();
    lab.docker(&["rmi", "mine:1"]).good();
    let images = told(lab, 1, &["type=image", "image=mine"]);
    are_in_order(&images, &["image tag mine:1", "image untag mine:1"]);
}

/// By a manager that is not the one that is asked for the change.
fn what_comes_is_told_at_once(lab: &Lab) {
    let line = ["events", "--until=-5s", "--filter", "config=fresh", "--format", "{{.Action}}"];
    let shown = std::thread::scope(|scope| {
        let events = scope.spawn(|| lab.docker_at(3, &line).good());
        lab.docker_told(1, &["config", "create", "fresh", "-"], "x").good();
        lab.docker(&["config", "rm", "fresh"]).good();
        events.join().expect("it does not panic")
    });
    assert_eq!(shown, "create\nremove\n");
}

fn what_nobody_tells_is_refused(lab: &Lab) {
    for (filter, why) in [
        ("type=plugin", "not supported by skep yet: the filter 'type=plugin'"),
        ("type=hamster", "invalid filter 'type=hamster'"),
        ("plugin=a", "not supported by skep yet: the filter 'plugin'"),
        ("scope=moon", "invalid filter 'scope=moon'"),
        ("colour=red", "invalid filter 'colour'"),
    ] {
        let refused = lab.docker(&[&ALL[..], &["--filter", filter]].concat()).bad();
        assert!(refused.contains(why), "{refused}");
    }
}
