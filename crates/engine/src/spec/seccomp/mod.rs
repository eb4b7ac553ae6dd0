//! Which system calls a container's processes may make.
//!
//! `policy` is Docker's default as data; `profile` reads profiles of users and renders either for
//! one container. It depends on the container's bounding set, so it comes after the capabilities.

mod policy;
mod profile;
#[cfg(test)]
mod tests;

use super::Machine;
use profile::{Conditions, Profile};
use serde_json::Value;
use std::collections::BTreeSet;
use types::{Fault, Seccomp};

pub(super) use profile::version;

/// Refuses a profile that cannot be used here.
pub(crate) fn check(seccomp: &Seccomp, machine: &Machine) -> Result<(), Fault> {
    match seccomp {
        Seccomp::Default | Seccomp::Unconfined => Ok(()),
        Seccomp::Custom(_) if !machine.seccomp => Err(Fault::invalid(
            "seccomp is not enabled in your kernel, cannot run a custom seccomp profile",
        )),
        Seccomp::Custom(text) => check_profile(text),
    }
}

/// Refuses a text that is no profile.
pub fn check_profile(text: &str) -> Result<(), Fault> {
    Profile::parse(text).map(|_| ())
}

/// Renders `linux.seccomp`; `None` where nothing is confined.
pub(super) fn render(
    seccomp: &Seccomp,
    machine: &Machine,
    capabilities: &BTreeSet<&'static str>,
) -> Result<Option<Value>, Fault> {
    if !machine.seccomp {
        return Ok(None);
    }
    let profile = match seccomp {
        Seccomp::Unconfined => return Ok(None),
        Seccomp::Default => policy::default(),
        Seccomp::Custom(text) => Profile::parse(text)?,
    };
    let arch = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        "powerpc64" => "ppc64le",
        other => other,
    };
    Ok(profile.render(&Conditions { arch, kernel: machine.kernel, capabilities }))
}
