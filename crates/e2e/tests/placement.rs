//! Where tasks run, with the docker CLI: what nodes have for them, the services beside them, and the
//! platforms of images.

use e2e::{Lab, until};
use std::collections::BTreeSet;
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(90);

#[test]
fn tasks_run_where_they_are_to() {
    let lab = Lab::up(3, &["busybox"]);
    tasks_are_given_what_nodes_have(&lab);
    services_are_together_or_apart(&lab);
    an_image_of_another_platform_waits_and_says_why(&lab);
    let left = lab.down();
    assert!(left.is_empty(), "{left:#?}");
}

fn create(lab: &Lab, name: &str, options: &[&str]) {
    let head = ["service", "create", "--detach", "--name", name, "--stop-grace-period", "1s"];
    let image = ["busybox:latest", "sleep", "1000000"];
    lab.docker(&[&head[..], options, &image].concat()).good();
}

fn waits(lab: &Lab, service: &str, words: &str) {
    until(words, PATIENCE, || {
        let shown = lab.docker(&["service", "ps", "--no-trunc", service]).good();
        if shown.contains(words) { Ok(()) } else { Err(shown) }
    });
}

fn tasks_are_given_what_nodes_have(lab: &Lab) {
    let start = |resources: &[&str]| {
        let options = resources.iter().flat_map(|it| ["--node-generic-resource", it]);
        let words: Vec<&str> = ["start", "node-3", "--"].into_iter().chain(options).collect();
        lab.lab(&words)
    };
    lab.lab(&["kill", "node-3"]).good();
    let refused = start(&["gpu=a", "gpu=1"]).bad();
    assert!(refused.contains("node-3"), "{refused}");
    start(&["gpu=UUID1", "gpu=UUID2", "seat=4"]).good();
    let format = "{{json .Description.Resources.GenericResources}}";
    until("the node says what it has", PATIENCE, || {
        let shown = lab.docker(&["node", "inspect", "--format", format, "node-3"]).good();
        let is_said = ["UUID1", "UUID2", r#""Kind":"seat","Value":4"#];
        if is_said.iter().all(|it| shown.contains(it)) { Ok(()) } else { Err(shown) }
    });
    let info = lab.docker_at(3, &["info", "--format", "{{json .GenericResources}}"]).good();
    assert!(info.contains("UUID2"), "{info}");
    create(lab, "learn", &["--replicas", "3", "--generic-resource", "gpu=1"]);
    lab.converged("learn", "2/3", PATIENCE);
    waits(lab, "learn", "node-3: 0 of 2 gpu free; node-1: has no gpu; node-2: has no gpu");
    let containers = lab.containers(3, "learn");
    let given: BTreeSet<String> = containers
        .iter()
        .map(|container| {
            assert_eq!(container.0, 3);
            lab.inside(container, "echo $DOCKER_RESOURCE_GPU").good().trim().to_owned()
        })
        .collect();
    assert_eq!(given.iter().map(String::as_str).collect::<Vec<_>>(), ["UUID1", "UUID2"]);
    let shown = lab.tasks("learn").into_iter().map(|task| {
        let format = "{{range .GenericResources}}{{.NamedResourceSpec.Value}}{{end}}";
        lab.docker(&["inspect", "--type", "task", "--format", format, &task])
            .good()
            .trim()
            .to_owned()
    });
    let shown: BTreeSet<String> = shown.filter(|name| !name.is_empty()).collect();
    assert_eq!(shown, given);
    // One that has ended gives back what it had.
    lab.docker(&["service", "scale", "--detach", "learn=2"]).good();
    lab.converged("learn", "2/2", PATIENCE);
    let update = ["service", "update", "--detach", "--generic-resource-rm", "gpu"];
    lab.docker(&[&update[..], &["--generic-resource-add", "seat=3", "learn"]].concat()).good();
    lab.converged("learn", "1/2", PATIENCE);
    waits(lab, "learn", "node-3: 1 of 4 seat free");
    lab.docker(&["service", "rm", "learn"]).good();
    // A node that comes back without one of them gives up the task that has it.
    create(lab, "both", &["--replicas", "2", "--generic-resource", "gpu=1"]);
    lab.converged("both", "2/2", PATIENCE);
    lab.lab(&["kill", "node-3"]).good();
    start(&["gpu=UUID2"]).good();
    lab.converged("both", "1/2", PATIENCE);
    waits(lab, "both", "node-3: 0 of 1 gpu free");
    until("the one that has it no more has ended", PATIENCE, || {
        let told = lab.containers(3, "both").into_iter().map(|container| {
            lab.inside(&container, "echo $DOCKER_RESOURCE_GPU").out.trim().to_owned()
        });
        let told: Vec<String> = told.collect();
        if told == ["UUID2"] { Ok(()) } else { Err(told.join(", ")) }
    });
    lab.docker(&["service", "rm", "both"]).good();
}

fn services_are_together_or_apart(lab: &Lab) {
    create(lab, "web", &["--constraint", "node.hostname==node-2"]);
    create(lab, "near", &["--replicas", "2", "--constraint", "service==web"]);
    create(lab, "apart", &["--replicas", "2", "--constraint", "service!=web"]);
    create(lab, "lost", &["--constraint", "service==nobody"]);
    for (service, replicas) in [("web", "1/1"), ("near", "2/2"), ("apart", "2/2")] {
        lab.converged(service, replicas, PATIENCE);
    }
    assert!(lab.containers(3, "near").iter().all(|(node, _)| *node == 2));
    assert!(lab.containers(3, "apart").iter().all(|(node, _)| *node != 2));
    waits(lab, "lost", "node-1: runs no task of nobody");
    create(lab, "first", &["--constraint", "service==second"]);
    create(lab, "second", &["--constraint", "service==first"]);
    lab.converged("first", "1/1", PATIENCE);
    lab.converged("second", "1/1", PATIENCE);
    assert_eq!(lab.containers(3, "first")[0].0, lab.containers(3, "second")[0].0);
    let wrong = ["--constraint", "service==-x", "busybox:latest"];
    let refused = lab.docker(&[&["service", "create", "--detach"][..], &wrong].concat()).bad();
    assert!(refused.contains("'-x' names no service"), "{refused}");
    lab.docker(&["service", "rm", "web", "near", "apart", "lost", "first", "second"]).good();
}

/// What the docker CLI says of an image's platforms when it asked a registry.
fn an_image_of_another_platform_waits_and_says_why(lab: &Lab) {
    let spec = serde_json::json!({
        "Name": "elsewhere",
        "TaskTemplate": {
            "ContainerSpec": { "Image": "busybox:latest", "Command": ["sleep", "1000000"] },
            "Placement": { "Platforms": [{ "Architecture": "s390x", "OS": "linux" }] },
        },
    });
    let made = lab.send(1, ("POST", "/services/create"), &spec.to_string());
    assert_eq!(made.status, 201, "{made:?}");
    waits(lab, "elsewhere", "unsupported platform on 3 nodes");
    // An update by the CLI keeps what it does not know of, and a node of the platform is all it lacks.
    lab.docker(&["service", "update", "--detach", "--label-add", "a=b", "elsewhere"]).good();
    waits(lab, "elsewhere", "unsupported platform on 3 nodes");
    lab.docker(&["service", "rm", "elsewhere"]).good();
}
