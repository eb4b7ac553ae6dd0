//! What is mounted into a container.

use super::Plan;
use super::process::INIT;
use crate::info::MountPoint;
use crate::memory::Place;
use serde_json::{Value, json};
use std::path::Path;
use types::MountKind;

/// Of /dev/shm, where nothing is said.
pub(crate) const SHM_SIZE: u64 = 64 << 20;

/// Renders all mounts: Docker's own, then the user's, the outermost first.
pub(super) fn render(plan: &Plan<'_>) -> Value {
    let mut mounts = system(plan);
    mounts.extend(files(plan));
    if let (Some(true), Some(init)) = (plan.config.spec.init, &plan.machine.init) {
        mounts.push(bind(&init.to_string_lossy(), INIT, true));
    }
    // Where the user mounts something of his own, ours would hide it or be hidden.
    mounts.retain(|mount| plan.mounts.iter().all(|own| mount["destination"] != own.mount.target));
    let depth = |target: &Path| target.components().count();
    let own = plan.mounts.iter().map(|point| {
        let target = Path::new(&point.mount.target);
        (depth(target), user(point, plan.machine.read_only_below()))
    });
    let files = plan.memory_files.iter().map(|place| (depth(&place.target), memory(place)));
    let mut own: Vec<(usize, Value)> = own.chain(files).collect();
    own.sort_by_key(|(depth, _)| *depth);
    mounts.extend(own.into_iter().map(|(_, mount)| mount));
    Value::Array(mounts)
}

fn system(plan: &Plan<'_>) -> Vec<Value> {
    let (node, shm_size) = (&plan.config.node, plan.config.shm_size);
    let shm = if shm_size == 0 { SHM_SIZE } else { shm_size };
    // As with Docker: a privileged container may change the kernel's settings.
    let (sys, cgroup) = match (node.privileged, plan.config.spec.read_only) {
        (false, _) => ("ro", "ro"),
        (true, true) => ("ro", "rw"),
        (true, false) => ("rw", "rw"),
    };
    let mount = |destination: &str, kind: &str, options: &[&str]| json!({ "destination": destination, "type": kind, "source": kind, "options": options });
    vec![
        mount("/proc", "proc", &["nosuid", "noexec", "nodev"]),
        mount("/dev", "tmpfs", &["nosuid", "strictatime", "mode=755", "size=65536k"]),
        mount(
            "/dev/pts",
            "devpts",
            &["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"],
        ),
        mount("/sys", "sysfs", &["nosuid", "noexec", "nodev", sys]),
        mount("/sys/fs/cgroup", "cgroup", &[cgroup, "nosuid", "noexec", "nodev"]),
        mount("/dev/mqueue", "mqueue", &["nosuid", "noexec", "nodev"]),
        match &plan.borrowed.shm {
            Some(folder) => bind(&folder.to_string_lossy(), "/dev/shm", false),
            None if node.ipc => bind("/dev/shm", "/dev/shm", false),
            None => {
                let size = format!("size={shm}");
                mount("/dev/shm", "tmpfs", &["nosuid", "noexec", "nodev", "mode=1777", &size])
            }
        },
    ]
}

/// The files the engine writes for every container. They are on the node's disk: who may not write to
/// the root of a container writes nothing there either.
fn files(plan: &Plan<'_>) -> impl Iterator<Item = Value> {
    ["resolv.conf", "hostname", "hosts"].into_iter().map(|name| {
        let source = plan.files.join(name);
        bind(&source.to_string_lossy(), &format!("/etc/{name}"), plan.config.spec.read_only)
    })
}

fn user(point: &MountPoint, read_only_below: bool) -> Value {
    let mount = &point.mount;
    match mount.kind {
        MountKind::Image => bind(&point.source.to_string_lossy(), &mount.target, true),
        MountKind::Bind | MountKind::Volume => {
            let access = match mount.read_only {
                true if read_only_below && !mount.read_only_not_below => "rro",
                true => "ro",
                false => "rw",
            };
            let bind = if mount.not_below { "bind" } else { "rbind" };
            json!({
                "destination": mount.target,
                "type": "bind",
                "source": point.source.to_string_lossy(),
                "options": [bind, mount.propagation.as_str(), access],
            })
        }
        MountKind::Tmpfs => {
            let mut options = vec!["nosuid".to_owned(), "nodev".to_owned(), "noexec".to_owned()];
            options.extend(mount.tmpfs_options.clone());
            if mount.read_only {
                options.push("ro".to_owned());
            }
            if 0 < mount.tmpfs_size {
                options.push(format!("size={}", mount.tmpfs_size));
            }
            let mode = if mount.tmpfs_mode == 0 { 0o1777 } else { mount.tmpfs_mode };
            options.push(format!("mode={mode:o}"));
            let target = &mount.target;
            json!({ "destination": target, "type": "tmpfs", "source": "tmpfs", "options": options })
        }
    }
}

/// A secret or a config.
fn memory(place: &Place) -> Value {
    let run = if place.is_program { "exec" } else { "noexec" };
    json!({
        "destination": place.target,
        "type": "bind",
        "source": place.source,
        "options": ["bind", "rprivate", "ro", "nosuid", "nodev", run],
    })
}

fn bind(source: &str, target: &str, read_only: bool) -> Value {
    let access = if read_only { "ro" } else { "rw" };
    let options = ["rbind", "rprivate", access];
    json!({ "destination": target, "type": "bind", "source": source, "options": options })
}
