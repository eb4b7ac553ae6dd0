//! A lab for one test.

use crate::http::{self, Answer, page};
use crate::{Shown, managers, until};
use std::io::Write;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

/// A lab of real daemons, under a name and in folders of its own. Dropped, it is taken down.
pub struct Lab {
    skep: PathBuf,
    name: String,
    folder: PathBuf,
    /// The machine's address on the underlay; the nodes have the next ones.
    machine: Ipv4Addr,
    docker: PathBuf,
    managers: u8,
}

fn told(command: &mut Command, input: &str) -> Shown {
    let piped = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = piped.spawn().expect("a client starts");
    let mut keyboard = child.stdin.take().expect("it has an input");
    // One that has ended does not want to hear it.
    drop(keyboard.write_all(input.as_bytes()));
    drop(keyboard);
    child.wait_with_output().expect("a client ends").into()
}

impl Lab {
    /// Brings a lab of `nodes` nodes up, with `images` (names of tars in target/images) loaded.
    ///
    /// # Panics
    /// When that fails.
    pub fn up(nodes: u8, images: &[&str]) -> Self {
        let lab = Self::with_managers(nodes, managers::wanted().min(nodes), images);
        if 1 < lab.managers {
            lab.skep(&["raft", "transfer", "node-2"]).good();
        }
        lab
    }

    /// The same, where the first `managers` nodes are managers.
    ///
    /// # Panics
    /// When that fails.
    pub fn with_managers(nodes: u8, managers: u8, images: &[&str]) -> Self {
        Self::of_release(&program("skep"), (nodes, managers), images)
    }

    /// The same where daemons are of another release: nodes, and how many of the first are managers.
    ///
    /// # Panics
    /// When that fails.
    pub fn of_release(release: &Path, (nodes, managers): (u8, u8), images: &[&str]) -> Self {
        let skep = program("skep");
        let name = own_name();
        let folder = std::env::temp_dir().join(format!("skep-e2e-{name}"));
        std::fs::create_dir_all(&folder).expect("a folder for the lab");
        let (machine, docker) = (Ipv4Addr::UNSPECIFIED, docker_cli());
        let mut lab = Self { skep, name, folder, machine, docker, managers };
        // A process of the same number that was aborted may have left one behind.
        lab.lab(&["down"]).good();
        let (nodes, managers) = (nodes.to_string(), managers.to_string());
        lab.lab_by(release, &["up", "--nodes", &nodes, "--managers", &managers]).good();
        lab.machine = lab.noted_machine();
        for image in images {
            let tar = self::images().join(format!("{image}.tar"));
            lab.lab(&["load", &tar.display().to_string()]).good();
        }
        lab
    }

    /// Runs a verb of `skep lab`.
    ///
    /// # Panics
    /// When skep cannot be started.
    pub fn lab(&self, arguments: &[&str]) -> Shown {
        self.lab_by(&self.skep, arguments)
    }

    /// The same by another release, whose daemons are started then.
    ///
    /// # Panics
    /// When it cannot be started.
    pub fn lab_by(&self, skep: &Path, arguments: &[&str]) -> Shown {
        self.lab_command(skep, arguments).output().expect("skep starts").into()
    }

    /// The same by this release, in an environment that daemons are started in, too.
    ///
    /// # Panics
    /// When skep cannot be started.
    pub fn lab_in(&self, environment: &[(&str, &str)], arguments: &[&str]) -> Shown {
        let mut command = self.lab_command(&self.skep, arguments);
        command.envs(environment.iter().copied()).output().expect("skep starts").into()
    }

    #[expect(clippy::disallowed_methods, reason = "tests run programs")]
    fn lab_command(&self, skep: &Path, arguments: &[&str]) -> Command {
        let data = self.folder.join("data");
        let run = self.folder.join("run");
        let mut command = Command::new(skep);
        command
            .args(["lab", "--name", &self.name])
            .arg("--data")
            .arg(data)
            .arg("--run")
            .arg(run)
            .args(arguments);
        command
    }

    /// The lab's own folder, with `data` and `run` in it.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// A command in a node's network namespace, to be started.
    #[expect(clippy::disallowed_methods, reason = "tests run programs")]
    pub fn in_node(&self, node: &str, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.skep);
        command.args(["lab", "--name", &self.name, "--data"]).arg(self.folder.join("data"));
        command.arg("--run").arg(self.folder.join("run")).args(["exec", node]).args(arguments);
        command
    }

    /// Kills the lab's containerd, as a bug of its own would.
    ///
    /// # Panics
    /// When it does not run.
    pub fn kill_containerd(&self) {
        kill_containerd(&self.folder.join("run"));
    }

    /// The docker socket of a node.
    pub fn socket(&self, node: u8) -> PathBuf {
        self.folder.join(format!("run/node-{node}/docker.sock"))
    }

    /// The address of a node on the underlay; of the machine itself for number 0.
    pub fn address(&self, node: u8) -> Ipv4Addr {
        let [first, second, third, last] = self.machine.octets();
        Ipv4Addr::new(first, second, third, last + node)
    }

    /// A published port of a node, as `ADDRESS:PORT`.
    pub fn at(&self, node: u8, port: u16) -> String {
        format!("{}:{port}", self.address(node))
    }

    /// A published port at the machine's loopback address that leads to this lab.
    pub fn localhost(&self, port: u16) -> String {
        let [_, second, third, _] = self.machine.octets();
        format!("127.{second}.{third}.1:{port}")
    }

    fn noted_machine(&self) -> Ipv4Addr {
        let noted = std::fs::read_to_string(self.folder.join("data/subnet"));
        let noted = noted.expect("a lab that is up has noted its subnet");
        let network = noted.split('/').next().and_then(|address| address.parse::<Ipv4Addr>().ok());
        let [first, second, third, _] = network.expect("a subnet").octets();
        Ipv4Addr::new(first, second, third, 1)
    }

    /// The containerd namespace of a node, and its network namespace below `/run/netns`.
    pub fn namespace(&self, node: u8) -> String {
        format!("skep-{}-node-{node}", self.name)
    }

    /// The cgroup of the whole lab, which goes with it.
    pub fn cgroup(&self) -> String {
        format!("/skep-{}", self.name)
    }

    /// The socket of the lab's containerd.
    pub fn containerd(&self) -> PathBuf {
        self.folder.join("run/containerd/containerd.sock")
    }

    /// Runs the docker CLI against a node.
    ///
    /// # Panics
    /// When it cannot be started.
    pub fn docker_at(&self, node: u8, arguments: &[&str]) -> Shown {
        let mut docker = self.clients_program(node, &self.docker);
        docker.args(arguments).output().expect("the docker CLI starts").into()
    }

    /// The same, with something at its standard input.
    ///
    /// # Panics
    /// When it cannot be started.
    pub fn docker_told(&self, node: u8, arguments: &[&str], input: &str) -> Shown {
        let mut docker = self.clients_program(node, &self.docker);
        told(docker.args(arguments), input)
    }

    /// Runs skep's own CLI against a node, with something at its standard input.
    ///
    /// # Panics
    /// When it cannot be started.
    pub fn skep_told(&self, node: u8, arguments: &[&str], input: &str) -> Shown {
        let mut skep = self.clients_program(node, &self.skep);
        told(skep.args(arguments), input)
    }

    /// A program that finds a node by Docker's variables, to be started.
    #[expect(clippy::disallowed_methods, reason = "tests run programs")]
    fn clients_program(&self, node: u8, program: &Path) -> Command {
        let mut command = Command::new(program);
        command
            .env("DOCKER_HOST", format!("unix://{}", self.socket(node).display()))
            // Settings of the person who runs the tests are not for them.
            .env("DOCKER_CONFIG", self.folder.join("docker-config"))
            .env_remove("DOCKER_CONTEXT");
        command
    }

    /// A line for the shell at a terminal of its own, to be started; `docker` in it asks the
    /// manager. The standard input is the keys, the output what the terminal shows.
    pub fn at_terminal(&self, line: &str) -> Command {
        let mut script = self.clients_program(1, Path::new("script"));
        script.args(["--quiet", "--flush", "--command", line, "/dev/null"]);
        script
    }

    /// Asks a node's API; waits for the end of the answer.
    ///
    /// # Panics
    /// When it does not come within a minute.
    pub fn ask(&self, node: u8, method: &str, target: &str) -> Answer {
        let answer = self.ask_for(node, method, target, Duration::from_mins(1));
        answer.unwrap_or_else(|| panic!("{method} {target}: no end of the answer"))
    }

    /// Asks a node's API; `None` where nothing has come for so long, and the answer has not ended.
    ///
    /// # Panics
    /// When the daemon is not there.
    pub fn ask_for(&self, node: u8, method: &str, target: &str, limit: Duration) -> Option<Answer> {
        let answer = self.try_to_ask(node, (method, target), "", limit);
        answer.unwrap_or_else(|error| panic!("{method} {target}: {error}"))
    }

    /// Sends JSON to a node's API; waits for the end of the answer.
    ///
    /// # Panics
    /// When it does not come within a minute.
    pub fn send(&self, node: u8, (method, target): (&str, &str), json: &str) -> Answer {
        let limit = Duration::from_mins(1);
        let answer = self.try_to_ask(node, (method, target), json, limit);
        answer
            .unwrap_or_else(|error| panic!("{method} {target}: {error}"))
            .unwrap_or_else(|| panic!("{method} {target}: no end of the answer"))
    }

    /// Asks a daemon that may be away, with a body or an empty one.
    ///
    /// # Errors
    /// Where it is, or goes away on the way.
    pub fn try_to_ask(
        &self,
        node: u8,
        what: (&str, &str),
        body: &str,
        limit: Duration,
    ) -> std::io::Result<Option<Answer>> {
        http::ask(&self.socket(node), what, body, limit)
    }

    /// How many of the first nodes were made managers.
    pub fn managers(&self) -> u8 {
        self.managers
    }

    /// The process of a node's daemon, as the lab has noted it.
    pub fn pid(&self, node: u8) -> Option<i32> {
        let noted = self.folder.join(format!("run/node-{node}/daemon.pid"));
        std::fs::read_to_string(noted).ok()?.trim().parse().ok()
    }

    /// Runs the docker CLI against the manager.
    pub fn docker(&self, arguments: &[&str]) -> Shown {
        self.docker_at(1, arguments)
    }

    /// Runs skep's own CLI against the manager.
    ///
    /// # Panics
    /// When it cannot be started.
    #[expect(clippy::disallowed_methods, reason = "tests run programs")]
    pub fn skep(&self, arguments: &[&str]) -> Shown {
        Command::new(&self.skep)
            .env("DOCKER_HOST", format!("unix://{}", self.socket(1).display()))
            .args(arguments)
            .output()
            .expect("skep starts")
            .into()
    }

    /// Waits until a service shows these replicas, e.g. `2/2`.
    ///
    /// # Panics
    /// When it does not within `limit`.
    pub fn converged(&self, service: &str, replicas: &str, limit: Duration) {
        until(&format!("{service} {replicas}"), limit, || {
            let filter = format!("name={service}");
            let shown = self.docker(&[
                "service",
                "ls",
                "--filter",
                &filter,
                "--format",
                "{{.Name}} {{.Replicas}}",
            ]);
            // Words may follow, e.g. how many a node may have.
            let wanted = |line: &str| line.split(' ').take(2).eq([service, replicas]);
            if shown.out.lines().any(wanted) {
                return Ok(());
            }
            let tasks = self.docker(&["service", "ps", "--no-trunc", service]);
            Err(shown.out + &shown.err + &tasks.out)
        });
    }

    /// What a template makes of a service, without the space around it.
    ///
    /// # Panics
    /// When there is no such service.
    pub fn service(&self, service: &str, template: &str) -> String {
        let inspect = ["service", "inspect", "--format", template, service];
        self.docker(&inspect).good().trim().to_owned()
    }

    /// The ids of the tasks of a service that are wanted, in an order that stays.
    ///
    /// # Panics
    /// When there is no such service.
    pub fn tasks(&self, service: &str) -> Vec<String> {
        let wanted = ["service", "ps", "-q", "--no-trunc", "--filter", "desired-state=running"];
        let shown = self.docker(&[&wanted[..], &[service]].concat()).good();
        let mut tasks: Vec<String> = shown.lines().map(str::to_owned).collect();
        tasks.sort();
        tasks
    }

    /// The tasks of a service, ended ones too: a line each of node, state and error.
    pub fn history(&self, service: &str) -> String {
        let format = "{{.Node}} {{.CurrentState}} {{.Error}}";
        self.docker(&["service", "ps", "--no-trunc", "--format", format, service]).out
    }

    /// Waits until the update of a service has ended in this state, e.g. `rollback_completed`.
    ///
    /// # Panics
    /// When it does not within `limit`.
    pub fn update_ends(&self, service: &str, state: &str, limit: Duration) {
        let template =
            "{{if .UpdateStatus}}{{.UpdateStatus.State}}: {{.UpdateStatus.Message}}{{end}}";
        until(&format!("the update of {service} {state}"), limit, || {
            let now = self.service(service, template);
            let ended = now.starts_with(&format!("{state}:"));
            if ended { Ok(()) } else { Err(now + "\n" + &self.history(service)) }
        });
    }

    /// Waits until a page answers at this address with these words in it.
    ///
    /// # Panics
    /// When none does within `limit`.
    pub fn says(address: &str, path: &str, words: &str, limit: Duration) {
        until(&format!("{address}{path} says {words}"), limit, || {
            match page(address, path, Duration::from_secs(5)) {
                Ok(page) if page.status == 200 && page.body.contains(words) => Ok(()),
                other => Err(format!("{other:?}")),
            }
        });
    }

    /// Every running container of a service with the number of its node.
    pub fn containers(&self, nodes: u8, service: &str) -> Vec<(u8, String)> {
        let filter = format!("label=com.docker.swarm.service.name={service}");
        (1..=nodes)
            .flat_map(|node| {
                let shown = self.docker_at(node, &["ps", "-q", "--no-trunc", "--filter", &filter]);
                let ids: Vec<String> = shown.out.lines().map(str::to_owned).collect();
                ids.into_iter().map(move |id| (node, id))
            })
            .collect()
    }

    /// The running containers of a node, each with the time at which it was started.
    pub fn started(&self, node: u8) -> String {
        let all = self.docker_at(node, &["ps", "--quiet", "--no-trunc"]).good();
        let inspect = ["inspect", "--format", "{{.Id}} {{.State.StartedAt}}"];
        let mut ids: Vec<&str> = all.lines().collect();
        ids.sort_unstable();
        assert!(!ids.is_empty(), "nothing runs on node-{node}");
        self.docker_at(node, &[&inspect[..], &ids].concat()).good()
    }

    /// Runs a shell command inside a container.
    pub fn inside(&self, container: &(u8, String), command: &str) -> Shown {
        self.docker_at(container.0, &["exec", &container.1, "sh", "-c", command])
    }

    /// Takes the lab down and tells what is left of it.
    pub fn down(self) -> Vec<String> {
        self.lab(&["down"]).good();
        self.leftovers()
    }

    /// What is there of this lab: namespaces, links, routes, mounts, cgroups, processes. What other
    /// labs and daemons have on this machine is theirs.
    fn leftovers(&self) -> Vec<String> {
        let folder = self.folder.display().to_string();
        let prefix = format!("skep-{}", self.name);
        let [first, second, third, _] = self.machine.octets();
        let subnet = format!("{first}.{second}.{third}.");
        let me = std::process::id().to_string();
        let here = |line: &str| line.contains(&folder);
        let named = |line: &str| line.contains(&prefix);
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        let groups = output("find", &["/sys/fs/cgroup", "-maxdepth", "3", "-name", &prefix]);
        let mut left = lines("namespace", &output("ip", &["netns", "list"]), named);
        left.extend(lines("link", &output("ip", &["-o", "link"]), named));
        left.extend(lines("route", &output("ip", &["route"]), |line| line.contains(&subnet)));
        left.extend(lines("mount", &mounts, here));
        left.extend(lines("process", &output("ps", &["-eo", "pid,args"]), |line| {
            here(line) && !line.trim_start().starts_with(&me)
        }));
        left.extend(lines("cgroup", &groups, |_| true));
        left
    }

    /// The end of every daemon's log, for a test that failed.
    fn logs(&self) -> String {
        let mut text = String::new();
        for node in 1..=9 {
            let path = self.folder.join(format!("data/node-{node}/daemon.log"));
            let Ok(log) = std::fs::read_to_string(&path) else { continue };
            let lines: Vec<&str> = log.lines().collect();
            let tail = lines[lines.len().saturating_sub(60)..].join("\n");
            text += &["--- node-", &node.to_string(), "\n", &tail, "\n"].concat();
        }
        text
    }
}

impl Drop for Lab {
    #[expect(clippy::print_stderr, reason = "a failed test says why")]
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}", self.logs());
        }
        let down = self.lab(&["down"]);
        if !down.ok {
            eprintln!("skep lab down failed: {}{}", down.out, down.err);
        }
        if let Err(error) = std::fs::remove_dir_all(&self.folder)
            && error.kind() != std::io::ErrorKind::NotFound
        {
            eprintln!("cannot remove {}: {error}", self.folder.display());
        }
    }
}

/// Kills the containerd of whoever has this run folder.
///
/// # Panics
/// When it does not run.
pub fn kill_containerd(run: &Path) {
    let config = run.join("containerd/config.toml").display().to_string();
    let ours = |program: &str, arguments: &[String]| {
        program == "containerd" && arguments.contains(&config)
    };
    let containerd = host::find(ours).into_iter().next().expect("there is a containerd");
    containerd.signal(nix::sys::signal::Signal::SIGKILL);
}

/// A program of this build.
///
/// # Panics
/// Where the caller is no test.
pub fn program(name: &str) -> PathBuf {
    let test = std::env::current_exe().expect("a test has a file");
    let folder = test.parent().and_then(Path::parent).expect("tests lie in target/PROFILE/deps");
    let inner = folder.join(name);
    // The benchmark lies beside the binary, tests one folder deeper.
    if inner.exists() { inner } else { test.with_file_name(name) }
}

/// Where the demo images are.
pub fn images() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/images")
}

/// The docker CLI of this machine.
fn docker_cli() -> PathBuf {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .map(|folder| folder.join("docker"))
        .find(|program| program.is_file())
        .expect("the docker CLI is installed (scripts/install.sh does it)")
}

/// What a program prints; nothing where it cannot be run.
#[expect(clippy::disallowed_methods, reason = "tests run programs")]
fn output(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output();
    output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default()
}

fn lines(what: &str, text: &str, ours: impl Fn(&str) -> bool) -> Vec<String> {
    text.lines().filter(|line| ours(line)).map(|line| format!("{what}: {line}")).collect()
}

/// A name that no other lab of this machine has: the process's number and a letter.
fn own_name() -> String {
    static LABS: AtomicU8 = AtomicU8::new(b'a');
    let letter = char::from(LABS.fetch_add(1, Ordering::Relaxed));
    format!("t{}{letter}", std::process::id())
}
