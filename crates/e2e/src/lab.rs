//! A lab for one test.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// A lab of real daemons, in folders of its own. Dropped, it is taken down.
pub struct Lab {
    skep: PathBuf,
    folder: PathBuf,
    docker: PathBuf,
}

/// What a command printed.
#[derive(Clone, Debug)]
pub struct Shown {
    pub ok: bool,
    pub out: String,
    pub err: String,
}

impl From<Output> for Shown {
    fn from(output: Output) -> Self {
        Self {
            ok: output.status.success(),
            out: String::from_utf8_lossy(&output.stdout).into_owned(),
            err: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }
}

impl Shown {
    /// What was printed, where the command succeeded.
    ///
    /// # Panics
    /// Where it failed.
    pub fn good(self) -> String {
        assert!(self.ok, "{}{}", self.out, self.err);
        self.out
    }

    /// The message, where the command failed.
    ///
    /// # Panics
    /// Where it succeeded.
    pub fn bad(self) -> String {
        assert!(!self.ok, "should have failed: {}", self.out);
        self.err
    }
}

impl Lab {
    /// Brings a lab of `nodes` nodes up, with `images` (names of tars in target/images) loaded.
    ///
    /// # Panics
    /// When that fails.
    pub fn up(nodes: u8, images: &[&str]) -> Self {
        let folder = std::env::temp_dir().join(format!("skep-e2e-{}", std::process::id()));
        std::fs::create_dir_all(&folder).expect("a folder for the lab");
        let docker = docker_cli();
        let lab = Self { skep: binary("skep"), folder, docker };
        // A lab that an aborted test left behind would be in the way.
        lab.lab(&["down"]).good();
        lab.lab(&["up", "--nodes", &nodes.to_string()]).good();
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
    #[expect(clippy::disallowed_methods, reason = "tests run programs")]
    pub fn lab(&self, arguments: &[&str]) -> Shown {
        let data = self.folder.join("data");
        let run = self.folder.join("run");
        Command::new(&self.skep)
            .arg("lab")
            .arg("--data")
            .arg(data)
            .arg("--run")
            .arg(run)
            .args(arguments)
            .output()
            .expect("skep starts")
            .into()
    }

    /// The docker socket of a node.
    pub fn socket(&self, node: u8) -> PathBuf {
        self.folder.join(format!("run/node-{node}/docker.sock"))
    }

    /// The socket of the lab's containerd.
    pub fn containerd(&self) -> PathBuf {
        self.folder.join("run/containerd/containerd.sock")
    }

    /// Runs the docker CLI against a node.
    ///
    /// # Panics
    /// When it cannot be started.
    #[expect(clippy::disallowed_methods, reason = "tests run programs")]
    pub fn docker_at(&self, node: u8, arguments: &[&str]) -> Shown {
        Command::new(&self.docker)
            .env("DOCKER_HOST", format!("unix://{}", self.socket(node).display()))
            // Settings of the person who runs the tests are not for them.
            .env("DOCKER_CONFIG", self.folder.join("docker-config"))
            .env_remove("DOCKER_CONTEXT")
            .args(arguments)
            .output()
            .expect("the docker CLI starts")
            .into()
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

    /// Runs a shell command inside a container.
    pub fn inside(&self, container: &(u8, String), command: &str) -> Shown {
        self.docker_at(container.0, &["exec", &container.1, "sh", "-c", command])
    }

    /// Takes the lab down and tells what is left of it.
    pub fn down(self) -> Vec<String> {
        self.lab(&["down"]).good();
        leftovers(&self.folder)
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

/// A program of this build.
fn binary(name: &str) -> PathBuf {
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

/// What a lab has left behind: namespaces, links, mounts, cgroups, processes, tables.
#[expect(clippy::disallowed_methods, reason = "tests run programs")]
pub fn leftovers(folder: &Path) -> Vec<String> {
    let run = |program: &str, arguments: &[&str]| -> String {
        Command::new(program)
            .args(arguments)
            .output()
            .map(|output| String::from_utf8_lossy(&output.stdout).into_owned())
            .unwrap_or_default()
    };
    let mine = folder.display().to_string();
    let lines = |what: &str, text: String, ours: &dyn Fn(&str) -> bool| -> Vec<String> {
        text.lines().filter(|line| ours(line)).map(|line| format!("{what}: {line}")).collect()
    };
    let named = |line: &str| line.contains("skep");
    let here = |line: &str| line.contains(&mine);
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let me = std::process::id().to_string();
    let processes = run("ps", &["-eo", "pid,args"]);
    let mut left = lines("namespace", run("ip", &["netns", "list"]), &named);
    left.extend(lines("link", run("ip", &["-o", "link"]), &named));
    left.extend(lines("route", run("ip", &["route"]), &|line| line.contains("192.168.100.")));
    left.extend(lines("table", run("nft", &["list", "tables"]), &named));
    left.extend(lines("mount", mounts, &here));
    left.extend(lines("process", processes, &|line| {
        here(line) && !line.trim_start().starts_with(&me)
    }));
    let groups = run("find", &["/sys/fs/cgroup", "-maxdepth", "3", "-name", "skep*"]);
    left.extend(lines("cgroup", groups, &|_| true));
    left
}
