//! The AppArmor profile of containers, where the kernel has AppArmor.
//!
//! It grants what capabilities and namespaces leave to a container, and takes away what would reach
//! the node: settings of the kernel below /proc and /sys, mounts, the kernel's cryptography. It is
//! loaded each time the daemon starts (`apparmor_parser -Kr`), under a name of our own.

use crate::Error;
use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

/// The name of the profile.
const NAME: &str = "skep-default";
const PARSER: &str = "apparmor_parser";
/// Where the kernel tells of profiles and takes names of those to remove.
const KERNEL: &str = "/sys/kernel/security/apparmor";
/// Where distributions keep what profiles include.
const INCLUDES: &str = "/etc/apparmor.d";

/// Loads the profile and returns its name. `None` where the kernel has no AppArmor, or the machine
/// no program to load a profile with: as with Docker, containers then run without one.
pub fn load_apparmor() -> Result<Option<&'static str>, Error> {
    let enabled = fs::read("/sys/module/apparmor/parameters/enabled");
    if !enabled.is_ok_and(|text| text.starts_with(b"Y")) {
        return Ok(None);
    }
    let folders = ["/usr/sbin", "/sbin", "/usr/bin", "/bin"];
    let found = folders.iter().map(|folder| Path::new(folder).join(PARSER)).find(|it| it.exists());
    let Some(parser) = found else {
        tracing::warn!("{PARSER} is not installed: containers run without an AppArmor profile");
        return Ok(None);
    };
    let own = fs::read_to_string("/proc/self/attr/current").unwrap_or_default();
    let has = |include: &str| Path::new(INCLUDES).join(include).exists();
    let text = render(confined_by(&own), has);
    load(&parser, &text).map(|()| Some(NAME))
}

/// Takes the profile out of the kernel; while a container is confined by it, it stays.
pub fn unload_apparmor() -> Result<(), Error> {
    if !is_in_use() {
        unload(Path::new(KERNEL))?;
    }
    Ok(())
}

fn unload(kernel: &Path) -> Result<(), Error> {
    let loaded = fs::read_to_string(kernel.join("profiles")).unwrap_or_default();
    if !loaded.lines().any(|line| confined_by(line) == NAME) {
        return Ok(());
    }
    let removal = fs::OpenOptions::new().write(true).open(kernel.join(".remove"));
    removal
        .and_then(|mut file| file.write_all(NAME.as_bytes()))
        .map_err(|source| Error::system("remove the AppArmor profile", source))
}

/// Says whether any process is confined by the profile.
fn is_in_use() -> bool {
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    let labels = processes.filter_map(|it| fs::read_to_string(it.path().join("attr/current")).ok());
    labels.into_iter().any(|label| confined_by(&label) == NAME)
}

#[expect(clippy::disallowed_methods, reason = "the kernel's format is compiled by a program")]
fn load(parser: &Path, text: &str) -> Result<(), Error> {
    let failed = |source| Error::system("load the AppArmor profile", source);
    let mut command = Command::new(parser);
    command.arg("-Kr").stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = command.spawn().map_err(failed)?;
    if let Some(mut input) = child.stdin.take() {
        input.write_all(text.as_bytes()).map_err(failed)?;
    }
    let ended = child.wait_with_output().map_err(failed)?;
    if ended.status.success() {
        return Ok(());
    }
    let reason = String::from_utf8_lossy(&ended.stderr).trim().to_owned();
    Err(failed(std::io::Error::other(reason)))
}

/// The profile in `NAME (MODE)`; nothing is "unconfined".
fn confined_by(label: &str) -> &str {
    let label = label.trim_end();
    let name = label.rsplit_once(" (").map_or(label, |(name, _)| name);
    if name.is_empty() { "unconfined" } else { name }
}

/// Writes the profile, apparmor.d(5). `has` says which includes the machine has; `daemon` is the
/// profile of this process, which may send signals to containers.
fn render(daemon: &str, has: impl Fn(&str) -> bool) -> String {
    // Of later versions, "network" does not include sockets of one machine.
    let abi = if has("abi/3.0") { "abi <abi/3.0>,\n" } else { "" };
    let proc =
        if has("tunables/global") { "#include <tunables/global>\n" } else { "@{PROC}=/proc/\n" };
    let base = if has("abstractions/base") { "  #include <abstractions/base>\n" } else { "" };
    format!(
        r#"{abi}{proc}
profile "{NAME}" flags=(attach_disconnected,mediate_deleted) {{
{base}  # What capabilities, namespaces and file modes leave.
  network,
  capability,
  file,
  umount,
  deny network alg,
  deny mount,

  # Signals come from the node's own programs, and from one's like.
  signal (receive) peer=unconfined,
  signal (receive) peer=runc,
  signal (receive) peer=crun,
  signal (receive) peer="{daemon}",
  signal (send,receive) peer="{NAME}",
  ptrace (trace,tracedby,read,readby) peer="{NAME}",

  # Below /proc, only processes' own folders and the settings of shared memory are written.
  deny @{{PROC}}/* w,
  deny @{{PROC}}/{{[^1-9/],[^1-9/][^0-9/],[^1-9s/][^0-9y/][^0-9s/],[^1-9/][^0-9/][^0-9/][^0-9/]*}}/** w,
  deny @{{PROC}}/sys/[^k]** w,
  deny @{{PROC}}/sys/kernel/{{?,??,[^s][^h][^m]**}} w,
  deny @{{PROC}}/sysrq-trigger rwklx,
  deny @{{PROC}}/kcore rwklx,

  # Below /sys, nothing but cgroups.
  deny /sys/[^f]*/** wklx,
  deny /sys/f[^s]*/** wklx,
  deny /sys/fs/[^c]*/** wklx,
  deny /sys/fs/c[^g]*/** wklx,
  deny /sys/fs/cg[^r]*/** wklx,
  deny /sys/firmware/** rwklx,
  deny /sys/devices/virtual/powercap/** rwklx,
  deny /sys/kernel/security/** rwklx,
}}
"#
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_profile_names_itself_and_the_daemon() {
        let text = render("unconfined", |_| false);
        assert!(text.starts_with("@{PROC}=/proc/\n\nprofile \"skep-default\" flags="), "{text}");
        assert!(text.contains("\n  deny mount,\n") && text.contains("\n  deny network alg,\n"));
        assert!(text.contains("signal (send,receive) peer=\"skep-default\","));
        // Braces are as many as they should be.
        assert_eq!(text.matches('{').count(), text.matches('}').count());
        let whole = render("dockerish", |_| true);
        assert!(whole.starts_with("abi <abi/3.0>,\n#include <tunables/global>\n"));
        assert!(whole.contains("  #include <abstractions/base>\n"));
        assert!(whole.contains("peer=\"dockerish\","));
    }

    #[test]
    fn the_daemons_own_profile_is_read_from_its_label() {
        assert_eq!(confined_by("unconfined\n"), "unconfined");
        assert_eq!(confined_by(""), "unconfined");
        assert_eq!(confined_by("snap.x y (enforce)\n"), "snap.x y");
    }

    #[test]
    fn the_profile_is_removed_where_it_is_loaded() {
        let kernel = tempfile::tempdir().unwrap();
        let removed = || fs::read_to_string(kernel.path().join(".remove")).unwrap();
        // A machine without AppArmor.
        unload(kernel.path()).unwrap();
        fs::write(kernel.path().join(".remove"), "").unwrap();
        fs::write(kernel.path().join("profiles"), "skep-default-not (enforce)\n").unwrap();
        unload(kernel.path()).unwrap();
        assert_eq!(removed(), "");
        let loaded = "docker-default (enforce)\nskep-default (enforce)\n";
        fs::write(kernel.path().join("profiles"), loaded).unwrap();
        unload(kernel.path()).unwrap();
        assert_eq!(removed(), "skep-default");
    }

    #[test]
    fn a_kernel_without_apparmor_loads_none() {
        if !Path::new("/sys/module/apparmor").exists() {
            assert!(load_apparmor().unwrap().is_none());
        }
    }
}
