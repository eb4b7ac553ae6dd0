//! Networks of the cluster.

use crate::{Addresses, Fault, Labels, Meta, NetworkId};
use ipnet::{IpNet, Ipv4Net};
use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserializer, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr};

/// A network: the user's spec and what the allocator gave it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Network {
    pub id: NetworkId,
    pub meta: Meta,
    pub spec: NetworkSpec,
    /// The VXLAN network identifier, from 4097; 0 until allocated. 4096 is the ingress network's.
    pub vni: u32,
    /// At most one of each family; none until allocated.
    #[serde(alias = "subnet", deserialize_with = "one_or_more")]
    pub subnets: Vec<Subnet>,
    /// The address of each family that was handed out last: the next one is looked for after it,
    /// so that an address that was just given back rests.
    #[serde(alias = "last_address")]
    pub last_addresses: Addresses,
    /// Of the ingress network only: the VXLAN network identifier that was handed out last. The next
    /// one is looked for after it, so that a node that was away finds nobody else on a network that
    /// is gone. (Not in the cluster's object: its version is the users'.)
    pub last_vni: u32,
    /// Users have removed it. It is not shown and its name is free, but it is carried, and keeps
    /// its VNI and subnet, until the planner finds that its last task has ended.
    pub removed: bool,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
#[expect(clippy::struct_excessive_bools, reason = "Docker's options, each by itself")]
pub struct NetworkSpec {
    pub name: String,
    pub labels: Labels,
    /// `overlay`, the only one that spans nodes.
    pub driver: String,
    pub driver_options: Labels,
    pub attachable: bool,
    pub internal: bool,
    /// The network of the routing mesh. There is exactly one.
    pub ingress: bool,
    /// It has an IPv6 subnet, too, of the cluster's pools where the user names none.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub ipv6: bool,
    /// At most one of each family. None: the allocator takes an IPv4 subnet of the cluster's pools.
    #[serde(alias = "subnet", deserialize_with = "one_or_more")]
    pub subnets: Vec<Subnet>,
    /// The part of the subnet of the same family that addresses are handed out from; where there is
    /// none, all of it.
    #[serde(alias = "ip_range", with = "crate::plain")]
    pub ip_ranges: Vec<IpNet>,
    /// Addresses of the subnets that are never handed out, by the names that users gave them.
    pub aux_addresses: BTreeMap<String, Addresses>,
}

/// Options of Docker's driver that are not honoured, and why.
const REFUSED_OPTIONS: &[(&str, &str)] = &[
    ("encrypted", "overlays are not encrypted yet"),
    (NetworkSpec::VXLAN_ID, "the cluster draws it"),
    ("dsr", "answers go back the way that requests came"),
];

impl NetworkSpec {
    /// Docker's option for the identifier of the tunnel.
    pub const VXLAN_ID: &str = "com.docker.network.driver.overlay.vxlanid_list";
    /// Docker's option for the MTU of the underlay.
    pub const MTU: &str = "com.docker.network.driver.mtu";

    /// The underlay's MTU as the creator said it, in bytes; 0 where nothing was said. As in Docker,
    /// an interface on the network has the tunnel's 50 bytes less.
    pub fn mtu(&self) -> u32 {
        self.driver_options.get(Self::MTU).and_then(|text| text.trim().parse().ok()).unwrap_or(0)
    }

    /// Says which option of Docker's driver is not honoured, or has a wrong value. Those that it
    /// does not know pass, as with Docker.
    ///
    /// # Errors
    /// [`Fault::not_implemented`] or [`Fault::invalid`], with the option and its value.
    pub fn check_options(&self) -> Result<(), Fault> {
        for (option, advice) in REFUSED_OPTIONS {
            if let Some(value) = self.driver_options.get(*option) {
                return Err(Fault::not_implemented(&format!(
                    "Options.{option}={value} ({advice})"
                )));
            }
        }
        match self.driver_options.get(Self::MTU) {
            Some(value) if value.trim().parse::<u32>().is_err() => {
                Err(Fault::invalid(format!("invalid MTU value: {}={value}", Self::MTU)))
            }
            Some(_) | None => Ok(()),
        }
    }
}

/// A network of IP with its gateway address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Subnet {
    #[serde(with = "crate::plain")]
    pub net: IpNet,
    /// The first address where the user names none.
    #[serde(with = "crate::plain")]
    pub gateway: IpAddr,
}

impl Subnet {
    /// The subnet whose gateway has its first address.
    pub fn new(net: IpNet) -> Option<Self> {
        Some(Self { net, gateway: net.hosts().find(|address| *address != net.network())? })
    }
}

impl Default for Subnet {
    fn default() -> Self {
        Self { net: Ipv4Net::default().into(), gateway: Ipv4Addr::UNSPECIFIED.into() }
    }
}

/// Says whether two networks have addresses in common.
pub fn overlap(one: IpNet, other: IpNet) -> bool {
    one.contains(&other) || other.contains(&one)
}

/// Says whether an address and a network are of one family.
fn is_alike(net: IpNet, address: IpAddr) -> bool {
    address.is_ipv4() == net.network().is_ipv4()
}

impl NetworkSpec {
    /// The range of a subnet that addresses are handed out from, where the user chose one.
    pub fn range_of(&self, subnet: &Subnet) -> Option<IpNet> {
        let address = subnet.net.network();
        self.ip_ranges.iter().copied().find(|range| is_alike(*range, address))
    }

    /// The addresses of a subnet that are never handed out, by their names.
    pub fn aux_of(&self, subnet: &Subnet) -> impl Iterator<Item = (&str, IpAddr)> {
        let address = subnet.net.network();
        let named = self.aux_addresses.iter();
        named.filter_map(move |(name, all)| Some((name.as_str(), all.of_family(address)?)))
    }

    /// Says what is wrong with the subnets, and with the ranges and addresses beside them, in
    /// Docker's words.
    ///
    /// # Errors
    /// [`Fault::invalid`] with all that is wrong, one a line.
    pub fn check_ipam(&self) -> Result<(), Fault> {
        let has = |address: IpAddr| self.subnets.iter().any(|it| is_alike(it.net, address));
        if let Some(range) = self.ip_ranges.iter().find(|range| !has(range.network())) {
            return Err(Fault::invalid(format!("no matching subnet for range {range}")));
        }
        if self.aux_addresses.values().any(|all| !all.iter().all(has)) {
            return Err(Fault::invalid("no matching subnet for aux-address"));
        }
        let nets = self.subnets.iter().map(|subnet| subnet.net);
        for nets in [nets.collect::<Vec<_>>(), self.ip_ranges.clone()] {
            let of = |v4: bool| nets.iter().filter(|net| net.network().is_ipv4() == v4).count();
            if of(true) > 1 || of(false) > 1 {
                let text = "a network with more than one subnet of a family";
                return Err(Fault::not_implemented(text));
            }
        }
        let wrong: Vec<String> =
            self.subnets.iter().flat_map(|subnet| self.wrong_of(subnet)).collect();
        if wrong.is_empty() {
            return Ok(());
        }
        Err(Fault::invalid(format!("invalid network config:\n{}", wrong.join("\n"))))
    }

    fn wrong_of(&self, subnet: &Subnet) -> Vec<String> {
        let Subnet { net, gateway } = *subnet;
        let mut wrong = Vec::new();
        if let Some(range) = self.range_of(subnet) {
            let text = format!("invalid ip-range {range}");
            if range.prefix_len() < net.prefix_len() {
                wrong.push(format!("{text}: CIDR block is bigger than its parent subnet {net}"));
            }
            if range != range.trunc() {
                wrong.push(format!("{text}: it should be {}", range.trunc()));
            }
            if !overlap(net, range) {
                wrong.push(format!("{text}: parent subnet {net} doesn't contain ip-range"));
            }
        }
        for (name, address) in self.aux_of(subnet) {
            let text = format!("invalid auxiliary address {name}");
            if !net.contains(&address) {
                wrong.push(format!("{text}: parent subnet {net} doesn't contain this address"));
            }
            if address == gateway {
                wrong.push(format!("{text}: {address} is the gateway's"));
            }
        }
        wrong
    }
}

impl Network {
    /// Its subnets, or those that the user asks for while it has none.
    pub fn subnets_or_asked(&self) -> &[Subnet] {
        if self.subnets.is_empty() { &self.spec.subnets } else { &self.subnets }
    }

    /// An address of this network as Docker writes it, with the length of its subnet's prefix.
    pub fn with_prefix(&self, address: IpAddr) -> String {
        let subnet = self.subnets.iter().find(|subnet| is_alike(subnet.net, address));
        let whole = if address.is_ipv4() { 32 } else { 128 };
        format!("{address}/{}", subnet.map_or(whole, |subnet| subnet.net.prefix_len()))
    }
}

/// Reads a list of subnets, or the one that stood there before.
pub fn one_or_more<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Subnet>, D::Error> {
    deserializer.deserialize_any(OneOrMore)
}

struct OneOrMore;

impl<'de> Visitor<'de> for OneOrMore {
    type Value = Vec<Subnet>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("subnets")
    }

    fn visit_unit<E>(self) -> Result<Vec<Subnet>, E> {
        Ok(Vec::new())
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Vec<Subnet>, A::Error> {
        Subnet::deserialize(MapAccessDeserializer::new(map)).map(|subnet| vec![subnet])
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Vec<Subnet>, A::Error> {
        let mut subnets = Vec::new();
        while let Some(subnet) = list.next_element()? {
            subnets.push(subnet);
        }
        Ok(subnets)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::FaultKind;

    #[test]
    fn options_of_the_driver_are_honoured_or_refused_by_name() {
        let said = |option: &str, value: &str| {
            let driver_options = Labels::from([(option.to_owned(), value.to_owned())]);
            NetworkSpec { driver_options, ..NetworkSpec::default() }.check_options()
        };
        for (option, value) in [("encrypted", ""), ("dsr", ""), (NetworkSpec::VXLAN_ID, "4097")] {
            let fault = said(option, value).unwrap_err();
            assert_eq!(fault.kind, FaultKind::NotImplemented);
            assert!(fault.message.contains(option), "{fault}");
        }
        assert_eq!(said(NetworkSpec::MTU, "1400"), Ok(()));
        for wrong in ["", "much", "-1"] {
            assert_eq!(said(NetworkSpec::MTU, wrong).unwrap_err().kind, FaultKind::Invalid);
        }
        assert_eq!(said("com.example.mine", "1"), Ok(()));
    }

    fn check(subnet: &str, range: &str, aux: &[(&str, [u8; 4])]) -> String {
        let nets = subnet.split_whitespace().map(|net| net.parse().unwrap());
        let spec = NetworkSpec {
            subnets: nets.filter_map(Subnet::new).collect(),
            ip_ranges: range.split_whitespace().map(|range| range.parse().unwrap()).collect(),
            aux_addresses: aux.iter().map(|(name, at)| ((*name).into(), (*at).into())).collect(),
            ..NetworkSpec::default()
        };
        spec.check_ipam().map_or_else(|fault| fault.message, |()| "ok".into())
    }

    #[test]
    fn ranges_and_addresses_must_lie_in_the_subnet() {
        let own = [("router", [10, 5, 0, 200])];
        assert_eq!(check("", "", &[]), "ok");
        assert_eq!(check("10.5.0.0/24", "10.5.0.128/25", &own), "ok");
        assert_eq!(check("", "10.5.0.0/25", &[]), "no matching subnet for range 10.5.0.0/25");
        assert_eq!(check("", "", &own), "no matching subnet for aux-address");
        for (range, aux, expected) in [
            ("10.6.0.0/25", &[][..], "parent subnet 10.5.0.0/24 doesn't contain ip-range"),
            ("10.5.0.0/16", &[], "CIDR block is bigger than its parent subnet 10.5.0.0/24"),
            ("10.5.0.7/25", &[], "invalid ip-range 10.5.0.7/25: it should be 10.5.0.0/25"),
            ("", &[("b", [10, 6, 0, 1])], "invalid auxiliary address b: parent subnet"),
            ("", &[("b", [10, 5, 0, 1])], "invalid auxiliary address b: 10.5.0.1 is the gateway's"),
        ] {
            let said = check("10.5.0.0/24", range, aux);
            assert!(said.starts_with("invalid network config:\n"), "{said}");
            assert!(said.contains(expected), "{said}");
        }
    }

    #[test]
    fn a_network_has_at_most_one_subnet_of_each_family() {
        assert_eq!(check("10.5.0.0/24 fd00:5::/64", "fd00:5::100/120 10.5.0.0/25", &[]), "ok");
        assert_eq!(check("fd00:5::/64", "fd00:5::100/120", &[]), "ok");
        for two in ["10.5.0.0/24 10.6.0.0/24", "fd00:5::/64 10.5.0.0/24 fd00:6::/64"] {
            assert!(check(two, "", &[]).contains("more than one subnet of a family"), "{two}");
        }
        let outside = check("10.5.0.0/24 fd00:5::/64", "fd00:6::/120", &[]);
        assert!(outside.contains("parent subnet fd00:5::/64 doesn't contain"), "{outside}");
        let other = check("10.5.0.0/24", "fd00:6::/120", &[]);
        assert_eq!(other, "no matching subnet for range fd00:6::/120");
    }

    /// A network as it was written when it had one subnet of IPv4.
    #[derive(Serialize)]
    struct Former {
        subnet: Option<FormerSubnet>,
        last_address: Option<Ipv4Addr>,
        spec: FormerSpec,
    }

    #[derive(Clone, Copy, Serialize)]
    struct FormerSubnet {
        net: Ipv4Net,
        gateway: Ipv4Addr,
    }

    #[derive(Serialize)]
    struct FormerSpec {
        subnet: Option<FormerSubnet>,
        ip_range: Option<Ipv4Net>,
        aux_addresses: BTreeMap<String, Ipv4Addr>,
    }

    #[test]
    fn a_network_of_one_subnet_is_read_as_it_was_written() {
        let (net, address) = ("10.5.0.0/24".parse().unwrap(), Ipv4Addr::new(10, 5, 0, 7));
        let given = FormerSubnet { net, gateway: Ipv4Addr::new(10, 5, 0, 1) };
        for (subnet, last_address) in [(Some(given), Some(address)), (None, None)] {
            let aux_addresses = BTreeMap::from([("router".to_owned(), address)]);
            let spec = FormerSpec { subnet, ip_range: subnet.map(|it| it.net), aux_addresses };
            let bytes = msgpack::encode(&Former { subnet, last_address, spec }).unwrap();
            let read: Network = msgpack::decode(&bytes).unwrap();
            let subnets: Vec<Subnet> =
                subnet.into_iter().filter_map(|_| Subnet::new(net.into())).collect();
            assert_eq!(read.subnets, subnets);
            assert_eq!(read.last_addresses.v4, last_address);
            assert_eq!(read.spec.ip_ranges.len(), subnets.len());
            assert_eq!(read.spec.subnets, subnets);
            assert_eq!(read.spec.aux_addresses["router"], address.into());
            let again = msgpack::encode(&read).unwrap();
            assert_eq!(msgpack::decode::<Network>(&again).unwrap(), read);
        }
    }
}
