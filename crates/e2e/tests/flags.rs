//! Every flag that the docker CLI prints for what a user of a cluster does each day: it works, or
//! is refused by name. `flags/` has a line for each; a flag without a line fails, and so does a
//! line without a flag. A line that begins with `?` is known not to hold yet; when it does, the
//! mark has to go.

use e2e::{Lab, Shown, until};
use serde_json::Value;
use std::collections::BTreeSet;
use std::time::Duration;

/// How often an object is inspected until it shows what is wanted, and the pause between.
const LOOKS: usize = 50;
const PAUSE: Duration = Duration::from_millis(100);

/// What has to come of a flag.
enum Wanted {
    /// Inspected, the object has this value there.
    Shows(String, Value),
    /// A command inside prints this.
    Prints(String, String),
    /// The message has this in it.
    Refused(String),
    /// The daemon does not hear of it.
    Client,
}

/// A line of a table: flags of which the first is its subject.
struct Row {
    flags: Vec<String>,
    wanted: Wanted,
    /// It is known not to hold yet.
    not_yet: bool,
}

impl Row {
    fn read(line: &str) -> Self {
        let (not_yet, line) = line.strip_prefix("? ").map_or((false, line), |line| (true, line));
        let signs = [" => ", " $ ", " !! ", " ~ "];
        let sign = signs.into_iter().filter_map(|sign| Some((line.find(sign)?, sign))).min();
        let (at, sign) = sign.unwrap_or_else(|| panic!("no sign in: {line}"));
        let (flags, rest) = (&line[..at], &line[at + sign.len()..]);
        let equation = || rest.rsplit_once(" = ").or(rest.rsplit_once(" =")).expect("an equation");
        let wanted = match sign {
            " => " => {
                let (pointer, json) = equation();
                let json = serde_json::from_str(json);
                Wanted::Shows(pointer.to_owned(), json.unwrap_or_else(|_| panic!("json: {line}")))
            }
            " $ " => Wanted::Prints(equation().0.to_owned(), equation().1.trim().to_owned()),
            " !! " => Wanted::Refused(rest.to_owned()),
            _ => Wanted::Client,
        };
        let flags = flags.split(" --").enumerate();
        let flags = flags
            .map(|(number, flag)| if number == 0 { flag.into() } else { ["--", flag].concat() });
        Self { flags: flags.collect(), wanted, not_yet }
    }

    /// `--name` of the first flag.
    fn subject(&self) -> &str {
        self.flags[0].split('=').next().unwrap_or_default()
    }

    fn has(&self, flag: &str) -> bool {
        self.flags.iter().any(|have| have.split('=').next() == Some(flag))
    }
}

/// Walks a table and says what is wrong.
type Check = fn(&Lab, &[Row]) -> Vec<String>;

/// Words of a table that are known only when a lab is up.
type Names<'a> = &'a [(&'a str, String)];

/// The lines of a table.
fn rows(table: &str, names: Names<'_>) -> Vec<Row> {
    let lines = table.lines().filter(|line| !line.starts_with('#'));
    let filled = |line: &str| {
        names.iter().fold(line.to_owned(), |line, (name, value)| line.replace(name, value))
    };
    lines.map(|line| Row::read(&filled(line))).collect()
}

/// The flags that the CLI prints for a command.
fn printed(lab: &Lab, command: &[&str]) -> BTreeSet<String> {
    let help = lab.docker(&[command, &["--help"]].concat()).good();
    // `  -e, --env list   Set …`, or without the short one; what is further in goes on a text.
    let flag = |line: &str| {
        let (margin, rest) = line.split_at_checked("  -e, ".len())?;
        let known = margin.trim().is_empty() || margin.ends_with(", ");
        let name = rest.split(' ').next()?;
        (known && name.starts_with("--")).then(|| name.to_owned())
    };
    help.lines().skip_while(|line| *line != "Options:").filter_map(flag).collect()
}

/// What is wrong with a table: flags that have no line, lines that have no flag.
fn gaps(lab: &Lab, command: &[&str], rows: &[Row]) -> Vec<String> {
    let have: BTreeSet<String> = rows.iter().map(|row| row.subject().to_owned()).collect();
    let printed = printed(lab, command);
    let none = printed.difference(&have).map(|flag| format!("{command:?} {flag} has no line"));
    let gone = have.difference(&printed).map(|flag| format!("{command:?} has no {flag}"));
    none.chain(gone).collect()
}

/// Says what is wrong with a row, given what came of it.
fn judge(row: &Row, shown: &Shown, inspect: impl Fn() -> Value) -> Option<String> {
    let mut wrong = compare(row, shown, &inspect);
    // What the planner adds, such as ports, is there a moment later.
    let mut looks = if row.not_yet { 0 } else { LOOKS };
    while wrong.is_some() && looks > 0 && shown.ok && matches!(row.wanted, Wanted::Shows(..)) {
        std::thread::sleep(PAUSE);
        wrong = compare(row, shown, &inspect);
        looks -= 1;
    }
    if row.not_yet && wrong.is_none() {
        return Some(format!("{} holds now: take its mark away", row.flags.join(" ")));
    }
    wrong.filter(|_| !row.not_yet)
}

/// Compares what came of a row with what is wanted; returns the difference.
fn compare(row: &Row, shown: &Shown, inspect: impl Fn() -> Value) -> Option<String> {
    let wrong = match &row.wanted {
        Wanted::Client => return None,
        Wanted::Refused(words) if !shown.ok && shown.err.contains(words.as_str()) => return None,
        Wanted::Refused(words) if shown.ok => format!("is not refused by '{words}'"),
        Wanted::Refused(words) => format!("is refused without '{words}': {}", shown.err),
        _ if !shown.ok => format!("is refused: {}", shown.err),
        Wanted::Prints(_, output) if shown.out.trim() == output => return None,
        Wanted::Prints(_, output) => {
            format!("printed '{}', not '{output}' {}", shown.out.trim(), shown.err)
        }
        Wanted::Shows(pointer, value) => {
            let inspected = inspect();
            let seen = inspected.pointer(pointer).unwrap_or(&Value::Null);
            if seen == value {
                return None;
            }
            format!("shows {pointer} = {seen}, not {value}")
        }
    };
    Some(format!("{} {wrong}", row.flags.join(" ")))
}

/// What `docker … inspect` or `docker info` shows, without the list around it.
fn inspected(shown: Shown) -> Value {
    let text = shown.good();
    let value: Value =
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"));
    match value {
        Value::Array(list) => list.into_iter().next().unwrap_or_default(),
        other => other,
    }
}

fn words(flags: &[String]) -> Vec<&str> {
    flags.iter().map(String::as_str).collect()
}

fn service_create(lab: &Lab, rows: &[Row]) -> Vec<String> {
    let create = |row: &Row| {
        let base = ["service", "create", "--detach", "--no-resolve-image"];
        let none =
            if row.has("--mode") || row.has("--replicas") { vec![] } else { vec!["--replicas=0"] };
        lab.docker(&[&base[..], &none, &words(&row.flags), &["busybox:latest", "true"]].concat())
    };
    let check = |row: &Row| {
        let shown = create(row);
        let id = shown.out.trim().to_owned();
        let wrong = judge(row, &shown, || inspected(lab.docker(&["service", "inspect", &id])));
        if shown.ok {
            lab.docker(&["service", "rm", &id]).good();
        }
        wrong
    };
    rows.iter().filter(|row| !matches!(row.wanted, Wanted::Client)).filter_map(check).collect()
}

/// Asks again where the cluster wrote the object between the client's look and its update.
fn in_sequence(update: impl Fn() -> Shown) -> Shown {
    until("an update of what was looked at", Duration::from_secs(30), || {
        let shown = update();
        if shown.err.contains("update out of sequence") { Err(shown.err) } else { Ok(shown) }
    })
}

fn service_update(lab: &Lab, rows: &[Row]) -> Vec<String> {
    let base = ["service", "create", "--detach", "--no-resolve-image", "--replicas=0"];
    lab.docker(&[&base[..], &["--name=updated", "busybox:latest"]].concat()).good();
    let check = |row: &Row| {
        // The client takes no flag of another kind beside it.
        let asked = if row.has("--rollback") { vec![] } else { vec!["--no-resolve-image"] };
        let update = [&["service", "update", "--detach"], &asked[..], &words(&row.flags)];
        let shown = in_sequence(|| lab.docker(&[&update.concat()[..], &["updated"]].concat()));
        judge(row, &shown, || inspected(lab.docker(&["service", "inspect", "updated"])))
    };
    let wrong =
        rows.iter().filter(|row| !matches!(row.wanted, Wanted::Client)).filter_map(check).collect();
    lab.docker(&["service", "rm", "updated"]).good();
    wrong
}

fn run(lab: &Lab, rows: &[Row]) -> Vec<String> {
    let check = |row: &Row| {
        let flags = words(&row.flags);
        let image = "busybox:latest";
        match &row.wanted {
            Wanted::Client => None,
            Wanted::Prints(command, _) => {
                let shown = lab.docker(
                    &[&["run", "--rm"], &flags[..], &[image, "sh", "-c", command]].concat(),
                );
                judge(row, &shown, Value::default)
            }
            Wanted::Refused(_) => {
                let shown = lab.docker(&[&["run", "--rm"], &flags[..], &[image, "true"]].concat());
                judge(row, &shown, Value::default)
            }
            Wanted::Shows(..) => {
                let shown = lab.docker(&[&["create"], &flags[..], &[image, "true"]].concat());
                let id = shown.out.trim().to_owned();
                let wrong = judge(row, &shown, || inspected(lab.docker(&["inspect", &id])));
                lab.docker(&["rm", &id]);
                wrong
            }
        }
    };
    rows.iter().filter_map(check).collect()
}

fn network_create(lab: &Lab, rows: &[Row]) -> Vec<String> {
    let check = |row: &Row| {
        let driver = if row.has("--driver") { vec![] } else { vec!["--driver=overlay"] };
        let flags = words(&row.flags);
        let shown =
            lab.docker(&[&["network", "create"], &driver[..], &flags, &["created"]].concat());
        let wrong =
            judge(row, &shown, || inspected(lab.docker(&["network", "inspect", "created"])));
        if shown.ok {
            lab.docker(&["network", "rm", "created"]).good();
        }
        wrong
    };
    rows.iter().filter_map(check).collect()
}

fn volume_create(lab: &Lab, rows: &[Row]) -> Vec<String> {
    let check = |row: &Row| {
        let shown =
            lab.docker(&[&["volume", "create"], &words(&row.flags)[..], &["created"]].concat());
        let wrong = judge(row, &shown, || inspected(lab.docker(&["volume", "inspect", "created"])));
        if shown.ok {
            lab.docker(&["volume", "rm", "created"]).good();
        }
        wrong
    };
    rows.iter().filter_map(check).collect()
}

/// A node's part in its cluster, with the node itself as its manager shows it.
fn swarm(lab: &Lab, node: u8) -> Value {
    let mut swarm = inspected(lab.docker_at(node, &["info", "--format", "{{json .Swarm}}"]));
    swarm["Self"] = inspected(lab.docker_at(node, &["node", "inspect", "self"]));
    swarm
}

fn swarm_init(lab: &Lab, rows: &[Row]) -> Vec<String> {
    let check = |row: &Row| {
        let shown = lab.docker_at(3, &[&["swarm", "init"], &words(&row.flags)[..]].concat());
        let wrong = judge(row, &shown, || swarm(lab, 3));
        if shown.ok {
            lab.docker_at(3, &["swarm", "leave", "--force"]).good();
        }
        wrong
    };
    rows.iter().filter_map(check).collect()
}

fn swarm_join(lab: &Lab, rows: &[Row]) -> Vec<String> {
    let token = lab.docker(&["swarm", "join-token", "--quiet", "worker"]).good();
    let manager = lab.at(1, 2377);
    let check = |row: &Row| {
        let token = if row.has("--token") { vec![] } else { vec!["--token", token.trim()] };
        let join = [&["swarm", "join"], &token[..], &words(&row.flags), &[manager.as_str()]];
        let shown = lab.docker_at(3, &join.concat());
        let id = lab.docker_at(3, &["info", "--format", "{{.Swarm.NodeID}}"]).out;
        let wrong = judge(row, &shown, || inspected(lab.docker(&["node", "inspect", id.trim()])));
        if shown.ok {
            lab.docker_at(3, &["swarm", "leave"]).good();
            until("the node that left can be removed", Duration::from_secs(30), || {
                let shown = lab.docker(&["node", "rm", "--force", id.trim()]);
                if shown.ok { Ok(()) } else { Err(shown.err) }
            });
        }
        wrong
    };
    rows.iter().filter_map(check).collect()
}

fn swarm_update(lab: &Lab, rows: &[Row]) -> Vec<String> {
    let check = |row: &Row| {
        let shown = lab.docker(&[&["swarm", "update"], &words(&row.flags)[..]].concat());
        judge(row, &shown, || swarm(lab, 1))
    };
    rows.iter().filter_map(check).collect()
}

#[test]
fn every_flag_works_or_is_refused_by_name() {
    let lab = Lab::up(3, &["busybox"]);
    let folder = tempfile::tempdir().expect("a folder");
    let env = folder.path().join("env");
    std::fs::write(&env, "FROM_FILE=1\n").expect("a file");
    let network = lab.docker(&["network", "create", "--driver=overlay", "flags"]).good();
    let secret = lab.docker_told(1, &["secret", "create", "some", "-"], "sesame").good();
    let config = lab.docker_told(1, &["config", "create", "some", "-"], "sesame").good();
    // The third node is in no cluster, so that it can make and join one.
    lab.docker_at(3, &["swarm", "leave"]).good();
    let names: Names<'_> = &[
        ("@env", env.display().to_string()),
        ("@network", format!("\"{}\"", network.trim())),
        ("@secret", format!("\"{}\"", secret.trim())),
        ("@config", format!("\"{}\"", config.trim())),
        ("@manager", lab.at(3, 2399)),
        ("@address", lab.address(3).to_string()),
    ];
    let tables: [(&[&str], &str, Check); 8] = [
        (&["service", "create"], include_str!("../flags/service-create.txt"), service_create),
        (&["service", "update"], include_str!("../flags/service-update.txt"), service_update),
        (&["run"], include_str!("../flags/run.txt"), run),
        (&["network", "create"], include_str!("../flags/network-create.txt"), network_create),
        (&["volume", "create"], include_str!("../flags/volume-create.txt"), volume_create),
        (&["swarm", "init"], include_str!("../flags/swarm-init.txt"), swarm_init),
        (&["swarm", "join"], include_str!("../flags/swarm-join.txt"), swarm_join),
        (&["swarm", "update"], include_str!("../flags/swarm-update.txt"), swarm_update),
    ];
    let mut wrong = Vec::new();
    for (command, table, check) in tables {
        let rows = rows(table, names);
        let told = gaps(&lab, command, &rows).into_iter().chain(check(&lab, &rows));
        wrong.extend(told.map(|text| format!("{}: {}", command.join(" "), text.trim())));
    }
    assert!(wrong.is_empty(), "{} are wrong:\n{}", wrong.len(), wrong.join("\n"));
}
