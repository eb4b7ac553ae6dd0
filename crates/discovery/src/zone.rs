//! The name server's decision: what to answer to whom.

use crate::names::{Names, Records};
use ipnet::IpNet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

/// Seconds that an answer may be kept. Back ends change often, and asking again is cheap: the
/// server is on the same machine.
pub const TTL: u32 = 1;

/// All that one sandbox may know: the names of its networks, in the order of its attachments.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Zone {
    pub(crate) networks: Vec<Arc<Names>>,
    /// The stack that it belongs to; empty for none.
    pub(crate) stack: String,
    /// The subnets of the cluster, also of networks that this sandbox is not on.
    pub(crate) subnets: Arc<[IpNet]>,
    pub(crate) upstream: Upstream,
}

/// Whom to ask what is not ours.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Upstream {
    /// The node's servers, from its own namespace.
    #[default]
    Node,
    /// The container's own servers, from its namespace: what it cannot reach, it cannot ask.
    Own(Vec<IpAddr>),
    /// Nobody: a container on internal networks alone has no way out, nor has a question of it,
    /// which could carry anything.
    Nobody,
}

impl Zone {
    /// Whom to ask what is not ours.
    pub fn upstream(&self) -> &Upstream {
        &self.upstream
    }

    /// The addresses of a name. A service of the own stack comes before others of the same name,
    /// on whatever network, and also while nobody serves it.
    fn addresses(&self, name: &str) -> Found<'_> {
        let mut own =
            self.networks.iter().filter_map(|names| names.in_stack(&self.stack, name)).peekable();
        if own.peek().is_some() {
            let served = own.find(|addresses| !addresses.is_empty());
            return served.map_or(Found::Nobody, Found::Addresses);
        }
        let found = self.networks.iter().find_map(|names| names.addresses(name));
        found.map_or(Found::Unknown, Found::Addresses)
    }
}

/// What is found of a name.
enum Found<'z> {
    Addresses(&'z Records),
    /// It is ours, and nobody serves it.
    Nobody,
    Unknown,
}

/// A question of class IN.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Question<'a> {
    /// In lower case, without the dot at the end; empty for the root.
    pub name: &'a str,
    pub kind: Kind,
}

/// What is asked of a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    A,
    Aaaa,
    /// PTR
    Pointer,
    Any,
    /// AXFR, IXFR: a whole zone.
    Transfer,
    /// MX, TXT, …: we never have one, others may.
    Other,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer<'z> {
    /// At least one address, of those families that were asked for.
    Addresses {
        v4: &'z [Ipv4Addr],
        v6: &'z [Ipv6Addr],
    },
    /// What an address is called, without the dot at the end.
    Name(&'z str),
    /// The name is there, but nothing of this kind.
    NoData,
    NxDomain,
    /// Not ours to know: ask [`Zone::upstream`].
    Forward,
    /// Not ours to know, and there is nobody to ask.
    Fail,
    Refuse,
}

/// Answers a question from one sandbox.
///
/// A name of a single label, alone or behind `tasks.`, is never forwarded: nobody outside knows our
/// services, and a typing error should fail at once.
pub fn answer<'z>(zone: &'z Zone, question: Question<'_>) -> Answer<'z> {
    if question.kind == Kind::Transfer {
        return Answer::Refuse;
    }
    if let Some(address) = reversed(question.name) {
        return pointer(zone, address, question.kind);
    }
    match zone.addresses(question.name) {
        Found::Addresses(records) => of_kind(records, question.kind),
        Found::Nobody => Answer::NxDomain,
        Found::Unknown if is_for_us_alone(question.name) => Answer::NxDomain,
        Found::Unknown => forward(zone),
    }
}

/// Resolvers ask for A and AAAA at once; where there is only one of them, NXDOMAIN to the other would
/// hide it.
fn of_kind(records: &Records, kind: Kind) -> Answer<'_> {
    let (v4, v6): (&[Ipv4Addr], &[Ipv6Addr]) = match kind {
        Kind::A => (&records.v4, &[]),
        Kind::Aaaa => (&[], &records.v6),
        Kind::Any => (&records.v4, &records.v6),
        Kind::Pointer | Kind::Other | Kind::Transfer => (&[], &[]),
    };
    if v4.is_empty() && v6.is_empty() { Answer::NoData } else { Answer::Addresses { v4, v6 } }
}

fn forward(zone: &Zone) -> Answer<'_> {
    match zone.upstream {
        Upstream::Node | Upstream::Own(_) => Answer::Forward,
        Upstream::Nobody => Answer::Fail,
    }
}

/// Says whether a name could only be a service's, `web` or `tasks.web`.
fn is_for_us_alone(name: &str) -> bool {
    let service = name.strip_prefix("tasks.").unwrap_or(name);
    !service.is_empty() && !service.contains('.')
}

fn pointer(zone: &Zone, address: IpAddr, kind: Kind) -> Answer<'_> {
    let ours = || zone.subnets.iter().any(|subnet| subnet.contains(&address));
    match zone.networks.iter().find_map(|names| names.name_of(address)) {
        Some(name) => match kind {
            Kind::Pointer | Kind::Any => Answer::Name(name),
            Kind::A | Kind::Aaaa | Kind::Other | Kind::Transfer => Answer::NoData,
        },
        None if ours() => Answer::NxDomain,
        None => forward(zone),
    }
}

/// Reads the name of an address: `4.3.2.1.in-addr.arpa` (RFC 1035, 3.5), or 32 digits and `ip6.arpa`
/// (RFC 3596, 2.5).
fn reversed(name: &str) -> Option<IpAddr> {
    reversed_v4(name).map(IpAddr::V4).or_else(|| reversed_v6(name).map(IpAddr::V6))
}

fn reversed_v6(name: &str) -> Option<Ipv6Addr> {
    let (mut bits, mut count) = (0_u128, 0);
    for label in name.strip_suffix(".ip6.arpa")?.split('.') {
        let [digit] = label.as_bytes() else { return None };
        let digit = u128::from(char::from(*digit).to_digit(16)?);
        // The last digit comes first.
        bits |= digit.checked_shl(4 * count)?;
        count += 1;
    }
    (count == 32).then(|| bits.into())
}

fn reversed_v4(name: &str) -> Option<Ipv4Addr> {
    let mut labels = name.strip_suffix(".in-addr.arpa")?.split('.');
    let mut octet = || -> Option<u8> {
        let label = labels.next()?;
        label.bytes().all(|byte| byte.is_ascii_digit()).then(|| label.parse().ok())?
    };
    let (d, c, b, a) = (octet()?, octet()?, octet()?, octet()?);
    labels.next().is_none().then(|| Ipv4Addr::new(a, b, c, d))
}
