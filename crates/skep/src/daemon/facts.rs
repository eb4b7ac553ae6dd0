//! What this machine is.

use super::labels;
use super::options::Options;
use anyhow::{Context, Result};
use engine_api::About;
use std::io::ErrorKind;
use std::path::Path;
use types::{EngineInfo, NodeDescription, Platform};

/// Reads the machine's facts.
pub(crate) fn observe(options: &Options) -> Result<About> {
    let uname = nix::sys::utsname::uname().context("cannot read the kernel's name")?;
    let word = |text: &std::ffi::OsStr| text.to_string_lossy().into_owned();
    let hostname = options.hostname.clone().unwrap_or_else(|| word(uname.nodename()));
    Ok(About {
        id: engine_id(&options.data)?,
        hostname,
        labels: labels::read(&options.labels)?,
        generic: types::generic::parse(&options.generic)?,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        data_dir: options.data.clone(),
        kernel: word(uname.release()),
        operating_system: of_release("PRETTY_NAME").unwrap_or_else(|| "Linux".to_owned()),
        operating_system_version: of_release("VERSION_ID").unwrap_or_default(),
        architecture: word(uname.machine()),
        cpus: std::thread::available_parallelism()
            .map_or(1, |cpus| i64::try_from(cpus.get()).unwrap_or(1)),
        memory_bytes: memory_bytes(),
        cgroup_version: cgroup_version(),
        gateway_subnet: options.gateway_subnet.to_string(),
    })
}

/// What a node says of itself to managers.
pub(crate) fn description(about: &About) -> NodeDescription {
    NodeDescription {
        hostname: about.hostname.clone(),
        platform: Platform { os: "linux".into(), architecture: about.architecture.clone() },
        nano_cpus: about.cpus * 1_000_000_000,
        memory_bytes: about.memory_bytes,
        generic: about.generic.clone(),
        log_format: store::Format::PRESENT.0,
        engine: EngineInfo {
            version: about.version.clone(),
            labels: about.labels.clone(),
            plugins: engine_api::plugins(),
        },
        ..NodeDescription::default()
    }
}

/// The engine's own id, made once. Former releases left the file empty when they crashed.
fn engine_id(data: &Path) -> Result<String> {
    let path = data.join("engine-id");
    match std::fs::read_to_string(&path) {
        Ok(id) if !id.trim().is_empty() => return Ok(id.trim().to_owned()),
        Err(error) if error.kind() != ErrorKind::NotFound => {
            return Err(error).with_context(|| format!("cannot read {}", path.display()));
        }
        Ok(_) | Err(_) => {}
    }
    let id = format!("{:032x}", rand::random::<u128>());
    host::replace(&path, &id, 0o644).with_context(|| format!("cannot write {}", path.display()))?;
    Ok(id)
}

/// A field of os-release(5).
fn of_release(field: &str) -> Option<String> {
    let text = std::fs::read_to_string("/etc/os-release").unwrap_or_default();
    let mut lines = text.lines().filter_map(|line| line.split_once('='));
    let (_, value) = lines.find(|(name, _)| *name == field)?;
    Some(value.trim_matches('"').to_owned())
}

fn memory_bytes() -> i64 {
    let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let total = text.lines().find_map(|line| line.strip_prefix("MemTotal:"));
    let kib = total.and_then(|rest| rest.trim().trim_end_matches(" kB").parse::<i64>().ok());
    kib.unwrap_or(0) * 1024
}

fn cgroup_version() -> &'static str {
    if Path::new("/sys/fs/cgroup/cgroup.controllers").exists() { "2" } else { "1" }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_engine_has_one_id_for_ever_also_where_a_crash_left_an_empty_file() {
        let folder = tempfile::tempdir().unwrap();
        for left in [None, Some(""), Some("\n")] {
            if let Some(text) = left {
                std::fs::write(folder.path().join("engine-id"), text).unwrap();
            }
            let id = engine_id(folder.path()).unwrap();
            assert_eq!(id.len(), 32, "{left:?}");
            assert_eq!(engine_id(folder.path()).unwrap(), id, "{left:?}");
        }
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    }
}
