//! Where a receiver is: `udp://host:port`, `tcp://…`, `tcp+tls://…`, `unix://path`, `unixgram://path`.

use std::fmt;
use std::path::PathBuf;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Address {
    /// `host:port`
    Udp(String),
    Tcp(String),
    Tls(String),
    Stream(PathBuf),
    Datagrams(PathBuf),
    /// One of these, whichever kind of socket it is: the machine's own syslog.
    Local(&'static [&'static str]),
}

impl Address {
    /// Splits `scheme://rest` and reads it; `default_port` where none is said. `None`: it is no address.
    pub(super) fn parse(text: &str, default_port: Option<u16>) -> Option<Self> {
        let (scheme, rest) = text.split_once("://")?;
        let path = || Some(PathBuf::from(rest)).filter(|path| path.is_absolute());
        match scheme {
            "unix" => path().map(Self::Stream),
            "unixgram" => path().map(Self::Datagrams),
            "udp" => host_port(rest, default_port).map(Self::Udp),
            "tcp" => host_port(rest, default_port).map(Self::Tcp),
            "tcp+tls" | "tls" => host_port(rest, default_port).map(Self::Tls),
            _ => None,
        }
    }

    /// Go's name of the network.
    pub(super) fn network(&self) -> &'static str {
        match self {
            Self::Udp(_) => "udp",
            Self::Tcp(_) | Self::Tls(_) => "tcp",
            Self::Stream(_) | Self::Local(_) => "unix",
            Self::Datagrams(_) => "unixgram",
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Udp(host) | Self::Tcp(host) | Self::Tls(host) => f.write_str(host),
            Self::Stream(path) | Self::Datagrams(path) => path.display().fmt(f),
            Self::Local(paths) => f.write_str(paths.first().copied().unwrap_or_default()),
        }
    }
}

/// `host:port`, `[v6]:port`, or a host alone where there is a port for it.
pub(super) fn host_port(text: &str, default_port: Option<u16>) -> Option<String> {
    let text = text.strip_suffix('/').unwrap_or(text);
    if text.contains('/') {
        return None;
    }
    let has_port = text.rsplit_once(':').filter(|(host, _)| {
        let bracketed = host.starts_with('[') && host.ends_with(']');
        bracketed || !host.contains(':')
    });
    match has_port {
        Some((_, port)) => port.parse::<u16>().ok().map(|_| text.to_owned()),
        None if text.is_empty() => None,
        None => default_port.map(|port| format!("{text}:{port}")),
    }
}

/// The host of `host:port`.
pub(super) fn host_of(text: &str) -> &str {
    let host = text.rsplit_once(':').map_or(text, |(host, _)| host);
    host.trim_start_matches('[').trim_end_matches(']')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_and_what_is_none_is_not() {
        for (text, read) in [
            ("udp://1.2.3.4:514", Some("udp 1.2.3.4:514")),
            ("tcp://logs.example", Some("tcp logs.example:601")),
            ("tcp+tls://[::1]:6514", Some("tcp [::1]:6514")),
            ("unix:///dev/log", Some("unix /dev/log")),
            ("unixgram:///dev/log", Some("unixgram /dev/log")),
            ("unix://dev/log", None),
            ("1.2.3.4:514", None),
            ("http://1.2.3.4:514", None),
            ("tcp://1.2.3.4:many", None),
            ("tcp://", None),
            ("tcp://host:1/path", None),
        ] {
            let address = Address::parse(text, Some(601));
            let shown = address.map(|it| format!("{} {it}", it.network()));
            assert_eq!(shown.as_deref(), read, "{text}");
        }
        assert_eq!(Address::parse("udp://host", None), None);
        assert_eq!((host_of("[::1]:6514"), host_of("a:1")), ("::1", "a"));
    }
}
