//! Published ports: `8080:80`, ranges, and the long form.

use crate::fields::{Fields, items};
use crate::remark::Log;
use crate::scalar::{integer, scalar, text, word};
use crate::tree::{Node, Value};
use types::{Protocol, PublishMode, PublishedPort};

const PROTOCOLS: [(&str, Protocol); 2] = [("tcp", Protocol::Tcp), ("udp", Protocol::Udp)];
const MODES: [(&str, PublishMode); 2] =
    [("ingress", PublishMode::Ingress), ("host", PublishMode::Host)];

/// Reads `ports`. A port of a later file takes the place of one of an earlier file that is
/// published under the same number.
pub(crate) fn ports(node: &Node, log: &mut Log) -> Vec<PublishedPort> {
    let mut ports: Vec<(&Node, PublishedPort)> = Vec::new();
    for item in items(node, log) {
        let is_long = matches!(item.value, Value::Map(_));
        let new = if is_long { long(item, log).into_iter().collect() } else { short(item, log) };
        for port in new {
            let same = |other: &PublishedPort| {
                port.published != 0
                    && (other.published, other.protocol) == (port.published, port.protocol)
            };
            ports.retain(|(from, other)| from.at.file == item.at.file || !same(other));
            if ports.iter().any(|(_, other)| same(other) && *other != port) {
                log.error(item, format!("port {} is published twice", port.published));
            }
            ports.push((item, port));
        }
    }
    let mut ports: Vec<PublishedPort> = ports.into_iter().map(|(_, port)| port).collect();
    ports.sort();
    ports.dedup();
    // Docker's order: two clients that deploy one file send the same spec.
    ports.sort_by_key(|port| port.published);
    ports
}

fn long(node: &Node, log: &mut Log) -> Option<PublishedPort> {
    let mut fields = Fields::of(node, log);
    let mut port = PublishedPort::default();
    let target = fields.take("target");
    if let Some(target) = target {
        port.target = integer(target, log);
    }
    if let Some(published) = fields.take("published") {
        port.published = integer(published, log);
    }
    if let Some(protocol) = fields.take("protocol") {
        port.protocol = word(protocol, &PROTOCOLS, log);
    }
    if let Some(mode) = fields.take("mode") {
        port.mode = word(mode, &MODES, log);
    }
    if let Some(name) = fields.take("name") {
        port.name = text(name, log);
    }
    fields.ignore(
        &[
            ("app_protocol", "it is of no use to skep"),
            ("host_ip", "a published port is open on every address of a node"),
        ],
        log,
    );
    fields.finish(log);
    if port.target == 0 {
        log.error(target.unwrap_or(node), "a port needs a target from 1 to 65535");
        return None;
    }
    Some(port)
}

fn short(node: &Node, log: &mut Log) -> Vec<PublishedPort> {
    let text = scalar(node).unwrap_or_default();
    match parse_short(&text) {
        Ok((ports, ip)) => {
            if let Some(ip) = ip {
                let text = format!(
                    "the address {ip} is ignored: a published port is open on every address of a node"
                );
                log.warn(node, text);
            }
            ports
        }
        Err(problem) => {
            log.error(node, problem);
            Vec::new()
        }
    }
}

/// Reads `[[IP:]PUBLISHED:]TARGET[/PROTOCOL]`, where numbers may be ranges; the address comes
/// beside the ports.
pub fn parse_short(text: &str) -> Result<(Vec<PublishedPort>, Option<String>), String> {
    let wrong = || format!("invalid port {text:?}: write it like \"8080:80\" or \"53:53/udp\"");
    let (numbers, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    let protocol = PROTOCOLS
        .iter()
        .find(|(word, _)| word.eq_ignore_ascii_case(protocol))
        .map(|(_, protocol)| *protocol)
        .ok_or_else(|| format!("invalid port {text:?}: the protocol is none of tcp, udp"))?;
    let (left, target) = match numbers.rsplit_once(':') {
        Some((left, target)) => (Some(left), target),
        None => (None, numbers),
    };
    let (ip, published) = match left.map(|left| left.rsplit_once(':').ok_or(left)) {
        Some(Ok((ip, published))) => {
            let address: std::net::IpAddr =
                ip.trim_matches(['[', ']']).parse().map_err(|_invalid| wrong())?;
            (Some(address.to_string()), Some(published))
        }
        Some(Err(published)) => (None, Some(published)),
        None => (None, None),
    };
    let target = range(target).filter(|(first, _)| *first > 0).ok_or_else(wrong)?;
    let published = match published {
        None | Some("") => None,
        Some(text) => Some(range(text).ok_or_else(wrong)?),
    };
    if let Some(published) = published
        && published.1 - published.0 != target.1 - target.0
    {
        return Err(format!("invalid port {text:?}: the two ranges differ in length"));
    }
    let port = |number: u16| PublishedPort {
        protocol,
        target: number,
        published: published.map_or(0, |(first, _)| first + (number - target.0)),
        ..PublishedPort::default()
    };
    Ok(((target.0..=target.1).map(port).collect(), ip))
}

/// Reads `80` or `80-90`.
fn range(text: &str) -> Option<(u16, u16)> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if !digits(first) || !digits(last) {
        return None;
    }
    let (first, last) = (first.parse().ok()?, last.parse().ok()?);
    (first <= last).then_some((first, last))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_forms_are_read() {
        let read = |text: &str| {
            let (ports, ip) = parse_short(text).unwrap();
            let ports: Vec<String> = ports
                .iter()
                .map(|port| {
                    format!("{}->{}/{}", port.published, port.target, port.protocol.as_str())
                })
                .collect();
            format!("{} {}", ip.unwrap_or_default(), ports.join(" ")).trim().to_owned()
        };
        for (text, wanted) in [
            ("80", "0->80/tcp"),
            ("8080:80", "8080->80/tcp"),
            ("53:53/udp", "53->53/udp"),
            ("127.0.0.1:8001:8001", "127.0.0.1 8001->8001/tcp"),
            ("8000-8001:80-81", "8000->80/tcp 8001->81/tcp"),
            ("127.0.0.1::80", "127.0.0.1 0->80/tcp"),
        ] {
            assert_eq!(read(text), wanted, "{text}");
        }
    }

    #[test]
    fn wrong_forms_are_refused() {
        for text in [
            "",
            "a",
            "1:2:3",
            "80:",
            "0",
            "70000:80",
            "90-80",
            "8000-8001:80",
            "80/sctp",
            "-1",
            "+80",
        ] {
            assert!(parse_short(text).is_err(), "{text}");
        }
    }
}
