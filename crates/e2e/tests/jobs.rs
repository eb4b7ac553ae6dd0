//! Jobs: tasks that run until they have completed, by the docker CLI and by skep's own.

use e2e::{Lab, until};
use serde_json::Value;
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::time::Duration;

const LIMIT: Duration = Duration::from_mins(1);
/// Fails when its slot runs for the first time. Else it says how many are at work, itself too,
/// works for a second, and says that it is done.
const WORK: &str = "mkdir /w/tried-$SLOT 2>/dev/null && exit 3
    trap 'rmdir /w/at-work/$TASK; exit 1' TERM
    mkdir /w/at-work/$TASK
    ls /w/at-work | wc -l > /w/seen/$TASK
    sleep 1
    rmdir /w/at-work/$TASK
    touch /w/done/$TASK";
/// Runs until it is told to go.
const WAIT: &str = "until [ -e /w/go ]; do sleep 0.1; done";

#[test]
fn jobs_run_until_they_have_completed() {
    let lab = Lab::up(3, &["busybox"]);
    let place = Place::new();
    what_is_wrong_is_refused(&lab);
    a_job_completes_with_failures_and_never_too_many_at_once(&lab, &place);
    every_change_runs_it_anew(&lab, &place);
    a_global_job_runs_once_on_each_node(&lab, &Place::new());
    a_job_has_a_name_while_it_runs(&lab, &Place::new());
    a_node_is_lost_in_the_middle(&lab, &Place::new());
    stacks_have_jobs(&lab);
    skep_speaks_of_jobs(&lab);
    a_job_is_run_when_its_time_comes(&lab, &Place::new());
    let left = lab.down();
    assert!(left.is_empty(), "{left:#?}");
}

/// A folder that all containers of a job see.
struct Place(tempfile::TempDir);

impl Place {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        for name in ["at-work", "seen", "done"] {
            fs::create_dir(folder.path().join(name)).expect("a folder");
        }
        Self(folder)
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn count(&self, name: &str) -> usize {
        fs::read_dir(self.path().join(name)).expect("it is there").count()
    }

    /// How many each task has seen at work.
    fn seen(&self) -> BTreeSet<u64> {
        let files = fs::read_dir(self.path().join("seen")).expect("it is there");
        let number = |file: fs::DirEntry| {
            let text = fs::read_to_string(file.path()).expect("a file");
            text.trim().parse().expect("a number")
        };
        files.map(|file| number(file.expect("a file"))).collect()
    }

    fn create(&self, lab: &Lab, name: &str, flags: &[&str], command: &str) -> String {
        let mount = format!("--mount=type=bind,source={},target=/w", self.path().display());
        let own = ["--env=SLOT={{.Task.Slot}}", "--env=TASK={{.Task.ID}}", "--restart-delay=100ms"];
        let head = ["service", "create", "--name", name, &mount];
        let image = ["busybox:latest", "sh", "-c", command];
        lab.docker(&[&head[..], &own, flags, &image].concat()).good()
    }
}

/// Waits until a service is listed like this.
fn shows(lab: &Lab, name: &str, replicas: &str) {
    until(&format!("{name} {replicas}"), LIMIT, || {
        let format = "{{.Name}}: {{.Replicas}}";
        let shown = lab.docker(&["service", "ls", "--format", format]).good();
        let is_there = shown.lines().any(|line| line == format!("{name}: {replicas}"));
        if is_there { Ok(()) } else { Err(shown + &lab.history(name)) }
    });
}

/// The tasks of a job's present run, as the API tells them.
fn present(lab: &Lab, name: &str) -> Vec<Value> {
    let iteration = lab.service(name, "{{.JobStatus.JobIteration.Index}}");
    let iteration: u64 = iteration.parse().expect("a number");
    let filters = format!("%7B%22service%22%3A%5B%22{name}%22%5D%7D");
    let answer = lab.ask(1, "GET", &format!("/tasks?filters={filters}"));
    let tasks: Vec<Value> = serde_json::from_str(&answer.body).expect("tasks");
    let is_present = |task: &Value| task["JobIteration"]["Index"] == iteration;
    tasks.into_iter().filter(is_present).collect()
}

fn what_is_wrong_is_refused(lab: &Lab) {
    let only = "can only be used with";
    let replicas = format!("replicas {only} replicated or replicated-job mode");
    let concurrent = format!("max-concurrent {only} replicated-job mode");
    let update = "update and rollback configuration is not supported for jobs".to_owned();
    for (flags, words) in [
        (["--mode=global-job", "--replicas=2"], &replicas),
        (["--mode=global-job", "--max-concurrent=2"], &concurrent),
        (["--mode=replicated", "--max-concurrent=2"], &concurrent),
        (["--mode=replicated-job", "--update-parallelism=2"], &update),
        (["--mode=global-job", "--rollback-delay=2s"], &update),
    ] {
        for cli in [Lab::docker, Lab::skep] {
            let line = [&["service", "create"], &flags[..], &["busybox:latest"]].concat();
            let said = cli(lab, &line).bad();
            assert!(said.contains(words.as_str()), "{flags:?}: {said}");
        }
    }
    let create = |rest: &str| {
        let body = format!(
            r#"{{"Name": "job", "TaskTemplate": {{"ContainerSpec": {{"Image": "busybox:latest",
                "Command": ["true"]}}}}, {rest}}}"#
        );
        lab.send(1, ("POST", "/services/create"), &body)
    };
    for (rest, words) in [
        (
            r#""Mode": {"GlobalJob": {}}, "UpdateConfig": {"Parallelism": 2}"#,
            "Jobs may not have an update config",
        ),
        (r#""Mode": {"GlobalJob": {}}, "RollbackConfig": {}"#, update.as_str()),
        (r#""Mode": {"GlobalJob": {}, "Global": {}}"#, "must specify only one service mode"),
        (
            r#""Mode": {"ReplicatedJob": {"TotalCompletions": 20001}}"#,
            "a job can have at most 20000 completions, not 20001",
        ),
        (r#""Mode": {"ReplicatedJob": {"MaxConcurrent": -1}}"#, "-1"),
    ] {
        let answer = create(rest);
        assert_eq!(answer.status, 400, "{rest}: {}", answer.body);
        assert!(answer.body.contains(words), "{rest}: {}", answer.body);
    }
    // What it is, it stays.
    let made = create(r#""Mode": {"GlobalJob": {}}"#);
    assert_eq!(made.status, 201, "{}", made.body);
    let version = lab.service("job", "{{.Version.Index}}");
    let body = r#"{"Name": "job", "TaskTemplate": {"ContainerSpec": {"Image": "busybox:latest"}},
        "Mode": {"Replicated": {"Replicas": 1}}}"#;
    let path = format!("/services/job/update?version={version}");
    let answer = lab.send(1, ("POST", &path), body);
    // Tasks that come to their end change nothing of the service.
    assert_eq!(answer.status, 501, "{}", answer.body);
    assert!(answer.body.contains("service mode change is not allowed"), "{}", answer.body);
    let said = lab.docker(&["service", "scale", "job=2"]).bad();
    assert!(said.contains("scale can only be used with"), "{said}");
    lab.docker(&["service", "rm", "job"]).good();
}

fn a_job_completes_with_failures_and_never_too_many_at_once(lab: &Lab, place: &Place) {
    let flags = ["--mode=replicated-job", "--replicas=5", "--max-concurrent=2"];
    // The client waits, with its own progress bar.
    let said = place.create(lab, "import", &flags, WORK);
    assert!(said.contains("job complete"), "{said}");
    assert_eq!(place.count("done"), 5);
    assert_eq!(place.seen(), [1, 2].into(), "never more than two, and two at some time");
    shows(lab, "import", "0/2 (5/5 completed)");
    let history = lab.history("import");
    assert_eq!(history.matches("non-zero exit (3)").count(), 5, "{history}");
    let listed = ["service", "ls", "--filter", "mode=replicated-job", "--format"];
    let listed = lab.docker(&[&listed[..], &["{{.Name}} {{.Mode}}"]].concat()).good();
    assert_eq!(listed.trim(), "import replicated job");
    let tasks = present(lab, "import");
    let done = tasks.iter().filter(|task| task["Status"]["State"] == "complete");
    let slots: Vec<u64> = done.map(|task| task["Slot"].as_u64().unwrap_or(0)).collect();
    assert_eq!(slots.iter().collect::<BTreeSet<_>>().len(), 5, "{slots:?}");
    assert_eq!(slots.iter().max(), Some(&4), "slots count from 0: {slots:?}");
    let wanted = ["service", "ps", "-q", "--filter", "desired-state=complete", "import"];
    assert_eq!(lab.docker(&wanted).good().lines().count(), 5);
}

fn every_change_runs_it_anew(lab: &Lab, place: &Place) {
    let said = lab.docker(&["service", "update", "--force", "import"]).good();
    assert!(said.contains("job complete"), "{said}");
    assert_eq!((place.count("done"), place.seen()), (10, [1, 2].into()));
    let said = lab.docker(&["service", "scale", "import=3"]).good();
    assert!(said.contains("job complete"), "{said}");
    assert_eq!(place.count("done"), 13);
    shows(lab, "import", "0/2 (3/3 completed)");
    // Back to the spec before, with five.
    lab.docker(&["service", "rollback", "--detach", "import"]).good();
    shows(lab, "import", "0/2 (5/5 completed)");
    assert_eq!(place.count("done"), 18);
    assert_eq!(lab.service("import", "{{.JobStatus.JobIteration.Index}}"), "3");
    assert_eq!(present(lab, "import").len(), 5);
    // A run that is under way ends where the next one begins, and is waited for.
    for _ in 0..3 {
        lab.docker(&["service", "update", "--detach", "--force", "import"]).good();
    }
    shows(lab, "import", "0/2 (5/5 completed)");
    assert_eq!(lab.service("import", "{{.JobStatus.JobIteration.Index}}"), "6");
    assert_eq!(place.seen(), [1, 2].into());
    lab.docker(&["service", "rm", "import"]).good();
}

fn a_global_job_runs_once_on_each_node(lab: &Lab, place: &Place) {
    let availability = |to: &str| {
        lab.docker(&["node", "update", "--availability", to, "node-3"]).good();
    };
    let create = |name: &str| {
        let said = place.create(lab, name, &["--mode=global-job"], "touch /w/done/$TASK");
        assert!(said.contains("job complete"), "{said}");
    };
    availability("drain");
    create("each");
    shows(lab, "each", "0/0 (2/2 completed)");
    // One that comes later gets its own, and none is run twice.
    availability("active");
    shows(lab, "each", "0/0 (3/3 completed)");
    availability("drain");
    availability("active");
    create("probe");
    shows(lab, "probe", "0/0 (3/3 completed)");
    assert_eq!(present(lab, "each").len(), 3);
    assert_eq!(place.count("done"), 6, "three of each");
    lab.docker(&["service", "update", "--force", "each"]).good();
    shows(lab, "each", "0/0 (3/3 completed)");
    assert_eq!(place.count("done"), 9);
    lab.docker(&["service", "rm", "each", "probe"]).good();
}

fn a_job_has_a_name_while_it_runs(lab: &Lab, place: &Place) {
    lab.docker(&["network", "create", "--driver", "overlay", "--attachable", "jobs"]).good();
    let ask = ["service", "create", "--detach", "--name", "ask", "--network", "jobs"];
    lab.docker(&[&ask[..], &["busybox:latest", "sleep", "1000000"]].concat()).good();
    lab.converged("ask", "1/1", LIMIT);
    let asking = lab.containers(3, "ask").remove(0);
    let flags = ["--detach", "--mode=replicated-job", "--network=jobs"];
    place.create(lab, "named", &flags, WAIT);
    let is_found = |name: &str| lab.inside(&asking, &format!("nslookup {name}. 127.0.0.11")).ok;
    let becomes = |wanted: bool| {
        until(&format!("tasks.named is found: {wanted}"), LIMIT, || {
            if is_found("tasks.named") == wanted { Ok(()) } else { Err(lab.history("named")) }
        });
    };
    becomes(true);
    fs::write(place.path().join("go"), "").expect("a file");
    shows(lab, "named", "0/1 (1/1 completed)");
    becomes(false);
    lab.docker(&["service", "rm", "ask", "named"]).good();
    until("the network goes", LIMIT, || {
        let gone = lab.docker(&["network", "rm", "jobs"]);
        if gone.ok { Ok(()) } else { Err(gone.err) }
    });
}

fn a_node_is_lost_in_the_middle(lab: &Lab, place: &Place) {
    let flags =
        ["--detach", "--mode=replicated-job", "--replicas=2", "--constraint=node.role==worker"];
    place.create(lab, "long", &flags, WAIT);
    shows(lab, "long", "2/2 (0/2 completed)");
    lab.lab(&["kill", "node-3"]).good();
    until("both run on node-2", 2 * LIMIT, || {
        let history = lab.history("long");
        let here = history.matches("node-2 Running").count();
        if here == 2 { Ok(()) } else { Err(history) }
    });
    fs::write(place.path().join("go"), "").expect("a file");
    shows(lab, "long", "0/2 (2/2 completed)");
    lab.lab(&["start", "node-3"]).good();
    until("node-3 is ready, and nothing is run again", LIMIT, || {
        let nodes = lab.docker(&["node", "ls", "--format", "{{.Hostname}} {{.Status}}"]).good();
        if nodes.contains("node-3 Ready") { Ok(()) } else { Err(nodes) }
    });
    shows(lab, "long", "0/2 (2/2 completed)");
    lab.docker(&["service", "rm", "long"]).good();
}

fn stacks_have_jobs(lab: &Lab) {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("stack.yml");
    let text = "services:
  migrate:
    image: busybox:latest
    command: \"true\"
    deploy: {mode: replicated-job, replicas: 2}
  prepare:
    image: busybox:latest
    command: \"true\"
    deploy: {mode: global-job}\n";
    fs::write(&file, text).expect("a file");
    let path = file.display().to_string();
    for (stack, cli) in [("first", Lab::docker as fn(&Lab, &[&str]) -> _), ("second", Lab::skep)] {
        cli(lab, &["stack", "deploy", "--detach=true", "-c", &path, stack]).good();
        shows(lab, &format!("{stack}_migrate"), "0/2 (2/2 completed)");
        shows(lab, &format!("{stack}_prepare"), "0/0 (3/3 completed)");
        // Deployed again, it is run again.
        cli(lab, &["stack", "deploy", "--detach=false", "-c", &path, stack]).good();
        let migrate = format!("{stack}_migrate");
        shows(lab, &migrate, "0/2 (2/2 completed)");
        assert_eq!(lab.service(&migrate, "{{.JobStatus.JobIteration.Index}}"), "1");
        cli(lab, &["stack", "rm", stack]).good();
    }
}

fn skep_speaks_of_jobs(lab: &Lab) {
    let create = ["service", "create", "--name", "small", "--mode", "replicated-job"];
    let rest = ["--replicas", "3", "--max-concurrent", "1", "busybox:latest", "true"];
    let said = lab.skep(&[&create[..], &rest].concat()).good();
    assert!(said.contains("job complete"), "{said}");
    let listed = lab.skep(&["service", "ls", "--filter", "name=small"]).good();
    assert!(listed.contains("replicated job"), "{listed}");
    assert!(listed.contains("0/1 (3/3 completed)"), "{listed}");
    let tasks = lab.skep(&["service", "ps", "small"]).good();
    assert_eq!(tasks.matches("Complete").count(), 6, "wanted and observed: {tasks}");
    lab.skep(&["service", "update", "--replicas", "2", "--max-concurrent", "2", "small"]).good();
    shows(lab, "small", "0/2 (2/2 completed)");
    let said = lab.skep(&["service", "scale", "small=1"]).good();
    assert!(said.contains("job complete"), "{said}");
    shows(lab, "small", "0/2 (1/1 completed)");
    let pretty = lab.skep(&["service", "inspect", "--pretty", "small"]).good();
    assert!(pretty.contains("Replicated job") && pretty.contains("Total Completions"), "{pretty}");
    lab.skep(&["service", "rm", "small"]).good();
}

fn a_job_is_run_when_its_time_comes(lab: &Lab, place: &Place) {
    let job = ["--detach", "--mode=replicated-job"];
    let every_minute = ["--label=skep.schedule=* * * * *"];
    for (labels, words) in [
        (&["--label=skep.schedule=soon"][..], "is no schedule"),
        (&["--label=skep.schedule=0 0 30 2 *"], "there is no such day"),
        (&[every_minute[0], "--label=skep.schedule.timezone=Asia/Tokyo"], "only UTC"),
    ] {
        let head = ["service", "create", "--mode=replicated-job"];
        let said = lab.docker(&[&head[..], labels, &["busybox:latest"]].concat()).bad();
        assert!(said.contains(words), "{said}");
    }
    let kept = ["service", "create", every_minute[0], "busybox:latest", "true"];
    assert!(lab.docker(&kept).bad().contains("only a service of mode"));

    // Once a year: it waits, and is run where users force it.
    let work = "touch /w/done/$TASK";
    place.create(lab, "yearly", &[&job[..], &["--label=skep.schedule=@yearly"]].concat(), work);
    // What comes each minute, by the labels and by the stack file.
    place.create(lab, "often", &[&job[..], &every_minute].concat(), work);
    let file = place.path().join("stack.yml");
    let text = "services:
  tick:
    image: busybox:latest
    command: \"true\"
    x-schedule: '* * * * *'
    deploy: {mode: global-job}\n";
    fs::write(&file, text).expect("a file");
    let path = file.display().to_string();
    let said = lab.skep(&["stack", "deploy", "--detach=false", "-c", &path, "clock"]).good();
    assert!(said.contains("waits for the time of its schedule"), "{said}");
    until("a minute is over", 2 * LIMIT, || {
        let run = |name: &str| lab.service(name, "{{.JobStatus.LastExecution}}");
        let times = [run("often"), run("clock_tick")];
        let are_run = times.iter().all(|time| !time.starts_with("0001-"));
        if are_run { Ok(()) } else { Err(times.join("\n")) }
    });
    shows(lab, "often", "0/1 (1/1 completed)");
    shows(lab, "clock_tick", "0/0 (3/3 completed)");
    shows(lab, "yearly", "0/1 (0/1 completed)");
    assert_eq!(present(lab, "yearly"), Vec::<Value>::new());
    lab.docker(&["service", "update", "--force", "yearly"]).good();
    shows(lab, "yearly", "0/1 (1/1 completed)");
    lab.docker(&["stack", "rm", "clock"]).good();
    lab.docker(&["service", "rm", "yearly", "often"]).good();
}
