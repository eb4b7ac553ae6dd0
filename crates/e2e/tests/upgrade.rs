//! A cluster is updated from the release before to this one and back, machine by machine, below a client
//! that asks all the while. `docs/upgrade.md` is what it keeps to; `scripts/upgrade.sh` runs it.

use e2e::{Client, Lab, program, until};
use std::path::{Path, PathBuf};
use std::time::Duration;

const MANAGERS: [u8; 3] = [1, 2, 3];
const WORKER: u8 = 4;
const LIMIT: Duration = Duration::from_mins(1);

/// A lab that begins on the release before.
struct Upgrade {
    lab: Lab,
    before: PathBuf,
    now: PathBuf,
}

#[test]
#[ignore = "needs the program of the release before: scripts/upgrade.sh PROGRAM"]
fn a_cluster_is_updated_and_rolled_back_while_nobody_notices() {
    let before = std::env::var_os("SKEP_BEFORE").expect("SKEP_BEFORE names the former program");
    let before = PathBuf::from(before).canonicalize().expect("the former program is there");
    let lab = Lab::of_release(&before, (4, 3), &["busybox"]);
    let upgrade = Upgrade { lab, before, now: program("skep") };
    upgrade.lab.docker(&["network", "create", "--driver", "overlay", "net"]).good();
    let create = ["service", "create", "--detach=false", "--quiet", "--name", "web"];
    let more = ["--mode", "global", "--network", "net", "--publish", "8090:80"];
    let run = ["busybox:latest", "sh", "-c", "echo well > /index.html; exec httpd -f -p 80 -h /"];
    upgrade.lab.docker(&[&create[..], &more, &["--no-resolve-image"], &run].concat()).good();
    Lab::says(&upgrade.lab.at(WORKER, 8090), "/", "well", LIMIT);
    let tasks = upgrade.lab.tasks("web");
    let started = [1, 2, 3, WORKER].map(|node| upgrade.lab.started(node));
    let clients = [1, WORKER].map(|node| Client::start(&upgrade.lab.at(node, 8090), "/", 200));

    upgrade.managers_are_updated_the_leader_last();
    upgrade.changes(WORKER, &upgrade.now);
    upgrade.works("all are updated");
    upgrade.one_manager_is_rolled_back_and_updated_again();
    upgrade.worker_is_rolled_back();

    assert_eq!(upgrade.lab.tasks("web"), tasks, "no task was replaced");
    let now = [1, 2, 3, WORKER].map(|node| upgrade.lab.started(node));
    assert_eq!(now, started, "no container was started again");
    for client in clients {
        let seen = client.stop();
        assert!(seen.requests > 100 && seen.failures.is_empty(), "{seen:#?}");
    }
    let left = upgrade.lab.down();
    assert!(left.is_empty(), "{left:#?}");
}

impl Upgrade {
    /// Stops a node's daemon in order and starts another release on what it has left.
    fn changes(&self, node: u8, to: &Path) {
        let name = format!("node-{node}");
        self.lab.stop(node);
        self.lab.lab_by(to, &["start", &name]).good();
        let pid = self.lab.pid(node).expect("the daemon has a pid");
        let runs = std::fs::read_link(format!("/proc/{pid}/exe")).expect("it runs");
        assert_eq!(runs.canonicalize().expect("a program"), to.canonicalize().expect("a program"));
        let asked = if node == 1 { 2 } else { 1 };
        let format = "{{.Status.State}} {{with .ManagerStatus}}{{.Reachability}}{{end}}";
        let wanted = if MANAGERS.contains(&node) { "ready reachable" } else { "ready" };
        until(&format!("{name} is back"), LIMIT, || {
            let inspect = ["node", "inspect", "--format", format, &name];
            let shown = self.lab.docker_at(asked, &inspect);
            if shown.out.trim() == wanted { Ok(()) } else { Err(format!("{shown:?}")) }
        });
    }

    /// Every manager is asked for changes, and shows those of the others at once.
    fn works(&self, when: &str) {
        for asked in MANAGERS {
            let name = format!("net-{asked}");
            let create = ["network", "create", "--driver", "overlay", &name];
            let made = self.lab.docker_at(asked, &create);
            assert!(made.ok, "{when}, node-{asked} is asked: {made:?}");
            for other in MANAGERS {
                self.lab.docker_at(other, &["network", "inspect", &name]).good();
            }
            self.lab.docker_at(asked, &["network", "rm", &name]).good();
        }
        let label = format!("when={when}");
        self.lab.docker(&["service", "update", "--detach", "--label-add", &label, "web"]).good();
        for container in self.lab.containers(WORKER, "web") {
            self.lab.inside(&container, "nslookup -type=a tasks.web 127.0.0.11").good();
        }
    }

    fn leads(&self, node: u8) {
        self.lab.skep(&["raft", "transfer", &format!("node-{node}")]).good();
        assert_eq!(self.lab.leader(), node);
    }

    fn managers_are_updated_the_leader_last(&self) {
        let leader = self.lab.leader();
        let [first, second] = [(leader % 3) + 1, ((leader + 1) % 3) + 1];
        self.changes(first, &self.now);
        self.works("the leader is of the release before");
        self.leads(first);
        self.works("the leader is new and others are of the release before");
        self.leads(leader);
        self.changes(second, &self.now);
        self.works("the leader alone is of the release before");
        self.changes(leader, &self.now);
        assert_ne!(self.lab.leader(), leader, "it has handed over");
        self.works("all managers are new");
    }

    fn one_manager_is_rolled_back_and_updated_again(&self) {
        let leader = self.lab.leader();
        let back = (leader % 3) + 1;
        self.changes(back, &self.before);
        self.works("a manager was rolled back");
        self.leads(back);
        self.works("the one that was rolled back leads");
        self.changes(back, &self.now);
        self.works("it is updated again");
    }

    fn worker_is_rolled_back(&self) {
        self.changes(WORKER, &self.before);
        self.works("the worker was rolled back");
    }
}
