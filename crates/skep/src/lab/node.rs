//! One node of the lab: its daemon and its plug.

use super::layout::{Layout, Node};
use crate::client::Client;
use crate::daemon::options::CDI_SPEC_DIRS;
use crate::process::{end, running};
use anyhow::{Context, Result, bail};
use host::Process;
use nix::sys::signal::Signal;
use std::fs::{self, File};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

/// How long a daemon may take until its API answers.
const START_MAX: Duration = Duration::from_mins(1);
const POLL: Duration = Duration::from_millis(50);
/// How long the kernel may take to free the lock of a daemon that was killed.
const UNLOCK_MAX: Duration = Duration::from_secs(10);

/// A node asks the machine's name servers for a registry, and has no way to most of them: it does
/// not wait for long (resolv.conf(5)).
const RESOLVER: (&str, &str) = ("RES_OPTIONS", "timeout:1 attempts:1");

/// Starts this program in a process group of its own and notes its pid.
#[expect(clippy::disallowed_methods, reason = "the lab starts daemons")]
pub(super) fn launch(arguments: &[String], log: &Path, pid_file: &Path) -> Result<Process> {
    let program = std::env::current_exe().context("cannot find this program's own file")?;
    let output = File::options()
        .create(true)
        .append(true)
        .open(log)
        .with_context(|| format!("cannot write {}", log.display()))?;
    let child = linux::sealed(&mut Command::new(program))
        .args(arguments)
        .env(RESOLVER.0, RESOLVER.1)
        .stdin(Stdio::null())
        .stdout(output.try_clone()?)
        .stderr(output)
        .process_group(0)
        .spawn()
        .context("cannot start a daemon of the lab")?;
    fs::write(pid_file, child.id().to_string())
        .with_context(|| format!("cannot write {}", pid_file.display()))?;
    Process::with_pid(child.id().cast_signed())
        .with_context(|| format!("it ended at once: its log is {}", log.display()))
}

/// The process of a node's daemon.
pub(super) fn daemon(node: &Node) -> Option<Process> {
    running(&node.pid_file(), &node.data.display().to_string())
}

/// Starts a node's daemon, if it does not run, and waits until its API answers.
pub(super) async fn start(layout: &Layout, node: &Node, options: &[String]) -> Result<()> {
    let process = if let Some(process) = daemon(node) {
        if !options.is_empty() {
            bail!("the daemon of {0} runs already: `skep lab kill {0}` first", node.name);
        }
        process
    } else {
        fs::create_dir_all(&node.data)?;
        fs::create_dir_all(&node.run)?;
        let text = |path: PathBuf| path.display().to_string();
        let arguments = [
            "daemon".to_owned(),
            "--data".to_owned(),
            text(node.data.clone()),
            "--run".to_owned(),
            text(node.run.clone()),
            "--hostname".to_owned(),
            node.name.clone(),
            "--netns".to_owned(),
            text(node.netns()),
            "--resolv-conf".to_owned(),
            text(layout.resolv_conf()),
            "--containerd".to_owned(),
            text(layout.containerd().socket()),
            "--runc-root".to_owned(),
            text(layout.containerd().runc_root()),
            "--containerd-namespace".to_owned(),
            node.namespace.clone(),
            "--cgroup-parent".to_owned(),
            node.cgroup_parent.clone(),
            // Each node is a machine of its own.
            "--plugins".to_owned(),
            text(node.run.join("plugins")),
        ];
        let mut devices = CDI_SPEC_DIRS.map(str::to_owned).to_vec();
        devices.push(text(layout.cdi()));
        let devices = devices.into_iter().flat_map(|dir| ["--cdi-spec-dir".to_owned(), dir]);
        let devices: Vec<String> = devices.collect();
        let arguments = [&arguments[..], &devices, options].concat();
        launch(&arguments, &node.log(), &node.pid_file())?
    };
    let client = Client::unix(&node.socket());
    let deadline = tokio::time::sleep(START_MAX);
    tokio::pin!(deadline);
    while !client.answers().await {
        if !process.is_alive() {
            bail!("the daemon of {} ended: its log is {}", node.name, node.log().display());
        }
        tokio::select! {
            () = &mut deadline => bail!(
                "the daemon of {} does not answer: its log is {}",
                node.name,
                node.log().display()
            ),
            () = tokio::time::sleep(POLL) => {}
        }
    }
    Ok(())
}

/// Ends a node's daemon as a power cut would. Another one can start in its place at once.
pub(super) async fn kill(node: &Node) -> Result<()> {
    let Some(process) = daemon(node) else {
        bail!("the daemon of {} does not run", node.name);
    };
    end(process, Signal::SIGKILL).await?;
    // The process looks dead while its other threads still end and hold its files.
    let free = async {
        while let Err(taken) = crate::daemon::lock(&node.data) {
            tracing::debug!(%taken, "the lock is not free yet");
            tokio::time::sleep(POLL).await;
        }
    };
    let in_time = tokio::time::timeout(UNLOCK_MAX, free).await;
    in_time.with_context(|| format!("the killed daemon of {} keeps its lock", node.name))
}

pub(super) fn cut(layout: &Layout, node: &Node) -> Result<()> {
    layout.underlay().cut(node.number.into()).with_context(|| format!("cannot cut {}", node.name))
}

pub(super) fn heal(layout: &Layout, node: &Node) -> Result<()> {
    layout.underlay().heal(node.number.into()).with_context(|| format!("cannot heal {}", node.name))
}

/// Becomes `command` in a node's network namespace. The mounts stay: `/sys/fs/cgroup` is seen.
#[expect(clippy::disallowed_methods, reason = "the user asked for this program")]
pub(super) fn exec(node: &Node, command: &[String]) -> Result<()> {
    linux::enter(&node.netns())
        .with_context(|| format!("cannot enter the namespace of {}", node.name))?;
    let Some((program, arguments)) = command.split_first() else {
        bail!("no command given");
    };
    let error = Command::new(program)
        .args(arguments)
        .env("DOCKER_HOST", format!("unix://{}", node.socket().display()))
        .exec();
    Err(error).with_context(|| format!("cannot run {program}"))
}

/// Shows the nodes with their addresses and daemons.
#[expect(clippy::print_stdout, reason = "the user asked for this table")]
pub(super) async fn list(nodes: &[Node]) -> Result<()> {
    println!("{:<10}{:<18}{:<10}DOCKER_HOST", "NODE", "ADDRESS", "DAEMON");
    for node in nodes {
        let up = Client::unix(&node.socket()).answers().await;
        let state = if up { "up" } else { "down" };
        let host = format!("unix://{}", node.socket().display());
        println!("{:<10}{:<18}{state:<10}{host}", node.name, node.address.to_string());
    }
    Ok(())
}

/// Loads image tars into every node.
#[expect(clippy::print_stdout, reason = "progress for the user")]
pub(super) async fn load(nodes: &[Node], files: &[PathBuf]) -> Result<()> {
    for file in files {
        for node in nodes {
            let answer = crate::images::load_file(&Client::unix(&node.socket()), file)
                .await
                .with_context(|| format!("cannot load {} into {}", file.display(), node.name))?;
            println!("{}: {}", node.name, answer.trim().replace('\n', ", "));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lab::layout::Layout;

    /// Something that looks like a node's daemon and ends at once; the test keeps the lock as a
    /// thread that is slow to end would.
    #[expect(clippy::disallowed_methods, reason = "tests run programs")]
    fn fake_daemon(node: &Node) -> std::process::Child {
        let child = Command::new("tail").args(["-f", "/dev/null"]).arg(&node.data).spawn().unwrap();
        fs::write(node.pid_file(), child.id().to_string()).unwrap();
        child
    }

    #[tokio::test]
    async fn options_are_not_for_a_daemon_that_runs() {
        let folder = tempfile::tempdir().unwrap();
        let (data, run) = (folder.path().join("data"), folder.path().join("run"));
        let layout = Layout::new("t".to_owned(), Some(data), Some(run));
        let node = layout.node(1);
        for folder in [&node.data, &node.run] {
            fs::create_dir_all(folder).unwrap();
        }
        let mut child = fake_daemon(&node);
        while daemon(&node).is_none() {
            tokio::time::sleep(POLL).await;
        }
        let refused = start(&layout, &node, &["--label".to_owned()]).await.unwrap_err();
        assert!(refused.to_string().contains("runs already"), "{refused}");
        child.kill().unwrap();
        child.wait().unwrap();
    }

    #[tokio::test]
    async fn kill_returns_when_the_lock_is_free() {
        let folder = tempfile::tempdir().unwrap();
        let (data, run) = (folder.path().join("data"), folder.path().join("run"));
        let node = Layout::new("t".to_owned(), Some(data), Some(run)).node(1);
        for folder in [&node.data, &node.run] {
            fs::create_dir_all(folder).unwrap();
        }
        let mut child = fake_daemon(&node);
        // Its arguments are seen a moment after it has started.
        while daemon(&node).is_none() {
            tokio::time::sleep(POLL).await;
        }
        let held = crate::daemon::lock(&node.data).unwrap();
        let killed = kill(&node);
        tokio::pin!(killed);
        // The daemon is a zombie of this test, which counts as ended; the lock is not free.
        let early = tokio::time::timeout(POLL * 4, &mut killed).await;
        assert!(early.is_err(), "it returned while the lock was held");
        child.wait().unwrap();
        drop(held);
        killed.await.unwrap();
        crate::daemon::lock(&node.data).unwrap();
    }
}
