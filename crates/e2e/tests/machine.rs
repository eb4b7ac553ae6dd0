//! What a machine holds: labs beside each other, a daemon of its own, and nothing afterwards.

use e2e::{Lab, Shown, images, kill_containerd, page, program, until};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

/// Waits until a page answers there.
fn answers(address: &str) {
    until(address, secs(20), || match page(address, "/", secs(5)) {
        Ok(page) if page.status == 200 => Ok(()),
        other => Err(format!("{other:?}")),
    });
}

#[test]
fn two_labs_are_up_at_once_and_share_nothing() {
    let labs = [Lab::up(2, &["nginx"]), Lab::up(1, &["nginx"])];
    for lab in &labs {
        let publish = ["--name", "web", "--publish", "8080:80", "--replicas", "2"];
        let create = [&["service", "create", "--detach"], &publish[..], &["nginx:latest"]].concat();
        lab.docker(&create).good();
    }
    for lab in &labs {
        lab.converged("web", "2/2", secs(60));
        assert_eq!(lab.containers(2, "web").len(), 2, "each lab has its own containers");
        answers(&lab.localhost(8080));
        answers(&lab.at(1, 8080));
    }
    let [one, other] = labs;
    assert_ne!(one.localhost(8080), other.localhost(8080));
    let gone = one.localhost(8080);
    let left = one.down();
    assert!(left.is_empty(), "{left:#?}");
    assert!(page(&gone, "/", secs(5)).is_err(), "nobody forwards for a lab that is down");
    answers(&other.localhost(8080));
    answers(&other.at(1, 8080));
    let left = other.down();
    assert!(left.is_empty(), "{left:#?}");
}

#[expect(clippy::disallowed_methods, reason = "tests run programs")]
fn run(program: impl AsRef<std::ffi::OsStr>, arguments: &[&str]) -> Shown {
    let output = Command::new(program).args(arguments).output();
    output.expect("it starts").into()
}

/// A network namespace, folders and a cgroup, which stand for a machine.
struct Machine {
    name: String,
    folder: tempfile::TempDir,
    daemon: Option<Child>,
    /// Options that only the daemon is told.
    more: Vec<String>,
}

impl Machine {
    fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("skep-m{}-{number}", std::process::id());
        run("ip", &["netns", "add", &name]).good();
        run("ip", &["-n", &name, "link", "set", "lo", "up"]).good();
        let folder = tempfile::Builder::new().prefix(&name).tempdir().expect("a folder");
        Self { name, folder, daemon: None, more: Vec::new() }
    }

    fn path(&self, name: &str) -> String {
        self.folder.path().join(name).display().to_string()
    }

    /// What the daemon is told, and notes for its removal.
    fn options(&self) -> Vec<String> {
        let netns = format!("/run/netns/{}", self.name);
        let options = [
            ("--data", self.path("data")),
            ("--run", self.path("run")),
            ("--docker-socket", self.path("docker.sock")),
            ("--netns", netns),
            ("--cgroup-parent", format!("/{}", self.name)),
        ];
        options.into_iter().flat_map(|(option, value)| [option.to_owned(), value]).collect()
    }

    #[expect(clippy::disallowed_methods, reason = "tests run programs")]
    fn start(&mut self) {
        let log = std::fs::File::create(self.path("log")).expect("a log");
        let daemon = Command::new(program("skep"))
            .arg("daemon")
            .args(self.options())
            .args(&self.more)
            .stderr(log)
            .process_group(0)
            .spawn();
        self.daemon = Some(daemon.expect("it starts"));
        until("the daemon answers", secs(60), || {
            let shown = self.docker(&["info"]);
            let log = || std::fs::read_to_string(self.path("log")).unwrap_or_default();
            if shown.ok { Ok(()) } else { Err(shown.err + &log()) }
        });
    }

    /// Kills the daemon's own containerd, which the daemon starts again.
    fn lose_containerd(&self) {
        kill_containerd(Path::new(&self.path("run")));
        until("containerd is back", secs(60), || {
            let shown = self.docker(&["run", "--rm", "nginx:latest", "true"]);
            if shown.ok { Ok(()) } else { Err(shown.err) }
        });
    }

    /// Ends the daemon as a service manager does.
    fn stop(&mut self) {
        let mut daemon = self.daemon.take().expect("it runs");
        let pid = Pid::from_raw(daemon.id().try_into().expect("a small number"));
        kill(pid, Signal::SIGTERM).expect("it runs");
        assert!(daemon.wait().expect("it is ours").success());
    }

    /// Takes the node off, by what its daemon noted.
    fn uninstall(&self, more: &[&str]) -> Shown {
        run(program("skep"), &[&["uninstall", "--data", &self.path("data")], more].concat())
    }

    fn docker(&self, arguments: &[&str]) -> Shown {
        let host = format!("unix://{}", self.path("docker.sock"));
        run("docker", &[&["--host", &host], arguments].concat())
    }

    /// What the kernel holds: in the namespace, of cgroups, of mounts, of processes.
    fn held(&self) -> Vec<String> {
        let here = |text: &str| -> Vec<String> {
            let mine = |line: &&str| line.contains(&self.name) && !line.contains("netns");
            text.lines().filter(mine).map(str::to_owned).collect()
        };
        let netns = |arguments: &[&str]| {
            run("ip", &[&["netns", "exec", &self.name], arguments].concat()).good()
        };
        let mut held = vec![
            netns(&["ip", "-o", "link"]),
            netns(&["ip", "rule"]),
            netns(&["ip", "route", "show", "table", "all"]),
            netns(&["nft", "list", "tables"]),
        ];
        held.extend(self.cgroups());
        held.extend(here(&std::fs::read_to_string("/proc/self/mountinfo").expect("mounts")));
        held.extend(here(&run("ps", &["-eo", "args"]).good()));
        held
    }

    fn cgroups(&self) -> Vec<String> {
        let find = ["/sys/fs/cgroup", "-maxdepth", "3", "-name", &self.name];
        run("find", &find).out.lines().map(str::to_owned).collect()
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        if let Some(mut daemon) = self.daemon.take() {
            daemon.kill().ok();
            daemon.wait().ok();
        }
        // It may have noted nothing.
        let options = self.options();
        let options: Vec<&str> = options.iter().map(String::as_str).collect();
        run(program("skep"), &[&["uninstall", "--purge"], &options[..]].concat());
        run("ip", &["netns", "del", &self.name]);
    }
}

#[test]
fn nothing_is_left_of_a_node_that_is_taken_off() {
    let mut machine = Machine::new();
    let before = machine.held();
    machine.start();
    let tar = images().join("nginx.tar").display().to_string();
    machine.docker(&["load", "--input", &tar]).good();

    // While nothing runs, a daemon that ends leaves no cgroup, and no link where Docker's would be.
    let socket = machine.path("docker.sock");
    let see = ["run", "--rm", "--volume", &[&socket, ":/docker.sock"].concat(), "nginx:latest"];
    machine.docker(&[&see[..], &["test", "-S", "/docker.sock"]].concat()).good();
    assert!(!machine.cgroups().is_empty(), "the container was in a cgroup");
    machine.stop();
    assert_eq!(machine.cgroups(), Vec::<String>::new());
    assert!(std::fs::symlink_metadata(&socket).is_err());

    machine.start();
    machine.lose_containerd();
    machine.docker(&["swarm", "init", "--advertise-addr", "127.0.0.1"]).good();
    let web = ["service", "create", "--name", "web", "--publish", "8080:80", "nginx:latest"];
    machine.docker(&web).good();
    machine.docker(&["run", "--detach", "nginx:latest"]).good();
    let refused = machine.uninstall(&[]).bad();
    assert!(refused.contains("stop the daemon first"), "{refused}");

    machine.stop();
    assert!(!machine.cgroups().is_empty(), "containers go on while the daemon is away");
    let said = machine.uninstall(&[]).good();
    assert!(said.contains("--purge") && said.contains("still in a cluster"), "{said}");
    assert_eq!(machine.held(), before);
    assert!(!Path::new(&machine.path("run")).exists());
    assert!(PathBuf::from(machine.path("data/state.json")).exists(), "data stays");

    // What stays is used again.
    machine.start();
    assert!(machine.docker(&["images"]).good().contains("nginx"));
    until("the service runs again", secs(60), || {
        let shown = machine.docker(&["service", "ls", "--format", "{{.Replicas}}"]);
        if shown.out.trim() == "1/1" { Ok(()) } else { Err(shown.out + &shown.err) }
    });
    machine.stop();
    machine.uninstall(&["--purge"]).good();
    assert_eq!(machine.held(), before);
    assert!(!Path::new(&machine.path("data")).exists());
}

/// A containerd that is not the daemon's.
struct Foreign {
    process: Child,
    folder: tempfile::TempDir,
}

impl Foreign {
    #[expect(clippy::disallowed_methods, reason = "tests run programs")]
    fn start() -> Self {
        let folder = tempfile::Builder::new().prefix("skep-foreign").tempdir().expect("a folder");
        let path = |name: &str| folder.path().join(name).display().to_string();
        let config = format!(
            "version = 2\nroot = {:?}\nstate = {:?}\n\
             disabled_plugins = [\"io.containerd.grpc.v1.cri\"]\n[grpc]\n  address = {:?}\n",
            path("root"),
            path("state"),
            path("socket"),
        );
        std::fs::write(path("config.toml"), config).expect("a file");
        let log = std::fs::File::create(path("log")).expect("a log");
        let arguments = ["--config", &path("config.toml")];
        let process = Command::new("containerd").args(arguments).stderr(log).spawn();
        let foreign = Self { process: process.expect("it starts"), folder };
        until("containerd answers", secs(30), || match foreign.ctr(&["version"]) {
            shown if shown.ok => Ok(()),
            shown => Err(shown.err),
        });
        foreign
    }

    fn socket(&self) -> String {
        self.folder.path().join("socket").display().to_string()
    }

    fn ctr(&self, arguments: &[&str]) -> Shown {
        run("ctr", &[&["--address", &self.socket(), "--namespace", "shared"], arguments].concat())
    }

    /// What a list of `ctr` names.
    fn list(&self, what: &str) -> Vec<String> {
        let shown = self.ctr(&[what, "list", "--quiet"]).good();
        shown.lines().map(str::to_owned).collect()
    }
}

impl Drop for Foreign {
    fn drop(&mut self) {
        for task in self.list("task") {
            self.ctr(&["task", "kill", "--all", "--signal", "KILL", &task]);
            until("a task ends", secs(20), || match self.ctr(&["task", "delete", &task]) {
                shown if shown.ok => Ok(()),
                shown => Err(shown.err),
            });
        }
        self.process.kill().ok();
        self.process.wait().ok();
    }
}

#[test]
fn a_containerd_of_somebody_else_is_left_without_anything_of_ours() {
    let mut machine = Machine::new();
    let foreign = Foreign::start();
    let before = machine.held();
    let more = ["--containerd", &foreign.socket(), "--containerd-namespace", "shared"];
    machine.more = more.map(str::to_owned).to_vec();
    machine.start();
    let tar = images().join("nginx.tar").display().to_string();
    machine.docker(&["load", "--input", &tar]).good();
    machine.docker(&["run", "--detach", "--publish", "8080:80", "nginx:latest"]).good();
    // Somebody else's, in the same namespace.
    foreign.ctr(&["image", "import", "--base-name", "theirs", &tar]).good();
    let image = foreign.list("image").into_iter().find(|name| !name.starts_with("sha256:"));
    let image = image.expect("an image");
    foreign.ctr(&["run", "--detach", &image, "theirs", "sleep", "1000000"]).good();
    assert_eq!(foreign.list("task").len(), 2);

    machine.stop();
    machine.uninstall(&[]).good();
    assert_eq!(foreign.list("task"), ["theirs"]);
    assert_eq!(machine.held(), before);

    machine.start();
    machine.docker(&["run", "--detach", "nginx:latest"]).good();
    machine.stop();
    machine.uninstall(&["--purge"]).good();
    assert_eq!(foreign.list("container"), ["theirs"]);
    assert_eq!(machine.held(), before);
}

#[test]
fn the_service_unit_is_one_that_systemd_understands() {
    let text = std::fs::read_to_string(
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../../packaging/skep.service"),
    );
    let text = text.expect("the unit");
    // Else systemd ends the containers with the daemon, or bounds how many there may be.
    for line in ["KillMode=process", "TasksMax=infinity", "Delegate=yes", "Type=notify"] {
        assert!(text.lines().any(|have| have == line), "{line} is missing");
    }
    let start = text.lines().find_map(|line| line.strip_prefix("ExecStart=")).expect("a command");
    let (program, options) = start.split_once(" daemon ").expect("the daemon");
    // `--help` is not printed for options that are not there.
    let options: Vec<&str> = options.split(' ').collect();
    let shown = run(e2e::program("skep"), &[&["daemon"], &options[..], &["--help"]].concat());
    assert!(shown.good().contains("--docker-socket"));
    if !Path::new("/usr/bin/systemd-analyze").exists() {
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let unit = folder.path().join("skep.service");
    let here = e2e::program("skep").display().to_string();
    std::fs::write(&unit, text.replace(program, &here)).expect("a unit");
    let shown = run("systemd-analyze", &["verify", "--man=no", &unit.display().to_string()]);
    let complaints: Vec<&str> = shown.err.lines().filter(|line| line.contains("skep")).collect();
    assert!(shown.ok && complaints.is_empty(), "{}", shown.err);
}
