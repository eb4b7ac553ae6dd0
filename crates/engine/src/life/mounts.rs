//! What a container wants mounted: checked, and volumes made.

use crate::info::MountPoint;
use crate::looks::Looks;
use crate::spec::ImageConfig;
use crate::volumes::Volumes;
use std::collections::BTreeSet;
use std::path::{Component, Path, PathBuf};
use types::{ContainerSpec, Fault, Mount, MountKind};

/// The user's mounts, and an anonymous volume for each of the image's that is not among them.
pub(super) fn plan(spec: &ContainerSpec, image: &ImageConfig) -> Result<Vec<Mount>, Fault> {
    let mut mounts = Vec::new();
    let mut targets = BTreeSet::new();
    for mount in &spec.mounts {
        let mount = Mount { target: target(&mount.target)?, ..mount.clone() };
        if !targets.insert(mount.target.clone()) {
            return Err(Fault::invalid(format!("Duplicate mount point: {}", mount.target)));
        }
        if mount.kind == MountKind::Bind && !mount.source.starts_with('/') {
            return Err(Fault::invalid(format!(
                "invalid mount config for type \"bind\": invalid mount path: '{}' mount path must \
                 be absolute",
                mount.source
            )));
        }
        mounts.push(mount);
    }
    for path in image.volumes.keys() {
        let target = target(path)?;
        if targets.insert(target.clone()) {
            mounts.push(Mount { target, ..Mount::default() });
        }
    }
    Ok(mounts)
}

/// An absolute path without detours, and not the root.
fn target(path: &str) -> Result<String, Fault> {
    let invalid = |why: &str| {
        Fault::invalid(format!("invalid mount config: invalid mount path: '{path}' {why}"))
    };
    if !path.starts_with('/') {
        return Err(invalid("mount path must be absolute"));
    }
    let parts: Vec<Component<'_>> = Path::new(path).components().skip(1).collect();
    if parts.is_empty() {
        return Err(invalid("destination can't be '/'"));
    }
    if parts.contains(&Component::ParentDir) {
        return Err(invalid("it must not contain '..'"));
    }
    let tidy: PathBuf = std::iter::once(Component::RootDir).chain(parts).collect();
    Ok(tidy.to_string_lossy().into_owned())
}

/// Finds or makes the volumes.
pub(super) fn resolve(volumes: &Volumes, mounts: Vec<Mount>) -> Result<Vec<MountPoint>, Fault> {
    mounts.into_iter().map(|mount| resolve_one(volumes, mount)).collect()
}

fn resolve_one(volumes: &Volumes, mut mount: Mount) -> Result<MountPoint, Fault> {
    let mut anonymous = false;
    let source = match mount.kind {
        MountKind::Bind => PathBuf::from(&mount.source),
        MountKind::Volume => {
            let (volume, _) = volumes.make(&mount.source, mount.labels.clone())?;
            anonymous = volume.anonymous;
            mount.source = volume.name;
            volume.path
        }
        MountKind::Tmpfs => PathBuf::new(),
    };
    Ok(MountPoint { mount, source, anonymous })
}

/// Refuses a bind of what is not there, in Docker's words.
pub(super) async fn check_binds(
    looks: &Looks,
    mounts: impl Iterator<Item = &Mount>,
) -> Result<(), Fault> {
    for mount in mounts.filter(|mount| mount.kind == MountKind::Bind) {
        let invalid = "invalid mount config for type \"bind\"";
        let found = looks.exists(Path::new(&mount.source)).await;
        if !found.map_err(|fault| Fault::new(fault.kind, format!("{invalid}: {fault}")))? {
            let source = &mount.source;
            return Err(Fault::invalid(format!(
                "{invalid}: bind source path does not exist: {source}"
            )));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_images_volumes_are_mounted_unless_the_user_mounts_there() {
        let image = ImageConfig::of(&json!({"config": {"Volumes": {"/data/": {}, "/more": {}}}}));
        let own = |target: &str| Mount { target: target.to_owned(), ..Mount::default() };
        let mut spec = ContainerSpec { mounts: vec![own("/data")], ..ContainerSpec::default() };
        let planned = plan(&spec, &image).unwrap();
        let targets: Vec<&str> = planned.iter().map(|mount| mount.target.as_str()).collect();
        assert_eq!(targets, ["/data", "/more"]);
        spec.mounts.push(own("/data/"));
        assert_eq!(plan(&spec, &image).unwrap_err().message, "Duplicate mount point: /data");
        for bad in ["data", "/", "/a/../b"] {
            spec.mounts = vec![own(bad)];
            assert!(plan(&spec, &image).is_err(), "{bad}");
        }
    }
}
