//! What tools read of containers and networks, as Docker tells it: labels and settings of images,
//! networks, addresses and ports.

use e2e::{Lab, images, until};
use serde_json::{Value, json};
use std::time::Duration;

const PATIENCE: Duration = Duration::from_mins(1);

#[test]
fn tools_read_of_containers_what_docker_tells() {
    let lab = Lab::up(1, &["busybox", "nginx"]);
    the_images_settings_are_the_containers(&lab);
    containers_are_found_by_patterns_images_and_ports(&lab);
    what_does_not_run_uses_nothing(&lab);
    a_name_leads_to_the_node(&lab);
    tasks_are_shown_on_their_networks_with_their_ports(&lab);
    updates_say_what_they_mean(&lab);
    let left = lab.down();
    assert!(left.is_empty(), "{left:#?}");
}

fn object(lab: &Lab, target: &str) -> Value {
    let answer = lab.ask(1, "GET", target);
    assert_eq!(answer.status, 200, "{target}: {answer:?}");
    serde_json::from_str(&answer.body).expect("JSON")
}

/// Names of the containers that filters find, running or not.
fn found(lab: &Lab, filters: &[&str]) -> Vec<String> {
    let filters = filters.iter().flat_map(|filter| ["--filter", filter]);
    let list: Vec<&str> =
        ["ps", "--all", "--format", "{{.Names}}"].into_iter().chain(filters).collect();
    let mut names: Vec<String> = lab.docker(&list).good().lines().map(str::to_owned).collect();
    names.sort();
    names
}

fn the_images_settings_are_the_containers(lab: &Lab) {
    let run = ["run", "--detach", "--name", "site", "--publish", "18080:80", "--label", "own=1"];
    let more = ["--volume", "/own", "--env", "A=b", "nginx:latest"];
    lab.docker(&[&run[..], &more].concat()).good();
    let image = object(lab, "/images/nginx:latest/json")["Config"].clone();
    let site = object(lab, "/containers/site/json");
    let config = &site["Config"];
    for field in ["Cmd", "Entrypoint", "StopSignal", "WorkingDir"] {
        let said = |value: &Value| value.as_str().map_or(!value.is_null(), |text| !text.is_empty());
        if said(&image[field]) {
            assert_eq!(config[field], image[field], "{field}");
        }
    }
    assert_eq!(config["Labels"]["own"], "1");
    assert_eq!(config["ExposedPorts"], json!({ "80/tcp": {} }));
    assert!(config["Volumes"].get("/own").is_some(), "{config}");
    let env: Vec<&str> =
        config["Env"].as_array().expect("a list").iter().filter_map(Value::as_str).collect();
    assert!(env[0] == "A=b" && env.iter().any(|it| it.starts_with("PATH=")), "{env:?}");
    assert!(!env.iter().any(|it| it.starts_with("HOSTNAME=")), "{env:?}");
    let network = &site["NetworkSettings"];
    let published = json!([{ "HostIp": "0.0.0.0", "HostPort": "18080" }]);
    assert_eq!(network["Ports"], json!({ "80/tcp": published }));
    let bridge = &network["Networks"]["bridge"];
    let own = object(lab, "/networks/bridge?verbose=true");
    assert_eq!(bridge["NetworkID"], own["Id"]);
    assert_eq!(bridge["Gateway"], own["IPAM"]["Config"][0]["Gateway"]);
    let id = site["Id"].as_str().expect("a text");
    assert_eq!(own["Containers"][id]["MacAddress"], bridge["MacAddress"]);
    assert_eq!(own["Containers"][id]["EndpointID"], bridge["EndpointID"]);
    let seen = lab.docker(&["exec", "site", "cat", "/sys/class/net/eth0/address"]).good();
    assert_eq!(seen.trim(), bridge["MacAddress"]);
}

fn containers_are_found_by_patterns_images_and_ports(lab: &Lab) {
    lab.docker(&["tag", "nginx:latest", "again:1"]).good();
    lab.docker(&["create", "--name", "site-2", "--expose", "90", "again:1"]).good();
    lab.docker(&["create", "--name", "box", "busybox:latest"]).good();
    let tar = images().join("busybox.tar").display().to_string();
    let changes = ["--change", "LABEL made=1 own=0", "--change", "CMD [\"a\"]"];
    lab.docker(&[&["import"], &changes[..], &[&tar, "marked:1"]].concat()).good();
    lab.docker(&["create", "--name", "marked", "--label", "own=1", "marked:1"]).good();
    let labels = object(lab, "/containers/marked/json")["Config"]["Labels"].clone();
    assert_eq!(labels, json!({ "made": "1", "own": "1" }));
    for (filters, names) in [
        (&["name=site"][..], &["site", "site-2"][..]),
        (&["name=^site$"], &["site"]),
        (&["name=b.x"], &["box"]),
        (&["ancestor=nginx"], &["site", "site-2"]),
        (&["ancestor=again:1"], &["site", "site-2"]),
        (&["ancestor=nothing"], &[]),
        (&["label=made=1"], &["marked"]),
        (&["label=own=1"], &["marked", "site"]),
        (&["publish=18080"], &["site"]),
        (&["expose=80-90/tcp"], &["site"]),
        (&["publish=80"], &[]),
        (&["network=bridge", "name=box"], &["box"]),
    ] {
        assert_eq!(found(lab, filters), names, "{filters:?}");
    }
    lab.docker(&["rm", "--volumes", "box", "marked", "site-2"]).good();
    lab.docker(&["rmi", "again:1"]).good();
    for name in ["alpha-1", "alpha-2"] {
        lab.docker(&["volume", "create", name]).good();
    }
    let volumes = |filter: &str| {
        lab.docker(&["volume", "ls", "--quiet", "--filter", filter]).good().lines().count()
    };
    assert_eq!((volumes("name=lpha"), volumes("name=^alpha-.$"), volumes("name=^lpha")), (2, 2, 0));
    lab.docker(&["volume", "rm", "alpha-1", "alpha-2"]).good();
}

fn what_does_not_run_uses_nothing(lab: &Lab) {
    lab.docker(&["create", "--name", "idle", "busybox:latest"]).good();
    let shown = lab.docker(&["stats", "--no-stream", "--format", "{{.Name}} {{.CPUPerc}}", "idle"]);
    assert!(shown.good().starts_with("idle "));
    let sample = object(lab, "/containers/idle/stats?stream=false");
    assert_eq!((&sample["name"], &sample["memory_stats"]), (&json!("/idle"), &json!({})));
    lab.docker(&["rm", "idle"]).good();
    // What fails before anything is told has a status of its own.
    let missing = lab.ask(1, "POST", "/images/create?fromImage=127.0.0.1:9/none&tag=1");
    assert!(500 <= missing.status && missing.body.contains("message"), "{missing:?}");
    let all = lab.docker(&["pull", "--all-tags", "busybox"]).bad();
    assert!(all.contains("not supported by skep yet: tag=all of them"), "{all}");
}

fn a_name_leads_to_the_node(lab: &Lab) {
    let gateway = object(lab, "/networks/bridge")["IPAM"]["Config"][0]["Gateway"].clone();
    let run = ["run", "--rm", "--add-host", "me:host-gateway", "busybox:latest"];
    let hosts = lab.docker(&[&run[..], &["cat", "/etc/hosts"]].concat()).good();
    let wanted = format!("{}\tme", gateway.as_str().expect("an address"));
    assert!(hosts.lines().any(|line| line == wanted), "{hosts}");
}

fn tasks_are_shown_on_their_networks_with_their_ports(lab: &Lab) {
    lab.docker(&["network", "create", "--driver", "overlay", "shop"]).good();
    let create =
        ["service", "create", "--detach", "--name", "web", "--network", "name=shop,alias=w"];
    let port = ["--publish", "mode=host,published=18090,target=80", "--no-resolve-image"];
    lab.docker(&[&create[..], &port, &["nginx:latest"]].concat()).good();
    lab.converged("web", "1/1", PATIENCE);
    let name = found(lab, &["network=shop"]);
    let [name] = &name[..] else { panic!("{name:?}") };
    assert!(name.starts_with("web.1."), "{name}");
    assert_eq!(found(lab, &["network=bridge"]), ["site"]);
    assert_eq!(found(lab, &["is-task=true"]), [name.as_str()]);
    let network = object(lab, "/networks/shop?verbose=true");
    let task = object(lab, &format!("/containers/{name}/json"));
    let shown = &task["NetworkSettings"]["Networks"]["shop"];
    assert_eq!(shown["NetworkID"], network["Id"]);
    let address =
        format!("{}/{}", shown["IPAddress"].as_str().expect("a text"), shown["IPPrefixLen"]);
    let id = task["Id"].as_str().expect("a text");
    let on_it = &network["Containers"][id];
    assert_eq!(on_it["IPv4Address"], address);
    assert_eq!(on_it["MacAddress"], shown["MacAddress"]);
    assert_eq!(on_it["EndpointID"], shown["EndpointID"]);
    assert_eq!(shown["DNSNames"][0], name.as_str());
    assert_eq!(network["Services"]["web"]["Tasks"][0]["Name"], name.as_str());
    assert_eq!(network["Services"]["web"]["Tasks"][0]["EndpointID"], shown["EndpointID"]);
    assert_eq!(network["Peers"].as_array().map(Vec::len), Some(1));
    let seen = lab.docker(&["exec", name, "cat", "/sys/class/net/eth0/address"]).good();
    assert_eq!(seen.trim(), shown["MacAddress"]);
    let ports = lab.docker(&["ps", "--filter", "is-task=true", "--format", "{{.Ports}}"]).good();
    assert_eq!(ports.trim(), "0.0.0.0:18090->80/tcp");
    assert_eq!(lab.docker(&["port", name]).good().trim(), "80/tcp -> 0.0.0.0:18090");
    for service_ps in [
        lab.docker(&["service", "ps", "--format", "{{.Ports}}", "web"]).good(),
        lab.skep(&["service", "ps", "--format", "{{.Ports}}", "web"]).good(),
    ] {
        assert_eq!(service_ps.trim(), "*:18090->80/tcp");
    }
    // One that has ended is still found on its network; its node's port is free.
    lab.docker(&["service", "scale", "--detach", "web=0"]).good();
    until("it has ended", PATIENCE, || {
        let left = found(lab, &["network=shop", "status=running"]);
        if left.is_empty() { Ok(()) } else { Err(format!("{left:?}")) }
    });
    lab.docker(&["service", "rm", "web"]).good();
    lab.docker(&["rm", "--force", "--volumes", "site"]).good();
}

/// What an update leaves out changes nothing, or is refused.
fn updates_say_what_they_mean(lab: &Lab) {
    let node = object(lab, "/nodes/self");
    let (id, version) = (node["ID"].as_str().expect("a text"), &node["Version"]["Index"]);
    let target = format!("/nodes/{id}/update?version={version}");
    let answer = lab.send(1, ("POST", &target), r#"{"Role":"manager"}"#);
    assert!(answer.status == 400 && answer.body.contains("invalid Availability"), "{answer:?}");
    let swarm = object(lab, "/swarm");
    let version = &swarm["Version"]["Index"];
    let target = format!("/swarm/update?version={version}");
    let change = r#"{"Orchestration":{"TaskHistoryRetentionLimit":3}}"#;
    assert_eq!(lab.send(1, ("POST", &target), change).status, 200);
    let after = object(lab, "/swarm");
    let mut wanted = swarm["Spec"].clone();
    wanted["Orchestration"]["TaskHistoryRetentionLimit"] = 3.into();
    assert_eq!(after["Spec"], wanted);
    let ghost = lab.docker(&["node", "ps", "ghost"]).bad();
    assert!(ghost.contains("ghost"), "{ghost}");
    let tasks = lab.ask(1, "GET", "/tasks?filters=%7B%22service%22%3A%5B%22ghost%22%5D%7D");
    assert_eq!(tasks.status, 404, "{tasks:?}");
}
