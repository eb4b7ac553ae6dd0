//! Secrets and configs: files that containers have as long as they run, and nobody else ever.

use e2e::{Lab, until};
use std::fs::{self, File};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

const SECOND: Duration = Duration::from_secs(1);
/// What a secret holds is put together here, so that the test itself is not found.
const MARKERS: [[&str; 2]; 4] = [
    ["marker-of-", "the-first-secret"],
    ["marker-of-", "the-second"],
    ["marker-of-", "a-first-revision"],
    ["marker-of-", "a-second-revision"],
];

fn marker(number: usize) -> String {
    format!("{}-{}", MARKERS[number].concat(), std::process::id())
}

#[test]
fn secrets_are_where_they_are_asked_for_and_nowhere_else() {
    let lab = Lab::up(3, &["busybox"]);
    made_shown_and_refused(&lab);
    a_service_reads_its_files(&lab);
    nobody_else_has_them(&lab);
    files_outlive_a_daemon_and_go_with_the_service(&lab);
    templates_are_filled(&lab);
    another_content_of_a_name_rolls_out(&lab);
    a_content_that_services_fail_with_is_rolled_back(&lab);
    files_of_a_container_that_runs_are_replaced(&lab);
    skep_speaks_the_same_verbs(&lab);
    stacks_bring_and_take_their_own(&lab);
    let left = lab.down();
    assert!(left.is_empty(), "{left:#?}");
}

fn made_shown_and_refused(lab: &Lab) {
    let create = ["secret", "create", "--label", "env=test", "key", "-"];
    let id = lab.docker_told(1, &create, &marker(0)).good().trim().to_owned();
    let again = lab.docker_told(1, &create, "other").bad();
    assert!(again.contains("secret key already exists"), "{again}");
    let shown = lab.docker(&["secret", "inspect", "key"]).good();
    assert!(shown.contains(&id) && shown.contains("\"env\": \"test\""), "{shown}");
    assert!(!shown.contains("Data"), "{shown}");
    let listed = ["secret", "ls", "--filter", "label=env=test", "--format", "{{.ID}} {{.Name}}"];
    assert_eq!(lab.docker(&listed).good().trim(), format!("{id} key"));
    // The client itself would not send it.
    let empty = lab.send(1, ("POST", "/secrets/create"), r#"{"Name": "empty"}"#);
    assert_eq!(empty.status, 400);
    assert!(empty.body.contains("secret data must be larger than 0"), "{}", empty.body);
    let large = lab.docker_told(1, &["secret", "create", "large", "-"], &"x".repeat(512_000)).bad();
    assert!(large.contains("less than 512000 bytes"), "{large}");
    let driver = lab.docker(&["secret", "create", "--driver", "vault", "far"]).bad();
    assert!(driver.contains("Driver"), "{driver}");

    let config =
        |name: &str, text: &str| lab.docker_told(1, &["config", "create", name, "-"], text);
    config("largest", &"x".repeat(1_023_999)).good();
    lab.docker(&["config", "rm", "largest"]).good();
    config("app", "colour = blue\n").good();
    config("entry", "#!/bin/sh\nexit 7\n").good();
    let pretty = lab.docker(&["config", "inspect", "--pretty", "app"]).good();
    assert!(pretty.contains("colour = blue"), "{pretty}");
    // What names a secret that there is not is refused, by the client and by the manager.
    let unknown = ["service", "create", "--detach", "--secret", "lock", "busybox:latest"];
    assert!(lab.docker(&unknown).bad().contains("secret not found: lock"));
    let body = r#"{"Name": "x", "TaskTemplate": {"ContainerSpec": {"Image": "busybox:latest",
        "Secrets": [{"SecretID": "lock", "SecretName": "lock", "File": {"Name": "lock"}}]}}}"#;
    let answer = lab.send(1, ("POST", "/services/create"), body);
    assert_eq!(answer.status, 400);
    assert!(answer.body.contains("secret not found: lock"), "{}", answer.body);
}

fn create(lab: &Lab, name: &str, flags: &[&str]) {
    let create = ["service", "create", "--detach", "--name", name];
    let image = ["busybox:latest", "sleep", "1000000"];
    lab.docker(&[&create[..], flags, &image].concat()).good();
    lab.converged(name, "1/1", 60 * SECOND);
}

fn container(lab: &Lab, service: &str) -> (u8, String) {
    let mut all = lab.containers(3, service);
    assert_eq!(all.len(), 1, "{all:?}");
    all.remove(0)
}

fn a_service_reads_its_files(lab: &Lab) {
    let own = "source=key,target=/etc/own/key,uid=7,gid=8,mode=0400";
    create(
        lab,
        "web",
        &[
            "--constraint=node.hostname==node-2",
            "--secret=key",
            &format!("--secret={own}"),
            "--config=app",
            "--config=source=app,target=/etc/app.conf,mode=0640",
            "--config=source=entry,target=/bin/entry,mode=0555",
            "--read-only",
        ],
    );
    let web = container(lab, "web");
    assert_eq!(web.0, 2);
    let inside = |command: &str| lab.inside(&web, command).good().trim().to_owned();
    assert_eq!(inside("cat /run/secrets/key"), marker(0));
    assert_eq!(inside("stat -c '%u %g %a' /run/secrets/key"), "0 0 444");
    assert_eq!(inside("cat /etc/own/key"), marker(0));
    assert_eq!(inside("stat -c '%u %g %a' /etc/own/key"), "7 8 400");
    assert_eq!(inside("cat /app /etc/app.conf"), "colour = blue\ncolour = blue");
    assert_eq!(inside("stat -c '%u %g %a' /etc/app.conf"), "0 0 640");
    let mounted = inside("grep ' /run/secrets/key ' /proc/mounts");
    assert!(mounted.contains(" tmpfs ro,") || mounted.contains(" ramfs ro,"), "{mounted}");
    for option in ["nosuid", "nodev", "noexec"] {
        assert!(mounted.contains(option), "{mounted}");
    }
    assert!(!lab.inside(&web, "echo x > /run/secrets/key").ok);
    assert_eq!(inside("/bin/entry; echo $?"), "7", "a config that is a program");
    for (kind, name) in [("secret", "key"), ("config", "app")] {
        let used = lab.docker(&[kind, "rm", name]).bad();
        let words = format!("{kind} '{name}' is in use by the following service: web");
        assert!(used.contains(&words), "{used}");
    }
}

/// The bytes are in the memory of managers and of the container that has them: not on any disk, nor
/// in the memory of a node that runs no task with them.
fn nobody_else_has_them(lab: &Lab) {
    let marker = marker(0);
    let mut found = Vec::new();
    search(lab.folder(), marker.as_bytes(), &mut found);
    let own = |path: &Path| {
        path.starts_with(lab.folder().join("run/node-2/containers"))
            && path.components().any(|part| part.as_os_str() == "files")
    };
    let (own, other): (Vec<PathBuf>, Vec<PathBuf>) = found.into_iter().partition(|path| own(path));
    assert_eq!(own.len(), 2, "the search finds what is there: {own:?}");
    assert!(other.is_empty(), "{other:?}");
    for file in &own {
        let about = fs::metadata(file).expect("it is there").dev();
        assert_ne!(about, fs::metadata(lab.folder()).expect("it is there").dev());
    }
    assert!(is_in_memory(lab, 1, &marker), "a manager has it, and the search finds it");
    assert!(!is_in_memory(lab, 3, &marker), "a node that needs no secret has none");
    assert!(1 < processes(lab, 3).len(), "its daemon and its name server are looked at");
    let logged = lab.docker(&["inspect", "--type", "task", &lab.tasks("web")[0]]);
    assert!(!logged.out.contains(&marker));
}

/// Regular files below a folder with these bytes in them.
fn search(folder: &Path, bytes: &[u8], found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let Ok(about) = fs::symlink_metadata(entry.path()) else { continue };
        if about.is_dir() {
            search(&entry.path(), bytes, found);
        } else if about.is_file() && fs::read(entry.path()).is_ok_and(|text| holds(&text, bytes)) {
            found.push(entry.path());
        }
    }
}

fn holds(text: &[u8], bytes: &[u8]) -> bool {
    text.windows(bytes.len()).any(|window| window == bytes)
}

/// The processes of a node that know its folders: its daemon and its name server.
fn processes(lab: &Lab, node: u8) -> Vec<i32> {
    let own = lab.folder().join(format!("run/node-{node}")).display().to_string();
    let pids = fs::read_dir("/proc").expect("processes").flatten();
    let pids = pids.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let is_own = |pid: &i32| {
        let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let program = fs::read_link(format!("/proc/{pid}/exe")).unwrap_or_default();
        program.ends_with("skep") && holds(&line, own.as_bytes())
    };
    let found: Vec<i32> = pids.filter(is_own).collect();
    assert!(found.contains(&lab.pid(node).expect("the daemon runs")), "{found:?}");
    found
}

/// Looks through the memory of a node's processes.
fn is_in_memory(lab: &Lab, node: u8, marker: &str) -> bool {
    processes(lab, node).into_iter().any(|pid| is_in_memory_of(pid, marker))
}

fn is_in_memory_of(pid: i32, marker: &str) -> bool {
    // One that has just ended has none.
    let Ok(maps) = fs::read_to_string(format!("/proc/{pid}/maps")) else { return false };
    let Ok(memory) = File::open(format!("/proc/{pid}/mem")) else { return false };
    maps.lines().filter(|line| line.contains(" rw")).any(|line| {
        let range = line.split_whitespace().next().unwrap_or_default();
        let ends = range.split('-').map(|end| u64::from_str_radix(end, 16).expect("an address"));
        let ends: Vec<u64> = ends.collect();
        let size = usize::try_from(ends[1] - ends[0]).expect("it fits");
        let mut text = vec![0; size];
        // Some parts cannot be read.
        memory.read_exact_at(&mut text, ends[0]).is_ok() && holds(&text, marker.as_bytes())
    })
}

/// What is mounted for containers below the folders of nodes.
fn memory_mounts(lab: &Lab) -> Vec<String> {
    let mounts = fs::read_to_string("/proc/self/mounts").expect("it can be read");
    let run = lab.folder().join("run").display().to_string();
    let own = mounts.lines().filter(|line| line.contains(&run) && line.contains("/files "));
    own.map(str::to_owned).collect()
}

fn files_outlive_a_daemon_and_go_with_the_service(lab: &Lab) {
    let web = container(lab, "web");
    lab.lab(&["kill", "node-2"]).good();
    lab.lab(&["start", "node-2"]).good();
    until("node-2 is ready again", 30 * SECOND, || {
        let nodes = lab.docker(&["node", "ls", "--format", "{{.Hostname}} {{.Status}}"]).out;
        if nodes.contains("node-2 Ready") { Ok(()) } else { Err(nodes) }
    });
    assert_eq!(container(lab, "web"), web, "it is the same container");
    assert_eq!(lab.inside(&web, "cat /run/secrets/key").good().trim(), marker(0));
    assert_eq!(memory_mounts(lab).len(), 1);

    // Another secret takes its place: the old one can go then.
    lab.docker_told(1, &["secret", "create", "key2", "-"], &marker(1)).good();
    let update = ["service", "update", "--detach", "--secret-rm=key"];
    lab.docker(&[&update[..], &["--secret-add=source=key2,target=key", "web"]].concat()).good();
    lab.update_ends("web", "completed", 90 * SECOND);
    let web = container(lab, "web");
    assert_eq!(lab.inside(&web, "cat /run/secrets/key").good().trim(), marker(1));
    assert!(!lab.inside(&web, "cat /etc/own/key").ok);
    lab.docker(&["secret", "rm", "key"]).good();

    lab.docker(&["service", "rm", "web"]).good();
    until("nothing is mounted any more", 60 * SECOND, || {
        let mounts = memory_mounts(lab);
        if mounts.is_empty() { Ok(()) } else { Err(format!("{mounts:?}")) }
    });
    lab.docker(&["secret", "rm", "key2"]).good();
    lab.docker(&["config", "rm", "app", "entry"]).good();
}

fn templates_are_filled(lab: &Lab) {
    let template = r#"{{.Service.Name}} at {{.Node.Hostname}}: {{secret "word"}} {{env "A"}}"#;
    let variable = "--env=A={{.Task.Slot}}b";
    lab.docker_told(1, &["secret", "create", "word", "-"], "sesame").good();
    let driver = ["config", "create", "--template-driver", "golang"];
    lab.docker_told(1, &[&driver[..], &["page", "-"]].concat(), template).good();
    lab.docker_told(1, &[&driver[..], &["bad", "-"]].concat(), "{{.Service.Nmae}}").good();
    create(
        lab,
        "filled",
        &["--secret=word", "--config=page", variable, "--constraint=node.hostname==node-3"],
    );
    let filled = container(lab, "filled");
    assert_eq!(lab.inside(&filled, "cat /page").good(), "filled at node-3: sesame 1b");
    let wrong = ["service", "create", "--detach", "--name", "wrong", "--config=bad"];
    lab.docker(&[&wrong[..], &["--restart-condition=none", "busybox:latest", "true"]].concat())
        .good();
    until("the task says what is wrong", 60 * SECOND, || {
        let told = lab.history("wrong");
        let is_told = told.contains("expanding config bad") && told.contains("Nmae");
        if is_told { Ok(()) } else { Err(told) }
    });
    lab.docker(&["service", "rm", "filled", "wrong"]).good();
    lab.docker(&["secret", "rm", "word"]).good();
    lab.docker(&["config", "rm", "page", "bad"]).good();
}

fn another_content_of_a_name_rolls_out(lab: &Lab) {
    lab.docker_told(1, &["secret", "create", "--label", "a=b", "turn", "-"], &marker(2)).good();
    lab.docker_told(1, &["config", "create", "colour", "-"], "blue").good();
    let flags = ["--secret=turn", "--config=source=colour,target=/etc/colour"];
    create(lab, "web", &[&flags[..], &["--constraint=node.hostname==node-2"]].concat());
    let stay = [&flags[..], &["--constraint=node.hostname==node-2"]].concat();
    create(lab, "calm", &[&stay[..], &["--label=skep.file-update=stay"]].concat());
    let first = lab.docker(&["secret", "inspect", "--format", "{{.ID}}", "turn"]).good();
    // Docker's own clients change labels alone.
    let version =
        lab.docker(&["secret", "inspect", "--format", "{{.Version.Index}}", "turn"]).good();
    let target = format!("/secrets/turn/update?version={}", version.trim());
    let body = r#"{"Name": "turn", "Data": "b3RoZXI="}"#;
    let refused = lab.send(1, ("POST", &target), body);
    assert_eq!(refused.status, 400);
    assert!(refused.body.contains("only updates to Labels are allowed"), "{}", refused.body);
    let refused = lab.send(1, ("POST", &format!("{target}&data=some")), body);
    assert_eq!(refused.status, 400);
    assert!(refused.body.contains("data=some is not known"), "{}", refused.body);

    lab.skep_told(1, &["secret", "update", "turn", "-"], &marker(3)).good();
    lab.update_ends("web", "completed", 90 * SECOND);
    let web = container(lab, "web");
    assert_eq!(lab.inside(&web, "cat /run/secrets/turn").good(), marker(3));
    lab.skep_told(1, &["config", "update", "colour", "-"], "green").good();
    until("the config is the new one", 90 * SECOND, || {
        let read = |(node, id): &(u8, String)| {
            lab.inside(&(*node, id.clone()), "cat /etc/colour /run/secrets/turn").out
        };
        let read: Vec<String> = lab.containers(3, "web").iter().map(read).collect();
        if read == [format!("green{}", marker(3))] { Ok(()) } else { Err(format!("{read:?}")) }
    });
    lab.update_ends("web", "completed", 90 * SECOND);
    let calm = container(lab, "calm");
    let stays = lab.inside(&calm, "cat /etc/colour /run/secrets/turn").good();
    assert_eq!(stays, format!("blue{}", marker(2)));

    // The name is the last one's, the former one is there for who has it.
    let listed = lab.docker(&["secret", "ls", "--format", "{{.ID}} {{.Name}}"]).good();
    assert_eq!(listed.lines().filter(|line| line.ends_with(" turn")).count(), 1, "{listed}");
    let shown = lab.docker(&["secret", "inspect", "turn"]).good();
    assert!(!shown.contains(first.trim()) && shown.contains("\"a\": \"b\""), "{shown}");
    let all = lab.skep(&["secret", "ls", "--revisions"]).good();
    let line = |words: &str| all.lines().any(|it| it.contains(" turn ") && it.contains(words));
    assert!(line(" 1 (former) ") && line(" 2 "), "{all}");
    let pretty = lab.skep(&["secret", "inspect", "--pretty", "turn"]).good();
    assert!(pretty.contains("Revision:") && !pretty.contains(&marker(3)), "{pretty}");
    let former = lab.docker(&["config", "inspect", "--format", "{{.Spec.Name}}", "colour"]).good();
    assert_eq!(former.trim(), "colour");

    // Where bytes are holds of all revisions.
    let (mut found, own) = (Vec::new(), lab.folder().join("run/node-2/containers"));
    for number in [2, 3] {
        search(lab.folder(), marker(number).as_bytes(), &mut found);
        assert!(is_in_memory(lab, 1, &marker(number)), "a manager has it");
        assert!(!is_in_memory(lab, 3, &marker(number)), "a node that has no such task has none");
    }
    assert_eq!(found.len(), 2, "{found:?}");
    assert!(found.iter().all(|path| path.starts_with(&own)), "{found:?}");
    let used = lab.docker(&["secret", "rm", "turn"]).bad();
    assert!(used.contains("is in use by the following services: calm, web"), "{used}");
    lab.docker(&["service", "rm", "calm", "web"]).good();
    until("the former ones go with their last tasks", 60 * SECOND, || {
        let all = lab.skep(&["secret", "ls", "--revisions"]).good();
        if all.contains("former") { Err(all) } else { Ok(()) }
    });
    lab.docker(&["secret", "rm", "turn"]).good();
    lab.docker(&["config", "rm", "colour"]).good();
}

fn a_content_that_services_fail_with_is_rolled_back(lab: &Lab) {
    lab.docker_told(1, &["secret", "create", "pass", "-"], "good").good();
    let service = ["service", "create", "--detach", "--name", "picky", "--secret=pass"];
    let update =
        ["--update-failure-action=rollback", "--update-monitor=2s", "--stop-grace-period=1s"];
    let command = "grep -q good /run/secrets/pass && exec sleep 1000000";
    let image = ["--restart-delay=200ms", "busybox:latest", "sh", "-c", command];
    lab.docker(&[&service[..], &update, &image].concat()).good();
    lab.converged("picky", "1/1", 60 * SECOND);
    lab.skep_told(1, &["secret", "update", "pass", "-"], "evil").good();
    lab.update_ends("picky", "rollback_completed", 90 * SECOND);
    lab.converged("picky", "1/1", 60 * SECOND);
    let picky = container(lab, "picky");
    assert_eq!(lab.inside(&picky, "cat /run/secrets/pass").good(), "good");
    // It follows the next one all the same.
    lab.skep_told(1, &["secret", "update", "pass", "-"], "good, too").good();
    lab.update_ends("picky", "completed", 90 * SECOND);
    let picky = container(lab, "picky");
    assert_eq!(lab.inside(&picky, "cat /run/secrets/pass").good(), "good, too");
    lab.docker(&["service", "rm", "picky"]).good();
    lab.docker(&["secret", "rm", "pass"]).good();
}

fn files_of_a_container_that_runs_are_replaced(lab: &Lab) {
    lab.docker_told(1, &["secret", "create", "pass", "-"], "first").good();
    let create = ["service", "create", "--detach", "--name", "keen", "--secret=pass"];
    let label = ["--constraint=node.hostname==node-3", "--label=skep.file-update=signal=HUP"];
    let command = "trap 'cat /run/secrets/pass > /tmp/seen' HUP; while :; do sleep 0.1; done";
    let image = ["busybox:latest", "sh", "-c", command];
    let wrong = ["--label=skep.file-update=signal=NONE"];
    let told = lab.docker(&[&create[..], &wrong, &image].concat()).bad();
    assert!(told.contains("invalid value of the label skep.file-update"), "{told}");
    lab.docker(&[&create[..], &label, &image].concat()).good();
    lab.converged("keen", "1/1", 60 * SECOND);
    let keen = container(lab, "keen");
    let tasks = lab.tasks("keen");
    let seen = |text: &str| {
        until("the process has read its new file", 60 * SECOND, || {
            let read = lab.inside(&keen, "cat /tmp/seen /run/secrets/pass").out;
            if read == text.repeat(2) { Ok(()) } else { Err(read) }
        });
    };
    let second = "second, and longer. ".repeat(10_000);
    lab.skep_told(1, &["secret", "update", "pass", "-"], &second).good();
    seen(&second);
    // A node that is away does it when it is back.
    lab.lab(&["kill", "node-3"]).good();
    lab.skep_told(1, &["secret", "update", "pass", "-"], "third").good();
    lab.lab(&["start", "node-3"]).good();
    seen("third");
    assert_eq!(container(lab, "keen"), keen, "it is the same container");
    assert_eq!(lab.tasks("keen"), tasks, "of the same task");
    until("nobody needs the others any more", 60 * SECOND, || {
        let all = lab.skep(&["secret", "ls", "--revisions"]).good();
        // The last one before is what the service would be rolled back to.
        if all.matches("former").count() == 1 { Ok(()) } else { Err(all) }
    });
    lab.docker(&["service", "rollback", "--detach", "keen"]).good();
    until("the former one is back", 90 * SECOND, || {
        let read = |it: &(u8, String)| lab.inside(it, "cat /run/secrets/pass").out;
        let read: Vec<String> = lab.containers(3, "keen").iter().map(read).collect();
        if read == [second.as_str()] { Ok(()) } else { Err(format!("{} containers", read.len())) }
    });
    lab.docker(&["service", "rm", "keen"]).good();
    until("its last task is gone", 60 * SECOND, || {
        let left = lab.containers(3, "keen");
        if left.is_empty() { Ok(()) } else { Err(format!("{left:?}")) }
    });
    lab.docker(&["secret", "rm", "pass"]).good();
}

fn skep_speaks_the_same_verbs(lab: &Lab) {
    let create = ["secret", "create", "--label", "a=b", "own", "-"];
    let id = lab.skep_told(1, &create, "sesame").good().trim().to_owned();
    lab.skep_told(1, &["config", "create", "conf", "-"], "x = 1\n").good();
    let (ours, theirs) = (lab.skep(&["secret", "ls"]).good(), lab.docker(&["secret", "ls"]).good());
    let words = |text: &str| -> Vec<String> {
        text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect()
    };
    assert_eq!(words(&ours)[0], words(&theirs)[0]);
    assert!(ours.contains(&id) && ours.contains(" own "), "{ours}");
    lab.skep(&["secret", "update", "--label-add", "c=d", "--label-rm", "a", "own"]).good();
    let labels = ["secret", "inspect", "--format", "{{json .Spec.Labels}}", "own"];
    assert_eq!(lab.docker(&labels).good().trim(), r#"{"c":"d"}"#);
    let service = ["service", "create", "--detach=true", "--name", "ours", "--secret", "own"];
    let config = ["--config", "source=conf,target=/etc/conf,mode=0444", "busybox:latest", "sleep"];
    lab.skep(&[&service[..], &config, &["1000000"]].concat()).good();
    lab.converged("ours", "1/1", 60 * SECOND);
    let ours = container(lab, "ours");
    assert_eq!(lab.inside(&ours, "cat /run/secrets/own /etc/conf").good(), "sesamex = 1\n");
    let update = ["service", "update", "--detach=true", "--config-rm", "conf", "ours"];
    lab.skep(&update).good();
    lab.update_ends("ours", "completed", 90 * SECOND);
    assert!(!lab.inside(&container(lab, "ours"), "cat /etc/conf").ok);
    lab.skep(&["config", "rm", "conf"]).good();
    let used = lab.skep(&["secret", "rm", "own"]).bad();
    assert!(used.contains("is in use by the following service: ours"), "{used}");
    lab.docker(&["service", "rm", "ours"]).good();
    lab.skep(&["secret", "rm", "own"]).good();
}

const STACK: &str = r#"version: "3.8"
services:
  app:
    image: busybox:latest
    command: sleep 1000000
    secrets:
      - word
      - source: shared
        target: /etc/shared
        uid: "7"
        mode: 0440
    configs:
      - source: page
        target: /etc/page
secrets:
  word:
    file: ./word
    labels: {made: by-stack}
  shared:
    external: true
    name: shared-word
configs:
  page:
    file: ./page
    name: own-page
    template_driver: golang
"#;

fn stacks_bring_and_take_their_own(lab: &Lab) {
    let folder = tempfile::tempdir().expect("a folder");
    let write = |name: &str, text: &str| fs::write(folder.path().join(name), text).expect("a file");
    write("word", "sesame");
    write("page", "{{.Service.Name}}");
    write("stack.yml", STACK);
    let file = folder.path().join("stack.yml").display().to_string();
    lab.docker_told(1, &["secret", "create", "shared-word", "-"], "shared").good();
    let deploy = ["stack", "deploy", "--detach=true", "--compose-file", &file, "st"];
    let run = |by_skep: bool, arguments: &[&str]| {
        if by_skep { lab.skep(arguments) } else { lab.docker(arguments) }
    };
    for by_skep in [false, true] {
        let told = run(by_skep, &deploy).good();
        assert!(told.contains("Creating secret st_word"), "{told}");
        assert!(told.contains("Creating config own-page"), "{told}");
        lab.converged("st_app", "1/1", 60 * SECOND);
        let app = container(lab, "st_app");
        let read = lab.inside(&app, "cat /run/secrets/word /etc/shared /etc/page").good();
        assert_eq!(read, "sesamesharedst_app");
        let whose = lab.inside(&app, "stat -c '%u %g %a' /etc/shared").good();
        assert_eq!(whose.trim(), "7 0 440");
        // Either one finds what the other has made as it wants it.
        let tasks = lab.tasks("st_app");
        for again in [false, true] {
            run(again, &deploy).good();
            assert_eq!(lab.tasks("st_app"), tasks, "nothing has changed for it");
        }
        let made = ["secret", "ls", "--quiet", "--filter", "label=made=by-stack"];
        assert_eq!(lab.docker(&made).good().lines().count(), 1);
        let gone = run(by_skep, &["stack", "rm", "st"]).good();
        assert!(gone.contains("Removing secret st_word"), "{gone}");
        assert!(gone.contains("Removing config own-page"), "{gone}");
        assert_eq!(lab.docker(&made).good(), "");
        assert_eq!(lab.docker(&["config", "ls", "--quiet"]).good(), "");
        until("its tasks are gone", 60 * SECOND, || {
            let left = lab.containers(3, "st_app");
            if left.is_empty() { Ok(()) } else { Err(format!("{left:?}")) }
        });
    }
    lab.docker(&["secret", "rm", "shared-word"]).good();
}
