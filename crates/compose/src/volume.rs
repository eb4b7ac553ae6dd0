//! Mounts: `data:/var/lib/data:ro`, the long form, tmpfs; and the stack's named volumes.

use crate::fields::{Fields, entries, items};
use crate::project::{StackPart, stack_labels};
use crate::remark::Log;
use crate::scalar::{boolean, integer, labels, scalar, size, strings, text, word};
use crate::tree::{Node, Value};
use crate::{Around, paths};
use std::collections::BTreeMap;
use types::{Mount, MountKind, Propagation, parse_size};

/// The stack's named volumes by their names in the file.
pub(crate) type Volumes = BTreeMap<String, StackPart>;

/// Reads the top-level `volumes`.
pub(crate) fn volumes(node: &Node, around: &Around<'_>, log: &mut Log) -> Volumes {
    let mut volumes = Volumes::new();
    for entry in entries(node, log) {
        let mut fields = Fields::of(&entry.node, log);
        let mut part = StackPart::read(&entry.key, &mut fields, around, log);
        if let Some(node) = fields.take("labels") {
            part.labels = labels(node, log);
        }
        if let Some(node) = fields.take("driver") {
            part.driver = text(node, log);
        }
        if let Some(node) = fields.take("driver_opts") {
            part.driver_options = labels(node, log);
        }
        fields.finish(log);
        volumes.insert(entry.key.clone(), part);
    }
    volumes
}

/// Reads `volumes` of a service. A mount of a later file takes the place of one of an earlier
/// file with the same target.
pub(crate) fn mounts(
    node: &Node,
    volumes: &Volumes,
    around: &Around<'_>,
    log: &mut Log,
) -> Vec<Mount> {
    let mut mounts: Vec<(&Node, Mount)> = Vec::new();
    for item in items(node, log) {
        let is_long = matches!(item.value, Value::Map(_));
        let mut mount = if is_long { long(item, log) } else { short(item, log) };
        if !mount.target.starts_with('/') {
            log.error(item, "the target should be an absolute path");
            continue;
        }
        locate(&mut mount, item, volumes, around, log);
        mounts.retain(|(from, other)| from.at.file == item.at.file || other.target != mount.target);
        if mounts.iter().any(|(_, other)| other.target == mount.target) {
            log.error(item, format!("something else is mounted at {} already", mount.target));
        }
        mounts.push((item, mount));
    }
    mounts.into_iter().map(|(_, mount)| mount).collect()
}

/// Gives a mount's source the name that it has on a node.
fn locate(mount: &mut Mount, node: &Node, volumes: &Volumes, around: &Around<'_>, log: &mut Log) {
    match mount.kind {
        MountKind::Bind if mount.source.is_empty() => {
            log.error(node, "a bind mount needs a source");
        }
        MountKind::Bind if mount.source.starts_with('~') => {
            let home = around.env.get("HOME").map_or("", String::as_str);
            mount.source = format!("{home}{}", &mount.source[1..]);
        }
        MountKind::Bind if !mount.source.starts_with('/') => {
            mount.source = paths::absolute(around.folder, &mount.source).display().to_string();
        }
        MountKind::Tmpfs if !mount.source.is_empty() => {
            log.error(node, "a tmpfs mount has no source");
        }
        // A volume without a name belongs to one container.
        MountKind::Volume if mount.source.is_empty() => {}
        MountKind::Volume => match volumes.get(&mount.source) {
            None => log.error(
                node,
                format!("the volume {:?} is not in the file's top-level volumes", mount.source),
            ),
            Some(part) => {
                mount.source.clone_from(&part.name);
                if !part.external {
                    mount.labels = stack_labels(part.labels.clone(), around);
                    mount.volume_driver.clone_from(&part.driver);
                    mount.driver_options.clone_from(&part.driver_options);
                }
            }
        },
        MountKind::Image if mount.source.is_empty() => {
            log.error(node, "an image mount needs a source");
        }
        MountKind::Bind | MountKind::Tmpfs | MountKind::Image => {}
    }
}

fn short(node: &Node, log: &mut Log) -> Mount {
    let text = scalar(node).unwrap_or_default();
    let parts: Vec<&str> = text.split(':').collect();
    let (source, target, options) = match parts[..] {
        [target] => ("", target, ""),
        [source, target] => (source, target, ""),
        [source, target, options] => (source, target, options),
        [..] => {
            log.error(node, "should be written like \"data:/var/lib/data:ro\"");
            return Mount::default();
        }
    };
    let kind =
        if source.starts_with(['/', '.', '~']) { MountKind::Bind } else { MountKind::Volume };
    let mut mount =
        Mount { kind, source: source.into(), target: target.into(), ..Mount::default() };
    for option in options.split(',').filter(|option| !option.is_empty()) {
        match option {
            "ro" => mount.read_only = true,
            "rw" => {}
            "nocopy" => mount.no_copy = true,
            "z" | "Z" | "cached" | "delegated" | "consistent" => {
                log.warn(node, format!("the option {option:?} is ignored: it has no effect here"));
            }
            _ => match Propagation::parse(option) {
                Some(propagation) => mount.propagation = propagation,
                None => log.error(node, format!("the option {option:?} is not supported by skep")),
            },
        }
    }
    mount
}

fn long(node: &Node, log: &mut Log) -> Mount {
    let mut fields = Fields::of(node, log);
    let mut mount = Mount::default();
    match fields.take("type") {
        Some(kind) => {
            let kinds = MountKind::ALL.map(|kind| (kind.as_str(), kind));
            mount.kind = word(kind, &kinds, log);
        }
        None => log.error(node, "a mount needs a type: bind, volume, tmpfs or image"),
    }
    if let Some(source) = fields.take("source") {
        mount.source = text(source, log);
    }
    if let Some(target) = fields.take("target") {
        mount.target = text(target, log);
    }
    if let Some(read_only) = fields.take("read_only") {
        mount.read_only = boolean(read_only, log);
    }
    fields.ignore(&[("consistency", "it has no effect on Linux")], log);
    if let Some(bind) = fields.take("bind") {
        let mut fields = Fields::of(bind, log);
        if let Some(propagation) = fields.take("propagation") {
            let words = Propagation::ALL.map(|one| (one.as_str(), one));
            mount.propagation = word(propagation, &words, log);
        }
        if let Some(node) = fields.take("create_host_path") {
            mount.make_source = boolean(node, log);
        }
        if let Some(node) = fields.take("recursive") {
            recursive(&mut mount, node, log);
        }
        fields.ignore(&[("selinux", "containers get no SELinux labels")], log);
        fields.finish(log);
    }
    if let Some(volume) = fields.take("volume") {
        let mut fields = Fields::of(volume, log);
        if let Some(node) = fields.take("nocopy") {
            mount.no_copy = boolean(node, log);
        }
        if let Some(node) = fields.take("subpath") {
            mount.subpath = text(node, log);
        }
        fields.finish(log);
    }
    if let Some(image) = fields.take("image") {
        let mut fields = Fields::of(image, log);
        if let Some(node) = fields.take("subpath") {
            mount.subpath = text(node, log);
        }
        fields.finish(log);
    }
    if let Some(options) = fields.take("tmpfs") {
        let mut fields = Fields::of(options, log);
        if let Some(node) = fields.take("size") {
            mount.tmpfs_size = u64::try_from(size(node, log)).unwrap_or(0);
        }
        if let Some(node) = fields.take("mode") {
            mount.tmpfs_mode = integer(node, log);
        }
        fields.finish(log);
    }
    fields.finish(log);
    mount
}

/// What becomes of what is mounted below a bind's source.
fn recursive(mount: &mut Mount, node: &Node, log: &mut Log) {
    match text(node, log).as_str() {
        "enabled" => {}
        "disabled" => mount.not_below = true,
        "writable" => mount.read_only_not_below = true,
        "readonly" => mount.read_only_or_fail = true,
        _ => log.error(node, "should be enabled, disabled, writable or readonly"),
    }
}

/// Reads `tmpfs` of a service: paths, each with options like `:size=64m,mode=755`.
pub(crate) fn tmpfs(node: &Node, log: &mut Log) -> Vec<Mount> {
    let mut mounts = Vec::new();
    for line in strings(node, log) {
        let (target, options) = line.split_once(':').unwrap_or((&line, ""));
        let mut mount = Mount { kind: MountKind::Tmpfs, target: target.into(), ..Mount::default() };
        for option in options.split(',').filter(|option| !option.is_empty()) {
            match option.split_once('=').unwrap_or((option, "")) {
                ("size", size) if parse_size(size).is_some() => {
                    let size = parse_size(size).unwrap_or(0);
                    mount.tmpfs_size = u64::try_from(size).unwrap_or(0);
                }
                ("mode", mode) if u32::from_str_radix(mode, 8).is_ok() => {
                    mount.tmpfs_mode = u32::from_str_radix(mode, 8).unwrap_or(0);
                }
                ("ro", "") => mount.read_only = true,
                ("exec" | "noexec", "") => mount.tmpfs_options.push(option.to_owned()),
                _ => log.warn(node, format!("the tmpfs option {option:?} is ignored")),
            }
        }
        if target.starts_with('/') {
            mounts.push(mount);
        } else {
            log.error(node, "the path of a tmpfs should be absolute");
        }
    }
    mounts
}
