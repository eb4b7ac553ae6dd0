//! What would do harm by being forgotten: filters of a prune, a link to remove, an authority.

use e2e::Lab;
use serde_json::Value;
use std::time::Duration;

#[test]
fn nothing_that_is_asked_for_is_forgotten() {
    let lab = Lab::up(1, &["busybox"]);
    prunes_remove_what_they_name(&lab);
    stats_are_of_now(&lab);
    a_cluster_has_what_no_flag_sets(&lab);
    it_is_told_who_did_what(&lab);
    clients_of_today_are_answered(&lab);
    for (external, why) in [
        ("protocol=cfssl,url=https://ca:8888,profile=x", "CAConfig.ExternalCAs.Options.profile=x"),
        ("protocol=cfssl,url=http://ca:8888", "it must begin with https://"),
    ] {
        let refused = lab.docker(&["swarm", "update", "--external-ca", external]).bad();
        assert!(refused.contains(why), "{refused}");
    }
    let left = lab.down();
    assert!(left.is_empty(), "{left:#?}");
}

fn prunes_remove_what_they_name(lab: &Lab) {
    let listed = || lab.docker(&["ps", "--all", "--format", "{{.Names}}"]).good();
    lab.docker(&["create", "--name", "kept", "--label", "keep", "busybox:latest"]).good();
    lab.docker(&["create", "--name", "gone", "busybox:latest"]).good();
    let prune = |filter: &str| lab.docker(&["container", "prune", "--force", "--filter", filter]);
    prune("until=24h").good();
    assert!(listed().contains("kept") && listed().contains("gone"));
    prune("label!=keep").good();
    assert!(listed().contains("kept") && !listed().contains("gone"));
    let odd = prune("colour=red").bad();
    assert!(odd.contains("invalid filter 'colour'"), "{odd}");
    let link = lab.docker(&["rm", "--link", "kept"]).bad();
    assert!(link.contains("not supported by skep yet: link=1"), "{link}");
    assert!(listed().contains("kept"));
    lab.docker(&["rm", "kept"]).good();
}

fn stats_are_of_now(lab: &Lab) {
    let forever = "while :; do :; done";
    lab.docker(&["run", "--detach", "--name", "busy", "busybox:latest", "sh", "-c", forever])
        .good();
    let used = lab.docker(&["stats", "--no-stream", "--format", "{{.CPUPerc}}", "busy"]).good();
    let used: f64 = used.trim().trim_end_matches('%').parse().expect("a share of the CPU");
    assert!(used > 1.0, "{used} %");
    lab.docker(&["rm", "--force", "busy"]).good();
}

/// Labels, and where the output of tasks goes: the docker CLI has no flags for them.
fn a_cluster_has_what_no_flag_sets(lab: &Lab) {
    let swarm = || serde_json::from_str::<Value>(&lab.ask(1, "GET", "/swarm").body).expect("JSON");
    let mut spec = swarm()["Spec"].clone();
    spec["Labels"]["site"] = "north".into();
    let log = serde_json::json!({ "Name": "local", "Options": { "max-size": "70k" } });
    spec["TaskDefaults"]["LogDriver"] = log.clone();
    let version = swarm()["Version"]["Index"].clone();
    let target = format!("/swarm/update?version={version}");
    let answer = lab.send(1, ("POST", &target), &spec.to_string());
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(swarm()["Spec"]["Labels"]["site"], "north");
    assert_eq!(swarm()["Spec"]["TaskDefaults"]["LogDriver"], log);
    let wrong = spec.to_string().replace("70k", "much");
    let answer = lab.send(1, ("POST", &target), &wrong);
    assert_eq!(answer.status, 400, "{answer:?}");

    let create = |name: &str, more: &[&str]| {
        let service = ["service", "create", "--detach", "--name", name];
        let image = ["busybox:latest", "sleep", "1000"];
        lab.docker(&[&service, more, &image].concat()).good();
        lab.converged(name, "1/1", Duration::from_mins(1));
        let (_, container) = lab.containers(1, name).remove(0);
        let config = ["inspect", "--format", "{{json .HostConfig.LogConfig}}", &container];
        lab.docker(&config).good()
    };
    let config = create("silent", &[]);
    assert!(config.contains(r#""Type":"local""#) && config.contains("70k"), "{config}");
    let config = create("outspoken", &["--log-driver", "json-file"]);
    assert!(config.contains(r#""Type":"json-file""#) && !config.contains("70k"), "{config}");
    lab.docker(&["service", "rm", "silent", "outspoken"]).good();
}

fn it_is_told_who_did_what(lab: &Lab) {
    lab.docker(&["service", "create", "--detach", "--name", "told", "busybox:latest"]).good();
    lab.docker(&["service", "rm", "told"]).good();
    lab.docker(&["service", "rm", "nobody"]).bad();
    // The docker CLI cuts the moment to a second: the one after this has all.
    let events = ["events", "--since", "0", "--until=-1s", "--format"];
    let form = "{{.Action}} {{.Actor.ID}} {{json .Actor.Attributes}}";
    let audit = [&events[..], &[form, "--filter", "type=audit"]].concat();
    let told = lab.docker(&audit).good();
    let has = |action: &str, outcome: &str| {
        let (action, outcome) = (action.to_owned(), format!(r#""outcome":"{outcome}""#));
        let is_it = |line: &&str| {
            line.starts_with(&action) && line.contains(&outcome) && line.contains("uid 0, pid ")
        };
        assert!(told.lines().any(|line| is_it(&line)), "no {action} {outcome}:\n{told}");
    };
    has("POST /services/create", "201");
    has("DELETE /services/", "200");
    has("DELETE /services/nobody", "404");
    // No tool expects them among the events of all.
    let all = lab.docker(&[&events[..], &["{{.Type}}"]].concat()).good();
    assert!(!all.contains("audit"), "{all}");
}

/// What the docker CLI sends from 29.0 on, and statuses that scripts tell apart.
fn clients_of_today_are_answered(lab: &Lab) {
    let images = lab.ask(1, "GET", "/v1.50/images/json?manifests=1");
    assert!(images.status == 200 && images.body.contains("busybox:latest"), "{images:?}");
    let spec = |name: &str| {
        serde_json::json!({
            "Name": name,
            "TaskTemplate": { "ContainerSpec": { "Image": "busybox:latest" } },
            "Mode": { "Replicated": { "Replicas": 0 } },
            "EndpointSpec": { "Ports": [{ "Protocol": "TCP", "TargetPort": 80, "PublishedPort": 8099 }] },
        })
        .to_string()
    };
    let create = |name: &str| lab.send(1, ("POST", "/services/create"), &spec(name));
    assert_eq!(create("today").status, 201);
    let again = create("today");
    assert!(again.status == 409 && again.body.contains("already exists"), "{again:?}");
    let port = create("other");
    assert!(port.status == 400 && port.body.contains("'8099' is already in use"), "{port:?}");
    let update = |version: u64, rollback: &str| {
        let target = format!(
            "/services/today/update?registryAuthFrom=spec&rollback={rollback}&version={version}"
        );
        lab.send(1, ("POST", &target), &spec("today"))
    };
    let version = || {
        let service = lab.ask(1, "GET", "/services/today").body;
        let service: Value = serde_json::from_str(&service).expect("JSON");
        service["Version"]["Index"].as_u64().expect("a number")
    };
    let read = version();
    assert_eq!(update(read, "none").status, 200);
    let late = update(read, "none");
    assert!(late.status == 500 && late.body.contains("update out of sequence"), "{late:?}");
    assert_eq!(update(version(), "next").status, 400);
    lab.docker(&["service", "rm", "today"]).good();
}
