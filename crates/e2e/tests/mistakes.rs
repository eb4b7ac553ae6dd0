//! Wrong inputs are refused with Docker's status, and by a message that has what is wrong in it. The table
//! `flags/mistakes.txt` says which, and how to read it.

use e2e::{Answer, Lab};
use serde_json::{Value, json};

#[test]
fn what_is_wrong_is_named() {
    let table = include_str!("../flags/mistakes.txt");
    let lines: Vec<&str> =
        table.lines().filter(|line| !line.is_empty() && !line.starts_with('#')).collect();
    let lab = Lab::up(1, &["busybox"]);
    arrange(&lab);
    let before = left(&lab);
    let wrong: Vec<String> = lines.iter().filter_map(|line| mistake(&lab, line)).collect();
    assert!(
        wrong.is_empty(),
        "{} of {} are wrong:\n{}",
        wrong.len(),
        lines.len(),
        wrong.join("\n")
    );
    assert!(lines.len() >= 190, "{} lines", lines.len());
    assert_eq!(left(&lab), before, "something was made or changed");
    lab.docker(&["service", "rm", "there"]).good();
    lab.docker(&["network", "rm", "net"]).good();
    let left = lab.down();
    assert!(left.is_empty(), "{left:#?}");
}

/// What lines name as what is there.
fn arrange(lab: &Lab) {
    lab.docker(&["network", "create", "--driver", "overlay", "net"]).good();
    let there = ["service", "create", "--detach", "--name", "there", "--replicas", "0"];
    lab.docker(&[&there[..], &["busybox:latest"]].concat()).good();
    lab.docker_told(1, &["secret", "create", "kept", "-"], "x").good();
    lab.docker_told(1, &["config", "create", "kept", "-"], "x").good();
}

/// All that lines could have changed.
fn left(lab: &Lab) -> Vec<String> {
    let kinds = ["/services", "/secrets", "/configs", "/networks", "/volumes", "/nodes", "/swarm"];
    kinds.map(|kind| steady(&lab.ask(1, "GET", kind).body)).into()
}

/// An answer without what changes by itself.
fn steady(body: &str) -> String {
    let mut answer: Value = serde_json::from_str(body).expect("JSON");
    let items = answer.as_array_mut().map_or(&mut [][..], Vec::as_mut_slice);
    for item in items {
        if item["Status"]["State"].is_string() {
            item["Status"] = Value::Null;
            (item["Version"], item["UpdatedAt"]) = (Value::Null, Value::Null);
        }
    }
    answer.to_string()
}

/// Says what is not as the line has it.
fn mistake(lab: &Lab, line: &str) -> Option<String> {
    let (input, expected) = line.split_once(" !! ").expect("INPUT !! STATUS WORDS");
    let (kind, input) = input.split_once(' ').expect("KIND …");
    if kind == "stack" {
        let file = format!("version: '3.8'\n{}\n", input.replace("\\n", "\n").replace("\\t", "\t"));
        let deploy = ["stack", "deploy", "--compose-file", "-", "wrong"];
        let shown = lab.skep_told(1, &deploy, &file);
        let said = shown.bad();
        return (!said.contains(expected)).then(|| format!("{line}: {said}"));
    }
    let (status, words) = expected.split_once(' ').expect("STATUS WORDS");
    let answer = if kind == "ask" {
        let (method, target) = input.split_once(' ').expect("METHOD TARGET");
        let signs = [('"', "%22"), ('[', "%5B"), (']', "%5D"), ('{', "%7B"), ('}', "%7D")];
        let target =
            signs.iter().fold(target.to_owned(), |it, (sign, code)| it.replace(*sign, code));
        lab.ask(1, method, &target)
    } else {
        let (pointer, value) = input.split_once(" = ").expect("POINTER = JSON");
        send(lab, kind, (pointer, &value_of(value)))
    };
    let is_told = answer.status.to_string() == status && message(&answer).contains(words);
    (!is_told).then(|| format!("{line}: {} {}", answer.status, answer.body.trim()))
}

fn message(answer: &Answer) -> String {
    let body: Value = serde_json::from_str(&answer.body).unwrap_or_default();
    body["message"].as_str().unwrap_or_default().to_owned()
}

/// `@N` stands for so many bytes as base64.
fn value_of(text: &str) -> Value {
    match text.strip_prefix('@').and_then(|count| count.parse::<usize>().ok()) {
        Some(count) => "AAAA".repeat(count.div_ceil(3)).into(),
        None => serde_json::from_str(text).expect("JSON"),
    }
}

/// Sends what is right but for one value.
fn send(lab: &Lab, kind: &str, (pointer, value): (&str, &Value)) -> Answer {
    let (target, mut body) = whole(lab, kind);
    set(&mut body, pointer, value);
    lab.send(1, ("POST", &target), &body.to_string())
}

/// Where a kind of objects is written, and one that is right.
fn whole(lab: &Lab, kind: &str) -> (String, Value) {
    let container = json!({ "ContainerSpec": { "Image": "busybox:latest" } });
    let create = |path: &str, body: Value| (path.to_owned(), body);
    match kind {
        "service" => create(
            "/services/create",
            json!({ "Name": "new", "TaskTemplate": container,
                    "Mode": { "Replicated": { "Replicas": 0 } } }),
        ),
        "secret" => create("/secrets/create", json!({ "Name": "new", "Data": "eA==" })),
        "config" => create("/configs/create", json!({ "Name": "new", "Data": "eA==" })),
        "network" => create("/networks/create", json!({ "Name": "new", "Driver": "overlay" })),
        "volume" => create("/volumes/create", json!({ "Name": "new" })),
        "update" => present(lab, "/services/there"),
        "swarm" => present(lab, "/swarm"),
        "node" => present(lab, "/nodes/node-1"),
        other => panic!("unknown kind: {other}"),
    }
}

/// What is there, as it is written again.
fn present(lab: &Lab, path: &str) -> (String, Value) {
    let is: Value = serde_json::from_str(&lab.ask(1, "GET", path).body).expect("JSON");
    (format!("{path}/update?version={}", is["Version"]["Index"]), is["Spec"].clone())
}

/// Sets a value, and makes what is above it.
fn set(body: &mut Value, pointer: &str, value: &Value) {
    let names = pointer.trim_start_matches('/').split('/');
    let place = names.fold(body, |place, name| &mut place[name]);
    *place = value.clone();
}
