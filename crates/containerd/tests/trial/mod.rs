//! A containerd of its own for each test, in a temporary directory, which is gone afterwards also
//! when the test fails.
//!
//! Needs root, containerd, runc, and a busybox: /bin/busybox of Debian's package busybox-static,
//! or target/images/busybox.tar, which `images/build.sh busybox` makes.

#![allow(dead_code, reason = "each test file uses its own part of this")]
#![allow(unreachable_pub, reason = "a module of test files")]
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "all of it is test code")]

use containerd::{Config, Containerd, Directories, OwnContainerd, Patience};
use engine::{Happening, Runtime, State, Stdio};
use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use serde_json::{Value, json};
use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

pub const IMAGE: &str = "docker.io/library/bench:latest";
const DEADLINE: Duration = Duration::from_secs(20);

/// Says whether the test can run here, and if not, why.
fn ready() -> bool {
    if !nix::unistd::geteuid().is_root() {
        println!("skipped: needs root");
        return false;
    }
    for program in ["containerd", "runc"] {
        assert!(program_exists(program), "{program} is missing: scripts/install.sh installs it");
    }
    true
}

pub fn program_exists(name: &str) -> bool {
    let folders = ["/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"];
    folders.iter().any(|folder| Path::new(folder).join(name).exists())
}

/// A containerd for a test. Dropping it ends everything.
pub struct Bench {
    pub directories: Directories,
    pub patience: Patience,
    pub directory: tempfile::TempDir,
}

impl Bench {
    /// A directories for a containerd. `None`: the test cannot run here.
    pub fn new() -> Option<Self> {
        if !ready() {
            return None;
        }
        let prefix = format!("skt-{}-", std::process::id());
        let directory = tempfile::Builder::new().prefix(&prefix).tempdir().unwrap();
        let directories = Directories {
            root: directory.path().join("root"),
            state: directory.path().join("state"),
            program: None,
        };
        Some(Self { directories, patience: Patience::USUAL, directory })
    }

    /// A containerd that runs. `None`: the test cannot run here.
    pub async fn started() -> Option<Self> {
        let bench = Self::new()?;
        bench.start().await;
        Some(bench)
    }

    pub async fn start(&self) -> OwnContainerd {
        OwnContainerd::start(self.directories.clone(), self.patience).await.unwrap()
    }

    pub async fn connect(&self, namespace: &str) -> Containerd {
        self.connect_with(namespace, Vec::new()).await
    }

    pub async fn connect_with(
        &self,
        namespace: &str,
        mirrors: Vec<containerd::Mirror>,
    ) -> Containerd {
        let config = Config {
            socket: self.directories.socket(),
            namespace: namespace.to_owned(),
            data: self.directory.path().join("spool"),
            oci_runtime: None,
            runc_root: Some(self.directories.runc_root()),
            mirrors,
            patience: self.patience,
        };
        Containerd::connect(config).await.unwrap()
    }

    /// Makes and starts a container that runs a shell command. Returns its process and its output.
    pub async fn run(&self, runtime: &Containerd, id: &str, command: &str) -> (u32, Pipes) {
        let pipes = self.pipes(id);
        runtime.prepare(id.to_owned(), IMAGE.to_owned()).await.unwrap();
        let started = runtime.start(id.to_owned(), spec(id, command), pipes.stdio.clone());
        (started.await.unwrap(), pipes)
    }

    pub fn pipes(&self, name: &str) -> Pipes {
        Pipes::new(&self.directory.path().join("pipes").join(name))
    }

    /// Asserts that of no container anything is left: shims, mounts, runc's state.
    pub fn check_nothing_left(&self) {
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
        let here = self.directory.path().to_str().unwrap();
        let left: Vec<&str> = mounts.lines().filter(|line| line.contains(here)).collect();
        assert!(left.is_empty(), "mounts are left: {left:?}");
        assert_eq!(self.shims(), 0, "shims are left");
        let runc = fs::read_dir(self.directories.runc_root()).into_iter().flatten().flatten();
        let containers = runc.flat_map(|namespace| fs::read_dir(namespace.path()).unwrap());
        assert_eq!(containers.count(), 0, "runc has containers left");
    }

    pub fn shims(&self) -> usize {
        let socket = self.directories.socket();
        let lines = fs::read_dir("/proc").unwrap().flatten();
        let lines = lines.filter_map(|entry| fs::read(entry.path().join("cmdline")).ok());
        let ours = |line: &Vec<u8>| {
            let line = String::from_utf8_lossy(line).replace('\0', " ");
            line.contains("containerd-shim") && line.contains(socket.to_str().unwrap())
        };
        lines.filter(ours).count()
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        let directories = self.directories.clone();
        // The test's own runtime is busy with us.
        let ended = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.unwrap().block_on(containerd::stop(&directories))
        });
        let outcome = ended.join();
        // runc removes the cgroups of containers, but not the one above them.
        let hierarchies = fs::read_dir("/sys/fs/cgroup").into_iter().flatten().flatten();
        let folders =
            hierarchies.map(|entry| entry.path()).chain([PathBuf::from("/sys/fs/cgroup")]);
        for folder in folders {
            let _not_there = fs::remove_dir(folder.join(format!("skt-{}", std::process::id())));
        }
        if !std::thread::panicking() {
            outcome.unwrap().unwrap();
        }
    }
}

/// The FIFOs of a process, held open as the engine holds them.
pub struct Pipes {
    pub stdio: Stdio,
    out: fs::File,
    err: fs::File,
}

impl Pipes {
    fn new(directory: &Path) -> Self {
        fs::create_dir_all(directory).unwrap();
        let open = |name: &str| {
            let path = directory.join(name);
            nix::unistd::mkfifo(&path, nix::sys::stat::Mode::from_bits_truncate(0o600)).unwrap();
            let flags = nix::fcntl::OFlag::O_NONBLOCK.bits();
            let mut options = fs::OpenOptions::new();
            let file = options.read(true).write(true).custom_flags(flags).open(&path).unwrap();
            (path, file)
        };
        let (out_path, out) = open("out");
        let (err_path, err) = open("err");
        let stdio =
            Stdio { stdin: None, stdout: Some(out_path), stderr: Some(err_path), terminal: false };
        Self { stdio, out, err }
    }

    /// Adds a standard input; what is written to the file goes there. It stays open until dropped.
    pub fn with_stdin(&mut self) -> fs::File {
        let path = self.stdio.stdout.as_ref().unwrap().with_file_name("in");
        nix::unistd::mkfifo(&path, nix::sys::stat::Mode::from_bits_truncate(0o600)).unwrap();
        let file = fs::OpenOptions::new().read(true).write(true).open(&path).unwrap();
        self.stdio.stdin = Some(path);
        file
    }

    /// Reads standard output until something was said, and returns all of it.
    pub async fn read_until(&mut self, wanted: &str) -> String {
        let mut said = String::new();
        while !said.contains(wanted) {
            said.push_str(&self.read().0);
            tokio::task::yield_now().await;
        }
        said
    }

    /// What was written so far, to stdout and to stderr.
    pub fn read(&mut self) -> (String, String) {
        let mut text = [String::new(), String::new()];
        for (file, text) in [&mut self.out, &mut self.err].into_iter().zip(&mut text) {
            let mut buffer = [0; 4096];
            while let Ok(count) = file.read(&mut buffer) {
                text.push_str(&String::from_utf8_lossy(&buffer[..count]));
            }
        }
        let [out, err] = text;
        (out, err)
    }
}

/// A specification that runs a shell command.
pub fn spec(id: &str, command: &str) -> Value {
    json!({
        "ociVersion": "1.0.2",
        "process": {
            "user": { "uid": 0, "gid": 0 },
            "args": ["/bin/sh", "-c", command],
            "env": ["PATH=/bin"],
            "cwd": "/",
        },
        "root": { "path": "", "readonly": false },
        "hostname": "bench",
        "mounts": [
            { "destination": "/proc", "type": "proc", "source": "proc" },
            { "destination": "/dev", "type": "tmpfs", "source": "tmpfs",
              "options": ["nosuid", "mode=755"] },
            { "destination": "/dev/pts", "type": "devpts", "source": "devpts",
              "options": ["newinstance", "ptmxmode=0666", "mode=0620"] },
        ],
        "linux": {
            "cgroupsPath": format!("/skt-{}/{id}", std::process::id()),
            "namespaces": [
                { "type": "pid" }, { "type": "ipc" }, { "type": "uts" }, { "type": "mount" },
                { "type": "network" },
            ],
        },
    })
}

/// The process of an `exec`.
pub fn process(command: &str) -> Value {
    json!({
        "user": { "uid": 0, "gid": 0 },
        "args": ["/bin/sh", "-c", command],
        "env": ["PATH=/bin"],
        "cwd": "/",
    })
}

/// What happens to a node's containers from now on.
pub async fn happenings(runtime: &Containerd) -> BoxStream<'static, Happening> {
    let mut happenings = runtime.happenings();
    assert_eq!(happenings.next().await, Some(Happening::Resubscribed));
    happenings
}

/// Waits for the end of a container, and returns its code.
pub async fn ended(happenings: &mut BoxStream<'static, Happening>, wanted: &str) -> i32 {
    let wait = async {
        loop {
            match happenings.next().await.expect("the stream never ends") {
                Happening::Ended { id, exit } if id == wanted => return exit.code,
                _ => {}
            }
        }
    };
    tokio::time::timeout(DEADLINE, wait).await.expect("the container does not end")
}

/// Polls until something holds.
pub async fn until<F: Future<Output = bool>>(what: &str, holds: impl Fn() -> F) {
    let poll = async {
        while !holds().await {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(DEADLINE, poll).await.unwrap_or_else(|_| panic!("not in time: {what}"));
}

pub async fn is_running(runtime: &Containerd, id: &str) -> bool {
    matches!(runtime.state(id.to_owned()).await.unwrap(), Some(State::Running { .. }))
}

/// Says whether a process is gone, or only waits for its parent to notice.
pub fn has_ended(pid: i32) -> bool {
    fs::read(format!("/proc/{pid}/cmdline")).map_or(true, |line| line.is_empty())
}

/// Says whether every thread of a process has taken a SIGSTOP.
pub fn is_stopped(pid: i32) -> bool {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    threads.flatten().all(|thread| {
        let stat = fs::read_to_string(thread.path().join("stat")).unwrap_or_default();
        stat.rsplit(')').next().is_some_and(|rest| rest.trim_start().starts_with('T'))
    })
}

/// A containerd that runs, and a node of it that has the bench's image. `None`: the test cannot run
/// here.
pub async fn loaded() -> Option<(Bench, Containerd)> {
    let bench = Bench::started().await?;
    let runtime = bench.connect("one").await;
    load(&runtime).await;
    Some((bench, runtime))
}

/// Loads the image of the bench.
pub async fn load(runtime: &Containerd) -> engine::Image {
    let images = runtime.load(Box::pin(std::io::Cursor::new(archive()))).await.unwrap();
    images.into_iter().next().unwrap()
}

/// What `docker save` would write for the image of the bench.
pub fn archive() -> Vec<u8> {
    let (config, layer) = image();
    let manifest = json!([{ "Config": "config.json", "RepoTags": ["bench:latest"],
        "Layers": ["layer.tar"] }]);
    // The list comes last, as it does in archives that are written in one pass.
    tar_of(&[
        ("layer.tar", &layer),
        ("config.json", &config),
        ("manifest.json", manifest.to_string().as_bytes()),
    ])
}

/// Configuration and layer of an image with busybox in it.
pub fn image() -> (Vec<u8>, Vec<u8>) {
    let layer = rootfs();
    let config = json!({
        "architecture": if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" },
        "os": "linux",
        "config": { "Cmd": ["sh"], "Env": ["PATH=/bin"] },
        "rootfs": { "type": "layers", "diff_ids": [sha256(&layer)] },
    });
    (config.to_string().into_bytes(), layer)
}

/// A root file system with busybox and its names.
pub fn rootfs() -> Vec<u8> {
    let busybox = fs::read("/bin/busybox").expect("needs the package busybox-static");
    let mut tar = tar::Builder::new(Vec::new());
    for directory in ["bin/", "proc/", "dev/", "tmp/"] {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(tar::EntryType::Directory);
        header.set_mode(0o755);
        header.set_size(0);
        tar.append_data(&mut header, directory, std::io::empty()).unwrap();
    }
    let mut header = tar::Header::new_gnu();
    header.set_mode(0o755);
    header.set_size(busybox.len() as u64);
    tar.append_data(&mut header, "bin/busybox", busybox.as_slice()).unwrap();
    for name in ["sh", "echo", "sleep", "cat", "true", "false", "kill", "ls", "touch", "stty"] {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(tar::EntryType::Symlink);
        header.set_size(0);
        tar.append_link(&mut header, format!("bin/{name}"), "busybox").unwrap();
    }
    tar.into_inner().unwrap()
}

pub fn tar_of(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    for (path, content) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        tar.append_data(&mut header, path, *content).unwrap();
    }
    tar.into_inner().unwrap()
}

/// `gzip`
pub fn packed(content: &[u8]) -> Vec<u8> {
    let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    packed.write_all(content).unwrap();
    packed.finish().unwrap()
}

pub fn sha256(content: &[u8]) -> String {
    use sha2::Digest;
    use std::fmt::Write as _;
    let mut text = String::from("sha256:");
    for byte in sha2::Sha256::digest(content) {
        write!(text, "{byte:02x}").unwrap();
    }
    text
}

/// The demo's archive, where it was built.
pub fn demo_archive() -> Option<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).unwrap();
    Some(root.join("target/images/busybox.tar")).filter(|path| path.exists())
}
