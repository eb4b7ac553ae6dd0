//! Networks of the cluster.

use crate::{Fault, Labels, Meta, NetworkId};
use ipnet::Ipv4Net;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::net::Ipv4Addr;

/// A network: the user's spec and what the allocator gave it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Network {
    pub id: NetworkId,
    pub meta: Meta,
    pub spec: NetworkSpec,
    /// The VXLAN network identifier, from 4097; 0 until allocated. 4096 is the ingress network's.
    pub vni: u32,
    /// `None` until allocated.
    pub subnet: Option<Subnet>,
    /// The address that was handed out last: the next one is looked for after it, so that an
    /// address that was just given back rests.
    pub last_address: Option<Ipv4Addr>,
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
    /// `None`: the allocator takes one from the cluster's pool.
    pub subnet: Option<Subnet>,
    /// The part of the subnet that addresses are handed out from; `None`: all of it.
    pub ip_range: Option<Ipv4Net>,
    /// Addresses of the subnet that are never handed out, by the names that users gave them.
    pub aux_addresses: BTreeMap<String, Ipv4Addr>,
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

/// An IPv4 network with its gateway address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Subnet {
    pub net: Ipv4Net,
    /// The first address where the user names none.
    pub gateway: Ipv4Addr,
}

impl Default for Subnet {
    fn default() -> Self {
        Self { net: Ipv4Net::default(), gateway: Ipv4Addr::UNSPECIFIED }
    }
}

impl NetworkSpec {
    /// Says what is wrong with the range and the addresses beside the subnet, in Docker's words.
    ///
    /// # Errors
    /// [`Fault::invalid`] with all that is wrong, one a line.
    pub fn check_ipam(&self) -> Result<(), Fault> {
        let Some(Subnet { net, gateway }) = self.subnet else {
            return match self.ip_range {
                Some(range) => Err(Fault::invalid(format!("no matching subnet for range {range}"))),
                None if self.aux_addresses.is_empty() => Ok(()),
                None => Err(Fault::invalid("no matching subnet for aux-address")),
            };
        };
        let mut wrong = Vec::new();
        if let Some(range) = self.ip_range {
            let text = format!("invalid ip-range {range}");
            if range.prefix_len() < net.prefix_len() {
                wrong.push(format!("{text}: CIDR block is bigger than its parent subnet {net}"));
            }
            if range != range.trunc() {
                wrong.push(format!("{text}: it should be {}", range.trunc()));
            }
            if !net.contains(&range) && !range.contains(&net) {
                wrong.push(format!("{text}: parent subnet {net} doesn't contain ip-range"));
            }
        }
        for (name, address) in &self.aux_addresses {
            let text = format!("invalid auxiliary address {name}");
            if !net.contains(address) {
                wrong.push(format!("{text}: parent subnet {net} doesn't contain this address"));
            }
            if *address == gateway {
                wrong.push(format!("{text}: {address} is the gateway's"));
            }
        }
        if wrong.is_empty() {
            return Ok(());
        }
        Err(Fault::invalid(format!("invalid network config:\n{}", wrong.join("\n"))))
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
        let net: Option<Ipv4Net> = subnet.parse().ok();
        let spec = NetworkSpec {
            subnet: net.and_then(|net| Some(Subnet { net, gateway: net.hosts().next()? })),
            ip_range: range.parse().ok(),
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
}
