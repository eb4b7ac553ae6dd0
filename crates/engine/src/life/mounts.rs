//! What a container wants mounted: checked, and volumes made.

use crate::blocking::{blocking, cannot};
use crate::engine::Engine;
use crate::info::MountPoint;
use crate::path_checks::PathChecks;
use crate::spec::ImageConfig;
use crate::volumes::{Hold, VolumeOrder, Volumes};
use std::collections::BTreeSet;
use std::path::{Component, Path, PathBuf};
use types::{ContainerSpec, Fault, FaultKind, Mount, MountKind, Propagation};

/// The user's mounts, and an anonymous volume for each of the image's that is not among them.
pub(super) fn plan(spec: &ContainerSpec, image: &ImageConfig) -> Result<Vec<Mount>, Fault> {
    let mut mounts = Vec::new();
    let mut targets = BTreeSet::new();
    for mount in &spec.mounts {
        let mount = Mount { target: target(&mount.target)?, ..mount.clone() };
        if !targets.insert(mount.target.clone()) {
            return Err(Fault::invalid(format!("Duplicate mount point: {}", mount.target)));
        }
        check_options(&mount)?;
        mount.check_source()?;
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

/// What a container that is being made has mounted, with its volumes held.
#[derive(Debug, Default)]
pub(super) struct Resolved {
    pub(super) points: Vec<MountPoint>,
    pub(super) holds: Vec<Hold>,
}

/// Finds or makes the volumes of a container.
pub(super) fn resolve(engine: &Engine, id: &str, mounts: Vec<Mount>) -> Result<Resolved, Fault> {
    let mut resolved = Resolved::default();
    for mount in mounts {
        match resolve_one(&engine.inner.volumes, id, mount) {
            Ok((point, hold)) => {
                resolved.points.push(point);
                resolved.holds.extend(hold);
            }
            Err(fault) => {
                remove_new(engine, resolved);
                return Err(fault);
            }
        }
    }
    Ok(resolved)
}

/// Removes the volumes without a name that were made for a container that is not made after all.
pub(super) fn remove_new(engine: &Engine, resolved: Resolved) {
    drop(resolved.holds);
    for point in resolved.points.iter().filter(|point| point.is_new) {
        if let Err(fault) = engine.remove_unused(&point.mount.source, "") {
            tracing::warn!(volume = point.mount.source, %fault, "a volume that nobody uses stays");
        }
    }
}

fn resolve_one(
    volumes: &Volumes,
    id: &str,
    mut mount: Mount,
) -> Result<(MountPoint, Option<Hold>), Fault> {
    let mut kept = None;
    let mut anonymous = false;
    let mut driver = String::new();
    let is_new = mount.kind == MountKind::Volume && mount.source.is_empty();
    let source = match mount.kind {
        MountKind::Bind => PathBuf::from(&mount.source),
        MountKind::Volume => {
            let order = VolumeOrder {
                name: mount.source.clone(),
                driver: mount.volume_driver.clone(),
                options: mount.driver_options.clone(),
                labels: mount.labels.clone(),
            };
            // Clients that hear *not found* look for the container's image.
            let unknown = |fault: Fault| match fault.kind {
                FaultKind::NotFound => Fault::invalid(fault.message),
                _ => fault,
            };
            let (volume, hold) = volumes.make_for(order, id).map_err(unknown)?;
            kept = Some(hold);
            anonymous = volume.anonymous;
            driver = volume.driver;
            mount.source = volume.name;
            volume.path
        }
        MountKind::Tmpfs | MountKind::Image => PathBuf::new(),
    };
    let point = MountPoint { mount, source, driver, anonymous, is_new, ..MountPoint::default() };
    Ok((point, kept))
}

/// The images that are mounted, found while they are here: their ids in the order of the mounts.
pub(super) async fn find_images(engine: &Engine, mounts: &[Mount]) -> Result<Vec<String>, Fault> {
    let mut ids = Vec::new();
    for mount in mounts {
        ids.push(match mount.kind {
            MountKind::Image => engine.image(&mount.source).await?.id,
            MountKind::Bind | MountKind::Volume | MountKind::Tmpfs => String::new(),
        });
    }
    Ok(ids)
}

/// Refuses options that contradict each other.
fn check_options(mount: &Mount) -> Result<(), Fault> {
    let conflict = |why: &str| Err(Fault::invalid(format!("mount options conflict: {why}")));
    if !mount.read_only && (mount.read_only_not_below || mount.read_only_or_fail) {
        return conflict("ReadOnlyNonRecursive and ReadOnlyForceRecursive need ReadOnly");
    }
    if mount.read_only_not_below && mount.read_only_or_fail {
        return conflict("ReadOnlyNonRecursive && ReadOnlyForceRecursive");
    }
    let private = mount.propagation == Propagation::Rprivate;
    if mount.read_only_or_fail && !private {
        return conflict("ReadOnlyForceRecursive needs the propagation rprivate");
    }
    Ok(())
}

/// Refuses a bind of what is not there, or that cannot pass mounts on as it should, in Docker's
/// words.
pub(super) async fn check_binds(
    checks: &PathChecks,
    mounts: impl Iterator<Item = &Mount>,
) -> Result<(), Fault> {
    for mount in mounts.filter(|mount| mount.kind == MountKind::Bind) {
        let invalid = "invalid mount config for type \"bind\"";
        let found = checks.exists(Path::new(&mount.source)).await;
        let found = found.map_err(|fault| Fault::new(fault.kind, format!("{invalid}: {fault}")))?;
        if !found && !mount.make_source {
            let source = &mount.source;
            return Err(Fault::invalid(format!(
                "{invalid}: bind source path does not exist: {source}"
            )));
        }
        let private = matches!(mount.propagation, Propagation::Rprivate | Propagation::Private);
        if !found || !private {
            let mount = mount.clone();
            blocking(move || prepare_source(&mount)).await?;
        }
    }
    Ok(())
}

/// Makes a bind's source where the user wants it, and sees whether it shares its mounts.
fn prepare_source(mount: &Mount) -> Result<(), Fault> {
    if mount.make_source && !Path::new(&mount.source).exists() {
        std::fs::create_dir_all(&mount.source).map_err(cannot("make a bind's source"))?;
    }
    let real = Path::new(&mount.source).canonicalize();
    let real = real.map_err(cannot("look at a bind's source"))?;
    let table = std::fs::read_to_string("/proc/self/mountinfo").map_err(cannot("read mounts"))?;
    check_propagation(mount, &real, &table)
}

/// What a bind shares with its source must be shared there. `table` is /proc/PID/mountinfo.
fn check_propagation(mount: &Mount, source: &Path, table: &str) -> Result<(), Fault> {
    let Some((at, options)) = mounted_at(source, table) else { return Ok(()) };
    let has = |kind: &str| options.iter().any(|option| option.starts_with(kind));
    let wanted = match mount.propagation {
        Propagation::Rprivate | Propagation::Private => return Ok(()),
        Propagation::Rshared | Propagation::Shared if !has("shared:") => "shared",
        Propagation::Rslave | Propagation::Slave if !has("shared:") && !has("master:") => {
            "shared or slave"
        }
        Propagation::Rshared | Propagation::Shared | Propagation::Rslave | Propagation::Slave => {
            return Ok(());
        }
    };
    Err(Fault::invalid(format!(
        "path {} is mounted on {at} but it is not a {wanted} mount",
        mount.source
    )))
}

/// The mount that a path lies on, and its optional fields: `ID PARENT DEV ROOT AT OPTIONS FIELD… -`,
/// proc_pid_mountinfo(5). The last of several at one place is what is seen.
fn mounted_at<'a>(path: &Path, table: &'a str) -> Option<(&'a str, Vec<&'a str>)> {
    let mut found: Option<(&str, Vec<&str>)> = None;
    for line in table.lines() {
        let mut words = line.split(' ');
        let Some(at) = words.nth(4) else { continue };
        let closer = found.as_ref().is_none_or(|(known, _)| known.len() <= at.len());
        if path.starts_with(at) && closer {
            let fields = words.skip(1).take_while(|word| *word != "-");
            found = Some((at, fields.collect()));
        }
    }
    found
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

    #[test]
    fn options_that_contradict_each_other_are_refused() {
        let refused = |change: fn(&mut Mount)| {
            let mut mount = Mount { target: "/a".to_owned(), ..Mount::default() };
            change(&mut mount);
            let spec = ContainerSpec { mounts: vec![mount], ..ContainerSpec::default() };
            plan(&spec, &ImageConfig::default()).is_err()
        };
        assert!(refused(|it| it.read_only_not_below = true));
        assert!(refused(|it| {
            (it.read_only, it.read_only_not_below, it.read_only_or_fail) = (true, true, true);
        }));
        assert!(refused(|it| {
            (it.read_only, it.read_only_or_fail) = (true, true);
            it.propagation = Propagation::Slave;
        }));
        assert!(!refused(|it| (it.read_only, it.read_only_or_fail) = (true, true)));
    }

    #[test]
    fn mounts_pass_only_where_the_source_shares_them() {
        let table = "21 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw\n\
            22 21 0:5 / /mnt rw - tmpfs tmpfs rw\n\
            23 21 0:6 / /srv rw master:7 - tmpfs tmpfs rw\n";
        let check = |source: &str, propagation| {
            let mount = Mount { source: source.to_owned(), propagation, ..Mount::default() };
            check_propagation(&mount, Path::new(source), table).map_err(|fault| fault.message)
        };
        assert_eq!(check("/var/x", Propagation::Rshared), Ok(()));
        assert_eq!(check("/mntx", Propagation::Rshared), Ok(()));
        assert_eq!(
            check("/mnt/x", Propagation::Shared).unwrap_err(),
            "path /mnt/x is mounted on /mnt but it is not a shared mount"
        );
        assert_eq!(check("/srv", Propagation::Rslave), Ok(()));
        assert!(check("/srv", Propagation::Rshared).is_err());
        assert!(check("/mnt", Propagation::Rslave).unwrap_err().contains("shared or slave"));
    }

    #[tokio::test]
    async fn a_bind_makes_its_source_where_the_user_wants_it() {
        let dir = tempfile::tempdir().unwrap();
        let source = dir.path().join("new/deep");
        let mut mount = Mount {
            kind: MountKind::Bind,
            source: source.to_string_lossy().into_owned(),
            ..Mount::default()
        };
        let checks = PathChecks::default();
        let refused = check_binds(&checks, [&mount].into_iter()).await.unwrap_err();
        assert!(refused.message.contains("does not exist"));
        mount.make_source = true;
        check_binds(&checks, [&mount].into_iter()).await.unwrap();
        assert!(source.is_dir());
    }
}
