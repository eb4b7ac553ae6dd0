//! Values of service flags in docker's notation.

use compose::parse_port;
use std::net::IpAddr;
use std::time::Duration;
use types::{
    EndpointMode, FailureAction, HostEntry, Mount, MountKind, NetworkAttachment, Preference,
    Protocol, PublishMode, PublishedPort, RestartCondition, Ulimit, UpdateOrder, parse_duration,
    parse_size,
};

type Parsed<T> = Result<T, String>;

pub(super) fn duration(text: &str) -> Parsed<Duration> {
    parse_duration(text).ok_or_else(|| "should be a duration such as 1m30s, 500ms or 2h".into())
}

pub(super) fn bytes(text: &str) -> Parsed<i64> {
    parse_size(text).ok_or_else(|| "should be an amount of bytes such as 512k, 50M or 2g".into())
}

/// CPUs such as `0.5`, as billionths.
pub(super) fn cpus(text: &str) -> Parsed<i64> {
    let cpus: f64 = text.parse().map_err(|_not_a_number| "should be a number such as 0.5")?;
    if !(0.0..=1e6).contains(&cpus) {
        return Err("should be a number such as 0.5".into());
    }
    #[expect(clippy::cast_possible_truncation, reason = "a million CPUs fit")]
    let nanos = (cpus * 1e9).round() as i64;
    Ok(nanos)
}

pub(super) fn restart_condition(text: &str) -> Parsed<RestartCondition> {
    match text {
        "none" => Ok(RestartCondition::None),
        "on-failure" => Ok(RestartCondition::OnFailure),
        "any" => Ok(RestartCondition::Any),
        _ => Err("use none, on-failure or any".into()),
    }
}

pub(super) fn failure_action(text: &str) -> Parsed<FailureAction> {
    match text {
        "pause" => Ok(FailureAction::Pause),
        "continue" => Ok(FailureAction::Continue),
        "rollback" => Ok(FailureAction::Rollback),
        _ => Err("use pause, continue or rollback".into()),
    }
}

pub(super) fn order(text: &str) -> Parsed<UpdateOrder> {
    match text {
        "stop-first" => Ok(UpdateOrder::StopFirst),
        "start-first" => Ok(UpdateOrder::StartFirst),
        _ => Err("use start-first or stop-first".into()),
    }
}

pub(super) fn endpoint_mode(text: &str) -> Parsed<EndpointMode> {
    match text {
        "vip" => Ok(EndpointMode::Vip),
        "dnsrr" => Ok(EndpointMode::Dnsrr),
        _ => Err("use vip or dnsrr".into()),
    }
}

/// The ports that one `--publish` names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Ports(pub(super) Vec<PublishedPort>);

/// Reads `8080:80/tcp`, or `published=8080,target=80,protocol=tcp,mode=host`.
pub(super) fn publish(text: &str) -> Parsed<Ports> {
    if !text.contains('=') {
        return match parse_port(text)? {
            (ports, None) => Ok(Ports(ports)),
            (_, Some(ip)) => {
                Err(format!("a port cannot be published on the address {ip} alone; leave it out"))
            }
        };
    }
    let mut port = PublishedPort::default();
    for (key, value) in fields(text, &[])? {
        let number = || value.parse().map_err(|_not_a_port| format!("{value:?} is not a port"));
        match key {
            "target" => port.target = number()?,
            "published" => port.published = number()?,
            "protocol" => {
                port.protocol = match value {
                    "tcp" => Protocol::Tcp,
                    "udp" => Protocol::Udp,
                    _ => return Err("the protocol is none of tcp, udp".into()),
                }
            }
            "mode" => {
                port.mode = match value {
                    "ingress" => PublishMode::Ingress,
                    "host" => PublishMode::Host,
                    _ => return Err("the mode is none of ingress, host".into()),
                }
            }
            "name" => port.name = value.into(),
            _ => return Err(format!("unknown field {key:?}")),
        }
    }
    if port.target == 0 {
        return Err("missing mandatory field 'target'".into());
    }
    Ok(Ports(vec![port]))
}

/// Reads `type=bind,source=/a,target=/b,readonly`.
pub(super) fn mount(text: &str) -> Parsed<Mount> {
    let mut mount = Mount::default();
    let fields = fields(text, &["readonly", "ro", "volume-nocopy"])?;
    for &(key, value) in &fields {
        match key {
            "type" => {
                mount.kind = MountKind::parse(value)
                    .ok_or("the type is none of bind, volume, tmpfs, image")?;
            }
            "source" | "src" => mount.source = value.into(),
            "target" | "dst" | "destination" => mount.target = value.into(),
            "readonly" | "ro" => mount.read_only = boolean(key, value)?,
            "tmpfs-size" => mount.tmpfs_size = u64::try_from(bytes(value)?).unwrap_or(0),
            "tmpfs-mode" => {
                mount.tmpfs_mode =
                    u32::from_str_radix(value, 8).map_err(|_not_octal| "tmpfs-mode: use 1777")?;
            }
            "volume-nocopy" => mount.no_copy = boolean(key, value)?,
            "volume-subpath" | "image-subpath" => mount.subpath = value.into(),
            "volume-driver" => mount.volume_driver = value.into(),
            "volume-opt" => {
                let (option, value) = value.split_once('=').unwrap_or((value, ""));
                mount.driver_options.insert(option.into(), value.into());
            }
            "volume-label" => {
                let (label, value) = value.split_once('=').unwrap_or((value, ""));
                mount.labels.insert(label.into(), value.into());
            }
            _ => return Err(format!("the field {key:?} is not supported by skep")),
        }
    }
    for (prefix, kind) in
        [("volume-", MountKind::Volume), ("tmpfs-", MountKind::Tmpfs), ("image-", MountKind::Image)]
    {
        if mount.kind != kind && fields.iter().any(|(key, _)| key.starts_with(prefix)) {
            return Err(format!("cannot mix '{prefix}*' options with a mount of another type"));
        }
    }
    match (mount.kind, mount.source.is_empty(), mount.target.is_empty()) {
        (_, _, true) => Err("target is required".into()),
        (MountKind::Bind | MountKind::Image, true, _) => {
            Err(format!("source is required for a {} mount", mount.kind.as_str()))
        }
        (MountKind::Tmpfs, false, _) => Err("a tmpfs mount has no source".into()),
        (_, _, _) => Ok(mount),
    }
}

/// Reads a network's name, or `name=web,alias=www`.
pub(super) fn network(text: &str) -> Parsed<NetworkAttachment> {
    if !text.contains('=') {
        return Ok(NetworkAttachment { target: text.into(), aliases: Vec::new() });
    }
    let mut attachment = NetworkAttachment::default();
    for (key, value) in fields(text, &[])? {
        match key {
            "name" => attachment.target = value.into(),
            "alias" => attachment.aliases.push(value.into()),
            _ => return Err(format!("the field {key:?} is not supported by skep")),
        }
    }
    Ok(attachment)
}

pub(super) fn preference(text: &str) -> Parsed<Preference> {
    match text.split_once('=') {
        Some(("spread", spread)) if !spread.is_empty() => Ok(Preference { spread: spread.into() }),
        _ => Err("use spread=node.labels.KEY".into()),
    }
}

/// Reads `gpu=2`: which ones they are a service cannot ask for.
pub(super) fn generic(text: &str) -> Parsed<(String, u64)> {
    let read = types::generic::parse(&[text]).map_err(|error| error.to_string())?;
    match read.into_iter().next() {
        Some((kind, types::Amount::Count(count))) => Ok((kind, count)),
        _ => Err("ask for a number of them, as in gpu=2".into()),
    }
}

/// Reads `NAME:ADDRESS`.
pub(super) fn host(text: &str) -> Parsed<HostEntry> {
    text.split_once(['=', ':'])
        .and_then(|(name, address)| {
            let address = address.trim_matches(['[', ']']).parse().ok()?;
            Some(HostEntry { address, names: vec![name.to_owned()] })
        })
        .ok_or_else(|| "use NAME:ADDRESS".into())
}

/// A name that is to go from `/etc/hosts`; without an address wherever it stands.
#[derive(Clone, Debug)]
pub(super) struct HostRemoval {
    pub(super) name: String,
    pub(super) address: Option<IpAddr>,
}

/// Reads `NAME` or `NAME:ADDRESS`.
pub(super) fn host_removal(text: &str) -> Parsed<HostRemoval> {
    if !text.contains(['=', ':']) {
        return Ok(HostRemoval { name: text.to_owned(), address: None });
    }
    let HostEntry { address, mut names } = host(text)?;
    Ok(HostRemoval { name: names.pop().unwrap_or_default(), address: Some(address) })
}

/// Reads `nofile=1024:2048`, or one number for both.
pub(super) fn ulimit(text: &str) -> Parsed<Ulimit> {
    let wrong = || "use NAME=SOFT[:HARD]".to_owned();
    let (name, values) = text.split_once('=').ok_or_else(wrong)?;
    let (soft, hard) = values.split_once(':').unwrap_or((values, values));
    let number = |text: &str| text.parse().map_err(|_not_a_number| wrong());
    Ok(Ulimit { name: name.into(), soft: number(soft)?, hard: number(hard)? })
}

/// `key=value` fields with commas between; one of `switches` may stand alone, and is true.
fn fields<'a>(text: &'a str, switches: &[&str]) -> Parsed<Vec<(&'a str, &'a str)>> {
    let pair = |field: &'a str| match field.split_once('=') {
        Some(pair) => Ok(pair),
        None if switches.contains(&field) => Ok((field, "true")),
        None => Err(format!("invalid field {field:?}: use KEY=VALUE")),
    };
    text.split(',').map(pair).collect()
}

/// Go's words for yes and no.
fn boolean(key: &str, value: &str) -> Parsed<bool> {
    match value {
        "1" | "t" | "T" | "TRUE" | "true" | "True" => Ok(true),
        "0" | "f" | "F" | "FALSE" | "false" | "False" => Ok(false),
        _ => Err(format!("invalid value for {key}: {value:?}: use true or false")),
    }
}

/// A variable as the API wants it: `NAME` alone hands on our own.
pub(super) fn variable(text: &str) -> String {
    match std::env::var(text) {
        Ok(value) if !text.contains('=') => format!("{text}={value}"),
        _ => text.to_owned(),
    }
}

/// The name before the equals sign.
pub(super) fn key(text: &str) -> &str {
    text.split_once('=').map_or(text, |(key, _)| key)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_have_a_short_and_a_long_form() {
        let Ports(long) = publish("published=8080,target=80,protocol=udp,mode=host").unwrap();
        assert_eq!((long[0].published, long[0].target), (8080, 80));
        assert_eq!((long[0].protocol, long[0].mode), (Protocol::Udp, PublishMode::Host));
        let Ports(short) = publish("8080-8081:80-81").unwrap();
        assert_eq!(short.len(), 2);
        for text in ["published=80", "target=x", "a=b", "127.0.0.1:80:80", "80/sctp"] {
            assert!(publish(text).is_err(), "{text}");
        }
    }

    #[test]
    fn what_a_mount_cannot_honour_is_refused() {
        for (field, read_only) in [("ro", true), ("readonly=1", true), ("readonly=F", false)] {
            assert_eq!(mount(&format!("dst=/b,{field}")).unwrap().read_only, read_only, "{field}");
        }
        assert_eq!(mount("dst=/b,volume-label=a=b").unwrap().labels["a"], "b");
        assert_eq!(mount("type=tmpfs,dst=/b,tmpfs-size=1k").unwrap().tmpfs_size, 1024);
        for text in [
            "dst=/b,readonly=maybe",
            "dst=/b,readonly=",
            "dst=/b,source",
            "type=bind,src=/a,dst=/b,tmpfs-size=1k",
            "type=bind,src=/a,dst=/b,volume-label=a=b",
            "dst=/b,tmpfs-mode=700",
            "dst=/b,tmpfs-size=0",
            "volume-label=a=b,type=tmpfs,dst=/b",
        ] {
            assert!(mount(text).is_err(), "{text}");
        }
        assert!(network("name=web,alias").is_err() && publish("target=80,name").is_err());
    }

    #[test]
    fn mounts_networks_and_the_rest_are_read() {
        let bind = mount("type=bind,src=/a,dst=/b,readonly").unwrap();
        assert!(bind.read_only && bind.kind == MountKind::Bind && bind.target == "/b");
        assert!(mount("type=bind,dst=/b").is_err() && mount("dst=/b,colour=red").is_err());
        let network = network("name=web,alias=a,alias=b").unwrap();
        assert_eq!((network.target.as_str(), network.aliases.len()), ("web", 2));
        assert_eq!(ulimit("nofile=1:2").unwrap().hard, 2);
        assert_eq!(host("db:10.0.0.1").unwrap().names, ["db"]);
        assert_eq!(host("db:::1").unwrap().address.to_string(), "::1");
        assert_eq!(cpus("0.5").unwrap(), 500_000_000);
        assert!(cpus("-1").is_err() && cpus("NaN").is_err());
    }
}
