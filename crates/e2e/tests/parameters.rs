//! Every parameter of a query and every filter that is called honoured changes the answer. The
//! table `flags/parameters.txt` says how; `docs/api.md` says which there are.

use e2e::{Answer, Lab, Shown, images, until};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::path::Path;
use std::time::Duration;

const PATIENCE: Duration = Duration::from_mins(1);

#[test]
fn every_parameter_that_is_honoured_changes_the_answer() {
    let table = include_str!("../flags/parameters.txt");
    let lines: Vec<&str> = table.lines().filter(|line| !line.starts_with('#')).collect();
    let mut wrong = gaps(&lines);
    let lab = Lab::up(2, &["busybox"]);
    let names = arrange(&lab);
    another_platform_is_refused(&lab);
    what_goes_on_is_not_ended(&lab);
    statistics_are_asked_for_in_three_ways(&lab);
    a_container_ends_as_it_is_told_to(&lab);
    tokens_are_rotated_one_by_one(&lab);
    labels_change_at_the_version_that_was_read(&lab);
    let words = |line: &str| {
        let filled = names
            .iter()
            .fold(line.to_owned(), |line, (name, value)| line.replace(name.as_str(), value));
        filled.split(' ').map(str::to_owned).collect::<Vec<_>>()
    };
    for line in lines {
        let words = words(line);
        if let [method, path, base, sign, with] = &words[..]
            && let Some(told) = difference(&lab, &[method, path, base, sign, with])
        {
            wrong.push(format!("{line}: {told}"));
        }
    }
    assert!(wrong.is_empty(), "{} are wrong:\n{}", wrong.len(), wrong.join("\n"));
}

/// What the page calls honoured and no line drives, and what a line drives and the page does not
/// know.
fn gaps(lines: &[&str]) -> Vec<String> {
    let honoured = honoured(include_str!("../../../docs/api.md"));
    let mut driven = BTreeSet::new();
    let mut wrong = Vec::new();
    for line in lines {
        let words: Vec<&str> = line.split(' ').collect();
        let (parameters, test) = match words[..] {
            [_, _, parameters, "@", file, function] => (parameters, Some((file, function))),
            [_, _, _, _, parameters] => (parameters, None),
            _ => panic!("not a line: {line}"),
        };
        if let Some((file, function)) = test {
            let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(file);
            let source = std::fs::read_to_string(source).unwrap_or_default();
            if !source.contains(&format!("fn {function}(")) {
                wrong.push(format!("{line}: there is no such test"));
            }
        }
        let fitting = honoured.keys().filter(|operation| is_of(operation, words[0], words[1]));
        // A word of the API is no name.
        let operation = fitting.max_by_key(|operation| !operation.contains('{'));
        let Some(operation) = operation else {
            wrong.push(format!("{line}: the page has no such operation with parameters"));
            continue;
        };
        for parameter in parameters.split('&') {
            let (name, value) = parameter.split_once('=').unwrap_or((parameter, ""));
            let name = match name {
                "filters" => format!("filters={}", value.split(':').next().unwrap_or_default()),
                name => name.to_owned(),
            };
            if !honoured[operation].contains(&name) {
                wrong.push(format!("{line}: the page does not call {name} honoured"));
            }
            driven.insert((operation.clone(), name));
        }
    }
    for (operation, names) in &honoured {
        let left =
            names.iter().filter(|name| !driven.contains(&(operation.clone(), (*name).clone())));
        wrong.extend(left.map(|name| format!("{operation} ?{name}: no line")));
    }
    wrong
}

/// Names of parameters by operation; filters as `filters=NAME`.
fn honoured(page: &str) -> BTreeMap<String, BTreeSet<String>> {
    let mut all: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    let mut operation = "";
    for line in page.lines() {
        operation = line.strip_prefix("### ").unwrap_or(operation);
        let Some(row) = line.strip_prefix("| honoured |") else { continue };
        let names = row.split('`').filter_map(|word| word.strip_prefix('?'));
        for name in names.filter(|name| *name != "filters") {
            all.entry(operation.to_owned()).or_default().insert(name.to_owned());
        }
    }
    all
}

/// Says whether a request is one of an operation, in which `{…}` stands for any word.
fn is_of(operation: &str, method: &str, path: &str) -> bool {
    let (wanted, pattern) = operation.split_once(' ').unwrap_or_default();
    let fits = |(part, word): (&str, &str)| part == word || part.starts_with('{');
    wanted == method
        && pattern.split('/').count() == path.split('/').count()
        && pattern.split('/').zip(path.split('/')).all(fits)
}

/// Asks without and with a parameter; returns what is not as the sign says.
fn difference(lab: &Lab, line: &[&str; 5]) -> Option<String> {
    let [method, path, base, sign, with] = *line;
    let base = if base == "-" { "" } else { base };
    let without = lab.ask(1, method, &target(path, &[base]));
    let taken = |answer: &Answer| (200..300).contains(&answer.status);
    if (sign == "^") == taken(&without) {
        return Some(format!("without: {} {}", without.status, without.body));
    }
    let with = lab.ask(1, method, &target(path, &[base, with]));
    if (sign == "!") == taken(&with) {
        return Some(format!("with: {} {}", with.status, with.body));
    }
    let (first, second) = (items(&without.body), items(&with.body));
    let (few, many) = (first.len(), second.len());
    let part = second.keys().all(|key| first.contains_key(key));
    let holds = match sign {
        "<" => part && 0 < many && many < few,
        ">" => few < many,
        "=" => part && few == many,
        "0" => 0 < few && many == 0,
        "+" => few == many && first.iter().zip(&second).all(|(one, other)| one.1 < other.1),
        "/" => without.body != with.body,
        _ => true,
    };
    let short = |answer: &Answer| answer.body.chars().take(300).collect::<String>();
    (!holds).then(|| format!("{few} {}\n  with: {many} {}", short(&without), short(&with)))
}

/// A path and its query; of several filters one object is made.
fn target(path: &str, queries: &[&str]) -> String {
    let mut filters = serde_json::Map::new();
    let mut all = Vec::new();
    for parameter in queries.iter().flat_map(|query| query.split('&')).filter(|it| !it.is_empty()) {
        match parameter.strip_prefix("filters=").and_then(|filter| filter.split_once(':')) {
            Some((name, value)) => drop(filters.insert(name.to_owned(), Value::from(vec![value]))),
            None => all.push(parameter.to_owned()),
        }
    }
    if !filters.is_empty() {
        let text = Value::Object(filters).to_string();
        let encoded = text.bytes().fold(String::new(), |mut encoded, byte| {
            write!(encoded, "%{byte:02X}").expect("writing to a string");
            encoded
        });
        all.push(format!("filters={encoded}"));
    }
    if all.is_empty() { path.to_owned() } else { format!("{path}?{}", all.join("&")) }
}

/// The objects of an answer by what they are, with the number of their fields.
fn items(body: &str) -> BTreeMap<String, usize> {
    let lines = serde_json::Deserializer::from_str(body).into_iter::<Value>();
    let mut objects: Vec<Value> = lines.map_while(Result::ok).collect();
    if let [Value::Array(list)] = &mut objects[..] {
        objects = std::mem::take(list);
    } else if let [one] = &mut objects[..]
        && let Some(Value::Array(list)) = one.get_mut("Volumes")
    {
        objects = std::mem::take(list);
    }
    let key = |object: &Value| {
        let names = ["timeNano", "Id", "ID", "Name"];
        names.iter().filter_map(|name| object.get(name)).map(Value::to_string).collect()
    };
    objects.iter().map(|it| (key(it), it.as_object().map_or(0, serde_json::Map::len))).collect()
}

#[expect(clippy::disallowed_methods, reason = "tests measure real time")]
fn seconds_now() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.expect("it is past 1970").as_secs()
}

/// Makes what the table names; returns the words that are known only now.
fn arrange(lab: &Lab) -> Vec<(String, String)> {
    let docker = |line: &str| lab.docker(&line.split(' ').collect::<Vec<_>>()).good();
    docker("volume create --label mark=1 spare");
    docker("tag busybox:latest second:latest");
    let healthy = "--health-cmd true --health-interval 1s";
    let ports = "--expose 9000/udp --publish 9001:80";
    let seen = format!("run -d --name seen --label mark=1 -v kept:/data {ports} {healthy}");
    let seen = format!("{seen} busybox:latest");
    let seen = docker(&format!("{seen} sleep 1000"));
    until("it is healthy", PATIENCE, || {
        let shown = docker("inspect --format {{.State.Health.Status}} seen");
        if shown.trim() == "healthy" { Ok(()) } else { Err(shown) }
    });
    let script = "echo one; echo two; echo three >&2; exit 3";
    let run = ["run", "--name", "other", "--network", "none", "--log-opt", "tag=t"];
    let ended = lab.docker(&[&run[..], &["second:latest", "sh", "-c", script]].concat());
    assert!(!ended.ok && ended.out == "one\ntwo\n", "{ended:?}");
    an_import_makes_the_image_that_was_asked_for(lab);
    docker("create --name imported third:latest");
    docker("node update --label-add mark=1 node-2");
    docker("network create -d overlay --label mark=1 idle");
    let network = docker("network create -d overlay busy");
    for kind in ["secret", "config"] {
        let label: &[&str] = &[kind, "create", "--label", "mark=1"];
        for (label, name) in [(label, "one"), (&label[..2], "two")] {
            lab.docker_told(1, &[label, &[name, "-"]].concat(), "sesame").good();
        }
    }
    let secret = docker("secret inspect --format {{.ID}} one");
    let config = docker("config inspect --format {{.ID}} one");
    let script = "trap 'exit 0' TERM; echo one; echo two; echo three >&2; sleep 1000 & wait";
    let create = ["service", "create", "--detach", "--no-resolve-image", "--name", "web"];
    let options = ["--network", "busy", "--replicas", "2", "--label", "mark=1"];
    let placed = ["--constraint", "node.role==manager"];
    let program = ["busybox:latest", "sh", "-c", script];
    let service = lab.docker(&[&create[..], &options, &placed, &program].concat()).good();
    docker(
        "service create --detach --no-resolve-image --name all --mode global busybox:latest sleep 1000",
    );
    lab.converged("web", "2/2", PATIENCE);
    lab.converged("all", "2/2", PATIENCE);
    docker("service update --detach --force web");
    // Its old tasks are still listed.
    until("the update has ended", PATIENCE, || {
        // It has no state before the update has begun.
        let shown =
            lab.docker(&["service", "inspect", "--format", "{{.UpdateStatus.State}}", "web"]);
        if shown.out.trim() == "completed" { Ok(()) } else { Err(format!("{shown:?}")) }
    });
    lab.converged("web", "2/2", PATIENCE);
    let task = docker("service ps --quiet --no-trunc --filter desired-state=running web");
    let node = docker("node inspect --format {{.ID}} node-2");
    let seconds = seconds_now();
    let first = |text: &str| text.lines().next().unwrap_or_default().to_owned();
    [
        ("@seen", first(&seen)),
        ("@secret", first(&secret)),
        ("@config", first(&config)),
        ("@network", first(&network)),
        ("@service", first(&service)),
        ("@task", first(&task)),
        ("@node", first(&node)),
        ("@now", seconds.to_string()),
        ("@tomorrow", (seconds + 86_400).to_string()),
    ]
    .map(|(name, value)| (name.to_owned(), value))
    .into()
}

fn an_import_makes_the_image_that_was_asked_for(lab: &Lab) {
    let tar = images().join("busybox.tar").display().to_string();
    let changes = ["--change", "LABEL mark=1", "--change", "CMD [\"a\"]", "--message", "by hand"];
    let import = |rest: &[&str]| lab.docker(&[&["import"], &changes[..], &[&tar], rest].concat());
    import(&["third:1"]).good();
    let format = "{{json .Config.Cmd}} {{.Config.Labels.mark}} {{.Comment}}";
    let shown = lab.docker(&["image", "inspect", "--format", format, "third:1"]).good();
    assert_eq!(shown.trim(), r#"["a"] 1 by hand"#);
    lab.docker(&["tag", "third:1", "third:latest"]).good();
    // One without a name.
    lab.docker(&["import", &tar]).good();
    let odd = lab.docker(&["import", "--change", "RUN true", &tar]).bad();
    assert!(odd.contains("RUN is not a valid change command"), "{odd}");
    // An image with more than one name goes by its id only when it is forced.
    let id = lab.docker(&["image", "inspect", "--format", "{{.Id}}", "third:1"]).good();
    lab.docker(&["rmi", id.trim()]).bad();
    lab.docker(&["rmi", "--force", id.trim()]).good();
    import(&["third:latest"]).good();
}

/// Also where the client still sends what it wants to have loaded.
fn another_platform_is_refused(lab: &Lab) {
    let tar = images().join("busybox.tar").display().to_string();
    let other = ["--platform", "linux/arm64"];
    let pull = ["pull", "127.0.0.1:9/none"];
    for line in [&["load", "--input", &tar][..], &["create", "busybox:latest"], &pull] {
        let shown = lab.docker(&[&line[..1], &other, &line[1..]].concat()).bad();
        assert!(shown.contains("not supported by skep yet: platform="), "{shown}");
    }
}

/// Without an end, an answer goes on: nothing more comes, and the connection stays.
fn what_goes_on_is_not_ended(lab: &Lab) {
    let ends = |path: &str| lab.ask_for(1, "GET", path, Duration::from_millis(500)).is_some();
    let task = lab.docker(&["service", "ps", "--quiet", "--no-trunc", "web"]).good();
    let task = task.lines().next().unwrap_or_default();
    for path in [
        "/containers/seen/logs?stdout=1",
        "/services/web/logs?stdout=1",
        &format!("/tasks/{task}/logs?stdout=1"),
    ] {
        assert!(!ends(&format!("{path}&follow=1")), "{path}");
        assert_eq!(lab.ask(1, "GET", path).status, 200);
    }
    assert!(!ends("/events"));
}

fn statistics_are_asked_for_in_three_ways(lab: &Lab) {
    let path = "/containers/seen/stats";
    assert!(lab.ask_for(1, "GET", path, Duration::from_millis(500)).is_none());
    let before = |query: &str| {
        let answer = lab.ask(1, "GET", &format!("{path}?{query}"));
        let sample: Value = serde_json::from_str(&answer.body).expect("one sample");
        sample["precpu_stats"]["cpu_usage"]["total_usage"].as_u64().unwrap_or_default()
    };
    assert!(0 < before("stream=0"));
    assert_eq!(before("stream=0&one-shot=1"), 0);
}

/// A process that no signal but KILL ends, and that would be given an hour.
fn a_container_ends_as_it_is_told_to(lab: &Lab) {
    let run = ["run", "--detach", "--stop-timeout", "3600", "--volume", "/own", "--name", "firm"];
    let sleep = ["busybox:latest", "sleep", "100000"];
    lab.docker(&[&run[..], &sleep].concat()).good();
    let code = || lab.docker(&["inspect", "--format", "{{.State.ExitCode}}", "firm"]).good();
    let started = || lab.docker(&["inspect", "--format", "{{.State.StartedAt}}", "firm"]).good();
    for end in [&["stop", "--time", "1", "firm"][..], &["stop", "--signal", "KILL", "firm"]] {
        lab.docker(end).good();
        assert_eq!(code().trim(), "137");
        lab.docker(&["start", "firm"]).good();
    }
    let restarts =
        [&["restart", "--time", "1", "firm"][..], &["restart", "--signal", "KILL", "firm"]];
    for end in restarts {
        let before = started();
        lab.docker(end).good();
        assert_ne!(started(), before);
    }
    let volumes = || lab.docker(&["volume", "ls", "--quiet"]).good().lines().count();
    let before = volumes();
    lab.docker(&["rm", "--force", "--volumes", "firm"]).good();
    assert_eq!(volumes(), before - 1);
}

fn labels_change_at_the_version_that_was_read(lab: &Lab) {
    for kind in ["secrets", "configs"] {
        let path = format!("/{kind}/one");
        let shown = || -> Value {
            serde_json::from_str(&lab.ask(1, "GET", &path).body).expect("what is shown is JSON")
        };
        let read = shown()["Version"]["Index"].as_u64().expect("a version is a number");
        let change = |version: &str| {
            let target = format!("{path}/update{version}");
            lab.send(1, ("POST", &target), r#"{"Name": "one", "Labels": {"mark": "1", "b": "2"}}"#)
        };
        assert_eq!(change("").status, 400);
        assert_eq!(change("?version=x").status, 400);
        let late = change(&format!("?version={}", read - 1));
        assert!(late.body.contains("update out of sequence"), "{} {}", late.status, late.body);
        assert!(shown()["Spec"]["Labels"].get("b").is_none());
        assert_eq!(change(&format!("?version={read}")).status, 200);
        assert_eq!(shown()["Spec"]["Labels"]["b"], "2");
        assert_ne!(shown()["Version"]["Index"], read);
    }
}

fn tokens_are_rotated_one_by_one(lab: &Lab) {
    let token = |role: &str| lab.docker(&["swarm", "join-token", "--quiet", role]).good();
    for (role, other) in [("worker", "manager"), ("manager", "worker")] {
        let before = (token(role), token(other));
        let Shown { ok, err, .. } = lab.docker(&["swarm", "join-token", "--rotate", role]);
        assert!(ok, "{err}");
        assert_ne!(token(role), before.0);
        assert_eq!(token(other), before.1);
    }
}
