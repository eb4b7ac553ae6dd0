//! Processes: what is executed, as whom, and what it may do.

use super::{ImageConfig, Machine, Plan, apparmor, capabilities, environment, merge, resources};
use crate::config::ContainerConfig;
use crate::users::User;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use types::{ContainerSpec, Fault};

/// Where a small init is put in a container that asks for one.
pub(super) const INIT: &str = "/sbin/docker-init";

/// Entrypoint and command together. One's own entrypoint drops the image's command; a single
/// empty word as entrypoint drops both.
pub(crate) fn arguments(spec: &ContainerSpec, image: &ImageConfig) -> Result<Vec<String>, Fault> {
    let own = !spec.command.is_empty();
    let entrypoint = if own { &spec.command } else { &image.entrypoint };
    let command = if own || !spec.args.is_empty() { &spec.args } else { &image.cmd };
    let cleared = entrypoint.len() == 1 && entrypoint[0].is_empty();
    let entrypoint = if cleared { &[] } else { entrypoint.as_slice() };
    if entrypoint.is_empty() && command.is_empty() {
        return Err(Fault::invalid("no command specified"));
    }
    Ok(entrypoint.iter().chain(command).cloned().collect())
}

/// Where processes start.
pub(crate) fn working_dir(spec: &ContainerSpec, image: &ImageConfig) -> String {
    let chosen = if spec.dir.is_empty() { &image.working_dir } else { &spec.dir };
    if chosen.is_empty() { "/".to_owned() } else { chosen.clone() }
}

/// Renders the first process of a container.
pub(super) fn main(plan: &Plan<'_>) -> Result<Value, Fault> {
    let spec = &plan.config.spec;
    let mut args = arguments(spec, plan.image)?;
    if spec.init == Some(true) {
        args.splice(0..0, [INIT.to_owned(), "--".to_owned()]);
    }
    let set = plan.capabilities()?;
    let mut rendered = json!({
        "terminal": spec.tty,
        "user": user(plan.user),
        "args": args,
        "env": environment(spec, plan.image, plan.hostname),
        "cwd": working_dir(spec, plan.image),
        "capabilities": capability_sets(&set, plan.user),
        "rlimits": resources::rlimits(plan)?,
        "noNewPrivileges": spec.security.no_new_privileges,
        "oomScoreAdj": spec.oom_score_adj.clamp(plan.machine.oom_score_adj.min(1000), 1000),
    });
    if let Some(profile) = apparmor(plan.config, plan.machine) {
        rendered["apparmorProfile"] = json!(profile);
    }
    Ok(rendered)
}

/// What a further process is rendered from.
pub(crate) struct ExecPlan<'a> {
    pub(crate) config: &'a ContainerConfig,
    pub(crate) image: &'a ImageConfig,
    pub(crate) machine: &'a Machine,
    pub(crate) hostname: &'a str,
    pub(crate) user: &'a User,
    pub(crate) exec: &'a crate::exec::ExecConfig,
}

/// Renders a further process of a container.
pub(crate) fn exec(plan: &ExecPlan<'_>) -> Result<Value, Fault> {
    let spec = &plan.config.spec;
    if plan.exec.command.is_empty() {
        return Err(Fault::invalid("No exec command specified"));
    }
    let mut env = environment(spec, plan.image, plan.hostname);
    if plan.exec.tty && !env.iter().any(|known| known.starts_with("TERM=")) {
        env.push("TERM=xterm".to_owned());
    }
    let set = if plan.exec.privileged {
        plan.machine.capabilities.clone()
    } else {
        capabilities(plan.config, plan.machine)?
    };
    let dir = &plan.exec.dir;
    let mut rendered = json!({
        "terminal": plan.exec.tty,
        "user": user(plan.user),
        "args": plan.exec.command,
        "env": merge(&env, &plan.exec.env),
        "cwd": if dir.is_empty() { working_dir(spec, plan.image) } else { dir.clone() },
        "capabilities": capability_sets(&set, plan.user),
        "noNewPrivileges": spec.security.no_new_privileges,
    });
    // A privileged one is not confined, as with Docker. System calls are filtered all the same.
    let confined = apparmor(plan.config, plan.machine);
    if let Some(profile) = confined.filter(|_| !plan.exec.privileged) {
        rendered["apparmorProfile"] = json!(profile);
    }
    Ok(rendered)
}

fn user(user: &User) -> Value {
    json!({ "uid": user.uid, "gid": user.gid, "additionalGids": user.groups })
}

/// As execve(2) would leave them: whoever is not root only keeps the bounding set.
fn capability_sets(set: &BTreeSet<&'static str>, user: &User) -> Value {
    if user.uid == 0 {
        json!({ "bounding": set, "effective": set, "permitted": set })
    } else {
        json!({ "bounding": set })
    }
}
