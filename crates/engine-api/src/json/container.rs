//! Containers: lists and inspections out.

mod host_config;
mod network;

pub(crate) use network::{endpoint_id, is_on, mac_text, networks, port_items};

use super::container_spec::HealthJson;
use engine::{ContainerInfo, Reference, Status};
use host_config::host_config;
use ipnet::IpNet;
use network::{network_mode, network_settings};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use types::{FOREVER, MountKind, Timestamp};

/// The command line as `docker ps` shows it: arguments with spaces in them are quoted.
fn command(info: &ContainerInfo) -> String {
    let word = |(index, word): (usize, &String)| {
        if 0 < index && word.contains(' ') { format!("'{word}'") } else { word.clone() }
    };
    info.args.iter().enumerate().map(word).collect::<Vec<_>>().join(" ")
}

/// The state in words, e.g. `Up 3 minutes (healthy)`.
fn status(info: &ContainerInfo, now: Timestamp) -> String {
    let state = &info.state;
    match state.status {
        Status::Created => "Created".to_owned(),
        Status::Running => {
            let health = state.health.as_ref().map(|health| match health.status.as_str() {
                "starting" => " (health: starting)".to_owned(),
                word => format!(" ({word})"),
            });
            format!("Up {}{}", ago(now.since(state.started_at)), health.unwrap_or_default())
        }
        Status::Exited => {
            format!("Exited ({}) {} ago", state.exit_code, ago(now.since(state.finished_at)))
        }
        Status::Removing => "Removal In Progress".to_owned(),
    }
}

/// A duration in Docker's words.
fn ago(duration: std::time::Duration) -> String {
    let seconds = duration.as_secs();
    let (minutes, hours) = (seconds / 60, (seconds + 1800) / 3600);
    match seconds {
        0 => "Less than a second".to_owned(),
        1 => "1 second".to_owned(),
        2..60 => format!("{seconds} seconds"),
        60..120 => "About a minute".to_owned(),
        120..3600 => format!("{minutes} minutes"),
        3600..5400 => "About an hour".to_owned(),
        _ if hours < 48 => format!("{hours} hours"),
        _ if hours < 24 * 14 => format!("{} days", hours / 24),
        _ if hours < 24 * 60 => format!("{} weeks", hours / 24 / 7),
        _ if hours < 24 * 365 * 2 => format!("{} months", hours / 24 / 30),
        _ => format!("{} years", hours / 24 / 365),
    }
}

/// The options of `-v`, where a mount was asked for like that with some.
fn mode<'a>(info: &'a ContainerInfo, target: &str) -> Option<&'a str> {
    let options = |bind: &'a String| {
        let mut parts = bind.splitn(3, ':').skip(1);
        (parts.next()? == target).then(|| parts.next())?
    };
    info.config.asked.binds.iter().find_map(options)
}

/// What is mounted; a tmpfs of `--tmpfs` is told by the container's `HostConfig` alone.
fn mounts(info: &ContainerInfo) -> Vec<Value> {
    info.mounts
        .iter()
        .filter(|point| !info.config.asked.tmpfs.contains_key(&point.mount.target))
        .map(|point| {
            let mount = &point.mount;
            let volume = mount.kind == MountKind::Volume;
            let bind = mount.kind == MountKind::Bind;
            let mut object = json!({
                "Type": mount.kind.as_str(),
                "Source": point.source,
                "Destination": mount.target,
                "Mode": mode(info, &mount.target).unwrap_or(if volume { "z" } else { "" }),
                "RW": !mount.read_only && mount.kind != MountKind::Image,
                "Propagation": if bind { mount.propagation.as_str() } else { "" },
            });
            if volume {
                object["Name"] = mount.source.as_str().into();
                object["Driver"] = point.driver().into();
            }
            if mount.kind == MountKind::Image {
                object["Name"] = mount.source.as_str().into();
            }
            object
        })
        .collect()
}

/// Renders an item of `GET /containers/json`.
pub(crate) fn render_item(info: &ContainerInfo, now: Timestamp, bridge: Option<IpNet>) -> Value {
    json!({
        "Id": info.id,
        "Names": [format!("/{}", info.name)],
        "Image": Reference::shorten(&info.config.spec.image),
        "ImageID": info.image,
        "Command": command(info),
        "Created": info.created.0 / 1_000_000_000,
        "Ports": port_items(info),
        "Labels": info.merged.labels,
        "State": info.state.status.as_str(),
        "Status": status(info, now),
        "HostConfig": { "NetworkMode": network_mode(&info.config) },
        "NetworkSettings": { "Networks": networks(info, bridge) },
        "Mounts": mounts(info),
    })
}

/// A time, or Go's zero time for never.
fn time(time: Timestamp) -> String {
    if time.0 == 0 { "0001-01-01T00:00:00Z".to_owned() } else { time.rfc3339() }
}

/// Renders `State` of an inspection.
fn state(info: &ContainerInfo) -> Value {
    let state = &info.state;
    let mut object = json!({
        "Status": state.status.as_str(),
        "Running": state.status == Status::Running,
        "Paused": false,
        "Restarting": false,
        "OOMKilled": state.oom_killed,
        "Dead": false,
        "Pid": state.pid,
        "ExitCode": state.exit_code,
        "Error": state.error,
        "StartedAt": time(state.started_at),
        "FinishedAt": time(state.finished_at),
    });
    if let Some(health) = &state.health {
        let log: Vec<Value> = health
            .log
            .iter()
            .map(|probe| {
                json!({
                    "Start": probe.start.rfc3339(),
                    "End": probe.end.rfc3339(),
                    "ExitCode": probe.exit_code,
                    "Output": probe.output,
                })
            })
            .collect();
        object["Health"] = json!({
            "Status": health.status.as_str(),
            "FailingStreak": health.failing_streak,
            "Log": log,
        });
    }
    object
}

/// Names as the keys of an object, Go's form of a set.
fn set(names: &BTreeSet<String>) -> Option<Value> {
    let keys = names.iter().map(|name| (name.clone(), json!({})));
    (!names.is_empty()).then(|| Value::Object(keys.collect()))
}

/// Go's form of a list that nobody gave.
fn some(words: &[String]) -> Option<&[String]> {
    (!words.is_empty()).then_some(words)
}

/// Renders `Config`: the image's settings and the user's as one.
fn config(info: &ContainerInfo) -> Value {
    let (spec, asked, merged) = (&info.config.spec, &info.config.asked, &info.merged);
    let mut object = json!({
        "Hostname": info.hostname,
        "Domainname": "",
        "User": merged.user,
        "AttachStdin": asked.attach_stdin,
        "AttachStdout": asked.attach_stdout,
        "AttachStderr": asked.attach_stderr,
        "Tty": spec.tty,
        "OpenStdin": spec.open_stdin,
        "StdinOnce": info.config.stdin_once,
        "Env": merged.env,
        "Cmd": some(&merged.command),
        "Image": Reference::shorten(&spec.image),
        "Volumes": set(&merged.volumes),
        "WorkingDir": merged.dir,
        "Entrypoint": some(&merged.entrypoint),
        "OnBuild": null,
        "Labels": merged.labels,
    });
    // What Docker leaves out where there is nothing.
    let optional = [
        ("ExposedPorts", set(&merged.exposed_ports)),
        ("StopSignal", Some(json!(merged.stop_signal)).filter(|_| !merged.stop_signal.is_empty())),
        ("StopTimeout", spec.stop_grace_period.map(|grace| json!(seconds(grace)))),
        ("Healthcheck", merged.health.as_ref().map(|check| json!(HealthJson::render(check)))),
    ];
    for (name, value) in optional {
        if let Some(value) = value {
            object[name] = value;
        }
    }
    object
}

/// A grace period as Docker has it: -1 is for ever.
fn seconds(grace: std::time::Duration) -> i64 {
    if grace == FOREVER { -1 } else { i64::try_from(grace.as_secs()).unwrap_or(i64::MAX) }
}

/// Renders `GET /containers/{id}/json`. `bridge` is the subnet of the gateway bridge.
pub(crate) fn render(info: &ContainerInfo, bridge: Option<IpNet>) -> Value {
    let (path, args) =
        info.args.split_first().map_or(("", &[][..]), |(path, args)| (path.as_str(), args));
    let file = |name: &str| info.folder.join(name);
    json!({
        "Id": info.id,
        "Created": info.created.rfc3339(),
        "Path": path,
        "Args": args,
        "State": state(info),
        "Image": info.image,
        "ResolvConfPath": file("resolv.conf"),
        "HostnamePath": file("hostname"),
        "HostsPath": file("hosts"),
        "LogPath": info.log_path,
        "Name": format!("/{}", info.name),
        "RestartCount": 0,
        "Driver": "overlayfs",
        "Platform": "linux",
        "MountLabel": "",
        "ProcessLabel": "",
        "AppArmorProfile": info.apparmor,
        "ExecIDs": some(&info.execs),
        "HostConfig": host_config(&info.config),
        "GraphDriver": { "Data": null, "Name": "overlayfs" },
        "Mounts": mounts(info),
        "Config": config(info),
        "NetworkSettings": network_settings(info, bridge),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_told_as_docker_does() {
        let secs = std::time::Duration::from_secs;
        for (seconds, text) in [
            (0, "Less than a second"),
            (59, "59 seconds"),
            (90, "About a minute"),
            (600, "10 minutes"),
            (4000, "About an hour"),
            (7200, "2 hours"),
            (200_000, "2 days"),
        ] {
            assert_eq!(ago(secs(seconds)), text);
        }
    }
}
